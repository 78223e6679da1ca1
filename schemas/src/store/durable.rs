//! Files that are on the disk before success is said.
//!
//! The local store of `object_store` never calls fsync, so that a log entry could be there after a power cut, and be
//! empty. Here bytes are synced before they get their name, and the folder after.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};

use super::fault;
use crate::error::StoreError;

static SCRATCH: AtomicU64 = AtomicU64::new(0);

/// Syncs a folder: the names in it.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    fault::point("folder");
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::io("sync", folder))
}

/// As many syncs wait for the disk at once: many take hardly longer than one.
const SYNCS: usize = 16;

/// Syncs folders, together.
pub(super) fn sync_folders(folders: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
    let mut folders: Vec<&PathBuf> = folders.iter().collect();
    together(&mut folders, |folder| sync_folder(folder))
}

/// Syncs files, together.
pub(super) fn sync_files<'a>(files: impl Iterator<Item = &'a mut Scratch>) -> Result<(), StoreError> {
    let mut files: Vec<&mut Scratch> = files.collect();
    together(&mut files, |file| file.sync())
}

fn together<T: Send>(
    items: &mut [T],
    sync: impl Fn(&mut T) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let share = items.len().div_ceil(SYNCS).max(1);
    let sync = &sync;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks_mut(share)
            .map(|items| scope.spawn(move || items.iter_mut().try_for_each(sync)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a sync does not panic"))
    })
}

/// Bytes on their way to a name; removed unless they get it.
#[derive(Debug)]
pub(super) struct Scratch {
    file: Option<File>,
    path: PathBuf,
}

impl Scratch {
    /// Writes into a new file of the scratch folder, not yet synced.
    pub(super) fn write<'a>(
        folder: &Path,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Scratch, StoreError> {
        fault::point("write");
        let number = SCRATCH.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let mut scratch = Scratch {
            file: Some(file.map_err(StoreError::io("write", &path))?),
            path,
        };
        for part in parts {
            let file = scratch.file.as_mut().expect("it was opened above");
            file.write_all(part)
                .map_err(StoreError::io("write", &scratch.path))?;
        }
        Ok(scratch)
    }

    /// Where it lies until it gets its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the bytes are on the disk, and closes the file.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        match self.file.take() {
            Some(file) => {
                fault::point("sync");
                file.sync_all().map_err(StoreError::io("write", &self.path))
            }
            None => Ok(()),
        }
    }

    /// Gives it its name, over whatever was there; the folder is to be synced after.
    pub(super) fn rename(mut self, target: &Path) -> Result<(), StoreError> {
        self.sync()?;
        fault::point("name");
        std::fs::rename(&self.path, target).map_err(StoreError::io("write", target))?;
        self.path = PathBuf::new();
        Ok(())
    }

    /// Gives it its name, unless there is such a file.
    pub(super) fn link(mut self, target: &Path) -> Result<(), StoreError> {
        self.sync()?;
        fault::point("name");
        std::fs::hard_link(&self.path, target).map_err(StoreError::io("write", target))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // A name that was linked stays; what is left over is swept by the next commit.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A local object store whose writes are durable.
#[derive(Debug)]
pub(super) struct Durable {
    inner: LocalFileSystem,
    scratch: PathBuf,
}

impl Durable {
    /// Makes an object store whose keys are paths below `root`, which must exist.
    ///
    /// New bytes are first written to the folder `scratch`, which must be on the same disk as `root`.
    pub(super) fn new(root: &Path, scratch: PathBuf) -> object_store::Result<Durable> {
        Ok(Durable {
            inner: LocalFileSystem::new_with_prefix(root)?,
            scratch,
        })
    }

    async fn synced(&self, location: &Location) -> object_store::Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::io("sync", &path))
            .map_err(generic)?;
        folder_of(&path).map_err(generic)
    }
}

impl std::fmt::Display for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "durable {}", self.inner)
    }
}

fn folder_of(path: &Path) -> Result<(), StoreError> {
    path.parent().map_or(Ok(()), sync_folder)
}

fn generic(error: StoreError) -> object_store::Error {
    object_store::Error::Generic {
        store: "local files",
        source: Box::new(error),
    }
}

#[async_trait::async_trait]
impl ObjectStore for Durable {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let target = self.inner.path_to_filesystem(location)?;
        if let Some(folder) = target.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir_all(folder)
                .map_err(StoreError::io("make", folder))
                .map_err(generic)?;
            folder_of(folder).map_err(generic)?;
        }
        let scratch =
            Scratch::write(&self.scratch, payload.iter().map(|part| part.as_ref())).map_err(generic)?;
        let named = match opts.mode {
            PutMode::Create => scratch.link(&target),
            _ => scratch.rename(&target),
        };
        named.map_err(|error| match error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                object_store::Error::AlreadyExists {
                    path: location.to_string(),
                    source: Box::new(source),
                }
            }
            error => generic(error),
        })?;
        folder_of(&target).map_err(generic)?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(Upload { inner, path }))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Location,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Location>>,
    ) -> BoxStream<'static, object_store::Result<Location>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Location,
        to: &Location,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        debug_assert!(matches!(options.mode, CopyMode::Overwrite | CopyMode::Create));
        self.inner.copy_opts(from, to, options).await?;
        self.synced(to).await
    }
}

/// Sorts a listing by key, as object stores do. The Delta kernel finds gaps in a log that it is given in another order, and
/// sorts by itself only what it lists by `file` URLs.
fn sorted(
    listing: BoxStream<'static, object_store::Result<ObjectMeta>>,
) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let listed = async {
        let mut files: Vec<ObjectMeta> = listing.try_collect().await?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, object_store::Error>(futures::stream::iter(files.into_iter().map(Ok)))
    };
    futures::stream::once(listed).try_flatten().boxed()
}

/// An upload in parts, synced when complete.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait::async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let result = self.inner.complete().await?;
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::io("sync", &self.path))
            .map_err(generic)?;
        folder_of(&self.path).map_err(generic)?;
        Ok(result)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

/// Makes the object store of all tables below `root`.
///
/// Keys are relative to `root`, so that they consist of the store's own names only. Absolute keys would hold the names of
/// the user's folders, and deltalake, DataFusion and object_store decode `%20`, `\` and `..` in such names differently.
///
/// # Errors
/// [`StoreError::Io`] if `root` does not exist or cannot be resolved.
pub(super) fn durable(root: &Path, scratch: &Path) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let failed = |error: object_store::Error| {
        let kind = match error {
            object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::Other,
        };
        StoreError::io("open", root)(io::Error::new(kind, error))
    };
    Ok(Arc::new(Durable::new(root, scratch.to_owned()).map_err(failed)?))
}
