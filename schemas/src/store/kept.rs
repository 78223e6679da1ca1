//! Inputs that a store keeps: features that the program itself wrote for the store.
//!
//! On a local disk they are in the folder `_vaplan` of the store. For a store at a URL, they are written to the scratch folder
//! first, and then uploaded below `_vaplan` of the URL, so that other machines can read them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Store;
use crate::error::StoreError;
use crate::storage::OWN;

impl Store {
    /// The path that the store records for a file or folder of [`Store::own_dir`]: the path itself, or its URL.
    pub fn kept_input(&self, local: &Path) -> PathBuf {
        match self.kept_key(local) {
            Some(key) => PathBuf::from(format!("{}/{key}", self.root.display())),
            None => local.to_owned(),
        }
    }

    /// Uploads a file or folder of [`Store::own_dir`], if the store is at a URL. Returns the path that the store records.
    ///
    /// # Errors
    /// Returns [`StoreError::Io`] if a file cannot be read, and [`StoreError::Object`] if a request fails.
    pub fn keep_input(&self, local: &Path) -> Result<PathBuf, StoreError> {
        if self.is_remote() {
            self.upload(local)?;
        }
        Ok(self.kept_input(local))
    }

    fn upload(&self, local: &Path) -> Result<(), StoreError> {
        if local.is_dir() {
            for entry in std::fs::read_dir(local).map_err(StoreError::io("list", local))? {
                self.upload(&entry.map_err(StoreError::io("list", local))?.path())?;
            }
            return Ok(());
        }
        let Some(key) = self.kept_key(local) else {
            return Ok(());
        };
        let bytes = std::fs::read(local).map_err(StoreError::io("read", local))?;
        self.storage.put(&key, bytes.into())
    }

    /// The key of a file of [`Store::own_dir`]; `None` if the store is on a local disk, or the file is elsewhere.
    fn kept_key(&self, local: &Path) -> Option<String> {
        if !self.is_remote() {
            return None;
        }
        let within = local.strip_prefix(&self.own).ok()?;
        let parts = within.iter().map(|part| plain(&part.to_string_lossy()));
        Some(
            std::iter::once(OWN.to_owned())
                .chain(parts)
                .collect::<Vec<_>>()
                .join("/"),
        )
    }
}

/// A part of a key: the name itself, or a hash of a name with characters that URLs use for something else.
fn plain(name: &str) -> String {
    if name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        return name.to_owned();
    }
    let hash: String = Sha256::digest(name)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match name.rsplit_once('.') {
        Some((_, end)) if end.chars().all(|c| c.is_ascii_alphanumeric()) => format!("{hash}.{end}"),
        _ => hash,
    }
}
