//! Segment features, from npy folders and Parquet shards, as batches of whole videos.

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

/// Features of several whole videos of one modality, row-major `[rows, width]`.
///
/// Values are as on disk (f16 and f64 converted to f32), not yet checked for NaN, infinity or zero vectors: the
/// similarity operator does that in its one pass over them.
#[derive(Clone, Debug)]
pub struct FeatureBatch {
    /// Modality of every row.
    pub modality: Modality,
    /// D.
    pub width: usize,
    /// `[rows, width]`.
    pub data: Vec<f32>,
    /// Whose rows these are, in order; the segments add up to the rows.
    pub videos: Vec<VideoSpan>,
}

/// Consecutive rows of one video, segment 0 first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSpan {
    /// Name in the file: a full name, or its first 11 characters.
    pub key: Arc<str>,
    /// T.
    pub segments: u32,
    /// File it came from, as the user would name it.
    pub file: Arc<str>,
    /// First row within the file, from 0.
    pub row: u64,
}

/// A piece of input that is read, scored and staged as one: a Parquet file, or some hundred npy files.
#[derive(Clone, Debug)]
pub struct Shard {
    /// As the user would name it.
    pub name: String,
}

/// What reading a shard gives, in order.
#[derive(Debug)]
pub enum FeatureEvent {
    /// Rows.
    Batch(FeatureBatch),
    /// A row or video that could not be read; the rest of the shard goes on.
    Reject(RejectRow),
}

/// All shards of one modality.
#[derive(Clone, Debug)]
pub struct FeatureInput {
    /// Modality of every shard.
    pub modality: Modality,
    /// In the order of their names.
    pub shards: Vec<Shard>,
}

impl FeatureInput {
    /// Finds the shards of a folder of npy files, of a folder of Parquet files, or of one Parquet file.
    ///
    /// `wanted` tells which keys are of use: an npy file of another key is not opened.
    pub fn open(
        path: &Path,
        modality: Modality,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<FeatureInput, super::error::IngestError> {
        let _ = (modality, wanted);
        Err(super::error::IngestError::Features {
            path: path.to_owned(),
            problem: String::new(),
        })
    }
}

impl Shard {
    /// Names the content: paths, sizes and modification times; equal as long as nothing was rewritten.
    pub fn fingerprint(&self) -> String {
        String::new()
    }

    /// Reads the shard in batches of whole videos, at most about `batch_rows` rows each; stops early when `sink`
    /// says break.
    ///
    /// A file that cannot be read at all is a reject too (`row: None`), so that one bad file loses nothing beside it.
    pub fn read(&self, batch_rows: usize, sink: &mut dyn FnMut(FeatureEvent) -> std::ops::ControlFlow<()>) {
        let _ = (batch_rows, sink);
    }
}
