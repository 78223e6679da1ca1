//! Simulated CLIP-like and CLAP-like features for any annotation folder.
//!
//! ```text
//! annotations ─ videos ┬─ tracks: dense truth, or sampled ─┐
//! seed ───────────────┼─ space: geometry per modality ────┴─ features ─▶ visual/ audio/ (npy or Parquet)
//!                     │     └─▶ visual_text.npy, audio_text.npy
//!                     └─▶ truth/ (what was simulated), annotations/ (of a subset or of copies)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`videos`] | which videos are simulated, and under which names |
//! | [`tracks`] | what happens when: dense truth where there is some, sampled tracks elsewhere |
//! | [`sample`] | the built-in annotation set |
//! | [`space`] | the geometry: text embeddings, and features for given tracks |
//! | [`write`](mod@write) | the files |
//!
//! Everything here is our own definition (grade D): it imitates the geometry of real embeddings so that the whole
//! pipeline has something of the right shape to work on. Scores on it say nothing about real data.
//! `docs/synth.md` has the formulas and how the constants were chosen.
//!
//! The same annotations, options and seed give the same bytes, whatever the number of threads: each video and
//! modality has a random number generator of its own, seeded by the seed and the video's name.

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

/// What kept features from being simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// The output folder holds something that `synth` did not write.
    #[error(
        "`{path}` is not empty and holds no `{marker}`, expected a new folder, or one that `synth` wrote before",
        marker = write::MARKER
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// No video is left to simulate.
    #[error("the annotations have no video to simulate, expected at least one")]
    NoVideos,
    /// Two videos would have the same name.
    #[error("copy {copy} of video `{video}` would be named `{name}` as another is; choose another --repeat")]
    NameTwice {
        /// Video that is copied.
        video: String,
        /// Which copy, from 1.
        copy: u32,
        /// The name.
        name: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl SynthError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SynthError {
        let path = path.to_owned();
        move |source| SynthError::Ingest(IngestError::Io { action, path, source })
    }
}

/// A generator of its own for `what` of `name`: independent of every other, and of the order they are used in.
fn generator(seed: u64, what: &str, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, video_hash(what), video_hash(name), name.len() as u64];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
