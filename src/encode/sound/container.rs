//! Finds out the container of a sound file from its first bytes. The extension of a file can be wrong. A decoder that
//! guesses the container can take the packets of a video for sound.

use std::io::{Read, Seek, SeekFrom};

use crate::encode::media::codec::{Aac, Codec, aac_rate};

/// A container, and how vaplan reads the sound in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// WAV, including RF64, BW64, and RIFX with big-endian samples.
    Wave,
    /// MP4 or QuickTime; the sound track is found by the index of the file.
    Mp4,
    /// A container that symphonia reads.
    Plain,
    /// A container that only the ffmpeg program reads; the name is for messages.
    Other(String),
    /// An unknown container.
    Unknown,
}

/// Number of bytes that are read: enough for three packets of a transport stream.
const HEAD: u64 = 4096;

/// Returns the container of a file, and sets the position of the file to its start.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(crate) fn container(file: &mut (impl Read + Seek)) -> std::io::Result<Container> {
    let at = after_tags(file)?;
    file.seek(SeekFrom::Start(at))?;
    let mut head = Vec::new();
    (&mut *file).take(HEAD).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(match of(&head) {
        // The index of the file is searched from its first byte.
        Container::Mp4 if at > 0 => Container::Other("MP4 after an ID3 tag".to_owned()),
        found => found,
    })
}

/// Returns the offset after the ID3 tags at the start of a file. Programs that tag music put them before any sound.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(super) fn after_tags(file: &mut (impl Read + Seek)) -> std::io::Result<u64> {
    let mut at = 0;
    for _ in 0..4 {
        file.seek(SeekFrom::Start(at))?;
        let mut head = Vec::new();
        (&mut *file).take(10).read_to_end(&mut head)?;
        let [b'I', b'D', b'3', _, _, _, size @ ..] = head.as_slice() else {
            break;
        };
        at += 10
            + size
                .iter()
                .fold(0_u64, |size, &byte| size << 7 | u64::from(byte & 0x7f));
    }
    Ok(at)
}

fn of(head: &[u8]) -> Container {
    let other = |name: &str| Container::Other(name.to_owned());
    let at = |from: usize, wanted: &[u8]| head.get(from..from + wanted.len()) == Some(wanted);
    let packets = |first: usize, length: usize| (0..3).all(|nth| at(first + nth * length, &[0x47]));
    let form = [&b"RIFF"[..], b"RF64", b"BW64", b"RIFX"];
    if form.iter().any(|form| at(0, form)) && at(8, b"WAVE") {
        return Container::Wave;
    }
    if at(4, b"ftyp") {
        return Container::Mp4;
    }
    if at(0, b"fLaC") {
        return Container::Plain;
    }
    if at(0, b"OggS") {
        // The first page has the header of the first stream, which is usually the sound.
        let vorbis = head.windows(7).take(512).any(|bytes| bytes == b"\x01vorbis");
        let opus = head.windows(8).take(512).any(|bytes| bytes == b"OpusHead");
        return match (vorbis, opus) {
            // Sound beside pictures can begin later than they do, which symphonia does not tell.
            _ if several_streams(head) => other("Ogg with several streams"),
            (true, false) => Container::Plain,
            (_, true) => other("Opus in Ogg"),
            _ => other("Ogg without Vorbis"),
        };
    }
    for (from, magic, name) in [
        (0, &b"\x1a\x45\xdf\xa3"[..], "Matroska or WebM"),
        (0, b"\0\0\x01\xba", "an MPEG program stream"),
        (8, b"AVI ", "AVI"),
        (0, b"FLV", "FLV"),
        (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF (wma, wmv)"),
        (0, b"FORM", "AIFF"),
        (0, b"caff", "CAF"),
        (0, b"#!AMR", "AMR"),
        (0, b".snd", "AU"),
        (0, b"riff", "Wave64"),
        (0, b"wvpk", "WavPack"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"\x0b\x77", "AC-3"),
        (0, b"\x7f\xfe\x80\x01", "DTS"),
        (4, b"moov", "QuickTime without a type"),
        (4, b"mdat", "QuickTime without a type"),
        (4, b"wide", "QuickTime without a type"),
        (4, b"free", "QuickTime without a type"),
        (4, b"skip", "QuickTime without a type"),
    ] {
        if at(from, magic) {
            return with_codec(head, name);
        }
    }
    if packets(0, 188) || packets(4, 192) {
        return other("an MPEG transport stream");
    }
    // Some writers of MP3 put zeros at the beginning of the file.
    let zeros = head.iter().take_while(|&&byte| byte == 0).count();
    match head[zeros..] {
        [0xff, second, third, fourth, ..] if second & 0xf6 == 0xf0 => adts(third, fourth),
        [0xff, second, third, ..] if second & 0xe0 == 0xe0 && third >> 4 != 15 && third >> 2 & 3 != 3 => {
            match (second >> 3 & 3, second >> 1 & 3) {
                (1, _) => Container::Unknown,
                (_, 1) => Container::Plain,
                (_, 0) => Container::Unknown,
                _ => other("MPEG sound of layer I or II"),
            }
        }
        _ => Container::Unknown,
    }
}

/// Does an Ogg file begin with the first pages of two streams? All first pages come before any other page.
fn several_streams(head: &[u8]) -> bool {
    let Some(segments) = head
        .get(26)
        .and_then(|&count| head.get(27..27 + usize::from(count)))
    else {
        return false;
    };
    let second = 27 + segments.len() + segments.iter().map(|&size| usize::from(size)).sum::<usize>();
    let page = head.get(second..second + 6);
    page.is_some_and(|page| page.starts_with(b"OggS") && page[5] & 2 == 2)
}

/// Adds the codec to the name of a container, if the header names the codec in plain text, as Matroska does.
fn with_codec(head: &[u8], name: &str) -> Container {
    let codec = head.windows(2).enumerate().find_map(|(at, bytes)| {
        let name: &[u8] = head.get(at..).filter(|_| bytes == b"A_")?;
        let end = name
            .iter()
            .position(|byte| !(byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_/".contains(byte)))?;
        Some(String::from_utf8_lossy(&name[..end]).into_owned()).filter(|name| name.len() > 4)
    });
    Container::Other(match codec {
        Some(codec) => format!("{codec} in {name}"),
        None => name.to_owned(),
    })
}

/// Returns the container of an AAC file that consists of ADTS frames.
fn adts(third: u8, fourth: u8) -> Container {
    let aac = Aac {
        object: u32::from(third >> 6) + 1,
        rate: aac_rate(u32::from(third >> 2 & 15)).unwrap_or(0),
        channels: u32::from((third & 1) << 2 | fourth >> 6),
        replication: None,
    };
    let Codec { name, own } = aac.codec();
    if own {
        Container::Plain
    } else {
        Container::Other(name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn containers_are_told_by_their_first_bytes() {
        let of = |bytes: &[u8]| container(&mut Cursor::new(bytes)).unwrap();
        let other = |name: &str| Container::Other(name.to_owned());
        assert_eq!(of(b"RF64\xff\xff\xff\xffWAVEds64"), Container::Wave);
        assert_eq!(of(b"RIFX\0\0\0\0WAVEfmt "), Container::Wave);
        assert_eq!(
            of(b"ID3\x04\0\0\0\0\0\x02..RIFF\0\0\0\0WAVEfmt "),
            Container::Wave
        );
        assert_eq!(of(b"RIFF\0\0\0\0AVI LIST"), other("AVI"));
        assert_eq!(of(b"\0\0\x01\xba\x44"), other("an MPEG program stream"));
        let mut stream = vec![0; 600];
        (0..3).for_each(|nth| stream[nth * 188] = 0x47);
        assert_eq!(of(&stream), other("an MPEG transport stream"));
        assert_eq!(of(b"\0\0\0\x18ftypisom"), Container::Mp4);
        assert_eq!(of(b"ID3\x04\0\0\0\0\0\x02..\xff\xfb\x90\x64"), Container::Plain);
        assert_eq!(of(b"\0\0\0\0\xff\xfb\x90\x64"), Container::Plain);
        assert_eq!(of(b"\xff\xfd\x90\x64"), other("MPEG sound of layer I or II"));
        // ADTS headers of AAC-LC: 44.1 kHz stereo, 22.05 kHz stereo, 44.1 kHz with 6 channels.
        assert_eq!(of(b"\xff\xf1\x50\x80"), Container::Plain);
        assert_eq!(
            of(b"\xff\xf1\x5c\x80"),
            other("AAC of 22050 Hz, which may be HE-AAC")
        );
        assert_eq!(of(b"\xff\xf1\x51\x80"), other("AAC of 6 channels"));
        assert_eq!(
            of(b"\x1a\x45\xdf\xa3....webm....A_OPUS\x63\xa2"),
            other("A_OPUS in Matroska or WebM")
        );
        // Pages of 1 segment of 30 bytes; the flag 2 marks the first page of a stream.
        let page = |flags: u8, codec: &[u8]| {
            let mut page = [&b"OggS\0"[..], &[flags], &[0; 20], &[1, 30], codec].concat();
            page.resize(58, 0);
            page
        };
        let vorbis = page(2, b"\x01vorbis");
        assert_eq!(
            of(&[vorbis.clone(), page(0, b"\x03vorbis")].concat()),
            Container::Plain
        );
        for more in [
            [page(2, b"\x80theora"), vorbis.clone()],
            [vorbis, page(2, b"\x80theora")],
        ] {
            assert_eq!(of(&more.concat()), other("Ogg with several streams"));
        }
        assert_eq!(of(b"some text that is no sound"), Container::Unknown);
        assert_eq!(of(b""), Container::Unknown);
    }
}
