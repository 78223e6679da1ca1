//! Parses the magic bytes, the version, and the dictionary after them.

use std::fmt;

use super::{NpyProblem, Shape};

/// Largest length of a header in bytes. numpy writes 118 to a few hundred bytes, and reads at most 10,000.
pub const MAX_HEADER: u64 = 1 << 16;

/// Largest number of axes, as in numpy.
const MAX_AXES: usize = 64;

/// Kind of a dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeKind {
    /// Floating-point number, `f`.
    Float,
    /// Signed integer, `i`.
    Signed,
    /// Unsigned integer, `u`.
    Unsigned,
    /// Boolean, `b`.
    Bool,
}

/// Type of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype {
    /// Kind of the values.
    pub kind: DtypeKind,
    /// Number of bytes per value: 1, 2, 4 or 8.
    pub width: u8,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

impl Dtype {
    pub(super) fn refused(self, expected: &'static str) -> NpyProblem {
        NpyProblem::Dtype {
            found: self.to_string(),
            expected,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * u32::from(self.width);
        let end = if self.big_endian { "big-endian " } else { "" };
        match self.kind {
            DtypeKind::Float => write!(f, "{end}float{bits}"),
            DtypeKind::Signed => write!(f, "{end}int{bits}"),
            DtypeKind::Unsigned => write!(f, "{end}uint{bits}"),
            DtypeKind::Bool => write!(f, "bool"),
        }
    }
}

/// The contents of a header whose size agrees with the size of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the values.
    pub dtype: Dtype,
    /// Whether the first axis changes fastest.
    pub fortran: bool,
    /// Size of each axis.
    pub shape: Shape,
    /// Position of the first byte of the data.
    pub data_at: u64,
}

/// Parses the header of a file of `length` bytes. `start` has the whole file, or its first [`MAX_HEADER`] bytes.
///
/// The function allocates a few hundred bytes, even if the header states a huge size.
///
/// # Errors
/// Returns any [`NpyProblem`] that a header can cause.
pub fn parse_header(start: &[u8], length: u64) -> Result<Header, NpyProblem> {
    let Some(rest) = start.strip_prefix(b"\x93NUMPY") else {
        return Err(NpyProblem::Magic {
            found: start[..start.len().min(6)].escape_ascii().to_string(),
        });
    };
    let short = |length: u64| NpyProblem::HeaderLength {
        length,
        limit: start.len() as u64,
    };
    let [major, minor, rest @ ..] = rest else {
        return Err(short(10));
    };
    let (stated, before) = match (major, minor, rest) {
        (1, 0, [a, b, ..]) => (u64::from(u16::from_le_bytes([*a, *b])), 10),
        (2 | 3, 0, [a, b, c, d, ..]) => (u64::from(u32::from_le_bytes([*a, *b, *c, *d])), 12),
        (1..=3, 0, _) => return Err(short(12)),
        _ => {
            return Err(NpyProblem::Version {
                major: *major,
                minor: *minor,
            });
        }
    };
    let limit = length
        .min(start.len() as u64)
        .min(MAX_HEADER)
        .saturating_sub(before);
    if stated > limit {
        return Err(NpyProblem::HeaderLength {
            length: stated,
            limit,
        });
    }
    let data_at = before + stated;
    let text = usize::try_from(before)
        .ok()
        .zip(usize::try_from(data_at).ok())
        .and_then(|(a, b)| start.get(a..b));
    let text = text.expect("the limit is within the slice");
    let (dtype, fortran, shape) = Parser { text, at: 0 }.dictionary()?;
    let found = length - data_at;
    let needed = shape
        .0
        .iter()
        .try_fold(u64::from(dtype.width), |size, &axis| size.checked_mul(axis));
    match needed {
        None => Err(NpyProblem::Overflow { shape, limit: found }),
        Some(expected) if expected != found => Err(NpyProblem::Size {
            found,
            expected,
            shape,
            dtype,
        }),
        Some(_) => Ok(Header {
            dtype,
            fortran,
            shape,
            data_at,
        }),
    }
}

/// Parser of the Python literal `{'descr': '<f4', 'fortran_order': False, 'shape': (10, 512), }`, with these keys in
/// any order.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn dictionary(&mut self) -> Result<(Dtype, bool, Shape), NpyProblem> {
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{', "`{`")?;
        while !self.eat(b'}') {
            let start = self.at;
            let key = self.string("a key in quotes")?;
            self.expect(b':', "`:`")?;
            let twice = match key {
                b"descr" => dtype.replace(self.dtype()?).is_some(),
                b"fortran_order" => fortran.replace(self.boolean()?).is_some(),
                b"shape" => shape.replace(self.shape()?).is_some(),
                _ => true,
            };
            if twice {
                self.at = start;
                return Err(self.error("each of `descr`, `fortran_order` and `shape` once"));
            }
            if !self.eat(b',') {
                self.expect(b'}', "`,` or `}`")?;
                break;
            }
        }
        self.blanks();
        if self.at < self.text.len() {
            return Err(self.error("nothing but blanks after `}`"));
        }
        match (dtype, fortran, shape) {
            (Some(dtype), Some(fortran), Some(shape)) => Ok((dtype, fortran, shape)),
            _ => Err(self.error("all of `descr`, `fortran_order` and `shape`")),
        }
    }

    fn dtype(&mut self) -> Result<Dtype, NpyProblem> {
        const EXPECTED: &str = "one of f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1";
        self.blanks();
        if self.text.get(self.at) == Some(&b'[') {
            return Err(NpyProblem::Dtype {
                found: "structured".to_owned(),
                expected: EXPECTED,
            });
        }
        let text = self.string("a dtype in quotes")?;
        let refused = |what: &str| NpyProblem::Dtype {
            found: format!("`{}`{what}", text[..text.len().min(20)].escape_ascii()),
            expected: EXPECTED,
        };
        let (order, rest) = match text {
            [order @ (b'<' | b'>' | b'|' | b'='), rest @ ..] => (*order, rest),
            _ => (b'=', text),
        };
        let (kind, width) = match rest {
            [b'f', width @ (b'2' | b'4' | b'8')] => (DtypeKind::Float, width),
            [b'i', width @ (b'1' | b'2' | b'4' | b'8')] => (DtypeKind::Signed, width),
            [b'u', width @ (b'1' | b'2' | b'4' | b'8')] => (DtypeKind::Unsigned, width),
            [b'b', width @ b'1'] => (DtypeKind::Bool, width),
            [b'O', ..] => return Err(refused(" (pickled objects)")),
            [b'V', ..] => return Err(refused(" (structured)")),
            _ => return Err(refused("")),
        };
        let native = cfg!(target_endian = "big");
        Ok(Dtype {
            kind,
            width: width - b'0',
            big_endian: order == b'>' || (order == b'=' && native),
        })
    }

    fn boolean(&mut self) -> Result<bool, NpyProblem> {
        self.blanks();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("`True` or `False`"))
    }

    fn shape(&mut self) -> Result<Shape, NpyProblem> {
        let mut axes = Vec::new();
        self.expect(b'(', "`(`")?;
        while !self.eat(b')') {
            if axes.len() == MAX_AXES {
                return Err(self.error("at most 64 axes"));
            }
            axes.push(self.number()?);
            if !self.eat(b',') {
                self.expect(b')', "`,` or `)`")?;
                break;
            }
        }
        Ok(Shape(axes))
    }

    fn number(&mut self) -> Result<u64, NpyProblem> {
        const EXPECTED: &str = "a whole number from 0 to 2^64 - 1";
        self.blanks();
        let start = self.at;
        let mut value: Option<u64> = None;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            let next = value
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|ten| ten.checked_add(u64::from(digit - b'0')));
            if next.is_none() {
                self.at = start;
                return Err(self.error(EXPECTED));
            }
            value = next;
            self.at += 1;
        }
        // Python 2 wrote long integers with an `L`.
        if value.is_some() && self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        value.ok_or_else(|| self.error(EXPECTED))
    }

    /// Reads a string in quotes. Escapes are not supported, because no expected string has one.
    fn string(&mut self, expected: &'static str) -> Result<&'a [u8], NpyProblem> {
        self.blanks();
        let Some(&quote @ (b'\'' | b'"')) = self.text.get(self.at) else {
            return Err(self.error(expected));
        };
        let inside = &self.text[self.at + 1..];
        let Some(end) = inside.iter().position(|&byte| byte == quote) else {
            return Err(self.error(expected));
        };
        self.at += end + 2;
        Ok(&inside[..end])
    }

    fn blanks(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), NpyProblem> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn error(&self, expected: &'static str) -> NpyProblem {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = if rest.is_empty() {
            "the end".to_owned()
        } else {
            rest[..rest.len().min(20)].escape_ascii().to_string()
        };
        NpyProblem::Header {
            position: self.at,
            found,
            expected,
        }
    }
}
