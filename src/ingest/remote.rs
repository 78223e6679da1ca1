//! Inputs at URLs of object stores. All other code of this crate treats the URL as the path of the input.

use std::io;
use std::path::{Path, PathBuf};

use vaplan_schemas::StoreError;
use vaplan_schemas::storage::inputs::{self, InputObject};
use vaplan_schemas::storage::is_url;

use super::error::IngestError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(StoreError) -> IngestError {
    let path = path.to_owned();
    move |error| {
        let source = match error {
            StoreError::Io { source, .. } => source,
            error => io::Error::other(error),
        };
        IngestError::io(action, &path)(source)
    }
}

/// The path to read `path` from: `path` itself, or a local copy of the object at a URL.
///
/// # Errors
/// Returns [`IngestError::Io`] with the URL if there is no such object or a request fails.
pub(super) fn readable(path: &Path) -> Result<PathBuf, IngestError> {
    match is_url(path) {
        true => inputs::fetch(path).map_err(failed("open", path)),
        false => Ok(path.to_owned()),
    }
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
/// as missing.
pub(crate) fn exists(path: &Path) -> bool {
    match is_url(path) {
        true => matches!(inputs::stat(path), Ok(Some(_))) || inputs::list(path).is_ok_and(|found| !found.is_empty()),
        false => path.exists(),
    }
}

/// Whether a recorded path needs the working directory.
pub(crate) fn is_relative(path: &Path) -> bool {
    path.is_relative() && !is_url(path)
}
