//! Parsers: networks that predict which events a video's segments hold, their training, and prediction with them.
//!
//! ```text
//! store version ── videos, labels ───┐
//! features ── pooled, cached, mapped ┴─ batches ── trainer ── epoch ──┬─ predict ── validate ──▶ table `epochs`
//!                                                                     └─ probabilities ───────▶ table `predictions`
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`han`] | HAN, the hybrid attention network |
//! | [`loss`] | the loss of a batch: basic, richness and segment terms |
//! | [`optimizer`] | Adam and AdamW with a state that can be saved |
//! | [`noise`] | random numbers named by seed and epoch: initial weights, dropout, order |
//! | [`weights`] | named tensors in safetensors files and PyTorch state dicts |
//! | [`settings`] | settings of a training: a TOML file over the defaults, flags over both |
//! | [`features`] | features pooled to one row per segment, in memory-mapped files |
//! | [`data`] | videos, labels and features as batches |
//! | [`trainer`] | a network in training, from memory to memory |
//! | [`training`] | one training with its checkpoints |
//! | [`probabilities`] | probabilities of videos |
//! | [`validate`] | scores of predictions by both protocols |
//! | [`record`] | epochs and predictions as store versions |
//! | [`mod@train`] | `vaplan train`: from a store to a store |
//! | [`predict`] | `vaplan predict`: a checkpoint on features |
//! | [`ablate`] | `vaplan ablate`: the paper's ablation over several seeds |
//! | [`error`] | errors of all of these |

pub mod ablate;
pub mod data;
pub mod error;
pub mod features;
#[cfg(test)]
mod golden;
pub mod han;
pub mod loss;
pub mod noise;
pub mod optimizer;
pub mod predict;
pub mod probabilities;
mod pt;
pub mod record;
mod safetensors;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod train;
pub mod trainer;
pub mod training;
pub mod validate;
pub mod weights;

pub use data::{Dataset, FeaturePaths};
pub use error::{NetworkError, TrainError, WeightsProblem};
pub use han::{Han, HanConfig, Inputs, Outputs};
pub use loss::{Loss, LossConfig, TargetName, Targets};
pub use noise::Noise;
pub use optimizer::{Adam, AdamConfig, OptimizerName};
pub use settings::{Gate, Supervision, TrainSettings};
pub use trainer::Trainer;
pub use weights::Weights;

/// The device that a flag names: `cpu`, `cuda` or `cuda:1`.
///
/// # Errors
/// What was found and what would do; CUDA where libtorch sees no GPU.
pub fn device(name: &str) -> Result<tch::Device, String> {
    let number = match name {
        "cpu" => return Ok(tch::Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    let number: usize = number.ok_or_else(|| format!("device is `{name}`, expected cpu, cuda or cuda:N"))?;
    let found = tch::Cuda::device_count();
    if usize::try_from(found).is_ok_and(|found| number < found) {
        return Ok(tch::Device::Cuda(number));
    }
    Err(format!(
        "device is `{name}`, but libtorch sees {found} GPUs: expected LIBTORCH at a CUDA build of libtorch"
    ))
}

/// Sets on how many threads libtorch works within one operation, for the whole process, and says how many there are.
///
/// Training shares the cores with the dataflow's workers, and libtorch's OpenMP threads wait by spinning: with more
/// threads than free cores a step takes 3 to 30 times as long (measured; `OMP_WAIT_POLICY=PASSIVE` in
/// `.cargo/config.toml` softens it). So nobody leaves it to libtorch, which would take every core. Zero counts as one.
///
/// ```
/// assert_eq!(vaplan::parser::set_threads(1), 1);
/// ```
pub fn set_threads(threads: usize) -> usize {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Begins the program anew with OpenMP threads that sleep while they wait, unless `OMP_WAIT_POLICY` says how they wait:
/// they spin otherwise, and take the cores from the dataflow's workers (the demo took 96 to 219 s instead of 22 on two
/// cores). OpenMP reads the variable when libtorch is loaded, before `main`.
///
/// To be called before anything is done; the process stays the same.
pub fn wait_asleep() {
    use std::os::unix::process::CommandExt;
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else {
        return;
    };
    // Started by the loader, it is the loader.
    if program
        .file_name()
        .is_none_or(|file| file.as_encoded_bytes().starts_with(b"ld-"))
    {
        return;
    }
    let mut again = std::process::Command::new(program);
    again.arg0(name).args(arguments).env(POLICY, "PASSIVE");
    // It returns only where it failed: all is as right then, but slower.
    let _ = again.exec();
}

#[cfg(test)]
mod threads_tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn libtorch_adds_and_differentiates() {
        set_threads(1);
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.5]).set_requires_grad(true);
        let sum = (&x * &x).sum(Kind::Float);
        sum.backward();
        assert_eq!(f64::try_from(&sum).unwrap(), 17.25);
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [2.0, 4.0, 7.0]);
    }

    #[test]
    fn threads_are_as_set() {
        assert_eq!(set_threads(0), 1);
    }
}
