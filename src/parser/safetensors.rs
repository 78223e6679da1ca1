//! safetensors files: reading checks the header before any allocation, and writing gives equal bytes for equal
//! content.
//!
//! This module does not use the safetensors crate to write, because the crate writes its metadata in the order of a
//! hash map. Two runs of one training would then give checkpoints with different hashes. Format:
//! <https://github.com/huggingface/safetensors>, `README.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Kind;

use super::error::{NetworkError, WeightsProblem};
use super::weights::{Weights, bytes, elements, tensor};

/// The key of the header that holds the metadata.
const METADATA: &str = "__metadata__";
/// The largest size of a header in bytes, as in the crate.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: [usize; 2],
}

const KINDS: [(&str, Kind); 10] = [
    ("F64", Kind::Double),
    ("I64", Kind::Int64),
    ("F32", Kind::Float),
    ("I32", Kind::Int),
    ("F16", Kind::Half),
    ("BF16", Kind::BFloat16),
    ("I16", Kind::Int16),
    ("I8", Kind::Int8),
    ("U8", Kind::Uint8),
    ("BOOL", Kind::Bool),
];

/// Reads the bytes of a file.
///
/// # Errors
/// Returns [`WeightsProblem::Format`] if the header is invalid, or if the tensors do not fill the file without gap
/// and overlap.
pub(super) fn decode(file: &[u8]) -> Result<Weights, WeightsProblem> {
    let format = |problem: String| WeightsProblem::Format(problem);
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| {
        format(format!(
            "is {} bytes, expected a safetensors or PyTorch file",
            file.len()
        ))
    })?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return Err(format(format!(
            "begins as neither a PyTorch nor a safetensors file: a header of {length} bytes in a file of {}",
            file.len()
        )));
    }
    let (header, data) = rest.split_at(length as usize);
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| format(format!("safetensors header: {error}")))?;
    let mut weights = Weights::default();
    let mut entries = Vec::new();
    for (name, value) in header {
        if name == METADATA {
            weights.metadata = serde_json::from_value(value)
                .map_err(|error| format(format!("safetensors header, `{METADATA}`: {error}")))?;
            continue;
        }
        let entry: Entry = serde_json::from_value(value)
            .map_err(|error| format(format!("safetensors header, tensor `{name}`: {error}")))?;
        entries.push((name, entry));
    }
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut at = 0;
    for (name, entry) in entries {
        let kind = KINDS.iter().find(|(dtype, _)| *dtype == entry.dtype);
        let (_, kind) = kind.ok_or_else(|| format(format!("tensor `{name}` has dtype {}", entry.dtype)))?;
        let [from, to] = entry.data_offsets;
        let size = elements(&entry.shape).and_then(|count| count.checked_mul(kind.elt_size_in_bytes()));
        if from != at || to < from || to > data.len() || size != Some(to - from) {
            return Err(format(format!(
                "tensor `{name}` of {} and shape {:?} is at bytes {from}..{to} of {}, expected from {at} on and of its size",
                entry.dtype,
                entry.shape,
                data.len()
            )));
        }
        at = to;
        weights
            .tensors
            .insert(name, tensor(&data[from..to], &entry.shape, *kind)?);
    }
    if at != data.len() {
        return Err(format(format!(
            "has {} bytes after its last tensor",
            data.len() - at
        )));
    }
    Ok(weights)
}

/// Writes a file with the suffix `.part`, syncs it and renames it to `path`.
pub(super) fn write(weights: &Weights, path: &Path) -> Result<(), NetworkError> {
    let mut header = BTreeMap::new();
    if !weights.metadata.is_empty() {
        header.insert(METADATA, serde_json::json!(weights.metadata));
    }
    // Write tensors of wide types first, so that every tensor is aligned.
    let mut tensors: Vec<_> = weights.tensors.iter().collect();
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
    let mut at = 0;
    for (name, tensor) in &tensors {
        let size = tensor.numel() * tensor.kind().elt_size_in_bytes();
        let kind = KINDS.iter().find(|(_, kind)| *kind == tensor.kind());
        let (dtype, _) = kind.ok_or_else(|| {
            NetworkError::Config(format!(
                "tensor `{name}` is {:?}, expected real numbers",
                tensor.kind()
            ))
        })?;
        let entry = Entry {
            dtype: (*dtype).to_owned(),
            shape: tensor.size(),
            data_offsets: [at, at + size],
        };
        header.insert(name, serde_json::json!(entry));
        at += size;
    }
    let mut header = serde_json::to_vec(&header).expect("text and numbers are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut scratch = path.as_os_str().to_owned();
    scratch.push(".part");
    let scratch = Path::new(&scratch);
    let mut file = File::create(scratch).map_err(NetworkError::io("write", scratch))?;
    let mut put = |part: &[u8]| file.write_all(part).map_err(NetworkError::io("write", scratch));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (_, tensor) in tensors {
        put(&bytes(tensor)?)?;
    }
    file.sync_all().map_err(NetworkError::io("sync", scratch))?;
    std::fs::rename(scratch, path).map_err(NetworkError::io("write", path))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(NetworkError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn sample() -> Weights {
        let mut weights = Weights::default();
        let values = Tensor::from_slice(&[1.0f32, -2.5, 3.0, 0.0, 5.0, 6.0]).view([2, 3]);
        weights.tensors.insert("b.weight".to_owned(), values);
        weights
            .tensors
            .insert("a".to_owned(), Tensor::from_slice(&[true, false, true]));
        weights
            .tensors
            .insert("step".to_owned(), Tensor::from_slice(&[7_i64]));
        weights.metadata.insert("epoch".to_owned(), "3".to_owned());
        weights
    }

    #[test]
    fn what_is_written_reads_back_and_twice_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        sample().write(&one).unwrap();
        sample().write(&two).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
        let read = Weights::read(&one).unwrap();
        assert_eq!(read.metadata, sample().metadata);
        assert_eq!(read.tensors.keys().collect::<Vec<_>>(), ["a", "b.weight", "step"]);
        for (name, expected) in &sample().tensors {
            assert_eq!(read.tensors[name], *expected, "{name}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_the_header_is_refused_or_read_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        sample().write(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            assert!(decode(&good[..length]).is_err(), "cut at {length}");
        }
        let mut refused = 0;
        for place in 0..good.len() - 35 {
            for byte in [b'0', b'9', b'"', 0xff] {
                let mut bytes = good.clone();
                bytes[place] = byte;
                refused += usize::from(decode(&bytes).is_err());
            }
        }
        assert!(refused > good.len(), "{refused}");
        let mut longer = good;
        longer.push(0);
        let refused = decode(&longer).unwrap_err().to_string();
        assert_eq!(refused, "has 1 bytes after its last tensor");
    }
}
