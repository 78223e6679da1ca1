//! Containing panics: [`contain`] turns a panic of one piece of work into an error value, and the caller goes on.
//!
//! Two kinds of work are contained:
//!
//! - Decoding a file with a crate that can panic on damaged bytes. The `parquet` crate panicked on 18 of 40,000
//!   mutated files. The caller reports the file as damaged.
//! - The work of a thread that another thread waits for: an encoder session or a training epoch. The caller sends the
//!   message to the waiting thread, which then ends with an error. Without the message, the waiting thread would wait
//!   forever.
//!
//! Nothing else is contained. A panic elsewhere is a bug of the program and ends the process.
//!
//! # Panic messages
//! The standard library calls the process's panic hook before it unwinds, and the default hook prints the message.
//! [`contain`] does not touch the hook, because the hook belongs to the whole process and a library must not replace
//! the hook of the program that embeds it. A program that wants no message for contained panics installs a hook that
//! asks [`is_contained`] first; the `vaplan` program does so in `src/cli/panics.rs`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and turns a panic in it into an error that holds the message of the panic.
///
/// A panic can leave values that `work` borrows mutably half changed. Callers must drop such values.
///
/// ```
/// use vaplan_schemas::contain::contain;
/// let outcome = contain(|| -> u32 { panic!("bad page") });
/// assert_eq!(outcome, Err("bad page".to_owned()));
/// assert_eq!(contain(|| 7), Ok(7));
/// ```
///
/// # Errors
/// Returns the message of the panic if `work` panics.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    outcome.map_err(
        |payload| match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "panicked with a value that is not text".to_owned(),
        },
    )
}

/// Returns whether the current thread is running the work of a [`contain`] call. A panic hook calls this function to
/// leave out messages that the caller of [`contain`] reports.
///
/// ```
/// use vaplan_schemas::contain::{contain, is_contained};
/// assert!(!is_contained());
/// assert_eq!(contain(is_contained), Ok(true));
/// assert!(!is_contained());
/// ```
pub fn is_contained() -> bool {
    CONTAINED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_within_a_contained_panic_leaves_the_outer_work_contained() {
        let outer = contain(|| {
            let inner = contain(|| -> u32 { panic!("inner {}", 1) });
            (inner, is_contained())
        });
        assert_eq!(outer, Ok((Err("inner 1".to_owned()), true)));
        assert!(!is_contained());
    }

    #[test]
    fn a_panic_without_text_says_so() {
        let outcome = contain(|| std::panic::panic_any(7_u32));
        assert_eq!(
            outcome,
            Err::<(), _>("panicked with a value that is not text".to_owned())
        );
    }
}
