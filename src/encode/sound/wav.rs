//! Finds the samples in a WAV file, even if the sizes in its header are wrong.
//!
//! A recorder that streams, or that stops early, can leave wrong sizes in the header: 0, a size that is too small,
//! 0x7FFFFFFF or 0xFFFFFFFF. Therefore the module ignores the size of the RIFF form. It uses the size of the samples
//! only if the file ends after the samples, or continues with valid chunks. RF64 (EBU Tech 3306) has sizes above 4 GiB
//! in the chunk `ds64`.

use std::io::{Read, Seek, SeekFrom};

/// The samples of a WAV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    /// Contents of the chunk `fmt `.
    pub format: Vec<u8>,
    /// Offset of the first byte of the samples in the file.
    pub start: u64,
    /// Number of bytes of the samples; only whole blocks count.
    pub bytes: u64,
}

/// Largest size of a chunk `fmt `, in bytes. A larger chunk is damaged and is ignored.
const MAX_FORMAT: u64 = 1 << 10;
/// Largest number of chunks that are read.
const MAX_CHUNKS: usize = 1 << 10;

/// Finds the samples of a file. Returns `None` if the file has no format or no samples.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(crate) fn samples(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Samples>> {
    let length = file.seek(SeekFrom::End(0))?;
    let (mut at, mut large, mut format) = (12, None, None);
    for _ in 0..MAX_CHUNKS {
        let Some((name, size)) = chunk(file, at)? else {
            return Ok(None);
        };
        let (body, size) = (at + 8, u64::from(size));
        match &name {
            b"ds64" if size >= 16 => {
                let mut sizes = [0; 16];
                file.seek(SeekFrom::Start(body))?;
                file.read_exact(&mut sizes)?;
                large = Some(u64::from_le_bytes(sizes[8..].try_into().expect("8 bytes")));
            }
            b"fmt " if (16..=MAX_FORMAT).contains(&size) => {
                let mut content = vec![0; size as usize];
                file.seek(SeekFrom::Start(body))?;
                if file.read_exact(&mut content).is_err() {
                    return Ok(None);
                }
                format = Some(content);
            }
            b"data" => {
                let Some(format) = format else { return Ok(None) };
                let stated = match (size, large) {
                    (0xffff_ffff, Some(large)) => large,
                    _ => size,
                };
                let all = length.saturating_sub(body);
                let bytes = if stated <= all && goes_on(file, body, stated, length)? {
                    stated
                } else {
                    all
                };
                let block = u64::from(u16::from_le_bytes([format[12], format[13]])).max(1);
                return Ok(Some(Samples {
                    format,
                    start: body,
                    bytes: bytes - bytes % block,
                }));
            }
            _ => {}
        }
        // A byte of padding follows a chunk of odd size. Some writers omit this byte.
        at = body + size;
        if size % 2 == 1 && !named(file, at)? {
            at += 1;
        }
    }
    Ok(None)
}

/// Does the file end after samples of this size, or continue with chunks up to its end?
fn goes_on(file: &mut (impl Read + Seek), body: u64, size: u64, length: u64) -> std::io::Result<bool> {
    let mut at = body + size;
    // The padding after an odd size can be absent: at the end of the file, or before the next chunk.
    if size % 2 == 1 && at < length && !named(file, at)? {
        at += 1;
    }
    for _ in 0..MAX_CHUNKS {
        if at == length {
            return Ok(true);
        }
        if !named(file, at)? {
            return Ok(false);
        }
        let Some((_, size)) = chunk(file, at)? else {
            return Ok(false);
        };
        at += 8 + u64::from(size) + u64::from(size % 2);
        // The last chunk may be cut off, or lack its padding.
        if at > length {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the name and size of the chunk at an offset, or `None` at the end of the file.
fn chunk(file: &mut (impl Read + Seek), at: u64) -> std::io::Result<Option<([u8; 4], u32)>> {
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut head) {
        Ok(()) => {
            let [a, b, c, d, size @ ..] = head;
            Ok(Some(([a, b, c, d], u32::from_le_bytes(size))))
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Is there a chunk at this offset whose name has only letters, digits, spaces, `_` and `-`?
fn named(file: &mut (impl Read + Seek), at: u64) -> std::io::Result<bool> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" _-".contains(byte);
    Ok(chunk(file, at)?.is_some_and(|(name, _)| name.iter().all(plain)))
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
    fn the_header_written_is_read_back_the_same() {
        let samples = Samples {
            format: [FORMAT, &[0, 0, 9]].concat(),
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
