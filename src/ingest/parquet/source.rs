//! Reads a file at given positions, and never beyond its end.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// An input file for the parquet crate. The crate's own reader of files allocates as much as a damaged footer states,
/// and all its readers share one file position.
#[derive(Clone)]
pub(super) struct Source {
    file: Arc<File>,
    length: u64,
}

/// A reader at a position in the file.
pub(super) struct At {
    file: Arc<File>,
    position: u64,
}

impl Source {
    pub(super) fn new(file: File, length: u64) -> Source {
        Source {
            file: Arc::new(file),
            length,
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl ChunkReader for Source {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        // A page header has about 30 bytes, so that a small buffer is enough. The page itself is read by `get_bytes`.
        Ok(BufReader::with_capacity(
            512,
            At {
                file: self.file.clone(),
                position: start,
            },
        ))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            let size = self.length;
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} are beyond the file's {size}"
            )));
        }
        let mut buffer = Vec::with_capacity(length);
        At {
            file: self.file.clone(),
            position: start,
        }
        .take(length as u64)
        .read_to_end(&mut buffer)?;
        if buffer.len() != length {
            let found = buffer.len();
            return Err(ParquetError::EOF(format!(
                "{found} bytes at {start}, expected {length}"
            )));
        }
        Ok(buffer.into())
    }
}
