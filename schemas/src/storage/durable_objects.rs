//! The files of a local disk as an object store, for deltalake. Its writes are durable ([`durable`](super::durable)).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use tokio::sync::Semaphore;

use super::checkpoint;
use super::durable::{OPEN_FILES, Scratch, sync_folder};
use crate::error::StoreError;

/// A local object store whose writes are durable, and which holds at most [`OPEN_FILES`] files open for reading.
#[derive(Debug)]
pub(super) struct Durable {
    inner: LocalFileSystem,
    scratch: PathBuf,
    reads: Semaphore,
}

impl Durable {
    /// Makes an object store whose keys are paths below `root`, which must exist.
    ///
    /// New bytes are first written to the folder `scratch`, which must be on the same disk as `root`.
    pub(super) fn new(root: &Path, scratch: PathBuf) -> object_store::Result<Durable> {
        Ok(Durable {
            inner: LocalFileSystem::new_with_prefix(root)?,
            scratch,
            reads: Semaphore::new(OPEN_FILES),
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

/// The bytes to write in place of a checkpoint or of the file that names the last checkpoint; `None` for other files.
fn of_checkpoint(target: &Path, payload: &PutPayload) -> Option<Vec<u8>> {
    let log = target.parent()?;
    match target.file_name()?.to_str()? {
        checkpoint::HINT => {
            let text = Bytes::from(payload.clone());
            let bytes = std::fs::read(log.join(checkpoint::named(&text)?)).ok()?;
            checkpoint::hint(&text, &bytes.into())
        }
        name if checkpoint::is_checkpoint(name) => {
            let table = log.parent()?;
            checkpoint::trimmed(Bytes::from(payload.clone()), |name| table.join(name).exists())
        }
        _ => None,
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
        let parts: Vec<Bytes> = match of_checkpoint(&target, &payload) {
            Some(bytes) => vec![bytes.into()],
            None => payload.iter().cloned().collect(),
        };
        let scratch =
            Scratch::write(&self.scratch, parts.iter().map(|part| part.as_ref())).map_err(generic)?;
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

    /// Reads the whole answer and closes the file before it returns. deltalake asks for many log entries at once; an open
    /// file in each answer would take a descriptor per entry.
    async fn get_opts(&self, location: &Location, options: GetOptions) -> object_store::Result<GetResult> {
        let _permit = self.reads.acquire().await.expect("the semaphore is never closed");
        let head = options.head;
        let found = self.inner.get_opts(location, options).await?;
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let bytes = match head {
            true => Bytes::new(),
            false => found.bytes().await?,
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(
        &self,
        location: &Location,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        let _permit = self.reads.acquire().await.expect("the semaphore is never closed");
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

/// Sorts a listing by key, as object stores do. The Delta kernel takes a log in another order for a log with gaps,
/// and it sorts only what it lists by `file` URLs itself.
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

/// An upload in parts that is synced when it is complete.
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
/// Keys are relative to `root`, so that they consist of the store's own names only. Absolute keys would contain the
/// names of the user's folders, and deltalake, DataFusion and object_store decode `%20`, `\` and `..` in such names
/// differently.
///
/// # Errors
/// Returns [`StoreError::Io`] if `root` does not exist or cannot be resolved.
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
