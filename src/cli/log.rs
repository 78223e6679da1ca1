//! `vaplan log`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use vaplan_schemas::rows::VersionRow;
use vaplan_schemas::store::Store;

use super::Global;
use super::notes::escaped;

/// List the versions of a store, from first to last
///
/// Each line has the number of the version, the time of its commit, its epoch if it has one, the number of labels that
/// it changed, and the command that made it. A version that a person saved on the review page also has the author and the
/// note. JSON also has the Delta version of every table, the tables that the
/// version changed, and the SHA-256 hashes of settings, models and inputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan log --store store
  vaplan log --store store --format json")]
pub(super) struct LogArgs {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Format of the list
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: LogListFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogListFormat {
    /// One line per version.
    Table,
    /// One JSON array with one object per version.
    Json,
}

#[derive(Serialize)]
struct LogEntry<'a> {
    version: u64,
    committed_at: String,
    epoch: Option<u64>,
    program: &'a str,
    command: &'a str,
    author: Option<&'a str>,
    note: Option<&'a str>,
    settings: &'a str,
    models: &'a str,
    inputs: &'a str,
    label_changes: u64,
    tables: BTreeMap<&'a str, u64>,
    /// Tables whose Delta version differs from that of the version before.
    moved: Vec<&'a str>,
}

pub(super) fn run(args: &LogArgs, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let store = Store::open(&args.store)?;
    let rows = store.versions()?;
    let changes = label_changes(&store)?;
    let mut entries: Vec<LogEntry<'_>> = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut entry = entry(row);
        let before = entries.last().map(|entry| &entry.tables);
        let moved =
            |(table, delta): &(&&str, &u64)| before.and_then(|tables| tables.get(**table)) != Some(*delta);
        entry.moved = entry
            .tables
            .iter()
            .filter(moved)
            .map(|(table, _)| *table)
            .collect();
        entry.label_changes = changes.get(&row.version).copied().unwrap_or(0);
        entries.push(entry);
    }
    match args.format {
        LogListFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &entries)?;
            writeln!(out)?;
        }
        LogListFormat::Table => {
            for entry in &entries {
                let epoch = entry
                    .epoch
                    .map_or(String::new(), |epoch| format!("  epoch {epoch}"));
                let LogEntry {
                    version,
                    committed_at,
                    command,
                    label_changes,
                    ..
                } = entry;
                let author = entry
                    .author
                    .map_or_else(String::new, |author| format!("  by {author}"));
                let note = entry
                    .note
                    .map_or_else(String::new, |note| format!("  note: {note}"));
                let line = format!(
                    "{version:>5}  {committed_at}{epoch}  {label_changes:>8} changed  {command}{author}{note}"
                );
                writeln!(out, "{}", escaped(&line))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Number of rows that each version added to `label_changes`.
fn label_changes(store: &Store) -> anyhow::Result<BTreeMap<u64, u64>> {
    Ok(match store.latest()? {
        Some(latest) => latest.changes_by_version()?,
        None => BTreeMap::new(),
    })
}

fn entry(row: &VersionRow) -> LogEntry<'_> {
    let time = DateTime::<Utc>::from_timestamp_millis(row.committed_at);
    LogEntry {
        version: row.version,
        committed_at: time.map_or_else(
            || format!("{} ms", row.committed_at),
            |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
        ),
        epoch: row.epoch,
        program: &row.program,
        command: &row.command,
        author: row.author.as_deref(),
        note: row.note.as_deref(),
        settings: &row.settings,
        models: &row.models,
        inputs: &row.inputs,
        label_changes: 0,
        moved: Vec::new(),
        tables: row
            .tables
            .iter()
            .map(|(table, version)| (table.as_str(), *version))
            .collect(),
    }
}
