//! Logs on standard error: text for people, or a JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::{Global, LogFormat};

/// Starts logging; `VAPLAN_LOG` (`info`, `vaplan=debug,deltalake=info`, ...) says how much.
pub(super) fn start(global: &Global) {
    // As text, what a command tells is printed by itself; as JSON it is a log line like any other.
    // symphonia logs oddities of files that it reads well. What it cannot read is an error of ours.
    let usual = match (global.quiet, global.log_format) {
        (true, _) => "error,symphonia=off",
        (false, LogFormat::Text) => "warn,symphonia=off",
        (false, LogFormat::Json) => "warn,vaplan=info,symphonia=off",
    };
    let filter = EnvFilter::try_from_env("VAPLAN_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // It would report a failed write by `eprintln!`, which panics if standard error is gone.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // Fails only where logging was started before: `demo` runs commands within a command.
    let _ = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
