//! Inputs at URLs: annotations, features and text embeddings that a command reads from an object store.
//!
//! A command reads an input from a copy in the input cache (`storage::copies`). The copy belongs to one state of the
//! object (its ETag and size), so a changed object is fetched again. Copies stay, because a later command may read them again,
//! until the room is needed for other copies.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::copies::{Copies, HeldCopy};
use super::retry::Retrying;
use super::{StoreUrl, open, run, scratch};
use crate::error::{ObjectError, StoreError};

/// The number of bytes that one request fetches.
const PART: u64 = 16 << 20;
/// The most parts that are fetched at once. Memory holds their bytes.
const PARTS_AT_ONCE: usize = 4;

/// The buckets that this process reads.
static BUCKETS: Mutex<BTreeMap<String, Retrying>> = Mutex::new(BTreeMap::new());

/// The objects that this process fetched or found in the cache, by URL, as they were then.
static FETCHED: Mutex<BTreeMap<PathBuf, InputObject>> = Mutex::new(BTreeMap::new());

/// The copies of folders that this process uses until it ends, because it gave their paths away.
static FOLDERS: Mutex<Vec<HeldCopy>> = Mutex::new(Vec::new());

/// The first input that could not be fetched, although its object exists or may exist.
static FAILED: Mutex<Option<ObjectError>> = Mutex::new(None);

/// An object that is an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputObject {
    /// The URL.
    pub path: PathBuf,
    /// The size in bytes.
    pub bytes: u64,
    /// A text that changes if the object is written again.
    pub state: String,
}

/// The first 16 hexadecimal digits of a hash.
fn digits(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl InputObject {
    /// The name of the copy of this state of the object.
    fn copy_name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.path.as_os_str().as_encoded_bytes());
        format!("{}-{}", digits(hash), self.state)
    }
}

fn input(url: &StoreUrl, object: &ObjectMeta) -> InputObject {
    let mut hash = Sha256::new();
    match &object.e_tag {
        Some(tag) => hash.update(tag),
        None => hash.update(object.last_modified.to_rfc3339()),
    }
    hash.update(object.size.to_le_bytes());
    InputObject {
        path: format!("{}/{}", url.base(), object.location).into(),
        bytes: object.size,
        state: digits(hash),
    }
}

fn parsed(path: &Path) -> Result<(StoreUrl, Retrying, Location), StoreError> {
    let url = StoreUrl::parse(path)?.ok_or_else(|| StoreError::Url {
        url: super::redacted(&path.to_string_lossy()),
        problem: "no URL of an object store",
    })?;
    let base = StoreUrl::parse(Path::new(&url.base()))?.expect("the base of a URL is a URL");
    let mut buckets = BUCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    let bucket = match buckets.get(&url.base()) {
        Some(bucket) => bucket.clone(),
        None => {
            let bucket = open::objects(&base)?;
            buckets.insert(url.base(), bucket.clone());
            bucket
        }
    };
    let location = url.location();
    Ok((url, bucket, location))
}

fn failed(path: &Path, error: Error) -> StoreError {
    if let Error::Generic { source, .. } = &error
        && let Some(own) = source.downcast_ref::<ObjectError>()
    {
        return StoreError::Object(own.clone());
    }
    StoreError::io("read", path)(match error {
        Error::NotFound { .. } => std::io::ErrorKind::NotFound.into(),
        error => std::io::Error::other(super::redacted(&error.to_string())),
    })
}

/// Looks for an object. Returns `None` if there is no object of this URL; there can be objects below the URL then.
///
/// # Errors
/// Returns [`StoreError::Url`] for a path that is no URL, and [`StoreError::Object`] if a request fails.
pub fn stat(path: &Path) -> Result<Option<InputObject>, StoreError> {
    let (url, bucket, location) = parsed(path)?;
    if url.key().is_empty() {
        return Ok(None);
    }
    let options = GetOptions {
        head: true,
        ..GetOptions::default()
    };
    match run(bucket.get_opts(&location, options))? {
        Ok(found) => Ok(Some(input(&url, &found.meta))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// The objects below a URL, sorted by URL.
///
/// # Errors
/// As [`stat`].
pub fn list(path: &Path) -> Result<Vec<InputObject>, StoreError> {
    let (url, bucket, location) = parsed(path)?;
    let prefix = (!url.key().is_empty()).then_some(&location);
    let listed: Vec<ObjectMeta> =
        run(bucket.list(prefix).try_collect())?.map_err(|error| failed(path, error))?;
    let mut inputs: Vec<InputObject> = listed.iter().map(|object| input(&url, object)).collect();
    inputs.sort();
    Ok(inputs)
}

fn cache() -> Result<Copies, StoreError> {
    Ok(Copies::new(scratch::inputs(), scratch::cache_bytes()?))
}

/// Opens a copy of what an object is now. The object is fetched unless the cache has a copy of its state. The copy stays in the
/// cache while the file is open.
///
/// # Errors
/// Returns [`StoreError::Io`] if there is no such object, and [`StoreError::Object`] if a request fails or the copy cannot be
/// written. After the latter, this process commits nothing (`take_failure`).
pub fn open_latest(path: &Path) -> Result<File, StoreError> {
    let copy = stat(path).and_then(|object| {
        let Some(object) = object else { return Ok(None) };
        let copy = copy_of(path, &object)?;
        fetched().insert(path.to_owned(), object);
        Ok(Some(copy))
    });
    opened(path, copy)
}

/// Like [`open_latest`], but for what the object was when this process fetched it first. If the copy is still in the cache, this
/// makes no request.
///
/// # Errors
/// As [`open_latest`], and [`StoreError::Object`] if the copy is gone and the object changed meanwhile.
pub fn open_fetched(path: &Path) -> Result<File, StoreError> {
    let Some(object) = fetched().get(path).cloned() else {
        return open_latest(path);
    };
    let copy = cache().and_then(|cache| match cache.find(&object.copy_name())? {
        Some(copy) => Ok(copy),
        None if stat(path)?.as_ref() != Some(&object) => Err(changed(path)),
        None => copy_of(path, &object),
    });
    opened(path, copy.map(Some))
}

/// The file of a copy. Remembers every failure but that of a missing object.
fn opened(path: &Path, copy: Result<Option<HeldCopy>, StoreError>) -> Result<File, StoreError> {
    let error = match copy {
        Ok(Some(copy)) => return Ok(copy.file),
        Ok(None) => return Err(absent(path)),
        Err(StoreError::Object(error)) => error,
        Err(
            error @ (StoreError::Url { .. }
            | StoreError::Settings { .. }
            | StoreError::Endpoint { .. }
            | StoreError::Variable { .. }),
        ) => return Err(error),
        Err(error) => ObjectError {
            operation: "GET",
            url: super::redacted(&path.to_string_lossy()),
            attempts: 1,
            last: error.to_string(),
            advice: "check the free space and the rights of the scratch folder (--scratch, docs/object-stores.md)",
        },
    };
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.get_or_insert_with(|| error.clone());
    Err(StoreError::Object(error))
}

/// Fetches objects before they are read, as long as they take at most half of the cache. More objects would push each other out
/// of the cache before they are read.
#[derive(Debug, Default)]
pub struct FetchAhead {
    bytes: AtomicU64,
}

impl FetchAhead {
    /// Fetches an object, or does nothing if the objects so far take half of the cache.
    ///
    /// # Errors
    /// As [`open_latest`].
    pub fn fetch(&self, path: &Path) -> Result<(), StoreError> {
        if self.bytes.load(Ordering::Relaxed) > scratch::cache_bytes()? / 2 {
            return Ok(());
        }
        let file = open_latest(path)?;
        let length = file.metadata().map_err(StoreError::io("read", path))?.len();
        self.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

fn fetched() -> MutexGuard<'static, BTreeMap<PathBuf, InputObject>> {
    FETCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first input since the last call that could not be fetched.
///
/// A file of features that cannot be read is a rejected row, and its videos lose their labels. A request that failed, or a full
/// local disk, says nothing about the file, so a commit ends with this error instead.
pub(crate) fn take_failure() -> Option<ObjectError> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn absent(path: &Path) -> StoreError {
    StoreError::io("read", path)(std::io::ErrorKind::NotFound.into())
}

fn changed(path: &Path) -> StoreError {
    StoreError::Object(ObjectError {
        operation: "GET",
        url: path.display().to_string(),
        attempts: 1,
        last: "the object changed while the command read it".to_owned(),
        advice: "run the command again when nobody writes the object",
    })
}

/// The copy of this state of the object at a URL, which is fetched if the cache does not have it.
fn copy_of(path: &Path, object: &InputObject) -> Result<HeldCopy, StoreError> {
    let (cache, name) = (cache()?, object.copy_name());
    if let Some(copy) = cache.find(&name)? {
        return Ok(copy);
    }
    let new = cache.file(object.bytes)?;
    write(path, object, new.writer())?;
    new.publish(&name)
}

/// Writes the bytes of this state of the object at a URL to a file.
fn write(path: &Path, object: &InputObject, mut file: &File) -> Result<(), StoreError> {
    let (_, bucket, location) = parsed(path)?;
    let parts: Vec<std::ops::Range<u64>> = (0..object.bytes)
        .step_by(PART as usize)
        .map(|start| start..object.bytes.min(start + PART))
        .collect();
    let mut length = 0;
    for together in parts.chunks(PARTS_AT_ONCE) {
        let fetched = run(bucket.get_ranges(&location, together))?.map_err(|error| match error {
            Error::NotFound { .. } => changed(path),
            error => failed(path, error),
        })?;
        for bytes in fetched {
            length += bytes.len() as u64;
            file.write_all(&bytes)
                .map_err(StoreError::io("write the copy of", path))?;
        }
    }
    // The object can be replaced while it is read.
    match stat(path)?.as_ref() == Some(object) && length == object.bytes {
        true => Ok(()),
        false => Err(changed(path)),
    }
}

/// The path of a folder of the input cache that has a copy of every object below a URL, under the same names. If `path` is a
/// single object, the path of a copy of that name. The folder stays in the cache until this process ends.
///
/// # Errors
/// As [`open_latest`], and [`StoreError::Io`] if there is no object at or below the URL.
pub fn folder(path: &Path) -> Result<PathBuf, StoreError> {
    let single = stat(path)?;
    let objects = match &single {
        Some(object) => vec![object.clone()],
        None => list(path)?,
    };
    if objects.is_empty() {
        return Err(absent(path));
    }
    let mut sum = Sha256::new();
    for object in &objects {
        sum.update(object.path.as_os_str().as_encoded_bytes());
        sum.update([0]);
        sum.update(&object.state);
    }
    let base = match &single {
        Some(_) => path.parent().unwrap_or(path),
        None => path,
    };
    let within = |object: &InputObject| {
        let name = object.path.strip_prefix(base).unwrap_or(&object.path);
        // A name with `..` would leave the folder.
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| name.to_owned())
    };
    let named: Vec<(PathBuf, &InputObject)> = objects
        .iter()
        .filter_map(|object| Some((within(object)?, object)))
        .collect();
    let (cache, name) = (cache()?, format!("{}-folder", digits(sum)));
    let held = match cache.find(&name)? {
        Some(held) => held,
        None => {
            let sizes: Vec<(PathBuf, u64)> = named
                .iter()
                .map(|(name, object)| (name.clone(), object.bytes))
                .collect();
            let new = cache.folder(&sizes)?;
            for (name, object) in &named {
                let target = new.path().join(name);
                let file = OpenOptions::new().write(true).open(&target);
                write(
                    &object.path,
                    object,
                    &file.map_err(StoreError::io("write", &target))?,
                )?;
            }
            new.publish(&name)?
        }
    };
    let done = match (&single, named.first()) {
        (Some(_), Some((name, _))) => held.path.join(name),
        _ => held.path.clone(),
    };
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    Ok(done)
}
