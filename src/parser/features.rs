//! The features of a data set, pooled to one row per segment, in a file that is mapped into memory.
//!
//! ```text
//! shards ── rows of whole videos ── pooled to T rows ──▶ <fingerprint>.f32, the rows of all videos one after the other
//!                                                   └──▶ <fingerprint>.json, the first row of each video; written last
//! ```
//!
//! An epoch then reads 100 kB per video of LLP instead of 700 kB, and the system caches the file in memory.
//!
//! Pooling does not change what the network computes, because the mean of a segment's frames commutes with the linear
//! map after it (docs/method.md, "PLE").

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Digest;
use tch::{Device, Kind, Tensor};
use tempfile::NamedTempFile;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::error::TrainError;
use crate::ingest::annotations::Roster;
use crate::ingest::features::{ColumnNames, FeatureEvent, FeatureInput, Shard, VideoSpan};
use crate::ingest::seen::SeenInputs;
use crate::world::hash::{feed, hash};

/// The number of rows that are read at a time.
const BATCH_ROWS: usize = 256;

/// The number of segments of each video for which the number is known before its features are read.
pub type Lengths = BTreeMap<Arc<str>, u32>;

/// The place of a video's rows in a [`FeatureTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeaturePlace {
    /// The first row.
    pub row: i64,
    /// T, the number of segments. Each segment has one row.
    pub segments: u32,
}

/// The features of one kind: audio, visual or clips.
#[derive(Debug)]
pub struct FeatureTable {
    /// `[rows, D]`, f32, mapped from the file.
    rows: Tensor,
    width: i64,
    places: BTreeMap<String, FeaturePlace>,
    rejects: Vec<RejectRow>,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Index {
    width: i64,
    rows: i64,
    places: BTreeMap<String, FeaturePlace>,
    rejects: Vec<RejectRow>,
}

/// Called with the number of videos that were read since the last call.
pub type OnVideos<'a> = &'a mut dyn FnMut(u64);

impl FeatureTable {
    /// Reads the features of the videos `names` from paths, with these names of the columns of Parquet files, or maps the copy that an earlier call left in `cache`.
    ///
    /// The rows of a video are pooled to T rows: each is the mean of one of T equal parts. T is the number in
    /// `lengths`, or the number of rows if `lengths` does not have the video. A video is rejected if its number of
    /// rows is not a multiple of T, if its width differs from the width of the first video, if a value is not finite,
    /// or if the video was already read.
    ///
    /// # Errors
    /// Returns [`TrainError::Ingest`] if an input cannot be read at all, [`TrainError::Settings`] if it has no usable
    /// video of `names`, [`TrainError::Io`] if the copy cannot be written, and [`TrainError::Network`] if the copy
    /// cannot be mapped.
    pub fn open(
        (paths, columns): (&[PathBuf], &ColumnNames),
        modality: Modality,
        (names, lengths): (&[Arc<str>], &Lengths),
        cache: &Path,
        on_videos: OnVideos<'_>,
    ) -> Result<FeatureTable, TrainError> {
        let roster = Roster::new(names.iter().cloned());
        let input = FeatureInput::open_all(paths, modality, columns, &|key| roster.knows(key))?;
        let mut seen = SeenInputs::open(memory_of(cache));
        seen.look_at(input.shards.iter().flat_map(Shard::files));
        let name = hash(|sum| {
            sum.update(b"pooled 1");
            for name in names {
                let length = lengths.get(name).copied().unwrap_or(0);
                feed(sum, [&**name]);
                sum.update(length.to_le_bytes());
            }
            for shard in &input.shards {
                sum.update(shard.fingerprint_as(&mut seen));
            }
        });
        std::fs::create_dir_all(cache).map_err(TrainError::io("make", cache))?;
        let (data, index) = (
            cache.join(format!("{name}.f32")),
            cache.join(format!("{name}.json")),
        );
        let known = std::fs::read(&index).ok();
        let known = known.and_then(|json| serde_json::from_slice::<Index>(&json).ok());
        let fits = |index: &Index| {
            let bytes = index
                .rows
                .checked_mul(index.width)
                .and_then(|count| count.checked_mul(4));
            data.metadata()
                .is_ok_and(|meta| i64::try_from(meta.len()).ok() == bytes)
        };
        let index = match known.filter(fits) {
            Some(known) => known,
            None => {
                let made = Pooling::new(&roster, names, lengths, &data)?.run(&input, on_videos)?;
                let json = serde_json::to_vec(&made).expect("names and numbers are JSON");
                write_beside(&index, |file| file.write_all(&json))?;
                made
            }
        };
        if index.rows == 0 {
            let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
            return Err(TrainError::Settings(format!(
                "{} has no {modality} features that can be used of any of the {} videos{}",
                paths.join(", "),
                names.len(),
                index.rejects.first().map_or_else(String::new, |row| format!(
                    "; first reject: {}: {}",
                    row.file, row.reason
                ))
            )));
        }
        seen.remember();
        FeatureTable::map(&data, index, name)
    }

    fn map(path: &Path, index: Index, fingerprint: String) -> Result<FeatureTable, TrainError> {
        let name = path.to_str().ok_or_else(|| {
            TrainError::Settings(format!(
                "cache `{}` is not UTF-8, expected a UTF-8 path",
                path.display()
            ))
        })?;
        let count = index.rows * index.width;
        let rows = Tensor::f_from_file(name, false, count, (Kind::Float, Device::Cpu))
            .and_then(|rows| rows.f_view([index.rows, index.width]))
            .map_err(super::NetworkError::from)?;
        Ok(FeatureTable {
            rows,
            width: index.width,
            places: index.places,
            rejects: index.rejects,
            fingerprint,
        })
    }

    /// The SHA-256, in hex, of the names and lengths of the videos, and of the identities of the files.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// D, the width of a row.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// The place of a video's rows, or `None` if the video has no usable features.
    pub fn place(&self, video: &str) -> Option<FeaturePlace> {
        self.places.get(video).copied()
    }

    /// The videos and files that were left out, with the reasons.
    pub fn rejects(&self) -> &[RejectRow] {
        &self.rejects
    }

    /// Copies the rows of these places to a tensor `[places, segments, D]`. Past the end of a video, its last row is
    /// repeated; the padding mask hides these rows from the network.
    pub fn gather(&self, places: &[FeaturePlace], segments: u32) -> Tensor {
        let mut rows = Vec::with_capacity(places.len() * segments as usize);
        for place in places {
            for segment in 0..segments {
                rows.push(place.row + i64::from(segment.min(place.segments - 1)));
            }
        }
        let (count, segments) = (places.len() as i64, i64::from(segments));
        let index = Tensor::from_slice(&rows);
        self.rows
            .index_select(0, &index)
            .view([count, segments, self.width])
    }
}

/// Writes a temporary file with a unique name in the same folder and renames it, because two processes can write the
/// same file at once.
pub(super) fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> std::io::Result<()>,
) -> Result<(), TrainError> {
    let folder = path.parent().expect("it is a file in a folder");
    let made = || {
        let mut file = scratch_in(folder)?;
        write(&mut file)?;
        place(file, path)
    };
    made().map_err(TrainError::io("write", path))
}

/// The prefix of the names of temporary files.
const SCRATCH: &str = ".vaplan-pooled-";

fn scratch_in(folder: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(SCRATCH).tempfile_in(folder)
}

/// The folder of the memory of inputs: that of the store whose folder has the pooled copies, or the folder of the copies.
fn memory_of(cache: &Path) -> &Path {
    cache
        .ancestors()
        .find(|folder| folder.ends_with("_vaplan"))
        .unwrap_or(cache)
}

/// Returns whether a file is a pooled copy of features with other fingerprints, or a temporary file of such a copy.
pub(super) fn is_pooled_copy(path: &Path, fingerprints: &[&str]) -> bool {
    let (Some(name), Some(stem)) = (path.file_name(), path.file_stem()) else {
        return false;
    };
    let (name, stem) = (name.to_string_lossy(), stem.to_string_lossy());
    let hashed = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    let copy = hashed && (name.ends_with(".f32") || name.ends_with(".json"));
    name.starts_with(SCRATCH) || (copy && !fingerprints.contains(&&*stem))
}

fn place(file: NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Pools the rows of all videos and writes them to a file.
struct Pooling<'a> {
    roster: &'a Roster,
    names: &'a [Arc<str>],
    lengths: &'a Lengths,
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    index: Index,
    /// The feature file of each video's rows.
    files: BTreeMap<String, Arc<str>>,
    failed: Option<std::io::Error>,
    pooled: Vec<f32>,
}

impl<'a> Pooling<'a> {
    fn new(
        roster: &'a Roster,
        names: &'a [Arc<str>],
        lengths: &'a Lengths,
        data: &Path,
    ) -> Result<Pooling<'a>, TrainError> {
        let folder = data.parent().expect("it is a file in a folder");
        let file = scratch_in(folder).map_err(TrainError::io("write in", folder))?;
        Ok(Pooling {
            roster,
            names,
            lengths,
            path: data.to_owned(),
            out: BufWriter::with_capacity(1 << 20, file),
            files: BTreeMap::new(),
            index: Index {
                width: 0,
                rows: 0,
                places: BTreeMap::new(),
                rejects: Vec::new(),
            },
            failed: None,
            pooled: Vec::new(),
        })
    }

    fn run(mut self, input: &FeatureInput, on_videos: OnVideos<'_>) -> Result<Index, TrainError> {
        for shard in &input.shards {
            shard.read(BATCH_ROWS, &mut |event| {
                match event {
                    FeatureEvent::Reject(row) => {
                        if row.severity == Severity::Reject {
                            self.forget(&row);
                        }
                        self.index.rejects.push(row);
                    }
                    FeatureEvent::Batch(batch) => {
                        let mut at = 0;
                        for span in &batch.videos {
                            let length = span.segments as usize * batch.width;
                            self.video(span, batch.width, &batch.data[at..at + length]);
                            at += length;
                        }
                        on_videos(batch.videos.len() as u64);
                    }
                }
                match self.failed {
                    Some(_) => ControlFlow::Break(()),
                    None => ControlFlow::Continue(()),
                }
            });
            if let Some(source) = self.failed.take() {
                return Err(TrainError::io("write", &self.path)(source));
            }
        }
        let file = self.out.into_inner().map_err(|error| error.into_error());
        let file = file.map_err(TrainError::io("write", &self.path))?;
        place(file, &self.path).map_err(TrainError::io("write", &self.path))?;
        Ok(self.index)
    }

    /// Drops the rows of a video that came from a file which is now rejected. Rows from another file stay.
    fn forget(&mut self, row: &RejectRow) {
        let Some(Ok(video)) = row.video.as_deref().map(|key| self.roster.resolve(key)) else {
            return;
        };
        let name = &*self.names[video];
        if self.files.get(name).is_some_and(|file| **file == *row.file) {
            self.index.places.remove(name);
            self.files.remove(name);
        }
    }

    /// Pools and writes the rows of one video, `[rows, width]`, or rejects them.
    fn video(&mut self, span: &VideoSpan, width: usize, rows: &[f32]) {
        let name = match self.roster.resolve(&span.key) {
            Ok(position) => &self.names[position],
            // A shard can hold videos that are not in the data set. Skip them.
            Err(crate::ingest::annotations::KeyError::Unknown) => return,
            Err(error) => return self.reject(span, &span.key, error.to_string()),
        };
        if self.index.rows == 0 {
            self.index.width = width as i64;
        }
        let segments = self.lengths.get(name).copied().unwrap_or(span.segments);
        let problem = if width as i64 != self.index.width {
            Some(format!(
                "width is {width}, expected {} as the first video's",
                self.index.width
            ))
        } else if segments == 0 || !span.segments.is_multiple_of(segments) {
            Some(format!(
                "has {} rows, expected {segments} or a multiple, as the video has segments",
                span.segments
            ))
        } else if self.index.places.contains_key(&**name) {
            Some("is there a second time; the first is used".to_owned())
        } else {
            let bad = rows.iter().position(|value| !value.is_finite());
            bad.map(|at| {
                format!(
                    "row {}, value {} is {}, expected a number",
                    at / width,
                    at % width,
                    rows[at]
                )
            })
        };
        if let Some(reason) = problem {
            return self.reject(span, name, reason);
        }
        pool(rows, width, segments as usize, &mut self.pooled);
        let bytes: Vec<u8> = self.pooled.iter().flat_map(|value| value.to_le_bytes()).collect();
        if let Err(error) = self.out.write_all(&bytes) {
            self.failed = Some(error);
            return;
        }
        let place = FeaturePlace {
            row: self.index.rows,
            segments,
        };
        self.index.places.insert(name.to_string(), place);
        self.files.insert(name.to_string(), span.file.clone());
        self.index.rows += i64::from(segments);
    }

    fn reject(&mut self, span: &VideoSpan, video: &str, reason: String) {
        let reason = format!("features of `{video}`: {reason}");
        let reject = RejectRow::reject(RejectKind::FeatureRow, &*span.file, reason);
        self.index.rejects.push(reject.row(span.row).video(video));
    }
}

/// The mean of each of `segments` equal parts of the rows: `[rows, width]` to `[segments, width]`.
fn pool(rows: &[f32], width: usize, segments: usize, pooled: &mut Vec<f32>) {
    pooled.clear();
    let part = rows.len() / segments;
    let frames = part / width;
    if frames == 1 {
        pooled.extend_from_slice(rows);
        return;
    }
    for segment in rows.chunks_exact(part) {
        let start = pooled.len();
        pooled.extend_from_slice(&segment[..width]);
        for frame in segment.chunks_exact(width).skip(1) {
            for (sum, value) in pooled[start..].iter_mut().zip(frame) {
                *sum += value;
            }
        }
        for sum in &mut pooled[start..] {
            *sum /= frames as f32;
        }
    }
}
