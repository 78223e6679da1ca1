//! A second network, which exists in tests only: one linear map per modality, and means over the segments.
//!
//! A new network needs no more than this: one file, and one line in the registry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::parser::error::{NetworkError, WeightsProblem};
use crate::parser::network::{Network, NetworkSizes, Parser, ParserInputs, ParserOutputs};
use crate::parser::noise::Noise;
use crate::parser::parameters::{Declared, Parameters, linear, matrix};
use crate::parser::weights::Weights;

/// The settings of the network.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::parser) struct LinearSettings {
    /// The probability that a feature is dropped in training.
    input_dropout: f64,
}

/// The network.
#[derive(Debug)]
pub(in crate::parser) struct LinearNetwork {
    sizes: NetworkSizes,
    input_dropout: f64,
    parameters: Parameters,
}

fn declared(sizes: &NetworkSizes) -> Vec<Declared> {
    let mut declared = Vec::new();
    linear(&mut declared, "audio", sizes.audio, sizes.classes);
    linear(&mut declared, "visual", sizes.visual, sizes.classes);
    declared
}

impl Network for LinearNetwork {
    const NAME: &'static str = "linear";
    const KEYS: &'static [&'static str] = &["input_dropout"];
    type Settings = LinearSettings;

    fn check(settings: &LinearSettings) -> Result<(), NetworkError> {
        match (0.0..1.0).contains(&settings.input_dropout) {
            true => Ok(()),
            false => Err(NetworkError::Config(format!(
                "input_dropout is {}, expected at least 0 and below 1",
                settings.input_dropout
            ))),
        }
    }

    fn build(
        settings: &LinearSettings,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<LinearNetwork, NetworkError> {
        Ok(LinearNetwork {
            parameters: Parameters::random(&declared(sizes), seed, device)?,
            sizes: sizes.clone(),
            input_dropout: settings.input_dropout,
        })
    }

    fn load(weights: &mut Weights, device: Device) -> Result<LinearNetwork, WeightsProblem> {
        let ((classes, audio), (_, visual)) = (
            matrix(weights, "audio.weight")?,
            matrix(weights, "visual.weight")?,
        );
        let sizes = NetworkSizes {
            audio,
            visual,
            clips: None,
            classes,
        };
        Ok(LinearNetwork {
            parameters: Parameters::take(declared(&sizes), weights, device, &[])?,
            sizes,
            input_dropout: 0.0,
        })
    }
}

impl Parser for LinearNetwork {
    fn name(&self) -> &'static str {
        LinearNetwork::NAME
    }

    fn sizes(&self) -> &NetworkSizes {
        &self.sizes
    }

    fn device(&self) -> Device {
        self.parameters.device()
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        self.parameters.trainable(&[])
    }

    fn weights(&self) -> Weights {
        self.parameters.weights(BTreeMap::new())
    }

    fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem> {
        self.parameters = Parameters::take(declared(&self.sizes), weights, self.device(), &[])?;
        Ok(())
    }

    fn forward(&self, inputs: &ParserInputs, mut noise: Option<&mut Noise>) -> ParserOutputs {
        let mut segments = |name: &str, x: &Tensor| {
            let x = match noise.as_deref_mut() {
                Some(noise) => noise.drop(x, self.input_dropout),
                None => x.shallow_clone(),
            };
            self.parameters.linear(name, &x).sigmoid() // [B, T, C]
        };
        let (audio, visual) = (
            segments("audio", &inputs.audio),
            segments("visual", &inputs.visual),
        );
        let mean = |x: &Tensor| x.mean_dim(1, false, None::<Kind>); // [B, C]
        let (of_audio, of_visual) = (mean(&audio), mean(&visual));
        ParserOutputs {
            video: (&of_audio + &of_visual) / 2.0,
            audio: of_audio,
            visual: of_visual,
            segment_audio: audio,
            segment_visual: visual,
        }
    }
}
