//! One labelling run by several processes that see the same files.
//!
//! ```text
//! every process: plan ── meeting ── data links ─┬─ dataflow, each process its shards ─┬─ process 0: commit
//!                 same plan? ┘                  │                                     └─ others: their parts to it
//! process 0: store's lock, version before ──────┘
//! ```
//!
//! Process 0 leads: it holds the store's lock, says which process reads which shard, gets what the tables need, and
//! commits. A process that is lost before it gave its part ends the run on all others; nothing is committed then, and
//! what was staged is taken up by the next run, of however many processes. One lost after that takes nothing away.
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
use super::{Begun, LabelRequest, STAGE};
use crate::engine::cluster::control::Control;
use crate::engine::cluster::frame::{Frame, ReadFrame};
use crate::engine::cluster::hosts::Hosts;
use crate::engine::cluster::link::Link;
use crate::engine::cluster::meeting::{Asked, Meeting, meet};
use crate::engine::flow::{self, FlowInput, Results};
use crate::engine::plan::{Plan, weak_hash};
use crate::engine::stage::Stage;
use crate::engine::workers::Team;
use crate::engine::{LabelSummary, Listener, Progress};
use crate::error::LabelError;
use crate::error::cluster::ClusterError;
use crate::world::hash::{feed, hash};
use crate::world::kept::Kept;

/// Longest silence of a process that is not lost: it says something every second.
const SILENCE: Duration = Duration::from_secs(15);
/// Rows in one message, at most.
const ROWS: usize = 4096;

/// What a process of a cluster knows at the end.
#[derive(Clone, Debug)]
pub enum ClusterOutcome {
    /// This process committed, or found the answer in the store.
    Led(Box<LabelSummary>),
    /// Process 0 did.
    Followed {
        /// The version that holds the labels.
        version: u64,
        /// Rows that process 0 counted as left out; none: the store held the answer already.
        rejects: Option<u64>,
    },
}

/// Labels what is asked as one of several processes; each is given the same request but for its `command`.
///
/// A failed run leaves threads of its own waiting: the process is to end.
///
/// # Errors
/// As [`run`](super::run), and [`LabelError::Cluster`] where the processes do not come together within `timeout`,
/// were asked different things, or one of them is lost.
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

/// What all processes must agree on, by what it is called.
fn asked(request: &LabelRequest, hosts: &Hosts, plan: &Plan) -> Asked {
    let features = |modality: Modality| {
        let shards = plan.shards.iter().filter(|shard| shard.modality == modality);
        let named: Vec<String> = shards.map(|shard| shard.shard.fingerprint()).collect();
        hash(|sum| feed(sum, named.iter().map(String::as_str)))
    };
    let text = |modality| plan.world.prompts_hash(modality);
    let of = |(name, value): (&str, String)| (name.to_owned(), value);
    Asked::from(
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
            // Also dense events and odd rows.
            ("inputs together", plan.inputs.clone()),
        ]
        .map(of),
    )
}

fn lead(
    request: &LabelRequest,
    plan: Plan,
    hosts: &Hosts,
    meeting: Meeting,
    control: &mut Control,
    listener: &Listener,
) -> Result<ClusterOutcome, LabelError> {
    let (session, links) = (meeting.session, connected(meeting, control)?);
    let store = Store::create(&request.store)?;
    let (to_lock, told, teller) = (store.clone(), listener.clone(), control.teller());
    let lock = control.during(move || {
        to_lock.lock(&mut |holder| {
            told.tell(Progress::Waiting(holder.to_owned()));
            teller(&Frame::Waiting(holder.to_owned()));
        })
    })??;
    let ready = match super::begin(plan, store.clone(), lock)? {
        Begun::Held(version) => {
            control.say_all(&Frame::Held(version.version));
            let summary = LabelSummary { version, done: None };
            return Ok(ClusterOutcome::Led(Box::new(summary)));
        }
        Begun::Ready(ready) => ready,
    };
    let seal = seal(&store);
    fs::write(&seal, session.to_string()).map_err(|source| LabelError::Stage {
        action: "write",
        path: seal,
        source,
    })?;
    let (plan, stage) = (&ready.given.plan, &ready.given.stage);
    let staged = |shard: usize| stage.has(&plan.shards[shard].key);
    let mut shares = deal(plan.shards.len(), hosts.processes(), staged);
    for (process, share) in shares.iter().enumerate().skip(1) {
        control.say(process, &Frame::Go(share.clone()));
    }
    let own = std::mem::take(&mut shares[0]);
    let own = ready.given(own.into_iter().map(|shard| shard as usize).collect());
    let mut results = labelled(request, own, hosts, links, control, listener)?;
    let mut missing: BTreeSet<usize> = (1..hosts.processes()).collect();
    while !missing.is_empty() {
        match control.next()? {
            (process, Frame::Ended) => {
                missing.remove(&process);
                control.settle(process);
            }
            (_, Frame::ReadFrame(part)) => add(&mut results, part),
            (process, frame) => return Err(unexpected(hosts, process, &frame)),
        }
    }
    let summary = ready.commit(request, results, listener)?;
    let rejects = summary.done.as_ref().map_or(0, |done| done.rejects);
    control.say_all(&Frame::Committed(summary.version.version, rejects));
    Ok(ClusterOutcome::Led(Box::new(summary)))
}

fn follow(
    request: &LabelRequest,
    plan: Plan,
    hosts: &Hosts,
    meeting: Meeting,
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
    let given = FlowInput {
        plan: Arc::new(plan),
        stage: Stage::open(&store.staging_dir(STAGE))?,
        shards: share.into_iter().map(|shard| shard as usize).collect(),
        previous: None,
        kept: Arc::new(Kept::default()),
    };
    let results = labelled(request, given, hosts, links, control, listener)?;
    for part in parts(results) {
        control.say(0, &Frame::ReadFrame(part));
    }
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

/// Links of the dataflow to all others.
fn connected(meeting: Meeting, control: &mut Control) -> Result<Vec<Option<TcpStream>>, LabelError> {
    Ok(control.during(move || meeting.data_links())??)
}

/// Runs this process's part of the dataflow.
fn labelled(
    request: &LabelRequest,
    given: FlowInput,
    hosts: &Hosts,
    links: Vec<Option<TcpStream>>,
    control: &mut Control,
    listener: &Listener,
) -> Result<Results, LabelError> {
    let sender = control.sender();
    let links = links.into_iter().enumerate();
    let links = links
        .map(|(peer, stream)| stream.map(|stream| Link::new(stream, peer, sender.clone())))
        .collect();
    let team = Team::of_cluster(request.workers, hosts.process(), links, sender);
    let listener = listener.clone();
    control.during(move || flow::run(&given, team, &listener))?
}

/// The file by which processes know that they see one store: it holds the number of the session.
fn seal(store: &Store) -> PathBuf {
    store.staging_dir(STAGE).join("session")
}

/// Positions of the shards that each process reads: of those staged and of those not, each gets its share.
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

/// What process 0 needs of another's results, in pieces.
fn parts(results: Results) -> impl Iterator<Item = ReadFrame> {
    let Results {
        audio_visual, read, ..
    } = results;
    let mut rejects = read.rejects.into_iter();
    let mut sources = read.sources.into_iter();
    let mut audio_visual = Some(audio_visual);
    std::iter::from_fn(move || {
        let part = ReadFrame {
            rejects: rejects.by_ref().take(ROWS).collect(),
            sources: sources.by_ref().take(ROWS).collect(),
            audio_visual: audio_visual.take().unwrap_or(0),
        };
        (part != ReadFrame::default()).then_some(part)
    })
}

fn add(results: &mut Results, part: ReadFrame) {
    results.read.rejects.extend(part.rejects);
    results.read.sources.extend(part.sources);
    results.audio_visual += part.audio_visual;
}

fn unexpected(hosts: &Hosts, process: usize, frame: &Frame) -> LabelError {
    let mut said = format!("{frame:?}");
    said.truncate(said.find('(').unwrap_or(said.len()));
    LabelError::Cluster(ClusterError::Lost {
        peer: hosts.peer(process),
        why: format!("it said {said} out of turn"),
    })
}

/// An error as the other processes are told it.
fn reason(hosts: &Hosts, error: &LabelError) -> String {
    let mut told = crate::error::chain(error);
    let leads = hosts.process() == 0;
    let named = matches!(
        error,
        LabelError::Cluster(
            ClusterError::Lost { .. } | ClusterError::Failed { .. } | ClusterError::Absent { .. }
        )
    );
    // Of the others, process 0 adds which one said it.
    if leads && !named {
        told = format!("{} failed: {told}", hosts.here());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let source = |nth: u64| (vaplan_dataflows::VideoId(nth), Modality::Audio, "a.npy".into());
        let mut results = Results {
            audio_visual: 7,
            ..Results::default()
        };
        results.read.sources = (0..2 * ROWS as u64 + 1).map(source).collect();
        let wanted = results.read.sources.clone();
        let mut sum = Results::default();
        let mut count = 0;
        for part in parts(results) {
            count += 1;
            add(&mut sum, part);
        }
        assert_eq!((count, sum.audio_visual), (3, 7));
        assert_eq!(sum.read.sources, wanted);
    }
}
