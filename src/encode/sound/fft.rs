//! Power spectra of real frames, in f64, by the `realfft` crate.

use std::sync::Arc;

use realfft::num_complex::Complex64;
use realfft::{RealFftPlanner, RealToComplex};

/// The transform and its buffers for frames of one length. One per thread.
#[derive(Clone)]
pub struct PowerSpectrum {
    transform: Arc<dyn RealToComplex<f64>>,
    /// The transform overwrites its input, so a frame is copied here first.
    frame: Vec<f64>,
    spectrum: Vec<Complex64>,
    scratch: Vec<Complex64>,
}

impl std::fmt::Debug for PowerSpectrum {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = self.frame.len();
        to.debug_struct("PowerSpectrum").field("length", &length).finish()
    }
}

impl PowerSpectrum {
    /// Plans the transform of frames of `length` samples.
    ///
    /// ```
    /// use vaplan::encode::sound::fft::PowerSpectrum;
    /// let mut power = [0.0; 3];
    /// // One cosine of one period in 4 samples: all power is at the frequency 1.
    /// PowerSpectrum::new(4).run(&[1.0, 0.0, -1.0, 0.0], &mut power);
    /// assert_eq!(power, [0.0, 4.0, 0.0]);
    /// ```
    pub fn new(length: usize) -> PowerSpectrum {
        let transform = RealFftPlanner::new().plan_fft_forward(length);
        PowerSpectrum {
            frame: transform.make_input_vec(),
            spectrum: transform.make_output_vec(),
            scratch: transform.make_scratch_vec(),
            transform,
        }
    }

    /// Writes `|X(k)|²` for the `length / 2 + 1` frequencies from 0.
    ///
    /// # Panics
    /// If `frame` or `power` has another length.
    pub fn run(&mut self, frame: &[f64], power: &mut [f64]) {
        assert_eq!(
            (frame.len(), power.len()),
            (self.frame.len(), self.spectrum.len()),
            "lengths of frame and power"
        );
        self.frame.copy_from_slice(frame);
        self.transform
            .process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch)
            .expect("the buffers have the lengths that the transform asked for");
        for (power, bin) in power.iter_mut().zip(&self.spectrum) {
            *power = bin.norm_sqr();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spectra_are_those_of_the_definition() {
        for length in [4, 8, 64, 512, 1024] {
            let frame: Vec<f64> = (0..length)
                .map(|at| ((at * at * 31 + 7 * at) % 101) as f64 / 50.0 - 1.0)
                .collect();
            let mut power = vec![0.0; length / 2 + 1];
            PowerSpectrum::new(length).run(&frame, &mut power);
            for (k, &found) in power.iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for (at, value) in frame.iter().enumerate() {
                    let (sin, cos) =
                        (std::f64::consts::TAU * (k * at % length) as f64 / length as f64).sin_cos();
                    re += value * cos;
                    im -= value * sin;
                }
                let wanted = re * re + im * im;
                assert!(
                    (found - wanted).abs() < 1e-9 * (1.0 + wanted),
                    "{length}, {k}: {found} against {wanted}"
                );
            }
        }
    }
}
