//! The interactive prompt.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::output::{self, Format, Written};
use super::session::type_name;
use super::{QueryError, Session};

const HELP: &str = "\
SQL ends with `;` and may take many lines.
.tables      tables and their rows
.schema T    columns of table T
.help        this
.quit        leave (also Ctrl-D); Ctrl-C clears the line";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing yet: the statement goes on.
    More,
    /// These statements.
    Sql(String),
    /// The tables.
    Tables,
    /// Columns of a table.
    Schema(String),
    /// What can be asked.
    Help,
    /// To leave.
    Quit,
    /// A command that there is not.
    Unknown(String),
}

/// Lines typed so far of a statement.
///
/// ```
/// use vaplan::query::prompt::{Asked, Pending};
/// let mut pending = Pending::default();
/// assert_eq!(pending.feed("SELECT 1"), Asked::More);
/// assert_eq!(pending.feed("AS one;"), Asked::Sql("SELECT 1\nAS one;".to_owned()));
/// assert_eq!(pending.feed(".quit"), Asked::Quit);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pending {
    text: String,
}

impl Pending {
    /// Takes the next line.
    pub fn feed(&mut self, line: &str) -> Asked {
        if self.text.is_empty() {
            if let Some(command) = line.trim().strip_prefix('.') {
                let mut words = command.split_whitespace();
                return match (words.next(), words.next(), words.next()) {
                    (Some("tables"), None, None) => Asked::Tables,
                    (Some("schema"), Some(table), None) => {
                        Asked::Schema(table.trim_end_matches(';').to_owned())
                    }
                    (Some("help"), None, None) => Asked::Help,
                    (Some("quit" | "exit"), None, None) => Asked::Quit,
                    _ => Asked::Unknown(line.trim().to_owned()),
                };
            }
        } else {
            self.text.push('\n');
        }
        self.text.push_str(line);
        if self.text.trim().is_empty() {
            self.clear();
            return Asked::More;
        }
        // An odd number of quotes: the `;` is inside a string.
        let ended = self.text.trim_end().ends_with(';') && self.text.matches('\'').count().is_multiple_of(2);
        if ended {
            Asked::Sql(std::mem::take(&mut self.text))
        } else {
            Asked::More
        }
    }

    /// Forgets the statement begun.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    fn prompt(&self) -> &'static str {
        if self.text.is_empty() {
            "vaplan> "
        } else {
            "   ...> "
        }
    }
}

/// Asks and answers until `.quit` or Ctrl-D. A statement that fails is told, and the prompt stays.
///
/// # Errors
/// [`QueryError::Terminal`], [`QueryError::Output`].
pub fn run(session: &Session, out: &mut dyn Write) -> Result<(), QueryError> {
    let mut editor = DefaultEditor::new().map_err(QueryError::Terminal)?;
    // No history is no reason to ask nothing.
    let history = history_file();
    if let Some(file) = &history {
        let _ = editor.load_history(file);
    }
    writeln!(
        out,
        "store version {}; .help tells what can be asked",
        session.version()
    )?;
    let mut pending = Pending::default();
    loop {
        out.flush()?;
        let line = match editor.readline(pending.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(QueryError::Terminal(error)),
        };
        let asked = pending.feed(&line);
        let entry = match &asked {
            Asked::More => None,
            Asked::Sql(sql) => Some(sql.as_str()),
            _ => Some(line.trim()),
        };
        if let Some(entry) = entry {
            let _ = editor.add_history_entry(entry);
            if let Some(file) = &history {
                let _ = editor.save_history(file);
            }
        }
        match asked {
            Asked::More => {}
            Asked::Quit => return Ok(()),
            Asked::Help => writeln!(out, "{HELP}")?,
            Asked::Tables => write_tables(session, out)?,
            Asked::Schema(table) => write_schema(session, &table, out)?,
            Asked::Unknown(command) => eprintln!("`{command}` is no command; .help lists them"),
            Asked::Sql(sql) => match answer(session, &sql, out) {
                Err(error @ QueryError::Output(_)) => return Err(error),
                Err(error) => eprintln!("{error}"),
                Ok(()) => {}
            },
        }
    }
}

fn answer(session: &Session, sql: &str, out: &mut dyn Write) -> Result<(), QueryError> {
    for statement in session.parse(sql)? {
        let start = Instant::now();
        let Written { rows, cut } = output::write(session.start(statement)?, Format::Table, out)?;
        let first = if cut { "the first " } else { "" };
        let noun = if rows == 1 { "row" } else { "rows" };
        writeln!(
            out,
            "{first}{rows} {noun}, {:.3} s",
            start.elapsed().as_secs_f64()
        )?;
    }
    Ok(())
}

fn write_tables(session: &Session, out: &mut dyn Write) -> Result<(), QueryError> {
    for table in session.tables() {
        match table.rows {
            Some(rows) => writeln!(out, "{:<14} {rows:>12} rows", table.name)?,
            None => writeln!(out, "{:<14} {:>12}", table.name, "view")?,
        }
    }
    Ok(())
}

fn write_schema(session: &Session, name: &str, out: &mut dyn Write) -> Result<(), QueryError> {
    let Some(table) = session.tables().iter().find(|table| table.name == name) else {
        eprintln!("there is no table `{name}`; .tables lists them");
        return Ok(());
    };
    for field in table.schema.fields() {
        let null = if field.is_nullable() { "or null" } else { "" };
        let line = format!("{:<16} {:<14} {null}", field.name(), type_name(field.data_type()));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `vaplan/query_history` in the user's state folder (XDG), which is made; none where there is no home.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let folder = state.join("vaplan");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("query_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_a_string_does_not_end_a_statement() {
        let mut pending = Pending::default();
        assert_eq!(pending.feed("SELECT ';"), Asked::More);
        assert_eq!(pending.feed("';"), Asked::Sql("SELECT ';\n';".to_owned()));
    }

    #[test]
    fn commands_are_told_from_statements() {
        let mut pending = Pending::default();
        assert_eq!(pending.feed("  .tables "), Asked::Tables);
        assert_eq!(
            pending.feed(".schema labels;"),
            Asked::Schema("labels".to_owned())
        );
        assert_eq!(pending.feed(".schema"), Asked::Unknown(".schema".to_owned()));
        assert_eq!(
            pending.feed(".drop labels"),
            Asked::Unknown(".drop labels".to_owned())
        );
        assert_eq!(pending.feed(""), Asked::More);
        // Within a statement a line that begins with a point is SQL.
        assert_eq!(pending.feed("SELECT"), Asked::More);
        assert_eq!(pending.feed(".5;"), Asked::Sql("SELECT\n.5;".to_owned()));
    }

    #[test]
    fn a_cleared_statement_leaves_nothing() {
        let mut pending = Pending::default();
        pending.feed("SELECT nonsense");
        assert_eq!(pending.prompt(), "   ...> ");
        pending.clear();
        assert_eq!(pending.prompt(), "vaplan> ");
        assert_eq!(pending.feed("SELECT 1;"), Asked::Sql("SELECT 1;".to_owned()));
    }
}
