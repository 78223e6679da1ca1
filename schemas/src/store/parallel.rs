//! Works on many files with as many threads as there are cores, but at most [`THREADS`]. Files of an object store get more
//! threads, because each waits for a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::storage::Storage;

/// The largest number of threads that work at once. Each thread has at most one file open, so that reading and
/// writing tables needs a bounded number of descriptors on a machine of any size.
pub(super) const THREADS: usize = 64;

/// The number of threads that wait for requests to an object store at once. They wait most of the time, so there can be
/// more of them than cores.
const WAITING: usize = 32;

/// Calls `work` with every number below `count`. Returns the results in order, or the error of one of the calls.
pub(super) fn on_all_cores<R: Send, E: Send>(
    storage: &Arc<dyn Storage>,
    count: usize,
    work: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = match storage.is_remote() {
        true => cores().max(WAITING),
        false => cores(),
    };
    on_threads(threads, count, work)
}

/// Calls `work` with every number below `count`, with as many threads as there are cores, and returns the results in order.
///
/// # Errors
/// Returns the error of one of the calls.
pub fn on_every_core<R: Send, E: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    on_threads(cores(), count, work)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn on_threads<R: Send, E: Send>(
    threads: usize,
    count: usize,
    work: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = threads.min(count).min(THREADS);
    // Starting a thread costs more than the work on one file.
    if threads <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push((number, work(number)?));
        }
    };
    let parts: Vec<Result<Vec<(usize, R)>, E>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::with_capacity(count);
    for part in parts {
        all.extend(part?);
    }
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, done)| done).collect())
}
