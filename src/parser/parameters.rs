//! The named parameters of a network: their initial values, and reading them from and writing them to a checkpoint.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::noise::Noise;
use super::weights::Weights;

/// The number added to the variance in a layer norm, as in PyTorch.
const EPSILON: f64 = 1e-5;

/// The initial values of a parameter, as in PyTorch's modules.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// Uniform between ± 1 / sqrt(width of the input).
    Linear(i64),
    /// Xavier uniform.
    Attention,
    /// All zeros.
    Zero,
    /// All ones.
    One,
}

/// A parameter before it has values: name, shape and initial values.
pub type Declared = (String, Vec<i64>, Start);

/// Declares the weight `[to, from]` and the bias `[to]` of a linear map.
pub fn linear(declared: &mut Vec<Declared>, name: &str, from: i64, to: i64) {
    declared.push((format!("{name}.weight"), vec![to, from], Start::Linear(from)));
    declared.push((format!("{name}.bias"), vec![to], Start::Linear(from)));
}

/// Declares the weight and the bias of a layer norm over `width` values, `[width]` each.
pub fn norm(declared: &mut Vec<Declared>, name: &str, width: i64) {
    declared.push((format!("{name}.weight"), vec![width], Start::One));
    declared.push((format!("{name}.bias"), vec![width], Start::Zero));
}

/// The parameters of a network, by name.
#[derive(Debug)]
pub struct Parameters(BTreeMap<String, Tensor>);

impl Parameters {
    /// Makes random parameters. They are drawn in the order of `declared` from the stream of `seed` and epoch 0.
    ///
    /// # Errors
    /// Returns [`NetworkError::Torch`] if the device has no memory left.
    pub fn random(declared: &[Declared], seed: u64, device: Device) -> Result<Parameters, NetworkError> {
        let mut noise = Noise::new(seed, 0);
        let mut parameters = BTreeMap::new();
        for (name, shape, start) in declared {
            let begin = match start {
                Start::Linear(width) => noise.uniform(shape, (*width as f64).sqrt().recip()),
                Start::Attention => noise.uniform(shape, (6.0 / (shape[0] + shape[1]) as f64).sqrt()),
                Start::Zero => Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?,
                Start::One => Tensor::f_ones(shape, (Kind::Float, Device::Cpu))?,
            };
            parameters.insert(name.clone(), begin.f_to_device(device)?.set_requires_grad(true));
        }
        Ok(Parameters(parameters))
    }

    /// Takes the declared parameters out of `weights`. F16, BF16 and F64 become F32. A parameter of `optional` that
    /// is missing in the weights becomes zero.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] or [`WeightsProblem::Shape`] if a parameter is missing or has another
    /// shape.
    pub fn take(
        declared: Vec<Declared>,
        weights: &mut Weights,
        device: Device,
        optional: &[&str],
    ) -> Result<Parameters, WeightsProblem> {
        let mut parameters = BTreeMap::new();
        for (name, shape, _) in declared {
            let tensor = match weights.take(&name) {
                Err(_) if optional.contains(&&*name) => Tensor::zeros(&shape, (Kind::Float, Device::Cpu)),
                tensor => tensor?,
            };
            if tensor.size() != shape {
                return Err(WeightsProblem::Shape {
                    name,
                    found: tensor.size(),
                    expected: format!("{shape:?}"),
                });
            }
            let tensor = tensor
                .f_to_device(device)
                .and_then(|tensor| tensor.f_to_kind(Kind::Float))
                .map_err(|error| WeightsProblem::Format(error.to_string()))?;
            if tensor.isfinite().all().double_value(&[]) == 0.0 {
                // Every probability would be NaN.
                return Err(WeightsProblem::Format(format!(
                    "tensor `{name}` has values that are NaN or infinite, expected finite ones: the training that wrote it \
                     diverged"
                )));
            }
            parameters.insert(name, tensor.detach().set_requires_grad(true));
        }
        Ok(Parameters(parameters))
    }

    /// The parameter of this name.
    ///
    /// # Panics
    /// Panics if no parameter of this name was declared.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    /// The device of the parameters.
    ///
    /// # Panics
    /// Panics if no parameter was declared.
    pub fn device(&self) -> Device {
        let first = self.0.values().next();
        first.expect("a network has at least one parameter").device()
    }

    /// The parameters that an optimizer changes: all except those of `unused`.
    pub fn trainable(&self, unused: &[&str]) -> Vec<(String, Tensor)> {
        let used = self.0.iter().filter(|(name, _)| !unused.contains(&name.as_str()));
        used.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    /// All parameters, for a checkpoint.
    pub fn weights(&self, metadata: BTreeMap<String, String>) -> Weights {
        let tensor = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach());
        Weights {
            tensors: self.0.iter().map(tensor).collect(),
            metadata,
        }
    }

    /// Applies the linear map of this name, `[.., from]` to `[.., to]`.
    pub fn linear(&self, name: &str, x: &Tensor) -> Tensor {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        x.linear(self.get(&weight), Some(self.get(&bias)))
    }

    /// Applies the layer norm of this name over the last axis. The result has the shape of `x`.
    pub fn norm(&self, name: &str, x: &Tensor) -> Tensor {
        let weight = self.get(&format!("{name}.weight"));
        let bias = self.get(&format!("{name}.bias"));
        x.layer_norm(weight.size(), Some(weight), Some(bias), EPSILON, false)
    }
}

/// The sizes of the matrix of this name in a checkpoint.
///
/// # Errors
/// Returns [`WeightsProblem::Missing`] if there is no such tensor, and [`WeightsProblem::Shape`] if it does not have
/// two axes.
pub fn matrix(weights: &Weights, name: &str) -> Result<(i64, i64), WeightsProblem> {
    let tensor = weights.tensors.get(name).ok_or_else(|| weights.missing(name))?;
    tensor.size2().map_err(|_| WeightsProblem::Shape {
        name: name.to_owned(),
        found: tensor.size(),
        expected: "two axes".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_no_numbers_are_refused_by_name() {
        let taken = |value: f32| {
            let mut weights = Weights::default();
            let tensor = Tensor::from_slice(&[1.0, value]);
            weights.tensors.insert("norm.weight".to_owned(), tensor);
            let declared = vec![("norm.weight".to_owned(), vec![2], Start::One)];
            Parameters::take(declared, &mut weights, Device::Cpu, &[])
        };
        assert!(taken(2.0).is_ok());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let refused = taken(value).err().unwrap().to_string();
            assert!(
                refused.starts_with("tensor `norm.weight` has values that are NaN or infinite"),
                "{refused}"
            );
        }
    }
}
