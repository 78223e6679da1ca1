//! Adam and AdamW with a state that can be saved. tch's own optimizers keep their state inside libtorch, where it
//! cannot be saved.
//!
//! Source: `torch/optim/adam.py` and `adamw.py`, `_single_tensor_adam`. The results are equal except for the last
//! bits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::weights::Weights;

/// The two forms of weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// The decay is added to the gradient.
    Adam,
    /// The decay shrinks the weights directly.
    Adamw,
}

/// The constants of Adam. The defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamConfig {
    /// Adam or AdamW.
    pub name: OptimizerName,
    /// The share of the old mean in the new mean of gradients.
    pub beta1: f64,
    /// The share of the old mean in the new mean of squared gradients.
    pub beta2: f64,
    /// A number added to the root, so that the divisor is never 0.
    pub epsilon: f64,
    /// The weight decay; 0 turns it off.
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    fn default() -> AdamConfig {
        AdamConfig {
            name: OptimizerName::Adam,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The state of Adam for named parameters.
#[derive(Debug)]
pub struct Adam {
    config: AdamConfig,
    steps: i64,
    /// The mean of gradients and the mean of squared gradients, by parameter.
    moments: BTreeMap<String, (Tensor, Tensor)>,
}

const MEAN: &str = "adam.mean.";
const SQUARE: &str = "adam.square.";
const STEPS: &str = "adam.steps";

impl Adam {
    /// An optimizer before its first step.
    pub fn new(config: AdamConfig) -> Adam {
        Adam {
            config,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Moves every parameter against its gradient. Parameters and gradients must have the same order.
    pub fn step(&mut self, parameters: &[(String, Tensor)], gradients: &[Tensor], rate: f64) {
        self.steps += 1;
        let AdamConfig {
            name,
            beta1,
            beta2,
            epsilon,
            weight_decay,
        } = self.config;
        let power = |beta: f64| 1.0 - beta.powi(i32::try_from(self.steps).unwrap_or(i32::MAX));
        let (bias1, bias2) = (power(beta1), power(beta2).sqrt());
        tch::no_grad(|| {
            for ((key, parameter), gradient) in parameters.iter().zip(gradients) {
                let mut parameter = parameter.shallow_clone();
                let mut gradient = gradient.shallow_clone();
                if weight_decay != 0.0 {
                    match name {
                        OptimizerName::Adam => gradient += &parameter * weight_decay,
                        OptimizerName::Adamw => drop(parameter.g_mul_scalar_(1.0 - rate * weight_decay)),
                    }
                }
                let (mean, square) = self
                    .moments
                    .entry(key.clone())
                    .or_insert_with(|| (parameter.zeros_like(), parameter.zeros_like()));
                let _ = mean.lerp_(&gradient, 1.0 - beta1);
                let _ = square.lerp_(&gradient.square(), 1.0 - beta2);
                if rate == 0.0 {
                    continue;
                }
                // tch's `addcdiv_` takes no factor, so the rate goes into the divisor. Multiplying by the rate would
                // need one more pass over memory.
                let factor = -bias1 / rate;
                let mut root = square.sqrt();
                let _ = root.g_mul_scalar_(factor / bias2);
                let _ = root.g_add_scalar_(factor * epsilon);
                let _ = parameter.addcdiv_(mean, &root);
            }
        });
    }

    /// Adds the optimizer's state to weights that will be saved.
    pub fn save(&self, weights: &mut Weights) {
        for (key, (mean, square)) in &self.moments {
            weights
                .tensors
                .insert(format!("{MEAN}{key}"), mean.shallow_clone());
            weights
                .tensors
                .insert(format!("{SQUARE}{key}"), square.shallow_clone());
        }
        weights
            .tensors
            .insert(STEPS.to_owned(), Tensor::from_slice(&[self.steps]));
    }

    /// Takes the state that [`Adam::save`] added out of the weights.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] or [`WeightsProblem::Shape`] if a part of the state is missing or has
    /// another shape.
    pub fn restore(
        config: AdamConfig,
        weights: &mut Weights,
        parameters: &[(String, Tensor)],
    ) -> Result<Adam, WeightsProblem> {
        let steps = weights.take(STEPS)?;
        let steps = i64::try_from(&steps).map_err(|error| WeightsProblem::Format(error.to_string()))?;
        let mut moments = BTreeMap::new();
        for (key, parameter) in parameters {
            let mut moment = |prefix: &str| {
                let name = format!("{prefix}{key}");
                let tensor = weights.take(&name)?;
                if tensor.size() != parameter.size() || tensor.kind() != Kind::Float {
                    return Err(WeightsProblem::Shape {
                        name,
                        found: tensor.size(),
                        expected: format!("{:?} of f32", parameter.size()),
                    });
                }
                Ok(tensor.to_device(parameter.device()))
            };
            moments.insert(key.clone(), (moment(MEAN)?, moment(SQUARE)?));
        }
        Ok(Adam {
            config,
            steps,
            moments,
        })
    }
}

/// Returns the gradients of a loss by each parameter, and the common norm of all gradients before scaling. The
/// gradients are scaled down so that their common norm is at most `clip`.
///
/// # Errors
/// Returns [`NetworkError::Torch`] if libtorch fails.
pub fn gradients(
    loss: &Tensor,
    parameters: &[(String, Tensor)],
    clip: Option<f64>,
) -> Result<(Vec<Tensor>, f64), NetworkError> {
    let inputs: Vec<&Tensor> = parameters.iter().map(|(_, parameter)| parameter).collect();
    let mut gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
    let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
    let norm = f64::try_from(Tensor::f_stack(&norms, 0)?.norm())?;
    if let Some(clip) = clip.filter(|clip| norm > *clip) {
        for gradient in &mut gradients {
            let _ = gradient.g_mul_scalar_(clip / (norm + 1e-6));
        }
    }
    Ok((gradients, norm))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_single_tensor_adam` for one number, in f64.
    fn by_hand(config: AdamConfig, mut x: f64, steps: &[(f64, f64)]) -> f64 {
        let (mut mean, mut square) = (0.0, 0.0);
        for (step, &(gradient, rate)) in (1..).zip(steps) {
            let mut gradient = gradient;
            match config.name {
                OptimizerName::Adam => gradient += config.weight_decay * x,
                OptimizerName::Adamw => x *= 1.0 - rate * config.weight_decay,
            }
            mean = config.beta1 * mean + (1.0 - config.beta1) * gradient;
            square = config.beta2 * square + (1.0 - config.beta2) * gradient * gradient;
            let root = (square / (1.0 - config.beta2.powi(step))).sqrt() + config.epsilon;
            x -= rate * mean / (1.0 - config.beta1.powi(step)) / root;
        }
        x
    }

    #[test]
    fn both_ways_of_decay_and_a_rate_of_zero_are_those_of_the_definition() {
        // The second element never has a gradient. The rate ends at 0, like that of schedule `cosine`.
        let steps = [(0.5, 0.01), (-2.0, 0.02), (1e-4, 0.015), (3.0, 0.0)];
        for name in [OptimizerName::Adam, OptimizerName::Adamw] {
            for weight_decay in [0.0, 0.1] {
                let config = AdamConfig {
                    name,
                    weight_decay,
                    ..AdamConfig::default()
                };
                let parameter = Tensor::from_slice(&[0.7_f32, -0.3]).set_requires_grad(true);
                let named = [("x".to_owned(), parameter.shallow_clone())];
                let mut adam = Adam::new(config);
                for (gradient, rate) in steps {
                    adam.step(&named, &[Tensor::from_slice(&[gradient as f32, 0.0])], rate);
                }
                let found = Vec::<f32>::try_from(parameter.detach()).unwrap();
                let still = steps.map(|(_, rate)| (0.0, rate));
                let expected = [by_hand(config, 0.7, &steps), by_hand(config, -0.3, &still)];
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-6,
                        "{config:?}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn gradients_are_scaled_down_to_the_norm_and_never_up() {
        let x = Tensor::from_slice(&[3.0_f32, 4.0]).set_requires_grad(true);
        let named = [("x".to_owned(), x.shallow_clone())];
        let of = |clip| {
            let loss = (&x * &x).sum(Kind::Float) * 0.5;
            let (gradients, norm) = gradients(&loss, &named, clip).unwrap();
            (Vec::<f32>::try_from(&gradients[0]).unwrap(), norm)
        };
        assert_eq!(of(None), (vec![3.0, 4.0], 5.0));
        assert_eq!(of(Some(6.0)), (vec![3.0, 4.0], 5.0));
        let (clipped, norm) = of(Some(1.0));
        assert_eq!(norm, 5.0, "the norm before");
        assert!(
            (clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6,
            "{clipped:?}"
        );
    }
}
