//! What a network is to the rest of the program: `trait Parser` to run one, `trait Network` to make one.
//!
//! ```text
//! registry ── name ──▶ Network::build, Network::load ──▶ dyn Parser ──┬─ forward ──▶ loss, probabilities
//!                                                                    └─ weights ──▶ checkpoint
//! ```
//!
//! A new network is one file that implements both traits, and one line in [`registry`](super::registry). Settings files,
//! checkpoints, the training loop and the tables of a store need no change.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::noise::Noise;
use super::weights::Weights;

/// What the data set decides about a network: widths of the features, number of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSizes {
    /// Da, width of audio features (VGGish 128).
    pub audio: i64,
    /// Dv, width of visual features (ResNet-152 2048).
    pub visual: i64,
    /// Ds, width of clip features (R(2+1)D 512); `None`: the network takes no clip features.
    pub clips: Option<i64>,
    /// C, number of classes.
    pub classes: i64,
}

impl NetworkSizes {
    /// # Errors
    /// [`NetworkError::Config`] for a size outside 1 to 16777216.
    pub fn check(&self) -> Result<(), NetworkError> {
        check_sizes(&[
            ("audio", self.audio),
            ("visual", self.visual),
            ("clips", self.clips.unwrap_or(1)),
            ("classes", self.classes),
        ])
    }
}

/// Checks that each named size is from 1 to 16777216.
///
/// # Errors
/// [`NetworkError::Config`] with the first size that is not.
pub fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), NetworkError> {
    match sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
        Some((name, size)) => Err(NetworkError::Config(format!(
            "network: {name} is {size}, expected 1 to 16777216"
        ))),
        None => Ok(()),
    }
}

/// A batch of B videos of at most T segments.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, T, Da]`.
    pub audio: Tensor,
    /// `[B, T, Dv]`.
    pub visual: Tensor,
    /// `[B, T, Ds]`, if the network takes clip features.
    pub clips: Option<Tensor>,
    /// `[B, T]`, true past the end of a video; `None`: every video has T segments.
    pub padding: Option<Tensor>,
}

/// Probabilities of a batch. Values past the end of a video are undefined.
#[derive(Debug)]
pub struct Outputs {
    /// P^a, `[B, T, C]`.
    pub segment_audio: Tensor,
    /// P^v, `[B, T, C]`.
    pub segment_visual: Tensor,
    /// p^a, `[B, C]`.
    pub audio: Tensor,
    /// p^v, `[B, C]`.
    pub visual: Tensor,
    /// p, `[B, C]`.
    pub video: Tensor,
}

/// A network with its parameters: what training and prediction use.
pub trait Parser: fmt::Debug + Send {
    /// The name in the registry, as settings and checkpoints write it.
    fn name(&self) -> &'static str;

    /// Widths of the features that the network takes, and the number of its classes.
    fn sizes(&self) -> &NetworkSizes;

    /// Device that the parameters are on.
    fn device(&self) -> Device;

    /// The parameters that training moves, by name, in a fixed order. The tensors share memory with the network.
    fn trainable(&self) -> Vec<(String, Tensor)>;

    /// All parameters, and as metadata what [`Network::load`] cannot read off their shapes.
    fn weights(&self) -> Weights;

    /// Takes this network's parameters out of `weights` and replaces its own by them.
    ///
    /// # Errors
    /// [`WeightsProblem::Missing`] and [`WeightsProblem::Shape`]. The network is unusable after an error.
    fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem>;

    /// Probabilities of a batch. `noise` is given in training only; dropout draws its masks from it.
    ///
    /// # Panics
    /// If the inputs do not have the shapes that [`Inputs`] gives for the network's sizes.
    fn forward(&self, inputs: &Inputs, noise: Option<&mut Noise>) -> Outputs;
}

/// Key of a checkpoint's metadata under which it names its network.
pub(super) const NAME_KEY: &str = "network";

impl dyn Parser + '_ {
    /// [`Parser::weights`] with the network's name in the metadata, as a checkpoint stores them.
    pub fn named_weights(&self) -> Weights {
        let mut weights = self.weights();
        let name = self.name().to_owned();
        weights.metadata.insert(NAME_KEY.to_owned(), name);
        weights
    }
}

/// How a network is made: the registry holds one entry for each type that implements this trait.
pub trait Network: Parser + Sized + 'static {
    /// Value of the key `network` in settings and checkpoints.
    const NAME: &'static str;
    /// Keys of [`Network::Settings`], in the order in which settings are written.
    const KEYS: &'static [&'static str];
    /// The network's own settings, with defaults for all of them.
    type Settings: Serialize + DeserializeOwned + Default;

    /// # Errors
    /// [`NetworkError::Config`] for settings that make no network: key, value and what was expected.
    fn check(settings: &Self::Settings) -> Result<(), NetworkError>;

    /// A network with random weights, which `seed` decides.
    ///
    /// # Errors
    /// As [`Network::check`]; [`NetworkError::Torch`] if the device has no memory left.
    fn build(
        settings: &Self::Settings,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<Self, NetworkError>;

    /// A network with the parameters that it takes out of `weights`. Sizes are read off the shapes.
    ///
    /// # Errors
    /// [`WeightsProblem::Missing`], [`WeightsProblem::Shape`], and shapes that make no network.
    fn load(weights: &mut Weights, device: Device) -> Result<Self, WeightsProblem>;
}
