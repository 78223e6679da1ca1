//! The result of a process of a cluster.

use super::follow::Followed;

/// The result of a process of a cluster. `S` is the result of a process that works alone.
#[derive(Clone, Debug)]
pub enum ClusterOutcome<S> {
    /// This process committed, or there was nothing to do.
    Led(Box<S>),
    /// Process 0 committed, or there was nothing to do.
    Followed {
        /// The store version with the labels.
        version: u64,
        /// The number of rejected rows that process 0 counted; `None` if there was nothing to do.
        rejects: Option<u64>,
    },
}

impl<S> From<Followed> for ClusterOutcome<S> {
    fn from(Followed { version, rejects }: Followed) -> ClusterOutcome<S> {
        ClusterOutcome::Followed { version, rejects }
    }
}
