//! Finds the samples in a WAV file, even if the sizes in its header are wrong.
//!
//! A recorder that streams, or that stops early, can leave wrong sizes in the header: 0, a size that is too small,
//! 0x7FFFFFFF or 0xFFFFFFFF. Therefore the module ignores the size of the RIFF form. It uses the size of the samples
//! only if the file ends after the samples, or continues with valid chunks. RF64 (EBU Tech 3306) has sizes above 4 GiB
//! in the chunk `ds64`. RIFX has big-endian numbers. The format can also come after the samples.

use std::io::{Read, Seek, SeekFrom};

use super::container::after_tags;

/// The samples of a WAV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    /// Contents of the chunk `fmt `; its numbers are little-endian, also if those of the file are not.
    pub format: Vec<u8>,
    /// Are the samples big-endian?
    pub big_endian: bool,
    /// Offset of the first byte of the samples in the file.
    pub start: u64,
    /// Number of bytes of the samples; only whole blocks count.
    pub bytes: u64,
}

/// Number of bytes of a chunk `fmt ` that are read. All known formats are shorter.
const MAX_FORMAT: u64 = 1 << 10;
/// Largest number of chunks that are read.
const MAX_CHUNKS: usize = 1 << 10;

/// Finds the samples of a file. Returns `None` if the file has no format or no samples.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(crate) fn samples(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Samples>> {
    let length = file.seek(SeekFrom::End(0))?;
    let begin = after_tags(file)?;
    let mut form = [0; 4];
    file.seek(SeekFrom::Start(begin))?;
    file.read_exact(&mut form)?;
    let mut chunks = Chunks {
        file,
        length,
        big_endian: &form == b"RIFX",
    };
    let (mut at, mut large, mut format, mut data) = (begin + 12, None, None, None);
    for _ in 0..MAX_CHUNKS {
        let Some((name, size)) = chunks.at(at)? else { break };
        let (body, size) = (at + 8, u64::from(size));
        match &name {
            b"ds64" if size >= 16 => {
                let sizes = chunks.bytes(body, 16)?;
                large = sizes
                    .get(8..16)
                    .map(|size| u64::from_le_bytes(size.try_into().expect("8 bytes")));
            }
            b"fmt " if size >= 14 => format = chunks.format(body, size)?,
            b"data" if data.is_none() => {
                let stated = match (size, large) {
                    (0xffff_ffff, Some(large)) => large,
                    _ => size,
                };
                let all = length.saturating_sub(body);
                let whole = stated <= all && chunks.go_on(body, stated)?;
                data = Some((body, if whole { stated } else { all }));
                if format.is_none() && !whole {
                    break;
                }
            }
            _ => {}
        }
        if format.is_some() && data.is_some() {
            break;
        }
        // A byte of padding follows a chunk of odd size. Some writers omit this byte.
        at = body + size;
        if size % 2 == 1 && !chunks.named(at)? {
            at += 1;
        }
    }
    let (Some(format), Some((start, bytes))) = (format, data) else {
        return Ok(None);
    };
    let block = u64::from(u16::from_le_bytes([format[12], format[13]])).max(1);
    Ok(Some(Samples {
        big_endian: chunks.big_endian,
        format,
        start,
        bytes: bytes - bytes % block,
    }))
}

/// The chunks of a file.
struct Chunks<'a, F> {
    file: &'a mut F,
    length: u64,
    big_endian: bool,
}

impl<F: Read + Seek> Chunks<'_, F> {
    /// Does the file end after samples of this size, or continue with chunks up to its end?
    fn go_on(&mut self, body: u64, size: u64) -> std::io::Result<bool> {
        let mut at = body + size;
        // The padding after an odd size can be absent: at the end of the file, or before the next chunk.
        if size % 2 == 1 && at < self.length && !self.named(at)? {
            at += 1;
        }
        for _ in 0..MAX_CHUNKS {
            if at == self.length {
                return Ok(true);
            }
            if !self.named(at)? {
                return Ok(false);
            }
            let Some((_, size)) = self.at(at)? else {
                return Ok(false);
            };
            at += 8 + u64::from(size) + u64::from(size % 2);
            // The last chunk may be cut off, or lack its padding.
            if at > self.length {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the name and size of the chunk at an offset, or `None` at the end of the file.
    fn at(&mut self, at: u64) -> std::io::Result<Option<([u8; 4], u32)>> {
        let head = self.bytes(at, 8)?;
        let Ok([a, b, c, d, size @ ..]) = <[u8; 8]>::try_from(head) else {
            return Ok(None);
        };
        let size = match self.big_endian {
            true => u32::from_be_bytes(size),
            false => u32::from_le_bytes(size),
        };
        Ok(Some(([a, b, c, d], size)))
    }

    /// Is there a chunk at this offset whose name has only letters, digits, spaces, `_` and `-`?
    fn named(&mut self, at: u64) -> std::io::Result<bool> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" _-".contains(byte);
        Ok(self.at(at)?.is_some_and(|(name, _)| name.iter().all(plain)))
    }

    /// Returns the format with little-endian numbers and at least 16 bytes, or `None` if the file ends before.
    fn format(&mut self, body: u64, size: u64) -> std::io::Result<Option<Vec<u8>>> {
        let size = size.min(MAX_FORMAT);
        let mut format = self.bytes(body, size)?;
        if (format.len() as u64) < size {
            return Ok(None);
        }
        if self.big_endian {
            // Numbers of 2 and 4 bytes; the extension after them has a size, a number of bits, a mask and a format.
            for (from, to) in [
                (0, 2),
                (2, 4),
                (4, 8),
                (8, 12),
                (12, 14),
                (14, 16),
                (16, 18),
                (18, 20),
                (20, 24),
                (24, 28),
            ] {
                if let Some(number) = format.get_mut(from..to) {
                    number.reverse();
                }
            }
        }
        if format.len() < 16 {
            // The oldest format has no number of bits: a block has the samples of all channels.
            let number = |at: usize| u16::from_le_bytes([format[at], format[at + 1]]);
            let bits = u32::from(number(12)) * 8 / u32::from(number(2)).max(1);
            let bits = u16::try_from(bits).unwrap_or(u16::MAX);
            format.truncate(14);
            format.extend(bits.to_le_bytes());
        }
        Ok(Some(format))
    }

    /// Returns so many bytes from an offset, or fewer at the end of the file.
    fn bytes(&mut self, at: u64, count: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(at))?;
        (&mut *self.file).take(count).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Makes a WAV header with correct sizes for these samples, which every decoder reads.
///
/// Returns `None` if the file would have 4 GiB or more, because the sizes of this header have 32 bits.
pub(crate) fn header(samples: &Samples) -> Option<Vec<u8>> {
    let format = samples.format.len() as u64;
    let padded = format + format % 2;
    let whole = u32::try_from(4 + 8 + padded + 8 + samples.bytes).ok()?;
    let mut header = b"RIFF".to_vec();
    header.extend(whole.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend((format as u32).to_le_bytes());
    header.extend(&samples.format);
    header.resize(20 + padded as usize, 0);
    header.extend(b"data");
    header.extend((samples.bytes as u32).to_le_bytes());
    Some(header)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const FORMAT: &[u8] = &[1, 0, 1, 0, 0x80, 0xbb, 0, 0, 0, 0x77, 1, 0, 2, 0, 16, 0];

    fn chunk(name: &[u8; 4], size: u32, content: &[u8]) -> Vec<u8> {
        [&name[..], &size.to_le_bytes(), content].concat()
    }

    fn file(kind: &[u8; 4], riff: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
        [&kind[..], &riff.to_le_bytes(), b"WAVE", &chunks.concat()].concat()
    }

    /// Returns the number of bytes of samples that `samples` finds in a file with 1000 bytes of samples, with these
    /// chunks around them.
    fn found(kind: &[u8; 4], riff: u32, before: &[Vec<u8>], size: u32, after: &[u8]) -> Option<u64> {
        let samples: Vec<u8> = (0..1000_u32).map(|at| (at % 7 + 128) as u8).collect();
        let mut chunks = vec![chunk(b"fmt ", 16, FORMAT)];
        chunks.extend(before.iter().cloned());
        chunks.push(chunk(b"data", size, &[&samples[..], after].concat()));
        let file = file(kind, riff, &chunks);
        let found = super::samples(&mut Cursor::new(&file)).unwrap()?;
        assert_eq!(file[found.start as usize], 128, "the first sample");
        Some(found.bytes)
    }

    #[test]
    fn samples_are_read_to_the_end_whatever_sizes_say() {
        for riff in [0, 10, 1036, 0x7fff_ffff, u32::MAX] {
            for size in [
                0,
                1,
                2,
                500,
                998,
                1000,
                1002,
                0x7fff_ffff,
                u32::MAX - 36,
                u32::MAX,
            ] {
                assert_eq!(found(b"RIFF", riff, &[], size, b""), Some(1000), "{riff} {size}");
            }
        }
        // A size that fits the file is used: the bytes after the samples are not sound.
        let list = chunk(b"LIST", 10, b"INFOIART\0\0");
        assert_eq!(found(b"RIFF", 0, &[], 1000, &list), Some(1000));
        assert_eq!(found(b"RIFF", 0, &[], 1000, &list[..14]), Some(1000));
    }

    #[test]
    fn an_odd_chunk_before_the_samples_may_be_padded_or_not() {
        for content in [&b"INFOIART\x01"[..], b"INFOIART\x01\0"] {
            let list = chunk(b"LIST", 9, content);
            assert_eq!(found(b"RIFF", 0, &[list], 1000, b""), Some(1000), "{content:?}");
        }
        assert_eq!(
            super::samples(&mut Cursor::new(file(b"RIFF", 0, &[chunk(b"fmt ", 16, FORMAT)]))).unwrap(),
            None
        );
    }

    #[test]
    fn rf64_takes_its_size_from_its_own_chunk() {
        let sizes = |data: u64| {
            chunk(
                b"ds64",
                28,
                &[&0_u64.to_le_bytes()[..], &data.to_le_bytes(), &[0; 12]].concat(),
            )
        };
        let list = chunk(b"LIST", 10, b"INFOIART\0\0");
        assert_eq!(
            found(b"RF64", u32::MAX, &[sizes(1000)], u32::MAX, &list),
            Some(1000)
        );
        assert_eq!(found(b"RF64", u32::MAX, &[sizes(0)], u32::MAX, b""), Some(1000));
    }

    #[test]
    fn samples_are_found_behind_a_tag_before_their_format_and_with_any_size_of_format() {
        let found = |file: Vec<u8>| super::samples(&mut Cursor::new(file)).unwrap();
        let (format, data) = (chunk(b"fmt ", 16, FORMAT), chunk(b"data", 40, &[200; 40]));
        let plain = file(b"RIFF", 92, &[format.clone(), data.clone()]);
        let bytes = |file: Vec<u8>| found(file).map(|samples| (samples.start, samples.bytes));
        assert_eq!(
            bytes([&b"ID3\x03\0\0\0\0\0\x0a"[..], &[0; 10], &plain].concat()),
            Some((64, 40))
        );
        assert_eq!(bytes(file(b"RIFF", 92, &[data.clone(), format])), Some((20, 40)));
        let long = chunk(b"fmt ", 2016, &[FORMAT, &[0; 2000]].concat());
        assert_eq!(bytes(file(b"RIFF", 92, &[long, data.clone()])), Some((2044, 40)));
        let old = found(file(b"RIFF", 92, &[chunk(b"fmt ", 14, &FORMAT[..14]), data])).unwrap();
        assert_eq!(old.format, FORMAT);
        let swapped = |bytes: &[u8], size: usize| -> Vec<u8> {
            bytes
                .chunks(size)
                .flat_map(|number| number.iter().rev().copied())
                .collect()
        };
        let big = [
            &b"RIFX\0\0\0\x5cWAVEfmt \0\0\0\x10"[..],
            &swapped(&FORMAT[..4], 2),
            &swapped(&FORMAT[4..12], 4),
            &swapped(&FORMAT[12..], 2),
            b"data\0\0\0\x28",
            &[200; 40],
        ]
        .concat();
        let big = found(big).unwrap();
        assert_eq!(
            (big.format, big.big_endian, big.bytes),
            (FORMAT.to_vec(), true, 40)
        );
    }

    #[test]
    fn the_header_written_is_read_back_the_same() {
        let samples = Samples {
            format: [FORMAT, &[0, 0, 9]].concat(),
            big_endian: false,
            start: 47,
            bytes: 40,
        };
        let file = [header(&samples).unwrap(), vec![200; 40]].concat();
        assert_eq!(
            super::samples(&mut Cursor::new(file)).unwrap(),
            Some(Samples { start: 48, ..samples })
        );
    }
}
