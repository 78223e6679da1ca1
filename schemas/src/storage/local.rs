//! The files of a store in a folder of a local disk.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use object_store::ObjectStore;

use super::durable::{Scratch, sync_files, sync_folder, sync_folders};
use super::durable_objects::durable;
use super::{
    LeaseLook, LogEntry, OWN, Publication, RequestCounts, SCRATCH, Staged, StagedFile, Storage, StoredFile,
    WriteLock, entry_key, fault, log_folder,
};
use crate::error::StoreError;

/// A folder of a local disk. Files are synced before they get their names, and the folders of the names after that.
#[derive(Debug)]
pub(crate) struct LocalStorage {
    root: PathBuf,
    /// The folder of files that have no name yet.
    scratch: PathBuf,
    /// Removes the folder of files without a name, if this is the storage of a part.
    _part: Option<PartFolder>,
    objects: Arc<dyn ObjectStore>,
}

/// A folder of files without a name that belongs to one process.
#[derive(Debug)]
struct PartFolder(PathBuf);

impl Drop for PartFolder {
    fn drop(&mut self) {
        // If the folder cannot be removed, the next commit removes it.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Files of the scratch folder, of [`StagedFile`]s of a local disk.
fn scratches(files: Vec<StagedFile>) -> Vec<(&'static str, String, Scratch)> {
    let files = files.into_iter().map(|(table, name, staged)| match staged {
        Staged::Scratch(scratch) => (table, name, scratch),
        Staged::Upload(_) => unreachable!("a local disk stages files"),
    });
    files.collect()
}

impl LocalStorage {
    /// Opens a folder, which must exist.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if the folder does not exist or cannot be resolved.
    pub(crate) fn new(root: &Path) -> Result<LocalStorage, StoreError> {
        // Delta tables are located by URLs, and a file URL holds an absolute path.
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let scratch = root.join(OWN).join(SCRATCH);
        let objects = durable(&root, &scratch)?;
        Ok(LocalStorage {
            root,
            scratch,
            _part: None,
            objects,
        })
    }

    fn at(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn written(&self, bytes: &[u8]) -> Result<Scratch, StoreError> {
        Scratch::write(&self.scratch, [bytes])
    }

    fn write(&self, key: &str, bytes: &[u8]) -> Result<(Scratch, PathBuf), StoreError> {
        let target = self.at(key);
        for folder in [Some(self.scratch.as_path()), target.parent()]
            .into_iter()
            .flatten()
        {
            std::fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
        }
        Ok((self.written(bytes)?, target))
    }

    /// Gives data files their names, and adds the folders of the names to `folders`, which the caller syncs.
    fn rename(
        &self,
        files: Vec<(&'static str, String, Scratch)>,
        folders: &mut BTreeSet<PathBuf>,
    ) -> Result<(), StoreError> {
        for (table, name, scratch) in files {
            let folder = self.at(table);
            scratch.rename(&folder.join(name))?;
            folders.insert(folder);
        }
        Ok(())
    }

    /// Gives the entry of a log its name, which moves the table to its new Delta version.
    fn link(&self, table: &str, version: u64, entry: Scratch) -> Result<(), StoreError> {
        let target = self.at(&entry_key(table, version));
        match entry.link(&target) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(StoreError::Conflict { path: target })
            }
            done => done,
        }
    }
}

impl Storage for LocalStorage {
    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        self.objects.clone()
    }

    fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let path = self.at(key);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let path = self.at(key);
        let file = std::fs::File::open(&path).map_err(StoreError::io("read", &path))?;
        let read = |range: &Range<u64>| {
            let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)
                .map(|()| Bytes::from(bytes))
        };
        let read: io::Result<Vec<Bytes>> = ranges.iter().map(read).collect();
        read.map_err(StoreError::io("read", &path))
    }

    fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let path = self.at(key);
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path)(error)),
        }
    }

    fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<StoredFile>, StoreError> {
        let folder = self.at(folder);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list", &folder)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if after.is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            let found = match entry.metadata() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("read", &entry.path())(error)),
            };
            if found.is_file() {
                files.push(StoredFile {
                    name,
                    bytes: found.len(),
                    modified: found
                        .modified()
                        .map_or_else(|_| DateTime::default(), DateTime::from),
                });
            }
        }
        files.sort();
        Ok(files)
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let (scratch, target) = self.write(key, &bytes)?;
        scratch.rename(&target)?;
        target.parent().map_or(Ok(()), sync_folder)
    }

    fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, StoreError> {
        let (scratch, target) = self.write(key, &bytes)?;
        match scratch.link(&target) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(false);
            }
            done => done?,
        }
        target.parent().map_or(Ok(()), sync_folder)?;
        Ok(true)
    }

    fn put_copy(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.at(key);
        let folder = path.parent().unwrap_or(Path::new("."));
        // Not synced, because the file may be lost.
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut beside = tempfile::NamedTempFile::new_in(folder)?;
            io::Write::write_all(&mut beside, &bytes)?;
            beside.persist(&path)?;
            Ok(())
        };
        write().map_err(StoreError::io("write", &path))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.at(key);
        let bytes = std::fs::metadata(&path).map_or(0, |found| found.len());
        fault::point("remove");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done.map_err(StoreError::io("remove", &path))?,
        }
        fault::freed(bytes);
        Ok(())
    }

    fn lease(
        &self,
        _look: Option<LeaseLook>,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<WriteLock, StoreError> {
        // The folder can be missing, because git and object storage do not keep empty folders.
        let own = self.at(OWN);
        std::fs::create_dir_all(&own).map_err(StoreError::io("create the folder", &own))?;
        WriteLock::take(&own.join("lock"), on_wait)
    }

    fn stage(&self, key: &str, bytes: Bytes) -> Result<Option<Staged>, StoreError> {
        // A file is named by its content, and gets its name only after it was synced. So a file with this name is
        // complete.
        if std::fs::metadata(self.at(key)).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(None);
        }
        fault::point("before-file");
        let scratch = self.written(&bytes)?;
        fault::point("after-file");
        Ok(Some(Staged::Scratch(scratch)))
    }

    fn part(&self, name: &str) -> Result<Arc<dyn Storage>, StoreError> {
        // Two processes on two hosts can have one process id, and the names of their files begin with it.
        let scratch = self.scratch.join(name);
        std::fs::create_dir_all(&scratch).map_err(StoreError::io("make", &scratch))?;
        Ok(Arc::new(LocalStorage {
            root: self.root.clone(),
            _part: Some(PartFolder(scratch.clone())),
            scratch,
            objects: self.objects.clone(),
        }))
    }

    fn name_files(&self, files: Vec<StagedFile>, tables: &BTreeSet<&'static str>) -> Result<(), StoreError> {
        let mut files = scratches(files);
        sync_files(files.iter_mut().map(|(_, _, scratch)| scratch))?;
        fault::point("before-part");
        // Sync the folder of every table, also of a file that a killed run named: that run may not have synced the folder.
        let mut folders = BTreeSet::from([self.root.clone()]);
        for table in tables {
            let folder = self.at(table);
            std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
            folders.insert(folder);
        }
        self.rename(files, &mut folders)?;
        sync_folders(&folders)?;
        fault::point("after-part");
        Ok(())
    }

    /// Waits for the disk four times, whatever the number of tables: for the bytes of all files; for the names of the data
    /// files; for the entries of the tables' logs; and for the last entry.
    fn publish(&self, publication: Publication) -> Result<(), StoreError> {
        let Publication {
            files,
            logs,
            last,
            copies,
        } = publication;
        let mut files = scratches(files);
        let mut entries = Vec::new();
        for (table, entry) in logs {
            let entry = match entry {
                Some(LogEntry { version, text }) => Some((version, self.written(&text)?)),
                None => None,
            };
            entries.push((table, entry));
        }
        let (versions, LogEntry { version, text }) = last;
        let mut last = self.written(&text)?;
        let data = files.iter_mut().map(|(_, _, scratch)| scratch);
        let new = entries
            .iter_mut()
            .filter_map(|(_, entry)| Some(&mut entry.as_mut()?.1));
        sync_files(data.chain(new).chain([&mut last]))?;

        let mut folders = BTreeSet::from([self.root.clone()]);
        let new = entries
            .iter()
            .filter(|(_, entry)| entry.is_some())
            .map(|(table, _)| *table);
        for table in new.chain([versions]) {
            let log = self.at(&log_folder(table));
            if !log.exists() {
                std::fs::create_dir_all(&log).map_err(StoreError::io("make", &log))?;
            }
            folders.insert(self.at(table));
        }
        self.rename(files, &mut folders)?;
        sync_folders(&folders)?;
        fault::point("after-files");

        let mut synced = BTreeSet::<PathBuf>::new();
        for (table, entry) in entries {
            fault::point(&format!("before-{table}"));
            // Sync this log even without a new entry: a killed run may have linked an entry and died before it synced
            // the log.
            let log = self.at(&log_folder(table));
            if log.exists() {
                synced.insert(log);
            }
            if let Some((version, scratch)) = entry {
                self.link(table, version, scratch)?;
            }
            fault::point(&format!("after-{table}"));
        }
        sync_folders(&synced)?;

        fault::point("before-versions");
        self.link(versions, version, last)?;
        sync_folder(&self.at(&log_folder(versions)))?;
        fault::point("after-versions");
        for (key, bytes) in copies {
            // Only now: until the last entry is on the disk, nothing may delay the commit.
            if let Err(error) = self.put_copy(&key, bytes) {
                // A disk that is full or read-only: the next process reads the log.
                tracing::debug!(key, %error, "no copy of the log");
            }
        }
        Ok(())
    }

    fn requests(&self) -> RequestCounts {
        RequestCounts::default()
    }
}
