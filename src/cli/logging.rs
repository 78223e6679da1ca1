//! Logs on standard error: text for people, or one JSON object per line.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use vaplan_schemas::storage::redacted;

use super::{Global, LogFormat};

/// Writes log lines without users, passwords and queries of URLs. Libraries log URLs whole, for example a proxy of the
/// environment. The logger writes each line by one call.
struct WithoutSecrets<W>(W);

impl<W: Write> Write for WithoutSecrets<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(redacted(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Starts logging. The variable `VAPLAN_LOG` sets the level (`info`, `vaplan=debug,deltalake=info`, ...).
pub(super) fn start(global: &Global) {
    // With format text, a command prints its progress messages without the logger. With format JSON, they are log lines
    // of level info, so that level is on. symphonia logs remarks about files that it reads without problems, so its log
    // is off. A file that it cannot read becomes a rejected row of ours.
    let usual = match (global.quiet, global.log_format) {
        (true, _) => "error,symphonia=off",
        (false, LogFormat::Text) => "warn,symphonia=off",
        (false, LogFormat::Json) => "warn,vaplan=info,symphonia=off",
    };
    let filter = EnvFilter::try_from_env("VAPLAN_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // The logger would report a failed write by `eprintln!`, which panics if standard error is closed.
        .log_internal_errors(false)
        .with_writer(|| WithoutSecrets(io::stderr()));
    // This fails only if logging was started before, because `demo` runs commands within a command.
    let _ = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_of_any_library_has_no_password() {
        let mut out = Vec::new();
        let line =
            "DEBUG reqwest::connect: starting new connection: http://me:hunter2@127.0.0.1:9/?sig=hunter2\n";
        WithoutSecrets(&mut out).write_all(line.as_bytes()).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert_eq!(
            said,
            "DEBUG reqwest::connect: starting new connection: http://127.0.0.1:9/\n"
        );
    }
}
