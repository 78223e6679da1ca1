//! The async runtime of all stores of the process.

use std::io;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::StoreError;

/// The runtime is never dropped, because dropping a runtime inside async code panics.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vaplan-store")
        .enable_all()
        .build()
});

/// The runtime, on which connections and uploads run.
///
/// # Errors
/// Returns [`StoreError::Io`] if the operating system refuses to start its threads.
pub(crate) fn runtime() -> Result<&'static Runtime, StoreError> {
    RUNTIME.as_ref().map_err(|error| StoreError::Io {
        action: "start threads to read",
        path: "store".into(),
        source: io::Error::new(error.kind(), error.to_string()),
    })
}

/// Runs `work` to its end and waits for it. Async callers can call this too: blocking on a runtime inside async code
/// panics, so the work then runs on a thread of its own.
///
/// # Errors
/// As [`runtime`].
pub(crate) fn run<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, StoreError> {
    let runtime = runtime()?;
    if Handle::try_current().is_err() {
        return Ok(runtime.block_on(work));
    }
    let done = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join());
    Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}
