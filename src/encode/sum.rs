//! Computes the SHA-256 of files as hexadecimal text.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ingest::{IngestError, open_regular};

/// Writes bytes as hexadecimal text, two digits for each byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Adds the contents of a file to the hash, 64 KiB at a time. Returns the length of the file.
///
/// # Errors
/// Returns [`IngestError`] if the path is not a regular file, or if the file cannot be read.
pub(super) fn feed(sum: &mut Sha256, path: &Path) -> Result<u64, IngestError> {
    let (mut file, _) = open_regular(path)?;
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        match file.read(&mut buffer).map_err(IngestError::io("read", path))? {
            0 => return Ok(length),
            read => {
                sum.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

/// Returns the SHA-256 of a whole file as hexadecimal text.
///
/// # Errors
/// Returns the errors of [`feed`].
pub(super) fn of_file(path: &Path) -> Result<String, IngestError> {
    let mut sum = Sha256::new();
    feed(&mut sum, path)?;
    Ok(hex(&sum.finalize()))
}
