//! `vaplan query`.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::Global;
use crate::query::output::{TABLE_ROWS, write, write_file};
use crate::query::{Format, Session, prompt};

/// Ask a store in SQL
///
/// SQL is DataFusion's (much like PostgreSQL's). Tables: classes, videos, truth, scores, labels, label_changes,
/// rejects, versions. View: events, the maximal runs of labels, with video, modality (audio, visual or audio_visual),
/// class, onset and offset in seconds, and mean score. A video is its full name, a segment counts from 0. Nothing can
/// be changed. Rows come in no order unless ORDER BY gives one.
///
/// Without SQL: an interactive prompt on a terminal; otherwise statements are read from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to ask
    sql: Option<String>,
    /// Store
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Version of the store [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// How rows are written
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Write there instead of to standard output; Parquet wants it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let session = Session::open(&snapshot)?;
    let sql = match &args.sql {
        Some(sql) => sql.clone(),
        None if std::io::stdin().is_terminal() => {
            prompt::run(&session, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {
            let mut sql = String::new();
            std::io::stdin()
                .read_to_string(&mut sql)
                .context("cannot read SQL from standard input")?;
            sql
        }
    };
    let statements = match args.format {
        // One after the other, like a script's output; the other formats hold one answer.
        Format::Table if args.out.is_none() => session.parse(&sql)?,
        _ => vec![session.parse_one(&sql)?],
    };
    for statement in statements {
        let rows = session.start(statement)?;
        let written = match &args.out {
            Some(file) => write_file(rows, args.format, file)?,
            None => write(rows, args.format, out)?,
        };
        if written.cut && !global.quiet {
            eprintln!("vaplan: the first {TABLE_ROWS} rows; --format csv writes all");
        }
    }
    Ok(ExitCode::SUCCESS)
}
