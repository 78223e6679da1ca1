//! Compares old and new rows of a part, and commits the difference as one store version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::VideoId;
use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::rows::{EpochRow, RejectRow, Severity, TruthRow};
use vaplan_schemas::store::{Commit, CommitInfo, Filter, Found as Stored, Place, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{
    Candidates, Classes, Epochs, Labels, Predictions, Prompts, Rejects, Scores, Settings, Table, Truth,
    UserLabels, VideoPredictions, Videos,
};
use vaplan_schemas::{Modality, StoreError};

use super::change::{RelabelRequest, RelabelSummary};
use super::part::TouchedRows;
use super::tracks::{OtherRows, OtherTracks, TrackChanges, TrackOutput, TracksAnew};
use crate::engine::Listener;
use crate::engine::commit::{Classification, append_changes, change_rows, sort_changes};
use crate::engine::flow::Alone;
use crate::engine::group::{LabellingGroup, TracksOfVersion};
use crate::engine::remarks::track_remarks;
use crate::engine::rows::{candidate_rows, label_tracks, score_tracks, video_row};
use crate::engine::share::BucketShare;
use crate::error::LabelError;
use crate::world::evidence::of_epochs;
use crate::world::flips;
use crate::world::flips::FlipCounts;
use crate::world::hash::{feed, hash};
use crate::world::rejects;
use crate::world::resolve::Resolved;

/// Rows of a table to remove and to add.
pub(crate) struct Diff<T: Table> {
    gone: Vec<Place>,
    pub(super) new: Vec<T::Row>,
}

impl<T: Table> Diff<T> {
    /// Compares rows by key. `old` must be sorted by key. Rows that are equal stay in their data files.
    pub(crate) fn of(old: &[Stored<T::Row>], new: Vec<T::Row>) -> Diff<T> {
        Diff::by(old, new, PartialEq::eq)
    }

    fn by(old: &[Stored<T::Row>], mut new: Vec<T::Row>, same: impl Fn(&T::Row, &T::Row) -> bool) -> Diff<T> {
        new.sort_by(T::compare);
        let mut diff = Diff::none();
        let mut old = old.iter().peekable();
        for row in new {
            while let Some(before) = old.next_if(|before| T::compare(&before.row, &row).is_lt()) {
                diff.gone.push(before.place);
            }
            match old.next_if(|before| T::compare(&before.row, &row).is_eq()) {
                Some(before) if same(&before.row, &row) => continue,
                Some(before) => diff.gone.push(before.place),
                None => {}
            }
            diff.new.push(row);
        }
        diff.gone.extend(old.map(|before| before.place));
        diff
    }

    /// Removes these rows and adds those, in any order.
    pub(crate) fn known(gone: Vec<Place>, mut new: Vec<T::Row>) -> Diff<T> {
        new.sort_by(T::compare);
        Diff { gone, new }
    }

    fn none() -> Diff<T> {
        Diff {
            gone: Vec::new(),
            new: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    pub(crate) fn write(&self, commit: &mut Commit<'_>, counts: &mut RowCounts) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        counts.push((T::NAME, self.gone.len() as u64, self.new.len() as u64));
        if self.gone.is_empty() && !T::BUCKETED {
            return commit.append::<T>(&self.new);
        }
        commit.patch::<T>(&self.gone, &self.new)
    }
}

pub(crate) type RowCounts = Vec<(&'static str, u64, u64)>;

/// All row changes of one store version.
struct Diffs {
    videos: Diff<Videos>,
    candidates: Diff<Candidates>,
    user: Diff<UserLabels>,
    scores: Diff<Scores>,
    labels: Diff<Labels>,
    predictions: Diff<Predictions>,
    video_predictions: Diff<VideoPredictions>,
    truth: Option<Vec<TruthRow>>,
    rejects: Option<RejectsAfter>,
    world: bool,
}

/// The rows of table `rejects` after a change.
struct RejectsAfter {
    rows: Vec<RejectRow>,
    /// Whether only notes differ from the rows before.
    only_notes: bool,
}

impl Diffs {
    /// Whether there is nothing to commit. `without_notes` tells that notes alone are nothing.
    fn is_empty(&self, without_notes: bool) -> bool {
        let same_rejects = |after: &RejectsAfter| without_notes && after.only_notes;
        self.videos.is_empty()
            && self.candidates.is_empty()
            && self.user.is_empty()
            && self.scores.is_empty()
            && self.labels.is_empty()
            && self.predictions.is_empty()
            && self.video_predictions.is_empty()
            && self.truth.is_none()
            && self.rejects.as_ref().is_none_or(same_rejects)
            && !self.world
    }

    /// The rows of `labels` and `scores` of this difference, for the tracks that are labelled beside it.
    fn others(&self, tracks: &TracksAnew<'_>) -> OtherTracks {
        let (labels, scores, buckets) = (&self.labels, &self.scores, tracks.buckets());
        OtherTracks {
            labels: OtherRows::new(&labels.gone, &labels.new, buckets, |row| &row.video),
            scores: OtherRows::new(&scores.gone, &scores.new, buckets, |row| &row.video),
        }
    }

    /// Adds the rows of tracks that were labelled anew. If their buckets are written already, these buckets have the rows of
    /// this difference, too.
    fn take_tracks(&mut self, done: TrackChanges, output: TrackOutput, rescored: bool) {
        if output == TrackOutput::Buckets {
            self.labels = Diff::none();
            if rescored {
                self.scores = Diff::none();
            }
            return;
        }
        self.labels.gone.extend(done.gone);
        self.labels.new.extend(done.new);
    }
}

/// Commits the row changes of a part; commits nothing if no row changes.
///
/// Without a lock, this is a dry run: [`RelabelSummary::changes`] tells what would change.
///
/// # Errors
/// Returns [`LabelError::Store`] if the store cannot be written. The version before is then still the latest.
pub fn commit(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    part: &TouchedRows,
    outcome: &Outcome,
) -> Result<RelabelSummary, LabelError> {
    commit_with_tracks(
        store,
        lock,
        snapshot,
        request,
        (part, outcome),
        None,
        &mut Alone,
        &Listener::silent(),
    )
}

/// Like [`commit`], and also labels tracks of all other videos anew, together with the other processes of a cluster.
///
/// # Errors
/// Returns the errors of [`commit`] and of [`TracksAnew::label`].
#[expect(clippy::too_many_arguments, reason = "a change, in one place")]
pub(super) fn commit_with_tracks(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    (part, outcome): (&TouchedRows, &Outcome),
    tracks: Option<&TracksAnew<'_>>,
    group: &mut impl LabellingGroup,
    listener: &Listener,
) -> Result<RelabelSummary, LabelError> {
    let mut names: BTreeMap<VideoId, &Arc<str>> = part.names.iter().map(|(id, name)| (*id, name)).collect();
    let mut videos = part.touched.videos.len() as u64;
    let mut changes = outcome.changes.clone();
    for own in part.relabelled() {
        changes.extend(own.changes.iter().cloned());
        let id = VideoId::of(&own.new.video);
        videos += u64::from(names.insert(id, &own.new.video).is_none());
    }
    let names = |video| names.get(&video).map(|name| &***name);
    let after = &part.resolved.after;
    let counted = request.changes.epoch.is_some();
    let flips = (counted && tracks.is_none()).then(|| all_flips(part, outcome));
    let rejected = graph_rejects(part, outcome);
    let mut diffs = diffs(snapshot, part, outcome, &rejected)?;
    let classes = Classification::new(after, &[]);
    let mut summary = RelabelSummary {
        videos: (videos, (part.names.len() - part.touched.videos.len()) as u64),
        set: changes.iter().filter(|change| change.to).count() as u64,
        unset: changes.iter().filter(|change| !change.to).count() as u64,
        rejected,
        denoising: after.denoising,
        flips,
        ..RelabelSummary::default()
    };
    let Some(lock) = lock else {
        let version = snapshot.version().version + 1;
        summary.changes = change_rows(version, &classes, &changes, names);
        if let Some(tracks) = tracks {
            let done = tracks.label(
                TrackOutput::Nothing,
                BucketShare::ALL,
                &diffs.others(tracks),
                None::<&mut Commit<'_>>,
                listener,
            )?;
            let done = done.expect("only a patch can have too many rows");
            summary.add_tracks(&done, counted);
            summary.remarks = track_remarks(part, outcome, Some((tracks, done.labels)));
            summary.changes.extend(done.changes);
            sort_changes(&mut summary.changes);
        } else {
            summary.remarks = track_remarks(part, outcome, None);
        }
        return Ok(summary);
    };
    // Of files of user labels, notes alone make no version: the files have no correction, and the caller prints the notes.
    let without_notes = request.changes.asks_at_most_for_user_labels();
    let nothing = diffs.is_empty(without_notes) && tracks.is_none();
    if nothing && epochs(snapshot, request, summary.flips.as_ref())?.is_empty() {
        return Ok(summary);
    }
    let begin = || store.begin_after(lock, snapshot, info(snapshot, request, &part.resolved));
    let mut commit = begin()?;
    if let Some(tracks) = tracks {
        let others = diffs.others(tracks);
        let mut output = tracks.output()?;
        let mut done = None;
        if output == TrackOutput::Patch {
            done = tracks.label(output, BucketShare::ALL, &others, Some(&mut commit), listener)?;
            if done.is_none() {
                (commit, output) = (begin()?, TrackOutput::Buckets);
            }
        }
        if output == TrackOutput::Buckets {
            let share = group.begin_tracks(
                store,
                TracksOfVersion {
                    before: snapshot.version().version,
                    version: commit.version().0,
                    buckets: tracks.buckets(),
                    plan: tracks.hash(),
                },
                request.workers,
            )?;
            done = tracks.label(output, share, &others, Some(&mut commit), listener)?;
            let done = done.as_mut().expect("only a patch can have too many rows");
            group.gather_tracks(&mut commit, done)?;
        }
        let done = done.expect("only a patch can have too many rows");
        summary.add_tracks(&done, counted);
        summary.remarks = track_remarks(part, outcome, Some((tracks, done.labels)));
        diffs.take_tracks(done, output, tracks.rescores());
    } else {
        summary.remarks = track_remarks(part, outcome, None);
    }
    let epochs = epochs(snapshot, request, summary.flips.as_ref())?;
    let rows = &mut summary.rows;
    if diffs.world {
        world(&mut commit, &part.resolved)?;
    }
    diffs.videos.write(&mut commit, rows)?;
    diffs.candidates.write(&mut commit, rows)?;
    diffs.user.write(&mut commit, rows)?;
    diffs.scores.write(&mut commit, rows)?;
    diffs.labels.write(&mut commit, rows)?;
    diffs.predictions.write(&mut commit, rows)?;
    diffs.video_predictions.write(&mut commit, rows)?;
    epochs.write(&mut commit, rows)?;
    if let Some(truth) = &diffs.truth {
        commit.replace_all::<Truth>(truth)?;
    }
    if let Some(rejects) = &diffs.rejects {
        commit.replace_all::<Rejects>(&rejects.rows)?;
    }
    append_changes(&mut commit, &classes, changes, names)?;
    summary.version = Some(commit.finish()?);
    Ok(summary)
}

/// The rows of `labels` and `scores` of a part, for the tracks that are labelled beside it.
///
/// # Errors
/// Returns [`LabelError::Store`] if a table cannot be read.
pub(super) fn other_tracks(
    snapshot: &Snapshot,
    (part, outcome): (&TouchedRows, &Outcome),
    tracks: &TracksAnew<'_>,
) -> Result<OtherTracks, LabelError> {
    let rejected = graph_rejects(part, outcome);
    Ok(diffs(snapshot, part, outcome, &rejected)?.others(tracks))
}

/// Makes the data for the row of table `versions`.
pub(super) fn info(snapshot: &Snapshot, request: &RelabelRequest, resolved: &Resolved) -> CommitInfo {
    let before = snapshot.version();
    CommitInfo {
        command: request.command.clone(),
        epoch: request.changes.rows.predictions.as_ref().map(|given| given.epoch),
        settings: resolved.after.settings_hash(),
        models: resolved.after.models_hash(),
        // The same command on the same version gives the same hash.
        inputs: hash(|sum| {
            feed(
                sum,
                [&*before.inputs, &request.command, &before.version.to_string()],
            )
        }),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        author: request.changes.author.clone(),
        note: request.changes.note.clone(),
        videos: 0,
    }
}

/// Writes the tables `settings`, `classes` and `prompts`, each if it changed.
pub(super) fn world(commit: &mut Commit<'_>, resolved: &Resolved) -> Result<(), LabelError> {
    let (before, after) = (&resolved.before, &resolved.after);
    if before.setting_rows() != after.setting_rows() {
        commit.replace_all::<Settings>(&after.setting_rows())?;
    }
    if before.class_rows() != after.class_rows() {
        commit.replace_all::<Classes>(&after.class_rows())?;
    }
    if before.prompts != after.prompts || before.classes != after.classes {
        commit.replace_all::<Prompts>(&after.prompt_rows())?;
    }
    Ok(())
}

/// Counts all flips of PLD after the change: the flips of this part, and the flips that the change leaves as they are.
fn all_flips(part: &TouchedRows, outcome: &Outcome) -> FlipCounts {
    let after = &part.resolved.after;
    let mut all = FlipCounts::new();
    for own in part
        .touched
        .stay
        .iter()
        .filter(|own| !part.holds(own.modality, &own.class, &own.video))
    {
        let flips = all.entry((own.modality, own.class.clone())).or_default();
        flips[0] += own.flips[0];
        flips[1] += own.flips[1];
    }
    for own in part.relabelled() {
        let flips = all.entry((own.new.modality, own.new.class.clone())).or_default();
        let own = own.new.flipped();
        *flips = [flips[0] + own[0], flips[1] + own[1]];
    }
    all.retain(|_, flips| *flips != [0, 0]);
    let records = outcome.labels();
    let of_part = records.filter(|(video, _, _)| part.names.contains_key(video));
    flips::count(
        &mut all,
        after,
        of_part.map(|(_, modality, record)| (modality, record)),
    );
    all
}

/// Updates the number of flips in the row of table `epochs` for the epoch that the change names.
pub(super) fn epochs(
    snapshot: &Snapshot,
    request: &RelabelRequest,
    flips: Option<&FlipCounts>,
) -> Result<Diff<Epochs>, LabelError> {
    let mut old = match request.changes.epoch {
        Some(_) => snapshot.scan::<Epochs>(&Filter::all())?,
        None => Vec::new(),
    };
    // There is no row if the predictions of the epoch came from outside and not from a training of the store.
    old.retain(|found| Some(found.row.epoch) == request.changes.epoch);
    let row = old.first().map(|found| EpochRow {
        flips: flips.map(flips::total),
        ..found.row.clone()
    });
    Ok(Diff::of(&old, row.into_iter().collect()))
}

fn diffs(
    snapshot: &Snapshot,
    part: &TouchedRows,
    outcome: &Outcome,
    rejected: &[RejectRow],
) -> Result<Diffs, LabelError> {
    let after = &part.resolved.after;
    let (mut videos, mut candidates, mut scores, mut labels) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let stays =
        |video: &str| part.videos.contains_key(&VideoId::of(video)) && !part.touched.rescored.contains(video);
    let old = part.old.candidates.iter().map(|found| &found.row);
    candidates.extend(old.filter(|row| stays(&row.video)).cloned());
    for (id, video) in &part.videos {
        let found = outcome.video(*id);
        let whole = part.touched.videos.contains(&video.name);
        if whole {
            videos.push(video_row(after, video, found));
            if part.touched.rescored.contains(&video.name) {
                candidates.extend(candidate_rows(video, found, &part.sources(*id)));
            }
        }
        let own = score_tracks(after, &video.name, found).into_iter();
        scores.extend(own.filter(|track| part.holds(track.modality, &track.class, &track.video)));
        let own = label_tracks(after, &video.name, found).into_iter();
        labels.extend(own.filter(|track| part.holds(track.modality, &track.class, &track.video)));
    }
    let removed: BTreeSet<&Arc<str>> = part.resolved.removed().collect();
    let mut labels = Diff::<Labels>::of(&part.old.labels, labels);
    for own in part.relabelled() {
        labels.gone.push(own.place);
        labels.new.push(own.new.clone());
    }
    Ok(Diffs {
        videos: Diff::of(&part.old.videos, videos),
        candidates: Diff::of(&part.old.candidates, candidates),
        user: Diff::of(&part.old.user, part.user.clone()),
        scores: Diff::of(&part.old.scores, scores),
        labels,
        predictions: predictions(snapshot, &part.resolved, &removed)?,
        video_predictions: video_predictions(snapshot, &removed)?,
        truth: truth(snapshot, &removed)?,
        rejects: rejects(snapshot, part, rejected)?,
        world: part.resolved.before != *after,
    })
}

/// The new predictions to add, and the predictions to remove: those that the new ones replace, and those of removed
/// videos.
pub(super) fn predictions(
    snapshot: &Snapshot,
    resolved: &Resolved,
    removed: &BTreeSet<&Arc<str>>,
) -> Result<Diff<Predictions>, LabelError> {
    let names = resolved.predictions.iter().map(|track| track.video.clone());
    let names = names.chain(removed.iter().map(|name| (*name).clone()));
    let fresh: BTreeSet<(u64, &str, Modality)> = resolved
        .predictions
        .iter()
        .map(|track| (track.epoch, &*track.video, track.modality))
        .collect();
    let filter = Filter::videos(names);
    let epochs = fresh.iter().map(|(epoch, ..)| *epoch).collect();
    let mut old = match removed.is_empty() {
        true => of_epochs(snapshot, &epochs, &filter)?,
        false => snapshot.scan::<Predictions>(&filter)?,
    };
    old.retain(|found| {
        let track = &found.row;
        removed.contains(&track.video) || fresh.contains(&(track.epoch, &*track.video, track.modality))
    });
    let new = resolved
        .predictions
        .iter()
        .filter(|track| !removed.contains(&track.video));
    Ok(Diff::by(
        &old,
        new.cloned().collect(),
        crate::world::predictions::same,
    ))
}

/// The rows of table `video_predictions` to remove: those of removed videos.
pub(super) fn video_predictions(
    snapshot: &Snapshot,
    removed: &BTreeSet<&Arc<str>>,
) -> Result<Diff<VideoPredictions>, LabelError> {
    let names = removed.iter().map(|name| (*name).clone());
    let old = snapshot.scan::<VideoPredictions>(&Filter::videos(names))?;
    Ok(Diff::of(&old, Vec::new()))
}

/// The rows of table `truth` without the rows of removed videos; `None` if the table stays as it is.
pub(super) fn truth(
    snapshot: &Snapshot,
    removed: &BTreeSet<&Arc<str>>,
) -> Result<Option<Vec<TruthRow>>, LabelError> {
    if removed.is_empty() {
        return Ok(None);
    }
    let mut rows = snapshot.read::<Truth>()?;
    let before = rows.len();
    rows.retain(|row| !removed.contains(&row.video));
    Ok((rows.len() != before).then_some(rows))
}

/// Rejected rows and notes of the files that this run read, and of the videos that it labelled.
fn graph_rejects(part: &TouchedRows, outcome: &Outcome) -> Vec<RejectRow> {
    let mut rows = part.resolved.rejects.clone();
    rows.extend(part.reread.rejects.iter().cloned());
    for name in &part.touched.videos {
        let rejections = outcome.video(VideoId::of(name)).rejections.iter();
        rows.extend(rejections.flat_map(|rejection| rejects::rows(&part.resolved.after, name, rejection)));
    }
    rows.sort();
    rows.dedup();
    rows
}

/// The rows of table `rejects` after the change; `None` if the table stays as it is.
fn rejects(
    snapshot: &Snapshot,
    part: &TouchedRows,
    rejected: &[RejectRow],
) -> Result<Option<RejectsAfter>, LabelError> {
    let before = snapshot.read::<Rejects>()?;
    let looked = |file: &str| {
        let path = std::path::Path::new(file);
        part.resolved
            .paths
            .iter()
            .flatten()
            .any(|looked| path.starts_with(looked))
    };
    let stays = |row: &RejectRow| {
        // Replace rows of the graph by video and not by file, because the file of such a row can be a list of all
        // inputs.
        if row.kind.is_of_graph() {
            let video = row.video.as_deref();
            return !video.is_some_and(|video| part.touched.videos.contains(video));
        }
        let read = part.resolved.files.contains(&row.file) || part.reread.files.contains(&row.file);
        !(read || looked(&row.file))
    };
    let (was, is) = (&part.resolved.before, &part.resolved.after);
    let stay = before.iter().filter(|row| stays(row)).cloned();
    let mut after: Vec<RejectRow> = stay.map(|row| rejects::with_inputs(row, was, is)).collect();
    after.extend(rejected.iter().cloned());
    after.sort();
    after.dedup();
    rejects::drop_repeated(is, &mut after);
    let mut sorted = before;
    sorted.sort();
    if after == sorted {
        return Ok(None);
    }
    let is_reject = |row: &&RejectRow| row.severity == Severity::Reject;
    let only_notes = after.iter().filter(is_reject).eq(sorted.iter().filter(is_reject));
    Ok(Some(RejectsAfter {
        rows: after,
        only_notes,
    }))
}
