//! Reads rows of a tab-separated file, checks the header, and rejects malformed rows.

use std::io::BufReader;
use std::path::Path;

use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::error::IngestError;
use crate::ingest::open::open_regular;

/// The requested fields of one line.
pub(super) struct TsvRow<'a, const N: usize> {
    /// Number of the line, from 1.
    pub(super) line: u64,
    /// Fields in the order of the requested columns.
    pub(super) fields: [&'a str; N],
}

/// Reads the columns with these names, in any order in the file, and calls `on_row` with the fields of each line. Malformed
/// lines go to `rejects`, and `on_row` can add other rows. Only one line is in memory, because a file can have millions.
///
/// Quotes are ordinary characters, except around a whole field. The public files do not quote fields, and a single
/// quote in a field must not join it with the lines after it.
pub(super) fn each<const N: usize>(
    path: &Path,
    columns: [&'static str; N],
    rejects: &mut Vec<RejectRow>,
    on_row: &mut dyn FnMut(TsvRow<'_, N>, &mut Vec<RejectRow>),
) -> Result<(), IngestError> {
    let (file, _) = open_regular(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .quoting(false)
        .flexible(true)
        .has_headers(false)
        .from_reader(BufReader::new(file));
    let mut record = csv::ByteRecord::new();
    let mut next = |record: &mut csv::ByteRecord| {
        reader.read_byte_record(record).map_err(|error| IngestError::Io {
            action: "read",
            path: path.to_owned(),
            source: error.into(),
        })
    };

    next(&mut record)?;
    let header: Vec<String> = record
        .iter()
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect();
    let name = |field: &str| unquoted(field.trim_start_matches('\u{feff}')).to_owned();
    let mut at = [0; N];
    for (slot, column) in at.iter_mut().zip(columns) {
        *slot = header
            .iter()
            .position(|field| name(field) == column)
            .ok_or_else(|| IngestError::Header {
                path: path.to_owned(),
                column,
                expected: columns.map(|column| format!("`{column}`")).join(", "),
                found: header.join("\t").chars().take(80).collect(),
            })?;
    }

    let file = path.display().to_string();
    while next(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() == 1 && record[0].trim_ascii().is_empty() {
            continue;
        }
        let mut reject = |reason: String| {
            rejects.push(RejectRow::reject(RejectKind::MalformedLine, &*file, reason).row(line));
        };
        // Some editors and spreadsheets end every row with separators: empty fields beyond the header are no fields.
        let beyond = record.iter().skip(header.len());
        if record.len() < header.len() || beyond.into_iter().any(|field| !field.trim_ascii().is_empty()) {
            reject(format!(
                "line has {} fields, expected {}",
                record.len(),
                header.len()
            ));
            continue;
        }
        let texts = at.map(|column| std::str::from_utf8(&record[column]));
        if let Some(column) = texts.iter().position(Result::is_err) {
            reject(format!(
                "{} is `{}`, expected UTF-8",
                columns[column],
                record[at[column]].escape_ascii()
            ));
            continue;
        }
        let fields = texts.map(|text| unquoted(text.unwrap_or_default()));
        if let Some(column) = fields.iter().position(|field| field.contains('\0')) {
            reject(format!(
                "{} is `{}`, expected no NUL",
                columns[column],
                fields[column].escape_default()
            ));
            continue;
        }
        on_row(TsvRow { line, fields }, rejects);
    }
    Ok(())
}

/// The field without spaces around it and without quotes around the whole field.
fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(field)
}
