//! Rows of a tab-separated file, with the header checked and malformed rows set aside.

use std::io::BufReader;
use std::path::Path;

use vaplan_schemas::rows::{RejectKind, RejectRow};

use crate::ingest::error::IngestError;
use crate::ingest::open::open_regular;

/// The wanted fields of one line.
pub(super) struct TsvRow<const N: usize> {
    /// Line, from 1 as an editor counts.
    pub(super) line: u64,
    /// In the order asked for.
    pub(super) fields: [String; N],
}

/// Reads the columns named, whatever their order; malformed lines go to `rejects`.
///
/// Fields are not quoted in the public files, and a stray quote must not swallow the lines after it: quotes are
/// plain characters, except around a whole field.
pub(super) fn read<const N: usize>(
    path: &Path,
    columns: [&'static str; N],
    rejects: &mut Vec<RejectRow>,
) -> Result<Vec<TsvRow<N>>, IngestError> {
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
    let mut rows = Vec::new();
    while next(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() == 1 && record[0].trim_ascii().is_empty() {
            continue;
        }
        let mut reject = |reason: String| {
            rejects.push(RejectRow::reject(RejectKind::MalformedLine, &*file, reason).row(line));
        };
        if record.len() != header.len() {
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
        let fields = texts.map(|text| unquoted(text.unwrap_or_default()).to_owned());
        if let Some(column) = fields.iter().position(|field| field.contains('\0')) {
            reject(format!(
                "{} is `{}`, expected no NUL",
                columns[column],
                fields[column].escape_default()
            ));
            continue;
        }
        rows.push(TsvRow { line, fields });
    }
    Ok(rows)
}

/// Without spaces around it, nor the quotes around a whole field.
fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(field)
}
