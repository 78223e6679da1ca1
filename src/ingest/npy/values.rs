//! Converts bytes to numbers, in C order.

use super::NpyProblem;
use super::header::{DtypeKind, Header};
use crate::ingest::floats;

pub(super) fn append_floats(
    bytes: &[u8],
    header: &Header,
    shape: &[usize],
    out: &mut Vec<f32>,
) -> Result<(), NpyProblem> {
    let (width, big) = (usize::from(header.dtype.width), header.dtype.big_endian);
    let count = bytes.len() / width;
    reserve(out, count)?;
    let start = out.len();
    match (width, big) {
        (2, false) => floats::append_f16(bytes, out),
        (4, false) => floats::append_f32(bytes, out),
        (8, false) => floats::append_f64(bytes, out),
        (2, true) => out.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::f16::from_be_bytes(*b).to_f32()),
        ),
        (4, true) => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_be_bytes(*b))),
        _ => out.extend(bytes.as_chunks().0.iter().map(|b| f64::from_be_bytes(*b) as f32)),
    }
    if header.fortran && shape.len() > 1 {
        let in_c_order = to_c_order(&out[start..], shape).inspect_err(|_| out.truncate(start))?;
        out[start..].copy_from_slice(&in_c_order);
    }
    Ok(())
}

/// The values as f64, which holds every float of an npy file exactly.
pub(super) fn doubles(bytes: &[u8], header: &Header, shape: &[usize]) -> Result<Vec<f64>, NpyProblem> {
    if header.dtype.width < 8 {
        let mut narrow = Vec::new();
        append_floats(bytes, header, shape, &mut narrow)?;
        return Ok(narrow.into_iter().map(f64::from).collect());
    }
    let mut out = Vec::new();
    reserve(&mut out, bytes.len() / 8)?;
    let read = match header.dtype.big_endian {
        true => f64::from_be_bytes,
        false => f64::from_le_bytes,
    };
    out.extend(bytes.as_chunks().0.iter().map(|value| read(*value)));
    match header.fortran && shape.len() > 1 {
        true => to_c_order(&out, shape),
        false => Ok(out),
    }
}

pub(super) fn append_ints(
    bytes: &[u8],
    header: &Header,
    shape: &[usize],
    out: &mut Vec<i64>,
) -> Result<(), NpyProblem> {
    let width = usize::from(header.dtype.width);
    reserve(out, bytes.len() / width)?;
    let start = out.len();
    for (index, value) in bytes.chunks_exact(width).enumerate() {
        let byte = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        let bits = if header.dtype.big_endian {
            value.iter().fold(0, byte)
        } else {
            value.iter().rev().fold(0, byte)
        };
        let shift = 64 - 8 * width as u32;
        out.push(match header.dtype.kind {
            DtypeKind::Signed => (bits << shift).cast_signed() >> shift,
            // numpy accepts any byte as a boolean.
            DtypeKind::Bool => i64::from(bits != 0),
            _ => i64::try_from(bits).map_err(|_| NpyProblem::Value { index, value: bits })?,
        });
    }
    if header.fortran && shape.len() > 1 {
        let in_c_order = to_c_order(&out[start..], shape)?;
        out[start..].copy_from_slice(&in_c_order);
    }
    Ok(())
}

fn reserve<T>(out: &mut Vec<T>, count: usize) -> Result<(), NpyProblem> {
    let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
    out.try_reserve(count).map_err(|_| NpyProblem::Memory { bytes })
}

/// Reorders values whose first axis changes fastest, so that the last axis changes fastest.
fn to_c_order<T: Copy>(values: &[T], shape: &[usize]) -> Result<Vec<T>, NpyProblem> {
    let mut out = Vec::new();
    reserve(&mut out, values.len())?;
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1_usize;
    for &axis in shape {
        strides.push(stride);
        // The product can only wrap if another axis is empty. The array has no values then.
        stride = stride.wrapping_mul(axis);
    }
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    for _ in 0..values.len() {
        out.push(values[from]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Ok(out)
}
