//! Selects and decodes the rows of one data file that a reader wants.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::DataFile;
use super::deleted::without;
use super::keys::TrackKeys;
use super::scan::Filter;
use crate::error::StoreError;
use crate::ids::Modality;
use crate::parquet_file::Opened;
use crate::tables::Table;
use crate::tables::columns::{Columns, TextColumn};

/// Runs of rows of a file, in order.
pub(super) type Runs = Vec<Range<usize>>;
/// A row or track of a table, with its row numbers in the file.
pub(super) type PlacedRow<R> = (R, Range<usize>);

/// An open data file, and those of its rows that are selected and not deleted.
pub(super) struct Selected {
    opened: Opened,
    /// `None` means all rows of the file.
    runs: Option<Runs>,
}

impl Selected {
    /// Opens a file and finds the rows of `filter`. This decodes only key columns.
    pub(super) fn find<T: Table>(file: &DataFile, filter: &Filter) -> Result<Selected, StoreError> {
        let opened = file.open(&T::schema())?;
        let runs = if filter.is_all() {
            let all = std::iter::once(0..opened.rows()).collect();
            file.deleted.as_ref().map(|gone| without(all, Some(gone)))
        } else {
            Some(without(matching::<T>(&opened, filter)?, file.deleted.as_ref()))
        };
        Ok(Selected { opened, runs })
    }

    /// Opens a file and selects the rows of these runs that are not deleted.
    pub(super) fn these<T: Table>(file: &DataFile, runs: Runs) -> Result<Selected, StoreError> {
        let opened = file.open(&T::schema())?;
        let runs = Some(without(runs, file.deleted.as_ref()));
        Ok(Selected { opened, runs })
    }

    /// Opens a file and finds the rows of the tracks with these keys. This decodes only key columns.
    pub(super) fn tracks<T: Table>(file: &DataFile, keys: &TrackKeys) -> Result<Selected, StoreError> {
        let opened = file.open(&T::schema())?;
        let batch = opened.read(Some(&["video", "modality", "class"]), None)?;
        let columns = Columns::new(T::NAME, &batch);
        let text = |name| {
            let text = columns.required_text(name);
            text.map_err(|source| StoreError::Rows {
                path: opened.path().to_owned(),
                source,
            })
        };
        let video = text("video")?.each(None, |name| keys.of(name));
        let modality = text("modality")?.each(None, |name| name.parse::<Modality>().ok());
        let class = text("class")?;
        let wanted = |row: usize| {
            let (own, of) = (video[row]?, modality[row]?);
            let name = class.get(row)?;
            own.iter()
                .find(|(modality, class)| *modality == of && class == name)
        };
        let hits: Vec<bool> = (0..batch.num_rows()).map(|row| wanted(row).is_some()).collect();
        let runs = runs(&hits, |hit| *hit).collect();
        Ok(Selected {
            opened,
            runs: Some(without(runs, file.deleted.as_ref())),
        })
    }

    /// The number of selected rows.
    pub(super) fn rows(&self) -> usize {
        match &self.runs {
            Some(runs) => runs.iter().map(Range::len).sum(),
            None => self.opened.rows(),
        }
    }

    /// The selected rows, as runs.
    pub(super) fn into_runs(self) -> Runs {
        let all = || std::iter::once(0..self.opened.rows()).collect();
        self.runs.unwrap_or_else(all)
    }

    /// The videos of the selected rows, each once; empty for a table without videos.
    pub(super) fn videos<T: Table>(&self) -> Result<Vec<Arc<str>>, StoreError> {
        if T::schema().column_with_name("video").is_none() {
            return Ok(Vec::new());
        }
        let batch = self.opened.read(Some(&["video"]), self.runs.as_deref())?;
        let columns = Columns::new(T::NAME, &batch);
        let video = columns.text("video").map_err(|source| self.wrong(source))?;
        let mut found: Vec<Arc<str>> = Vec::new();
        for row in 0..batch.num_rows() {
            let next = video.get(row);
            if next.is_some() && next != found.last() {
                found.extend(next.cloned());
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The selected rows as columns; `None` for a file of a former layout.
    ///
    /// # Errors
    /// Returns [`StoreError::File`] if the rows do not decode.
    pub(super) fn batch<T: Table>(&self) -> Result<Option<RecordBatch>, StoreError> {
        if T::is_former(self.opened.schema()) {
            return Ok(None);
        }
        self.opened.read(T::COLUMNS, self.runs.as_deref()).map(Some)
    }

    /// The selected rows, each with its row numbers in the file.
    pub(super) fn decode<T: Table>(&self) -> Result<Vec<PlacedRow<T::Row>>, StoreError> {
        if self.rows() == 0 {
            return Ok(Vec::new());
        }
        let columns = T::COLUMNS.filter(|_| !T::is_former(self.opened.schema()));
        let batch = self.opened.read(columns, self.runs.as_deref())?;
        let rows = T::decode(&batch).map_err(|source| self.in_whole_file::<T>(source))?;
        let height = match T::is_former(self.opened.schema()) {
            true => T::former_height,
            false => T::height,
        };
        let mut places = Places::new(self.runs.as_deref());
        let mut placed = Vec::with_capacity(rows.len());
        for row in rows {
            let height = height(&row);
            let first = places.take(height).ok_or_else(|| StoreError::File {
                path: self.opened.path().to_owned(),
                problem: "a track lies in pieces, expected its rows one after another".to_owned(),
            })?;
            placed.push((row, first..first + height));
        }
        Ok(placed)
    }

    fn wrong(&self, source: crate::TableError) -> StoreError {
        StoreError::Rows {
            path: self.opened.path().to_owned(),
            source,
        }
    }

    /// An error in a part of the rows counts rows within that part. Decode the whole file, so that the error names
    /// the row counted from the start of the file.
    fn in_whole_file<T: Table>(&self, among: crate::TableError) -> StoreError {
        let whole = self.opened.read(None, None).ok();
        let error = whole.and_then(|batch| T::decode(&batch).err());
        self.wrong(error.unwrap_or(among))
    }
}

/// The row numbers in the file of the rows of a batch, handed out in order.
struct Places<'a> {
    /// `None` means the whole file.
    runs: Option<&'a [Range<usize>]>,
    next: usize,
}

impl<'a> Places<'a> {
    fn new(runs: Option<&'a [Range<usize>]>) -> Places<'a> {
        let next = runs.and_then(<[_]>::first).map_or(0, |run| run.start);
        Places { runs, next }
    }

    /// Returns the number of the first of the next `rows` rows, or `None` if these rows are not adjacent.
    fn take(&mut self, rows: usize) -> Option<usize> {
        let first = self.next;
        self.next += rows;
        if let Some(runs) = &mut self.runs {
            let (run, later) = runs.split_first()?;
            if self.next > run.end {
                return None;
            }
            if self.next == run.end {
                *runs = later;
                self.next = later.first().map_or(self.next, |run| run.start);
            }
        }
        Some(first)
    }
}

/// The rows of the filter, including deleted rows. This decodes only key columns.
fn matching<T: Table>(opened: &Opened, filter: &Filter) -> Result<Runs, StoreError> {
    let schema = T::schema();
    let by_video = has(&schema, "video") && filter.wanted_videos().next().is_some();
    let by_track = filter.selects_tracks::<T>();
    let mut names = Vec::new();
    if by_video {
        names.push("video");
    }
    if by_track {
        names.extend(["modality", "class"]);
    }
    if names.is_empty() {
        return Ok(Runs::new());
    }
    let batch = opened.read(Some(&names), None)?;
    let columns = Columns::new(T::NAME, &batch);
    let text = |name: &'static str| -> Result<TextColumn, StoreError> {
        columns.text(name).map_err(|source| StoreError::Rows {
            path: opened.path().to_owned(),
            source,
        })
    };
    let mut hits = vec![false; batch.num_rows()];
    if by_video {
        hits = text("video")?.each(false, |video| filter.has_video(video));
    }
    if by_track {
        let modality = text("modality")?.each(None, |name| name.parse::<Modality>().ok());
        let class = text("class")?;
        let of = |wanted: Modality| class.each(false, |class| filter.has_track(wanted, class));
        let (audio, visual) = (of(Modality::Audio), of(Modality::Visual));
        for (row, hit) in hits.iter_mut().enumerate() {
            *hit |= match modality[row] {
                Some(Modality::Audio) => audio[row],
                Some(Modality::Visual) => visual[row],
                None => false,
            };
        }
    }
    Ok(runs(&hits, |hit| *hit).collect())
}

/// The maximal runs of items that `wanted` accepts.
fn runs<T>(items: &[T], wanted: impl Fn(&T) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = next + items[next..].iter().position(&wanted)?;
        let length = items[start..].iter().position(|item| !wanted(item));
        next = length.map_or(items.len(), |length| start + length);
        Some(start..next)
    })
}

/// The bucket of each row among `buckets` buckets, as runs of rows of one bucket, including deleted rows.
pub(super) fn homes<T: Table>(file: &DataFile, buckets: u32) -> Result<Vec<(u32, Range<usize>)>, StoreError> {
    let opened = file.open(&T::schema())?;
    if !T::BUCKETED {
        return Ok(vec![(0, 0..opened.rows())]);
    }
    let batch = opened.read(Some(&["video"]), None)?;
    let columns = Columns::new(T::NAME, &batch);
    let video = columns
        .required_text("video")
        .map_err(|source| StoreError::Rows {
            path: file.path.clone(),
            source,
        })?;
    let buckets = video.each(0, |video| crate::bucket_of(video, buckets));
    let mut homes: Vec<(u32, Range<usize>)> = Vec::new();
    for (row, bucket) in buckets.into_iter().enumerate() {
        match homes.last_mut() {
            Some((last, run)) if *last == bucket => run.end = row + 1,
            _ => homes.push((bucket, row..row + 1)),
        }
    }
    Ok(homes)
}

fn has(schema: &SchemaRef, column: &str) -> bool {
    schema.column_with_name(column).is_some()
}
