//! Logs on standard error: text for people, or one JSON object per line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::{Global, LogFormat};

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
        .with_writer(std::io::stderr);
    // This fails only if logging was started before, because `demo` runs commands within a command.
    let _ = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
