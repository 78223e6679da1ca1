//! What the processes other than process 0 do when all videos are labelled.
//!
//! ```text
//! wait for Go ─ plan the same run ─ stage own shards ─ Staged ─ wait for Passes
//!   ─ label all passes with the others, write and sync own buckets ─ Wrote ─ wait for Committed
//! ```

use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{PredictionTrack, UserLabelRow};
use vaplan_schemas::store::{PartWriter, Snapshot, Store};

use super::frame::{Frame, Go, WrittenPart};
use super::member::{ClusterMember, positions};
use crate::engine::before::VersionBefore;
use crate::engine::commit::PassTotals;
use crate::engine::flow::{self, FlowInput};
use crate::engine::group::TracksOfVersion;
use crate::engine::plan::Plan;
use crate::engine::score::ReadReport;
use crate::engine::share::BucketShare;
use crate::engine::stage::Stage;
use crate::engine::tracks::TrackCounts;
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::error::cluster::ClusterError;

/// The largest number of rows in one message.
const ROWS: usize = 4096;

/// The end of a run, as a process other than process 0 sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The store version with the labels.
    pub(crate) version: u64,
    /// The number of rejected rows that process 0 counted; `None` if the store already had the labels.
    pub(crate) rejects: Option<u64>,
}

/// The run that a process plans to label together with process 0.
pub(crate) struct FollowedPlan {
    pub(crate) plan: Plan,
    /// Name of the folder of staged shards.
    pub(crate) stage: &'static str,
    /// The version before, and its classes.
    pub(crate) before: Option<(Snapshot, Vec<Arc<str>>)>,
    /// User labels that replace those of the version before.
    pub(crate) user_labels: Option<Vec<UserLabelRow>>,
    /// Predictions that are added to those of the version before.
    pub(crate) predictions: Vec<PredictionTrack>,
    /// Whether to count the flips of PLD.
    pub(crate) flips: bool,
}

/// Does what process 0 asks for. `plan` plans a run that labels all videos on the version before. `tracks` labels tracks of
/// all videos anew in some buckets; it gets the hash of what process 0 labels, and returns `None` if it would label others.
///
/// # Errors
/// Returns [`LabelError::Cluster`] if a process is lost or fails, or if this process plans another run than process 0, and
/// the errors of reading, labelling and writing.
pub(crate) fn follow(
    member: &mut ClusterMember,
    store: &Path,
    workers: usize,
    listener: &Listener,
    plan: impl FnOnce(&Store, Option<Snapshot>) -> Result<FollowedPlan, LabelError>,
    tracks: impl FnOnce(&Snapshot, &str, BucketShare, &mut PartWriter) -> Result<Option<TrackCounts>, LabelError>,
) -> Result<Followed, LabelError> {
    let go = loop {
        match member.control.next()? {
            (_, Frame::Waiting(holder)) => listener.tell(Progress::Waiting(holder)),
            (_, Frame::Held(version)) => {
                return Ok(Followed {
                    version,
                    rejects: None,
                });
            }
            (_, Frame::Committed(version, rejects)) => {
                return Ok(Followed {
                    version,
                    rejects: Some(rejects),
                });
            }
            (_, Frame::Go(go)) => break go,
            (_, Frame::Tracks(version)) => return follow_tracks(member, store, workers, version, tracks),
            (process, frame) => return Err(member.unexpected(process, &frame)),
        }
    };
    follow_labels(member, store, workers, listener, go, plan)
}

/// Labels all videos together with process 0, which has begun. `plan` plans the run on the version before.
///
/// # Errors
/// Returns the errors of [`follow`].
pub(crate) fn follow_labels(
    member: &mut ClusterMember,
    store: &Path,
    workers: usize,
    listener: &Listener,
    go: Go,
    plan: impl FnOnce(&Store, Option<Snapshot>) -> Result<FollowedPlan, LabelError>,
) -> Result<Followed, LabelError> {
    let store = member.open_sealed(store)?;
    let before = go
        .before
        .map(|version| store.at_version(Some(StoreVersion(version))));
    let FollowedPlan {
        mut plan,
        stage,
        before,
        user_labels,
        predictions,
        flips,
    } = plan(&store, before.transpose()?)?;
    (plan.world.denoising, plan.world.active) = go.denoised;
    if plan.hash() != go.plan {
        let (here, leader) = (member.hosts().here(), member.hosts().peer(0));
        return Err(ClusterError::Plan { here, leader }.into());
    }
    let (plan, stage) = (Arc::new(plan), Stage::open(&store.staging_dir(stage))?);
    let shards = positions(go.shards);
    let report = member.stage(&plan, &stage, shards.clone(), workers, listener)?;
    send_report(member, report);
    member.control.say(0, &Frame::Staged);

    let version = match member.control.next()? {
        (_, Frame::Passes(passes)) => passes,
        (process, frame) => return Err(member.unexpected(process, &frame)),
    };
    listener.tell(Progress::Committing);
    let share = member.share(workers, version.buckets);
    let mut opened = match &before {
        Some((snapshot, classes)) => {
            VersionBefore::open(snapshot, classes, &plan, &stage, version.buckets, share)?
        }
        None => VersionBefore::none(&plan, &stage, version.buckets, share),
    };
    if let Some(rows) = user_labels {
        opened.replace_user_labels(&rows)?;
    }
    opened.add_predictions(predictions)?;
    let opened = Arc::new(opened);
    let input = FlowInput {
        plan: plan.clone(),
        stage,
        shards,
        passes: version.passes,
        before: opened.clone(),
        share,
    };
    let name = member.part_name();
    let mut part = PartWriter::begin(&store, StoreVersion(version.version), version.buckets, &name)?;
    let mut totals = PassTotals::new(flips);
    let team = member.workers(workers)?;
    flow::label(input, team, member, &mut |pass| {
        listener.check()?;
        totals.write(&mut part, &plan, opened.classes(), pass)
    })?;
    let files = part.finish()?;
    let rejects = std::mem::take(&mut totals.rejects);
    send_report(
        member,
        ReadReport {
            rejects,
            ..ReadReport::default()
        },
    );
    member.log_traffic();
    member
        .control
        .say(0, &Frame::Wrote(Box::new(WrittenPart { totals, files })));
    committed(member)
}

/// Labels tracks of all videos anew together with process 0.
fn follow_tracks(
    member: &mut ClusterMember,
    store: &Path,
    workers: usize,
    version: TracksOfVersion,
    tracks: impl FnOnce(&Snapshot, &str, BucketShare, &mut PartWriter) -> Result<Option<TrackCounts>, LabelError>,
) -> Result<Followed, LabelError> {
    let store = member.open_sealed(store)?;
    let snapshot = store.at_version(Some(StoreVersion(version.before)))?;
    let share = member.share(workers, version.buckets);
    let name = member.part_name();
    let mut part = PartWriter::begin(&store, StoreVersion(version.version), version.buckets, &name)?;
    let Some(counts) = tracks(&snapshot, &version.plan, share, &mut part)? else {
        let (here, leader) = (member.hosts().here(), member.hosts().peer(0));
        return Err(ClusterError::Plan { here, leader }.into());
    };
    let files = part.finish()?;
    let wrote = Frame::WroteTracks(Box::new((counts, files)));
    member.control.say(0, &wrote);
    committed(member)
}

/// Waits until process 0 has committed.
fn committed(member: &mut ClusterMember) -> Result<Followed, LabelError> {
    match member.control.next()? {
        (_, Frame::Committed(version, rejects)) => Ok(Followed {
            version,
            rejects: Some(rejects),
        }),
        (process, frame) => Err(member.unexpected(process, &frame)),
    }
}

fn send_report(member: &ClusterMember, report: ReadReport) {
    for part in parts(report) {
        member.control.say(0, &Frame::Report(part));
    }
}

/// Divides a report into pieces of at most [`ROWS`] rows.
fn parts(report: ReadReport) -> impl Iterator<Item = ReadReport> {
    let mut rejects = report.rejects.into_iter();
    let mut unknown = report.unknown;
    std::iter::from_fn(move || {
        let part = ReadReport {
            rejects: rejects.by_ref().take(ROWS).collect(),
            unknown: std::mem::take(&mut unknown),
        };
        (part != ReadReport::default()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::{RejectKind, RejectRow};

    use super::*;
    use crate::engine::unknown::UnknownVideos;

    #[test]
    fn parts_add_up_to_what_was_read() {
        let row = |nth: usize| RejectRow::note(RejectKind::EmptyFile, format!("{nth}.npy"), "has no rows");
        let rejects: Vec<_> = (0..2 * ROWS + 1).map(row).collect();
        let mut unknown = UnknownVideos::default();
        unknown.note("clip", "a.parquet");
        let report = ReadReport {
            rejects: rejects.clone(),
            unknown: unknown.clone(),
        };
        let mut sum = ReadReport::default();
        let mut count = 0;
        for part in parts(report) {
            count += 1;
            sum.add(part);
        }
        assert_eq!((count, sum.rejects, sum.unknown), (3, rejects, unknown));
    }
}
