//! Media straight into a store: their features lie in it, where `label` reads them, and `relabel` again.
//!
//! `label --media` is encoding and then labelling, two dataflows one after the other: shards are what both go on from
//! after a kill, and what a later change reads. What is encoded already is not encoded again.

use std::path::{Path, PathBuf};

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Store, WriteLock};

use super::error::EncodeError;
use super::run::{EncodeListener, EncodeRequest, EncodeSummary, locked};
use crate::label;
use crate::world::settings::RuleName;

/// Features of a store's media; no other process encodes into the store until it is dropped.
#[derive(Debug)]
pub struct EncodedMedia {
    /// What was done.
    pub summary: EncodeSummary,
    folder: PathBuf,
    _lock: WriteLock,
}

/// Encodes what is asked into a store, which is made where there is none; [`EncodeRequest::out`] is not looked at.
///
/// # Errors
/// As [`run`](super::run::run), and [`EncodeError::Settings`] without annotations, or for npy.
pub fn into_store(
    store: &Path,
    request: &EncodeRequest,
    listener: &EncodeListener,
) -> Result<EncodedMedia, EncodeError> {
    if request.annotations.is_none() || request.form.npy {
        return Err(EncodeError::Settings(
            "features of a store are shards of annotated videos, expected annotations and no npy".to_owned(),
        ));
    }
    let folder = Store::create(store)?.encoded_dir();
    let request = EncodeRequest {
        out: folder.clone(),
        ..request.clone()
    };
    let (summary, lock) = locked(&request, listener)?;
    Ok(EncodedMedia {
        summary,
        folder,
        _lock: lock,
    })
}

impl EncodedMedia {
    /// Makes the features that were encoded the inputs of a labelling run, and what was left out its rejects.
    ///
    /// With rule `logit`, the model's own scale counts where neither a flag nor a thresholds file may say one.
    pub fn fill(&self, request: &mut label::LabelRequest) {
        let written = self.summary.written.iter();
        let scales: Vec<(Modality, f64)> = written.map(|own| (own.modality, own.logit_scale)).collect();
        fill(&self.folder, &scales, self.summary.rejects.clone(), request);
    }
}

/// As [`EncodedMedia::fill`], of a folder that holds features of these modalities, whose models have these scales.
pub(crate) fn fill(
    folder: &Path,
    scales: &[(Modality, f64)],
    rejects: Vec<RejectRow>,
    request: &mut label::LabelRequest,
) {
    let settings = &mut request.settings;
    let own_scale = settings.rule == Some(RuleName::Logit) && settings.file.is_none();
    for &(modality, scale) in scales {
        let (features, text, asked) = match modality {
            Modality::Audio => (
                &mut request.audio,
                &mut request.audio_text,
                &mut settings.audio_scale,
            ),
            Modality::Visual => (
                &mut request.visual,
                &mut request.visual_text,
                &mut settings.visual_scale,
            ),
        };
        *features = folder.join(modality.as_str());
        *text = folder.join(format!("{modality}_text.parquet"));
        if own_scale {
            asked.get_or_insert(scale);
        }
    }
    request.left_out = rejects;
}
