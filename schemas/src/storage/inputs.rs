//! Inputs at URLs: annotations, features and text embeddings that a command reads from an object store.
//!
//! A command reads an input from a copy in the scratch folder. The copy belongs to one state of the object (its ETag and
//! size), so a changed object is fetched again. Copies stay, because a later command may read them again.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore};
use sha2::{Digest, Sha256};

use super::retry::Retrying;
use super::{StoreUrl, open, run, scratch};
use crate::error::{ObjectError, StoreError};

/// The number of bytes that one request fetches.
const PART: u64 = 16 << 20;
/// The most parts that are fetched at once. Memory holds their bytes.
const PARTS_AT_ONCE: usize = 4;

/// The buckets that this process reads.
static BUCKETS: Mutex<BTreeMap<String, Retrying>> = Mutex::new(BTreeMap::new());

/// The copies that this process fetched or found, by URL.
static FETCHED: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

/// The first request for an input that failed for good.
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
        state: hash
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
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
    let location = Location::from(url.key());
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

/// The path of a copy of an object in the scratch folder. The object is fetched unless there is a copy of its state.
///
/// # Errors
/// As [`stat`], and [`StoreError::Io`] if there is no such object or the copy cannot be written.
pub fn fetch(path: &Path) -> Result<PathBuf, StoreError> {
    let fetched = fetch_now(path);
    match &fetched {
        Ok(copy) => drop(fetched_paths().insert(path.to_owned(), copy.clone())),
        Err(StoreError::Object(error)) => {
            let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error.clone());
        }
        Err(_) => {}
    }
    fetched
}

fn fetched_paths() -> MutexGuard<'static, BTreeMap<PathBuf, PathBuf>> {
    FETCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The copy of an object that this process fetched before, without a request.
pub fn fetched(path: &Path) -> Option<PathBuf> {
    let copy = fetched_paths().get(path).cloned();
    copy.filter(|copy| copy.exists())
}

/// The first failed request for an input since the last call.
///
/// A file of features that cannot be read is a rejected row, and its videos lose their labels. A request that failed says
/// nothing about the file, so a commit ends with this error instead.
pub(crate) fn take_failure() -> Option<ObjectError> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn fetch_now(path: &Path) -> Result<PathBuf, StoreError> {
    let absent = || StoreError::io("read", path)(std::io::ErrorKind::NotFound.into());
    let object = stat(path)?.ok_or_else(absent)?;
    let (url, bucket, location) = parsed(path)?;
    let folder = scratch::of_url(&url).join("inputs");
    let copy = folder.join(&object.state);
    if std::fs::metadata(&copy).is_ok_and(|found| found.len() == object.bytes) {
        return Ok(copy);
    }
    std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(StoreError::io("write", &folder))?;
    let parts: Vec<std::ops::Range<u64>> = (0..object.bytes)
        .step_by(PART as usize)
        .map(|start| start..object.bytes.min(start + PART))
        .collect();
    for together in parts.chunks(PARTS_AT_ONCE) {
        let fetched = run(bucket.get_ranges(&location, together))?.map_err(|error| failed(path, error))?;
        for bytes in fetched {
            file.write_all(&bytes).map_err(StoreError::io("write", &copy))?;
        }
    }
    let length = file
        .seek(SeekFrom::End(0))
        .map_err(StoreError::io("write", &copy))?;
    // The object can be replaced while it is read.
    if stat(path)?.as_ref() != Some(&object) || length != object.bytes {
        return Err(StoreError::File {
            path: path.to_owned(),
            problem: "the object changed while it was read; run the command again".to_owned(),
        });
    }
    file.persist(&copy)
        .map_err(|error| StoreError::io("write", &copy)(error.error))?;
    Ok(copy)
}

/// The path of a folder of the scratch folder that has a copy of every object below a URL, under the same names. If `path` is a
/// single object, the path of a copy of that name.
///
/// # Errors
/// As [`fetch`], and [`StoreError::Io`] if there is no object at or below the URL.
pub fn folder(path: &Path) -> Result<PathBuf, StoreError> {
    let single = stat(path)?;
    let objects = match &single {
        Some(object) => vec![object.clone()],
        None => list(path)?,
    };
    if objects.is_empty() {
        return Err(StoreError::io("read", path)(std::io::ErrorKind::NotFound.into()));
    }
    let (url, ..) = parsed(path)?;
    let mut sum = Sha256::new();
    for object in &objects {
        sum.update(object.path.as_os_str().as_encoded_bytes());
        sum.update([0]);
        sum.update(&object.state);
    }
    let state: String = sum
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let copy = scratch::of_url(&url).join("folders").join(state);
    let base = match &single {
        Some(_) => path.parent().unwrap_or(path),
        None => path,
    };
    let within = |object: &InputObject| {
        let name = object.path.strip_prefix(base).unwrap_or(&object.path);
        // A name with `..` would leave the folder.
        let plain = name
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| name.to_owned())
    };
    let done = match &single {
        Some(object) => copy.join(within(object).unwrap_or_default()),
        None => copy.clone(),
    };
    if copy.is_dir() {
        return Ok(done);
    }
    let above = scratch::of_url(&url).join("folders");
    std::fs::create_dir_all(&above).map_err(StoreError::io("make", &above))?;
    let unfinished = tempfile::tempdir_in(&above).map_err(StoreError::io("make", &above))?;
    for object in &objects {
        let Some(name) = within(object) else { continue };
        let fetched = fetch(&object.path)?;
        let target = unfinished.path().join(name);
        let parent = target.parent().unwrap_or(unfinished.path());
        std::fs::create_dir_all(parent).map_err(StoreError::io("make", parent))?;
        // The name takes the place of the copy, so that the scratch folder holds the bytes once.
        std::fs::rename(&fetched, &target).map_err(StoreError::io("name", &target))?;
        fetched_paths().remove(&object.path);
    }
    let unfinished = unfinished.keep();
    match std::fs::rename(&unfinished, &copy) {
        Ok(()) => Ok(done),
        // Another process made the same copy meanwhile.
        Err(_) if copy.is_dir() => {
            let _ = std::fs::remove_dir_all(&unfinished);
            Ok(done)
        }
        Err(error) => Err(StoreError::io("name", &copy)(error)),
    }
}
