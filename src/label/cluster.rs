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

use super::plan::{memory, open_seen};
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
use vaplan_schemas::storage::is_url;

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
    // Every process must find the same inputs. The scratch folder of a store at a URL is another one on each host, so its
    // memory must not count.
    let seen = match is_url(&request.store) {
        true => SeenInputs::default(),
        false => memory(&request.store),
    };
    let plan = open_seen(request, [false; 2], seen)?;
    let mut member = ClusterMember::join(settings, asked(request, &plan))?;
    let outcome = match member.leads() {
        true => run_plan(plan, request, &mut member, listener)
            .map(|summary| ClusterOutcome::Led(Box::new(summary))),
        false => follow(
            &mut member,
            &request.store,
            request.workers,
            listener,
            |_, before| {
                let mut plan = plan;
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
            },
            |_, _, _, _| Ok(None),
        )
        .map(ClusterOutcome::from),
    };
    member.end(outcome)
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
