//! Writes arrays as numpy does: version 1.0, little-endian, C order, with the data at a multiple of 64 bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;

use crate::ingest::error::IngestError;

/// Writes `values`, rounded to the nearest f16, as an array of `shape`.
///
/// # Errors
/// Returns [`IngestError::Io`] if the file cannot be written.
///
/// # Panics
/// Panics if the number of values does not fit `shape`.
pub fn write_f16(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), IngestError> {
    write(path, "<f2", shape, values, |value| {
        f16::from_f32(value).to_le_bytes()
    })
}

/// Writes `values` as an array of f32 with this `shape`.
///
/// # Errors
/// Returns [`IngestError::Io`] if the file cannot be written.
///
/// # Panics
/// Panics if the number of values does not fit `shape`.
pub fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), IngestError> {
    write(path, "<f4", shape, values, f32::to_le_bytes)
}

/// Writes `values` as an array of i64 with this `shape`.
///
/// # Errors
/// Returns [`IngestError::Io`] if the file cannot be written.
///
/// # Panics
/// Panics if the number of values does not fit `shape`.
pub fn write_i64(path: &Path, shape: &[usize], values: &[i64]) -> Result<(), IngestError> {
    write(path, "<i8", shape, values, i64::to_le_bytes)
}

fn write<T: Copy, const N: usize>(
    path: &Path,
    descr: &str,
    shape: &[usize],
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<(), IngestError> {
    assert_eq!(
        shape.iter().product::<usize>(),
        values.len(),
        "shape {shape:?} is of another size"
    );
    let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if axes.len() == 1 { "," } else { "" };
    let dictionary = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        axes.join(", ")
    );
    // Magic, version and length take 10 bytes, and the newline at the end takes one byte.
    let padding = (64 - (dictionary.len() + 11) % 64) % 64;
    let length = u16::try_from(dictionary.len() + padding + 1).expect("no array has that many axes");
    let work = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&length.to_le_bytes())?;
        writeln!(file, "{dictionary}{:padding$}", "")?;
        for &value in values {
            file.write_all(&bytes(value))?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(())
    };
    work().map_err(IngestError::io("write", path))
}
