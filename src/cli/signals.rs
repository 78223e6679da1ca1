//! Ends a command that runs until it is asked to stop.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Calls `end` on each SIGTERM and SIGINT, from a thread of its own.
pub(super) fn on_end(end: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).context("cannot wait for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| end()))
        .context("cannot start the thread that waits for signals")?;
    Ok(())
}
