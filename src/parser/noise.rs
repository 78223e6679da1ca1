//! The random numbers of a training: initial weights, order of the videos, dropout.
//!
//! The program has its own generator, seeded by seed and epoch, instead of libtorch's global generator. So a repeated
//! epoch draws the same numbers, whatever else the process draws in the meantime, and a checkpoint needs no state of
//! the generator.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Noise {
    rng: ChaCha8Rng,
}

impl Noise {
    /// The stream of a seed and an epoch. Epoch 0 gives the initial weights.
    pub fn new(seed: u64, epoch: u64) -> Noise {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        Noise { rng }
    }

    /// Sets each element to 0 with this probability and scales the other elements up, so that the mean stays. The
    /// result has the shape of `x`.
    pub fn drop(&mut self, x: &Tensor, probability: f64) -> Tensor {
        let drop = (probability.clamp(0.0, 0.999) * 65536.0).round() as u16;
        match drop {
            0 => x.shallow_clone(),
            _ => x * self.mask(drop, &x.size(), x.device()),
        }
    }

    /// A mask of this shape with 0 or 1 / (1 - p) per element; `drop` is p in units of 1/65536.
    ///
    /// A step draws half a million elements. SplitMix64 (Steele, Lea, Flood 2014), seeded from the stream, draws them
    /// in a tenth of ChaCha's time.
    fn mask(&mut self, drop: u16, shape: &[i64], device: Device) -> Tensor {
        let count = shape.iter().product::<i64>() as usize;
        let keep = 1.0 / (1.0 - f32::from(drop) / 65536.0);
        let of = |bits: u64| if (bits as u16) < drop { 0.0 } else { keep };
        let mut state = self.rng.next_u64();
        let mut values: Vec<f32> = Vec::with_capacity(count.next_multiple_of(4));
        while values.len() < count {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^= bits >> 31;
            values.extend_from_slice(&[of(bits), of(bits >> 16), of(bits >> 32), of(bits >> 48)]);
        }
        Tensor::from_slice(&values[..count]).view(shape).to_device(device)
    }

    /// A tensor of this shape with uniform values in (-bound, bound).
    pub(super) fn uniform(&mut self, shape: &[i64], bound: f64) -> Tensor {
        let count: i64 = shape.iter().product();
        let value = |_| {
            let unit = self.rng.next_u32() as f64 / f64::from(u32::MAX);
            ((2.0 * unit - 1.0) * bound) as f32
        };
        let values: Vec<f32> = (0..count).map(value).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// A number from Beta(α, α), for α above 0 and at most 1 (Jöhnk 1964).
    pub(super) fn beta(&mut self, alpha: f64) -> f64 {
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        loop {
            let (x, y) = (unit().powf(1.0 / alpha), unit().powf(1.0 / alpha));
            // Both can be 0 for a small α, because small powers underflow.
            if x + y > 0.0 && x + y <= 1.0 {
                return x / (x + y);
            }
        }
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // The bias of a 64-bit remainder is below 1e-14 for any data set.
            let other = (self.rng.next_u64() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let ones = Tensor::ones([400, 250], (Kind::Float, Device::Cpu));
        let dropped = Noise::new(1, 1).drop(&ones, 0.1);
        assert_eq!(dropped.size(), [400, 250]);
        let again = Noise::new(1, 1).drop(&ones, 0.1);
        assert_eq!(dropped, again, "the stream's name says it all");
        let odd = Tensor::ones([3], (Kind::Float, Device::Cpu));
        assert_eq!(Noise::new(1, 1).drop(&odd, 0.1).size(), [3]);
        let zeros = f64::try_from(dropped.eq(0.0).to_kind(Kind::Float).mean(Kind::Float)).unwrap();
        let mean = f64::try_from(dropped.mean(Kind::Float)).unwrap();
        assert!((zeros - 0.1).abs() < 0.005, "{zeros}");
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
    }

    #[test]
    fn a_stream_is_named_by_its_seed_and_epoch() {
        let draw = |seed, epoch| {
            let mut order: Vec<u32> = (0..50).collect();
            Noise::new(seed, epoch).shuffle(&mut order);
            order
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let mut sorted = draw(1, 2);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
