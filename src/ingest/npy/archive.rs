//! npz archives: zip files with one npy file for each array, as `numpy.savez` and `numpy.savez_compressed` write them.
//!
//! An archive can state any size for an array, and a small compressed file can hold gigabytes. Reading therefore stops
//! at [`MAX_BYTES`].

use std::fs::File;
use std::io::Read;

use zip::ZipArchive;

use super::NpyProblem;

/// Largest number of bytes of an array in an archive: 2^27 values of 8 bytes, and the header.
const MAX_BYTES: u64 = (1 << 30) + (1 << 16);

/// Returns whether a file begins like a zip archive. numpy tells npy and npz apart in the same way.
pub(super) fn is_archive(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// Replaces `bytes` by the npy file that is the only array of an archive.
pub(super) fn read_array(file: File, bytes: &mut Vec<u8>) -> Result<(), NpyProblem> {
    let found = |found: String| NpyProblem::Archive { found };
    let unreadable = |error: zip::result::ZipError| found(format!("cannot be read: {error}"));
    let mut archive = ZipArchive::new(file).map_err(unreadable)?;
    let mut names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    names.retain(|name| name.ends_with(".npy"));
    names.sort_unstable();
    let [name] = names.as_slice() else {
        let shown: Vec<String> = names
            .iter()
            .take(5)
            .map(|name| format!("`{}`", name.trim_end_matches(".npy").escape_default()))
            .collect();
        return Err(found(match names.len() {
            0 => "holds no array".to_owned(),
            count => format!("holds {count} arrays ({})", shown.join(", ")),
        }));
    };
    let entry = archive.by_name(name).map_err(unreadable)?;
    bytes.clear();
    let read = entry.take(MAX_BYTES + 1).read_to_end(bytes);
    read.map_err(|error| found(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(found(format!("holds an array of more than {MAX_BYTES} bytes")));
    }
    Ok(())
}
