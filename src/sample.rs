//! The built-in sample: made-up annotations of 80 videos with simulated features.

use std::path::Path;

use crate::ingest::annotations::Annotations;
use crate::ingest::shards::FloatType;
use crate::label::LabelRequest;
use crate::synth::encoders::SynthPreset;
use crate::synth::sample::AnnotationSet;
use crate::synth::{SynthError, write};

/// Writes the built-in sample below `folder`, and gives the request that labels it into the store `folder/store`.
///
/// The sample has 80 videos (40 train, 16 val, 24 test) of 10 segments, LLP's 25 classes, and features of width 32.
/// Scores on it say nothing about real data.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let request = vaplan::sample(folder.path())?;
/// let summary = vaplan::label(&request, &vaplan::Listener::silent())?;
/// let counts = summary.done.expect("the store was empty");
/// assert_eq!((counts.videos, counts.rejects), (80, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SynthError`] if a file cannot be written.
pub fn sample(folder: &Path) -> Result<LabelRequest, SynthError> {
    let annotations = folder.join("annotations");
    AnnotationSet::Sample.write(&annotations)?;
    let features = folder.join("features");
    let options = write::SynthOptions {
        out: features.clone(),
        videos: None,
        repeat: 1,
        width: 32,
        segments: 10,
        seed: 1,
        preset: SynthPreset::default(),
        parser: false,
        layout: write::SynthLayout::Npy,
        float: FloatType::F32,
        threads: 1,
    };
    write::run(&Annotations::read(&annotations)?, &options, &|_, _| ())?;
    Ok(LabelRequest::new(
        folder.join("store"),
        annotations,
        (features.join("visual"), features.join("visual_text.npy")),
        (features.join("audio"), features.join("audio_text.npy")),
    ))
}
