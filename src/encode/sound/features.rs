//! Computes the features that CLAP takes: repeats and pads a clip, then computes its log-mel bands.
//!
//! Source: transformers, `ClapFeatureExtractor` with `padding="repeatpad"`. Without resampling, the features equal
//! those of transformers within 2e-5 dB, because they are computed in f64. In f32, they would differ by up to 0.45 dB
//! in bands that are nearly empty.

use serde::Serialize;

use super::fft::PowerSpectrum;
use super::mel::{MelBank, MelScale};

/// How sound is prepared for an audio model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SoundSettings {
    /// Samples per second.
    pub rate: u32,
    /// Number of samples in a clip. Shorter sound is repeated and padded with zeros; of longer sound, the middle is
    /// used.
    pub samples: usize,
    /// The mel scale of the filters.
    pub mel: MelScale,
}

impl Default for SoundSettings {
    /// The settings of a CLAP model that is not fused: 48 kHz, 10 s, and Slaney's mel scale.
    fn default() -> SoundSettings {
        SoundSettings {
            rate: 48_000,
            samples: 480_000,
            mel: MelScale::Slaney,
        }
    }
}

/// Number of samples in a frame.
const FRAME: usize = 1024;
/// Number of samples from the centre of a frame to the centre of the next frame.
const HOP: usize = 480;
/// Number of mel bands.
const BANDS: usize = 64;
/// Lowest and highest frequency of the bands, in Hz.
const RANGE: (f64, f64) = (50.0, 14_000.0);

/// The tables and buffers for computing features. Each thread needs its own.
#[derive(Clone, Debug)]
pub struct SoundFeatures {
    settings: SoundSettings,
    spectrum: PowerSpectrum,
    bank: MelBank,
    window: Vec<f64>,
    clip: Vec<f32>,
    frame: Vec<f64>,
    power: Vec<f64>,
}

impl SoundFeatures {
    /// Computes the tables for these settings.
    pub fn new(settings: &SoundSettings) -> SoundFeatures {
        SoundFeatures {
            spectrum: PowerSpectrum::new(FRAME),
            bank: MelBank::new(
                settings.mel,
                settings.rate,
                FRAME / 2 + 1,
                BANDS,
                RANGE.0,
                RANGE.1,
            ),
            // Periodic Hann window: `np.hanning(FRAME + 1)[:-1]`.
            window: (0..FRAME)
                .map(|at| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / FRAME as f64).cos())
                .collect(),
            clip: Vec::new(),
            frame: vec![0.0; FRAME],
            power: vec![0.0; FRAME / 2 + 1],
            settings: settings.clone(),
        }
    }

    /// Returns the numbers of frames and bands of a clip: 1001 and 64 for 10 s.
    pub fn shape(&self) -> (usize, usize) {
        (1 + self.settings.samples / HOP, BANDS)
    }

    /// Appends the features of a clip, `10 log10(max(power, 1e-10))`, of shape `[frames, bands]`.
    ///
    /// Sound without any samples counts as silence.
    pub fn append(&mut self, sound: &[f32], out: &mut Vec<f32>) {
        let repeated = self.pad(sound);
        let period = sound.len().min(self.settings.samples);
        let (frames, bands) = self.shape();
        let start = out.len();
        for frame in 0..frames {
            // If this frame and the frame one period earlier both lie inside the repeated part, they have the same
            // samples. Copy the earlier frame instead of computing this one.
            let first = frame * HOP;
            let inside = first >= FRAME / 2 && first + FRAME / 2 <= repeated;
            if inside && period > 0 && period.is_multiple_of(HOP) && first >= FRAME / 2 + period {
                let from = start + (frame - period / HOP) * bands;
                out.extend_from_within(from..from + bands);
                continue;
            }
            self.fill(first);
            self.spectrum.run(&self.frame, &mut self.power);
            out.extend(
                self.bank
                    .gather(&self.power)
                    .map(|power| (10.0 * power.max(1e-10).log10()) as f32),
            );
        }
    }

    /// Fills the clip from the sound. Returns the length of the part before the padding.
    fn pad(&mut self, sound: &[f32]) -> usize {
        let wanted = self.settings.samples;
        self.clip.clear();
        if sound.len() > wanted {
            // transformers takes a random part. Take the middle, so that each run computes the same features.
            let from = (sound.len() - wanted) / 2;
            self.clip.extend_from_slice(&sound[from..from + wanted]);
        } else if !sound.is_empty() {
            // Only whole repeats are used, as in transformers. Sound of 1 s is repeated ten times to make 10 s;
            // transformers.js repeats it only nine times.
            for _ in 0..wanted / sound.len() {
                self.clip.extend_from_slice(sound);
            }
        }
        let repeated = self.clip.len();
        self.clip.resize(wanted, 0.0);
        repeated
    }

    /// Fills the frame whose centre is sample `center`, and applies the window. Beyond its ends, the clip is mirrored.
    fn fill(&mut self, center: usize) {
        let last = self.clip.len() - 1;
        if center >= FRAME / 2 && center + FRAME / 2 <= self.clip.len() {
            let from = center - FRAME / 2;
            let samples = self.clip[from..from + FRAME].iter().zip(&self.window);
            for (to, (&sample, window)) in self.frame.iter_mut().zip(samples) {
                *to = f64::from(sample) * window;
            }
            return;
        }
        for (at, (to, window)) in self.frame.iter_mut().zip(&self.window).enumerate() {
            let wanted = center + at;
            let index = wanted.abs_diff(FRAME / 2);
            let index = if index > last { 2 * last - index } else { index };
            *to = f64::from(self.clip[index]) * window;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::sound::Wave;
    use crate::ingest::{npy, shared};

    /// Name and features of a clip.
    type Clip = (String, Vec<f32>);

    /// Returns the folder of the golden clips, and the features of every clip in order.
    fn golden(test: &str) -> Option<(std::path::PathBuf, Vec<Clip>)> {
        let folder = shared(test)?.join("golden/audio");
        let text = std::fs::read_to_string(folder.join("audio.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut features = SoundFeatures::new(&SoundSettings::default());
        let clips = json["order_in_npy"].as_array().unwrap().iter().map(|name| {
            let name = name.as_str().unwrap().to_owned();
            let sound = Wave::read(&folder.join(format!("{name}.wav")), 48_000, "ffmpeg".as_ref()).unwrap();
            let mut values = Vec::new();
            features.append(&sound, &mut values);
            assert_eq!(values.len(), 1001 * 64);
            (name, values)
        });
        let clips = clips.collect();
        Some((folder, clips))
    }

    fn worst(found: &[f32], wanted: &[f32]) -> f32 {
        assert_eq!(found.len(), wanted.len());
        found
            .iter()
            .zip(wanted)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn log_mel_is_that_of_transformers() {
        let Some((folder, clips)) = golden("log_mel_is_that_of_transformers") else {
            return;
        };
        let read = |name: &str| npy::read_floats(&folder.join(name)).unwrap().data;
        let (first, last) = (
            read("input_features_first128.npy"),
            read("input_features_last8.npy"),
        );
        for (at, (name, values)) in clips.iter().enumerate() {
            // The tolerance is in dB. It is larger for resampled clips, because two good resamplers differ as much.
            let most = match name.as_str() {
                "stereo_1s_44k1" | "tones_1s_16k" => 0.1,
                _ => 2e-5,
            };
            let head = worst(&values[..128 * 64], &first[at * 128 * 64..(at + 1) * 128 * 64]);
            let tail = worst(&values[993 * 64..], &last[at * 8 * 64..(at + 1) * 8 * 64]);
            eprintln!("{name}: {head} and {tail} dB");
            assert!(
                head < most && tail < most,
                "{name}: {head} and {tail} dB, expected below {most}"
            );
        }
        let whole = worst(&clips[0].1, &read("input_features_sweep_full.npy"));
        assert!(whole < 2e-5, "{whole}");
    }

    #[test]
    fn frames_taken_from_a_period_before_are_those_that_would_be_computed() {
        let sound: Vec<f32> = (0..48_000)
            .map(|at| ((at * 37 % 1013) as f32 / 600.0 - 0.8) * 0.5)
            .collect();
        let mut features = SoundFeatures::new(&SoundSettings::default());
        let (mut short, mut long) = (Vec::new(), Vec::new());
        features.append(&sound, &mut short);
        // The same ten seconds as one long sound: no frame is copied from one period earlier.
        features.append(&sound.repeat(10), &mut long);
        assert_eq!(short, long);
    }

    #[test]
    fn no_sound_is_silence_and_long_sound_is_its_middle() {
        let mut features = SoundFeatures::new(&SoundSettings::default());
        let mut values = Vec::new();
        features.append(&[], &mut values);
        assert!(values.iter().all(|&value| value == -100.0));
        let mut sound = vec![0.0; 1_000_000];
        sound[260_000..740_000]
            .iter_mut()
            .for_each(|sample| *sample = 0.5);
        let (mut cut, mut middle) = (Vec::new(), Vec::new());
        features.append(&sound, &mut cut);
        features.append(&vec![0.5; 480_000], &mut middle);
        assert_eq!(cut, middle);
    }
}
