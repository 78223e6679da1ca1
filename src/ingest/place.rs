//! Makes the form of a path that a store records.

use std::path::{Component, Path, PathBuf};

use vaplan_schemas::storage::{StoreUrl, local_path};

use super::error::IngestError;

/// The absolute path without `.` and `..` that a store records for `path`, which need not exist. A URL of an object store
/// stays as it is.
///
/// The function keeps symbolic links, so that a link can be set to another folder later. Only a link before a `..` is
/// resolved, because `link/..` is the parent folder of the target of the link.
///
/// ```
/// use std::path::Path;
/// use vaplan::ingest::absolute;
/// let clip = absolute(Path::new("clip"))?;
/// assert!(clip.is_absolute());
/// assert_eq!(absolute(Path::new("./audio/../clip/"))?, clip);
/// # Ok::<(), vaplan::ingest::IngestError>(())
/// ```
///
/// # Errors
/// - Returns [`IngestError::Name`] if the path is not UTF-8: tables hold text, and a changed spelling would name no
///   file.
/// - Returns [`IngestError::Io`] if the path is empty, the URL cannot be used, or the working directory was deleted.
pub fn absolute(path: &Path) -> Result<PathBuf, IngestError> {
    let of_store =
        |error: vaplan_schemas::StoreError| IngestError::io("use", path)(std::io::Error::other(error));
    if let Some(url) = StoreUrl::parse(path).map_err(of_store)? {
        return Ok(url.to_string().into());
    }
    let local = local_path(path).map_err(of_store)?;
    let path = local.as_deref().unwrap_or(path);
    let whole = std::path::absolute(path).map_err(IngestError::io("resolve", path))?;
    let mut plain = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if plain.is_symlink() {
                    plain = plain.canonicalize().map_err(IngestError::io("resolve", &plain))?;
                }
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    match plain.to_str() {
        Some(_) => Ok(plain),
        None => Err(IngestError::Name { path: plain }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn every_spelling_of_a_path_gives_one_absolute_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        for spelled in ["a/b", "./a/b", "a/./b/", "a/../a/b", "a/b/../b", "//a//b"] {
            assert_eq!(
                absolute(&root.join(spelled.trim_start_matches('/'))).unwrap(),
                root.join("a/b")
            );
        }
        assert_eq!(absolute(&root.join("link")).unwrap(), root.join("link"));
        assert_eq!(absolute(&root.join("link/../b")).unwrap(), root.join("a/b"));
        assert_eq!(
            absolute(Path::new("x")).unwrap(),
            std::env::current_dir().unwrap().join("x")
        );
    }

    #[test]
    fn a_name_that_is_not_utf8_is_refused_with_its_bytes() {
        let path = Path::new("/data").join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
        let refused = absolute(&path).unwrap_err().to_string();
        assert_eq!(
            refused,
            "path `/data/caf\\xe9` is not UTF-8, expected a UTF-8 name: rename the file or folder, or name a link to it"
        );
    }
}
