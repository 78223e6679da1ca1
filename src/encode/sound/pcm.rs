//! Reads uncompressed samples of a WAV file: integers of 8 to 64 bits and floats, as the mean of all channels.
//!
//! symphonia 0.5 scales integers of 24 bits in 32 wrongly, panics on 32 channels, and reads no big-endian samples.

use std::io::Read;

/// How the samples of a file are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Number of channels, at least 1.
    pub channels: u16,
    /// Samples per second.
    pub rate: u32,
    kind: Kind,
    /// Number of bytes of one sample.
    bytes: usize,
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bytes from 0 to 255; 128 is silence.
    Unsigned,
    /// Signed integers. A sample with fewer bits than its bytes has them at the top.
    Integer,
    Float,
}

impl Layout {
    /// Returns the number of channels and the rate of a format, which has at least 16 bytes.
    pub(super) fn channels_and_rate(format: &[u8]) -> (u16, u32) {
        let rate = u32::from_le_bytes(format[4..8].try_into().expect("4 bytes"));
        (number(format, 2), rate)
    }

    /// Returns the layout of a format, which has at least 16 bytes, or `None` if the samples are compressed.
    pub(super) fn of(format: &[u8], big_endian: bool) -> Option<Layout> {
        let (channels, rate) = Layout::channels_and_rate(format);
        let (block, bits) = (number(format, 12), number(format, 14));
        let tag = match number(format, 0) {
            // The extensible format names the real one in its extension.
            0xfffe if format.len() >= 26 => number(format, 24),
            tag => tag,
        };
        let (kind, bytes) = match (tag, bits) {
            (1, 1..=8) => (Kind::Unsigned, 1),
            // Some programs write samples of 24 bits into 32 and state 24 bits; only the size of the block tells.
            (1, 17..=24) if block.checked_div(channels) == Some(4) => (Kind::Integer, 4),
            (1, 9..=32) => (Kind::Integer, usize::from(bits.div_ceil(8))),
            (1, 64) => (Kind::Integer, 8),
            (3, 32 | 64) => (Kind::Float, usize::from(bits / 8)),
            _ => return None,
        };
        (channels > 0).then_some(Layout {
            channels,
            rate,
            kind,
            bytes,
            big_endian,
        })
    }

    /// Reads the samples of some thousand times, as the mean of all channels. Returns none at the end.
    ///
    /// # Errors
    /// Returns the error of the system if the file cannot be read.
    pub(super) fn read(self, file: &mut impl Read) -> std::io::Result<Vec<f32>> {
        let frame = self.bytes * usize::from(self.channels);
        let most = (frame as u64).saturating_mul(1 << 12);
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        let mean = |frame: &[u8]| {
            let sum: f64 = frame
                .chunks_exact(self.bytes)
                .map(|sample| self.value(sample))
                .sum();
            (sum / f64::from(self.channels)) as f32
        };
        Ok(bytes.chunks_exact(frame).map(mean).collect())
    }

    /// Returns a sample as a number from -1 to 1; floats can be larger.
    fn value(self, sample: &[u8]) -> f64 {
        // The bytes at the top of a number of 64 bits, the most significant one first.
        let mut top = [0; 8];
        top[..sample.len()].copy_from_slice(sample);
        if !self.big_endian {
            top[..sample.len()].reverse();
        }
        match (self.kind, self.bytes) {
            (Kind::Unsigned, _) => (f64::from(sample[0]) - 128.0) / 128.0,
            // -(-2^63) is one more than the largest integer; its float is exact.
            (Kind::Integer, _) => i64::from_be_bytes(top) as f64 / -(i64::MIN as f64),
            (Kind::Float, 4) => f64::from(f32::from_be_bytes([top[0], top[1], top[2], top[3]])),
            (Kind::Float, _) => f64::from_be_bytes(top),
        }
    }
}

fn number(format: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([format[at], format[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A format with this tag, and these numbers of channels, bytes in a block and bits.
    fn format(tag: u16, channels: u16, block: u16, bits: u16) -> Vec<u8> {
        let mut format = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
        format.extend(48_000_u32.to_le_bytes());
        format.extend([0; 4]);
        format.extend([block.to_le_bytes(), bits.to_le_bytes()].concat());
        format
    }

    fn read(format: &[u8], big_endian: bool, mut bytes: &[u8]) -> Vec<f32> {
        let layout = Layout::of(format, big_endian).unwrap();
        let mut samples = Vec::new();
        loop {
            let more = layout.read(&mut bytes).unwrap();
            if more.is_empty() {
                return samples;
            }
            samples.extend(more);
        }
    }

    #[test]
    fn a_half_is_a_half_in_every_width() {
        let half = |tag, block, bits, bytes: &[u8]| read(&format(tag, 1, block, bits), false, bytes);
        assert_eq!(half(1, 1, 8, &[192, 0, 128]), [0.5, -1.0, 0.0]);
        assert_eq!(half(1, 2, 16, &[0, 0x40, 0, 0x80]), [0.5, -1.0]);
        assert_eq!(half(1, 3, 24, &[0, 0, 0x40, 0, 0, 0x80]), [0.5, -1.0]);
        assert_eq!(half(1, 3, 20, &[0, 0, 0x40]), [0.5]);
        assert_eq!(half(1, 4, 32, &[0, 0, 0, 0x40]), [0.5]);
        // 24 bits in 32, and a block whose size is not told or makes no sense.
        assert_eq!(half(1, 4, 24, &[0, 0, 0, 0x40]), [0.5]);
        assert_eq!(half(1, 0, 24, &[0, 0, 0x40]), [0.5]);
        assert_eq!(half(1, 4, 16, &[0, 0x40]), [0.5]);
        assert_eq!(half(1, 8, 64, &0x4000_0000_0000_0000_i64.to_le_bytes()), [0.5]);
        assert_eq!(half(3, 4, 32, &0.5_f32.to_le_bytes()), [0.5]);
        assert_eq!(half(3, 8, 64, &0.5_f64.to_le_bytes()), [0.5]);
        let extensible = [
            format(0xfffe, 1, 4, 32),
            [22, 0, 24, 0, 4, 0, 0, 0, 1, 0].to_vec(),
        ]
        .concat();
        assert_eq!(read(&extensible, false, &[0, 0, 0, 0x40]), [0.5]);
        assert_eq!(read(&format(1, 1, 2, 16), true, &[0x40, 0]), [0.5]);
        assert_eq!(read(&format(3, 1, 8, 64), true, &0.5_f64.to_be_bytes()), [0.5]);
    }

    #[test]
    fn channels_are_averaged_however_many_there_are() {
        let sample = [0, 0x40, 0, 0xc0];
        assert_eq!(
            read(&format(1, 2, 4, 16), false, &sample.repeat(5_000)),
            [0.0; 5_000]
        );
        assert_eq!(
            read(&format(1, 32, 64, 16), false, &[0, 0x40].repeat(64)),
            [0.5, 0.5]
        );
        // The end of a file can be a part of a frame.
        assert_eq!(read(&format(1, 2, 4, 16), false, &[0, 0x40, 0, 0x40, 7]), [0.5]);
        for compressed in [
            format(7, 1, 1, 8),
            format(2, 1, 256, 4),
            format(1, 0, 2, 16),
            format(1, 1, 2, 0),
        ] {
            assert_eq!(Layout::of(&compressed, false), None);
        }
    }
}
