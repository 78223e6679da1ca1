//! Runs the library without the GIL.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use vaplan::{CancelToken, Listener};
use vaplan_schemas::contain::contain;

use crate::error::{IntoException, VaplanError};

/// Time between two looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// Runs `job` without the GIL. A panic of the job becomes `VaplanError`.
pub(crate) fn work<T: Send, E: IntoException + Send>(
    py: Python<'_>,
    job: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    result(py.detach(|| contain(job)))
}

/// Runs `job` without the GIL in a thread of its own, and cancels the job on Ctrl-C. If Python's handler of the signal
/// raises, this function raises the same exception after the job ended.
pub(crate) fn interruptible<T: Send, E: IntoException + Send>(
    py: Python<'_>,
    job: impl FnOnce(&Listener) -> Result<T, E> + Send,
) -> PyResult<T> {
    let cancel = CancelToken::default();
    let listener = Listener::silent().with_cancel(cancel.clone());
    std::thread::scope(|scope| {
        let (done, mut ended) = channel();
        scope.spawn(move || done.send(contain(|| job(&listener))));
        let mut raised = None;
        loop {
            // The receiver moves into the closure and back, because a reference to it must not leave this thread.
            let (outcome, back) = py.detach(move || (ended.recv_timeout(LOOK), ended));
            ended = back;
            match outcome {
                Ok(outcome) => return raised.map_or_else(|| result(outcome), Err),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(VaplanError::new_err("the thread of the work ended"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = py.check_signals() {
                        cancel.cancel();
                        raised.get_or_insert(error);
                    }
                }
            }
        }
    })
}

/// Videos of one thread. Fewer videos are done before another thread has started.
const LEAST_VIDEOS: usize = 256;

/// Makes a value for each video, on all cores, and returns the values in the order of the videos. Each thread has its own
/// scratch memory.
///
/// # Errors
/// Returns the error of the first video that has one.
pub(crate) fn on_cores<S: Default, T: Send, E: Send>(
    videos: Range<usize>,
    make: impl Fn(&mut S, usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let make_all = |videos: Range<usize>| -> Result<Vec<T>, E> {
        let mut scratch = S::default();
        videos.map(|video| make(&mut scratch, video)).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(videos.len() / LEAST_VIDEOS);
    if threads < 2 {
        return make_all(videos);
    }
    let part = videos.len().div_ceil(threads);
    let make_all = &make_all;
    std::thread::scope(|scope| {
        let parts = videos.clone().step_by(part).map(|first| {
            let own = first..(first + part).min(videos.end);
            scope.spawn(move || make_all(own))
        });
        let parts: Vec<_> = parts.collect();
        let mut made = Vec::with_capacity(videos.len());
        for part in parts {
            let own = part
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.extend(own?);
        }
        Ok(made)
    })
}

fn result<T, E: IntoException>(outcome: Result<Result<T, E>, String>) -> PyResult<T> {
    match outcome {
        Ok(done) => done.map_err(IntoException::into_exception),
        Err(panic) => Err(VaplanError::new_err(format!(
            "vaplan stopped because of a bug, please report it: {panic}"
        ))),
    }
}
