//! The interactive prompt.

use std::io::Write;
use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::output::{Format, write};
use super::{QueryError, Session};

const HELP: &str = "\
SQL ends with `;` and may take several lines. Up and down bring back what was asked before.
  .tables      the tables and views
  .schema T    the columns of T
  .help        this
  .quit        leave; so does Ctrl-D
";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Sql(String),
    More,
    Tables,
    Schema(String),
    Help,
    Quit,
    Unknown(String),
}

/// Adds a line to what was typed before it, and tells what that asks for.
fn asked(typed: &mut String, line: &str) -> Asked {
    let line = line.trim();
    if typed.is_empty() && line.starts_with('.') {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        return match word {
            ".tables" => Asked::Tables,
            ".schema" if !rest.trim().is_empty() => {
                Asked::Schema(rest.trim().trim_end_matches(';').to_owned())
            }
            ".help" => Asked::Help,
            ".quit" | ".exit" => Asked::Quit,
            _ => Asked::Unknown(line.to_owned()),
        };
    }
    if !typed.is_empty() {
        typed.push('\n');
    }
    typed.push_str(line);
    match typed.strip_suffix(';').map(str::trim) {
        Some("") => {
            typed.clear();
            Asked::More
        }
        Some(sql) => {
            let sql = sql.to_owned();
            typed.clear();
            Asked::Sql(sql)
        }
        None => Asked::More,
    }
}

/// Reads, asks and prints until Ctrl-D; a query that is wrong is told and forgotten.
///
/// # Errors
/// [`QueryError::Prompt`] where the terminal does not answer, [`QueryError::Write`] where `out` does not take it.
pub fn run(session: &Session, format: Format, out: &mut dyn Write) -> Result<(), QueryError> {
    let prompt = |error: ReadlineError| QueryError::Prompt(error.to_string());
    let mut editor = DefaultEditor::new().map_err(prompt)?;
    let history = history_file();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    writeln!(out, "tables: {}; .help tells more", session.tables().join(", ")).map_err(QueryError::Write)?;
    let mut typed = String::new();
    loop {
        out.flush().map_err(QueryError::Write)?;
        let line = match editor.readline(if typed.is_empty() { "vaplan> " } else { "   ...> " }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(prompt(error)),
        };
        let answer = match asked(&mut typed, &line) {
            Asked::More => Ok(()),
            Asked::Quit => break,
            Asked::Help => write!(out, "{HELP}").map_err(QueryError::Write),
            Asked::Unknown(line) => {
                writeln!(out, "`{line}` is not known; .help tells what is").map_err(QueryError::Write)
            }
            Asked::Tables => writeln!(out, "{}", session.tables().join("\n")).map_err(QueryError::Write),
            Asked::Schema(table) => {
                let quoted = table.replace('\'', "''");
                let sql = format!(
                    "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
                     WHERE table_name = '{quoted}' ORDER BY ordinal_position"
                );
                session
                    .ask(&sql)
                    .and_then(|answer| write_all(answer, Format::Table, out))
            }
            Asked::Sql(sql) => {
                let _ = editor.add_history_entry(format!("{sql};").replace('\n', " "));
                session
                    .ask(&sql)
                    .and_then(|answer| write_all(answer, format, out))
            }
        };
        match answer {
            Err(QueryError::Write(error)) => return Err(QueryError::Write(error)),
            Err(error) => writeln!(out, "{error}").map_err(QueryError::Write)?,
            Ok(()) => {}
        }
    }
    if let Some(path) = history {
        let folder = path.parent().map(std::fs::create_dir_all);
        // That the history cannot be kept is no reason to fail.
        if folder.is_none_or(|made| made.is_ok()) {
            let _ = editor.save_history(&path);
        }
    }
    Ok(())
}

fn write_all(answer: super::Answer<'_>, format: Format, out: &mut dyn Write) -> Result<(), QueryError> {
    write(answer, format, out)
}

/// `$XDG_STATE_HOME/vaplan/history`, or the same below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("vaplan/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_goes_on_until_its_semicolon() {
        let mut typed = String::new();
        assert_eq!(asked(&mut typed, "SELECT 1"), Asked::More);
        assert_eq!(
            asked(&mut typed, "  + 1 ;"),
            Asked::Sql("SELECT 1\n+ 1".to_owned())
        );
        assert_eq!(typed, "");
        assert_eq!(asked(&mut typed, ";"), Asked::More);
    }

    #[test]
    fn a_line_with_a_dot_is_a_command_only_where_sql_has_not_begun() {
        let mut typed = String::new();
        assert_eq!(
            asked(&mut typed, ".schema labels;"),
            Asked::Schema("labels".to_owned())
        );
        assert_eq!(asked(&mut typed, ".schema"), Asked::Unknown(".schema".to_owned()));
        asked(&mut typed, "SELECT");
        assert_eq!(asked(&mut typed, ".5;"), Asked::Sql("SELECT\n.5".to_owned()));
    }
}
