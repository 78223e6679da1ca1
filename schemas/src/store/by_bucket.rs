//! Reads tables bucket by bucket and writes files from several threads, so that a change of all rows needs the memory of a few
//! buckets.
//!
//! ```text
//! buckets        │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │ ...
//! groups         │       0       │       1 ...     neighbouring buckets; the patch files are opened once for each group
//! bucket files ──▶ rows of one bucket ─┬─▶ work of one thread ──▶ files of the commit
//! patch files ───▶ rows of one group ──┘
//! ```

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::data_file::{HELD_BYTES, fetch, on_files};
use super::grouped::Groups;
use super::logged::{Home, LoggedFile};
use super::parallel::on_all_cores;
use super::scan::{Filter, Found, placed};
use super::select::{Runs, Selected, homes};
use super::written::Written;
use super::{Commit, DataFile, Snapshot, Store};
use crate::error::StoreError;
use crate::ids::{StoreVersion, bucket_of};
use crate::storage::Storage;
use crate::tables::{GeneratedLabels, LabelChanges, LabelColumns, Labels, Table};

/// The buckets of a store version, in groups of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketGroups {
    buckets: u32,
    groups: u32,
}

impl BucketGroups {
    /// The number of buckets.
    pub fn buckets(&self) -> u32 {
        self.buckets
    }

    /// The buckets of each group, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let size = self.buckets / self.groups;
        (0..self.groups).map(move |group| group * size..(group + 1) * size)
    }
}

/// The files of a bucketed table of a store version, by bucket.
#[derive(Debug)]
pub struct TableBuckets<T> {
    storage: Arc<dyn Storage>,
    buckets: u32,
    /// The file of each bucket, with its number among all files of the table.
    own: BTreeMap<u32, Vec<(u32, DataFile)>>,
    /// Files with rows of several buckets, and the rows of each bucket in them.
    shared: Vec<((u32, DataFile), BTreeMap<u32, Runs>)>,
    of: PhantomData<fn() -> T>,
}

/// The files of the buckets of a group, and the rows of the group that were in patch files.
#[derive(Debug)]
pub struct GroupRows<'a, T: Table> {
    table: &'a TableBuckets<T>,
    patched: BTreeMap<u32, Vec<Found<T::Row>>>,
}

impl Snapshot {
    /// Divides the buckets into groups of about `videos` videos. A group has at least one bucket.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log of a table cannot be read.
    pub fn bucket_groups(&self, videos: u64) -> Result<BucketGroups, StoreError> {
        let buckets = self.buckets()?.unwrap_or(1);
        let groups = Groups::new(self, videos)?.all().end;
        Ok(BucketGroups { buckets, groups })
    }

    /// Finds the files of each bucket of table `T`. This decodes the names of the videos in patch files.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log of the table or a patch file cannot be read.
    ///
    /// # Panics
    /// Panics if the table has no buckets.
    pub fn by_bucket<T: Table>(&self, buckets: u32) -> Result<TableBuckets<T>, StoreError> {
        assert!(T::BUCKETED, "{} has no buckets", T::NAME);
        let logged = self.logged(T::NAME)?;
        let folder = self.store().folder(T::NAME);
        let mut own: BTreeMap<u32, Vec<(u32, DataFile)>> = BTreeMap::new();
        let mut others = Vec::new();
        for (number, file) in (0..).zip(logged.values()) {
            let data = folder.data_file(file).held_by(&self.held);
            match file.bucket() {
                Some((bucket, of)) if of == buckets => own.entry(bucket).or_default().push((number, data)),
                _ => others.push((number, data)),
            }
        }
        let storage = self.store().storage.clone();
        let patches: Vec<&DataFile> = others.iter().map(|(_, file)| file).collect();
        let runs = on_files(&storage, &patches, |nth| {
            let mut runs: BTreeMap<u32, Runs> = BTreeMap::new();
            for (bucket, run) in homes::<T>(patches[nth], buckets)? {
                runs.entry(bucket).or_default().push(run);
            }
            Ok(runs)
        })?;
        Ok(TableBuckets {
            storage,
            buckets,
            own,
            shared: others.into_iter().zip(runs).collect(),
            of: PhantomData,
        })
    }
}

impl<T: Table> TableBuckets<T> {
    /// Reads the rows of a group of buckets that are in patch files. Of an object store, this also fetches small files of these
    /// buckets together.
    ///
    /// # Errors
    /// Returns [`StoreError`] with the name of the file that cannot be read.
    pub fn group(&self, group: Range<u32>) -> Result<GroupRows<'_, T>, StoreError> {
        let own = self.own.range(group.clone()).flat_map(|(_, files)| files);
        let mut bytes = 0;
        let fits = |file: &&DataFile| {
            bytes += file.bytes;
            bytes <= HELD_BYTES
        };
        fetch(&own.map(|(_, file)| file).take_while(fits).collect::<Vec<_>>())?;
        let in_group = |runs: &BTreeMap<u32, Runs>| runs.range(group.clone()).next().is_some();
        let shared: Vec<_> = self.shared.iter().filter(|(_, runs)| in_group(runs)).collect();
        let files: Vec<&DataFile> = shared.iter().map(|((_, file), _)| file).collect();
        let read = on_files(&self.storage, &files, |nth| {
            let ((number, file), runs) = shared[nth];
            let mut wanted: Runs = runs
                .range(group.clone())
                .flat_map(|(_, runs)| runs)
                .cloned()
                .collect();
            wanted.sort_unstable_by_key(|run| run.start);
            let rows = Selected::these::<T>(file, wanted)?.decode::<T>()?;
            Ok(placed(*number, rows))
        })?;
        let mut patched: BTreeMap<u32, Vec<Found<T::Row>>> = BTreeMap::new();
        for found in read.into_iter().flatten() {
            let video = T::video(&found.row).expect("a row of a bucketed table has a video");
            patched
                .entry(bucket_of(video, self.buckets))
                .or_default()
                .push(found);
        }
        Ok(GroupRows { table: self, patched })
    }
}

impl<T: Table> GroupRows<'_, T> {
    /// The rows of a bucket in order of their key, each with its place. `filter` applies to the rows of bucket files only:
    /// rows of patch files are all returned.
    ///
    /// # Errors
    /// Returns [`StoreError`] with the name of the file that cannot be read.
    pub fn bucket(&self, bucket: u32, filter: &Filter) -> Result<Vec<Found<T::Row>>, StoreError> {
        let mut rows = Vec::new();
        for (number, file) in self.table.own.get(&bucket).into_iter().flatten() {
            rows.extend(placed(*number, Selected::find::<T>(file, filter)?.decode::<T>()?));
        }
        if let Some(patched) = self.patched.get(&bucket) {
            rows.extend_from_slice(patched);
            rows.sort_by(|a, b| T::compare(&a.row, &b.row));
        }
        Ok(rows)
    }
}

impl GroupRows<'_, Labels> {
    /// The rows of a bucket as columns; `None` if they are in several files, or must be decoded one by one: see
    /// [`LabelColumns`].
    ///
    /// # Errors
    /// Returns [`StoreError`] with the name of the file that cannot be read.
    pub fn columns(&self, bucket: u32) -> Result<Option<LabelColumns>, StoreError> {
        let files = self.table.own.get(&bucket).map_or(&[][..], Vec::as_slice);
        let [(_, file)] = files else { return Ok(None) };
        if self.patched.contains_key(&bucket) {
            return Ok(None);
        }
        let batch = Selected::find::<Labels>(file, &Filter::all())?.batch::<Labels>()?;
        Ok(batch.and_then(LabelColumns::of))
    }
}

/// Writes the files of a commit from several threads.
#[derive(Debug)]
pub struct FileWriter<'a> {
    store: &'a Store,
    buckets: u32,
    prefix: String,
    /// The table of each file, and the number of changed labels in it.
    written: Mutex<Vec<(&'static str, u64, Written)>>,
}

impl FileWriter<'_> {
    /// Writes the rows of a bucket, in any order. The table must be one of those that were cleared.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_bucket`].
    pub fn bucket<T: Table>(&self, bucket: u32, rows: &[T::Row]) -> Result<(), StoreError> {
        self.keep(
            T::NAME,
            0,
            Written::bucket::<T>(self.store, (bucket, self.buckets), rows)?,
        );
        Ok(())
    }

    /// Writes the labels of a bucket that were generated anew. Table `labels` must be one of those that were cleared.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::replace_bucket`].
    pub fn labels(&self, bucket: u32, labels: &GeneratedLabels) -> Result<(), StoreError> {
        let written = Written::labels(self.store, (bucket, self.buckets), labels)?;
        self.keep(Labels::NAME, 0, Some(written));
        Ok(())
    }

    /// Adds rows to table `label_changes`, in any order.
    ///
    /// # Errors
    /// Returns the same errors as [`Commit::append`].
    pub fn changes(&self, rows: &[<LabelChanges as Table>::Row]) -> Result<(), StoreError> {
        let changed = rows.iter().map(LabelChanges::changed_labels).sum();
        self.keep(
            LabelChanges::NAME,
            changed,
            Written::new::<LabelChanges>(self.store, &self.prefix, rows)?,
        );
        Ok(())
    }

    fn keep(&self, table: &'static str, changed: u64, written: Option<Written>) {
        let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(written.map(|written| (table, changed, written)));
    }
}

/// The table of a file, the number of changed labels in it, and the file.
pub(super) type WrittenFile = (&'static str, u64, Written);

/// Calls `work` with every number below `count`, with as many threads as there are cores. Returns the results of the calls
/// and the files that they wrote.
pub(super) fn files_of<R: Send, E: Send + From<StoreError>>(
    store: &Store,
    buckets: u32,
    version: StoreVersion,
    count: usize,
    work: impl Fn(usize, &FileWriter<'_>) -> Result<R, E> + Sync,
) -> Result<(Vec<R>, Vec<WrittenFile>), E> {
    let writer = FileWriter {
        store,
        buckets,
        prefix: format!("v{:08}", version.0),
        written: Mutex::default(),
    };
    let done = on_all_cores(&store.storage, count, |nth| work(nth, &writer))?;
    let mut written = writer
        .written
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // Threads finish in any order. The order of the files decides nothing, but equal runs shall be equal in all they do.
    written.sort_by(|a, b| (a.0, &a.2.file.name).cmp(&(b.0, &b.2.file.name)));
    Ok((done, written))
}

impl Commit<'_> {
    /// Removes the rows of these buckets. The caller adds the new rows with
    /// [`VersionRows::fill_buckets`](super::VersionRows::fill_buckets).
    ///
    /// # Errors
    /// Returns [`StoreError`] if a patch file cannot be read.
    pub fn clear_buckets<T: Table>(&mut self, range: Range<u32>) -> Result<(), StoreError> {
        let buckets = self.buckets;
        let own = |file: &LoggedFile| matches!(file.bucket(), Some((bucket, of)) if of == buckets && range.contains(&bucket));
        self.touch::<T>()?.retain(|_, file| !own(file));
        if self
            .touch::<T>()?
            .values()
            .any(|file| Home::of(file) == Home::Patch)
        {
            self.take_from_patches::<T>(&range.collect())?;
        }
        Ok(())
    }

    /// Adds files that several threads wrote.
    pub(super) fn add_files(&mut self, written: Vec<WrittenFile>) -> Result<(), StoreError> {
        self.touch::<LabelChanges>()?;
        for (table, changed, Written { file, staged }) in written {
            self.changed_labels += changed;
            let name = file.name.clone();
            let files = self
                .touched
                .get_mut(table)
                .expect("the table was cleared or is appended to");
            files.insert(name.clone(), file);
            self.unnamed.extend(staged.map(|staged| (table, name, staged)));
        }
        Ok(())
    }
}
