//! Reads sound files as mono samples at one rate, one piece at a time, so that a long file is never in memory as a
//! whole.

use std::path::{Path, PathBuf};

use super::decoded::{Decoded, Next};
use super::resample::Resampler;
use crate::encode::error::MediaError;

/// A sound file that is being read: its default sound track, as the mean of all channels.
pub struct Wave {
    path: PathBuf,
    decoded: Decoded,
    resampler: Resampler,
    /// Decoded mono samples at the rate of the file; the first one is sample `start`.
    held: Vec<f32>,
    start: u64,
    /// Number of samples of silence before the sound that are not in `held` yet.
    silence: u64,
    /// Number of decoded samples that must still be dropped, because an encoder put them before the sound (priming).
    skip: u64,
    /// Number of samples of sound that must still be taken.
    take: u64,
    ended: bool,
    broken: u64,
}

/// The longest silence before a sound, in seconds (one day). A file that claims more is damaged.
const MAX_SILENCE_SECONDS: u64 = 86_400;

impl Wave {
    /// Opens a file, to give its samples at `rate`. `program` is the ffmpeg program, which decodes the files that
    /// symphonia does not read.
    ///
    /// # Errors
    /// Returns [`MediaError::NoSound`] if the file has no sound track, and [`MediaError::FfmpegSound`] if the file
    /// needs ffmpeg and ffmpeg cannot be started. Returns another [`MediaError`] if the path is not a regular file, if
    /// the container is unknown, or if the sound cannot be decoded.
    pub fn open(path: &Path, rate: u32, program: &Path) -> Result<Wave, MediaError> {
        let decoded = Decoded::open(path, program)?;
        let own = decoded.rate;
        let silence = decoded.delay.samples(own);
        if silence > MAX_SILENCE_SECONDS * u64::from(own) {
            return Err(MediaError::Sound {
                path: path.to_owned(),
                problem: format!(
                    "starts {} s later than its file, expected {MAX_SILENCE_SECONDS} s or less",
                    silence / u64::from(own)
                ),
            });
        }
        Ok(Wave {
            path: path.to_owned(),
            resampler: Resampler::new(own, rate),
            held: Vec::new(),
            start: 0,
            silence,
            skip: decoded.skip.samples(own),
            take: decoded.take.map_or(u64::MAX, |take| take.samples(own)),
            ended: false,
            broken: 0,
            decoded,
        })
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// Returns the errors of [`Wave::open`] and [`Wave::piece`].
    pub fn read(path: &Path, rate: u32, program: &Path) -> Result<Vec<f32>, MediaError> {
        const PIECE: u64 = 1 << 16;
        let mut wave = Wave::open(path, rate, program)?;
        let mut samples = Vec::new();
        loop {
            let first = samples.len() as u64;
            wave.piece(first, first + PIECE, &mut samples)?;
            if (samples.len() as u64) < first + PIECE {
                return Ok(samples);
            }
        }
    }

    /// Appends the samples `first..end`, or fewer if the sound ends earlier. `first` must not be smaller than in an
    /// earlier call, because earlier samples are dropped.
    ///
    /// A packet that cannot be decoded becomes silence of the same length, so that the sound after the packet keeps its
    /// time. [`Wave::broken`] returns the number of these packets.
    ///
    /// # Errors
    /// Returns [`MediaError::Sound`] if the file changes its rate, or if ffmpeg gives no sound.
    pub fn piece(&mut self, first: u64, end: u64, out: &mut Vec<f32>) -> Result<(), MediaError> {
        let (low, high) = self.resampler.needs(first, end);
        while !self.ended && self.start + (self.held.len() as u64) < high {
            self.decode()?;
            let gone = low.saturating_sub(self.start).min(self.held.len() as u64);
            // `drain` moves all samples that stay, so it is called only when there are many samples to drop.
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

    /// Number of packets so far that could not be decoded and became silence.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Decodes the next packet into `held`, or sets `ended` at the end of the sound.
    fn decode(&mut self) -> Result<(), MediaError> {
        if self.silence > 0 {
            let some = self.silence.min(1 << 16);
            self.silence -= some;
            self.held.resize(self.held.len() + some as usize, 0.0);
            return Ok(());
        }
        let mono = match self.decoded.next(&self.path)? {
            Next::Samples(mono) => mono,
            Next::Broken(length) => {
                self.broken += 1;
                // No real packet is longer than some seconds. The limit of 2^20 samples keeps a damaged file from
                // filling the memory.
                vec![0.0; length.min(1 << 20) as usize]
            }
            Next::End => {
                self.ended = true;
                return Ok(());
            }
        };
        let dropped = self.skip.min(mono.len() as u64);
        self.skip -= dropped;
        let taken = self.take.min(mono.len() as u64 - dropped);
        self.take -= taken;
        self.ended = self.take == 0;
        let heard = &mono[dropped as usize..(dropped + taken) as usize];
        // NaN or infinity would make every resampled value NaN that the sample contributes to.
        self.held.extend(
            heard
                .iter()
                .map(|&sample| if sample.is_finite() { sample } else { 0.0 }),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::shared;

    const NO_FFMPEG: &str = "/nowhere/ffmpeg";

    /// A WAV file of 16-bit PCM with this number of channels.
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
        let whole = Wave::read(&path, 44_100, NO_FFMPEG.as_ref()).unwrap();
        assert_eq!(whole.len(), 44_100);
        let first = (f32::from(samples[0]) + f32::from(samples[1])) / 65_536.0;
        assert_eq!(whole[0], first);
        let whole = Wave::read(&path, 48_000, NO_FFMPEG.as_ref()).unwrap();
        assert_eq!(whole.len(), 48_000);
        let mut wave = Wave::open(&path, 48_000, NO_FFMPEG.as_ref()).unwrap();
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
        let samples = Wave::read(&path, 48_000, NO_FFMPEG.as_ref()).unwrap().len();
        assert!(samples > 8_000 && samples <= 10_000, "{samples}");
        std::fs::write(&path, "no sound at all, but some words of text").unwrap();
        let refused = Wave::open(&path, 48_000, NO_FFMPEG.as_ref())
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.contains("a.wav") && refused.contains("no sound that can be read"),
            "{refused}"
        );
        std::fs::write(&path, b"").unwrap();
        assert!(Wave::open(&path, 48_000, NO_FFMPEG.as_ref()).is_err());
    }

    #[test]
    fn sound_of_an_mp4_begins_where_its_edit_list_says() {
        let Some(shared) = shared("sound_of_an_mp4_begins_where_its_edit_list_says") else {
            return;
        };
        let samples = Wave::read(
            &shared.join("llp/sample/BjCEufrlXm4.mp4"),
            44_100,
            NO_FFMPEG.as_ref(),
        )
        .unwrap();
        // 431 packets of 1024 samples, without 1024 samples of priming.
        assert!((440_000..=443_000).contains(&samples.len()), "{}", samples.len());
        let loud = samples.iter().map(|sample| sample.abs()).fold(0.0, f32::max);
        assert!((0.05..=1.5).contains(&loud), "{loud}");
    }
}
