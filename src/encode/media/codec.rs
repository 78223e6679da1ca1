//! The codec of an MP4 sound track, from its sample entry, and whether symphonia decodes it. Source: ISO/IEC 14496-3, 1.6.2.1.

/// A sound codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Codec {
    /// Name of the codec, for messages.
    pub name: String,
    /// Does symphonia decode the codec correctly? Otherwise ffmpeg decodes the file.
    pub own: bool,
}

/// Returns the codec of a sample entry.
pub(super) fn codec(entry: &[u8]) -> Codec {
    let kind = entry.get(4..8).unwrap_or(b"none");
    let other = |name: &str| Codec {
        name: name.to_owned(),
        own: false,
    };
    match kind {
        b"mp4a" => mpeg4(entry),
        b".mp3" | b"ms\0\x55" => Codec {
            name: "MP3".to_owned(),
            own: true,
        },
        b"ac-3" => other("AC-3"),
        b"ec-3" => other("E-AC-3"),
        b"alac" => other("ALAC"),
        b"Opus" => other("Opus"),
        b"fLaC" => other("FLAC"),
        b"dtsc" | b"dtse" | b"dtsh" | b"dtsl" => other("DTS"),
        b"samr" | b"sawb" => other("AMR"),
        b"sowt" | b"twos" | b"lpcm" | b"in24" | b"in32" | b"fl32" | b"fl64" | b"ipcm" | b"fpcm" => {
            other("PCM")
        }
        kind => other(&String::from_utf8_lossy(kind).escape_default().to_string()),
    }
}

/// Returns the codec of an `mp4a` entry, from its elementary stream descriptor.
fn mpeg4(entry: &[u8]) -> Codec {
    let made = |name: &str, own| Codec {
        name: name.to_owned(),
        own,
    };
    // The offset of the descriptor's box differs between MP4 and QuickTime, so the box is searched by its name.
    let descriptor = entry
        .windows(4)
        .position(|name| name == b"esds")
        .map(|at| &entry[at + 8..]);
    let Some((kind, settings)) = descriptor.and_then(elementary) else {
        return made("MPEG-4 sound without a descriptor", false);
    };
    match kind {
        0x69 | 0x6b => made("MP3", true),
        0x40 | 0x66..=0x68 => match Aac::read(settings) {
            Some(aac) => aac.codec(),
            None => made("AAC without a configuration", false),
        },
        _ => made(&format!("MPEG-4 sound of type {kind:#x}"), false),
    }
}

/// Returns the object type and the decoder settings of an elementary stream descriptor.
fn elementary(mut bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut kind = None;
    loop {
        let (&tag, rest) = bytes.split_first()?;
        let mut length = 0_usize;
        let mut used = 0;
        for &byte in rest.iter().take(4) {
            used += 1;
            length = length << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = rest.get(used..)?;
        match tag {
            // All known writers omit the optional fields of this descriptor, so its header has 3 bytes.
            3 => bytes = body.get(3..)?,
            4 => {
                kind = Some(*body.first()?);
                bytes = body.get(13..)?;
            }
            5 => return Some((kind?, body.get(..length.min(body.len()))?)),
            _ => return kind.map(|kind| (kind, &[][..])),
        }
    }
}

/// The configuration of AAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aac {
    /// Object type: 2 is AAC-LC; 5 and 29 are HE-AAC.
    pub object: u32,
    /// Samples per second of the core; 0 if the rate is unknown.
    pub rate: u32,
    /// Channel configuration: 1 is mono, 2 is stereo; 0 means that another part of the stream defines the channels.
    pub channels: u32,
    /// Does the sound use spectral band replication? `None` if the file does not say so.
    pub replication: Option<bool>,
}

/// Rates of AAC in samples per second, by index.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];

/// Returns the rate of AAC with this index, in samples per second.
pub(crate) fn aac_rate(index: u32) -> Option<u32> {
    RATES.get(index as usize).copied()
}

impl Aac {
    fn read(settings: &[u8]) -> Option<Aac> {
        let mut at = 0;
        let mut take = |bits: usize| -> Option<u32> {
            let mut value = 0;
            for _ in 0..bits {
                let byte = settings.get(at / 8)?;
                value = value << 1 | u32::from(byte >> (7 - at % 8) & 1);
                at += 1;
            }
            Some(value)
        };
        let object = take(5)?;
        let rate = match take(4)? {
            15 => take(24)?,
            index => aac_rate(index)?,
        };
        let channels = take(4)?;
        let mut replication = None;
        // Three flags follow. If all are 0, as usual in AAC-LC, they add no further fields, and the next bits can be an
        // extension that tells whether band replication is used.
        if object == 2 && take(3) == Some(0) && take(11) == Some(0x2b7) && take(5) == Some(5) {
            replication = take(1).map(|flag| flag == 1);
        }
        Some(Aac {
            object,
            rate,
            channels,
            replication,
        })
    }

    /// Returns the name of the codec, and whether symphonia decodes it. symphonia decodes AAC-LC with one or two
    /// channels.
    ///
    /// A file of HE-AAC does not always say that it is HE-AAC. A file with a core rate of 24 kHz or less usually is
    /// HE-AAC, and symphonia would decode only the lower half of its frequencies. Such a file is therefore left to
    /// ffmpeg.
    pub(crate) fn codec(self) -> Codec {
        let name = match (self.object, self.replication) {
            (5 | 29, _) | (2, Some(true)) => "HE-AAC".to_owned(),
            (2, None) if self.rate <= 24_000 => format!("AAC of {} Hz, which may be HE-AAC", self.rate),
            (2, _) if !(1..=2).contains(&self.channels) => {
                let channels = match self.channels {
                    7 => 8,
                    channels => channels,
                };
                format!("AAC of {channels} channels")
            }
            (2, _) => {
                return Codec {
                    name: "AAC".to_owned(),
                    own: true,
                };
            }
            (object, _) => format!("AAC of object type {object}"),
        };
        Codec { name, own: false }
    }
}
