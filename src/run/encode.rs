//! Media of a run to features in its store, which `label` and the parser then read.

use std::path::Path;

use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreError};

use super::config::Config;
use super::{RunError, RunRequest};
use crate::encode::media::{Cut, Pick};
use crate::encode::{self, EncodeListener, EncodedMedia};
use crate::label;

/// Encodes what is not encoded yet; none: the run has no media. To be held until it is labelled.
///
/// # Errors
/// As [`encode::into_store`].
pub fn media(
    config: &Config,
    request: &RunRequest,
    listener: &EncodeListener,
) -> Result<Option<EncodedMedia>, RunError> {
    let asked = asked(config, request);
    let encoded = asked.map(|asked| encode::into_store(&config.store, &asked, listener));
    Ok(encoded.transpose()?)
}

fn asked(config: &Config, request: &RunRequest) -> Option<encode::EncodeRequest> {
    let media = config.media.as_ref()?;
    let (clip, clap) = (media.clip.clone(), media.clap.clone());
    Some(encode::EncodeRequest {
        annotations: Some(config.data.annotations.clone()),
        classes: config.data.classes.clone(),
        splits: config.data.splits.clone(),
        prompts: media.prompts.clone(),
        cut: Cut {
            seconds: config.data.segment_seconds,
            frame_rate: media.frame_rate,
            count: media.segments,
            pick: Pick::Centre,
        },
        ffmpeg: media.ffmpeg.clone(),
        ..encode::EncodeRequest::new(media.paths.clone(), clip, clap, request.threads.get())
    })
}

/// Makes what a run before encoded the inputs of labelling: what a plan goes by, which encodes nothing. False: there are
/// media that are not encoded as they are asked.
///
/// # Errors
/// [`RunError::Encode`] for media or models that cannot be used at all, [`RunError::Config`] for a report that does not
/// read back.
pub fn known(
    config: &Config,
    request: &RunRequest,
    labelling: &mut label::LabelRequest,
) -> Result<bool, RunError> {
    let Some(asked) = asked(config, request) else {
        return Ok(true);
    };
    let name = encode::plan::name_of(&asked)?;
    let folder = &match Store::open(&config.store) {
        Ok(store) => store.encoded_dir(),
        Err(StoreError::NoStore { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let report = folder.join("encode.json");
    if !report.exists() {
        return Ok(false);
    }
    let bad = |path: &Path, problem: String| RunError::Config {
        path: path.to_owned(),
        problem,
    };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| bad(path, error.to_string()));
    let said: Report =
        serde_json::from_str(&read(&report)?).map_err(|error| bad(&report, error.to_string()))?;
    if said.asked != Some(name) {
        return Ok(false);
    }
    let rejects = folder.join("rejects.jsonl");
    let rows: Result<Vec<RejectRow>, _> = read(&rejects)?.lines().map(serde_json::from_str).collect();
    let rows = rows.map_err(|error| bad(&rejects, error.to_string()))?;
    let scales: Vec<(Modality, f64)> = (said.features.iter())
        .map(|written| (written.modality, written.logit_scale))
        .collect();
    encode::store::fill(folder, &scales, rows, labelling);
    Ok(true)
}

/// What encoding says of itself, as far as labelling looks at it.
#[derive(serde::Deserialize)]
struct Report {
    /// None: of an older program.
    asked: Option<String>,
    features: Vec<Features>,
}

#[derive(serde::Deserialize)]
struct Features {
    modality: Modality,
    logit_scale: f64,
}
