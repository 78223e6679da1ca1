//! Scans: reading only the rows of a table that a filter selects.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use super::data_file::{fetch, on_files};
use super::logged::{LoggedFile, LoggedFiles};
use super::select::{PlacedRow, Selected};
use super::{DataFile, Snapshot};
use crate::error::StoreError;
use crate::ids::{Modality, bucket_of};
use crate::tables::Table;

/// Selects rows: those of some videos, and those of some tracks (modality and class) of any video. The default
/// selects none.
///
/// A row is selected if its video or its track is selected. In a table without column `video`, videos select nothing;
/// in a table without columns `modality` and `class`, tracks select nothing.
///
/// ```
/// use vaplan_schemas::Modality;
/// use vaplan_schemas::store::Filter;
/// let filter = Filter::videos(["-rf_0_10".into()]).or_tracks([(Modality::Audio, "Dog".into())]);
/// assert_eq!(filter.video_count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    all: bool,
    videos: BTreeSet<Arc<str>>,
    tracks: BTreeSet<(Modality, Arc<str>)>,
}

impl Filter {
    /// Selects every row.
    pub fn all() -> Filter {
        Filter {
            all: true,
            ..Filter::default()
        }
    }

    /// Selects the rows of these videos.
    pub fn videos(videos: impl IntoIterator<Item = Arc<str>>) -> Filter {
        Filter::default().or_videos(videos)
    }

    /// Selects the rows of these tracks (modality and class) of any video.
    pub fn tracks(tracks: impl IntoIterator<Item = (Modality, Arc<str>)>) -> Filter {
        Filter::default().or_tracks(tracks)
    }

    /// Also selects the rows of these videos.
    pub fn or_videos(mut self, videos: impl IntoIterator<Item = Arc<str>>) -> Filter {
        self.videos.extend(videos);
        self
    }

    /// Also selects the rows of these tracks of any video.
    pub fn or_tracks(mut self, tracks: impl IntoIterator<Item = (Modality, Arc<str>)>) -> Filter {
        self.tracks.extend(tracks);
        self
    }

    /// The number of videos that the filter names.
    pub fn video_count(&self) -> usize {
        self.videos.len()
    }

    /// Returns whether the filter selects every row.
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Returns whether the filter selects no row of any table.
    pub fn is_none(&self) -> bool {
        !self.all && self.videos.is_empty() && self.tracks.is_empty()
    }

    pub(super) fn wanted_videos(&self) -> impl Iterator<Item = &Arc<str>> {
        self.videos.iter()
    }

    pub(super) fn has_video(&self, video: &str) -> bool {
        self.videos.contains(video)
    }

    pub(super) fn has_track(&self, modality: Modality, class: &str) -> bool {
        // A filter has few tracks: comparing each is as quick as a look-up, and needs no allocated key.
        self.tracks
            .iter()
            .any(|(own, name)| *own == modality && **name == *class)
    }

    /// Returns whether the filter has tracks and the table has the columns `modality` and `class`.
    pub(super) fn selects_tracks<T: Table>(&self) -> bool {
        let schema = T::schema();
        let has = |column| schema.column_with_name(column).is_some();
        !self.tracks.is_empty() && has("modality") && has("class")
    }
}

/// The place of a row in the snapshot from which it was read. A row in memory can have several rows on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the file among the files of the table, in order of their names.
    pub(super) file: u32,
    /// The first row in the file.
    pub(super) first: u32,
    /// The number of rows.
    pub(super) rows: u32,
}

impl Place {
    /// The place of these rows of a file with this number.
    pub(super) fn new(file: u32, rows: Range<usize>) -> Place {
        Place {
            file,
            first: small(rows.start),
            rows: small(rows.len()),
        }
    }
}

/// A row and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<R> {
    /// The row, or the track.
    pub row: R,
    /// Its place. [`super::Commit::patch`] deletes the row by its place.
    pub place: Place,
}

/// The amount of data that a filter selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The number of rows on disk.
    pub rows: u64,
    /// The number of videos of these rows.
    pub videos: u64,
    /// The number of files with such rows.
    pub files: u64,
    /// The size of these files in bytes.
    pub bytes: u64,
}

impl Snapshot {
    /// The rows that a filter selects, in order of their key, with their places.
    ///
    /// This opens only the files that can hold such rows, according to their bucket or statistics. In these files it
    /// decodes the key columns completely, and only the selected rows of the other columns. It uses as many threads
    /// as there are cores.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn scan<T: Table>(&self, filter: &Filter) -> Result<Vec<Found<T::Row>>, StoreError> {
        self.scan_some::<T>(filter, |_| true)
    }

    /// Like [`Snapshot::scan`], but reads only the files that `wanted` accepts.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn scan_some<T: Table>(
        &self,
        filter: &Filter,
        wanted: impl Fn(&DataFile) -> bool,
    ) -> Result<Vec<Found<T::Row>>, StoreError> {
        let mut files = candidates::<T>(self, filter)?;
        files.retain(|(_, file)| wanted(file));
        let filters = ByBucket::new(filter, &files);
        let by_file = self.on_files(&files, |number| found::<T>(&files[number], &filters))?;
        let mut all = Vec::with_capacity(by_file.iter().map(Vec::len).sum());
        all.extend(by_file.into_iter().flatten());
        all.sort_by(|a, b| T::compare(&a.row, &b.row));
        Ok(all)
    }

    /// Fetches the files that [`Snapshot::scan`] would read, if the store is in an object store and the files are small. A later
    /// scan then makes no request for files that are still held.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn fetch<T: Table>(&self, filter: &Filter) -> Result<(), StoreError> {
        let files = candidates::<T>(self, filter)?;
        fetch(&files.iter().map(|(_, file)| file).collect::<Vec<_>>())
    }

    /// Calls `work` with the rows that [`Snapshot::scan`] would find, file by file, so that only a few files are in
    /// memory at once. Returns the results.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn map_files<T: Table, R: Send>(
        &self,
        filter: &Filter,
        work: impl Fn(Vec<Found<T::Row>>) -> R + Sync,
    ) -> Result<Vec<R>, StoreError> {
        self.map_some_files::<T, R>(filter, |_| true, work)
    }

    /// Like [`Snapshot::map_files`], but reads only the files that `wanted` accepts.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn map_some_files<T: Table, R: Send>(
        &self,
        filter: &Filter,
        wanted: impl Fn(&DataFile) -> bool,
        work: impl Fn(Vec<Found<T::Row>>) -> R + Sync,
    ) -> Result<Vec<R>, StoreError> {
        let mut files = candidates::<T>(self, filter)?;
        files.retain(|(_, file)| wanted(file));
        let filters = ByBucket::new(filter, &files);
        self.on_files(&files, |number| Ok(work(found::<T>(&files[number], &filters)?)))
    }

    /// The amount of data that [`Snapshot::scan`] would find. This decodes only key columns.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::read`].
    pub fn count<T: Table>(&self, filter: &Filter) -> Result<Extent, StoreError> {
        let files = candidates::<T>(self, filter)?;
        let filters = ByBucket::new(filter, &files);
        let by_file = self.on_files(&files, |number| {
            let (_, data) = &files[number];
            let selected = Selected::find::<T>(data, filters.of(data))?;
            let rows = selected.rows() as u64;
            let videos = match rows {
                0 => Vec::new(),
                _ => selected.videos::<T>()?,
            };
            Ok((rows, videos, data.bytes))
        })?;
        let mut extent = Extent::default();
        let mut videos = BTreeSet::new();
        for (rows, found, bytes) in by_file {
            videos.extend(found);
            if rows > 0 {
                extent.rows += rows;
                extent.files += 1;
                extent.bytes += bytes;
            }
        }
        extent.videos = videos.len() as u64;
        Ok(extent)
    }

    fn on_files<R: Send>(
        &self,
        files: &[(u32, DataFile)],
        work: impl Fn(usize) -> Result<R, StoreError> + Sync,
    ) -> Result<Vec<R>, StoreError> {
        let files: Vec<&DataFile> = files.iter().map(|(_, file)| file).collect();
        on_files(&self.store().storage, &files, work)
    }
}

/// The files that can hold rows of the filter, each with its number among all files of the table.
pub(super) fn candidates<T: Table>(
    snapshot: &Snapshot,
    filter: &Filter,
) -> Result<Vec<(u32, DataFile)>, StoreError> {
    let logged = snapshot.logged(T::NAME)?;
    let folder = snapshot.store().folder(T::NAME);
    let files = may_hold::<T>(filter, &logged).into_iter();
    Ok(files
        .map(|(number, file)| (number, folder.data_file(file).held_by(&snapshot.held)))
        .collect())
}

/// Those of all files of a table that can hold rows of the filter, each with its number.
pub(super) fn may_hold<'a, T: Table>(filter: &Filter, logged: &'a LoggedFiles) -> Vec<(u32, &'a LoggedFile)> {
    let wanted = Wanted::new::<T>(filter, logged);
    let numbered = (0..).zip(logged.values());
    numbered.filter(|(_, file)| wanted.may_be_in(file)).collect()
}

/// The rows of a filter in one file, which is given with its number.
fn found<T: Table>(
    (file, data): &(u32, DataFile),
    filters: &ByBucket<'_>,
) -> Result<Vec<Found<T::Row>>, StoreError> {
    let found = Selected::find::<T>(data, filters.of(data))?.decode::<T>()?;
    Ok(placed(*file, found))
}

/// The rows of a file with this number, with their places.
pub(super) fn placed<R>(file: u32, rows: Vec<PlacedRow<R>>) -> Vec<Found<R>> {
    let found = |(row, rows): PlacedRow<R>| {
        let place = Place::new(file, rows);
        Found { row, place }
    };
    rows.into_iter().map(found).collect()
}

/// A filter, divided by the buckets of the files that are read. A change of 10,000 videos in 1,024 buckets has about ten
/// videos in each, so each name of a file is compared with few names.
struct ByBucket<'a> {
    whole: &'a Filter,
    buckets: BTreeMap<(u32, u32), Filter>,
}

impl<'a> ByBucket<'a> {
    fn new(whole: &'a Filter, files: &[(u32, DataFile)]) -> ByBucket<'a> {
        let mut buckets = BTreeMap::new();
        if !whole.all {
            let only_tracks = Filter {
                tracks: whole.tracks.clone(),
                ..Filter::default()
            };
            let of_files = files.iter().filter_map(|(_, file)| file.bucket());
            buckets.extend(of_files.map(|bucket| (bucket, only_tracks.clone())));
        }
        let cuts: BTreeSet<u32> = buckets.keys().map(|(_, cut)| *cut).collect();
        for cut in cuts {
            for video in &whole.videos {
                if let Some(own) = buckets.get_mut(&(bucket_of(video, cut), cut)) {
                    own.videos.insert(video.clone());
                }
            }
        }
        ByBucket { whole, buckets }
    }

    fn of(&self, file: &DataFile) -> &Filter {
        let own = file.bucket().and_then(|bucket| self.buckets.get(&bucket));
        own.unwrap_or(self.whole)
    }
}

/// The files that a filter needs.
enum Wanted<'a> {
    None,
    All,
    /// The files of these buckets (bucket, number of buckets), and the files whose statistics allow one of these
    /// videos.
    Videos(&'a BTreeSet<Arc<str>>, BTreeSet<(u32, u32)>),
}

impl Wanted<'_> {
    fn new<'a, T: Table>(filter: &'a Filter, files: &LoggedFiles) -> Wanted<'a> {
        if filter.all || filter.selects_tracks::<T>() {
            return Wanted::All;
        }
        if filter.videos.is_empty() || T::schema().column_with_name("video").is_none() {
            return Wanted::None;
        }
        let cuts: BTreeSet<u32> = files.values().filter_map(|file| Some(file.bucket()?.1)).collect();
        let buckets = |&cut: &u32| {
            filter
                .videos
                .iter()
                .map(move |video| (bucket_of(video, cut), cut))
        };
        Wanted::Videos(&filter.videos, cuts.iter().flat_map(buckets).collect())
    }

    fn may_be_in(&self, file: &LoggedFile) -> bool {
        match self {
            Wanted::None => false,
            Wanted::All => true,
            Wanted::Videos(videos, buckets) => match (file.bucket(), file.videos()) {
                (Some(bucket), _) => buckets.contains(&bucket),
                (None, Some((first, last))) if first <= last => {
                    let range = (Bound::Included(&*first), Bound::Included(&*last));
                    videos.range::<str, _>(range).next().is_some()
                }
                (None, _) => true,
            },
        }
    }
}

/// Converts a row number of a file. A data file of the store never has 2³² rows.
fn small(rows: usize) -> u32 {
    u32::try_from(rows).expect("a data file has fewer than 2^32 rows")
}
