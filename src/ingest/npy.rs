//! Reads npy files, checked against the size of the file before any allocation.
//!
//! The reader supports versions 1, 2 and 3; dtypes `f2 f4 f8 i1..i8 u1..u8 b1`, little- and big-endian; C and Fortran
//! order. It refuses arrays of objects, strings, dates and structures, so that no data is ever unpickled. It reads a
//! file only if header and data together are exactly as long as the file. No existing crate passed the tests with
//! hostile files: ndarray-npy aborts on a huge shape, and npyz accepts trailing bytes and returns no elements for the
//! shape (2^32, 2^32).
//!
//! A `.npz` archive with one array is read as that array (`archive.rs`). Features may have axes of length 1 beside
//! `(T, D)`, as networks give them with a batch axis, and may be integers, as VGGish features are.
//!
//! Format: numpy, `numpy/lib/format.py` (NEP 1).
//!
//! ```
//! use vaplan::ingest::npy;
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("features.npy");
//! npy::write_f32(&path, &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])?;
//! let matrix = npy::read_floats(&path)?.into_matrix(&path)?;
//! assert_eq!((matrix.rows, matrix.cols), (2, 3));
//! assert_eq!(matrix.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod header;
#[cfg(test)]
mod tests;
mod values;
mod write;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::IngestError;
use super::open::open_fetched;

pub use header::{Dtype, DtypeKind, Header, MAX_HEADER, parse_header};
pub use write::{write_f16, write_f32, write_i64};

/// Largest number of bytes of a file name on the file systems of Linux and macOS.
const MAX_FILE_NAME: usize = 255;

/// Returns whether a path has the extension of an npy file or of an npz archive, in small or capital letters.
pub(crate) fn is_npy(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["npy", "npz"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// The reason why `<name>.npy` cannot be a file in a folder. `None` if it can. The name of a video is data and must
/// never act as a path.
pub(crate) fn file_name_problem(name: &str) -> Option<String> {
    let longest = MAX_FILE_NAME - ".npy".len();
    let refused = |expected: &str| {
        let shown: String = name.chars().take(80).collect();
        let dots = if shown.len() < name.len() { "..." } else { "" };
        Some(format!(
            "video name `{}{dots}` cannot be a file name: {expected}",
            shown.escape_default()
        ))
    };
    match name {
        "" => refused("it is empty"),
        name if name.starts_with('.') => refused("it starts with `.`"),
        name if name.contains('/') => refused("it contains `/`"),
        name if name.contains(char::is_control) => refused("it contains a control character"),
        name if name.len() > longest => refused(&format!(
            "it has {} bytes, expected at most {longest}",
            name.len()
        )),
        _ => None,
    }
}

/// Whether `<name>.npy` can be a file in a folder.
#[cfg(feature = "encode")]
pub(crate) fn names_a_file(name: &str) -> bool {
    file_name_problem(name).is_none()
}

/// The problem with an npy file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpyProblem {
    /// The file is of another kind.
    #[error("begins with `{found}`, expected `\\x93NUMPY`")]
    Magic {
        /// First bytes of the file, escaped.
        found: String,
    },
    /// The version of the format is unknown.
    #[error("version is {major}.{minor}, expected 1.0, 2.0 or 3.0")]
    Version {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The header is longer than the file or than the limit.
    #[error("header is {length} bytes, expected at most {limit}")]
    HeaderLength {
        /// Length that the file states.
        length: u64,
        /// Largest possible length: the rest of the file, or of [`MAX_HEADER`].
        limit: u64,
    },
    /// The header is not the dictionary that numpy writes.
    #[error("header byte {position} is `{found}`, expected {expected}")]
    Header {
        /// Byte of the header, from 0.
        position: usize,
        /// Text found there, escaped and shortened.
        found: String,
        /// Text expected.
        expected: &'static str,
    },
    /// The values have a dtype that is not supported.
    #[error("dtype is {found}, expected {expected}")]
    Dtype {
        /// Dtype that the header states.
        found: String,
        /// Supported dtypes.
        expected: &'static str,
    },
    /// The size of the array is too large to be a number.
    #[error("shape is {shape}, expected at most {limit} bytes of data as the file has")]
    Overflow {
        /// Shape that the header states.
        shape: Shape,
        /// Number of bytes after the header.
        limit: u64,
    },
    /// The data is shorter or longer than the header states.
    #[error("data is {found} bytes, expected {expected} for shape {shape} of {dtype}")]
    Size {
        /// Number of bytes after the header.
        found: u64,
        /// Number of bytes that shape and dtype need.
        expected: u64,
        /// Shape that the header states.
        shape: Shape,
        /// Dtype that the header states.
        dtype: Dtype,
    },
    /// The array does not have the expected shape.
    #[error("shape is {found}, expected {expected}")]
    Shape {
        /// Shape that the header states.
        found: Shape,
        /// Shape expected.
        expected: String,
    },
    /// An npz archive does not hold one array.
    #[error("is an npz archive that {found}, expected one array: save it with `numpy.savez(file, array)`")]
    Archive {
        /// What the archive holds, or why it cannot be read.
        found: String,
    },
    /// An unsigned value is larger than the largest i64.
    #[error("value {index} is {value}, expected at most 9223372036854775807")]
    Value {
        /// Position of the value, in the order of the file.
        index: usize,
        /// Value found.
        value: u64,
    },
    /// The values do not fit in memory.
    #[error("cannot allocate {bytes} bytes for its values")]
    Memory {
        /// Number of bytes needed.
        bytes: u64,
    },
}

/// Sizes of the axes of an array. The text form is that of numpy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<u64>);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.0.iter().take(8).map(u64::to_string).collect();
        let end = match self.0.len() {
            1 => ",",
            0..=8 => "",
            _ => ", ..",
        };
        write!(f, "({}{end})", axes.join(", "))
    }
}

/// An array with any number of axes, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct NdArray<T> {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Values; the last axis changes fastest.
    pub data: Vec<T>,
}

/// A row-major matrix with at least one row and one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    /// Number of rows: T for a video, C for text embeddings.
    pub rows: usize,
    /// Number of columns: D for features, C for labels.
    pub cols: usize,
    /// Values of shape `[rows, cols]`.
    pub data: Vec<T>,
}

impl<T> NdArray<T> {
    /// Converts the array into a matrix. `path` is for the message only.
    ///
    /// # Errors
    /// Returns [`NpyProblem::Shape`] if the array does not have two axes, or if an axis is empty.
    pub fn into_matrix(self, path: &Path) -> Result<Matrix<T>, IngestError> {
        let problem = |problem| IngestError::Npy {
            path: path.to_owned(),
            problem,
        };
        let (rows, cols) = two_axes(&self.shape).map_err(problem)?;
        Ok(Matrix {
            rows,
            cols,
            data: self.data,
        })
    }
}

impl<T> Matrix<T> {
    /// The row at `index`.
    ///
    /// # Panics
    /// Panics if the matrix has no such row.
    pub fn row(&self, index: usize) -> &[T] {
        &self.data[index * self.cols..(index + 1) * self.cols]
    }
}

/// Reads an array of `f2`, `f4` or `f8`, converted to f32.
///
/// # Errors
/// - Returns [`IngestError::Npy`] if the contents are not a valid array of floats.
/// - Returns [`IngestError::Kind`] if the path is not a regular file.
/// - Returns [`IngestError::Io`] if the file cannot be read.
pub fn read_floats(path: &Path) -> Result<NdArray<f32>, IngestError> {
    let mut data = Vec::new();
    let shape = Reader::default().floats(path, &mut data, &|_| Ok(()))?;
    Ok(NdArray { shape, data })
}

/// Reads an array of integers or booleans.
///
/// # Errors
/// Returns the errors of [`read_floats`], and [`NpyProblem::Value`] if a `u8` value is larger than 2^63 - 1.
pub fn read_ints(path: &Path) -> Result<NdArray<i64>, IngestError> {
    let mut data = Vec::new();
    let shape = Reader::default().ints(path, &mut data, &|_| Ok(()))?;
    Ok(NdArray { shape, data })
}

/// The values of an array, as they are in its file.
#[derive(Clone, Debug, PartialEq)]
pub enum NpyNumbers {
    /// Integers or booleans.
    Whole(NdArray<i64>),
    /// Floats.
    Real(NdArray<f64>),
}

/// Reads an array of floats, integers or booleans. No value is rounded.
///
/// # Errors
/// Returns the errors of [`read_floats`] and [`read_ints`].
pub fn read_numbers(path: &Path) -> Result<NpyNumbers, IngestError> {
    let mut reader = Reader::default();
    let (header, shape) = reader.load(path, &|_| Ok(()), |_| Ok(()))?;
    let problem = |problem| IngestError::Npy {
        path: path.to_owned(),
        problem,
    };
    if header.dtype.kind == DtypeKind::Float {
        let data = values::doubles(&reader.bytes, &header, &shape).map_err(problem)?;
        return Ok(NpyNumbers::Real(NdArray { shape, data }));
    }
    let mut data = Vec::new();
    values::append_ints(&reader.bytes, &header, &shape, &mut data).map_err(problem)?;
    Ok(NpyNumbers::Whole(NdArray { shape, data }))
}

/// Reads many files with one buffer, which is reused.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

/// Checks whether a shape is the expected one.
type ShapeCheck<'a> = &'a dyn Fn(&[usize]) -> Result<(), NpyProblem>;

impl Reader {
    /// Appends a matrix of floats or integers to `out`, row-major. Returns the numbers of rows and columns.
    ///
    /// # Errors
    /// Returns the errors of [`read_floats`] and [`read_ints`]. `out` is unchanged then.
    pub fn append_matrix(&mut self, path: &Path, out: &mut Vec<f32>) -> Result<(usize, usize), IngestError> {
        let problem = |problem| IngestError::Npy {
            path: path.to_owned(),
            problem,
        };
        let check: ShapeCheck<'_> = &|shape| two_axes(shape).map(drop);
        let (header, shape) = self.load(path, check, |header| match header.dtype.kind {
            DtypeKind::Bool => Err(header.dtype.refused("floats or integers")),
            _ => Ok(()),
        })?;
        if header.dtype.kind == DtypeKind::Float {
            values::append_floats(&self.bytes, &header, &shape, out).map_err(problem)?;
        } else {
            let mut whole = Vec::new();
            values::append_ints(&self.bytes, &header, &shape, &mut whole).map_err(problem)?;
            out.extend(whole.iter().map(|&value| value as f32));
        }
        two_axes(&shape).map_err(problem)
    }

    fn floats(
        &mut self,
        path: &Path,
        out: &mut Vec<f32>,
        check: ShapeCheck<'_>,
    ) -> Result<Vec<usize>, IngestError> {
        let (header, shape) = self.load(path, check, |header| match header.dtype.kind {
            DtypeKind::Float => Ok(()),
            _ => Err(header.dtype.refused("float16, float32 or float64")),
        })?;
        values::append_floats(&self.bytes, &header, &shape, out).map_err(|problem| IngestError::Npy {
            path: path.to_owned(),
            problem,
        })?;
        Ok(shape)
    }

    fn ints(
        &mut self,
        path: &Path,
        out: &mut Vec<i64>,
        check: ShapeCheck<'_>,
    ) -> Result<Vec<usize>, IngestError> {
        let (header, shape) = self.load(path, check, |header| match header.dtype.kind {
            DtypeKind::Float => Err(header.dtype.refused("an integer type or bool")),
            _ => Ok(()),
        })?;
        values::append_ints(&self.bytes, &header, &shape, out).map_err(|problem| IngestError::Npy {
            path: path.to_owned(),
            problem,
        })?;
        Ok(shape)
    }

    /// Checks the header and reads the data into the buffer.
    fn load(
        &mut self,
        path: &Path,
        check: ShapeCheck<'_>,
        dtype: impl Fn(&Header) -> Result<(), NpyProblem>,
    ) -> Result<(Header, Vec<usize>), IngestError> {
        let problem = |problem| IngestError::Npy {
            path: path.to_owned(),
            problem,
        };
        let (mut file, mut length) = open_fetched(path)?;
        // One read gets the header, and for a feature file of usual size also the data.
        let mut first = length.min(MAX_HEADER);
        self.bytes.clear();
        self.fill(&mut file, path, first)?;
        if archive::is_archive(&self.bytes) {
            archive::read_array(file, &mut self.bytes).map_err(problem)?;
            length = self.bytes.len() as u64;
            first = length;
            file = open_fetched(path)?.0;
        }
        let header = parse_header(&self.bytes, length).map_err(problem)?;
        dtype(&header).map_err(problem)?;
        // No axis can be longer than the file, unless another axis is empty.
        let shape: Option<Vec<usize>> = header
            .shape
            .0
            .iter()
            .map(|&axis| usize::try_from(axis).ok())
            .collect();
        let shape = shape.ok_or_else(|| {
            problem(NpyProblem::Overflow {
                shape: header.shape.clone(),
                limit: length - header.data_at,
            })
        })?;
        check(&shape).map_err(problem)?;
        let start = usize::try_from(header.data_at).expect("the header was within the buffer");
        self.bytes.drain(..start);
        self.fill(&mut file, path, length - first)?;
        let found = self.bytes.len() as u64;
        if found != length - header.data_at {
            // The file was cut or grew while it was read.
            let (shape, dtype) = (header.shape, header.dtype);
            return Err(problem(NpyProblem::Size {
                found,
                expected: length - header.data_at,
                shape,
                dtype,
            }));
        }
        Ok((header, shape))
    }

    /// Appends up to `more` bytes of the file to the buffer. Bytes that are already in the buffer stay.
    fn fill(&mut self, file: &mut File, path: &Path, more: u64) -> Result<(), IngestError> {
        let refused = || IngestError::Npy {
            path: path.to_owned(),
            problem: NpyProblem::Memory { bytes: more },
        };
        self.bytes
            .try_reserve_exact(usize::try_from(more).map_err(|_| refused())?)
            .map_err(|_| refused())?;
        file.take(more)
            .read_to_end(&mut self.bytes)
            .map_err(IngestError::io("read", path))?;
        Ok(())
    }
}

/// Returns the numbers of rows and columns of an array with two axes. Axes of length 1 do not count if there are more than
/// two: networks give `(1, T, D)` and `(T, 1, D)`, and `(T, D, 1, 1)` before the height and width of an average pooling are
/// removed. A single one at the end is the last to go, because `(1, T, 1)` has a feature of one value.
fn two_axes(shape: &[usize]) -> Result<(usize, usize), NpyProblem> {
    let mut axes = shape.to_vec();
    while axes.len() > 3 && axes.ends_with(&[1, 1]) {
        axes.truncate(axes.len() - 2);
    }
    while axes.len() > 2 {
        let Some(single) = axes[..axes.len() - 1].iter().position(|&axis| axis == 1) else {
            break;
        };
        axes.remove(single);
    }
    while axes.len() > 2 && axes.last() == Some(&1) {
        axes.pop();
    }
    match *axes {
        [rows, cols] if rows > 0 && cols > 0 => Ok((rows, cols)),
        _ => Err(NpyProblem::Shape {
            found: Shape(shape.iter().map(|&axis| axis as u64).collect()),
            expected: "two axes, neither empty, beside axes of length 1".to_owned(),
        }),
    }
}
