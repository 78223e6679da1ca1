//! Encodes the media of a run into features in the run's store. `label` and the parser then read these features.

use std::path::{Path, PathBuf};

use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreError};

use super::config::Config;
use super::{RunError, RunRequest};
use crate::encode::media::{Cut, Pick};
use crate::encode::{self, EncodeListener, EncodedMedia};
use crate::error::LabelError;
use crate::ingest::remote::local_copy;
use crate::label;

/// Encodes the media that are not encoded yet. `None` if the run has no media. The caller must hold the returned value
/// until the features are labelled and learnt, because it holds the lock of their folder.
///
/// # Errors
/// Returns the errors of [`encode::into_store`].
pub fn media(
    config: &Config,
    request: &RunRequest,
    labelling: &label::LabelRequest,
    listener: &EncodeListener,
) -> Result<Option<EncodedMedia>, RunError> {
    let asked = asked(config, request)?;
    let labelling = encode::StreamedLabelling {
        request: labelling.clone(),
        commit_every: request.commit_every,
    };
    let encoded = asked.map(|asked| encode::into_store(&config.store, &asked, &labelling, listener));
    Ok(encoded.transpose()?)
}

fn asked(config: &Config, request: &RunRequest) -> Result<Option<encode::EncodeRequest>, RunError> {
    let Some(media) = config.media.as_ref() else {
        return Ok(None);
    };
    let own = |path: &PathBuf| local_copy(path).map_err(LabelError::from);
    let (clip, clap) = (
        media.clip.as_ref().map(own).transpose()?,
        media.clap.as_ref().map(own).transpose()?,
    );
    let paths = media.paths.iter().map(own).collect::<Result<_, _>>()?;
    Ok(Some(encode::EncodeRequest {
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
        ..encode::EncodeRequest::new(paths, clip, clap, request.threads.get())
    }))
}

/// Fills the features that an earlier run encoded into the request of a labelling. A plan calls this function, because
/// a plan encodes nothing. Returns false if the run has media that are not encoded as the file asks for.
///
/// # Errors
/// Returns [`RunError::Encode`] if the media or models cannot be used. Returns [`RunError::Config`] if the report of
/// the encoding cannot be read.
pub fn known(
    config: &Config,
    request: &RunRequest,
    labelling: &mut label::LabelRequest,
) -> Result<bool, RunError> {
    let Some(mut asked) = asked(config, request)? else {
        return Ok(true);
    };
    let opened = match is_url(&config.store) {
        true => Store::create(&config.store),
        false => Store::open(&config.store),
    };
    let (folder, kept) = &match opened {
        Ok(store) => (store.encoded_dir(), store.kept_input(&store.encoded_dir())),
        Err(StoreError::NoStore { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // The memory of the media is in the folder.
    asked.out.clone_from(folder);
    let name = encode::plan::name_of(&asked)?;
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
    encode::store::fill(kept, &scales, rows, labelling);
    Ok(true)
}

/// The part of `encode.json` that labelling needs.
#[derive(serde::Deserialize)]
struct Report {
    /// Name of the plan that was encoded. `None` in files of older programs.
    asked: Option<String>,
    features: Vec<Features>,
}

#[derive(serde::Deserialize)]
struct Features {
    modality: Modality,
    logit_scale: f64,
}
