//! Sound files to mono samples at one rate, a piece at a time: an hour is never held whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use symphonia::core::audio::SampleBuffer;
use symphonia::core::codecs::{CODEC_TYPE_NULL, Decoder, DecoderOptions};
use symphonia::core::errors::Error as SoundError;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::probe::Hint;

use super::resample::Resampler;
use crate::encode::error::MediaError;
use crate::encode::media::edits::sound_edit;
use crate::ingest::open_regular;

/// A sound file being read: its first sound track, channels averaged.
pub struct Wave {
    path: PathBuf,
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn Decoder>,
    track: u32,
    /// Samples per second of the file.
    rate: u32,
    resampler: Resampler,
    /// Mono samples of the file from `start` on.
    held: Vec<f32>,
    start: u64,
    /// Samples still to be dropped: what an encoder put before the sound (priming).
    skip: u64,
    ended: bool,
    broken: u64,
}

impl Wave {
    /// Opens a file; samples will come at `rate`.
    ///
    /// # Errors
    /// [`MediaError`] for a file that is none, is of an unknown kind, or has no sound track that can be decoded
    /// ([`MediaError::NoSound`] where it has none at all).
    pub fn open(path: &Path, rate: u32) -> Result<Wave, MediaError> {
        let sound = |problem: String| MediaError::Sound {
            path: path.to_owned(),
            problem,
        };
        let (mut file, _) = open_regular(path)?;
        let edit = sound_edit(&mut file).map_err(|error| sound(error.to_string()))?;
        let (reader, own, decoder, found) = open(path, file).map_err(|problem| match problem {
            Some(problem) => sound(problem),
            None => MediaError::NoSound {
                path: path.to_owned(),
            },
        })?;
        let samples = |(units, per_second): (u64, u32)| {
            (u128::from(units) * u128::from(found) / u128::from(per_second.max(1))) as u64
        };
        Ok(Wave {
            path: path.to_owned(),
            reader,
            decoder,
            track: own,
            rate: found,
            resampler: Resampler::new(found, rate),
            held: Vec::new(),
            start: 0,
            skip: edit.map_or(0, samples),
            ended: false,
            broken: 0,
        })
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// As [`Wave::open`] and [`Wave::piece`].
    pub fn read(path: &Path, rate: u32) -> Result<Vec<f32>, MediaError> {
        const PIECE: u64 = 1 << 16;
        let mut wave = Wave::open(path, rate)?;
        let mut samples = Vec::new();
        loop {
            let first = samples.len() as u64;
            wave.piece(first, first + PIECE, &mut samples)?;
            if (samples.len() as u64) < first + PIECE {
                return Ok(samples);
            }
        }
    }

    /// Appends samples `first..end`, as far as the sound goes; no `first` may lie before that of a call before.
    ///
    /// A packet that cannot be decoded is silence of its length, so that nothing after it moves
    /// ([`Wave::broken`] counts them).
    ///
    /// # Errors
    /// [`MediaError::Sound`] where the file changes its rate.
    pub fn piece(&mut self, first: u64, end: u64, out: &mut Vec<f32>) -> Result<(), MediaError> {
        let (low, high) = self.resampler.needs(first, end);
        while !self.ended && self.start + (self.held.len() as u64) < high {
            self.decode()?;
            let gone = low.saturating_sub(self.start).min(self.held.len() as u64);
            // Moving samples costs: only when there is much to drop.
            if gone > 1 << 16 {
                self.held.drain(..gone as usize);
                self.start += gone;
            }
        }
        let mut end = end;
        if self.ended {
            end = end.min(self.resampler.length(self.start + self.held.len() as u64));
        }
        self.resampler
            .append(&self.held, self.start, first, end.max(first), out);
        Ok(())
    }

    /// Packets that were silence because they could not be decoded, so far.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Decodes one packet.
    fn decode(&mut self) -> Result<(), MediaError> {
        let packet = match self.reader.next_packet() {
            Ok(packet) => packet,
            // The end, or a file that is cut: what was read still counts.
            Err(_) => {
                self.ended = true;
                return Ok(());
            }
        };
        if packet.track_id() != self.track {
            return Ok(());
        }
        let mut mono = Vec::new();
        match self.decoder.decode(&packet) {
            Ok(decoded) => {
                let spec = *decoded.spec();
                if spec.rate != self.rate {
                    return Err(MediaError::Sound {
                        path: self.path.clone(),
                        problem: format!(
                            "goes on with {} samples a second, expected {} as at its begin",
                            spec.rate, self.rate
                        ),
                    });
                }
                let mut samples = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                samples.copy_interleaved_ref(decoded);
                let channels = spec.channels.count().max(1);
                mono.extend(samples.samples().chunks_exact(channels).map(|frame| {
                    (frame.iter().map(|&sample| f64::from(sample)).sum::<f64>() / channels as f64) as f32
                }));
            }
            Err(SoundError::DecodeError(_)) => {
                self.broken += 1;
                // A packet of more than some seconds is a lie of a damaged file.
                mono.resize(packet.dur().min(1 << 20) as usize, 0.0);
            }
            Err(_) => {
                self.ended = true;
                return Ok(());
            }
        }
        let dropped = self.skip.min(mono.len() as u64);
        self.skip -= dropped;
        // A sample that is no number would spoil whatever it is mixed into.
        self.held.extend(
            mono[dropped as usize..]
                .iter()
                .map(|&sample| if sample.is_finite() { sample } else { 0.0 }),
        );
        Ok(())
    }
}

type Opened = (Box<dyn FormatReader>, u32, Box<dyn Decoder>, u32);

/// The first track that holds sound; an error of nothing where there is none.
fn open(path: &Path, file: File) -> Result<Opened, Option<String>> {
    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|extension| extension.to_str()) {
        hint.with_extension(extension);
    }
    let stream = MediaSourceStream::new(Box::new(file), Default::default());
    let options = FormatOptions {
        enable_gapless: true,
        ..FormatOptions::default()
    };
    let probed = symphonia::default::get_probe()
        .format(&hint, stream, &options, &MetadataOptions::default())
        .map_err(|error| Some(format!("is no sound that can be read: {error}")))?;
    let mut problem = None;
    for track in probed.format.tracks() {
        let parameters = &track.codec_params;
        // A video track has neither a codec that is known nor a rate.
        let (Some(rate), true) = (parameters.sample_rate, parameters.codec != CODEC_TYPE_NULL) else {
            continue;
        };
        if rate == 0 || rate > 1 << 20 {
            problem = Some(format!("has {rate} samples a second, expected 1 to {}", 1 << 20));
            continue;
        }
        match symphonia::default::get_codecs().make(parameters, &DecoderOptions::default()) {
            Ok(decoder) => {
                let id = track.id;
                return Ok((probed.format, id, decoder, rate));
            }
            Err(error) => problem = Some(format!("has sound that cannot be decoded: {error}")),
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::shared;

    /// 16-bit PCM of so many channels.
    pub(crate) fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let bytes = samples.len() as u32 * 2;
        let mut file = Vec::new();
        file.extend_from_slice(b"RIFF");
        file.extend_from_slice(&(36 + bytes).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0");
        file.extend_from_slice(&channels.to_le_bytes());
        file.extend_from_slice(&rate.to_le_bytes());
        file.extend_from_slice(&(rate * u32::from(channels) * 2).to_le_bytes());
        file.extend_from_slice(&(channels * 2).to_le_bytes());
        file.extend_from_slice(b"\x10\0data");
        file.extend_from_slice(&bytes.to_le_bytes());
        samples
            .iter()
            .for_each(|sample| file.extend_from_slice(&sample.to_le_bytes()));
        file
    }

    #[test]
    fn channels_are_averaged_and_pieces_are_parts_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let samples: Vec<i16> = (0..88_200)
            .map(|at| (at * 331 % 60_000 - 30_000) as i16)
            .collect();
        std::fs::write(&path, wav(44_100, 2, &samples)).unwrap();
        let whole = Wave::read(&path, 44_100).unwrap();
        assert_eq!(whole.len(), 44_100);
        let first = (f32::from(samples[0]) + f32::from(samples[1])) / 65_536.0;
        assert_eq!(whole[0], first);
        let whole = Wave::read(&path, 48_000).unwrap();
        assert_eq!(whole.len(), 48_000);
        let mut wave = Wave::open(&path, 48_000).unwrap();
        for first in (0..48_000).step_by(9_600) {
            let mut piece = Vec::new();
            wave.piece(first, first + 9_600, &mut piece).unwrap();
            assert_eq!(piece, whole[first as usize..first as usize + 9_600]);
        }
        let mut beyond = Vec::new();
        wave.piece(48_000, 57_600, &mut beyond).unwrap();
        assert!(beyond.is_empty());
    }

    #[test]
    fn a_cut_file_gives_what_it_has_and_a_text_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let file = wav(48_000, 1, &[100; 48_000]);
        std::fs::write(&path, &file[..44 + 20_000]).unwrap();
        let samples = Wave::read(&path, 48_000).unwrap().len();
        assert!(samples > 8_000 && samples <= 10_000, "{samples}");
        std::fs::write(&path, "no sound at all, but some words of text").unwrap();
        let refused = Wave::open(&path, 48_000).err().unwrap().to_string();
        assert!(
            refused.contains("a.wav") && refused.contains("no sound that can be read"),
            "{refused}"
        );
        std::fs::write(&path, b"").unwrap();
        assert!(Wave::open(&path, 48_000).is_err());
    }

    #[test]
    fn sound_of_an_mp4_begins_where_its_edit_list_says() {
        let Some(shared) = shared("sound_of_an_mp4_begins_where_its_edit_list_says") else {
            return;
        };
        let samples = Wave::read(&shared.join("llp/sample/BjCEufrlXm4.mp4"), 44_100).unwrap();
        // 431 packets of 1024, less 1024 of priming.
        assert!((440_000..=443_000).contains(&samples.len()), "{}", samples.len());
        let loud = samples.iter().map(|sample| sample.abs()).fold(0.0, f32::max);
        assert!((0.05..=1.5).contains(&loud), "{loud}");
    }
}
