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
use crate::engine::cluster::follow::FollowedPlan;
use crate::engine::commit::{self, PassTotals, VersionWriter, change_rows};
use crate::engine::flow::{self, FlowInput};
use crate::engine::group::{LabellingGroup, StagedShare};
use crate::engine::passes::Passes;
use crate::engine::plan::{Plan, planned, weak_hash};
use crate::engine::stage::Stage;
use crate::engine::workers::WorkerGroup;
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::features::FeatureInput;
use crate::ingest::seen::SeenInputs;
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
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    let plan = plan(store, snapshot, &mut resolved)?;

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
        Some(_) => store.staging_dir(STAGE),
        None => folder.path().to_owned(),
    })?;
    let plan = Arc::new(plan);
    let version = snapshot.version().version;
    let staged = group.stage_all(store, Some(version), &plan, &stage, request.workers, listener)?;
    let StagedShare {
        shards,
        report: mut read,
    } = staged;
    let buckets = store.next_buckets(0)?;
    let share = group.share(request.workers, buckets);
    let mut before = VersionBefore::open(snapshot, &resolved.before.classes, &plan, &stage, buckets, share)?;
    before.replace_user_labels(&user)?;
    // Of two predictions of one video and epoch, the one that is added last counts.
    before.add_predictions(predicted.new.clone())?;
    let before = Arc::new(before);
    let given = FlowInput {
        passes: Passes::new(&plan, buckets, share.processes(), &before.videos_by_bucket()?),
        plan: plan.clone(),
        stage: stage.clone(),
        shards,
        before: before.clone(),
        share,
    };
    let world = &plan.world;
    let flips = request.changes.epoch.is_some();
    let mut summary = RelabelSummary {
        videos: (plan.videos.len() as u64, 0),
        denoising: world.denoising,
        ..RelabelSummary::default()
    };
    let Some(lock) = lock else {
        let mut totals = PassTotals::new(flips);
        let team = WorkerGroup::alone(request.workers);
        flow::label(given, team, group, &mut |pass| {
            listener.check()?;
            let names = |video| pass.name(&plan, video);
            let rows = change_rows(version + 1, before.classes(), &pass.outcome.changes, names);
            summary.changes.extend(rows);
            totals.count(&plan, &pass);
            Ok(())
        })?;
        count(&mut summary, &totals);
        commit::sort_changes(&mut summary.changes);
        summary.rejected = commit::reject_rows(&plan, totals.rejects, read);
        return Ok(summary);
    };
    listener.tell(Progress::Committing);
    let info = info(snapshot, request, &resolved);
    let mut writer = VersionWriter::begin(store, lock, info, &plan, before.classes(), flips)?;
    let team = group.workers(&given.passes, buckets, writer.version().0, request.workers)?;
    flow::label(given, team, group, &mut |pass| {
        listener.check()?;
        writer.write(pass)
    })?;
    group.gather(&mut writer, &mut read)?;
    count(&mut summary, writer.totals());
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
    (summary.rejected, summary.remarks) = done
        .done
        .map(|done| (done.rejected, done.remarks))
        .unwrap_or_default();
    Ok(summary)
}

/// Name of the folder of staged shards.
const STAGE: &str = "relabel";

fn count(summary: &mut RelabelSummary, totals: &PassTotals) {
    summary.set = totals.set;
    summary.unset = totals.counts.changes - totals.set;
    summary.flips = totals.flips.clone();
}

/// Plans the same run as [`run`], for a process that labels together with process 0.
///
/// # Errors
/// Returns [`LabelError`] as [`run`] does.
pub(crate) fn followed(
    store: &Store,
    snapshot: Snapshot,
    request: &RelabelRequest,
    mut resolved: Resolved,
) -> Result<FollowedPlan, LabelError> {
    let plan = plan(store, &snapshot, &mut resolved)?;
    let old = snapshot.scan::<UserLabels>(&Filter::all())?;
    let user = user_after(&old, &resolved, &resolved.removed().cloned().collect());
    let removed: BTreeSet<&Arc<str>> = resolved.removed().collect();
    let predictions = predictions(&snapshot, &resolved, &removed)?.new;
    Ok(FollowedPlan {
        plan,
        stage: STAGE,
        before: Some((snapshot, resolved.before.classes.clone())),
        user_labels: Some(user),
        predictions,
        flips: request.changes.epoch.is_some(),
    })
}

/// Plans to label all videos of the store after the change.
fn plan(store: &Store, snapshot: &Snapshot, resolved: &mut Resolved) -> Result<Plan, LabelError> {
    inputs::check(store, &resolved.after)?;
    resolved.known.want_all(snapshot)?;
    let world = &resolved.after;
    let mut plan = Plan::of_store(world, resolved.videos())?;
    let weak = weak_hash(&world.classes, &plan.videos);
    let mut files = BTreeSet::new();
    // The keys of shards only tell which shards a killed run had scored already, so identities are enough.
    let mut seen = SeenInputs::default();
    for modality in Modality::ALL {
        for path in &world.features[modality.index()] {
            let wanted = |key: &str| plan.meaning(key).is_wanted();
            let input = FeatureInput::open(path, modality, &world.columns, &wanted)?;
            let read = input.shards.iter().flat_map(|shard| shard.files());
            files.extend(read.map(|file| file.display().to_string()));
            plan.shards.extend(planned(input, world, &weak, &mut seen));
        }
    }
    plan.rejects = rejects(snapshot, resolved, &files)?;
    let there = |video: &str| plan.videos.get(VideoId::of(video)).is_some();
    let known = |class: &str| world.class_id(class).is_some();
    let mut truth = snapshot.read::<Truth>()?;
    truth.retain(|row| there(&row.video) && known(&row.class));
    plan.truth = truth;
    Ok(plan)
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
