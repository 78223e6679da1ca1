//! `vaplan query`.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use super::choice::choices;
use super::{Global, prompt};
use crate::query::output::{TABLE_ROWS, write, write_file};
use crate::query::{AnswerFormat, QuerySession};

/// Run SQL queries on a store
///
/// The SQL dialect is DataFusion's, which resembles PostgreSQL's. The statement SHOW TABLES lists the tables, and
/// DESCRIBE labels lists the columns of table labels. The view events has one row per maximal run of set labels, with
/// video, modality (audio, visual or audio_visual), class, onset and offset in seconds, and mean score. A video is its
/// full name, and segments count from 0. Queries only read. The rows have no order unless the query has ORDER BY.
///
/// Without SQL, the command opens an interactive prompt if standard input is a terminal. Otherwise it reads statements
/// from standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan query --store store \"SELECT class, count(*) FROM events GROUP BY class ORDER BY 2 DESC\"
  vaplan query --store store --format csv --out set.csv \"SELECT * FROM labels WHERE label\"
  vaplan query --store store")]
pub(super) struct QueryArgs {
    /// SQL statement to run [default: an interactive prompt, or standard input]
    sql: Option<String>,
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Format of the answer
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = choices::<AnswerFormat>())]
    format: AnswerFormat,
    /// File to write the answer to [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most memory for sorts, joins and groups, such as 512MiB or 2GiB; more is written to temporary files, or the query fails
    /// [default: no limit]
    #[arg(long, value_name = "SIZE", env = "VAPLAN_QUERY_MEMORY", value_parser = size)]
    memory: Option<usize>,
}

impl QueryArgs {
    /// Returns whether the command writes a file.
    pub(super) fn writes(&self) -> bool {
        self.out.is_some()
    }
}

/// Reads a number of bytes, with or without one of the units KiB, MiB and GiB.
fn size(text: &str) -> Result<usize, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units
        .into_iter()
        .find_map(|(name, shift)| Some((text.strip_suffix(name)?, shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.trim().parse::<usize>().ok();
    let bytes = bytes.and_then(|number| number.checked_mul(1 << shift));
    let bytes = bytes.filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        format!("`{text}` is no size, expected a whole number above 0 with KiB, MiB or GiB, such as 512MiB")
    })
}

pub(super) fn run(args: &QueryArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let snapshot = Store::open(&args.store)?.at_version(args.version.map(StoreVersion))?;
    let session = QuerySession::with_memory(&snapshot, args.memory)?;
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
        // Tables of several statements are printed one after the other. Every other format holds the answer of one
        // statement.
        AnswerFormat::Table if args.out.is_none() => session.parse(&sql)?,
        _ => vec![session.parse_one(&sql)?],
    };
    for statement in statements {
        let rows = session.start(statement)?;
        let written = match &args.out {
            Some(file) => write_file(rows, args.format, file)?,
            None => write(rows, args.format, out)?,
        };
        if written.cut && !global.quiet {
            super::stderr::tell(&format!(
                "only the first {TABLE_ROWS} rows are shown; --format csv writes all rows"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}
