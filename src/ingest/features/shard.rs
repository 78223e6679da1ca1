//! Reads one shard.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::ColumnNames;
use super::assemble::{Assembler, OnFeature};
use super::order::{self, RowOrder};
use crate::ingest::error::IngestError;
use crate::ingest::npy;
use crate::ingest::parquet::{Broken, ColumnKind, EmbeddingFile, KeyColumn, RowGroup};

const VIDEO: usize = 0;
const SEGMENT: usize = 1;
const MODALITY: usize = 2;

/// Reads npy files with one video each. The name of the file is the key of the video.
pub(super) fn read_npy(files: &[PathBuf], modality: Modality, batch_rows: usize, sink: OnFeature<'_>) {
    let mut assembler = Assembler::new(modality, batch_rows, 0, sink);
    let mut reader = npy::Reader::default();
    for path in files {
        if assembler.stopped() {
            return;
        }
        let key = key_of(path);
        let file: Arc<str> = path.display().to_string().into();
        if let Err(error) = assembler.whole(key, &file, |data| reader.append_matrix(path, data)) {
            assembler.reject(error.into_reject(path, Some(key)).modality(modality));
        }
    }
    assembler.finish();
}

/// Key of the video whose features a file holds.
pub(super) fn key_of(path: &Path) -> &str {
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default()
}

/// The key of a row of features.
#[derive(Clone, Copy)]
pub(super) struct RowKey<'a> {
    /// Number of the row in the file, from 0.
    pub(super) row: u64,
    /// Name of the video.
    pub(super) video: &'a str,
    /// Number of the segment as the file has it; `None` if the value is null.
    pub(super) segment: Option<i64>,
}

/// An open Parquet file with the features of any number of videos.
pub(super) struct ShardFile {
    table: EmbeddingFile,
    name: Arc<str>,
    /// The video of all rows, if the file has no column for it.
    video: Option<String>,
}

impl ShardFile {
    fn open(path: &Path, columns: &ColumnNames) -> Result<ShardFile, IngestError> {
        let video = columns.video_of_path(path);
        let key = |name: &Arc<str>, kind, optional| KeyColumn {
            name: name.clone(),
            kind,
            optional,
        };
        let keys = [
            key(&columns.video, ColumnKind::Text, video.is_some()),
            key(&columns.segment, ColumnKind::Whole, false),
            key(&columns.modality, ColumnKind::Text, true),
        ];
        let table = EmbeddingFile::open(path, &keys, &columns.feature)?;
        Ok(ShardFile {
            video: video.filter(|_| !table.has_column(VIDEO)),
            table,
            name: path.display().to_string().into(),
        })
    }

    /// The path of the file.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Number of bytes of a row in memory, on average.
    pub(super) fn row_bytes(&self) -> u64 {
        self.table.row_bytes()
    }

    /// The name of the video of a row of a group.
    fn video<'a>(&'a self, rows: &'a RowGroup, index: usize) -> Option<&'a str> {
        let video = self.video.as_deref().or_else(|| rows.text(VIDEO, index));
        video.filter(|video| !video.is_empty() && !video.contains('\0'))
    }

    /// Passes the row, video and segment of each valid row of a modality to `sink`.
    pub(super) fn each_key(
        &self,
        modality: Modality,
        mut sink: impl FnMut(u64, &str, Option<i64>),
    ) -> Result<(), Broken> {
        self.table.each_key(|rows| {
            for index in 0..rows.count {
                let own = rows
                    .text(MODALITY, index)
                    .is_none_or(|own| own == modality.as_str());
                if let Some(video) = self.video(rows, index).filter(|_| own) {
                    sink(rows.first + index as u64, video, rows.whole(SEGMENT, index));
                }
            }
            true
        })
    }

    /// Passes each row and a function that appends its features to `sink`, until `sink` returns false.
    pub(super) fn each_feature(
        &self,
        mut sink: impl FnMut(u64, &dyn Fn(&mut Vec<f32>) -> Result<usize, String>) -> bool,
    ) -> Result<(), Broken> {
        self.table.each(|rows| {
            (0..rows.count).all(|index| {
                sink(rows.first + index as u64, &|data| {
                    rows.features.append(index, data)
                })
            })
        })
    }

    /// Why a row cannot belong to a video of a modality. `Ok(false)` if the row belongs to the other modality.
    fn check(&self, rows: &RowGroup, index: usize, modality: Modality) -> Result<bool, String> {
        if let Some(found) = rows.text(MODALITY, index)
            && found.parse::<Modality>()? != modality
        {
            return Ok(false);
        }
        match self.video.as_deref().or_else(|| rows.text(VIDEO, index)) {
            None | Some("") => Err("video is null, empty or not UTF-8, expected a name".to_owned()),
            Some(video) if video.contains('\0') => {
                Err(format!("video is `{}`, expected no NUL", video.escape_default()))
            }
            Some(_) => Ok(true),
        }
    }
}

/// Reads a Parquet file with rows of any number of videos.
pub(super) fn read_parquet(
    path: &Path,
    columns: &ColumnNames,
    modality: Modality,
    batch_rows: usize,
    sink: OnFeature<'_>,
) {
    let file = match ShardFile::open(path, columns) {
        Ok(file) => file,
        Err(error) => {
            let reject = error.into_reject(path, None).modality(modality);
            return Assembler::new(modality, batch_rows, 0, sink).reject(reject);
        }
    };
    let order = order::order(&file, modality);
    let (RowOrder::InOrder { first } | RowOrder::Unordered { first, .. }) = &order;
    let mut assembler = Assembler::new(modality, batch_rows, *first, sink);
    if *first == 1 {
        assembler.reject(order::counted_from_one(&file.name, modality));
    }
    let videos = match &order {
        RowOrder::InOrder { .. } => None,
        RowOrder::Unordered { videos, .. } => Some(videos),
    };
    let each = |rows: &RowGroup, assembler: &mut Assembler<'_>| {
        for index in 0..rows.count {
            let row = rows.first + index as u64;
            match (file.check(rows, index, modality), file.video(rows, index)) {
                (Err(reason), _) => assembler.stray(&file.name, row, reason),
                (Ok(true), Some(video)) if videos.is_none() => {
                    let segment = rows.whole(SEGMENT, index);
                    let key = RowKey { row, video, segment };
                    assembler.row(&file.name, key, |data| rows.features.append(index, data));
                }
                _ => {}
            }
        }
        !assembler.stopped()
    };
    let read = match videos {
        None => file.table.each(|rows| each(rows, &mut assembler)),
        Some(_) => file.table.each_key(|rows| each(rows, &mut assembler)),
    };
    if let Err(broken) = read {
        assembler.broken(&file.name, broken.row, broken.problem);
    }
    if let Some(videos) = videos {
        order::assemble(&file, videos, &mut assembler);
    }
    if file.table.row_count() == 0 {
        let reject = RejectRow::note(RejectKind::EmptyFile, &*file.name, "has no rows");
        assembler.reject(reject.modality(modality));
    }
    assembler.finish();
}
