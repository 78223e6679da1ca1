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

/// List the versions of a store, first to last.
///
/// When each was committed, how many labels it changed, its epoch where it carries one, and what was asked. JSON has
/// besides the Delta version of every table, which tables moved, and the SHA-256 of settings, models and inputs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Form of the list
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A line each.
    Table,
    /// One array of objects.
    Json,
}

#[derive(Serialize)]
struct Entry<'a> {
    version: u64,
    committed_at: String,
    epoch: Option<u64>,
    program: &'a str,
    command: &'a str,
    settings: &'a str,
    models: &'a str,
    inputs: &'a str,
    label_changes: u64,
    tables: BTreeMap<&'a str, u64>,
    /// Tables that this version moved.
    moved: Vec<&'a str>,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let store = Store::open(&args.store)?;
    let rows = store.versions()?;
    let changes = label_changes(&store)?;
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(rows.len());
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
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &entries)?;
            writeln!(out)?;
        }
        Format::Table => {
            for entry in &entries {
                let epoch = entry
                    .epoch
                    .map_or(String::new(), |epoch| format!("  epoch {epoch}"));
                let Entry {
                    version,
                    committed_at,
                    command,
                    label_changes,
                    ..
                } = entry;
                writeln!(
                    out,
                    "{version:>5}  {committed_at}{epoch}  {label_changes:>8} changed  {command}"
                )?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows of `label_changes` that each version added.
fn label_changes(store: &Store) -> anyhow::Result<BTreeMap<u64, u64>> {
    Ok(match store.latest()? {
        Some(latest) => latest.changes_by_version()?,
        None => BTreeMap::new(),
    })
}

fn entry(row: &VersionRow) -> Entry<'_> {
    let time = DateTime::<Utc>::from_timestamp_millis(row.committed_at);
    Entry {
        version: row.version,
        committed_at: time.map_or_else(
            || format!("{} ms", row.committed_at),
            |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
        ),
        epoch: row.epoch,
        program: &row.program,
        command: &row.command,
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
