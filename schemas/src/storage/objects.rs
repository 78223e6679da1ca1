//! The files of a store in an object store.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use tokio::sync::Semaphore;

use super::object_lease::{LeaseLook, ObjectLease};
use super::retry::{AT_ONCE, Retrying};
use super::{
    LogEntry, Publication, RequestCounts, Staged, StagedFile, Storage, StoreUrl, StoredFile, WriteLock,
    entry_key, run, runtime,
};
use crate::error::{ObjectError, StoreError};

/// The most data files that are uploaded at once. Memory holds the bytes of these files.
const UPLOADS: usize = 32;

/// The objects below a URL. A put of one object is atomic, and so is a put that requires that there is no such object.
#[derive(Clone, Debug)]
pub(crate) struct ObjectStorage {
    objects: Retrying,
    url: StoreUrl,
    uploads: Arc<Semaphore>,
}

/// An upload that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Upload(Arc<(Mutex<UploadState>, Condvar)>);

#[derive(Debug)]
enum UploadState {
    Running,
    Done,
    Failed(Option<StoreError>),
}

impl Upload {
    /// Waits until the bytes are in the object store.
    ///
    /// # Errors
    /// Returns the error of the upload, once.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        let (state, done) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |state: &mut UploadState| matches!(state, UploadState::Running);
        let mut state = done
            .wait_while(state, running)
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            UploadState::Failed(error) => error.take().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

impl Upload {
    fn ends(&self, with: UploadState) {
        let (state, done) = &*self.0;
        *state.lock().unwrap_or_else(PoisonError::into_inner) = with;
        done.notify_all();
    }
}

impl ObjectStorage {
    pub(crate) fn new(objects: Retrying, url: StoreUrl) -> ObjectStorage {
        ObjectStorage {
            objects,
            url,
            uploads: Arc::new(Semaphore::new(UPLOADS)),
        }
    }

    pub(super) fn url(&self) -> &StoreUrl {
        &self.url
    }

    fn failed(&self, operation: &'static str, key: &str, error: object_store::Error) -> StoreError {
        if let object_store::Error::Generic { source, .. } = &error
            && let Some(own) = source.downcast_ref::<ObjectError>()
        {
            return StoreError::Object(own.clone());
        }
        StoreError::Object(ObjectError {
            operation,
            url: format!("{}/{key}", self.url),
            attempts: 1,
            last: super::redacted(&error.to_string()),
            advice: "check the URL, and that this object store supports the request",
        })
    }

    /// Writes several objects that must not exist, at once. Returns the first of the keys, in their order, that exists.
    fn create_all(&self, new: Vec<(String, Bytes)>) -> Result<Option<String>, StoreError> {
        let puts = new.into_iter().map(|(key, bytes)| {
            let objects = self.objects.clone();
            async move {
                let location = Location::from(key.as_str());
                let put = objects
                    .put_opts(&location, bytes.into(), PutMode::Create.into())
                    .await;
                (put, key)
            }
        });
        let puts: Vec<_> = puts.collect();
        let done: Vec<_> = run(stream::iter(puts).buffered(UPLOADS).collect())?;
        let mut taken = None;
        for (put, key) in done {
            match put {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. }) => taken = taken.or(Some(key)),
                Err(error) => return Err(self.failed("PUT", &key, error)),
            }
        }
        Ok(taken)
    }

    /// Begins to write copies of the logs. Copies that cannot be written are left out.
    fn put_copies(&self, copies: Vec<(String, Bytes)>) -> Result<Upload, StoreError> {
        let puts = copies.into_iter().map(|(key, bytes)| {
            let objects = self.objects.clone();
            async move {
                let put = objects.put_whole(&Location::from(key.as_str()), bytes).await;
                if let Err(error) = put {
                    tracing::debug!(key, %error, "no copy of the log");
                }
            }
        });
        let puts: Vec<_> = puts.collect();
        let all = Upload(Arc::new((Mutex::new(UploadState::Running), Condvar::new())));
        let own = all.clone();
        runtime()?.spawn(async move {
            stream::iter(puts).buffer_unordered(UPLOADS).collect::<()>().await;
            own.ends(UploadState::Done);
        });
        Ok(all)
    }

    /// Begins to remove objects that nobody needs. Objects that cannot be removed stay.
    pub(super) fn begin_delete(&self, keys: Vec<String>) {
        let objects = self.objects.clone();
        if let Ok(runtime) = runtime() {
            for key in keys {
                let objects = objects.clone();
                runtime.spawn(async move { drop(objects.delete(&Location::from(key)).await) });
            }
        }
    }

    fn conflict(&self, key: &str) -> StoreError {
        StoreError::Conflict {
            path: self.root().join(key),
        }
    }
}

/// Waits for the end of an upload.
fn uploaded(staged: Staged) -> Result<(), StoreError> {
    match staged {
        Staged::Upload(upload) => upload.wait(),
        Staged::Scratch(_) => unreachable!("an object store stages uploads"),
    }
}

impl Storage for ObjectStorage {
    fn root(&self) -> PathBuf {
        PathBuf::from(self.url.to_string())
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.objects.clone())
    }

    fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let location = Location::from(key);
        let read = async { self.objects.get(&location).await?.bytes().await };
        match run(read)? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("GET", key, error)),
        }
    }

    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let gets = keys.iter().map(|key| {
            let (objects, location) = (self.objects.clone(), Location::from(key.as_str()));
            async move { objects.get(&location).await?.bytes().await }
        });
        let gets: Vec<_> = gets.collect();
        let done: Vec<_> = run(stream::iter(gets).buffered(AT_ONCE).collect())?;
        let read = |(key, bytes): (&String, object_store::Result<Bytes>)| match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("GET", key, error)),
        };
        keys.iter().zip(done).map(read).collect()
    }

    fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let location = Location::from(key);
        match run(self.objects.get_ranges(&location, ranges))? {
            Ok(parts) => Ok(parts),
            Err(object_store::Error::NotFound { .. }) => {
                let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
                Err(StoreError::io("read", &self.root().join(key))(absent))
            }
            Err(error) => Err(self.failed("GET", key, error)),
        }
    }

    fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let location = Location::from(key);
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match run(self.objects.get_opts(&location, options))? {
            Ok(found) => Ok(Some(found.meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("HEAD", key, error)),
        }
    }

    fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<StoredFile>, StoreError> {
        let location = Location::from(folder);
        let listed = async {
            match after {
                Some(after) => {
                    let offset = Location::from(format!("{folder}/{after}"));
                    let all = self.objects.list_with_offset(Some(&location), &offset);
                    all.try_collect::<Vec<ObjectMeta>>().await
                }
                None => Ok(self.objects.list_with_delimiter(Some(&location)).await?.objects),
            }
        };
        let listed = run(listed)?.map_err(|error| self.failed("LIST", folder, error))?;
        let mut files: Vec<StoredFile> = listed
            .into_iter()
            .filter_map(|object| {
                let name = object.location.as_ref().strip_prefix(folder)?.strip_prefix('/')?;
                (!name.contains('/')).then(|| StoredFile {
                    name: name.to_owned(),
                    bytes: object.size,
                    modified: object.last_modified,
                })
            })
            .collect();
        files.sort();
        Ok(files)
    }

    fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let location = Location::from(key);
        let put = run(self.objects.put_whole(&location, bytes))?;
        put.map_err(|error| self.failed("PUT", key, error))
    }

    fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, StoreError> {
        Ok(self.create_all(vec![(key.to_owned(), bytes)])?.is_none())
    }

    fn put_copy(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.put(key, bytes)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let location = Location::from(key);
        match run(self.objects.delete(&location))? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("DELETE", key, error)),
        }
    }

    fn look_at_lease(&self) -> Result<Option<LeaseLook>, StoreError> {
        LeaseLook::new(self).map(Some)
    }

    fn lease(&self, look: Option<LeaseLook>, on_wait: &mut dyn FnMut(&str)) -> Result<WriteLock, StoreError> {
        Ok(WriteLock::of_lease(ObjectLease::take(self, look, on_wait)?))
    }

    fn stage(&self, key: &str, bytes: Bytes) -> Result<Option<Staged>, StoreError> {
        let permit = run(self.uploads.clone().acquire_owned())?.expect("the semaphore is never closed");
        let upload = Upload(Arc::new((Mutex::new(UploadState::Running), Condvar::new())));
        let (own, this, key) = (upload.clone(), self.clone(), key.to_owned());
        runtime()?.spawn(async move {
            let put = this.objects.put_whole(&Location::from(key.as_str()), bytes).await;
            drop(permit);
            own.ends(match put {
                Ok(()) => UploadState::Done,
                Err(error) => UploadState::Failed(Some(this.failed("PUT", &key, error))),
            });
        });
        Ok(Some(Staged::Upload(upload)))
    }

    /// The same storage: an upload needs no folder.
    fn part(&self, _name: &str) -> Result<Arc<dyn Storage>, StoreError> {
        Ok(Arc::new(self.clone()))
    }

    fn name_files(&self, files: Vec<StagedFile>, _tables: &BTreeSet<&'static str>) -> Result<(), StoreError> {
        // An object has its name when it is uploaded.
        files.into_iter().try_for_each(|(_, _, staged)| uploaded(staged))
    }

    /// Waits for the uploads of the tables and writes the entries of their logs at once; then writes the last entry. Each step
    /// waits for the one before it. Copies of the logs are written beside the last entry.
    fn publish(&self, publication: Publication) -> Result<(), StoreError> {
        let Publication {
            files,
            logs,
            last: (versions, last),
            copies,
        } = publication;
        // No entry but the last one needs the file of `versions`, which is staged last.
        let (rows, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|(table, ..)| *table == versions);
        files
            .into_iter()
            .try_for_each(|(_, _, staged)| uploaded(staged))?;
        let entry = |table: &str, entry: LogEntry| (entry_key(table, entry.version), Bytes::from(entry.text));
        let entries = logs.into_iter();
        let entries = entries
            .filter_map(|(table, new)| Some(entry(table, new?)))
            .collect();
        if let Some(taken) = self.create_all(entries)? {
            return Err(self.conflict(&taken));
        }
        rows.into_iter().try_for_each(|(_, _, staged)| uploaded(staged))?;
        let copied = self.put_copies(copies)?;
        let taken = self.create_all(vec![entry(versions, last)])?;
        copied.wait()?;
        match taken {
            Some(taken) => Err(self.conflict(&taken)),
            None => Ok(()),
        }
    }

    fn requests(&self) -> RequestCounts {
        self.objects.counts()
    }
}
