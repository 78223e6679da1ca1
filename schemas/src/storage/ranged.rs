//! A file that is read in parts, so that a reader of a few columns of a large object does not fetch the whole object.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::Storage;
use crate::error::StoreError;

/// The number of bytes at the end of a file that are read first. They nearly always hold the footer.
const FOOTER_BYTES: u64 = 64 << 10;
/// Two parts that lie at most this far apart are read by one request.
const GAP: u64 = 256 << 10;
/// The largest part that one request reads.
const MOST: u64 = 8 << 20;

/// A file whose parts are fetched when they are needed, and kept.
#[derive(Clone)]
pub(crate) struct Ranges {
    storage: Arc<dyn Storage>,
    key: Arc<str>,
    bytes: u64,
    held: Arc<Mutex<BTreeMap<u64, Bytes>>>,
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranges({}, {} bytes)", self.key, self.bytes)
    }
}

impl Ranges {
    /// Fetches the end of a file of this size.
    pub(crate) fn open(storage: Arc<dyn Storage>, key: &str, bytes: u64) -> Result<Ranges, StoreError> {
        let ranges = Ranges {
            storage,
            key: key.into(),
            bytes,
            held: Arc::default(),
        };
        let end = bytes.saturating_sub(FOOTER_BYTES)..bytes;
        ranges.fetch(std::slice::from_ref(&end))?;
        Ok(ranges)
    }

    /// The same file with the parts that are held now. Parts that this value fetches later are dropped with it.
    pub(crate) fn fork(&self) -> Ranges {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ranges {
            held: Arc::new(Mutex::new(held)),
            ..self.clone()
        }
    }

    /// Fetches parts of the file, with as many requests at once as the object store takes. Neighbouring parts are fetched
    /// together.
    pub(crate) fn fetch(&self, parts: &[Range<u64>]) -> Result<(), StoreError> {
        let mut parts: Vec<Range<u64>> = parts
            .iter()
            .map(|part| part.start..part.end.min(self.bytes))
            .filter(|part| part.start < part.end && self.find(part).is_none())
            .collect();
        parts.sort_by_key(|part| part.start);
        let mut wanted: Vec<Range<u64>> = Vec::new();
        for part in parts {
            match wanted.last_mut() {
                Some(last) if part.start <= last.end + GAP && part.end - last.start <= MOST => {
                    last.end = last.end.max(part.end);
                }
                _ => wanted.push(part),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let fetched = self.storage.get_ranges(&self.key, &wanted)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(wanted.iter().map(|part| part.start).zip(fetched));
        Ok(())
    }

    fn find(&self, part: &Range<u64>) -> Option<Bytes> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, bytes) = held.range(..=part.start).next_back()?;
        let from = usize::try_from(part.start - start).ok()?;
        let to = usize::try_from(part.end - start).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    fn part(&self, part: Range<u64>) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.find(&part) {
            return Ok(bytes);
        }
        let mut fetched = self.storage.get_ranges(&self.key, std::slice::from_ref(&part))?;
        Ok(fetched.pop().unwrap_or_default())
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Ranges {
    type T = RangeReader;

    fn get_read(&self, start: u64) -> parquet::errors::Result<RangeReader> {
        Ok(RangeReader {
            ranges: self.clone(),
            next: start,
            now: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.bytes {
            return Err(ParquetError::EOF(format!(
                "bytes {start} to {end} of a file of {} bytes",
                self.bytes
            )));
        }
        self.part(start..end)
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads a file from a place to its end.
pub(crate) struct RangeReader {
    ranges: Ranges,
    next: u64,
    now: Bytes,
}

impl Read for RangeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.now.is_empty() {
            let left = self.ranges.bytes.saturating_sub(self.next);
            let length = left.min(FOOTER_BYTES.max(out.len() as u64));
            let part = self.next..self.next + length;
            self.now = self.ranges.part(part).map_err(io::Error::other)?;
            self.next += length;
        }
        let length = out.len().min(self.now.len());
        self.now.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}
