//! Errors of the engine, and an error as one line of text.

pub mod cluster;
mod engine;

use std::error::Error;

pub use engine::LabelError;

/// The message with those of its sources, as `{:#}` of anyhow gives it.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_from_the_outermost_in() {
        let inner = std::io::Error::other("disk on fire");
        let outer = crate::ingest::IngestError::io("read", std::path::Path::new("a"))(inner);
        assert_eq!(chain(&outer), "cannot read `a`: disk on fire");
    }
}
