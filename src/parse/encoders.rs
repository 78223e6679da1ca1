//! Opens the encoders that a model names, and refuses others.

use std::path::{Path, PathBuf};

use half::f16;
use vaplan_schemas::Modality;

use super::ParseRequest;
use super::error::{ParseError, flag};
use crate::encode::EncodeRequest;
use crate::encode::embed::Embedder;
use crate::encode::media::Cut;
use crate::encode::model::scores::ClassScores;
use crate::ingest::encoded::EncoderOrigin;
use crate::parser::TrainedModel;

/// Kind of an encoder that gives scores of classes.
const CLASSIFIER: &str = "classifier";

/// How media become the features that a model takes.
#[derive(Clone, Debug)]
pub struct EncodingPlan {
    /// The encoders, the cut, and how the encoders run.
    pub encode: EncodeRequest,
    /// The encoders as the model names them, for audio and visual. `None`: the model does not record the encoder.
    needed: [Option<EncoderOrigin>; 2],
    /// Da and Dv, the widths of the features.
    pub widths: [usize; 2],
    /// Whether the features of audio and visual were 16-bit floats in training.
    half: [bool; 2],
    /// For a model that was trained on the scores of a classifier: which scores belong to each class. Set once the classifier is
    /// open.
    scores: Option<ClassScores>,
}

/// Plans the encoding for a model. Opens no encoder.
///
/// # Errors
/// Returns [`ParseError::Unsuitable`] if the network takes features that no encoder of ours makes, and
/// [`ParseError::EncoderMissing`] if an encoder is not where the model says and its folder is not given.
pub fn plan(request: &ParseRequest, model: &TrainedModel) -> Result<EncodingPlan, ParseError> {
    let unsuitable = |problem: String| ParseError::Unsuitable {
        model: request.model.clone(),
        problem,
    };
    let sizes = model.parser.sizes();
    match (sizes.clips, request.clips.is_empty()) {
        (Some(width), true) => {
            return Err(unsuitable(format!(
                "takes clip features of width {width} beside its embeddings, such as those of R(2+1)D, which vaplan cannot make \
                 of media: compute them for these media, one npy file <video>.npy of shape (T, {width}) per video, and name the \
                 folder by --clips DIR; or train without --clips"
            )));
        }
        (None, false) => {
            return Err(unsuitable(
                "takes no clip features, expected no --clips".to_owned(),
            ));
        }
        _ => {}
    }
    let needed =
        [Modality::Audio, Modality::Visual].map(|modality| model.description.encoder(modality).cloned());
    let mut cuts: Vec<Cut> = Vec::new();
    for (origin, modality) in needed.iter().zip(Modality::ALL) {
        let Some(origin) = origin else { continue };
        if origin.kind == CLASSIFIER && origin.columns.is_none() {
            return Err(unsuitable(format!(
                "was trained on the scores of a classifier ({}) by an earlier program, which did not record the scores of each \
                 class: run `vaplan encode` again, and train on its features",
                origin.model.display()
            )));
        }
        let cut: Cut = serde_json::from_value(origin.cut.clone()).map_err(|error| {
            unsuitable(format!(
                "records a cut of its {modality} features that cannot be read: {error}"
            ))
        })?;
        cuts.push(cut);
    }
    let mut cut = cuts.first().cloned().unwrap_or_default();
    if let Some(other) = cuts
        .get(1)
        .filter(|other| (other.seconds, other.pick) != (cut.seconds, cut.pick))
    {
        return Err(unsuitable(format!(
            "was trained on audio features of {} s and visual features of {} s, expected one length",
            cut.seconds, other.seconds
        )));
    }
    cut.seconds = model.description.segment_seconds;
    // A training set can have a fixed number of segments; a new video has as many as its duration gives.
    cut.count = request.segments;
    cut.frame_rate = request.frame_rate.unwrap_or(cut.frame_rate);
    let [audio, visual] = &needed;
    let encode = EncodeRequest {
        clip: Some(place(
            request,
            Modality::Visual,
            &request.clip,
            (visual.as_ref(), sizes.visual),
        )?),
        clap: Some(place(
            request,
            Modality::Audio,
            &request.clap,
            (audio.as_ref(), sizes.audio),
        )?),
        cut,
        ..request.encoding.clone()
    };
    Ok(EncodingPlan {
        encode,
        half: [audio, visual].map(|origin| origin.as_ref().is_some_and(|origin| origin.float == "f16")),
        widths: [sizes.audio as usize, sizes.visual as usize],
        needed,
        scores: None,
    })
}

fn named(modality: Modality, origin: Option<&EncoderOrigin>, width: i64) -> String {
    match origin {
        Some(origin) => {
            let file = origin.model.file_name().unwrap_or_default().to_string_lossy();
            format!(
                "the {} encoder `{file}` with SHA-256 {}",
                origin.kind, origin.sha256
            )
        }
        None => format!("the encoder of its {modality} features, which gives {width} values per segment"),
    }
}

fn place(
    request: &ParseRequest,
    modality: Modality,
    given: &Option<PathBuf>,
    (origin, width): (Option<&EncoderOrigin>, i64),
) -> Result<PathBuf, ParseError> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let missing = |problem: String| ParseError::EncoderMissing {
        model: request.model.clone(),
        needed: named(modality, origin, width),
        problem,
        flag: flag(modality),
    };
    match origin {
        Some(origin) if origin.folder.is_dir() => Ok(origin.folder.clone()),
        Some(origin) => Err(missing(format!(
            "which is no longer in `{}`",
            origin.folder.display()
        ))),
        None => Err(missing(
            "but does not record it, because `vaplan encode` did not make these features".to_owned(),
        )),
    }
}

impl EncodingPlan {
    /// Checks that the open encoders are those that the model was trained with.
    ///
    /// # Errors
    /// Returns [`ParseError::EncoderChanged`] if the hash, the preparation or the width of an encoder differs.
    pub fn check(&mut self, request: &ParseRequest, embedder: &Embedder) -> Result<(), ParseError> {
        for (folder, open) in embedder.encoders() {
            let modality = open.modality;
            let (needed, width) = (
                self.needed[modality.index()].as_ref(),
                self.widths[modality.index()],
            );
            let changed = |problem: String| ParseError::EncoderChanged {
                model: request.model.clone(),
                needed: named(modality, needed, width as i64),
                found: folder.path.clone(),
                problem,
                flag: flag(modality),
            };
            if let Some(origin) = needed {
                if origin.sha256 != open.target.model {
                    let found = folder.media.file_name().unwrap_or_default().to_string_lossy();
                    return Err(changed(format!(
                        "has `{found}` with SHA-256 {}",
                        open.target.model
                    )));
                }
                let preparation = open.target.preparation.text();
                if origin.preparation != preparation {
                    return Err(changed(format!(
                        "prepares media by {preparation} (vaplan.toml, preprocessor_config.json), expected {}",
                        origin.preparation
                    )));
                }
            } else {
                tracing::warn!(
                    encoder = %folder.path.display(), %modality,
                    "the model does not record its encoder, so that only the width of the features is checked"
                );
            }
            let columns = needed.and_then(|origin| origin.columns.clone());
            let found = match columns {
                Some(columns) => {
                    let scores = ClassScores::of_columns(folder, open.width, columns).map_err(changed)?;
                    let found = scores.width();
                    self.scores = Some(scores);
                    found
                }
                None => open.width,
            };
            if found != width {
                return Err(changed(format!(
                    "gives {found} values per segment, expected {width}"
                )));
            }
        }
        Ok(())
    }

    /// Turns embeddings, or scores of a classifier, into the features of the training, rounded as on disk.
    pub fn features(&self, modality: Modality, embedded: Vec<f32>) -> Vec<f32> {
        let mut values = match &self.scores {
            Some(scores) if modality == Modality::Audio => scores.rows(&embedded),
            _ => embedded,
        };
        self.round(modality, &mut values);
        values
    }

    fn round(&self, modality: Modality, values: &mut [f32]) {
        if self.half[modality.index()] {
            for value in values {
                *value = f16::from_f32(*value).to_f32();
            }
        }
    }
}

/// The name of a path as users know it.
pub(super) fn shown(path: &Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}
