//! An error and its causes as one line of text.

use std::error::Error;

/// The message of an error, followed by the messages of its sources, as `{:#}` of anyhow prints them.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `a`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_told_from_the_outermost_in() {
        let outer = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(chain(&outer), "cannot read `a`: disk on fire");
    }
}
