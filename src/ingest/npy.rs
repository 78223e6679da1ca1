//! npy files, checked against the file's size before any allocation.
//!
//! Reads versions 1, 2 and 3; dtypes `f2 f4 f8 i1..i8 u1..u8 b1`, little and big-endian; C and Fortran order. Object,
//! string, date and structured arrays are refused, so nothing is ever unpickled. A file is read only if header and
//! data are, together, exactly as long as the file. No crate passed the hostile files: ndarray-npy aborts on a huge
//! shape, npyz takes trailing bytes and gives no elements for the shape (2^32, 2^32).
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
use super::open::open_regular;

pub use header::{Dtype, DtypeKind, Header, MAX_HEADER, parse_header};
pub use write::{write_f16, write_f32, write_i64};

/// Most bytes of a file name on Linux's and macOS's file systems.
const MAX_FILE_NAME: usize = 255;

/// Why `<name>.npy` cannot be a file in a folder; `None`: it can. The name of a video is data, never a path.
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
        name if name.contains(['/', '\0']) => refused("it contains `/` or NUL"),
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

/// What is wrong with an npy file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpyProblem {
    /// Another kind of file.
    #[error("begins with `{found}`, expected `\\x93NUMPY`")]
    Magic {
        /// First bytes, escaped.
        found: String,
    },
    /// A version that is not known.
    #[error("version is {major}.{minor}, expected 1.0, 2.0 or 3.0")]
    Version {
        /// First number.
        major: u8,
        /// Second number.
        minor: u8,
    },
    /// The header does not fit.
    #[error("header is {length} bytes, expected at most {limit}")]
    HeaderLength {
        /// As stated.
        length: u64,
        /// What the file holds, or [`MAX_HEADER`].
        limit: u64,
    },
    /// The header is not the dictionary that numpy writes.
    #[error("header byte {position} is `{found}`, expected {expected}")]
    Header {
        /// Byte of the header, from 0.
        position: usize,
        /// What is there, escaped and cut.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// Values of a kind that is not read here.
    #[error("dtype is {found}, expected {expected}")]
    Dtype {
        /// As stated.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// A shape whose size is no number.
    #[error("shape is {shape}, expected at most {limit} bytes of data as the file has")]
    Overflow {
        /// As stated.
        shape: Shape,
        /// Bytes after the header.
        limit: u64,
    },
    /// Short or trailing data.
    #[error("data is {found} bytes, expected {expected} for shape {shape} of {dtype}")]
    Size {
        /// Bytes after the header.
        found: u64,
        /// Bytes that shape and dtype need.
        expected: u64,
        /// As stated.
        shape: Shape,
        /// As stated.
        dtype: Dtype,
    },
    /// Another shape than is wanted.
    #[error("shape is {found}, expected {expected}")]
    Shape {
        /// As stated.
        found: Shape,
        /// What would do.
        expected: String,
    },
    /// An unsigned number beyond the signed ones.
    #[error("value {index} is {value}, expected at most 9223372036854775807")]
    Value {
        /// Which, in the file's order.
        index: usize,
        /// What is there.
        value: u64,
    },
    /// The values do not fit in memory.
    #[error("cannot allocate {bytes} bytes for its values")]
    Memory {
        /// How much it would take.
        bytes: u64,
    },
}

/// Sizes of an array's axes; shown as numpy shows them.
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

/// An array of any number of axes, in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct NdArray<T> {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Last axis fastest.
    pub data: Vec<T>,
}

/// A matrix, row-major, of at least one row and column.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    /// T of a video, C of text embeddings.
    pub rows: usize,
    /// D of features, C of labels.
    pub cols: usize,
    /// `[rows, cols]`.
    pub data: Vec<T>,
}

impl<T> NdArray<T> {
    /// As a matrix; `path` is for the message.
    ///
    /// # Errors
    /// [`NpyProblem::Shape`] if it has not two axes, or one of them is empty.
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
    /// Row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[T] {
        &self.data[index * self.cols..(index + 1) * self.cols]
    }
}

/// Reads an array of `f2`, `f4` or `f8`, converted to f32.
///
/// # Errors
/// [`IngestError::Npy`] with what is wrong, [`IngestError::Kind`] for anything but a regular file,
/// [`IngestError::Io`].
pub fn read_floats(path: &Path) -> Result<NdArray<f32>, IngestError> {
    let mut data = Vec::new();
    let shape = Reader::default().floats(path, &mut data, &|_| Ok(()))?;
    Ok(NdArray { shape, data })
}

/// Reads an array of integers or booleans.
///
/// # Errors
/// As [`read_floats`], and [`NpyProblem::Value`] for a `u8` beyond 2^63 - 1.
pub fn read_ints(path: &Path) -> Result<NdArray<i64>, IngestError> {
    let mut data = Vec::new();
    let shape = Reader::default().ints(path, &mut data, &|_| Ok(()))?;
    Ok(NdArray { shape, data })
}

/// Reads many files with one buffer.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

/// Says whether a shape is the one wanted.
type ShapeCheck<'a> = &'a dyn Fn(&[usize]) -> Result<(), NpyProblem>;

impl Reader {
    /// Appends a matrix of floats to `out`, row-major, and gives its rows and columns.
    ///
    /// # Errors
    /// As [`read_floats`]; `out` is then as it was.
    pub fn append_matrix(&mut self, path: &Path, out: &mut Vec<f32>) -> Result<(usize, usize), IngestError> {
        let shape = self.floats(path, out, &|shape| two_axes(shape).map(drop))?;
        Ok((shape[0], shape[1]))
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
        let (mut file, length) = open_regular(path)?;
        // Header and, of a usual feature file, the data too.
        let first = length.min(MAX_HEADER);
        self.bytes.clear();
        self.fill(&mut file, path, first)?;
        let header = parse_header(&self.bytes, length).map_err(problem)?;
        dtype(&header).map_err(problem)?;
        // No axis is longer than the file, unless another one is empty.
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
            // It was cut or grew meanwhile.
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

    /// Reads `more` bytes; those left in the buffer by [`Reader::load`]'s first call stay before them.
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

fn two_axes(shape: &[usize]) -> Result<(usize, usize), NpyProblem> {
    match *shape {
        [rows, cols] if rows > 0 && cols > 0 => Ok((rows, cols)),
        _ => Err(NpyProblem::Shape {
            found: Shape(shape.iter().map(|&axis| axis as u64).collect()),
            expected: "two axes, neither empty".to_owned(),
        }),
    }
}
