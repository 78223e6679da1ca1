//! A change of a store as one of several processes.
//!
//! Process 0 holds the store's lock and decides what the change touches. If the change touches every score, all processes
//! read, score, label and write together, as `vaplan label` does. If the change touches a part of the store, process 0
//! makes it, and the others wait for its result.

use super::{RelabelRequest, RelabelSummary};
use crate::engine::Listener;
use crate::engine::change;
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::LabelError;
use crate::world::changes::Changes;
use crate::world::hash::{feed, hash};

/// Makes a change as one of several processes. All processes must get the same change, except for its `command`, author
/// and note.
///
/// A failed run leaves threads that wait, so the process must end after an error.
///
/// # Errors
/// Returns the same errors as [`run`](super::run), and [`LabelError::Cluster`] if the processes do not meet in time, have
/// different changes or secrets, or lose a process.
pub fn run(
    request: &RelabelRequest,
    settings: &ClusterSettings,
    listener: &Listener,
) -> Result<ClusterOutcome<RelabelSummary>, LabelError> {
    let mut member = ClusterMember::join(settings, asked(request))?;
    let outcome = match member.leads() {
        true => change::run_in(request, &mut member, listener)
            .map(|summary| ClusterOutcome::Led(Box::new(summary))),
        false => change::follow(request, &mut member, listener).map(ClusterOutcome::from),
    };
    member.end(outcome)
}

/// The values that must be the same in all processes, each with its name.
fn asked(request: &RelabelRequest) -> RequestValues {
    let changes = Changes {
        author: None,
        note: None,
        ..request.changes.clone()
    };
    RequestValues::from(
        [
            ("workers", request.workers.to_string()),
            ("changes", hash(|sum| feed(sum, [&*format!("{changes:?}")]))),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}
