//! Reads PyTorch state dicts without executing their pickles.
//!
//! ```text
//! since 1.6   zip, stored: <name>/data.pkl, <name>/data/<key> ...
//! before      pickles one after the other: magic, protocol, system, OBJECT, keys; then per key: elements u64, bytes
//! ```
//!
//! The object is a dict of tensors, or a dict that holds such a dict under one of the keys [`HOLDERS`]. Other keys beside
//! it, such as the epoch or the state of the optimizer, are ignored.
//!
//! Source: `torch/serialization.py` (`_save`, `_legacy_save`), `torch/_utils.py` (`_rebuild_tensor_v2`).

mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::rc::Rc;

use tch::{Kind, Tensor};
use zip::ZipArchive;

use super::error::WeightsProblem;
use super::weights::{Weights, elements, tensor};
use machine::{Machine, Pickled, Rebuilt};

/// `torch.serialization.MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The keys under which training scripts put the state dict.
const HOLDERS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
];

/// The largest size of all tensors together, as a multiple of the file's length. It is above 1 because tensors can
/// share a storage.
const MOST_SHARED: usize = 8;

fn format(problem: impl Into<String>) -> WeightsProblem {
    WeightsProblem::Format(problem.into())
}

/// Returns whether a file begins like a PyTorch file.
pub(super) fn is_pt(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || is_legacy(file)
}

/// Returns whether a file begins like the old format: PROTO 2, LONG1, 10 bytes, the magic number.
fn is_legacy(file: &[u8]) -> bool {
    file.starts_with(&[0x80, 2, 0x8a, 10]) && file[4..].starts_with(&MAGIC)
}

/// Reads the bytes of a file for which [`is_pt`] is true.
///
/// # Errors
/// Returns [`WeightsProblem::Call`] if a pickle calls a function that does not make a tensor, and
/// [`WeightsProblem::Format`] if the file is invalid.
pub(super) fn read(file: &[u8]) -> Result<Weights, WeightsProblem> {
    let (pickled, storages) = if is_legacy(file) {
        legacy(file)?
    } else {
        zipped(file)?
    };
    let mut tensors = BTreeMap::new();
    // Tensors can share a storage, as tied weights do. The limit prevents a small file from filling the memory.
    let mut room = file.len().saturating_mul(MOST_SHARED);
    for (name, rebuilt) in state_dict(&pickled)? {
        let tensor = materialize(&rebuilt, &storages, room)?;
        room -= tensor.numel() * tensor.kind().elt_size_in_bytes();
        tensors.insert(name, tensor);
    }
    Ok(Weights {
        tensors,
        metadata: BTreeMap::new(),
    })
}

type Storages = BTreeMap<String, Vec<u8>>;

fn zipped(file: &[u8]) -> Result<(Pickled, Storages), WeightsProblem> {
    let bad =
        |error: zip::result::ZipError| format(format!("is no zip archive as PyTorch writes it: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(bad)?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    let pickle = names
        .iter()
        .find(|name| name.ends_with("/data.pkl") || **name == "data.pkl")
        .ok_or_else(|| format("is a zip archive without data.pkl, expected a PyTorch state dict"))?;
    let root = &pickle[..pickle.len() - "data.pkl".len()];
    let mut entry = |name: &str| -> Result<Vec<u8>, WeightsProblem> {
        let entry = archive.by_name(name).map_err(bad)?;
        let mut bytes = Vec::new();
        // Entries are stored without compression, so an entry is not longer than the file.
        entry
            .take(file.len() as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| format(format!("entry `{name}`: {error}")))?;
        Ok(bytes)
    };
    let order = format!("{root}byteorder");
    if names.contains(&order) && entry(&order)? != b"little" {
        return Err(format("has big-endian tensors, expected little-endian ones"));
    }
    let pickled = Machine::new(&entry(pickle)?).run()?;
    let mut storages = Storages::new();
    let prefix = format!("{root}data/");
    for name in &names {
        if let Some(key) = name.strip_prefix(&prefix).filter(|key| !key.is_empty()) {
            storages.insert(key.to_owned(), entry(name)?);
        }
    }
    Ok((pickled, storages))
}

fn legacy(file: &[u8]) -> Result<(Pickled, Storages), WeightsProblem> {
    let mut rest = file;
    let mut next = || -> Result<Pickled, WeightsProblem> {
        let pickled = Machine::new(rest).run()?;
        rest = &rest[pickled.length..];
        Ok(pickled)
    };
    // The magic number, the protocol version and the description of the system.
    for _ in 0..3 {
        next()?;
    }
    let (pickled, keys) = (next()?, next()?);
    let mut sizes = BTreeMap::new();
    for (_, rebuilt) in state_dict(&pickled)? {
        sizes.insert(rebuilt.key.clone(), rebuilt.kind.elt_size_in_bytes());
    }
    let mut storages = Storages::new();
    for key in keys.texts().ok_or_else(|| format("has no list of storages"))? {
        let (count, after) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| format(format!("ends before storage `{key}`")))?;
        let size = sizes.get(&key).copied();
        // The size of a storage that no tensor uses is unknown, so the storages after it cannot be found.
        let size = size.ok_or_else(|| format(format!("has a storage `{key}` that no tensor uses")))?;
        let bytes = usize::try_from(u64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .filter(|bytes| *bytes <= after.len())
            .ok_or_else(|| format(format!("ends within storage `{key}`")))?;
        storages.insert(key, after[..bytes].to_vec());
        rest = &after[bytes..];
    }
    Ok((pickled, storages))
}

/// The tensors of the dict, or of the dict that it holds.
fn state_dict(pickled: &Pickled) -> Result<Vec<(String, Rc<Rebuilt>)>, WeightsProblem> {
    let found = pickled.tensors(&HOLDERS);
    if found.is_empty() {
        return Err(format(format!(
            "is no state dict: expected a dict of tensors, or one under `{}`",
            HOLDERS.join("`, `")
        )));
    }
    Ok(found)
}

/// Copies the values of a tensor into a contiguous tensor of at most `room` bytes.
fn materialize(rebuilt: &Rebuilt, storages: &Storages, room: usize) -> Result<Tensor, WeightsProblem> {
    let Rebuilt {
        key,
        kind,
        offset,
        size,
        stride,
    } = rebuilt;
    let bytes = storages
        .get(key)
        .ok_or_else(|| format(format!("has no storage `{key}`")))?;
    let width = kind.elt_size_in_bytes();
    let count = bytes.len() / width;
    let wrong = || {
        format(format!(
            "a tensor of size {size:?}, stride {stride:?} lies outside its storage `{key}`"
        ))
    };
    let own = elements(size).ok_or_else(wrong)?;
    if own == 0 {
        return tensor(&[], size, *kind);
    }
    // If the tensor has more elements than the storage, a stride is 0 or elements overlap. No parameter is like that.
    let shaped = size.len() == stride.len() && stride.iter().all(|&step| step >= 0) && own <= count;
    let mut ends = size.iter().zip(stride);
    let last = ends.try_fold(*offset, |at, (&axis, &step)| {
        at.checked_add((axis - 1).checked_mul(step)?)
    });
    let span = usize::try_from(*offset)
        .ok()
        .zip(last.and_then(|last| usize::try_from(last).ok()));
    let Some((first, last)) = span.filter(|&(_, last)| shaped && last < count) else {
        return Err(wrong());
    };
    if own * width > room {
        return Err(format(format!(
            "tensors take more than {MOST_SHARED} times the file's length, expected parameters"
        )));
    }
    let flat = tensor(
        &bytes[first * width..(last + 1) * width],
        &[(last + 1 - first) as i64],
        *kind,
    )?;
    flat.f_as_strided(size, stride, 0)
        .and_then(|view| view.f_contiguous())
        .map_err(|error| format(error.to_string()))
}

/// The element type of a storage class of PyTorch.
fn kind_of(storage: &str) -> Option<Kind> {
    Some(match storage {
        "DoubleStorage" => Kind::Double,
        "FloatStorage" => Kind::Float,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "ShortStorage" => Kind::Int16,
        "CharStorage" => Kind::Int8,
        "ByteStorage" => Kind::Uint8,
        "BoolStorage" => Kind::Bool,
        _ => return None,
    })
}
