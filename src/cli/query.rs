//! `vaplan query`.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::Global;
use crate::query::output::{Format, write};
use crate::query::{Session, prompt};

/// Ask a store in SQL.
///
/// Tables: classes, videos, truth, scores, labels, label_changes, rejects, versions; and the view events, the maximal
/// runs of labels: video, modality (audio, visual, audio_visual), class, onset and offset in seconds, mean score.
/// SQL is DataFusion's and only reads. Without SQL: an interactive prompt, or SQL from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One statement, e.g. "SELECT class, count(*) FROM events GROUP BY class ORDER BY 2 DESC"
    #[arg(value_name = "SQL")]
    sql: Option<String>,
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Form of the answer
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// File to write the answer to [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, _global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let session = Session::open(&snapshot)?;
    let sql = match &args.sql {
        Some(sql) => sql.clone(),
        None if std::io::stdin().is_terminal() => {
            prompt::run(&session, args.format, out)?;
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
    let answer = session.ask(sql.trim().trim_end_matches(';'))?;
    match &args.out {
        Some(path) => {
            let mut file =
                File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
            write(answer, args.format, &mut file)?;
        }
        None => write(answer, args.format, out)?,
    }
    Ok(ExitCode::SUCCESS)
}
