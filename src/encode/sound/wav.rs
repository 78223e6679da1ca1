//! Where the samples of a WAV file are, whatever its header says of sizes.
//!
//! Recorders that stream, or that end early, leave sizes of 0, too small, 0x7FFFFFFF or 0xFFFFFFFF in the header. The
//! size of the RIFF form is not needed, and the size of the samples is believed only if the file goes on behind them
//! as it should. RF64 (EBU Tech 3306) keeps sizes beyond 4 GiB in a chunk of its own.

use std::io::{Read, Seek, SeekFrom};

/// The samples of a WAV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Samples {
    /// Content of the chunk `fmt `.
    pub format: Vec<u8>,
    /// First byte of the samples.
    pub start: u64,
    /// How many bytes they are, whole blocks only.
    pub bytes: u64,
}

/// Bytes of a `fmt ` chunk beyond which it is damaged.
const MAX_FORMAT: u64 = 1 << 10;
/// Chunks looked at.
const MAX_CHUNKS: usize = 1 << 10;

/// Finds the samples; none if the file has no format or no samples.
///
/// # Errors
/// The error of reading the file.
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
                let told = match (size, large) {
                    (0xffff_ffff, Some(large)) => large,
                    _ => size,
                };
                let all = length.saturating_sub(body);
                let bytes = if told <= all && goes_on(file, body, told, length)? {
                    told
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
        // A chunk of odd size is followed by a byte of padding, which some writers leave out.
        at = body + size;
        if size % 2 == 1 && !named(file, at)? {
            at += 1;
        }
    }
    Ok(None)
}

/// Does the file end behind samples of this size, or go on with chunks to its end?
fn goes_on(file: &mut (impl Read + Seek), body: u64, size: u64, length: u64) -> std::io::Result<bool> {
    let mut at = body + size;
    // The padding of an odd size may be absent at the end.
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
        // The last chunk may be cut, or lack its padding.
        if at > length {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Name and size of the chunk at a place; none at the end of the file.
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

/// Is there a chunk with a name of plain text?
fn named(file: &mut (impl Read + Seek), at: u64) -> std::io::Result<bool> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" _-".contains(byte);
    Ok(chunk(file, at)?.is_some_and(|(name, _)| name.iter().all(plain)))
}

/// A header with right sizes for these samples, as every reader takes it.
///
/// None for samples of 4 GiB and more, which such a header cannot tell.
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

    /// How many bytes of samples a file has that holds 1000, with these chunks around them.
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
        // A size that fits is believed: what follows is no sound.
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
