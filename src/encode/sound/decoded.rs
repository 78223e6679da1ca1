//! Decodes the sound of a file, and averages its channels. vaplan reads uncompressed WAV itself. symphonia decodes a file
//! if it reads the container and the codec; otherwise the ffmpeg program decodes the file.
//!
//! The choice depends only on the file, not on whether ffmpeg is installed. A file therefore gives the same features on
//! every machine, or an error which says that ffmpeg is missing.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom, Take};
use std::ops::RangeInclusive;
use std::path::Path;

use symphonia::core::audio::SampleBuffer;
use symphonia::core::codecs::{CODEC_TYPE_NULL, Decoder, DecoderOptions};
use symphonia::core::errors::Error as SoundError;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::probe::Hint;

use super::container::{Container, container};
use super::pcm::Layout;
use super::wav;
use crate::encode::error::MediaError;
use crate::encode::media::ffmpeg::{Running, whole_clock};
use crate::encode::media::mp4::{self, Ticks};
use crate::ingest::{IngestError, open_regular};

/// Numbers of samples per second that are read.
const RATES: RangeInclusive<u32> = 1..=1 << 20;

/// Sound that is being decoded.
pub(super) struct Decoded {
    /// Samples per second.
    pub(super) rate: u32,
    /// Length of the silence before the sound.
    pub(super) delay: Ticks,
    /// Length of the decoded sound that must be dropped at the beginning.
    pub(super) skip: Ticks,
    /// Length of the sound that is played after that; if `None`, all of the rest is played.
    pub(super) take: Option<Ticks>,
    source: Source,
}

enum Source {
    /// Uncompressed samples of a WAV file.
    Plain { file: Take<File>, layout: Layout },
    Symphonia {
        reader: Box<dyn FormatReader>,
        decoder: Box<dyn Decoder>,
        track: u32,
    },
    Ffmpeg {
        running: Running,
        channels: usize,
        samples: bool,
    },
}

/// A piece of decoded sound.
pub(super) enum Next {
    /// Mono samples.
    Samples(Vec<f32>),
    /// A packet that cannot be decoded, with its number of samples.
    Broken(u64),
    /// The end of the sound.
    End,
}

/// The reason why symphonia does not read a file.
enum Refused {
    /// Only ffmpeg reads the file; the text names its codec and container.
    ForFfmpeg(String),
    /// The container is unknown. ffmpeg may still read it: it knows more containers, and finds the sound after other bytes.
    Unknown(MediaError),
    /// The file has no sound that ffmpeg could read either.
    Final(MediaError),
}

impl Decoded {
    /// Opens the sound track of a file that a player takes by default.
    ///
    /// # Errors
    /// Returns [`MediaError`] in the cases that [`Wave::open`](super::Wave::open) describes.
    pub(super) fn open(path: &Path, program: &Path) -> Result<Decoded, MediaError> {
        match by_symphonia(path) {
            Ok(decoded) => Ok(decoded),
            Err(Refused::Final(error)) => Err(error),
            Err(Refused::ForFfmpeg(what)) => by_ffmpeg(path, program, what),
            Err(Refused::Unknown(error)) => by_ffmpeg(path, program, "unknown".to_owned()).or(Err(error)),
        }
    }

    /// Decodes the next piece.
    ///
    /// # Errors
    /// Returns [`MediaError::Sound`] if the file changes its rate, if ffmpeg gives no sound at all, or if the output of
    /// ffmpeg cannot be read.
    pub(super) fn next(&mut self, path: &Path) -> Result<Next, MediaError> {
        let rate = self.rate;
        match &mut self.source {
            Source::Plain { file, layout } => {
                let samples = layout.read(file).map_err(IngestError::io("read", path))?;
                Ok(if samples.is_empty() {
                    Next::End
                } else {
                    Next::Samples(samples)
                })
            }
            Source::Symphonia {
                reader,
                decoder,
                track,
            } => {
                let packet = loop {
                    match reader.next_packet() {
                        Ok(packet) if packet.track_id() == *track => break packet,
                        Ok(_) => {}
                        // An error here means the end of the file, or a file that is cut off. The sound so far is still
                        // used.
                        Err(_) => return Ok(Next::End),
                    }
                };
                match decoder.decode(&packet) {
                    Ok(decoded) => {
                        let spec = *decoded.spec();
                        if spec.rate != rate {
                            return Err(sound(
                                path,
                                format!(
                                    "goes on with {} samples a second, expected {rate} as at its begin",
                                    spec.rate
                                ),
                            ));
                        }
                        let mut samples = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                        samples.copy_interleaved_ref(decoded);
                        Ok(Next::Samples(mono(samples.samples(), spec.channels.count())))
                    }
                    Err(SoundError::DecodeError(_)) => Ok(Next::Broken(packet.dur())),
                    Err(_) => Ok(Next::End),
                }
            }
            Source::Ffmpeg {
                running,
                channels,
                samples,
            } => {
                let mut bytes = Vec::new();
                let most = (*channels * 4 * (1 << 14)) as u64;
                (&mut running.out)
                    .take(most)
                    .read_to_end(&mut bytes)
                    .map_err(|error| sound(path, format!("is lost on its way from ffmpeg: {error}")))?;
                let values: Vec<f32> = bytes
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes")))
                    .collect();
                let mono = mono(&values, *channels);
                if !mono.is_empty() {
                    *samples = true;
                    return Ok(Next::Samples(mono));
                }
                let (status, said) = running
                    .end(false)
                    .map_err(|error| sound(path, format!("ffmpeg was lost: {error}")))?;
                if !*samples {
                    return Err(unread(path, &format!("{status}: {said}")));
                }
                if !status.success() {
                    tracing::warn!(sound = %path.display(), "ffmpeg stopped early: {said}");
                }
                Ok(Next::End)
            }
        }
    }
}

/// Returns the mean of the channels at each time.
fn mono(samples: &[f32], channels: usize) -> Vec<f32> {
    let channels = channels.max(1);
    samples
        .chunks_exact(channels)
        .map(|frame| (frame.iter().map(|&sample| f64::from(sample)).sum::<f64>() / channels as f64) as f32)
        .collect()
}

fn sound(path: &Path, problem: String) -> MediaError {
    MediaError::Sound {
        path: path.to_owned(),
        problem,
    }
}

fn unread(path: &Path, said: &str) -> MediaError {
    sound(path, format!("is no sound that ffmpeg can read ({said})"))
}

fn by_symphonia(path: &Path) -> Result<Decoded, Refused> {
    let lost = |error: std::io::Error| Refused::Final(IngestError::io("read", path)(error).into());
    let (mut file, _) = open_regular(path).map_err(|error| Refused::Final(error.into()))?;
    match container(&mut file).map_err(lost)? {
        Container::Other(what) => Err(Refused::ForFfmpeg(what)),
        Container::Unknown => {
            let mut head = Vec::new();
            (&mut file).take(32).read_to_end(&mut head).map_err(lost)?;
            let shown: String = head.iter().take(8).map(|&byte| byte as char).collect();
            let error = sound(
                path,
                format!(
                    "is no sound that can be read: it begins with `{}`, expected wav, flac, mp3, ogg, mp4 or another \
                     container that ffmpeg reads",
                    shown.escape_default()
                ),
            );
            // ffmpeg would read text as a list of other files.
            let text = |byte: &u8| (32..127).contains(byte) || byte.is_ascii_whitespace();
            Err(if head.iter().all(text) {
                Refused::Final(error)
            } else {
                Refused::Unknown(error)
            })
        }
        Container::Wave => wave(path, file),
        Container::Plain => {
            let extension = path
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or("sound");
            probe(
                extension,
                Box::new(file),
                None,
                &format!("{extension} that symphonia does not read"),
            )
        }
        Container::Mp4 => {
            let Some(found) = mp4::sound(&mut file).map_err(lost)? else {
                if !mp4::has_index(&mut file).map_err(lost)? {
                    let problem = "is an MP4 file without an index (`moov`): it is cut off, or its recorder did not finish it";
                    return Err(Refused::Final(sound(path, problem.to_owned())));
                }
                return Err(Refused::Final(MediaError::NoSound {
                    path: path.to_owned(),
                }));
            };
            let what = format!("{} in MP4", found.codec.name);
            if !found.codec.own {
                return Err(Refused::ForFfmpeg(what));
            }
            if let Some(pieces) = found.pieces {
                return Err(Refused::ForFfmpeg(format!("{what}, {pieces}")));
            }
            let decoded = probe("mp4", Box::new(file), Some(found.track), &what)?;
            Ok(Decoded {
                delay: found.delay,
                skip: found.skip,
                take: found.take,
                ..decoded
            })
        }
    }
}

/// Opens a WAV file.
fn wave(path: &Path, mut file: File) -> Result<Decoded, Refused> {
    let lost = |error: std::io::Error| Refused::Final(IngestError::io("read", path)(error).into());
    let refused = |problem: String| Refused::Final(sound(path, problem));
    let samples = wav::samples(&mut file).map_err(lost)?.ok_or_else(|| {
        refused("is a WAV file without samples, expected the chunks `fmt ` and `data`".to_owned())
    })?;
    let (channels, rate) = Layout::channels_and_rate(&samples.format);
    if channels == 0 || !RATES.contains(&rate) {
        return Err(refused(format!(
            "is a WAV file of {channels} channels and {rate} samples a second, expected 1 channel or more, and {} to {} \
             samples a second",
            RATES.start(),
            RATES.end()
        )));
    }
    file.seek(SeekFrom::Start(samples.start)).map_err(lost)?;
    if let Some(layout) = Layout::of(&samples.format, samples.big_endian) {
        return Ok(Decoded {
            rate,
            delay: Ticks::default(),
            skip: Ticks::default(),
            take: None,
            source: Source::Plain {
                file: file.take(samples.bytes),
                layout,
            },
        });
    }
    let format = format!(
        "WAV of format {:#x}",
        u16::from_le_bytes([samples.format[0], samples.format[1]])
    );
    if samples.big_endian {
        // ffmpeg reads the numbers of the header in the wrong order.
        return Err(refused(format!(
            "is {format} with big-endian numbers, expected integers or floats"
        )));
    }
    let header =
        wav::header(&samples).ok_or_else(|| Refused::ForFfmpeg(format!("{format} and 4 GiB or more")))?;
    let content = Cursor::new(header).chain(file.take(samples.bytes));
    probe("wav", Box::new(ReadOnlySource::new(content)), None, &format)
}

/// Opens a track with symphonia: the wanted track, or else the first track with sound.
fn probe(
    extension: &str,
    source: Box<dyn MediaSource>,
    wanted: Option<u32>,
    what: &str,
) -> Result<Decoded, Refused> {
    let ffmpeg = |problem: &dyn std::fmt::Display| Refused::ForFfmpeg(format!("{what} ({problem})"));
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let stream = MediaSourceStream::new(source, Default::default());
    let options = FormatOptions {
        enable_gapless: true,
        ..FormatOptions::default()
    };
    let reader = symphonia::default::get_probe()
        .format(&hint, stream, &options, &MetadataOptions::default())
        .map_err(|error| ffmpeg(&error))?
        .format;
    let track = reader.tracks().iter().find(|track| match wanted {
        Some(wanted) => track.id == wanted,
        None => track.codec_params.codec != CODEC_TYPE_NULL && track.codec_params.sample_rate.is_some(),
    });
    let Some(track) = track else {
        return Err(ffmpeg(&"symphonia finds no track"));
    };
    let (id, parameters) = (track.id, &track.codec_params);
    let rate = parameters.sample_rate.unwrap_or(0);
    if !RATES.contains(&rate) {
        return Err(ffmpeg(&format!("{rate} samples a second")));
    }
    let decoder = symphonia::default::get_codecs()
        .make(parameters, &DecoderOptions::default())
        .map_err(|error| ffmpeg(&error))?;
    Ok(Decoded {
        rate,
        delay: Ticks::default(),
        skip: Ticks::default(),
        take: None,
        source: Source::Symphonia {
            reader,
            decoder,
            track: id,
        },
    })
}

/// Opens the default sound track with ffmpeg. ffmpeg adds silence if the sound starts later than the file.
fn by_ffmpeg(path: &Path, program: &Path, what: String) -> Result<Decoded, MediaError> {
    let mut arguments = vec!["-vn", "-sn", "-dn", "-af", "aresample=async=1:first_pts=0"];
    arguments.extend(["-c:a", "pcm_f32le", "-map_metadata", "-1", "-f", "wav", "-"]);
    arguments.extend(whole_clock(path));
    let mut running =
        Running::start(program, path, &arguments).map_err(|source| MediaError::FfmpegSound {
            path: path.to_owned(),
            what: what.clone(),
            program: program.to_owned(),
            source,
        })?;
    match header(&mut running.out) {
        Ok((channels, rate)) if channels > 0 && RATES.contains(&rate) => Ok(Decoded {
            rate,
            delay: Ticks::default(),
            skip: Ticks::default(),
            take: None,
            source: Source::Ffmpeg {
                running,
                channels: channels.into(),
                samples: false,
            },
        }),
        _ => {
            let (status, said) = running
                .end(true)
                .map_err(|error| sound(path, format!("ffmpeg was lost: {error}")))?;
            Err(unread(path, &format!("it is {what}; {status}: {said}")))
        }
    }
}

/// Reads the header of the WAV stream that ffmpeg writes, up to the samples. Returns the number of channels and the
/// rate.
fn header(out: &mut BufReader<impl Read>) -> std::io::Result<(u16, u32)> {
    let mut form = [0; 12];
    out.read_exact(&mut form)?;
    let mut found = (0, 0);
    // ffmpeg writes a few chunks before the samples; 16 is more than enough.
    for _ in 0..16 {
        let mut head = [0; 8];
        out.read_exact(&mut head)?;
        if &head[..4] == b"data" {
            break;
        }
        let size = u32::from_le_bytes(head[4..].try_into().expect("4 bytes"));
        let mut content = Vec::new();
        out.take(u64::from(size.min(1 << 16))).read_to_end(&mut content)?;
        if let (b"fmt ", [_, _, channels, more, a, b, c, d, ..]) = (&head[..4], content.as_slice()) {
            found = (
                u16::from_le_bytes([*channels, *more]),
                u32::from_le_bytes([*a, *b, *c, *d]),
            );
        }
    }
    Ok(found)
}
