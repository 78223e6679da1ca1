//! The interactive SQL prompt of `vaplan query`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::query::output::{self, WrittenRows};
use crate::query::session::type_name;
use crate::query::{AnswerFormat, QueryError, QuerySession};

const HELP: &str = "\
An SQL statement ends with `;` and may span several lines.
.tables      list the tables with their number of rows
.schema T    list the columns of table T
.help        show this help
.quit        leave the prompt (also Ctrl-D); Ctrl-C clears the statement";

/// Meaning of a line that the user typed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PromptLine {
    /// The statement continues on the next line.
    More,
    /// Complete statements, to be run.
    Sql(String),
    /// `.tables`
    Tables,
    /// `.schema` with the name of a table.
    Schema(String),
    /// `.help`
    Help,
    /// `.quit` or `.exit`
    Quit,
    /// A line that starts with `.` and is no command.
    Unknown(String),
}

/// Lines of a statement that is not complete yet.
#[derive(Clone, Debug, Default)]
struct PendingStatement {
    text: String,
}

impl PendingStatement {
    /// Adds a line and tells what it means.
    fn feed(&mut self, line: &str) -> PromptLine {
        if self.text.is_empty() {
            if let Some(command) = line.trim().strip_prefix('.') {
                let mut words = command.split_whitespace();
                return match (words.next(), words.next(), words.next()) {
                    (Some("tables"), None, None) => PromptLine::Tables,
                    (Some("schema"), Some(table), None) => {
                        PromptLine::Schema(table.trim_end_matches(';').to_owned())
                    }
                    (Some("help"), None, None) => PromptLine::Help,
                    (Some("quit" | "exit"), None, None) => PromptLine::Quit,
                    _ => PromptLine::Unknown(line.trim().to_owned()),
                };
            }
        } else {
            self.text.push('\n');
        }
        self.text.push_str(line);
        if self.text.trim().is_empty() {
            self.clear();
            return PromptLine::More;
        }
        // After an odd number of quotes the `;` is inside a string.
        let ended = self.text.trim_end().ends_with(';') && self.text.matches('\'').count().is_multiple_of(2);
        if ended {
            PromptLine::Sql(std::mem::take(&mut self.text))
        } else {
            PromptLine::More
        }
    }

    /// Drops the lines of the incomplete statement.
    fn clear(&mut self) {
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

/// Reads statements from the terminal and writes their answers until `.quit` or Ctrl-D.
///
/// The error of a failed statement is printed, and the prompt continues.
///
/// # Errors
/// Returns an error if the terminal cannot be read or `out` cannot be written.
pub(super) fn run(session: &QuerySession, out: &mut dyn Write) -> anyhow::Result<()> {
    const TERMINAL: &str = "cannot read from the terminal";
    let mut editor = DefaultEditor::new().context(TERMINAL)?;
    // The prompt works without a history, so errors of the history file are ignored.
    let history = history_file();
    if let Some(file) = &history {
        let _ = editor.load_history(file);
    }
    writeln!(out, "store version {}; type .help for help", session.version())?;
    let mut pending = PendingStatement::default();
    loop {
        out.flush()?;
        let line = match editor.readline(pending.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context(TERMINAL),
        };
        let asked = pending.feed(&line);
        let entry = match &asked {
            PromptLine::More => None,
            PromptLine::Sql(sql) => Some(sql.as_str()),
            _ => Some(line.trim()),
        };
        if let Some(entry) = entry {
            let _ = editor.add_history_entry(entry);
            if let Some(file) = &history {
                let _ = editor.save_history(file);
            }
        }
        match asked {
            PromptLine::More => {}
            PromptLine::Quit => return Ok(()),
            PromptLine::Help => writeln!(out, "{HELP}")?,
            PromptLine::Tables => write_tables(session, out)?,
            PromptLine::Schema(table) => write_schema(session, &table, out)?,
            PromptLine::Unknown(command) => super::stderr::line(&format!(
                "`{command}` is not a command; type .help for the list of commands"
            )),
            PromptLine::Sql(sql) => match answer(session, &sql, out) {
                Err(error @ QueryError::Output(_)) => return Err(error.into()),
                Err(error) => super::stderr::line(&format!("{error}")),
                Ok(()) => {}
            },
        }
    }
}

/// Runs the statements of `sql` and writes their answers.
fn answer(session: &QuerySession, sql: &str, out: &mut dyn Write) -> Result<(), QueryError> {
    for statement in session.parse(sql)? {
        let start = Instant::now();
        let WrittenRows { rows, cut } = output::write(session.start(statement)?, AnswerFormat::Table, out)?;
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

fn write_tables(session: &QuerySession, out: &mut dyn Write) -> Result<(), QueryError> {
    for table in session.tables() {
        match table.rows {
            Some(rows) => writeln!(out, "{:<14} {rows:>12} rows", table.name)?,
            None => writeln!(out, "{:<14} {:>12}", table.name, "view")?,
        }
    }
    Ok(())
}

fn write_schema(session: &QuerySession, name: &str, out: &mut dyn Write) -> Result<(), QueryError> {
    let Some(table) = session.tables().iter().find(|table| table.name == name) else {
        super::stderr::line(&format!(
            "there is no table `{name}`; type .tables for the list of tables"
        ));
        return Ok(());
    };
    for field in table.schema.fields() {
        let null = if field.is_nullable() { "or null" } else { "" };
        let line = format!("{:<16} {:<14} {null}", field.name(), type_name(field.data_type()));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Path of `vaplan/query_history` in the user's state folder (XDG), which is created. `None` without a home folder.
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
        let mut pending = PendingStatement::default();
        assert_eq!(pending.feed("SELECT ';"), PromptLine::More);
        assert_eq!(pending.feed("';"), PromptLine::Sql("SELECT ';\n';".to_owned()));
    }

    #[test]
    fn a_statement_may_span_lines() {
        let mut pending = PendingStatement::default();
        assert_eq!(pending.feed("SELECT 1"), PromptLine::More);
        assert_eq!(
            pending.feed("AS one;"),
            PromptLine::Sql("SELECT 1\nAS one;".to_owned())
        );
        assert_eq!(pending.feed(".quit"), PromptLine::Quit);
    }

    #[test]
    fn commands_are_told_from_statements() {
        let mut pending = PendingStatement::default();
        assert_eq!(pending.feed("  .tables "), PromptLine::Tables);
        assert_eq!(
            pending.feed(".schema labels;"),
            PromptLine::Schema("labels".to_owned())
        );
        assert_eq!(pending.feed(".schema"), PromptLine::Unknown(".schema".to_owned()));
        assert_eq!(
            pending.feed(".drop labels"),
            PromptLine::Unknown(".drop labels".to_owned())
        );
        assert_eq!(pending.feed(""), PromptLine::More);
        // Inside a statement a line that begins with a full stop is SQL.
        assert_eq!(pending.feed("SELECT"), PromptLine::More);
        assert_eq!(pending.feed(".5;"), PromptLine::Sql("SELECT\n.5;".to_owned()));
    }

    #[test]
    fn a_cleared_statement_leaves_nothing() {
        let mut pending = PendingStatement::default();
        pending.feed("SELECT nonsense");
        assert_eq!(pending.prompt(), "   ...> ");
        pending.clear();
        assert_eq!(pending.prompt(), "vaplan> ");
        assert_eq!(pending.feed("SELECT 1;"), PromptLine::Sql("SELECT 1;".to_owned()));
    }
}
