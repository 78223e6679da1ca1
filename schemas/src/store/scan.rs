//! Reading no more of a table than what is asked for.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::logged::{LoggedFile, LoggedFiles};
use super::parallel::on_all_cores;
use super::select::Selected;
use super::{DataFile, Snapshot, snapshot};
use crate::error::StoreError;
use crate::ids::{Modality, bucket_of};
use crate::tables::Table;

/// Which rows: of these videos, or of these tracks of any video. The default: none.
///
/// A row that either names is meant. In a table without `video`, or without `modality` and `class`, the one or the
/// other selects nothing.
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
    /// Every row.
    pub fn all() -> Filter {
        Filter {
            all: true,
            ..Filter::default()
        }
    }

    /// The rows of these videos.
    pub fn videos(videos: impl IntoIterator<Item = Arc<str>>) -> Filter {
        Filter::default().or_videos(videos)
    }

    /// The rows of these tracks, modality and class, of any video.
    pub fn tracks(tracks: impl IntoIterator<Item = (Modality, Arc<str>)>) -> Filter {
        Filter::default().or_tracks(tracks)
    }

    /// Also the rows of these videos.
    pub fn or_videos(mut self, videos: impl IntoIterator<Item = Arc<str>>) -> Filter {
        self.videos.extend(videos);
        self
    }

    /// Also the rows of these tracks, of any video.
    pub fn or_tracks(mut self, tracks: impl IntoIterator<Item = (Modality, Arc<str>)>) -> Filter {
        self.tracks.extend(tracks);
        self
    }

    /// How many videos it names.
    pub fn video_count(&self) -> usize {
        self.videos.len()
    }

    /// Does it select every row?
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Does it select no row of any table?
    pub fn is_none(&self) -> bool {
        !self.all && self.videos.is_empty() && self.tracks.is_empty()
    }

    pub(super) fn wanted_videos(&self) -> impl Iterator<Item = &Arc<str>> {
        self.videos.iter()
    }

    pub(super) fn has_video(&self, video: &str) -> bool {
        self.videos.contains(video)
    }

    pub(super) fn has_track(&self, modality: Modality, class: &Arc<str>) -> bool {
        // A handful of tracks: a walk is as quick as a look-up, and needs no key made.
        self.tracks
            .iter()
            .any(|(own, name)| *own == modality && name == class)
    }

    /// Does the table have what tracks are told by?
    pub(super) fn selects_tracks<T: Table>(&self) -> bool {
        let schema = T::schema();
        let has = |column| schema.column_with_name(column).is_some();
        !self.tracks.is_empty() && has("modality") && has("class")
    }
}

/// Where a row, or the rows of a track, lie in the snapshot they were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// File, among those of the table in order of their names.
    pub(super) file: u32,
    /// First row in the file.
    pub(super) first: u32,
    /// How many.
    pub(super) rows: u32,
}

/// A row and where it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<R> {
    /// The row, or the track.
    pub row: R,
    /// Where it lies: what [`super::Commit::patch`] takes it away by.
    pub place: Place,
}

/// How much a filter selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows on disk: of a track one per segment.
    pub rows: u64,
    /// Videos they are of.
    pub videos: u64,
    /// Files that hold such rows.
    pub files: u64,
    /// Size of these files.
    pub bytes: u64,
}

impl Snapshot {
    /// The rows of a filter, by key, and where they lie.
    ///
    /// Opened are the files that may hold such rows, by their bucket or statistics; in them only key columns are
    /// decoded whole, of the others the rows that are selected; by as many threads as there are cores.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn scan<T: Table>(&self, filter: &Filter) -> Result<Vec<Found<T::Row>>, StoreError> {
        self.scan_some::<T>(filter, |_| true)
    }

    /// As [`Snapshot::scan`], of the files of the table that are `wanted`.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn scan_some<T: Table>(
        &self,
        filter: &Filter,
        wanted: impl Fn(&DataFile) -> bool,
    ) -> Result<Vec<Found<T::Row>>, StoreError> {
        let mut files = self.candidates::<T>(filter)?;
        files.retain(|(_, file)| wanted(file));
        let by_file = on_all_cores(files.len(), |number| found::<T>(&files[number], filter))?;
        let mut all = Vec::with_capacity(by_file.iter().map(Vec::len).sum());
        all.extend(by_file.into_iter().flatten());
        all.sort_by(|a, b| T::compare(&a.row, &b.row));
        Ok(all)
    }

    /// What `work` makes of what [`Snapshot::scan`] finds, file by file: only a few files are in memory at once.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn map_files<T: Table, R: Send>(
        &self,
        filter: &Filter,
        work: impl Fn(Vec<Found<T::Row>>) -> R + Sync,
    ) -> Result<Vec<R>, StoreError> {
        let files = self.candidates::<T>(filter)?;
        on_all_cores(files.len(), |number| {
            Ok(work(found::<T>(&files[number], filter)?))
        })
    }

    /// How much [`Snapshot::scan`] would find; only key columns are decoded.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn count<T: Table>(&self, filter: &Filter) -> Result<Extent, StoreError> {
        let files = self.candidates::<T>(filter)?;
        let by_file = on_all_cores(files.len(), |number| {
            let (_, data) = &files[number];
            let selected = Selected::find::<T>(data, filter)?;
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

    /// The files that may hold rows of the filter, and the number of each among all of the table.
    fn candidates<T: Table>(&self, filter: &Filter) -> Result<Vec<(u32, DataFile)>, StoreError> {
        let logged = self.logged(T::NAME)?;
        let wanted = Wanted::new::<T>(filter, &logged);
        let folder = self.store().folder(T::NAME);
        let numbered = (0..).zip(logged.values());
        let may_hold = numbered.filter(|(_, file)| wanted.may_be_in(file));
        Ok(may_hold
            .map(|(number, file)| (number, snapshot::data_file(&folder, file)))
            .collect())
    }
}

/// The rows of a filter in a file, by its number.
fn found<T: Table>(
    (file, data): &(u32, DataFile),
    filter: &Filter,
) -> Result<Vec<Found<T::Row>>, StoreError> {
    let found = Selected::find::<T>(data, filter)?.decode::<T>()?;
    let placed = found.into_iter().map(|(row, first)| {
        let place = Place {
            file: *file,
            first: small(first),
            rows: small(T::height(&row)),
        };
        Found { row, place }
    });
    Ok(placed.collect())
}

/// What files a filter needs.
enum Wanted<'a> {
    None,
    All,
    /// Of these buckets among so many, and of these videos.
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

/// Rows of a file: a Parquet file of ours never has 2³² of them.
fn small(rows: usize) -> u32 {
    u32::try_from(rows).expect("a data file has fewer than 2^32 rows")
}
