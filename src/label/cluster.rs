//! A labelling run as one of several processes, on one host or many.
//!
//! ```text
//!              others                                    process 0
//! meet         Hello: index, request ───────────────▶    all connected, all equal?
//!                                    ◀───────────────    Welcome
//! begin                              ◀── Go: shards ─    holds the lock and the version before
//! score        own shards ─▶ stage ─── Report, Staged ▶  own shards ─▶ stage
//! label        own shards          ◀──────── Passes ─    begins the commit
//!                  └── candidates by bucket, over the data links, pass after pass ──┘
//! write        own buckets ─▶ data files                 own buckets ─▶ data files
//! commit       names of the files ──────────── Wrote ▶   logs of the tables, the version
//!                                    ◀──── Committed
//! ```
//!
//! Process 0 leads the run. It holds the store's lock, assigns the shards to the processes, and tells them the passes when
//! all shards are staged. Every process labels, writes and syncs the buckets that it has. Process 0 gets the names and
//! statistics of the files, writes the logs and commits. If a process is lost before it has sent its part, the run ends on
//! all processes and nothing is committed. The next run uses the staged scores again, with any number of processes.
//!
//! The links between processes are in [`engine::cluster`](crate::engine::cluster).

use super::plan::open;
use super::{LabelRequest, STAGE, keep, run_plan};
use crate::engine::cluster::follow::{FollowedPlan, follow};
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::engine::cluster::settings::ClusterSettings;
use crate::engine::plan::{Plan, weak_hash};
use crate::engine::{LabelSummary, Listener};
use crate::error::LabelError;
use crate::ingest::seen::SeenInputs;
use crate::world::World;
use crate::world::hash::{feed, hash};
use vaplan_schemas::Modality;
use vaplan_schemas::store::Snapshot;

/// Labels a request as one of several processes. All processes must get the same request, except for its `command`.
///
/// A failed run leaves threads that wait, so the process must end after an error.
///
/// # Errors
/// Returns the same errors as [`run`](super::run), and [`LabelError::Cluster`] if the processes do not meet in time, have
/// different requests or secrets, or lose a process.
pub fn run(
    request: &LabelRequest,
    settings: &ClusterSettings,
    listener: &Listener,
) -> Result<ClusterOutcome<LabelSummary>, LabelError> {
    let plan = open(request)?;
    let mut member = ClusterMember::join(settings, asked(request, &plan))?;
    let outcome = match member.leads() {
        true => run_plan(plan, request, &mut member, listener)
            .map(|summary| ClusterOutcome::Led(Box::new(summary))),
        false => follow(
            &mut member,
            &request.store,
            request.workers,
            listener,
            |_, before| followed(plan, before),
            |_, _, _, _| Ok(None),
        )
        .map(ClusterOutcome::from),
    };
    member.end(outcome)
}

/// The plan of a process that labels together with process 0. `before` is the version that process 0 names.
///
/// # Errors
/// Returns [`LabelError`] if the version cannot be read.
pub(crate) fn followed(mut plan: Plan, before: Option<Snapshot>) -> Result<FollowedPlan, LabelError> {
    let denoised = plan.denoised.take();
    let before = match before {
        Some(snapshot) => {
            let world = World::read(&snapshot)?;
            let classes = world.classes.clone();
            keep(&mut plan, world, denoised);
            Some((snapshot, classes))
        }
        None => None,
    };
    Ok(FollowedPlan {
        plan,
        stage: STAGE,
        before,
        user_labels: None,
        predictions: Vec::new(),
        flips: false,
    })
}

/// The hashes and values that must be the same in all processes, each with its name.
fn asked(request: &LabelRequest, plan: &Plan) -> RequestValues {
    let features = |modality: Modality| {
        let shards = plan.shards.iter().filter(|shard| shard.modality == modality);
        let mut seen = SeenInputs::clone(&plan.seen);
        let named: Vec<String> = shards
            .map(|shard| shard.shard.fingerprint_as(&mut seen))
            .collect();
        hash(|sum| feed(sum, named.iter().map(String::as_str)))
    };
    let text = |modality| plan.world.prompts_hash(modality);
    let of = |(name, value): (&str, String)| (name.to_owned(), value);
    RequestValues::from(
        [
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
