//! Turns sound into the features that CLAP takes, equal to the features that transformers computes.
//!
//! | module | purpose |
//! |---|---|
//! | [`wave`] | reads wav, mp4 and other files as mono samples, one piece at a time |
//! | `container` | finds out the container of a file |
//! | `decoded` | decodes sound with symphonia or with the ffmpeg program |
//! | `wav` | finds the samples in a WAV file |
//! | `pcm` | reads uncompressed samples of a WAV file |
//! | [`resample`] | converts samples to another rate, starting at any sample |
//! | [`fft`] | computes power spectra of real frames |
//! | [`mel`] | computes banks of triangular filters |
//! | [`features`] | computes CLAP's features: repeat-padding, then log-mel |
//! | [`patch`] | computes YAMNet's log-mel patches |

pub(crate) mod container;
mod decoded;
pub mod features;
pub mod fft;
pub mod mel;
pub mod patch;
mod pcm;
pub mod resample;
mod wav;
pub mod wave;

pub use features::{SoundFeatures, SoundSettings};
pub use patch::Patches;
pub use wave::Wave;
