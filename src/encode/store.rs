//! Encodes media into the folder of a store, where `label` and later `relabel` read the features.
//!
//! One dataflow encodes the media, writes shards into the store, and scores these shards while other media are still decoded
//! ([`streamed`](super::streamed)). Labelling follows, from the staged scores; with `--commit-every`, finished videos are
//! labelled and committed before. After a kill, a run continues from the cache and the shards, and later changes of the
//! store read the shards. Media that are in the cache are not encoded again.

use std::path::{Path, PathBuf};

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Store, WriteLock};

use super::error::EncodeError;
use super::run::{EncodeListener, EncodeRequest, EncodeSummary, WrittenFeatures, locked};
use super::streamed::StreamedLabelling;
use crate::engine::flow::Alone;
use crate::label;
use crate::world::settings::RuleName;

/// The features of a store's media. The value holds a write lock: no other process can encode into the store until
/// the value is dropped.
#[derive(Debug)]
pub struct EncodedMedia {
    /// The summary of the encoding run.
    pub summary: EncodeSummary,
    folder: PathBuf,
    _lock: WriteLock,
}

/// Encodes the media of the request into a store. The function creates the store if it does not exist, and ignores
/// [`EncodeRequest::out`]. `labelling` is the labelling that the caller makes of the features afterwards; the features of its
/// encoded modalities may be missing.
///
/// # Errors
/// Returns the errors of [`run`](super::run::run). Returns [`EncodeError::Settings`] if the request has no annotations
/// or asks for npy files. Returns [`EncodeError::Store`] if the store cannot be opened or created.
pub fn into_store(
    store: &Path,
    request: &EncodeRequest,
    labelling: &StreamedLabelling,
    listener: &EncodeListener,
) -> Result<EncodedMedia, EncodeError> {
    if request.annotations.is_none() || request.form.npy {
        return Err(EncodeError::Settings(
            "features of a store are shards of annotated videos, expected annotations and no npy".to_owned(),
        ));
    }
    let store = Store::create(store)?;
    let folder = store.encoded_dir();
    let request = EncodeRequest {
        out: folder.clone(),
        ..request.clone()
    };
    if store.is_remote() && labelling.commit_every.is_some() {
        return Err(EncodeError::Settings(
            "--commit-every needs a store on a local disk: early versions would name features that are not uploaded yet. \
             Leave the option out"
                .to_owned(),
        ));
    }
    // The features of a store at a URL are scored after they are uploaded, because the store records their URLs.
    let streamed = (!store.is_remote()).then_some(labelling);
    let (summary, lock) = locked(&request, streamed, &mut Alone, listener)?;
    for written in &summary.written {
        let modality = written.modality;
        for name in [modality.to_string(), format!("{modality}_text.parquet")] {
            store.keep_input(&folder.join(name))?;
        }
    }
    Ok(EncodedMedia {
        summary,
        folder: store.kept_input(&folder),
        _lock: lock,
    })
}

impl StreamedLabelling {
    /// The same labelling with the features and texts that the folder will have.
    pub(super) fn filled(
        &self,
        folder: &Path,
        written: &[WrittenFeatures],
        rejects: &[RejectRow],
    ) -> StreamedLabelling {
        let mut filled = self.clone();
        let scales: Vec<(Modality, f64)> = written
            .iter()
            .map(|own| (own.modality, own.logit_scale))
            .collect();
        fill(folder, &scales, rejects.to_vec(), &mut filled.request);
        filled
    }
}

impl EncodedMedia {
    /// Sets the encoded features as the inputs of a labelling request, and passes on the rejected rows.
    ///
    /// With rule `logit` and without a thresholds file, the function also sets the model's scale in the request, unless
    /// the request has a scale already.
    pub fn fill(&self, request: &mut label::LabelRequest) {
        let written = self.summary.written.iter();
        let scales: Vec<(Modality, f64)> = written.map(|own| (own.modality, own.logit_scale)).collect();
        fill(&self.folder, &scales, self.summary.rejects.clone(), request);
    }
}

/// Does the work of [`EncodedMedia::fill`] for any folder; `scales` has each modality that the folder has features of,
/// with the scale of its model.
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
