//! The interface of a network: `trait Parser` to run a network, `trait Network` to make one.
//!
//! ```text
//! registry ── name ──▶ Network::build, Network::load ──▶ dyn Parser ──┬─ forward ──▶ loss, probabilities
//!                                                                    └─ weights ──▶ checkpoint
//! ```
//!
//! A new network is one file that implements both traits, and one line in [`registry`](super::registry). Settings
//! files, checkpoints, the training loop and the tables of a store need no change.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::noise::Noise;
use super::weights::Weights;

/// The sizes of a network that the data set decides: widths of the features and number of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSizes {
    /// Da, the width of audio features (VGGish: 128).
    pub audio: i64,
    /// Dv, the width of visual features (ResNet-152: 2048).
    pub visual: i64,
    /// Ds, the width of clip features (R(2+1)D: 512); `None` if the network takes no clip features.
    pub clips: Option<i64>,
    /// C, the number of classes.
    pub classes: i64,
}

impl NetworkSizes {
    /// Checks that each size is from 1 to 16777216.
    ///
    /// # Errors
    /// Returns [`NetworkError::Config`] if a size is outside this range.
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
/// Returns [`NetworkError::Config`] with the first size that is outside this range.
pub fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), NetworkError> {
    match sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
        Some((name, size)) => Err(NetworkError::Config(format!(
            "network: {name} is {size}, expected 1 to 16777216"
        ))),
        None => Ok(()),
    }
}

/// The metadata key of the number of attention heads in a checkpoint.
pub const HEADS: &str = "heads";

/// The number of attention heads in the metadata of a checkpoint; `None` if the metadata does not have it.
///
/// # Errors
/// Returns [`WeightsProblem::Format`] if the value is not a whole number.
pub fn heads_of(weights: &Weights) -> Result<Option<i64>, WeightsProblem> {
    let read = |heads: &String| {
        heads.parse().map_err(|_| {
            WeightsProblem::Format(format!("metadata: {HEADS} is `{heads}`, expected a whole number"))
        })
    };
    weights.metadata.get(HEADS).map(read).transpose()
}

/// Checks the settings of an encoder with attention: its widths, its number of layers, its heads and its dropout.
///
/// # Errors
/// Returns [`NetworkError::Config`] with the setting, its value and what was expected.
pub fn check_encoder(
    hidden: i64,
    feedforward: i64,
    layers: usize,
    (heads, dropout): (i64, f64),
) -> Result<(), NetworkError> {
    check_sizes(&[
        ("hidden", hidden),
        ("feedforward", feedforward),
        ("layers", i64::try_from(layers).unwrap_or(i64::MAX)),
        ("heads", heads),
    ])?;
    if hidden % heads != 0 {
        return Err(NetworkError::Config(format!(
            "network: {heads} heads do not divide the hidden size {hidden}"
        )));
    }
    if !(0.0..1.0).contains(&dropout) {
        return Err(NetworkError::Config(format!(
            "network: dropout is {dropout}, expected at least 0 and below 1"
        )));
    }
    Ok(())
}

/// A batch of B videos of at most T segments.
#[derive(Debug)]
pub struct ParserInputs {
    /// Audio features, `[B, T, Da]`.
    pub audio: Tensor,
    /// Visual features, `[B, T, Dv]`.
    pub visual: Tensor,
    /// Clip features, `[B, T, Ds]`, if the network takes them.
    pub clips: Option<Tensor>,
    /// `[B, T]`, true past the end of a video; `None` if every video has T segments.
    pub padding: Option<Tensor>,
}

/// The probabilities of a batch. Values past the end of a video are undefined.
#[derive(Debug)]
pub struct ParserOutputs {
    /// P^a, `[B, T, C]`: audio, by segment.
    pub segment_audio: Tensor,
    /// P^v, `[B, T, C]`: visual, by segment.
    pub segment_visual: Tensor,
    /// p^a, `[B, C]`: audio, whole video.
    pub audio: Tensor,
    /// p^v, `[B, C]`: visual, whole video.
    pub visual: Tensor,
    /// p, `[B, C]`: both modalities, whole video.
    pub video: Tensor,
}

/// A network with its parameters, for training and prediction.
pub trait Parser: fmt::Debug + Send {
    /// The name of the network in the registry, in settings and in checkpoints.
    fn name(&self) -> &'static str;

    /// The widths of the features that the network takes, and the number of its classes.
    fn sizes(&self) -> &NetworkSizes;

    /// The device of the parameters.
    fn device(&self) -> Device;

    /// The parameters that training changes, with their names, in a fixed order. The tensors share memory with the
    /// network.
    fn trainable(&self) -> Vec<(String, Tensor)>;

    /// All parameters. The metadata has the values that [`Network::load`] cannot derive from the shapes.
    fn weights(&self) -> Weights;

    /// Takes this network's parameters out of `weights` and replaces its own parameters by them.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] or [`WeightsProblem::Shape`] if a parameter is missing or has another
    /// shape. The network is unusable after an error.
    fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem>;

    /// Computes the probabilities of a batch. Only training passes `noise`; dropout draws its masks from it.
    ///
    /// # Panics
    /// Panics if the inputs do not have the shapes of [`ParserInputs`] for the network's sizes.
    fn forward(&self, inputs: &ParserInputs, noise: Option<&mut Noise>) -> ParserOutputs;
}

/// The key in a checkpoint's metadata that holds the name of its network.
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

/// How a network is made. The registry has one entry for each type that implements this trait.
pub trait Network: Parser + Sized + 'static {
    /// The value of the key `network` in settings and checkpoints.
    const NAME: &'static str;
    /// The keys of [`Network::Settings`], in the order in which settings are written.
    const KEYS: &'static [&'static str];
    /// The network's own settings. Each has a default.
    type Settings: Serialize + DeserializeOwned + Default;

    /// Checks the network's settings.
    ///
    /// # Errors
    /// Returns [`NetworkError::Config`] with the key, the value and what was expected, if a setting is wrong.
    fn check(settings: &Self::Settings) -> Result<(), NetworkError>;

    /// Makes a network with random weights, which depend on `seed` only.
    ///
    /// # Errors
    /// Returns the same errors as [`Network::check`], and [`NetworkError::Torch`] if the device has no memory left.
    fn build(
        settings: &Self::Settings,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<Self, NetworkError>;

    /// Makes a network with parameters out of `weights`. Its sizes follow from the shapes.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] or [`WeightsProblem::Shape`] if a parameter is missing or has a wrong
    /// shape, and [`WeightsProblem::Format`] if the sizes do not describe a valid network.
    fn load(weights: &mut Weights, device: Device) -> Result<Self, WeightsProblem>;
}
