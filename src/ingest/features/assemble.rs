//! Assembles rows into batches of whole videos.

use std::ops::ControlFlow;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::shard::RowKey;
use super::{FeatureBatch, FeatureEvent, VideoSpan};

/// Largest number of values of one video, 512 MiB as f32. A larger video is rejected, so that no file can fill the
/// memory with rows of one name.
pub(super) const MAX_VIDEO_VALUES: usize = 1 << 27;

/// The function that receives the events.
pub(super) type OnFeature<'a> = &'a mut dyn FnMut(FeatureEvent) -> ControlFlow<()>;

/// Collects rows until a batch of whole videos is complete.
pub(super) struct Assembler<'a> {
    modality: Modality,
    batch_rows: usize,
    /// The number of the first segment in the file: 0 or 1.
    first: i64,
    sink: OnFeature<'a>,
    width: usize,
    data: Vec<f32>,
    videos: Vec<VideoSpan>,
    /// Number of rows of `videos`.
    rows: usize,
    open: Option<Open>,
    stopped: bool,
}

/// The video whose rows are being read.
struct Open {
    key: Arc<str>,
    file: Arc<str>,
    row: u64,
    segments: u32,
    /// Whether the video was rejected. Its further rows are ignored.
    bad: bool,
}

impl<'a> Assembler<'a> {
    /// Makes an assembler for files whose segments are counted from `first`.
    pub(super) fn new(
        modality: Modality,
        batch_rows: usize,
        first: i64,
        sink: OnFeature<'a>,
    ) -> Assembler<'a> {
        Assembler {
            modality,
            batch_rows: batch_rows.max(1),
            first,
            sink,
            width: 0,
            data: Vec::new(),
            videos: Vec::new(),
            rows: 0,
            open: None,
            stopped: false,
        }
    }

    /// Whether the sink asked to stop.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a whole video. `read` appends its values and returns the numbers of rows and columns.
    pub(super) fn whole<E>(
        &mut self,
        key: &str,
        file: &Arc<str>,
        read: impl FnOnce(&mut Vec<f32>) -> Result<(usize, usize), E>,
    ) -> Result<(), E> {
        let start = self.data.len();
        let (rows, width) = read(&mut self.data)?;
        if width != self.width && start > 0 {
            let tail = self.data.split_off(start);
            self.flush();
            self.data = tail;
        }
        self.width = width;
        // More than 2³² rows would not fit in memory.
        let segments = u32::try_from(rows).unwrap_or(u32::MAX);
        self.videos.push(VideoSpan {
            key: key.into(),
            segments,
            file: file.clone(),
            row: 0,
        });
        self.rows += rows;
        if self.rows >= self.batch_rows {
            self.flush();
        }
        Ok(())
    }

    /// Adds one row. The segments of a video must come in order from the first one.
    ///
    /// If a name comes again with the first segment, the rows are the same video a second time: the receiver of the batches
    /// gets it twice.
    pub(super) fn row(
        &mut self,
        file: &Arc<str>,
        RowKey {
            row,
            video: key,
            segment,
        }: RowKey<'_>,
        append: impl FnOnce(&mut Vec<f32>) -> Result<usize, String>,
    ) {
        let first = self.first;
        let same = self
            .open
            .as_ref()
            .is_some_and(|open| *open.key == *key && (segment != Some(first) || open.bad));
        if !same {
            self.close();
            if self.rows >= self.batch_rows {
                self.flush();
            }
            self.open = Some(Open {
                key: key.into(),
                file: file.clone(),
                row,
                segments: 0,
                bad: false,
            });
        }
        let open = self.open.as_ref().expect("one was opened above");
        if open.bad {
            return;
        }
        let expected = open.segments;
        let number = i64::from(expected) + first;
        if segment != Some(number) {
            let found = segment.map_or_else(|| "null".to_owned(), |segment| segment.to_string());
            let reason = format!(
                "segment is {found}, expected {number}: a video has each segment once, from {first} on"
            );
            return self.spoil(row, reason);
        }
        let before = self.data.len();
        match append(&mut self.data) {
            Err(reason) => return self.spoil(row, reason),
            Ok(0) => return self.spoil(row, "feature is empty, expected floats".to_owned()),
            Ok(width) if width == self.width => {}
            Ok(width) if before == self.rows * self.width && expected == 0 => {
                // This is the first row of its video. Deliver the earlier videos first, because they have another
                // width.
                let tail = self.data.split_off(before);
                self.flush();
                (self.data, self.width) = (tail, width);
            }
            Ok(width) => {
                let reason = format!(
                    "feature has {width} values, expected {} as segment {first} has",
                    self.width
                );
                return self.spoil(row, reason);
            }
        }
        let values = self.data.len() - self.rows * self.width;
        if values > MAX_VIDEO_VALUES || expected == u32::MAX {
            return self.spoil(row, format!("video has more than {MAX_VIDEO_VALUES} values"));
        }
        if let Some(open) = &mut self.open {
            open.segments = expected + 1;
        }
    }

    /// Rejects a row without a valid video name or modality.
    pub(super) fn stray(&mut self, file: &Arc<str>, row: u64, reason: String) {
        let reject = RejectRow::reject(RejectKind::FeatureRow, &**file, reason);
        self.reject(reject.row(row).modality(self.modality));
    }

    /// Rejects the whole video whose rows are being read.
    fn spoil(&mut self, row: u64, reason: String) {
        self.data.truncate(self.rows * self.width);
        let Some(open) = &mut self.open else { return };
        open.bad = true;
        let reject = RejectRow::reject(RejectKind::FeatureRow, &*open.file, reason);
        let reject = reject.row(row).video(&*open.key).modality(self.modality);
        self.reject(reject);
    }

    pub(super) fn reject(&mut self, reject: RejectRow) {
        if !self.stopped {
            self.stopped = (self.sink)(FeatureEvent::Reject(reject)).is_break();
        }
    }

    /// Handles a file that cannot be read from `row` on. Its last video may be incomplete, so that the video is left
    /// out.
    pub(super) fn broken(&mut self, file: &Arc<str>, row: u64, problem: String) {
        self.data.truncate(self.rows * self.width);
        let video = self
            .open
            .take()
            .filter(|open| !open.bad)
            .map(|open| open.key.to_string());
        self.flush();
        let reason = format!("{problem}; rows from here on are not read");
        let reject = RejectRow::reject(RejectKind::UnreadableFile, &**file, reason);
        let reject = reject.row(row).modality(self.modality);
        self.reject(RejectRow { video, ..reject });
    }

    /// Ends the video whose rows are being read.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.take()
            && !open.bad
            && open.segments > 0
        {
            self.rows += open.segments as usize;
            self.videos.push(VideoSpan {
                key: open.key,
                segments: open.segments,
                file: open.file,
                row: open.row,
            });
        }
    }

    fn flush(&mut self) {
        if self.videos.is_empty() || self.stopped {
            return;
        }
        let data = std::mem::take(&mut self.data);
        // The next batch probably has the same size. Reserving its memory now avoids copies while it grows.
        self.data.reserve_exact(data.capacity());
        let videos = std::mem::take(&mut self.videos);
        self.rows = 0;
        let batch = FeatureBatch {
            modality: self.modality,
            width: self.width,
            data,
            videos,
        };
        self.stopped = (self.sink)(FeatureEvent::Batch(batch)).is_break();
    }

    /// Delivers all remaining rows.
    pub(super) fn finish(mut self) {
        self.close();
        self.flush();
    }
}
