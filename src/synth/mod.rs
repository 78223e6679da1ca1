//! Simulated features for any annotation folder: CLIP-like and CLAP-like for labelling, others for the parser.
//!
//! ```text
//! annotations ─ videos ┬─ tracks: dense truth, or sampled ─┐
//! seed ───────────────┼─ space: geometry per encoder ─────┴─ features ─▶ visual/ audio/ parser/ (npy or Parquet)
//!                     │     └─▶ visual_text.npy, audio_text.npy
//!                     └─▶ truth/ (simulated events), annotations/ (if videos were left out or copied)
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`videos`] | which videos are simulated, and their names |
//! | [`tracks`] | when events happen: dense truth if a split has it, otherwise sampled tracks |
//! | [`sample`] | the built-in annotation set |
//! | [`ave`] | videos and annotations of AVE |
//! | [`encoders`] | what the features imitate: encoders, their constants, presets |
//! | [`space`] | the geometry: text embeddings, and features for given tracks |
//! | [`write`](mod@write) | the files |
//!
//! The simulation is a definition of this program (grade D). It imitates the geometry of real embeddings, so that the
//! whole pipeline can run on data of the right shape. Scores on simulated features say nothing about real data.
//! `docs/synth.md` has the formulas and explains how the constants were chosen.
//!
//! The same annotations, options and seed give the same bytes with any number of threads: each video and encoder has
//! its own random number generator, and the seed and the name of the video determine its state.

pub mod ave;
pub mod encoders;
pub mod sample;
pub mod space;
pub mod tracks;
pub mod videos;
pub mod write;

use std::io;
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use vaplan_schemas::ids::video_hash;

use crate::ingest::error::IngestError;

/// The reason why features cannot be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// The output folder has files, but not the marker file that `synth` writes.
    #[error(
        "`{path}` is not empty and holds no `{marker}`, expected a new folder, or one that `synth` wrote before",
        marker = write::MARKER
    )]
    NotOurs {
        /// Path of the output folder.
        path: PathBuf,
    },
    /// The annotations have no video to simulate, or every video was rejected.
    #[error("the annotations have no video to simulate, expected at least one")]
    NoVideos,
    /// Two videos would have the same key.
    #[error("copy {copy} of video `{video}` would be named `{name}` as another is; choose another --repeat")]
    NameTwice {
        /// Name of the video that is copied.
        video: String,
        /// Number of the copy, from 1.
        copy: u32,
        /// Name of the copy.
        name: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl SynthError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SynthError {
        let path = path.to_owned();
        move |source| SynthError::Ingest(IngestError::Io { action, path, source })
    }
}

/// A random number generator for the purpose `what` of `name`. Generators with different arguments are independent,
/// so that the order in which they are used does not change the results.
fn generator(seed: u64, what: &str, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, video_hash(what), video_hash(name), name.len() as u64];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
