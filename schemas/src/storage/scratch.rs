//! The scratch folder: what the program keeps on the local disk for stores and inputs at URLs.
//!
//! A store at a URL has its tables there, and nothing else. Staged shards, encoded media and copies of inputs stay in the
//! scratch folder of this machine. Every file of it can be removed while no command runs: the next command makes it again.
//! Copies of inputs are in its folder `inputs`, whose size has a limit ([`cache_bytes`]).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::StoreUrl;
use crate::error::StoreError;

/// The environment variable that names the scratch folder.
pub const VARIABLE: &str = "VAPLAN_SCRATCH";
/// The environment variable with the limit of the input cache in bytes.
pub const CACHE_BYTES_VARIABLE: &str = "VAPLAN_CACHE_BYTES";
/// The default limit of the input cache: 64 GiB.
const CACHE_BYTES: u64 = 64 << 30;

static CHOSEN: Mutex<Option<PathBuf>> = Mutex::new(None);
static CHOSEN_BYTES: Mutex<Option<u64>> = Mutex::new(None);

/// Sets the scratch folder of this process.
pub fn set(folder: PathBuf) {
    *CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
}

/// The scratch folder: the one that [`set`] chose, or that the environment variable `VAPLAN_SCRATCH` names; otherwise the
/// folder `vaplan` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`), or in the system's folder of temporary files.
/// This function does not create the folder.
pub fn folder() -> PathBuf {
    if let Some(chosen) = &*CHOSEN.lock().unwrap_or_else(PoisonError::into_inner) {
        return chosen.clone();
    }
    let named = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    named(VARIABLE)
        .or_else(|| {
            Some(
                named("XDG_CACHE_HOME")
                    .filter(|folder| folder.is_absolute())?
                    .join("vaplan"),
            )
        })
        .or_else(|| Some(named("HOME")?.join(".cache/vaplan")))
        .unwrap_or_else(|| std::env::temp_dir().join("vaplan"))
}

/// Sets the limit of the input cache of this process in bytes.
pub fn set_cache_bytes(bytes: u64) {
    *CHOSEN_BYTES.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
}

/// The limit of the input cache in bytes: the one that [`set_cache_bytes`] chose, or that the environment variable
/// `VAPLAN_CACHE_BYTES` has; otherwise 64 GiB.
///
/// # Errors
/// Returns [`StoreError::Variable`] if the variable is no number.
pub fn cache_bytes() -> Result<u64, StoreError> {
    if let Some(chosen) = *CHOSEN_BYTES.lock().unwrap_or_else(PoisonError::into_inner) {
        return Ok(chosen);
    }
    match std::env::var(CACHE_BYTES_VARIABLE) {
        Ok(text) => text.parse().map_err(|_| StoreError::Variable {
            variable: CACHE_BYTES_VARIABLE,
            value: text,
            expected: "a number of bytes, such as 68719476736",
        }),
        Err(_) => Ok(CACHE_BYTES),
    }
}

/// The folder of the input cache.
pub(super) fn inputs() -> PathBuf {
    folder().join("inputs")
}

/// The folder in the scratch folder that belongs to a URL. Two URLs have two folders.
pub fn of_url(url: &StoreUrl) -> PathBuf {
    use sha2::{Digest, Sha256};
    let text = url.to_string();
    let hash: String = Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let last: String = url
        .key()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .chars()
        .map(plain)
        .take(40)
        .collect();
    folder()
        .join(url.scheme())
        .join(format!("{}-{last}-{hash}", url.bucket()))
}
