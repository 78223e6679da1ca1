//! Packed little-endian floats to f32, many at a time.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values converted in one go: their scratch stays in the first-level cache.
const BLOCK: usize = 512;

/// Appends f16 values, converted with the processor's own instruction where it has one (F16C).
pub(crate) fn append_f16(bytes: &[u8], out: &mut Vec<f32>) {
    let (values, _) = bytes.as_chunks::<2>();
    out.reserve(values.len());
    let mut halves = [f16::ZERO; BLOCK];
    // Into a scratch first, then copied: cheaper than to fill `out` with zeros to convert into.
    let mut floats = [0.0; BLOCK];
    for block in values.chunks(BLOCK) {
        for (slot, value) in halves.iter_mut().zip(block) {
            *slot = f16::from_le_bytes(*value);
        }
        halves[..block.len()].convert_to_f32_slice(&mut floats[..block.len()]);
        out.extend_from_slice(&floats[..block.len()]);
    }
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

/// Appends f64 values, rounded to the nearest f32; one too large becomes infinite.
pub(crate) fn append_f64(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|value| f64::from_le_bytes(*value) as f32),
    );
}
