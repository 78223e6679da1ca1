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
    tables: BTreeMap<&'a str, u64>,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let rows = Store::open(&args.store)?.versions()?;
    let entries: Vec<Entry<'_>> = rows.iter().map(entry).collect();
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
                    ..
                } = entry;
                writeln!(out, "{version:>5}  {committed_at}{epoch}  {command}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
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
        tables: row
            .tables
            .iter()
            .map(|(table, version)| (table.as_str(), *version))
            .collect(),
    }
}
