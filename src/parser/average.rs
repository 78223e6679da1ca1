//! A moving average of the weights of a network in training. The averaged network makes the predictions.
//!
//! Adam's weights move around a good point from step to step. Their average over the last steps is closer to this point,
//! and depends less on the last batches.
//!
//! Source: averaging (Polyak and Juditsky 1992), exponential moving average as the mean teacher (Tarvainen and Valpola
//! 2017, grade C), with the decay of its first steps.

use tch::{Device, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::network::{NetworkSizes, Parser};
use super::settings::TrainSettings;
use super::weights::Weights;

/// Prefix of the names of averaged parameters in a checkpoint.
const PREFIX: &str = "average.";
const STEPS: &str = "average.steps";

/// The averaged network, and the number of steps that it has seen.
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    steps: i64,
    parser: Box<dyn Parser>,
}

impl WeightAverage {
    /// An average before its first step. Returns `None` if the settings turn averaging off.
    ///
    /// # Errors
    /// Returns [`NetworkError`] if the network cannot be made.
    pub fn new(
        settings: &TrainSettings,
        sizes: &NetworkSizes,
        device: Device,
    ) -> Result<Option<WeightAverage>, NetworkError> {
        if settings.weight_average == 0.0 {
            return Ok(None);
        }
        Ok(Some(WeightAverage {
            decay: settings.weight_average,
            steps: 0,
            parser: settings.network.build(sizes, settings.seed, device)?,
        }))
    }

    /// The averaged network.
    pub fn parser(&self) -> &dyn Parser {
        &*self.parser
    }

    /// Moves the average towards these parameters.
    ///
    /// The share of the old average is the decay d, and (1 + n) / (10 + n) in step n while this is smaller. Otherwise
    /// the random weights of the start would be part of the average for the first 1 / (1 − d) steps.
    pub fn step(&mut self, parameters: &[(String, Tensor)]) {
        self.steps += 1;
        let begun = (1.0 + self.steps as f64) / (10.0 + self.steps as f64);
        let share = 1.0 - self.decay.min(begun);
        tch::no_grad(|| {
            for ((_, mut average), (_, parameter)) in self.parser.trainable().into_iter().zip(parameters) {
                let _ = average.lerp_(parameter, share);
            }
        });
    }

    /// Begins with these parameters instead of random ones.
    ///
    /// The decay of the first steps is again that of [`WeightAverage::step`], so that the average follows the last ninth of the
    /// steps of the new training. With the full decay from the first step on, a short training would hardly move the average.
    pub fn begin_with(&mut self, parameters: &[(String, Tensor)]) {
        tch::no_grad(|| {
            for ((_, mut average), (_, parameter)) in self.parser.trainable().into_iter().zip(parameters) {
                average.copy_(parameter);
            }
        });
        self.steps = 0;
    }

    /// Adds the average to weights that will be saved.
    pub fn save(&self, weights: &mut Weights) {
        for (name, tensor) in self.parser.trainable() {
            weights.tensors.insert(format!("{PREFIX}{name}"), tensor);
        }
        let steps = Tensor::from_slice(&[self.steps]);
        weights.tensors.insert(STEPS.to_owned(), steps);
    }

    /// Takes the average that [`WeightAverage::save`] added out of the weights.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] or [`WeightsProblem::Shape`] if a part is missing or has another shape.
    pub fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem> {
        let steps = weights.take(STEPS)?;
        self.steps = i64::try_from(&steps).map_err(|error| WeightsProblem::Format(error.to_string()))?;
        // Parameters that training never changes are equal in both networks.
        let mut own = self.parser.weights();
        for (name, _) in self.parser.trainable() {
            let averaged = weights.take(&format!("{PREFIX}{name}"))?;
            own.tensors.insert(name, averaged);
        }
        self.parser.restore(&mut own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> NetworkSizes {
        NetworkSizes {
            audio: 3,
            visual: 4,
            clips: None,
            classes: 2,
        }
    }

    fn settings(weight_average: f64) -> TrainSettings {
        let small = "hidden = 4\nfeedforward = 4\n";
        TrainSettings {
            weight_average,
            ..toml::from_str(small).unwrap()
        }
    }

    fn first(parser: &dyn Parser) -> f64 {
        let (_, tensor) = &parser.trainable()[0];
        tensor.flatten(0, -1).double_value(&[0])
    }

    #[test]
    fn the_average_follows_with_the_decay_and_faster_at_the_start() {
        let mut average = WeightAverage::new(&settings(0.5), &sizes(), Device::Cpu)
            .unwrap()
            .unwrap();
        let network = settings(0.5).network.build(&sizes(), 2, Device::Cpu).unwrap();
        let (from, to) = (first(average.parser()), first(&*network));
        let parameters = network.trainable();
        // Shares of the old average: 2 / 11, 3 / 12, and so on, at most 0.5.
        let mut expected = from;
        for step in 1..=12 {
            average.step(&parameters);
            let kept = f64::min(0.5, (1.0 + f64::from(step)) / (10.0 + f64::from(step)));
            expected = kept * expected + (1.0 - kept) * to;
            let found = first(average.parser());
            assert!(
                (found - expected).abs() < 1e-6,
                "step {step}: {found}, {expected}"
            );
        }
    }

    #[test]
    fn a_saved_average_continues_and_a_missing_part_is_named() {
        let make = || {
            WeightAverage::new(&settings(0.9), &sizes(), Device::Cpu)
                .unwrap()
                .unwrap()
        };
        let network = settings(0.9).network.build(&sizes(), 2, Device::Cpu).unwrap();
        let (mut straight, mut stopped) = (make(), make());
        straight.step(&network.trainable());
        stopped.step(&network.trainable());
        let mut weights = Weights::default();
        stopped.save(&mut weights);
        let mut continued = make();
        continued.restore(&mut weights).unwrap();
        assert!(weights.tensors.is_empty(), "all parts are taken");
        straight.step(&network.trainable());
        continued.step(&network.trainable());
        assert_eq!(first(straight.parser()), first(continued.parser()));
        let missing = make().restore(&mut Weights::default()).unwrap_err().to_string();
        assert!(missing.contains("average.steps"), "{missing}");
    }

    #[test]
    fn an_average_that_begins_with_trained_weights_follows_as_fast_as_a_new_one() {
        let make = || {
            let average = WeightAverage::new(&settings(0.998), &sizes(), Device::Cpu).unwrap();
            average.unwrap()
        };
        let [from, to] = [2, 3].map(|seed| {
            settings(0.998)
                .network
                .build(&sizes(), seed, Device::Cpu)
                .unwrap()
        });
        let mut average = make();
        // Steps of an earlier training count for nothing.
        (0..100).for_each(|_| average.step(&to.trainable()));
        average.begin_with(&from.trainable());
        assert_eq!(first(average.parser()), first(&*from));
        average.step(&to.trainable());
        let expected = (2.0 * first(&*from) + 9.0 * first(&*to)) / 11.0;
        assert!((first(average.parser()) - expected).abs() < 1e-6);
        // After 300 steps, nothing of the old weights is left. The full decay would keep 0.998^300, or 55 %.
        (1..300).for_each(|_| average.step(&to.trainable()));
        let left = (first(average.parser()) - first(&*to)) / (first(&*from) - first(&*to));
        assert!(left.abs() < 1e-3, "{left}");
    }

    #[test]
    fn zero_turns_it_off() {
        assert!(
            WeightAverage::new(&settings(0.0), &sizes(), Device::Cpu)
                .unwrap()
                .is_none()
        );
    }
}
