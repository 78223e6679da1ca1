//! Feature files and predictions as a script has them, written to disk.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Builder, ListBuilder, RecordBatch, StringArray, UInt32Array};
use vaplan::ingest::npy;
use vaplan_schemas::Modality;

/// Width of the embeddings, and of those that are too wide.
pub(crate) const WIDTH: usize = 6;
pub(crate) const WIDE: usize = 7;

/// What a file says of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Of this length; equal where seed and length are.
    Good { seed: u8, segments: u8 },
    /// As good ones, but for one row.
    Bad(Flaw, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nan,
    Zero,
    Wide,
}

/// FeatureRows of one video and modality, `[segments, width]`.
#[derive(Clone, Debug)]
pub(crate) struct FeatureRows {
    pub(crate) key: String,
    pub(crate) modality: Modality,
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
}

impl Content {
    pub(crate) fn rows(self, key: String, modality: Modality) -> FeatureRows {
        let (seed, segments, flaw) = match self {
            Content::Good { seed, segments } => (seed, segments, None),
            Content::Bad(flaw, segments) => (0, segments, Some(flaw)),
        };
        let width = if flaw == Some(Flaw::Wide) { WIDE } else { WIDTH };
        let mut values = numbers(u64::from(seed), usize::from(segments) * width);
        let last = values.len() - width;
        match flaw {
            Some(Flaw::Nan) => values[last] = f32::NAN,
            Some(Flaw::Zero) => values[last..].fill(0.0),
            Some(Flaw::Wide) | None => {}
        }
        FeatureRows {
            key,
            modality,
            width,
            values,
        }
    }
}

/// Numbers from -1 to 1 without a pattern; the same for the same seed.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    (0..count)
        .map(|_| (next() % 2001) as f32 / 1000.0 - 1.0)
        .collect()
}

pub(crate) fn write_npy(path: &Path, rows: &FeatureRows) {
    let segments = rows.values.len() / rows.width;
    npy::write_f32(path, &[segments, rows.width], &rows.values).unwrap();
}

/// One row per segment; the values are a list in a column of this name.
pub(crate) fn write_parquet(path: &Path, column: &str, videos: &[FeatureRows]) {
    let (mut names, mut modalities, mut segments) = (Vec::new(), Vec::new(), Vec::new());
    let mut values = ListBuilder::new(Float32Builder::new());
    for video in videos {
        for (segment, row) in video.values.chunks(video.width).enumerate() {
            names.push(video.key.clone());
            modalities.push(video.modality.as_str());
            segments.push(segment as u32);
            values.values().append_slice(row);
            values.append(true);
        }
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("video", Arc::new(StringArray::from(names))),
        ("modality", Arc::new(StringArray::from(modalities))),
        ("segment", Arc::new(UInt32Array::from(segments))),
        (column, Arc::new(values.finish())),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
