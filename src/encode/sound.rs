//! Sound to the features that CLAP takes, equal to transformers'.
//!
//! | module | what |
//! |---|---|
//! | [`wave`] | wav, mp4 and other files to mono samples, a piece at a time |
//! | `container` | which container a file is |
//! | `decoded` | decoded sound, by symphonia or by the ffmpeg program |
//! | `wav` | where the samples of a WAV file are |
//! | [`resample`] | to another rate, at any place |
//! | [`fft`] | power spectra of real frames |
//! | [`mel`] | banks of triangular filters |
//! | [`features`] | repeat-padding and log-mel |
//! | [`patch`] | log-mel patches of YAMNet |

pub(crate) mod container;
mod decoded;
pub mod features;
pub mod fft;
pub mod mel;
pub mod patch;
pub mod resample;
mod wav;
pub mod wave;

pub use features::{SoundFeatures, SoundSettings};
pub use patch::Patches;
pub use wave::Wave;
