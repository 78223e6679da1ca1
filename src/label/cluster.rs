//! One labelling run by several processes that see the same files.
//!
//! ```text
//! every process: plan ── meeting ── its shards: read, score, stage ══ passes: its candidates ─┬─ process 0: rows, commit
//!                 same plan? ┘                                     all staged ┘               └─ others: outcome to 0
//! process 0: store's lock, version before ─────────────────────────────────────┘
//! ```
//!
//! Process 0 leads the run. It holds the store's lock, assigns the shards to the processes, and tells them the passes when
//! all shards are staged. It gathers the labels of each pass, writes the tables, and commits. If a process is lost before
//! the last pass is labelled, the run ends on all processes and nothing is committed. The next run uses the staged scores
//! again, with any number of processes. If a process is lost after that, the run continues.
//!
//! The links between processes are in [`engine::cluster`](crate::engine::cluster).

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;

use super::plan::open;
use super::{LabelRequest, Preparation, STAGE};
use crate::engine::before::VersionBefore;
use crate::engine::cluster::control::Control;
use crate::engine::cluster::frame::Frame;
use crate::engine::cluster::hosts::Hosts;
use crate::engine::cluster::link::Link;
use crate::engine::cluster::meeting::{ClusterConnections, RequestValues, meet};
use crate::engine::flow::{self, FlowInput};
use crate::engine::plan::{Plan, weak_hash};
use crate::engine::score::{ReadReport, stage_shards};
use crate::engine::stage::Stage;
use crate::engine::workers::WorkerGroup;
use crate::engine::{LabelSummary, Listener, Progress};
use crate::error::LabelError;
use crate::error::cluster::ClusterError;
use crate::world::hash::{feed, hash};

/// The longest silence after which a process does not yet count as lost. Each process sends a message every second.
const SILENCE: Duration = Duration::from_secs(15);
/// The largest number of rows in one message.
const ROWS: usize = 4096;

/// The result of a process of a cluster.
#[derive(Clone, Debug)]
pub enum ClusterOutcome {
    /// This process committed, or the store already had the labels of this request.
    Led(Box<LabelSummary>),
    /// Process 0 committed, or the store already had the labels of this request.
    Followed {
        /// The store version with the labels.
        version: u64,
        /// The number of rejected rows that process 0 counted; `None` if the store already had the labels.
        rejects: Option<u64>,
    },
}

/// Labels a request as one of several processes. All processes must get the same request, except for its `command`.
///
/// A failed run leaves threads that wait, so the process must end after an error.
///
/// # Errors
/// Returns the same errors as [`run`](super::run), and [`LabelError::Cluster`] if the processes do not meet within
/// `timeout`, have different requests, or lose a process.
pub fn run(
    request: &LabelRequest,
    hosts: &Hosts,
    timeout: Duration,
    listener: &Listener,
) -> Result<ClusterOutcome, LabelError> {
    if hosts.processes() == 1 {
        return Ok(ClusterOutcome::Led(Box::new(super::run(request, listener)?)));
    }
    let plan = open(request)?;
    let mut meeting = meet(hosts, asked(request, hosts, &plan), timeout)?;
    let control = std::mem::take(&mut meeting.control);
    let mut control = Control::new(hosts, control, SILENCE.min(timeout)).map_err(|source| {
        let here = hosts.here();
        ClusterError::Listen { here, source }
    })?;
    let outcome = if hosts.process() == 0 {
        lead(request, plan, hosts, meeting, &mut control, listener)
    } else {
        follow(request, plan, hosts, meeting, &mut control, listener)
    };
    if let Err(error) = &outcome {
        control.say_all(&Frame::Failed(reason(hosts, error)));
    }
    control.farewell();
    outcome
}

/// The hashes and values that must be the same in all processes, each with its name.
fn asked(request: &LabelRequest, hosts: &Hosts, plan: &Plan) -> RequestValues {
    let features = |modality: Modality| {
        let shards = plan.shards.iter().filter(|shard| shard.modality == modality);
        let named: Vec<String> = shards.map(|shard| shard.shard.fingerprint()).collect();
        hash(|sum| feed(sum, named.iter().map(String::as_str)))
    };
    let text = |modality| plan.world.prompts_hash(modality);
    let of = |(name, value): (&str, String)| (name.to_owned(), value);
    RequestValues::from(
        [
            ("program version", env!("CARGO_PKG_VERSION").to_owned()),
            (
                "hosts",
                hash(|sum| feed(sum, hosts.addresses().iter().map(String::as_str))),
            ),
            ("workers", request.workers.to_string()),
            (
                "annotations and splits",
                weak_hash(&plan.world.classes, &plan.videos),
            ),
            ("rule, scales and thresholds", plan.world.settings_hash()),
            ("segment length", request.segment_seconds.to_string()),
            ("audio text", text(Modality::Audio)),
            ("visual text", text(Modality::Visual)),
            ("audio features", features(Modality::Audio)),
            ("visual features", features(Modality::Visual)),
            // This hash also covers dense events and notes.
            ("inputs together", plan.inputs.clone()),
        ]
        .map(of),
    )
}

fn lead(
    request: &LabelRequest,
    plan: Plan,
    hosts: &Hosts,
    meeting: ClusterConnections,
    control: &mut Control,
    listener: &Listener,
) -> Result<ClusterOutcome, LabelError> {
    let (session, links) = (meeting.session, connected(meeting, control)?);
    let store = Store::create(&request.store)?;
    let (to_lock, to_tell, say_all) = (store.clone(), listener.clone(), control.broadcaster());
    let lock = control.during(move || {
        to_lock.lock(&mut |holder| {
            to_tell.tell(Progress::Waiting(holder.to_owned()));
            say_all(&Frame::Waiting(holder.to_owned()));
        })
    })??;
    let ready = match super::begin(plan, store.clone(), lock)? {
        Preparation::Held(version) => {
            control.say_all(&Frame::Held(version.version));
            let summary = LabelSummary {
                version: *version,
                done: None,
            };
            return Ok(ClusterOutcome::Led(Box::new(summary)));
        }
        Preparation::Ready(ready) => ready,
    };
    let seal = seal(&store);
    fs::write(&seal, session.to_string()).map_err(|source| LabelError::Stage {
        action: "write",
        path: seal,
        source,
    })?;
    let (plan, stage) = (&ready.plan, &ready.stage);
    let staged = |shard: usize| stage.has(&plan.shards[shard].key);
    let mut shares = deal(plan.shards.len(), hosts.processes(), staged);
    for (process, share) in shares.iter().enumerate().skip(1) {
        control.say(process, &Frame::Go(share.clone()));
    }
    let own = positions(std::mem::take(&mut shares[0]));
    let mut report = staged_shards(request, plan, stage, own.clone(), control, listener)?;
    let mut missing: BTreeSet<usize> = (1..hosts.processes()).collect();
    while !missing.is_empty() {
        match control.next()? {
            (process, Frame::Staged) => drop(missing.remove(&process)),
            (_, Frame::Report(part)) => report.add(part),
            (process, frame) => return Err(unexpected(hosts, process, &frame)),
        }
    }
    let input = ready.input(own)?;
    control.say_all(&Frame::Passes(input.passes.clone()));
    let team = team(request, hosts, links, control);
    let summary = ready.commit(request, input, report, team, control, listener)?;
    let rejects = summary.done.as_ref().map_or(0, |done| done.rejects);
    control.say_all(&Frame::Committed(summary.version.version, rejects));
    Ok(ClusterOutcome::Led(Box::new(summary)))
}

fn follow(
    request: &LabelRequest,
    plan: Plan,
    hosts: &Hosts,
    meeting: ClusterConnections,
    control: &mut Control,
    listener: &Listener,
) -> Result<ClusterOutcome, LabelError> {
    let (session, links) = (meeting.session, connected(meeting, control)?);
    let share = loop {
        match control.next()? {
            (_, Frame::Waiting(holder)) => listener.tell(Progress::Waiting(holder)),
            (_, Frame::Held(version)) => {
                return Ok(ClusterOutcome::Followed {
                    version,
                    rejects: None,
                });
            }
            (_, Frame::Go(share)) => break share,
            (process, frame) => return Err(unexpected(hosts, process, &frame)),
        }
    };
    let elsewhere = || ClusterError::Store {
        store: request.store.clone(),
        leader: hosts.peer(0),
    };
    let store = Store::open(&request.store).map_err(|_| elsewhere())?;
    let sealed = fs::read_to_string(seal(&store)).unwrap_or_default();
    if sealed != session.to_string() {
        return Err(elsewhere().into());
    }
    let (plan, stage) = (Arc::new(plan), Stage::open(&store.staging_dir(STAGE))?);
    let share = positions(share);
    let report = staged_shards(request, &plan, &stage, share.clone(), control, listener)?;
    for part in parts(report) {
        control.say(0, &Frame::Report(part));
    }
    control.say(0, &Frame::Staged);
    let passes = match control.next()? {
        (_, Frame::Passes(passes)) => passes,
        (process, frame) => return Err(unexpected(hosts, process, &frame)),
    };
    let input = FlowInput {
        // Only process 0 reads the version before.
        before: Arc::new(VersionBefore::none(&plan, &stage, 0)),
        plan,
        stage,
        shards: share,
        passes,
    };
    let team = team(request, hosts, links, control);
    flow::label(input, team, control, &mut |_| Ok(()))?;
    control.say(0, &Frame::Ended);
    listener.tell(Progress::Committing);
    match control.next()? {
        (_, Frame::Committed(version, rejects)) => Ok(ClusterOutcome::Followed {
            version,
            rejects: Some(rejects),
        }),
        (process, frame) => Err(unexpected(hosts, process, &frame)),
    }
}

/// Makes the links of the dataflow to all other processes.
fn connected(
    meeting: ClusterConnections,
    control: &mut Control,
) -> Result<Vec<Option<TcpStream>>, LabelError> {
    Ok(control.during(move || meeting.data_links())??)
}

/// Reads, scores and stages the shards of this process.
fn staged_shards(
    request: &LabelRequest,
    plan: &Arc<Plan>,
    stage: &Stage,
    shards: Vec<usize>,
    control: &mut Control,
    listener: &Listener,
) -> Result<ReadReport, LabelError> {
    let (plan, stage, workers, listener) = (plan.clone(), stage.clone(), request.workers, listener.clone());
    control.during(move || stage_shards(&plan, &stage, &shards, workers, &listener))?
}

/// Makes the group of the workers of all processes.
fn team(
    request: &LabelRequest,
    hosts: &Hosts,
    links: Vec<Option<TcpStream>>,
    control: &Control,
) -> WorkerGroup {
    let sender = control.sender();
    let links = links.into_iter().enumerate();
    let links = links
        .map(|(peer, stream)| stream.map(|stream| Link::new(stream, peer, sender.clone())))
        .collect();
    WorkerGroup::of_cluster(request.workers, hosts.process(), links, sender)
}

fn positions(share: Vec<u32>) -> Vec<usize> {
    share.into_iter().map(|shard| shard as usize).collect()
}

/// A file by which processes recognise that they see the same store: it holds the number of the session.
fn seal(store: &Store) -> PathBuf {
    store.staging_dir(STAGE).join("session")
}

/// Distributes the positions of the shards over the processes. Staged shards and other shards are distributed
/// separately, because reading a staged shard is much less work.
fn deal(shards: usize, processes: usize, staged: impl Fn(usize) -> bool) -> Vec<Vec<u32>> {
    let mut shares = vec![Vec::new(); processes];
    let mut dealt = [0, 0];
    for shard in 0..shards {
        let next = &mut dealt[usize::from(staged(shard))];
        shares[*next % processes].push(shard as u32);
        *next += 1;
    }
    shares
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

fn unexpected(hosts: &Hosts, process: usize, frame: &Frame) -> LabelError {
    let mut said = format!("{frame:?}");
    said.truncate(said.find('(').unwrap_or(said.len()));
    LabelError::Cluster(ClusterError::Lost {
        peer: hosts.peer(process),
        why: format!("it said {said} out of turn"),
    })
}

/// The text of an error for the other processes.
fn reason(hosts: &Hosts, error: &LabelError) -> String {
    let mut reason = crate::error::chain(error);
    let leads = hosts.process() == 0;
    let named = matches!(
        error,
        LabelError::Cluster(
            ClusterError::Lost { .. } | ClusterError::Failed { .. } | ClusterError::Absent { .. }
        )
    );
    // Process 0 adds which process failed, if the error does not say it.
    if leads && !named {
        reason = format!("{} failed: {reason}", hosts.here());
    }
    reason
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::{RejectKind, RejectRow};

    use super::*;
    use crate::engine::unknown::UnknownVideos;

    #[test]
    fn every_shard_is_dealt_once_and_both_kinds_evenly() {
        let staged = |shard: usize| shard.is_multiple_of(2) && shard < 12;
        for processes in 1..5 {
            let shares = deal(20, processes, staged);
            let mut all: Vec<u32> = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..20).collect::<Vec<_>>(), "{processes} processes");
            for kind in [true, false] {
                let sizes = shares.iter().map(|share| {
                    let of_kind = share.iter().filter(|&&shard| staged(shard as usize) == kind);
                    of_kind.count()
                });
                let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
                assert!(most - least <= 1, "{processes} processes: {least} to {most}");
            }
        }
    }

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
