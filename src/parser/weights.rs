//! Named tensors and their files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::{pt, safetensors};
use crate::ingest::open_regular;

/// The prefixes of names in the state dicts of wrapped modules: `DataParallel` (`module.`), `torch.compile`
/// (`_orig_mod.`), and training scripts or Lightning modules that hold the network as an attribute.
const WRAPPERS: [&str; 5] = ["module.", "_orig_mod.", "model.", "net.", "network."];

/// The heads of the networks that vaplan reads: every HAN has the first, and every transformer the second.
const HEADS: [&str; 2] = ["fc_prob.weight", "prob.weight"];

/// The content of a file of weights: tensors by name, and metadata by key.
#[derive(Debug, Default)]
pub struct Weights {
    /// The tensors by name. Tensors that were read from a file are on the CPU and contiguous.
    pub tensors: BTreeMap<String, Tensor>,
    /// Text by key. PyTorch's files have no metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Reads a safetensors file, or a PyTorch state dict (`.pt`, `.pth`, `.bin`, new or old format).
    ///
    /// The first bytes of the file decide which format it is. Pickles are parsed and never executed.
    ///
    /// # Errors
    /// Returns [`NetworkError::Weights`] if the content is invalid, [`NetworkError::Ingest`] if the file cannot be
    /// opened, and [`NetworkError::Io`] if it cannot be read.
    pub fn read(path: &Path) -> Result<Weights, NetworkError> {
        let (mut file, length) = open_regular(path)?;
        let bad = NetworkError::weights(path);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))
            .map_err(|_| {
                bad(WeightsProblem::Format(format!(
                    "cannot allocate the {length} bytes of the file"
                )))
            })?;
        file.read_to_end(&mut bytes)
            .map_err(NetworkError::io("read", path))?;
        let weights = if pt::is_pt(&bytes) {
            pt::read(&bytes)
        } else {
            safetensors::decode(&bytes)
        };
        weights.map(Weights::without_wrappers).map_err(bad)
    }

    /// Removes the prefixes that wrappers of PyTorch modules put before the names of all parameters.
    ///
    /// A file can have tensors of other objects beside the wrapped network, such as a counter or a loss. If at least half
    /// of the names have a prefix, the tensors without this prefix are dropped.
    pub(super) fn without_wrappers(mut self) -> Weights {
        loop {
            let wrapped = |prefix: &&&str| {
                let count = self
                    .tensors
                    .keys()
                    .filter(|name| name.starts_with(**prefix))
                    .count();
                count > 0 && count * 2 >= self.tensors.len()
            };
            let Some(prefix) = WRAPPERS.iter().find(wrapped) else {
                return self.without_holder();
            };
            self.keep_below(prefix);
        }
    }

    /// Removes the name of any other object that holds the network, such as `student.` or `state_dict.`: what comes before the
    /// head that every network has. Of two networks in one file, none is chosen.
    fn without_holder(mut self) -> Weights {
        for head in HEADS {
            let holders = self.tensors.keys().filter_map(|name| name.strip_suffix(head));
            let holders: Vec<&str> = holders
                .filter(|holder| holder.is_empty() || holder.ends_with('.'))
                .collect();
            if let [holder] = holders.as_slice()
                && !holder.is_empty()
            {
                let holder = (*holder).to_owned();
                self.keep_below(&holder);
            }
        }
        self
    }

    /// Keeps the tensors whose names have this prefix, and removes the prefix.
    fn keep_below(&mut self, prefix: &str) {
        let own = std::mem::take(&mut self.tensors).into_iter();
        let strip = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
        self.tensors = own.filter_map(strip).collect();
    }

    /// Writes a safetensors file. Equal content gives equal bytes. A file with the same name is replaced in one step.
    ///
    /// # Errors
    /// Returns [`NetworkError::Io`] if the file cannot be written, [`NetworkError::Config`] if a tensor has an
    /// unsupported type, and [`NetworkError::Torch`] if libtorch fails.
    pub fn write(&self, path: &Path) -> Result<(), NetworkError> {
        safetensors::write(self, path)
    }

    /// Removes a tensor and returns it.
    ///
    /// # Errors
    /// Returns [`WeightsProblem::Missing`] if there is no tensor of this name.
    pub fn take(&mut self, name: &str) -> Result<Tensor, WeightsProblem> {
        match self.tensors.remove(name) {
            Some(tensor) => Ok(tensor),
            None => Err(self.missing(name)),
        }
    }

    /// The error for a tensor that is missing. It names the first tensors of the file, because they often have the wanted
    /// names after another prefix.
    pub(super) fn missing(&self, name: &str) -> WeightsProblem {
        let names: Vec<String> = self
            .tensors
            .keys()
            .take(3)
            .map(|name| format!("`{name}`"))
            .collect();
        let found = match self.tensors.len() {
            0 => "the file has no other tensor".to_owned(),
            1..=3 => format!("other tensors of the file: {}", names.join(", ")),
            all => format!(
                "other tensors of the file: {} and {} more",
                names.join(", "),
                all - 3
            ),
        };
        WeightsProblem::Missing {
            name: name.to_owned(),
            found,
        }
    }
}

/// Makes a tensor from little-endian bytes. All supported machines are little-endian.
pub(super) fn tensor(bytes: &[u8], shape: &[i64], kind: Kind) -> Result<Tensor, WeightsProblem> {
    let elements =
        elements(shape).ok_or_else(|| WeightsProblem::Format(format!("a tensor has shape {shape:?}")))?;
    let expected = elements.checked_mul(kind.elt_size_in_bytes());
    // tch does not check the length, and would read past the end of the bytes.
    if expected != Some(bytes.len()) {
        let found = bytes.len();
        return Err(WeightsProblem::Format(format!(
            "a tensor of shape {shape:?} and {kind:?} has {found} bytes"
        )));
    }
    Tensor::f_from_data_size(bytes, shape, kind).map_err(|error| WeightsProblem::Format(error.to_string()))
}

/// The number of elements of a shape; `None` if an axis is negative or the number overflows.
pub(super) fn elements(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &axis| {
        product.checked_mul(usize::try_from(axis).ok()?)
    })
}

/// The bytes of a tensor, row-major.
///
/// # Errors
/// Returns [`NetworkError::Torch`] if libtorch fails.
pub(super) fn bytes(tensor: &Tensor) -> Result<Vec<u8>, NetworkError> {
    let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(tensors: &[&str]) -> Weights {
        let tensor = |name: &&str| ((*name).to_owned(), Tensor::from_slice(&[1.0_f32]));
        Weights {
            tensors: tensors.iter().map(tensor).collect(),
            metadata: BTreeMap::new(),
        }
    }

    fn names(tensors: &[&str]) -> Vec<String> {
        weights(tensors).without_wrappers().tensors.into_keys().collect()
    }

    #[test]
    fn a_missing_tensor_is_told_with_the_tensors_that_are_there() {
        let mut file = weights(&["student.a", "student.b", "student.c", "student.d", "x"]);
        assert_eq!(
            file.take("a").unwrap_err().to_string(),
            "has no tensor `a`, which the network needs; other tensors of the file: `student.a`, `student.b`, `student.c` and 2 more"
        );
        assert!(file.take("x").is_ok());
        assert!(
            weights(&[])
                .take("a")
                .unwrap_err()
                .to_string()
                .ends_with("the file has no other tensor")
        );
    }

    #[test]
    fn prefixes_of_wrappers_are_removed_and_tensors_beside_the_weights_dropped() {
        let plain = ["a.weight", "b.bias"];
        assert_eq!(names(&plain), plain);
        for prefix in [
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "module._orig_mod.",
            "model.module.",
        ] {
            let wrapped = plain.map(|name| format!("{prefix}{name}"));
            let mut given: Vec<&str> = wrapped.iter().map(String::as_str).collect();
            assert_eq!(names(&given), plain, "{prefix}");
            given.push("criterion.weight");
            assert_eq!(names(&given), plain, "{prefix} and another tensor");
        }
        let network = ["fc_a.bias", "fc_prob.weight"];
        for holder in [
            "student.",
            "state_dict.",
            "MMIL_Net.",
            "0.",
            "a.b.c.",
            "ema.module.",
        ] {
            let held = network.map(|name| format!("{holder}{name}"));
            let mut given: Vec<&str> = held.iter().map(String::as_str).collect();
            assert_eq!(names(&given), network, "{holder}");
            given.extend(["x.1", "x.2", "x.3", "x.4"]);
            assert_eq!(names(&given), network, "{holder} and more other tensors");
        }
        assert_eq!(names(&["student.prob.weight", "student.x"]), ["prob.weight", "x"]);
        let two = ["student.fc_prob.weight", "teacher.fc_prob.weight"];
        assert_eq!(names(&two), two, "two networks");
        let few = ["a.weight", "b.bias", "module.c"];
        assert_eq!(names(&few), few, "most names have no prefix");
    }
}
