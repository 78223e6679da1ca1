//! A file with a head and sections. Each section is readable without the rest of the file, and has its own checksum.
//!
//! ```text
//! SHA-256 of the head │ length of the head │ head │ index: start, length and checksum of each section │ sections
//! 32 bytes              8 bytes                     8 + 4 + 20 bytes per section
//! ```
//!
//! Numbers are little-endian. The checksum of a section is the first 20 bytes of the SHA-256 of its start, its length and
//! its bytes. A section with a damaged index entry therefore counts as damaged.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

const SUM: usize = 32;
const START: usize = SUM + 8;
const SECTION_SUM: usize = 20;
/// Start and length of a section.
const PLACE: usize = 12;
const ENTRY: usize = PLACE + SECTION_SUM;

/// Writes a file of sections.
pub(super) fn write(to: &mut impl Write, head: &[u8], sections: &[Vec<u8>]) -> io::Result<()> {
    let mut index = Vec::with_capacity(sections.len() * ENTRY);
    let mut start = (START + head.len() + sections.len() * ENTRY) as u64;
    for section in sections {
        let length = u32::try_from(section.len())
            .map_err(|_| io::Error::other("a section has more than 4 GiB, expected smaller shards"))?;
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&start.to_le_bytes());
        entry[8..PLACE].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&entry[..PLACE], section);
        entry[PLACE..].copy_from_slice(&sum);
        index.extend_from_slice(&entry);
        start += section.len() as u64;
    }
    to.write_all(&Sha256::digest(head))?;
    to.write_all(&(head.len() as u64).to_le_bytes())?;
    to.write_all(head)?;
    to.write_all(&index)?;
    sections.iter().try_for_each(|section| to.write_all(section))
}

/// An open file of sections.
#[derive(Debug)]
pub(super) struct SectionFile {
    file: File,
    length: u64,
    /// Position of the index.
    index: u64,
}

impl SectionFile {
    /// Opens a file and reads its head.
    ///
    /// # Errors
    /// Returns `InvalidData` if the head is damaged, and any error of the file system.
    pub(super) fn open(path: &Path) -> io::Result<(SectionFile, Vec<u8>)> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut start = [0; START];
        file.read_exact_at(&mut start, 0)?;
        let (sum, head_length) = start.split_at(SUM);
        let head_length = u64::from_le_bytes(head_length.try_into().expect("8 bytes"));
        // Compare with the length of the file before the allocation, because the number can be damaged.
        if head_length > length.saturating_sub(START as u64) {
            return Err(damaged("its head is longer than the file"));
        }
        let mut head = vec![0; head_length as usize];
        file.read_exact_at(&mut head, START as u64)?;
        if Sha256::digest(&head).as_slice() != sum {
            return Err(damaged("its head does not have its SHA-256"));
        }
        let opened = SectionFile {
            file,
            length,
            index: START as u64 + head_length,
        };
        Ok((opened, head))
    }

    /// Reads sections, and calls `take` with the bytes of each section in order.
    ///
    /// # Errors
    /// Returns `InvalidData` if a section is damaged, and any error of the file system or of `take`.
    pub(super) fn read(
        &self,
        sections: Range<u32>,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut index = vec![0; sections.len() * ENTRY];
        let first = u64::from(sections.start) * ENTRY as u64;
        self.file.read_exact_at(&mut index, self.index + first)?;
        let mut section = Vec::new();
        for (nth, entry) in sections.zip(index.chunks_exact(ENTRY)) {
            let wrong = || damaged(&format!("section {nth} does not have its checksum"));
            let start = u64::from_le_bytes(entry[..8].try_into().expect("8 bytes"));
            let length = u32::from_le_bytes(entry[8..PLACE].try_into().expect("4 bytes"));
            if start > self.length || u64::from(length) > self.length - start {
                return Err(wrong());
            }
            section.resize(length as usize, 0);
            self.file.read_exact_at(&mut section, start)?;
            if checksum(&entry[..PLACE], &section) != entry[PLACE..] {
                return Err(wrong());
            }
            take(&section)?;
        }
        Ok(())
    }
}

/// The checksum of a section. It also covers the place of the section, because an empty section at a wrong place would
/// otherwise count as sound.
fn checksum(place: &[u8], section: &[u8]) -> [u8; SECTION_SUM] {
    let sum = Sha256::new().chain_update(place).chain_update(section).finalize();
    sum[..SECTION_SUM].try_into().expect("a SHA-256 has 32 bytes")
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
