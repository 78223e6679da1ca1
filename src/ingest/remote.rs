//! Inputs at URLs of object stores. All other code of this crate treats the URL as the path of the input.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;
use vaplan_schemas::storage::inputs::{self, FetchAhead, InputObject};
use vaplan_schemas::storage::is_url;

use super::error::IngestError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(StoreError) -> IngestError {
    IngestError::of_store(action, path)
}

/// A local copy of all objects below a URL, as a folder with the same names; `path` itself if it is a local path. Media and
/// models are read from such a copy, because their readers take files.
///
/// The copy belongs to one state of the objects. It needs no more room than the objects, is not removed while this process runs,
/// and stays for the next command.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if there is no object below it, a request fails, or the copy cannot be written.
#[cfg(feature = "encode")]
pub(crate) fn local_copy(path: &Path) -> Result<PathBuf, IngestError> {
    if !is_url(path) {
        return Ok(path.to_owned());
    }
    inputs::folder(path).map_err(failed("copy", path))
}

/// An open copy of what the object at a URL is now; `None` if `path` is no URL.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if there is no such object or a request fails.
pub(super) fn latest(path: &Path) -> Result<Option<File>, IngestError> {
    match is_url(path) {
        true => inputs::open_latest(path).map(Some).map_err(failed("open", path)),
        false => Ok(None),
    }
}

/// Like [`latest`], but of what the object was when this process fetched it first, without a request if the copy is still there.
/// [`fetch_all`] fetches copies.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if there is no such object or a request fails.
pub(super) fn fetched(path: &Path) -> Result<Option<File>, IngestError> {
    match is_url(path) {
        true => inputs::open_fetched(path).map(Some).map_err(failed("open", path)),
        false => Ok(None),
    }
}

/// The most objects that are fetched at once.
const AT_ONCE: usize = 16;

/// Fetches the objects at these URLs, so that reading them makes no request. An object that does not exist is left out: it
/// becomes a rejected row when it is read. Objects that take more than half of the input cache are fetched when they are read.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if a request fails. A run therefore ends before it takes the file for one that
/// cannot be read.
pub(super) fn fetch_all(paths: &[&Path]) -> Result<(), IngestError> {
    let ahead = FetchAhead::default();
    let fetch = |path: &&Path| match ahead.fetch(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(failed("open", path)),
    };
    let per_thread = paths.len().div_ceil(AT_ONCE).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = paths
            .chunks(per_thread)
            .map(|paths| scope.spawn(|| paths.iter().try_for_each(fetch)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// The object at a URL; `None` if there is no object, or if `path` is no URL.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if a request fails.
pub(super) fn object(path: &Path) -> Result<Option<InputObject>, IngestError> {
    match is_url(path) {
        true => inputs::stat(path).map_err(failed("read", path)),
        false => Ok(None),
    }
}

/// The URLs of all objects below a URL, sorted.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if there is no object below it or a request fails.
pub(super) fn below(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let found = inputs::list(path).map_err(failed("list", path))?;
    if found.is_empty() {
        return Err(IngestError::io("list", path)(io::ErrorKind::NotFound.into()));
    }
    Ok(found.into_iter().map(|object| object.path).collect())
}

/// The names of the files directly in a folder, or of the objects directly below a URL.
///
/// # Errors
/// Returns [`IngestError::Io`] if the folder cannot be listed.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, IngestError> {
    if is_url(folder) {
        let direct = |path: PathBuf| {
            let name = path.strip_prefix(folder).ok()?.to_str()?.to_owned();
            (!name.contains('/')).then_some(name)
        };
        return Ok(below(folder)?.into_iter().filter_map(direct).collect());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IngestError::io("list", folder))? {
        let entry = entry.map_err(IngestError::io("list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Whether there is a file or folder of this path, or an object at or below this URL. A URL that cannot be reached counts
/// as existing, so that reading it reports the error; a missing input would unset labels.
pub(crate) fn exists(path: &Path) -> bool {
    if !is_url(path) {
        return path.exists();
    }
    match inputs::stat(path) {
        Ok(None) => inputs::list(path).map_or(true, |found| !found.is_empty()),
        Ok(Some(_)) | Err(_) => true,
    }
}

/// Whether a recorded path needs the working directory.
pub(crate) fn is_relative(path: &Path) -> bool {
    path.is_relative() && !is_url(path)
}
