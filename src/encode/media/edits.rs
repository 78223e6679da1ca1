//! Where the sound of an mp4 begins: its edit list.
//!
//! An AAC encoder puts 1024 samples or more before the sound (priming); the edit list says how many. symphonia does
//! not read it, and would be late by as much. ISO/IEC 14496-12, 8.6.6.

use std::io::{Read, Seek, SeekFrom};

/// Boxes looked at before a file is taken to be a lie.
const MAX_BOXES: usize = 4096;

/// Media time at which the first sound track begins, and its units per second; none where the file does not say of
/// that track, or is no mp4. The file is left at its begin.
///
/// # Errors
/// Of reading.
pub(crate) fn sound_edit(file: &mut (impl Read + Seek)) -> std::io::Result<Option<(u64, u32)>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut found = None;
    let mut kind = [0; 8];
    file.rewind()?;
    // An mp4 begins with its type.
    if length >= 8 && file.read_exact(&mut kind).is_ok() && &kind[4..] == b"ftyp" {
        let mut walk = Walk {
            file,
            left: MAX_BOXES,
            track: Track::default(),
            found: &mut found,
        };
        walk.boxes(0, length)?;
    }
    file.rewind()?;
    Ok(found.flatten())
}

#[derive(Default)]
struct Track {
    sound: bool,
    units: u32,
    begin: Option<u64>,
}

struct Walk<'a, F> {
    file: &'a mut F,
    left: usize,
    track: Track,
    /// Of the first sound track, once it is read.
    found: &'a mut Option<Option<(u64, u32)>>,
}

impl<F: Read + Seek> Walk<'_, F> {
    /// Every box from here to there; what does not fit ends the walk.
    fn boxes(&mut self, mut at: u64, end: u64) -> std::io::Result<()> {
        while at + 8 <= end && self.left > 0 && self.found.is_none() {
            self.left -= 1;
            self.file.seek(SeekFrom::Start(at))?;
            let (short, name) = (self.number()?, self.bytes::<4>()?);
            let (size, header) = match short {
                0 => (end - at, 8),
                1 if at + 16 <= end => (u64::from_be_bytes(self.bytes()?), 16),
                size => (u64::from(size), 8),
            };
            let Some(next) = at.checked_add(size).filter(|&next| size >= header && next <= end) else {
                return Ok(());
            };
            self.one(name, at + header, next)?;
            at = next;
        }
        Ok(())
    }

    fn one(&mut self, name: [u8; 4], from: u64, to: u64) -> std::io::Result<()> {
        let room = to - from;
        match &name {
            b"moov" | b"edts" | b"mdia" => self.boxes(from, to)?,
            b"trak" => {
                self.track = Track::default();
                self.boxes(from, to)?;
                let Track { sound, units, begin } = self.track;
                if sound && units > 0 {
                    // A later track's edit says nothing of this one.
                    *self.found = Some(begin.map(|begin| (begin, units)));
                }
            }
            b"mdhd" if room >= 24 => {
                let [version, ..] = self.bytes::<4>()?;
                // Two dates come before it, of 4 or 8 bytes.
                self.file
                    .seek(SeekFrom::Current(if version == 1 { 16 } else { 8 }))?;
                self.track.units = self.number()?;
            }
            b"hdlr" if room >= 12 => {
                let header = self.bytes::<12>()?;
                self.track.sound = &header[8..] == b"soun";
            }
            b"elst" if room >= 8 => {
                let [version, ..] = self.bytes::<4>()?;
                let entry: u64 = if version == 1 { 20 } else { 12 };
                let entries = u64::from(self.number()?).min((room - 8) / entry).min(16);
                for _ in 0..entries {
                    let begin = if version == 1 {
                        let _duration: [u8; 8] = self.bytes()?;
                        i64::from_be_bytes(self.bytes()?)
                    } else {
                        let _duration = self.number()?;
                        i64::from(i32::from_be_bytes(self.bytes()?))
                    };
                    let _rate = self.number()?;
                    // -1 is a pause before the sound, and no place in it.
                    if let Ok(begin) = u64::try_from(begin) {
                        self.track.begin = Some(begin);
                        break;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> std::io::Result<u32> {
        Ok(u32::from_be_bytes(self.bytes()?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn atom(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = (content.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(content);
        bytes
    }

    /// A sound track of 44,100 units per second, with or without an edit.
    fn track(begin: Option<u32>) -> Vec<u8> {
        let mut content = Vec::new();
        if let Some(begin) = begin {
            let mut list = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9];
            list.extend(begin.to_be_bytes());
            list.extend([0, 1, 0, 0]);
            content = atom(b"edts", &atom(b"elst", &list));
        }
        let mut header = vec![0; 24];
        header[12..16].copy_from_slice(&44_100_u32.to_be_bytes());
        let handler = [&[0; 8][..], b"soun", &[0; 12]].concat();
        let media = [atom(b"mdhd", &header), atom(b"hdlr", &handler)].concat();
        content.extend(atom(b"mdia", &media));
        atom(b"trak", &content)
    }

    #[test]
    fn the_first_sound_track_counts_be_it_without_an_edit() {
        let edit = |tracks: &[Option<u32>]| {
            let tracks: Vec<u8> = tracks.iter().flat_map(|&begin| track(begin)).collect();
            let file = [atom(b"ftyp", b"isom"), atom(b"moov", &tracks)].concat();
            sound_edit(&mut Cursor::new(file)).unwrap()
        };
        assert_eq!(edit(&[Some(1024), Some(7)]), Some((1024, 44_100)));
        assert_eq!(edit(&[None, Some(7)]), None);
    }

    #[test]
    fn the_sample_video_begins_after_1024_samples_of_priming() {
        let Some(shared) = crate::ingest::shared("the_sample_video_begins_after_1024_samples_of_priming")
        else {
            return;
        };
        let bytes = std::fs::read(shared.join("llp/sample/BjCEufrlXm4.mp4")).unwrap();
        let edit = |bytes: &[u8]| sound_edit(&mut Cursor::new(bytes)).unwrap_or_default();
        assert_eq!(edit(&bytes), Some((1024, 44_100)));
        assert_eq!(edit(b"RIFF...."), None);
        // Damaged, it may say anything or nothing, but ends.
        let moov = bytes.len() - 14_281;
        for at in (moov..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            assert!(edit(&changed).is_none_or(|(_, units)| units > 0));
            assert!(edit(&bytes[..at]).is_none(), "its index is not whole");
        }
    }
}
