//! Reads small delimited files that a person or a script made: a header line, then one row per line.
//!
//! The delimiter is a tab if the header has one, otherwise a comma. Fields may be quoted. Columns are found by name
//! in any order, and other columns are ignored.

use std::io::Read;
use std::path::Path;

use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::error::IngestError;
use super::open::open_regular;

/// One row. Spaces around fields are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SheetRow<const N: usize> {
    /// Number of the line, from 1.
    pub(crate) line: u64,
    /// Fields in the order of the requested columns. `None` if the field is empty or the file lacks an optional
    /// column.
    pub(crate) fields: [Option<String>; N],
}

/// A requested column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) optional: bool,
}

/// A column that the file must have.
pub(crate) const fn required(name: &'static str) -> Column {
    Column {
        name,
        optional: false,
    }
}

/// A column that the file may lack.
pub(crate) const fn optional(name: &'static str) -> Column {
    Column { name, optional: true }
}

/// The names of a header for a message. A file in another encoding has control characters, which a terminal would obey.
fn shown(header: &[String]) -> String {
    let letters = header.join(", ").chars().take(80).collect::<Vec<_>>();
    let escape = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    letters.into_iter().map(escape).collect()
}

/// Reads the requested columns. A line that is malformed or not UTF-8 becomes a rejected row, and the other lines are
/// still read.
///
/// # Errors
/// - Returns [`IngestError::Sheet`] if the header lacks a required column.
/// - Returns [`IngestError::Io`] or [`IngestError::Kind`] if the file cannot be read.
pub(crate) fn read<const N: usize>(
    path: &Path,
    columns: [Column; N],
    rejects: &mut Vec<RejectRow>,
) -> Result<Vec<SheetRow<N>>, IngestError> {
    let mut text = Vec::new();
    let (mut file, _) = open_regular(path)?;
    file.read_to_end(&mut text)
        .map_err(IngestError::io("read", path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let header = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let delimiter = if header.contains(&b'\t') { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .has_headers(false)
        .from_reader(text);
    let mut records = reader.byte_records();
    let header: Vec<String> = match records.next() {
        Some(Ok(record)) => record
            .iter()
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect(),
        _ => Vec::new(),
    };
    let mut places = [None; N];
    for (place, column) in places.iter_mut().zip(columns) {
        *place = header.iter().position(|name| name == column.name);
        if place.is_none() && !column.optional {
            let names: Vec<String> = columns
                .iter()
                .map(|column| format!("`{}`", column.name))
                .collect();
            return Err(IngestError::Sheet {
                path: path.to_owned(),
                column: column.name,
                expected: names.join(", "),
                found: shown(&header),
            });
        }
    }
    let name = path.display().to_string();
    let mut rows = Vec::new();
    for record in records {
        let record = record.map_err(|error| IngestError::Io {
            action: "read",
            path: path.to_owned(),
            source: error.into(),
        })?;
        let line = record.position().map_or(0, |position| {
            // The csv crate counts blank lines before a row as part of the row. Add them to get the line of the row
            // itself.
            let rest = text.get(position.byte() as usize..).unwrap_or_default();
            let blank = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
            position.line() + blank.filter(|byte| **byte == b'\n').count() as u64
        });
        let mut reject = |reason: String| {
            rejects.push(RejectRow::reject(RejectKind::MalformedLine, &*name, reason).row(line));
        };
        if record.len() == 1 && record[0].is_empty() {
            continue;
        }
        if record.len() != header.len() {
            reject(format!("{} fields, expected {}", record.len(), header.len()));
            continue;
        }
        let mut fields = [const { None }; N];
        let mut whole = true;
        for (field, place) in fields.iter_mut().zip(places) {
            match place.map(|place| std::str::from_utf8(&record[place])) {
                Some(Ok(text)) if !text.is_empty() => *field = Some(text.to_owned()),
                Some(Err(_)) => whole = false,
                _ => {}
            }
        }
        if whole {
            rows.push(SheetRow { line, fields });
        } else {
            reject("is not UTF-8".to_owned());
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8]) -> (Result<Vec<SheetRow<2>>, String>, Vec<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut rejects = Vec::new();
        let read = read(file.path(), [required("a"), optional("b")], &mut rejects);
        let reasons = rejects
            .iter()
            .map(|row| format!("{}: {}", row.row.unwrap(), row.reason))
            .collect();
        let read = read.map_err(|error| error.to_string().replace(&file.path().display().to_string(), "F"));
        (read, reasons)
    }

    fn row(line: u64, a: &str, b: Option<&str>) -> SheetRow<2> {
        SheetRow {
            line,
            fields: [Some(a.to_owned()), b.map(str::to_owned)],
        }
    }

    #[test]
    fn tabs_or_commas_quotes_and_columns_in_any_order() {
        let expected = vec![row(2, "x,y", Some("1")), row(4, "z", None)];
        assert_eq!(rows(b"b,c,a\n1,?,\"x,y\"\n\n,?, z \n").0.unwrap(), expected);
        assert_eq!(
            rows(b"\xef\xbb\xbfb\ta\r\n1\tx,y\r\n\r\n\tz\r\n").0.unwrap(),
            expected
        );
        assert_eq!(rows(b"a\nx\n").0.unwrap(), [row(2, "x", None)]);
    }

    #[test]
    fn a_bad_line_loses_nothing_beside_it() {
        let (read, rejects) = rows(b"a,b\n1,2\n1,2,3\n\xff,2\n3,4\n");
        assert_eq!(read.unwrap(), [row(2, "1", Some("2")), row(5, "3", Some("4"))]);
        assert_eq!(rejects, ["3: 3 fields, expected 2", "4: is not UTF-8"]);
    }

    #[test]
    fn a_missing_column_is_named() {
        let (read, _) = rows(b"b,c\n");
        assert_eq!(
            read.unwrap_err(),
            "`F`, row 1: no column `a`, expected a line that names `a`, `b` (found: `b, c`)"
        );
    }
}
