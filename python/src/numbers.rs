//! Numeric arrays of any type.

use std::ops::Range;

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use vaplan::eval::BitMatrix;

use crate::error::BadCell;

/// A type that f64 holds exactly or, for integers of 64 bits, nearly.
pub(crate) trait Number: Copy {
    fn number(self) -> f64;
}

macro_rules! kinds {
    ($($kind:ident $of:ty,)*) => {
        $(impl Number for $of {
            fn number(self) -> f64 {
                self as f64
            }
        })*

        /// A contiguous array `[rows, columns]`.
        pub(crate) enum Numbers<'py> {
            Bool(PyReadonlyArray2<'py, bool>),
            $($kind(PyReadonlyArray2<'py, $of>),)*
        }

        /// The values of [`Numbers`], for threads without the GIL.
        #[derive(Clone, Copy)]
        enum Values<'a> {
            Bool(&'a [bool]),
            $($kind(&'a [$of]),)*
        }

        impl<'a, 'py> FromPyObject<'a, 'py> for Numbers<'py> {
            type Error = PyErr;

            fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Numbers<'py>> {
                if let Ok(array) = object.extract() {
                    return Ok(Numbers::Bool(array));
                }
                $(if let Ok(array) = object.extract() {
                    return Ok(Numbers::$kind(array));
                })*
                Err(PyTypeError::new_err("expected a numpy array of numbers with two dimensions"))
            }
        }

        impl Numbers<'_> {
            fn shape(&self) -> [usize; 2] {
                let shape = match self {
                    Numbers::Bool(array) => array.shape(),
                    $(Numbers::$kind(array) => array.shape(),)*
                };
                [shape[0], shape[1]]
            }

            fn values(&self) -> PyResult<Values<'_>> {
                Ok(match self {
                    Numbers::Bool(array) => Values::Bool(array.as_slice()?),
                    $(Numbers::$kind(array) => Values::$kind(array.as_slice()?),)*
                })
            }
        }

        impl Values<'_> {
            fn read(self, cells: Range<usize>, to: &mut Vec<f64>) {
                to.clear();
                match self {
                    Values::Bool(values) => to.extend(values[cells].iter().map(|value| f64::from(u8::from(*value)))),
                    $(Values::$kind(values) => to.extend(values[cells].iter().map(|value| value.number())),)*
                }
            }

            /// The matrix of labels `[segments, classes]`, and whether each value is 0 or 1. One pass over the array of
            /// its own type: `evaluate` spends most of its time here.
            fn matrix(self, cells: Range<usize>, classes: usize) -> (BitMatrix, bool) {
                let mut labels = true;
                let matrix = match self {
                    Values::Bool(values) => BitMatrix::of_cells(classes, &values[cells], |value| value),
                    $(Values::$kind(values) => BitMatrix::of_cells(classes, &values[cells], |value| {
                        let number = value.number();
                        labels &= (number == 0.0) | (number == 1.0);
                        number != 0.0
                    }),)*
                };
                (matrix, labels)
            }
        }
    };
}

kinds! {
    U8 u8,
    F32 f32,
    F64 f64,
    I64 i64,
    I32 i32,
    I16 i16,
    I8 i8,
    U64 u64,
    U32 u32,
    U16 u16,
}

/// The values that an argument may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// 0 or 1.
    Label,
    /// 0 to 1.
    Probability,
    /// Any finite number.
    Finite,
}

impl Allowed {
    fn holds(self, value: f64) -> bool {
        match self {
            Allowed::Label => value == 0.0 || value == 1.0,
            Allowed::Probability => (0.0..=1.0).contains(&value),
            Allowed::Finite => value.is_finite(),
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Allowed::Label => "0 or 1",
            Allowed::Probability => "a number from 0 to 1",
            Allowed::Finite => "a finite number",
        }
    }
}

/// An array of an argument, for threads without the GIL. Rows are the segments of all videos, or the videos.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    argument: &'static str,
    allowed: Allowed,
    rows: usize,
    columns: usize,
    values: Values<'a>,
}

impl<'a> Table<'a> {
    /// The array of an argument. It must have this shape; the Python files see to it.
    pub(crate) fn new(
        argument: &'static str,
        allowed: Allowed,
        numbers: &'a Numbers<'_>,
        shape: [usize; 2],
    ) -> PyResult<Table<'a>> {
        let found = numbers.shape();
        if found != shape {
            return Err(PyValueError::new_err(format!(
                "{argument} has shape {found:?} of segments and classes, expected {shape:?}"
            )));
        }
        Ok(Table {
            argument,
            allowed,
            rows: shape[0],
            columns: shape[1],
            values: numbers.values()?,
        })
    }

    /// Reads rows into `to`, and checks their values.
    pub(crate) fn read(&self, rows: Range<usize>, to: &mut Vec<f64>) -> Result<(), BadCell> {
        debug_assert!(rows.end <= self.rows);
        let first = rows.start * self.columns;
        self.values.read(first..rows.end * self.columns, to);
        // Without an early end, the compiler checks several values at once.
        if to
            .iter()
            .fold(true, |all, value| all & self.allowed.holds(*value))
        {
            return Ok(());
        }
        let bad = to.iter().position(|value| !self.allowed.holds(*value));
        let at = bad.expect("one value is not allowed");
        Err(BadCell {
            argument: self.argument,
            place: ((first + at) / self.columns, (first + at) % self.columns),
            value: to[at],
            expected: self.allowed.expected(),
        })
    }

    /// Whether the argument must have labels, 0 and 1.
    pub(crate) fn has_labels(&self) -> bool {
        self.allowed == Allowed::Label
    }

    /// Reads the rows of a video, which must be labels, as a matrix of classes by segments.
    pub(crate) fn matrix(&self, rows: Range<usize>) -> Result<BitMatrix, BadCell> {
        debug_assert!(rows.end <= self.rows && self.has_labels());
        let cells = rows.start * self.columns..rows.end * self.columns;
        let (matrix, labels) = self.values.matrix(cells, self.columns);
        if !labels {
            // The second reading finds the value, and its place, for the message.
            self.read(rows, &mut Vec::new())?;
        }
        Ok(matrix)
    }

    /// Reads rows of 0 and 1.
    pub(crate) fn read_bits(&self, rows: Range<usize>) -> Result<Vec<bool>, BadCell> {
        let mut values = Vec::new();
        self.read(rows, &mut values)?;
        Ok(values.iter().map(|value| *value != 0.0).collect())
    }
}

/// Number of columns of an array.
pub(crate) fn columns(numbers: &Numbers<'_>) -> usize {
    numbers.shape()[1]
}

/// The rows of each video, from the number of segments of each video.
pub(crate) fn spans(lengths: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<Range<usize>>> {
    let mut end = 0_usize;
    let span = |length: &i64| {
        let from = end;
        end = usize::try_from(*length)
            .ok()
            .and_then(|length| end.checked_add(length))?;
        Some(from..end)
    };
    let spans: Option<Vec<_>> = lengths.as_slice()?.iter().map(span).collect();
    spans.ok_or_else(|| {
        PyValueError::new_err("a video has a negative number of segments, or there are too many segments")
    })
}

/// Number of rows of all videos.
pub(crate) fn rows(spans: &[Range<usize>]) -> usize {
    spans.last().map_or(0, |last| last.end)
}
