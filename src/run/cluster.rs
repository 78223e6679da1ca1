//! A run as one of several processes.
//!
//! ```text
//!              process 0                                              others
//! label        reads and scores its shards, labels its buckets        the same, each for its own
//! train        trains, and predicts                                   wait
//! denoise      feeds the predictions, commits the flips               hold the graph of their videos, and label it
//! ```
//!
//! The other processes read the file of the run, the annotations and their features when process 0 begins to label. They do
//! not train: the training is on process 0, and gets the labels of all processes.

use vaplan_schemas::store::{Snapshot, Store};

use super::config::Config;
use super::{RunError, RunRequest, Todo};
use crate::engine::Listener;
use crate::engine::Progress;
use crate::engine::cluster::follow::{FollowedPlan, follow_labels};
use crate::engine::cluster::frame::Frame;
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::settings::ClusterSettings;
use crate::error::LabelError;
use crate::label::cluster::followed;
use crate::world::hash::{feed, hash};

/// The values that must be the same in all processes, each with its name.
pub(super) fn asked(request: &RunRequest, text: &str) -> RequestValues {
    RequestValues::from(
        [
            ("command", "run".to_owned()),
            ("workers", request.workers.to_string()),
            ("file of the run", hash(|sum| feed(sum, [text]))),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    )
}

/// Does the part of a process other than process 0, until process 0 has finished the run. Returns the latest version.
///
/// # Errors
/// Returns [`RunError::Label`] if the processes do not meet in time, have different requests or secrets, or lose a process, and
/// the errors of reading and labelling.
pub fn follow(
    request: &RunRequest,
    settings: &ClusterSettings,
    listener: &Listener,
) -> Result<u64, RunError> {
    let (config, text) = Config::read(&request.config)?;
    let mut member = ClusterMember::join(settings, asked(request, &text)).map_err(LabelError::from)?;
    member.control.lasts();
    let followed = steps(request, &config, &mut member, listener);
    Ok(member.end(followed)?)
}

fn steps(
    request: &RunRequest,
    config: &Config,
    member: &mut ClusterMember,
    listener: &Listener,
) -> Result<u64, LabelError> {
    loop {
        match member.control.next()? {
            (_, Frame::Waiting(holder)) => listener.tell(Progress::Waiting(holder)),
            (_, Frame::Held(_)) => {}
            (_, Frame::Go(go)) => {
                follow_labels(
                    member,
                    &config.store,
                    request.workers,
                    listener,
                    go,
                    |_: &Store, before| planned(request, before),
                )?;
            }
            (_, Frame::Graph { learning, workers }) => member.host((learning, workers), request.workers)?,
            (_, Frame::Finished(version)) => return Ok(version),
            (process, frame) => return Err(member.unexpected(process, &frame)),
        }
    }
}

/// Plans the labelling of the run. Process 0 has encoded the media, if the run has any.
fn planned(request: &RunRequest, before: Option<Snapshot>) -> Result<FollowedPlan, LabelError> {
    let todo = match Todo::new(request) {
        Ok(todo) => todo,
        Err(RunError::Label(error)) => return Err(error),
        Err(error) => return Err(LabelError::Change(crate::error::chain(&error))),
    };
    let todo = todo.ok_or_else(|| {
        LabelError::Change(
            "the media of the run are not encoded here, and they are for process 0: expected one store"
                .to_owned(),
        )
    })?;
    followed(todo.plan, before)
}
