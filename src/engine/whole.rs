//! A change that touches every score: all videos are scored and labelled again, as `vaplan label` does.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Filter, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Rejects, Truth, UserLabels};

use super::change::{RelabelRequest, RelabelSummary};
use super::part::user_after;
use super::patch::{Diff, epochs, info, predictions, video_predictions};
use crate::engine::commit::{self, Classification, CommitRequest, Previous, change_rows};
use crate::engine::flow::FlowInput;
use crate::engine::plan::{Plan, planned, weak_hash};
use crate::engine::stage::Stage;
use crate::engine::workers::WorkerGroup;
use crate::engine::{Listener, Progress, flow};
use crate::error::LabelError;
use crate::ingest::features::FeatureInput;
use crate::world::Names;
use crate::world::evidence::{self, StoredEvidence, counting};
use crate::world::flips;
use crate::world::inputs;
use crate::world::resolve::Resolved;

/// Labels all videos again and commits the result as one store version.
///
/// # Errors
/// Returns [`LabelError`] as [`change::run`](super::change::run) does.
pub(crate) fn run(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    mut resolved: Resolved,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    inputs::check(store, &resolved.after)?;
    resolved.known.want_all(snapshot)?;
    let world = &resolved.after;
    let videos = resolved.videos();
    let names = Names::new(
        (0..)
            .zip(&videos)
            .map(|(position, video)| (video.name.clone(), Some(position))),
    );
    let mut plan = Plan::of_store(world, videos, names)?;
    let weak = weak_hash(&world.classes, &plan.videos);
    let mut files = BTreeSet::new();
    for modality in Modality::ALL {
        for path in &world.features[modality.index()] {
            let wanted = |key: &str| plan.meaning(key).is_wanted();
            let input = FeatureInput::open(path, modality, &wanted)?;
            let read = input.shards.iter().flat_map(|shard| shard.files());
            files.extend(read.map(|file| file.display().to_string()));
            plan.shards.extend(planned(input, world, &weak));
        }
    }
    plan.rejects = rejects(snapshot, &resolved, &files)?;
    let there: BTreeSet<&str> = plan.videos.iter().map(|video| &*video.name).collect();
    let known = |class: &str| world.class_id(class).is_some();
    plan.truth = snapshot.read::<Truth>()?;
    plan.truth
        .retain(|row| there.contains(&*row.video) && known(&row.class));

    let old = snapshot.scan::<UserLabels>(&Filter::all())?;
    let user = user_after(&old, &resolved, &resolved.removed().cloned().collect());
    let user_labels = Diff::<UserLabels>::of(&old, user.clone());
    let mut tracks = counting(snapshot, world.active.as_ref(), &Filter::all())?;
    let removed: BTreeSet<&Arc<str>> = resolved.removed().collect();
    let predicted = predictions(snapshot, &resolved, &removed)?;
    let of_videos = video_predictions(snapshot, &removed)?;
    // Add the new predictions last: of two predictions of one video and epoch, `latest` takes the later one in the
    // list.
    tracks.extend(predicted.new.iter().cloned());
    let stored = StoredEvidence {
        user_labels: evidence::user_labels(&user, world),
        predictions: evidence::latest(tracks, world, &|_| None),
    };
    let previous = Arc::new(Previous::read(snapshot)?);
    let folder = tempfile::tempdir().map_err(|source| LabelError::Stage {
        action: "make",
        path: std::env::temp_dir(),
        source,
    })?;
    let stage = Stage::open(&match lock {
        Some(_) => store.staging_dir("relabel"),
        None => folder.path().to_owned(),
    })?;
    let given = FlowInput {
        shards: (0..plan.shards.len()).collect(),
        plan: Arc::new(plan),
        stage,
        previous: Some(previous.clone()),
        evidence: Arc::new(stored),
    };
    let (outcome, mut read) = flow::run(&given, WorkerGroup::alone(request.workers), listener)?;
    let plan = &given.plan;
    let mut summary = RelabelSummary {
        videos: (plan.videos.len() as u64, 0),
        set: outcome.changes.iter().filter(|change| change.to).count() as u64,
        unset: outcome.changes.iter().filter(|change| !change.to).count() as u64,
        denoising: world.denoising,
        flips: request.changes.epoch.map(|_| {
            let mut all = flips::FlipCounts::new();
            let records = outcome.labels();
            flips::count(
                &mut all,
                world,
                records.map(|(_, modality, record)| (modality, record)),
            );
            all
        }),
        ..RelabelSummary::default()
    };
    let of_epoch = epochs(snapshot, request, summary.flips.as_ref())?;
    let Some(lock) = lock else {
        let classes = Classification::new(&plan.world.classes, Some(&previous));
        let names = |video| plan.name(video).or_else(|| previous.name(video));
        let version = snapshot.version().version + 1;
        summary.changes = change_rows(version, &classes, &outcome.changes, names);
        summary.rejected = commit::reject_rows(plan, &outcome, &mut read);
        return Ok(summary);
    };
    listener.check()?;
    listener.tell(Progress::Committing);
    let asked = CommitRequest {
        info: info(snapshot, request, &resolved),
        allow_missing: request.changes.allow_missing
            || request.changes.removed.iter().any(|removed| !removed.is_empty()),
        also: &|commit| {
            user_labels.write(commit, &mut Vec::new())?;
            of_videos.write(commit, &mut Vec::new())?;
            of_epoch.write(commit, &mut Vec::new())?;
            predicted.write(commit, &mut Vec::new())
        },
    };
    let done = commit::commit(store, lock, plan, &asked, outcome, read, Some(&previous))?;
    given.stage.clear();
    summary.version = Some(done.version);
    summary.rejected = done.done.map(|done| done.rejected).unwrap_or_default();
    Ok(summary)
}

/// Returns the rejected rows to keep: the rows of the store version that come from neither features nor the graph, and
/// the rows of this change. Labelling all videos makes the other rows again.
fn rejects(
    snapshot: &Snapshot,
    resolved: &Resolved,
    files: &BTreeSet<String>,
) -> Result<Vec<RejectRow>, LabelError> {
    let inputs = resolved
        .before
        .features
        .iter()
        .chain(&resolved.after.features)
        .flatten();
    let inputs: Vec<_> = inputs.collect();
    let mut rows = snapshot.read::<Rejects>()?;
    rows.retain(|row| {
        let of_features = files.contains(&row.file)
            || inputs
                .iter()
                .any(|input| std::path::Path::new(&row.file).starts_with(input));
        !of_features && !row.kind.is_of_graph() && !resolved.files.contains(&row.file)
    });
    rows.extend(resolved.rejects.iter().cloned());
    Ok(rows)
}
