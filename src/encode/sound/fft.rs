//! Power spectra of real frames, in f64.
//!
//! Radix 2, and two real samples to a complex one. Our own: rustfft would switch on a feature of num-complex, and have
//! arrow, parquet and datafusion built anew; and a clip's spectra cost a hundredth of its model.

/// Tables for frames of one length.
#[derive(Clone, Debug)]
pub struct PowerSpectrum {
    /// Complex points: half the frame.
    points: usize,
    /// `exp(-2πi k / points)` for k below half the points.
    twiddles: Vec<(f64, f64)>,
    /// `exp(-2πi k / (2 points))` for k up to half the points.
    halves: Vec<(f64, f64)>,
    reversed: Vec<u32>,
    re: Vec<f64>,
    im: Vec<f64>,
}

impl PowerSpectrum {
    /// For frames of `length` samples.
    ///
    /// # Panics
    /// If the length is no power of two from 4.
    pub fn new(length: usize) -> PowerSpectrum {
        assert!(
            length.is_power_of_two() && length >= 4,
            "{length} is no power of two from 4"
        );
        let points = length / 2;
        let unit = |k: usize, of: usize| {
            let (sin, cos) = (-std::f64::consts::TAU * k as f64 / of as f64).sin_cos();
            (cos, sin)
        };
        let bits = points.trailing_zeros();
        PowerSpectrum {
            points,
            twiddles: (0..points / 2).map(|k| unit(k, points)).collect(),
            halves: (0..=points / 2).map(|k| unit(k, length)).collect(),
            reversed: (0..points as u32)
                .map(|at| at.reverse_bits() >> (32 - bits))
                .collect(),
            re: vec![0.0; points],
            im: vec![0.0; points],
        }
    }

    /// `|X(k)|²` for `length / 2 + 1` frequencies.
    ///
    /// # Panics
    /// If the frame or `power` is of another length.
    pub fn run(&mut self, frame: &[f64], power: &mut [f64]) {
        let points = self.points;
        assert_eq!(
            (frame.len(), power.len()),
            (points * 2, points + 1),
            "lengths differ"
        );
        for (pair, &to) in frame.chunks_exact(2).zip(&self.reversed) {
            self.re[to as usize] = pair[0];
            self.im[to as usize] = pair[1];
        }
        self.transform();
        // Even and odd samples' spectra are the symmetric and antisymmetric parts.
        let half = points / 2;
        for k in 1..half {
            let (a, b) = (
                (self.re[k], self.im[k]),
                (self.re[points - k], self.im[points - k]),
            );
            let even = ((a.0 + b.0) / 2.0, (a.1 - b.1) / 2.0);
            let odd = ((a.1 + b.1) / 2.0, (b.0 - a.0) / 2.0);
            let (cos, sin) = self.halves[k];
            let turned = (odd.0 * cos - odd.1 * sin, odd.0 * sin + odd.1 * cos);
            power[k] = square(even.0 + turned.0) + square(even.1 + turned.1);
            // X(N/2 - k) is the conjugate of even minus turned.
            power[points - k] = square(even.0 - turned.0) + square(even.1 - turned.1);
        }
        power[0] = square(self.re[0] + self.im[0]);
        power[points] = square(self.re[0] - self.im[0]);
        power[half] = square(self.re[half]) + square(self.im[half]);
    }

    /// In place, from bit-reversed order.
    fn transform(&mut self) {
        let mut span = 1;
        while span < self.points {
            let step = self.points / (2 * span);
            for (re, im) in self
                .re
                .chunks_exact_mut(2 * span)
                .zip(self.im.chunks_exact_mut(2 * span))
            {
                let (re_low, re_high) = re.split_at_mut(span);
                let (im_low, im_high) = im.split_at_mut(span);
                for k in 0..span {
                    let (cos, sin) = self.twiddles[k * step];
                    let turned = (
                        re_high[k] * cos - im_high[k] * sin,
                        re_high[k] * sin + im_high[k] * cos,
                    );
                    (re_high[k], im_high[k]) = (re_low[k] - turned.0, im_low[k] - turned.1);
                    re_low[k] += turned.0;
                    im_low[k] += turned.1;
                }
            }
            span *= 2;
        }
    }
}

fn square(value: f64) -> f64 {
    value * value
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
