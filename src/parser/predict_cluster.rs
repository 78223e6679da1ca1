//! Predicts as one of several processes.
//!
//! ```text
//! process 0    opens the features ─ Go ─┬─ predicts its batches ──┬─ lock, begins the commit ─ Record ─┬─ commits
//! others                                └─ predict their batches ─┘ Predicted                          └─ write theirs
//! ```
//!
//! Batches are dealt out in turn. Each process writes its own npy files, or its own data files of the epoch.

use sha2::{Digest, Sha256};
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Severity;
use vaplan_schemas::store::{Commit, PartWriter, Store};

use super::error::TrainError;
use super::predict::{PredictRequest, PredictSummary, run_in};
use super::probabilities::VideoProbabilities;
use super::record::append_predictions;
use crate::engine::cluster::frame::{Frame, Go, RecordedEpoch};
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::settings::ClusterSettings;
use crate::engine::tracks::TrackCounts;
use crate::error::LabelError;
use crate::error::cluster::ClusterError;
use crate::world::hash::{feed, hash};

/// The result of a process of a cluster.
#[derive(Clone, Debug)]
pub enum PredictOutcome {
    /// This process committed, or has the counts of all processes.
    Led(Box<PredictSummary>),
    /// Process 0 has the counts.
    Followed {
        /// Number of videos that this process predicted.
        videos: usize,
        /// Number of rejected rows, and of videos that were left out.
        rejects: u64,
    },
}

/// Predicts as one of several processes. All processes must get the same request, except for its `command`.
///
/// # Errors
/// Returns the same errors as [`run`](super::predict::run), and [`TrainError::Label`] if the processes do not meet in time,
/// have different requests or secrets, or lose a process.
pub fn run(
    request: &PredictRequest,
    settings: &ClusterSettings,
    on_videos: &mut dyn FnMut(u64, u64),
) -> Result<PredictOutcome, TrainError> {
    let member = ClusterMember::join(settings, asked(request)?).map_err(LabelError::from)?;
    let mut member = Some(member);
    let outcome = run_in(request, &mut member, on_videos);
    if let Some(member) = member {
        if let Err(error) = &outcome {
            member.fail(&crate::error::chain(error), is_named(error));
        }
        member.leave();
    }
    outcome
}

/// The values that must be the same in all processes, each with its name.
fn asked(request: &PredictRequest) -> Result<RequestValues, TrainError> {
    let path = &request.checkpoint;
    let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
    let checkpoint = Sha256::digest(&bytes);
    let checkpoint = checkpoint.iter().map(|byte| format!("{byte:02x}")).collect();
    let inputs = format!(
        "{:?}",
        (
            &request.audio,
            &request.visual,
            &request.clips,
            &request.columns,
            &request.heads
        )
    );
    Ok(RequestValues::from([
        ("checkpoint".to_owned(), checkpoint),
        ("features".to_owned(), hash(|sum| feed(sum, [&*inputs]))),
        (
            "target".to_owned(),
            hash(|sum| feed(sum, [&*format!("{:?}", request.target)])),
        ),
    ]))
}

/// Whether the text of the error names the process that failed.
fn is_named(error: &TrainError) -> bool {
    let named = |error: &ClusterError| {
        matches!(
            error,
            ClusterError::Lost { .. } | ClusterError::Failed { .. } | ClusterError::Absent { .. }
        )
    };
    matches!(error, TrainError::Label(LabelError::Cluster(error)) if named(error))
}

fn next(member: &mut ClusterMember) -> Result<(usize, Frame), TrainError> {
    Ok(member.control.next().map_err(LabelError::from)?)
}

/// In process 0: has the other processes begin, on this version of the store.
pub(super) fn go(member: &mut ClusterMember, version: u64) {
    member.control.say_all(&Frame::Go(Go {
        before: Some(version),
        plan: String::new(),
        shards: Vec::new(),
        denoised: Default::default(),
    }));
}

/// In all other processes: waits for the version of the store.
pub(super) fn version(member: &mut ClusterMember) -> Result<StoreVersion, TrainError> {
    match next(member)? {
        (
            _,
            Frame::Go(Go {
                before: Some(version),
                ..
            }),
        ) => Ok(StoreVersion(version)),
        (process, frame) => Err(member.unexpected(process, &frame).into()),
    }
}

/// In process 0: waits until the other processes have predicted, and returns the number of their videos.
pub(super) fn others(member: &mut ClusterMember) -> Result<usize, TrainError> {
    let mut videos = 0;
    for _ in 1..member.hosts().processes() {
        match next(member)? {
            (_, Frame::Predicted(own)) => videos += own as usize,
            (process, frame) => return Err(member.unexpected(process, &frame).into()),
        }
    }
    Ok(videos)
}

/// In process 0: has the other processes write their predictions, and takes their files into the commit.
pub(super) fn gather(
    member: &mut ClusterMember,
    commit: &mut Commit<'_>,
    epoch: u64,
) -> Result<(), TrainError> {
    member.control.say_all(&Frame::Record(RecordedEpoch {
        version: commit.version().0,
        buckets: commit.buckets(),
        epoch,
    }));
    for _ in 1..member.hosts().processes() {
        match next(member)? {
            (_, Frame::WroteTracks(part)) => commit.adopt(part.1)?,
            (process, frame) => return Err(member.unexpected(process, &frame).into()),
        }
    }
    Ok(())
}

/// In process 0: tells the other processes the end of the run.
pub(super) fn led(member: &mut Option<ClusterMember>, summary: PredictSummary) -> PredictOutcome {
    if let Some(member) = member {
        let rejected = summary.rejects.iter();
        let rejects = rejected.filter(|row| row.severity == Severity::Reject).count() + summary.left_out;
        member.control.say_all(&Frame::Committed(0, rejects as u64));
    }
    PredictOutcome::Led(Box::new(summary))
}

/// In all other processes: tells process 0 how many videos were predicted, and waits for the end of the run.
pub(super) fn told(member: &mut ClusterMember, videos: usize) -> Result<PredictOutcome, TrainError> {
    member.control.say(0, &Frame::Predicted(videos as u64));
    match next(member)? {
        (_, Frame::Committed(_, rejects)) => Ok(PredictOutcome::Followed { videos, rejects }),
        (process, frame) => Err(member.unexpected(process, &frame).into()),
    }
}

/// In all other processes: tells process 0 how many videos were predicted, writes their predictions when process 0 has begun
/// the commit, and waits for the end of the run.
pub(super) fn record(
    member: &mut ClusterMember,
    store: &Store,
    predicted: &[VideoProbabilities],
) -> Result<PredictOutcome, TrainError> {
    let videos = predicted.len();
    member.control.say(0, &Frame::Predicted(videos as u64));
    loop {
        match next(member)? {
            (_, Frame::Record(epoch)) => {
                let name = member.part_name();
                let mut part = PartWriter::begin(store, StoreVersion(epoch.version), epoch.buckets, &name)?;
                let rows: Vec<&VideoProbabilities> = predicted.iter().collect();
                append_predictions(&mut part, epoch.epoch, &rows)?;
                let wrote = (TrackCounts::default(), part.finish()?);
                member.control.say(0, &Frame::WroteTracks(Box::new(wrote)));
            }
            (_, Frame::Committed(_, rejects)) => return Ok(PredictOutcome::Followed { videos, rejects }),
            (process, frame) => return Err(member.unexpected(process, &frame).into()),
        }
    }
}
