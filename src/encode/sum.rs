//! SHA-256 of files, as text.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ingest::{IngestError, open_regular};

/// Two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Feeds a file, piece by piece; gives its length.
///
/// # Errors
/// [`IngestError`] for what is no regular file, or cannot be read.
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

/// Of a whole file.
///
/// # Errors
/// As [`feed`].
pub(super) fn of_file(path: &Path) -> Result<String, IngestError> {
    let mut sum = Sha256::new();
    feed(&mut sum, path)?;
    Ok(hex(&sum.finalize()))
}
