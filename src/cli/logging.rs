//! Logs on standard error: text for people, or a JSON object a line.

use tracing_subscriber::EnvFilter;

use super::{Global, LogFormat};

/// Starts logging; `VAPLAN_LOG` (`info`, `vaplan=debug,deltalake=info`, ...) says how much.
pub(super) fn start(global: &Global) {
    // As text, what a command tells is printed by itself; as JSON it is a log line like any other.
    let usual = match (global.quiet, global.log_format) {
        (true, _) => "error",
        (false, LogFormat::Text) => "warn",
        (false, LogFormat::Json) => "warn,vaplan=info",
    };
    let filter = EnvFilter::try_from_env("VAPLAN_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where logging was started before: `demo` runs commands within a command.
    let _ = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
