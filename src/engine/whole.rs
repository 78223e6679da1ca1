//! A change that touches every score: all videos are scored and labelled again, as `vaplan label` does.

use std::collections::BTreeSet;
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Filter, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Rejects, Truth, UserLabels};

use super::change::{RelabelRequest, RelabelSummary};
use super::part::user_after;
use super::patch::{Diff, epochs, info, predictions, video_predictions};
use crate::engine::before::VersionBefore;
use crate::engine::commit::{self, VersionWriter, change_rows};
use crate::engine::flow::{self, Alone, FlowInput};
use crate::engine::passes::Passes;
use crate::engine::plan::{Plan, planned, weak_hash};
use crate::engine::score::stage_shards;
use crate::engine::stage::Stage;
use crate::engine::workers::WorkerGroup;
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::features::FeatureInput;
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
    let mut plan = Plan::of_store(world, resolved.videos())?;
    let weak = weak_hash(&world.classes, &plan.videos);
    let mut files = BTreeSet::new();
    for modality in Modality::ALL {
        for path in &world.features[modality.index()] {
            let wanted = |key: &str| plan.meaning(key).is_wanted();
            let input = FeatureInput::open(path, modality, &world.columns, &wanted)?;
            let read = input.shards.iter().flat_map(|shard| shard.files());
            files.extend(read.map(|file| file.display().to_string()));
            plan.shards.extend(planned(input, world, &weak));
        }
    }
    plan.rejects = rejects(snapshot, &resolved, &files)?;
    let there = |video: &str| plan.videos.get(VideoId::of(video)).is_some();
    let known = |class: &str| world.class_id(class).is_some();
    let mut truth = snapshot.read::<Truth>()?;
    truth.retain(|row| there(&row.video) && known(&row.class));
    plan.truth = truth;

    let old = snapshot.scan::<UserLabels>(&Filter::all())?;
    let user = user_after(&old, &resolved, &resolved.removed().cloned().collect());
    let user_labels = Diff::<UserLabels>::of(&old, user.clone());
    let removed: BTreeSet<&Arc<str>> = resolved.removed().collect();
    let predicted = predictions(snapshot, &resolved, &removed)?;
    let of_videos = video_predictions(snapshot, &removed)?;
    let folder = tempfile::tempdir().map_err(|source| LabelError::Stage {
        action: "make",
        path: std::env::temp_dir(),
        source,
    })?;
    let stage = Stage::open(&match lock {
        Some(_) => store.staging_dir("relabel"),
        None => folder.path().to_owned(),
    })?;
    let plan = Arc::new(plan);
    let shards: Vec<usize> = (0..plan.shards.len()).collect();
    let read = stage_shards(&plan, &stage, &shards, request.workers, listener)?;
    let buckets = store.next_buckets(0)?;
    let mut before = VersionBefore::open(snapshot, &resolved.before.classes, &plan, &stage, buckets)?;
    before.replace_user_labels(&user)?;
    // Of two predictions of one video and epoch, the one that is added last counts.
    before.add_predictions(predicted.new.clone())?;
    let before = Arc::new(before);
    let given = FlowInput {
        passes: Passes::new(&plan, buckets, &before.videos_by_bucket()?),
        plan: plan.clone(),
        stage: stage.clone(),
        shards,
        before: before.clone(),
    };
    let world = &plan.world;
    let mut all_flips = request.changes.epoch.map(|_| flips::FlipCounts::new());
    let mut summary = RelabelSummary {
        videos: (plan.videos.len() as u64, 0),
        denoising: world.denoising,
        ..RelabelSummary::default()
    };
    let mut of_graph = Vec::new();
    let version = snapshot.version().version + 1;
    let mut writer = match lock {
        Some(lock) => {
            listener.tell(Progress::Committing);
            let info = info(snapshot, request, &resolved);
            Some(VersionWriter::begin(store, lock, info, &plan, before.classes())?)
        }
        None => None,
    };
    flow::label(
        given,
        WorkerGroup::alone(request.workers),
        &mut Alone,
        &mut |pass| {
            listener.check()?;
            let changes = &pass.outcome.changes;
            let set = changes.iter().filter(|change| change.to).count() as u64;
            summary.set += set;
            summary.unset += changes.len() as u64 - set;
            if let Some(all) = &mut all_flips {
                let records = pass.outcome.labels();
                flips::count(
                    all,
                    world,
                    records.map(|(_, modality, record)| (modality, record)),
                );
            }
            match &mut writer {
                Some(writer) => writer.write(pass),
                None => {
                    let names = |video| pass.name(&plan, video);
                    let rows = change_rows(version, before.classes(), changes, names);
                    summary.changes.extend(rows);
                    of_graph.extend(commit::graph_rejects(&plan, &pass.outcome));
                    Ok(())
                }
            }
        },
    )?;
    summary.flips = all_flips;
    let Some(writer) = writer else {
        commit::sort_changes(&mut summary.changes);
        summary.rejected = commit::reject_rows(&plan, of_graph, read);
        return Ok(summary);
    };
    let of_epoch = epochs(snapshot, request, summary.flips.as_ref())?;
    let removed = &request.changes.removed;
    let allow_missing = request.changes.allow_missing || removed.iter().any(|removed| !removed.is_empty());
    let done = writer.finish(read, allow_missing, |commit| {
        user_labels.write(commit, &mut Vec::new())?;
        of_videos.write(commit, &mut Vec::new())?;
        of_epoch.write(commit, &mut Vec::new())?;
        predicted.write(commit, &mut Vec::new())
    })?;
    stage.clear();
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
