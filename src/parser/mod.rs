//! Parsers: networks that predict which events a video's segments hold, their training, and prediction with them.
//!
//! ```text
//! store version ── videos, labels ───┐
//! features ── pooled, cached, mapped ┴─ batches ── trainer ── epoch ──┬─ predict ── validate ──▶ table `epochs`
//!                                                                     └─ probabilities ───────▶ table `predictions`
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`network`] | `trait Parser` and `trait Network`, which every network implements |
//! | [`registry`] | every network by name, and the settings of the named network |
//! | [`parameters`] | named parameters of a network |
//! | [`han`] | HAN, the hybrid attention network |
//! | [`transformer`] | a temporal transformer |
//! | [`attention`] | multi-head attention, which the networks share |
//! | [`loss`] | the loss of a batch: basic, richness and segment terms |
//! | [`variants`] | variants of the loss and its targets from later work |
//! | [`average`] | a moving average of the weights, which makes the predictions |
//! | [`optimizer`] | Adam and AdamW with a state that can be saved |
//! | [`noise`] | random numbers by seed and epoch: initial weights, dropout, order |
//! | [`weights`] | named tensors in safetensors files and PyTorch state dicts |
//! | [`settings`] | settings of a training: defaults, a TOML file over them, flags over both |
//! | [`features`] | features pooled to one row per segment, in memory-mapped files |
//! | [`data`] | videos, labels and features as batches |
//! | `gain` | predictions of a network for the choice of a denoising rule |
//! | [`trainer`] | a network in training, without any file |
//! | [`training`] | one training with its checkpoints |
//! | [`probabilities`] | probabilities of videos |
//! | [`validate`] | scores of predictions by both protocols |
//! | [`record`] | epochs and predictions as store versions |
//! | [`mod@train`] | `vaplan train`: trains on a store and writes to it |
//! | [`predict`] | `vaplan predict`: runs a checkpoint on features |
//! | [`model`] | the folder of a trained model, which `parse` applies |
//! | [`ablate`] | `vaplan ablate`: the paper's ablation over several seeds |
//! | [`error`] | the errors of these modules |

pub mod ablate;
pub mod attention;
pub mod average;
pub mod data;
pub mod error;
pub mod features;
mod gain;
#[cfg(test)]
mod golden;
pub mod han;
pub mod loss;
pub mod mmil;
pub mod model;
pub mod network;
pub mod noise;
pub mod optimizer;
pub mod parameters;
pub mod predict;
pub mod predict_cluster;
pub mod probabilities;
mod pt;
pub mod record;
pub mod registry;
mod safetensors;
pub mod settings;
mod tagged;
#[cfg(test)]
mod tests;
pub mod train;
pub mod trainer;
pub mod training;
pub mod transformer;
pub mod validate;
pub mod variants;
pub mod weights;

pub use data::{Dataset, FeaturePaths};
pub use error::{NetworkError, TrainError, WeightsProblem};
pub use han::{Han, HanSettings};
pub use loss::{Loss, LossConfig, RichnessClasses, RichnessTerms, TargetName, Targets};
pub use model::{ModelDescription, ModelSource, TrainedModel, write_model};
pub use network::{Network, NetworkSizes, Parser, ParserInputs, ParserOutputs};
pub use noise::Noise;
pub use optimizer::{Adam, AdamConfig, OptimizerName};
pub use registry::NetworkSettings;
pub use settings::{Gate, Supervision, TrainSettings};
pub use trainer::Trainer;
pub use transformer::{TemporalTransformer, TransformerSettings};
pub use weights::Weights;

/// Returns the device of this name: `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// Returns a message with the name and what was expected, if the name is unknown or libtorch does not see the GPU.
pub fn device(name: &str) -> Result<tch::Device, String> {
    let number = match name {
        "cpu" => return Ok(tch::Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    let number: usize = number.ok_or_else(|| format!("device is `{name}`, expected cpu, cuda or cuda:N"))?;
    Ok(tch::Device::Cuda(number))
}

/// Checks that libtorch sees the device.
///
/// # Errors
/// Returns a message with the number of GPUs that libtorch sees.
pub fn available(device: tch::Device) -> Result<tch::Device, String> {
    let tch::Device::Cuda(number) = device else {
        return Ok(device);
    };
    let found = tch::Cuda::device_count();
    if usize::try_from(found).is_ok_and(|found| number < found) {
        return Ok(device);
    }
    Err(format!(
        "device is `cuda:{number}`, but libtorch sees {found} GPUs: expected LIBTORCH at a CUDA build of libtorch"
    ))
}

#[cfg(test)]
mod libtorch_tests {
    use tch::{Kind, Tensor};

    #[test]
    fn libtorch_adds_and_differentiates() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.5]).set_requires_grad(true);
        let sum = (&x * &x).sum(Kind::Float);
        sum.backward();
        assert_eq!(f64::try_from(&sum).unwrap(), 17.25);
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [2.0, 4.0, 7.0]);
    }
}
