//! Bytes that are read in another order than they were made, kept on disk by group.
//!
//! ```text
//! bytes of any group ── buffers, one per group ── full: append all buffers to a temporary file ── bytes of one group
//! ```
//!
//! The file has no name, so that the disk space is free when the process ends, however it ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Number of bytes in the buffers, of all groups together, at which they are written to the file.
const BUFFERED: usize = 8 << 20;

/// Bytes by group. At most 8 MiB and one addition are in memory.
///
/// ```
/// use vaplan_schemas::spill::SpilledBytes;
///
/// let mut spilled = SpilledBytes::new(&std::env::temp_dir(), 2);
/// spilled.push(0, b"one")?;
/// spilled.push(1, b"other")?;
/// spilled.push(0, b"two")?;
/// assert_eq!(spilled.bytes(0)?, b"onetwo");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct SpilledBytes {
    folder: PathBuf,
    file: Option<File>,
    /// Length of the file.
    length: u64,
    buffered: usize,
    groups: Vec<GroupBytes>,
}

#[derive(Clone, Debug, Default)]
struct GroupBytes {
    /// Bytes that are in the file: start and length of each piece, in order.
    pieces: Vec<(u64, usize)>,
    /// Later bytes.
    buffer: Vec<u8>,
}

impl SpilledBytes {
    /// Makes an empty spill for a number of groups. The file will be in this folder.
    pub fn new(folder: &Path, groups: u32) -> SpilledBytes {
        SpilledBytes {
            folder: folder.to_owned(),
            file: None,
            length: 0,
            buffered: 0,
            groups: vec![GroupBytes::default(); groups as usize],
        }
    }

    /// The folder of the file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds bytes of a group.
    ///
    /// # Errors
    /// Returns the error of the system if the file cannot be written, for example on a full disk.
    ///
    /// # Panics
    /// Panics if there is no such group.
    pub fn push(&mut self, group: u32, bytes: &[u8]) -> io::Result<()> {
        self.groups[group as usize].buffer.extend_from_slice(bytes);
        self.buffered += bytes.len();
        match self.buffered >= BUFFERED {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let mut bytes = Vec::with_capacity(self.buffered);
        for group in self.groups.iter_mut().filter(|group| !group.buffer.is_empty()) {
            let start = self.length + bytes.len() as u64;
            group.pieces.push((start, group.buffer.len()));
            bytes.append(&mut group.buffer);
        }
        file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        self.buffered = 0;
        Ok(())
    }

    /// All bytes of a group, in the order in which they were added.
    ///
    /// # Errors
    /// Returns the error of the system if the file cannot be read.
    ///
    /// # Panics
    /// Panics if there is no such group.
    pub fn bytes(&self, group: u32) -> io::Result<Vec<u8>> {
        let own = &self.groups[group as usize];
        let mut bytes = Vec::new();
        for &(start, length) in &own.pieces {
            let at = bytes.len();
            bytes.resize(at + length, 0);
            let file = self.file.as_ref().expect("a piece is in the file");
            file.read_exact_at(&mut bytes[at..], start)?;
        }
        bytes.extend_from_slice(&own.buffer);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_group_come_back_in_order_from_file_and_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let mut spilled = SpilledBytes::new(folder.path(), 3);
        assert!(spilled.bytes(1).unwrap().is_empty());
        // Each addition has 4 KiB, so that the buffers are written several times.
        let added = |nth: u32| nth.to_le_bytes().repeat(1024);
        for nth in 0..6000 {
            spilled.push(nth % 2, &added(nth)).unwrap();
        }
        assert!(spilled.groups[0].pieces.len() > 1 && !spilled.groups[0].buffer.is_empty());
        for group in 0..2 {
            let wanted: Vec<u8> = (0..6000).filter(|nth| nth % 2 == group).flat_map(added).collect();
            assert!(spilled.bytes(group).unwrap() == wanted, "group {group}");
        }
        assert!(spilled.bytes(2).unwrap().is_empty());
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "the file has no name");
    }
}
