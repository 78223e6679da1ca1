//! Encodes media into embeddings in memory, for `parse`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

use super::cache::Cache;
use super::error::EncodeError;
use super::flow;
use super::media::Media;
use super::model::{Encoder, ModelFolder};
use super::operator::SessionPool;
use super::plan;
use super::run::{EncodeListener, EncodeProgress, EncodeRequest, Open, reading, sessions};

/// The embeddings of one video and modality.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoEmbeddings {
    /// T, the number of segments.
    pub segments: u32,
    /// `[T, D]`, row-major; each row has unit length.
    pub values: Vec<f32>,
}

/// The embeddings of several videos.
#[derive(Debug, Default)]
pub struct Embedded {
    /// The embeddings by position of the video and modality. A modality that a video lacks, or that cannot be read, is
    /// absent.
    pub embeddings: BTreeMap<(usize, Modality), VideoEmbeddings>,
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
}

/// Encoders that are open, and encode one group of media after the other.
pub struct Embedder {
    request: EncodeRequest,
    folders: Vec<ModelFolder>,
    open: Vec<Open>,
    /// Sessions for the first group. Later groups open their own, because the threads of a group own its sessions.
    ready: Option<Vec<(Modality, Encoder)>>,
}

impl Embedder {
    /// Opens the encoders of the request. Its media and its output folder are not used.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if a model folder cannot be used.
    pub fn open(request: EncodeRequest) -> Result<Embedder, EncodeError> {
        let folders = plan::models(&request)?;
        let (open, ready) = sessions(&request, &folders)?;
        Ok(Embedder {
            request,
            folders,
            open,
            ready: Some(ready),
        })
    }

    /// The encoders, the visual one first, each with its model folder.
    pub fn encoders(&self) -> impl Iterator<Item = (&ModelFolder, &Open)> {
        self.folders.iter().zip(&self.open)
    }

    /// Encodes media. The folder `cache` keeps what is encoded, so that the same call after a kill encodes only the rest.
    ///
    /// # Errors
    /// Returns [`EncodeError`] as [`super::run`] does; media that cannot be used become rejected rows.
    pub fn embed(
        &mut self,
        media: &[Media],
        cache: &Path,
        listener: &EncodeListener,
    ) -> Result<Embedded, EncodeError> {
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => sessions(&self.request, &self.folders)?.1,
        };
        let cache = Arc::new(Cache::open(cache)?);
        let pool = SessionPool::start(ready, &cache);
        let reading = reading(&self.request, &self.open);
        let media = Arc::new(media.to_vec());
        // `Planned` is the caller's, who knows the number of all media.
        let own = listener.clone();
        let quiet: EncodeListener = Arc::new(move |progress| {
            if !matches!(progress, EncodeProgress::Planned { .. }) {
                own(progress);
            }
        });
        let results = flow::run(reading, &cache, &media, pool, self.request.threads, &quiet)?;
        let mut embedded = Embedded {
            rejects: results.rejects,
            ..Embedded::default()
        };
        for ((video, modality), key) in &results.keys {
            let width = self
                .open
                .iter()
                .find(|open| open.modality == *modality)
                .map_or(0, |open| open.width);
            let mut values = Vec::new();
            // A segment that the model failed on has a rejected row of its own, and the modality is then absent.
            if let Some(segments) = cache.rows(key, width, &mut values) {
                embedded
                    .embeddings
                    .insert((*video, *modality), VideoEmbeddings { segments, values });
            }
        }
        Ok(embedded)
    }
}
