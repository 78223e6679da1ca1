//! Panics of the parquet crate, turned into errors.
//!
//! Of 40,000 mutated files 18 panicked inside it; one such file must not take the run along.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `work`, gives what its panic said as an error, and prints nothing of it.
///
/// What `work` held when it panicked must not be used again.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        format!(
            "damaged: the reader gave up ({})",
            text.as_deref().unwrap_or("no reason given")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::contained;

    #[test]
    fn a_panic_becomes_its_message_and_the_next_one_is_loud_again() {
        assert_eq!(contained(|| 7), Ok(7));
        let panicked = contained(|| panic!("index {} out of range", 3)).unwrap_err();
        assert_eq!(panicked, "damaged: the reader gave up (index 3 out of range)");
        assert!(!super::QUIET.get());
    }
}
