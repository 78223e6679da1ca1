//! Opens files whose paths come from the user or the data, without blocking and without opening devices as data.

use std::fs::{File, FileType, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use vaplan_schemas::storage::local_path;

use super::error::IngestError;
use super::remote;

/// Opens a regular file for reading. Returns the file and its length.
///
/// The function follows a symbolic link to a regular file, because data sets are often folders of links. It refuses a
/// link that is broken, is part of a loop, or leads to something else. It refuses a FIFO, socket, device or folder
/// immediately, without waiting for a writer.
///
/// The object at a URL is read from a copy in the input cache.
///
/// # Errors
/// - Returns [`IngestError::Kind`] with what was found, if the path is no regular file.
/// - Returns [`IngestError::Io`] if the file cannot be opened.
pub fn open_regular(path: &Path) -> Result<(File, u64), IngestError> {
    match remote::latest(path)? {
        Some(copy) => with_length(path, copy),
        None => open(path),
    }
}

/// Like [`open_regular`], but opens the copy of an object that this process already fetched, without a request.
pub(super) fn open_fetched(path: &Path) -> Result<(File, u64), IngestError> {
    match remote::fetched(path)? {
        Some(copy) => with_length(path, copy),
        None => open(path),
    }
}

fn with_length(path: &Path, copy: File) -> Result<(File, u64), IngestError> {
    let meta = copy.metadata().map_err(IngestError::io("read", path))?;
    Ok((copy, meta.len()))
}

fn open(path: &Path) -> Result<(File, u64), IngestError> {
    let local = local_path(path).map_err(IngestError::of_store("open", path))?;
    let path = local.as_deref().unwrap_or(path);
    // Without O_NONBLOCK, opening a FIFO waits for a writer, possibly for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(|source| match path.symlink_metadata() {
            Ok(meta) if meta.file_type().is_symlink() && path.metadata().is_err() => IngestError::Kind {
                path: path.to_owned(),
                found: "a symbolic link that leads nowhere",
                expected: "a regular file",
            },
            // The system cannot open a socket, so that the check after opening is too late for it.
            Ok(meta) if !meta.is_file() && !meta.file_type().is_symlink() => IngestError::Kind {
                path: path.to_owned(),
                found: kind(meta.file_type()),
                expected: "a regular file",
            },
            _ => IngestError::Io {
                action: "open",
                path: path.to_owned(),
                source,
            },
        })?;
    let meta = file.metadata().map_err(IngestError::io("read", path))?;
    if !meta.is_file() {
        return Err(IngestError::Kind {
            path: path.to_owned(),
            found: kind(meta.file_type()),
            expected: "a regular file",
        });
    }
    Ok((file, meta.len()))
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a folder"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_block_device() || file_type.is_char_device() {
        "a device"
    } else {
        "no regular file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_folder_and_dangling_link_are_refused_at_once_and_a_link_to_a_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("to_fifo")).unwrap();
        std::fs::write(at("file"), b"abc").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let message = |name: &str| open_regular(&at(name)).unwrap_err().to_string();
        assert_eq!(
            message("fifo"),
            format!("`{}` is a FIFO, expected a regular file", at("fifo").display())
        );
        assert!(message("to_fifo").ends_with("is a FIFO, expected a regular file"));
        assert!(
            message("dangling").ends_with("is a symbolic link that leads nowhere, expected a regular file")
        );
        assert!(message("loop").ends_with("is a symbolic link that leads nowhere, expected a regular file"));
        let folder_message = open_regular(folder.path()).unwrap_err().to_string();
        assert!(
            folder_message.ends_with("is a folder, expected a regular file"),
            "{folder_message}"
        );
        assert!(message("absent").starts_with("cannot open"));
        assert_eq!(open_regular(&at("link")).unwrap().1, 3);
    }
}
