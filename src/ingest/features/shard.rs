//! Reads one shard.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::assemble::{Assembler, OnFeature};
use crate::ingest::npy;
use crate::ingest::parquet::{ColumnKind, EmbeddingFile, KeyColumn};

const COLUMNS: [KeyColumn; 3] = [
    KeyColumn {
        name: "video",
        kind: ColumnKind::Text,
        optional: false,
    },
    KeyColumn {
        name: "segment",
        kind: ColumnKind::Whole,
        optional: false,
    },
    KeyColumn {
        name: "modality",
        kind: ColumnKind::Text,
        optional: true,
    },
];
const VIDEO: usize = 0;
const SEGMENT: usize = 1;
const MODALITY: usize = 2;

/// Reads npy files with one video each. The name of the file is the key of the video.
pub(super) fn read_npy(files: &[PathBuf], modality: Modality, batch_rows: usize, sink: OnFeature<'_>) {
    let mut assembler = Assembler::new(modality, batch_rows, sink);
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

/// Reads a Parquet file with rows of any number of videos.
pub(super) fn read_parquet(path: &Path, modality: Modality, batch_rows: usize, sink: OnFeature<'_>) {
    let mut assembler = Assembler::new(modality, batch_rows, sink);
    let file: Arc<str> = path.display().to_string().into();
    let table = match EmbeddingFile::open(path, &COLUMNS) {
        Ok(table) => table,
        Err(error) => return assembler.reject(error.into_reject(path, None).modality(modality)),
    };
    let read = table.each(|rows| {
        for index in 0..rows.count {
            let row = rows.first + index as u64;
            match rows.text(MODALITY, index).map(str::parse::<Modality>) {
                Some(Ok(found)) if found != modality => continue,
                Some(Err(reason)) => {
                    assembler.stray(&file, row, reason);
                    continue;
                }
                _ => {}
            }
            match (rows.text(VIDEO, index), rows.whole(SEGMENT, index)) {
                (None | Some(""), _) => {
                    let reason = "video is null, empty or not UTF-8, expected a name".to_owned();
                    assembler.stray(&file, row, reason);
                }
                (Some(video), _) if video.contains('\0') => {
                    let reason = format!("video is `{}`, expected no NUL", video.escape_default());
                    assembler.stray(&file, row, reason);
                }
                (Some(video), segment) => {
                    assembler.row(&file, row, video, segment, |data| {
                        rows.features.append(index, data)
                    });
                }
            }
        }
        !assembler.stopped()
    });
    match read {
        Ok(()) => {}
        Err(broken) => {
            let row = broken.row;
            assembler.broken(&file, row, broken.problem);
        }
    }
    if table.row_count() == 0 {
        let path = table.path().display().to_string();
        assembler.reject(RejectRow::note(RejectKind::EmptyFile, path, "has no rows").modality(modality));
    }
    assembler.finish();
}
