//! Sizes from which objects are written and read in parts. Tests set smaller sizes by environment variables, so that small
//! stores take these ways, too.

use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::StoreError;

/// The whole number of an environment variable; `None` if the variable is not set. 0 is no such number.
///
/// # Errors
/// Returns [`StoreError::Variable`] with what was expected.
pub(super) fn whole_number<N: FromStr + PartialOrd + Default>(
    variable: &'static str,
    expected: &'static str,
) -> Result<Option<N>, StoreError> {
    let Some(value) = std::env::var_os(variable) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|text| text.parse().ok());
    match number.filter(|number| *number > N::default()) {
        Some(number) => Ok(Some(number)),
        None => Err(StoreError::Variable {
            variable,
            value: value.to_string_lossy().into_owned(),
            expected,
        }),
    }
}

fn size(variable: &str, usual: u64) -> u64 {
    let set = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    set.unwrap_or(usual).max(1)
}

/// A file of at most this size is read whole: one request for 4 MiB takes about as long as two requests for less. The
/// environment variable `VAPLAN_WHOLE_BYTES` replaces it.
pub(crate) fn whole_bytes() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| size("VAPLAN_WHOLE_BYTES", 4 << 20))
}

/// The size of a part that is written. An object of more than two parts is written in parts. The environment variable
/// `VAPLAN_PART_BYTES` replaces it; Amazon S3 takes no part of less than 5 MiB but the last one.
pub(crate) fn part_bytes() -> usize {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| size("VAPLAN_PART_BYTES", 8 << 20)) as usize
}
