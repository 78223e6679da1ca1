//! The scratch folder: what the program keeps on the local disk for stores and inputs at URLs.
//!
//! A store at a URL has its tables there, and nothing else. Staged shards, encoded media and copies of inputs stay in the
//! scratch folder of this machine. Every file of it can be removed while no command runs: the next command makes it again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::StoreUrl;

/// The environment variable that names the scratch folder.
pub const VARIABLE: &str = "VAPLAN_SCRATCH";

static CHOSEN: Mutex<Option<PathBuf>> = Mutex::new(None);

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
