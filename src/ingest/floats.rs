//! Converts packed little-endian floats to f32, many at a time.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Number of values converted at a time, so that the buffer for them stays in the first-level cache.
const BLOCK: usize = 512;

/// Appends f16 values. The conversion uses the processor's own instruction if it has one.
pub(crate) fn append_f16(bytes: &[u8], out: &mut Vec<f32>) {
    let (values, _) = bytes.as_chunks::<2>();
    out.reserve(values.len());
    // Convert into a small buffer and copy: this costs less than to fill `out` with zeros before converting into it.
    let mut floats = [0.0; BLOCK];
    for block in values.chunks(BLOCK) {
        let floats = &mut floats[..block.len()];
        convert(block, floats);
        out.extend_from_slice(floats);
    }
}

fn convert(values: &[[u8; 2]], out: &mut [f32]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        #[expect(
            unsafe_code,
            reason = "half detects F16C anew for every eight values: three times slower"
        )]
        // SAFETY: the processor has both features.
        let by_eights = unsafe { convert_f16c(values, out) };
        done = by_eights;
    }
    for (slot, value) in out[done..].iter_mut().zip(&values[done..]) {
        *slot = f16::from_le_bytes(*value).to_f32();
    }
}

/// Converts whole groups of eight values, and returns the number of converted values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn convert_f16c(values: &[[u8; 2]], out: &mut [f32]) -> usize {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let (groups, _) = values.as_chunks::<8>();
    let (slots, _) = out.as_chunks_mut::<8>();
    for (group, slot) in groups.iter().zip(slots) {
        #[expect(unsafe_code, reason = "the instructions that load and store take pointers")]
        // SAFETY: `group` is 16 bytes and `slot` 8 floats, and neither access needs alignment.
        unsafe {
            _mm256_storeu_ps(
                slot.as_mut_ptr(),
                _mm256_cvtph_ps(_mm_loadu_si128(group.as_ptr().cast())),
            );
        }
    }
    8 * groups.len().min(out.len() / 8)
}

/// Appends f16 values.
pub(crate) fn append_f16_values(values: &[f16], out: &mut Vec<f32>) {
    let at = out.len();
    out.resize(at + values.len(), 0.0);
    values.convert_to_f32_slice(&mut out[at..]);
}

/// Appends f32 values.
pub(crate) fn append_f32(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)));
}

/// Appends f64 values, rounded to the nearest f32. A value that is too large becomes infinite.
pub(crate) fn append_f64(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|value| f64::from_le_bytes(*value) as f32),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts all 65,536 values, in pieces of lengths around a group of eight and around a block, also at odd
    /// addresses.
    #[test]
    fn every_half_becomes_the_float_of_the_same_value() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let same = |bits: usize, float: f32| {
            let wanted = f16::from_bits(bits as u16).to_f32();
            wanted.to_bits() == float.to_bits() || (wanted.is_nan() && float.is_nan())
        };
        for piece in [1, 7, 8, 9, 511, 512, 513, 65_536] {
            let mut out = vec![7.0];
            for part in bytes.chunks(2 * piece) {
                append_f16(part, &mut out);
            }
            assert_eq!((out.len(), out[0]), (65_537, 7.0));
            assert!(
                out[1..]
                    .iter()
                    .enumerate()
                    .all(|(bits, float)| same(bits, *float)),
                "pieces of {piece}"
            );
        }
        let odd = [&[0][..], &bytes].concat();
        let mut out = Vec::new();
        append_f16(&odd[1..], &mut out);
        assert!(out.iter().enumerate().all(|(bits, float)| same(bits, *float)));
    }
}
