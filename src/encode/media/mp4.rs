//! Reads from the index (`moov`) of an MP4 or QuickTime file which sound track is the default, which codec it has, and
//! when its sound begins.
//!
//! symphonia reads neither edit lists nor the enabled flag of a track. Without edit lists, the sound would begin at the
//! wrong time: an AAC encoder puts 1024 or more samples before the sound (priming), and the track of a sound that
//! starts later than the pictures begins with an empty edit. Sources: ISO/IEC 14496-12, 8.3.2, 8.5.2, 8.6.1.2, 8.6.6 and
//! 8.8.1.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::codec::{Codec, codec};

/// Largest number of boxes that are read, because a damaged file could have any number of boxes.
const MAX_BOXES: usize = 4096;
/// Number of bytes of a sample entry that are kept. The configuration of the codec is in the first few hundred bytes.
const ENTRY: u64 = 4096;
/// Largest number of runs of packets that are read.
const MAX_RUNS: u64 = 1 << 16;

/// A time as a number of units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    /// Number of units.
    pub units: u64,
    /// Number of units per second; 0 counts as 1.
    pub per_second: u32,
}

impl Ticks {
    /// Returns the number of samples of this rate in the same time, rounded down.
    pub(crate) fn samples(self, rate: u32) -> u64 {
        let samples = u128::from(self.units) * u128::from(rate) / u128::from(self.per_second.max(1));
        u64::try_from(samples).unwrap_or(u64::MAX)
    }
}

/// The sound track that a player takes by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mp4Sound {
    /// Position of the track among all tracks. symphonia uses this position as the id of the track.
    pub track: u32,
    /// The codec of the track.
    pub codec: Codec,
    /// Length of the silence before the sound: the time from the start of the file to the start of the sound.
    pub delay: Ticks,
    /// Length of the decoded sound that must be dropped at the beginning, because it is not played.
    pub skip: Ticks,
    /// Length of the sound that is played; if `None`, the track is played to its end.
    pub take: Option<Ticks>,
    /// The reason why the sound is not one piece from beginning to end, for messages. Then only ffmpeg reads the sound, because
    /// symphonia puts all samples one after the other.
    pub pieces: Option<&'static str>,
}

/// Returns the default sound track of a file, or `None` if the file has no sound track or no index. The function sets
/// the position of the file to its start.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(crate) fn sound(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Mp4Sound>> {
    let walk = walk(file)?;
    let (units, fragmented, tracks) = (walk.units, walk.fragmented, walk.tracks);
    file.rewind()?;
    Ok(choose(units, fragmented, &tracks))
}

/// Does the file have an index? A file that is cut off, or that a recorder did not finish, has none.
///
/// # Errors
/// Returns the error of the system if the file cannot be read.
pub(crate) fn has_index(file: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    Ok(walk(file)?.indexed)
}

fn walk<F: Read + Seek>(file: &mut F) -> std::io::Result<Walk<'_, F>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut walk = Walk {
        file,
        left: MAX_BOXES,
        units: 0,
        fragmented: false,
        tracks: Vec::new(),
        indexed: false,
    };
    walk.boxes(0, length)?;
    Ok(walk)
}

/// Whether a packet before the last one lasts at least twice as long as most packets: there is a gap after it.
fn has_gap(durations: &[(u32, u32)]) -> bool {
    let mut packets: BTreeMap<u32, u64> = BTreeMap::new();
    for (count, duration) in durations {
        *packets.entry(*duration).or_default() += u64::from(*count);
    }
    let usual = packets.iter().max_by_key(|(_, count)| **count);
    let usual = usual.map_or(0, |(duration, _)| u64::from(*duration));
    let Some(((last, _), before)) = durations.split_last() else {
        return false;
    };
    let before_last = if *last > 1 { durations } else { before };
    usual > 0
        && before_last
            .iter()
            .any(|(count, duration)| *count > 0 && u64::from(*duration) >= 2 * usual)
}

/// Chooses the enabled sound track with the most channels, and the first one of several such tracks, as ffmpeg does. If
/// no sound track is enabled, all sound tracks are considered.
fn choose(units: u32, fragmented: bool, tracks: &[Track]) -> Option<Mp4Sound> {
    let sounds = || {
        tracks
            .iter()
            .enumerate()
            .filter(|(_, track)| &track.handler == b"soun")
    };
    let any = sounds().any(|(_, track)| track.enabled);
    let (position, track) = sounds()
        .filter(|(_, track)| track.enabled || !any)
        // `max_by_key` returns the last of several maxima, so the tracks are reversed to get the first one.
        .rev()
        .max_by_key(|(_, track)| track.channels())?;
    let empty = |track: &Track| -> u64 {
        let first = track.edits.iter().take_while(|edit| edit.begin.is_none());
        first.fold(0, |sum, edit| sum.saturating_add(edit.duration))
    };
    // ffmpeg and players begin a file at the start of its earliest track.
    let earliest = tracks
        .iter()
        .filter(|track| [b"soun", b"vide"].contains(&&track.handler))
        .map(empty)
        .min()
        .unwrap_or(0);
    let mut heard = track
        .edits
        .iter()
        .filter_map(|edit| Some((edit.begin?, edit.duration)));
    let first = heard.next();
    Some(Mp4Sound {
        track: u32::try_from(position).ok()?,
        codec: codec(&track.entry),
        delay: Ticks {
            units: empty(track) - earliest,
            per_second: units,
        },
        skip: Ticks {
            units: first.map_or(0, |(begin, _)| begin),
            per_second: track.units,
        },
        // A duration of 0 means that the track is played to its end.
        take: first
            .filter(|&(_, duration)| duration > 0)
            .map(|(_, duration)| Ticks {
                units: duration,
                per_second: units,
            }),
        pieces: match (heard.next(), fragmented, has_gap(&track.durations)) {
            (Some(_), ..) => Some("played in several parts"),
            // Each fragment says when it begins.
            (_, true, _) => Some("in fragments"),
            (.., true) => Some("with a gap"),
            _ => None,
        },
    })
}

#[derive(Clone, Debug, Default)]
struct Track {
    handler: [u8; 4],
    enabled: bool,
    units: u32,
    edits: Vec<Edit>,
    /// The bytes of the first sample entry, which begin with its size.
    entry: Vec<u8>,
    /// Runs of packets: their number, and the duration of each in units of the track.
    durations: Vec<(u32, u32)>,
}

impl Track {
    fn channels(&self) -> u16 {
        self.entry
            .get(24..26)
            .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[derive(Clone, Copy, Debug)]
struct Edit {
    /// Duration in units of the movie.
    duration: u64,
    /// Begin in units of the track; `None` for an empty edit, which plays nothing for the duration.
    begin: Option<u64>,
}

struct Walk<'a, F> {
    file: &'a mut F,
    left: usize,
    /// Number of units per second of the movie.
    units: u32,
    /// Are there more packets in fragments after the index?
    fragmented: bool,
    tracks: Vec<Track>,
    indexed: bool,
}

impl<F: Read + Seek> Walk<'_, F> {
    /// Reads every box in a range of the file. A box that does not fit into the range ends the reading of the range.
    fn boxes(&mut self, mut at: u64, end: u64) -> std::io::Result<()> {
        while at + 8 <= end && self.left > 0 && !self.indexed {
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
            b"moov" => {
                self.boxes(from, to)?;
                // The boxes after the index have no tracks, so reading can stop.
                self.indexed = true;
            }
            b"edts" | b"mdia" | b"minf" | b"stbl" => self.boxes(from, to)?,
            b"trak" => {
                self.tracks.push(Track::default());
                self.boxes(from, to)?;
            }
            b"mvhd" if room >= 24 => self.units = self.units_of_header()?,
            b"mvex" => self.fragmented = true,
            _ => {
                if let Some(mut track) = self.tracks.pop() {
                    let read = self.of_track(&name, room, &mut track);
                    self.tracks.push(track);
                    read?;
                }
            }
        }
        Ok(())
    }

    fn of_track(&mut self, name: &[u8; 4], room: u64, track: &mut Track) -> std::io::Result<()> {
        match name {
            b"tkhd" if room >= 4 => track.enabled = self.bytes::<4>()?[3] & 1 == 1,
            b"mdhd" if room >= 24 => track.units = self.units_of_header()?,
            b"hdlr" if room >= 12 => {
                let header = self.bytes::<12>()?;
                // QuickTime files have a second handler, of data (`dhlr`), in `minf`. Only the first handler is
                // the handler of the track.
                if track.handler == [0; 4] {
                    track.handler.copy_from_slice(&header[8..]);
                }
            }
            b"stsd" if room > 16 => {
                let _header: [u8; 8] = self.bytes()?;
                let mut entry = Vec::new();
                (&mut *self.file)
                    .take((room - 8).min(ENTRY))
                    .read_to_end(&mut entry)?;
                let size = entry
                    .get(..4)
                    .map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().expect("4 bytes")));
                entry.truncate(size as usize);
                track.entry = entry;
            }
            b"stts" if room >= 8 => {
                let _version: [u8; 4] = self.bytes()?;
                let runs = u64::from(self.number()?).min((room - 8) / 8).min(MAX_RUNS);
                for _ in 0..runs {
                    track.durations.push((self.number()?, self.number()?));
                }
            }
            b"elst" if room >= 8 => {
                let [version, ..] = self.bytes::<4>()?;
                let entry: u64 = if version == 1 { 20 } else { 12 };
                let entries = u64::from(self.number()?).min((room - 8) / entry).min(64);
                for _ in 0..entries {
                    let (duration, begin) = if version == 1 {
                        (
                            u64::from_be_bytes(self.bytes()?),
                            i64::from_be_bytes(self.bytes()?),
                        )
                    } else {
                        (
                            u64::from(self.number()?),
                            i64::from(i32::from_be_bytes(self.bytes()?)),
                        )
                    };
                    let _rate = self.number()?;
                    let begin = u64::try_from(begin).ok();
                    track.edits.push(Edit { duration, begin });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the number of units per second from `mvhd` or `mdhd`. Two dates of 4 or 8 bytes come before this number.
    fn units_of_header(&mut self) -> std::io::Result<u32> {
        let [version, ..] = self.bytes::<4>()?;
        self.file
            .seek(SeekFrom::Current(if version == 1 { 16 } else { 8 }))?;
        self.number()
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

    /// Makes a sample entry of AAC with this configuration.
    fn aac_entry(channels: u16, settings: &[u8]) -> Vec<u8> {
        let mut content = vec![0; 28];
        content[16..18].copy_from_slice(&channels.to_be_bytes());
        let decoder = [&[0x40][..], &[0; 12], &[5, settings.len() as u8], settings].concat();
        let stream = [&[0, 1, 0, 4, decoder.len() as u8][..], &decoder].concat();
        let descriptor = [&[0, 0, 0, 0, 3, stream.len() as u8][..], &stream].concat();
        content.extend(atom(b"esds", &descriptor));
        atom(b"mp4a", &content)
    }

    /// Makes a track from its handler, its enabled flag, its sample entry and its edits. An edit is a duration (1,000
    /// units per second) and a begin (44,100 units per second).
    fn track(handler: &[u8; 4], enabled: bool, entry: &[u8], edits: &[(u32, i32)]) -> Vec<u8> {
        timed(handler, enabled, entry, edits, &[])
    }

    /// A [`track`] with runs of packets.
    fn timed(
        handler: &[u8; 4],
        enabled: bool,
        entry: &[u8],
        edits: &[(u32, i32)],
        runs: &[(u32, u32)],
    ) -> Vec<u8> {
        let mut head = vec![0; 84];
        head[3] = u8::from(enabled);
        let mut list = vec![0, 0, 0, 0];
        list.extend((edits.len() as u32).to_be_bytes());
        for (duration, begin) in edits {
            list.extend(duration.to_be_bytes());
            list.extend(begin.to_be_bytes());
            list.extend([0, 1, 0, 0]);
        }
        let mut times = vec![0; 24];
        times[12..16].copy_from_slice(&44_100_u32.to_be_bytes());
        let named = [&[0; 8][..], handler, &[0; 12]].concat();
        let samples = [&[0, 0, 0, 0, 0, 0, 0, 1][..], entry].concat();
        let mut packets = [[0; 4], (runs.len() as u32).to_be_bytes()].concat();
        for (count, duration) in runs {
            packets.extend([count.to_be_bytes(), duration.to_be_bytes()].concat());
        }
        let media = [
            atom(b"mdhd", &times),
            atom(b"hdlr", &named),
            atom(
                b"minf",
                &atom(
                    b"stbl",
                    &[atom(b"stsd", &samples), atom(b"stts", &packets)].concat(),
                ),
            ),
        ]
        .concat();
        let edits = if edits.is_empty() {
            Vec::new()
        } else {
            atom(b"edts", &atom(b"elst", &list))
        };
        atom(
            b"trak",
            &[atom(b"tkhd", &head), edits, atom(b"mdia", &media)].concat(),
        )
    }

    fn movie(tracks: &[Vec<u8>]) -> Option<Mp4Sound> {
        let mut times = vec![0; 100];
        times[12..16].copy_from_slice(&1000_u32.to_be_bytes());
        let index = [vec![atom(b"mvhd", &times)], tracks.to_vec()].concat().concat();
        let file = [atom(b"ftyp", b"isom"), atom(b"moov", &index)].concat();
        sound(&mut Cursor::new(file)).unwrap()
    }

    const STEREO: &[u8] = &[0x12, 0x10];

    #[test]
    fn the_default_track_is_taken_with_its_own_edits() {
        let lc = aac_entry(2, STEREO);
        let found = movie(&[
            track(b"vide", true, b"", &[]),
            track(b"soun", false, &lc, &[(900, 7)]),
            track(b"soun", true, &lc, &[(1000, 1024)]),
        ])
        .unwrap();
        assert_eq!((found.track, found.skip.samples(44_100)), (2, 1024));
        assert_eq!(found.take.map(|take| take.samples(44_100)), Some(44_100));
        assert!(found.codec.own);
        assert_eq!(found.pieces, None);
        // If no track is enabled, the first one is chosen; of several enabled tracks, the one with the most channels.
        let first = movie(&[
            track(b"soun", false, &lc, &[]),
            track(b"soun", false, &lc, &[(9, 7)]),
        ])
        .unwrap();
        assert_eq!((first.track, first.skip.units, first.take), (0, 0, None));
        let more = movie(&[
            track(b"soun", true, &lc, &[]),
            track(b"soun", true, &aac_entry(6, STEREO), &[]),
        ]);
        assert_eq!(more.unwrap().track, 1);
        assert_eq!(movie(&[track(b"vide", true, b"", &[])]), None);
    }

    #[test]
    fn an_empty_edit_delays_the_sound_from_the_start_of_the_earliest_track() {
        let lc = aac_entry(2, STEREO);
        let late = track(b"soun", true, &lc, &[(1500, -1), (2000, 0)]);
        let delay = |pictures: &[(u32, i32)]| {
            let found = movie(&[track(b"vide", true, b"", pictures), late.clone()]).unwrap();
            found.delay.samples(48_000)
        };
        assert_eq!(delay(&[]), 72_000);
        assert_eq!(delay(&[(500, -1), (3000, 0)]), 48_000);
        assert_eq!(delay(&[(2500, -1), (3000, 0)]), 0);
        let parts = movie(&[track(b"soun", true, &lc, &[(100, 0), (100, 9000)])]).unwrap();
        assert_eq!(parts.pieces, Some("played in several parts"));
    }

    #[test]
    fn sound_in_pieces_is_left_to_ffmpeg() {
        let lc = aac_entry(2, STEREO);
        let pieces = |runs: &[(u32, u32)]| {
            let found = movie(&[timed(b"soun", true, &lc, &[], runs)]);
            found.unwrap().pieces
        };
        // A recorder's packets differ by a few samples, and the last packet lasts to the end of the file.
        assert_eq!(pieces(&[(90, 1024), (3, 1031), (40, 1024), (1, 9000)]), None);
        assert_eq!(pieces(&[(90, 1024), (1, 67_000), (40, 1024)]), Some("with a gap"));
        assert_eq!(pieces(&[(40, 1024), (2, 4096)]), Some("with a gap"));
        assert_eq!(pieces(&[(0, 9000), (40, 1024)]), None);
        let fragments = movie(&[track(b"soun", true, &lc, &[]), atom(b"mvex", &[])]);
        assert_eq!(fragments.unwrap().pieces, Some("in fragments"));
    }

    #[test]
    fn codecs_that_symphonia_decodes_wrongly_are_named() {
        let name = |entry: &[u8]| {
            let codec = codec(entry);
            (codec.name, codec.own)
        };
        let aac = |settings: &[u8]| name(&aac_entry(2, settings));
        assert_eq!(aac(STEREO), ("AAC".to_owned(), true));
        // 5 + 4 + 4 bits: object type 2, 32 kHz, 6 channels.
        assert_eq!(aac(&[0x12, 0xb0]), ("AAC of 6 channels".to_owned(), false));
        assert_eq!(aac(&[0x2b, 0x92, 0x08, 0x00]), ("HE-AAC".to_owned(), false));
        // 22,050 Hz, with an extension which says that band replication is used, or not used.
        assert_eq!(aac(&[0x13, 0x90, 0x56, 0xe5, 0x80]), ("HE-AAC".to_owned(), false));
        assert_eq!(aac(&[0x13, 0x90, 0x56, 0xe5, 0x00]), ("AAC".to_owned(), true));
        assert_eq!(aac(&[0x13, 0x90]).0, "AAC of 22050 Hz, which may be HE-AAC");
        assert_eq!(name(&atom(b"ac-3", &[0; 40])), ("AC-3".to_owned(), false));
    }

    #[test]
    fn the_sample_video_begins_after_1024_samples_of_priming() {
        let Some(shared) = crate::ingest::shared("the_sample_video_begins_after_1024_samples_of_priming")
        else {
            return;
        };
        let bytes = std::fs::read(shared.join("llp/sample/BjCEufrlXm4.mp4")).unwrap();
        let read = |bytes: &[u8]| sound(&mut Cursor::new(bytes)).unwrap_or_default();
        let found = read(&bytes).unwrap();
        assert_eq!((found.skip.units, found.skip.per_second), (1024, 44_100));
        assert_eq!(
            (found.delay.units, found.codec.own, found.pieces),
            (0, true, None)
        );
        assert!(has_index(&mut Cursor::new(&bytes)).unwrap());
        assert_eq!(read(b"RIFF...."), None);
        // For a damaged file, any result is allowed, but reading must end.
        let moov = bytes.len() - 14_281;
        for at in (moov..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            let _ = read(&changed);
            assert!(read(&bytes[..at]).is_none(), "the index is not whole");
            assert!(!has_index(&mut Cursor::new(&bytes[..at])).unwrap());
        }
    }
}
