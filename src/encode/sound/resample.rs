//! Converts sound to another rate with a polyphase filter. The filter can compute any piece of the output from the
//! nearby input samples alone.
//!
//! The filter is a windowed sinc with the pass band and the rejection of soxr's setting HQ, which librosa uses. It
//! passes frequencies up to 0.9136 of the lower Nyquist frequency, and rejects by 126 dB at that Nyquist frequency
//! (soxr, `src/soxr.c`, `soxr_quality_spec` and `src/filter.c`). The crate `rubato` 5.0.1 is
//! not used, because it misses the golden values of soxr: docs/encode.md has the numbers.

/// The part of the lower Nyquist frequency that passes unchanged.
const PASS: f64 = 0.9136;
/// Rejection from the lower Nyquist frequency on, in dB.
const REJECTION: f64 = 126.0;
/// Largest number of phases whose weights are kept in a table. If a pair of rates has more phases, the weights are
/// computed for each output sample.
const TABLE: usize = 1280;

/// Converts sound from one rate to another.
#[derive(Clone, Debug)]
pub struct Resampler {
    /// Number of output samples for `down` input samples.
    up: usize,
    down: usize,
    /// Cut-off frequency, as a part of the input rate.
    cutoff: f64,
    beta: f64,
    /// Half width of the filter, in input samples.
    half: usize,
    /// For each phase, its `2 * half` weights; empty if there are more than `TABLE` phases.
    phases: Vec<Vec<f64>>,
}

impl Resampler {
    /// Makes a resampler from one rate to another. Both rates must be above 0.
    pub fn new(from: u32, to: u32) -> Resampler {
        let common = gcd(from, to);
        let (up, down) = ((to / common) as usize, (from / common) as usize);
        let lower = f64::from(from.min(to));
        // `nyquist` and `band` are parts of the input rate.
        let nyquist = 0.5 * lower / f64::from(from);
        let band = nyquist * (1.0 - PASS);
        let taps = (REJECTION - 7.95) / (14.36 * band);
        let mut made = Resampler {
            up,
            down,
            cutoff: nyquist - band / 2.0,
            beta: 0.1102 * (REJECTION - 8.7),
            half: (taps / 2.0).ceil() as usize,
            phases: Vec::new(),
        };
        if up <= TABLE && from != to {
            made.phases = (0..up).map(|phase| made.weights(phase)).collect();
        }
        made
    }

    /// Returns the number of output samples of `input` input samples.
    pub fn length(&self, input: u64) -> u64 {
        (input * self.up as u64 + self.down as u64 / 2) / self.down as u64
    }

    /// Returns the range of input samples that the output samples `first..end` depend on: the first one, and the end,
    /// which is not included.
    pub fn needs(&self, first: u64, end: u64) -> (u64, u64) {
        if self.up == self.down {
            return (first, end);
        }
        let at = |output: u64| output * self.down as u64 / self.up as u64;
        let half = self.half as u64;
        (at(first).saturating_sub(half), at(end) + half + 1)
    }

    /// Appends the output samples `first..end`. `input` has the input samples from `start` on; all other input samples
    /// count as silence.
    pub fn append(&self, input: &[f32], start: u64, first: u64, end: u64, out: &mut Vec<f32>) {
        for output in first..end {
            if self.up == self.down {
                let sample = output.checked_sub(start).and_then(|at| input.get(at as usize));
                out.push(sample.copied().unwrap_or(0.0));
                continue;
            }
            let place = output * self.down as u64;
            let (whole, phase) = (place / self.up as u64, (place % self.up as u64) as usize);
            // Position in `input` of the first weight; it is negative if the filter begins before `input`.
            let from = whole as i64 - (self.half as i64 - 1) - start as i64;
            let skip = from.min(0).unsigned_abs() as usize;
            let held = input.get(from.max(0) as usize..).unwrap_or_default();
            let product = |weights: &[f64]| -> f64 {
                let weights = weights.get(skip..).unwrap_or_default();
                weights
                    .iter()
                    .zip(held)
                    .map(|(weight, &sample)| weight * f64::from(sample))
                    .sum()
            };
            out.push(match self.phases.get(phase) {
                Some(weights) => product(weights),
                None => product(&self.weights(phase)),
            } as f32);
        }
    }

    /// Returns the weights of the input samples `1 - half ..= half`, for an output sample at the time `phase / up`
    /// after input sample 0.
    fn weights(&self, phase: usize) -> Vec<f64> {
        let shift = phase as f64 / self.up as f64;
        let bottom = bessel(self.beta);
        let weights = (0..2 * self.half).map(|at| {
            let x = at as f64 - (self.half as f64 - 1.0) - shift;
            let inside = 1.0 - (x / self.half as f64).powi(2);
            if inside <= 0.0 {
                return 0.0;
            }
            let angle = std::f64::consts::TAU * self.cutoff * x;
            let sinc = if angle == 0.0 { 1.0 } else { angle.sin() / angle };
            2.0 * self.cutoff * sinc * bessel(self.beta * inside.sqrt()) / bottom
        });
        let mut weights: Vec<f64> = weights.collect();
        // The weights of each phase have sum 1, so that a constant input gives the same constant output.
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// The modified Bessel function of the first kind, of order 0.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(resampler: &Resampler, input: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        resampler.append(input, 0, 0, resampler.length(input.len() as u64), &mut out);
        out
    }

    #[test]
    fn tones_keep_height_and_phase_and_those_above_nyquist_go() {
        for (from, to, hertz) in [
            (44_100, 48_000, 9_000.0),
            (16_000, 48_000, 5_000.0),
            (48_000, 16_000, 7_000.0),
            (47_999, 48_000, 440.0),
        ] {
            let tone = |rate: u32, hertz: f64, length: usize| -> Vec<f32> {
                (0..length)
                    .map(|at| (std::f64::consts::TAU * hertz * at as f64 / f64::from(rate)).sin() as f32)
                    .collect()
            };
            let resampler = Resampler::new(from, to);
            let input = tone(from, hertz, from as usize / 4);
            let found = whole(&resampler, &input);
            let wanted = tone(to, hertz, found.len());
            let inner = found.len() / 4..found.len() * 3 / 4;
            let worst = found[inner.clone()]
                .iter()
                .zip(&wanted[inner])
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 2e-6, "{from} to {to}: {worst}");
        }
        let input: Vec<f32> = (0..24_000).map(|at| (at as f32 * 2.5).sin()).collect(); // 19.1 kHz
        let found = whole(&Resampler::new(48_000, 16_000), &input);
        let middle = &found[2_000..6_000];
        assert!(
            middle.iter().all(|sample| sample.abs() < 2e-6),
            "aliases are 114 dB down"
        );
    }

    #[test]
    fn a_piece_is_that_part_of_the_whole() {
        let input: Vec<f32> = (0..9_000)
            .map(|at| ((at * 7919 % 1009) as f32 / 500.0) - 1.0)
            .collect();
        for (from, to) in [
            (44_100, 48_000),
            (48_000, 16_000),
            (48_000, 48_000),
            (16_000, 48_000),
        ] {
            let resampler = Resampler::new(from, to);
            let all = whole(&resampler, &input);
            for (first, end) in [(0, 10), (1_000, 1_500), (all.len() as u64 - 5, all.len() as u64)] {
                let (low, high) = resampler.needs(first, end);
                let high = (high as usize).min(input.len());
                let mut part = Vec::new();
                resampler.append(&input[low as usize..high], low, first, end, &mut part);
                assert_eq!(
                    part,
                    all[first as usize..end as usize],
                    "{from} to {to}, {first}..{end}"
                );
            }
        }
    }

    #[test]
    fn it_is_soxr_within_a_millionth_but_at_the_begin() {
        let Some(shared) = crate::ingest::shared("it_is_soxr_within_a_millionth_but_at_the_begin") else {
            return;
        };
        let folder = shared.join("golden/audio");
        let found =
            crate::encode::sound::Wave::read(&folder.join("stereo_1s_44k1.wav"), 48_000, "ffmpeg".as_ref())
                .unwrap();
        let soxr =
            crate::ingest::npy::read_floats(&folder.join("stereo_1s_44k1__soxr_hq_48k_first24000.npy"));
        let soxr = soxr.unwrap();
        assert_eq!((found.len(), soxr.data.len()), (48_000, 24_000));
        let off: Vec<f32> = found.iter().zip(&soxr.data).map(|(a, b)| (a - b).abs()).collect();
        let (begin, rest) = off.split_at(400);
        let worst = |off: &[f32]| off.iter().copied().fold(0.0, f32::max);
        eprintln!("off soxr by {} at the begin, {} after", worst(begin), worst(rest));
        // The tone begins suddenly, and there filters of different lengths ring differently.
        assert!(
            worst(begin) < 1e-4 && worst(rest) < 1e-6,
            "{} {}",
            worst(begin),
            worst(rest)
        );
    }
}
