//! Progress on standard error: a bar on a terminal, otherwise one line every 10 s.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stderr::tell;
use super::{Global, LogFormat};

/// Time between two lines if standard error is no terminal or log lines are JSON.
const EVERY: Duration = Duration::from_secs(10);

/// Progress of one task.
pub(super) struct Bar {
    bar: ProgressBar,
    what: &'static str,
    unit: &'static str,
    quiet: bool,
    terminal: bool,
    format: LogFormat,
    last: Mutex<Instant>,
}

impl Bar {
    /// Creates the bar of a task `what`, which is counted in `unit`.
    pub(super) fn new(what: &'static str, unit: &'static str, global: &Global) -> Bar {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new(0);
        let hidden = global.quiet || !terminal || global.log_format == LogFormat::Json;
        bar.set_draw_target(if hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        let style =
            ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg} {elapsed} (left {eta})")
                .expect("the template is right")
                .progress_chars("=> ");
        bar.set_style(style);
        bar.set_prefix(what);
        bar.set_message(unit);
        Bar {
            bar,
            what,
            unit,
            quiet: global.quiet,
            terminal,
            format: global.log_format,
            last: Mutex::new(Instant::now()),
        }
    }

    /// Sets the number of units of the whole task.
    pub(super) fn total(&self, total: u64) {
        self.bar.set_length(total);
        super::metrics::set_total(total);
    }

    /// Adds units that were done.
    pub(super) fn add(&self, done: u64) {
        self.bar.inc(done);
        super::metrics::add_done(done);
        let Ok(mut last) = self.last.lock() else { return };
        let lines = !self.terminal || self.format == LogFormat::Json;
        if lines && last.elapsed() >= EVERY {
            *last = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
            self.say(&format!("{} {at} of {of} {}", self.what, self.unit));
        }
    }

    /// Sets the message beside the bar.
    pub(super) fn message(&self, message: impl Into<std::borrow::Cow<'static, str>>) {
        self.bar.set_message(message);
    }

    /// Prints a line above the bar, unless the command is quiet.
    pub(super) fn say(&self, line: &str) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, LogFormat::Text) => self.bar.suspend(|| tell(line)),
            (false, LogFormat::Json) => tracing::info!("{line}"),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
