//! Compares old and new rows of a part, and commits the difference as one store version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::session::Outcome;
use vaplan_dataflows::{Fault, LabelRecord, VideoId};
use vaplan_schemas::rows::{EpochRow, LabelTrack, RejectRow, TruthRow};
use vaplan_schemas::store::{Commit, CommitInfo, Filter, Found as Stored, Place, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{
    Candidates, Classes, Epochs, Labels, Predictions, Prompts, Rejects, Scores, Settings, Table, Truth,
    UserLabels, VideoPredictions, Videos,
};
use vaplan_schemas::{Modality, StoreError};

use super::change::{RelabelRequest, RelabelSummary};
use super::part::Part;
use crate::engine::commit::{Classification, append_changes, change_rows};
use crate::engine::rows::{VideoAnswers, candidate_rows, label_tracks, score_tracks, video_row};
use crate::error::LabelError;
use crate::world::World;
use crate::world::flips;
use crate::world::flips::Flips;
use crate::world::hash::{feed, hash};
use crate::world::kept::of_epochs;
use crate::world::rejects;
use crate::world::resolve::Resolved;

/// Output of the graph for the videos that it holds.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    admitted: BTreeMap<(VideoId, Modality), Admitted>,
    labels: BTreeMap<(VideoId, Modality), Arc<LabelRecord>>,
    faults: BTreeMap<VideoId, BTreeSet<Fault>>,
}

impl Answers {
    /// Applies the output changes of one version, and returns the changed labels.
    pub fn take(&mut self, outcome: Outcome) -> Vec<Change> {
        // Apply removals before insertions: in the other order, the removal of the old record would delete the new one.
        let sorted = |diff: &isize| *diff > 0;
        let mut admitted = outcome.admitted;
        admitted.sort_by_key(|(_, diff)| sorted(diff));
        for ((video, modality, own), diff) in admitted {
            match diff > 0 {
                true => drop(self.admitted.insert((video, modality), own)),
                false => drop(self.admitted.remove(&(video, modality))),
            }
        }
        let mut labels = outcome.labels;
        labels.sort_by_key(|(_, diff)| sorted(diff));
        for ((video, modality, own), diff) in labels {
            match diff > 0 {
                true => drop(self.labels.insert((video, modality), own)),
                false => drop(self.labels.remove(&(video, modality))),
            }
        }
        for ((video, fault), diff) in outcome.faults {
            let own = self.faults.entry(video).or_default();
            match diff > 0 {
                true => drop(own.insert(fault)),
                false => drop(own.remove(&fault)),
            }
            if own.is_empty() {
                self.faults.remove(&video);
            }
        }
        outcome.changes
    }

    /// Output for one video, without the feature files.
    pub(crate) fn found(&self, video: VideoId) -> VideoAnswers {
        VideoAnswers {
            admitted: Modality::ALL.map(|modality| self.admitted.get(&(video, modality)).cloned()),
            labels: Modality::ALL.map(|modality| self.labels.get(&(video, modality)).cloned()),
            ..VideoAnswers::default()
        }
    }

    /// Rows of the labels of a video.
    pub fn labels(&self, world: &World, name: &Arc<str>) -> Vec<LabelTrack> {
        label_tracks(world, name, &self.found(VideoId::of(name)))
    }

    /// Faults of a video.
    pub(crate) fn faults(&self, video: VideoId) -> impl Iterator<Item = &Fault> {
        self.faults.get(&video).into_iter().flatten()
    }

    /// Number of labels that PLD flipped.
    pub(crate) fn flipped(&self) -> u64 {
        let tracks = self.labels.values().flat_map(|record| &record.tracks);
        tracks.map(|track| u64::from(track.pld.ones())).sum()
    }
}

/// Rows of a table to remove and to add.
pub(crate) struct Diff<T: Table> {
    gone: Vec<Place>,
    pub(super) new: Vec<T::Row>,
}

impl<T: Table> Diff<T> {
    /// Compares rows by key; both lists are sorted by key. Equal rows stay in their files.
    pub(crate) fn of(old: &[Stored<T::Row>], new: Vec<T::Row>) -> Diff<T> {
        Diff::by(old, new, PartialEq::eq)
    }

    fn by(old: &[Stored<T::Row>], mut new: Vec<T::Row>, same: impl Fn(&T::Row, &T::Row) -> bool) -> Diff<T> {
        new.sort_by(T::compare);
        let mut diff = Diff {
            gone: Vec::new(),
            new: Vec::new(),
        };
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

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    pub(crate) fn write(&self, commit: &mut Commit<'_>, counts: &mut Counts) -> Result<(), StoreError> {
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

pub(crate) type Counts = Vec<(&'static str, u64, u64)>;

/// All row changes of one store version.
struct Diffs {
    videos: Diff<Videos>,
    candidates: Diff<Candidates>,
    user: Diff<UserLabels>,
    scores: Diff<Scores>,
    labels: Diff<Labels>,
    predictions: Diff<Predictions>,
    video_predictions: Diff<VideoPredictions>,
    epochs: Diff<Epochs>,
    truth: Option<Vec<TruthRow>>,
    rejects: Option<Vec<RejectRow>>,
    world: bool,
}

impl Diffs {
    fn is_empty(&self) -> bool {
        self.videos.is_empty()
            && self.candidates.is_empty()
            && self.user.is_empty()
            && self.scores.is_empty()
            && self.labels.is_empty()
            && self.predictions.is_empty()
            && self.video_predictions.is_empty()
            && self.epochs.is_empty()
            && self.truth.is_none()
            && self.rejects.is_none()
            && !self.world
    }
}

/// Commits the row changes of a part; commits nothing if no row changes.
///
/// Without a lock it is a dry run: [`RelabelSummary::changes`] says what would change.
///
/// # Errors
/// [`LabelError::Store`] if the store cannot be written. The version before is then still the latest.
pub fn commit(
    store: &Store,
    lock: Option<&WriteLock>,
    snapshot: &Snapshot,
    request: &RelabelRequest,
    part: &Part,
    answers: &Answers,
    mut changes: Vec<Change>,
) -> Result<RelabelSummary, LabelError> {
    let mut names: BTreeMap<VideoId, &Arc<str>> = part.names.iter().map(|(id, name)| (*id, name)).collect();
    let mut videos = part.touched.videos.len() as u64;
    for own in part.reflipped() {
        changes.extend(own.changes.iter().cloned());
        let id = VideoId::of(&own.new.video);
        videos += u64::from(names.insert(id, &own.new.video).is_none());
    }
    let names = |video| names.get(&video).copied();
    let after = &part.resolved.after;
    let flips = request.changes.epoch.map(|_| all_flips(part, answers));
    let epochs = epochs(snapshot, request, flips.as_ref())?;
    let told = told(part, answers);
    let diffs = diffs(snapshot, part, answers, epochs, &told)?;
    let classes = Classification::new(&after.classes, None);
    let mut summary = RelabelSummary {
        videos: (videos, (part.names.len() - part.touched.videos.len()) as u64),
        set: changes.iter().filter(|change| change.to).count() as u64,
        unset: changes.iter().filter(|change| !change.to).count() as u64,
        rejected: told,
        denoising: after.denoising,
        flips,
        ..RelabelSummary::default()
    };
    let Some(lock) = lock else {
        let version = snapshot.version().version + 1;
        summary.changes = change_rows(version, &classes, &changes, names);
        return Ok(summary);
    };
    if diffs.is_empty() {
        return Ok(summary);
    }
    let mut commit = store.begin(lock, info(snapshot, request, &part.resolved))?;
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
    diffs.epochs.write(&mut commit, rows)?;
    if let Some(truth) = &diffs.truth {
        commit.replace_all::<Truth>(truth)?;
    }
    if let Some(rejects) = &diffs.rejects {
        commit.replace_all::<Rejects>(rejects)?;
    }
    append_changes(&mut commit, &classes, changes, names)?;
    summary.version = Some(commit.finish()?);
    Ok(summary)
}

/// The row of table `versions`.
pub(super) fn info(snapshot: &Snapshot, request: &RelabelRequest, resolved: &Resolved) -> CommitInfo {
    let before = snapshot.version();
    CommitInfo {
        command: request.command.clone(),
        epoch: request.changes.rows.predictions.as_ref().map(|given| given.epoch),
        settings: resolved.after.settings_hash(),
        models: resolved.after.models_hash(),
        // The same change of the same version gives the same hash.
        inputs: hash(|sum| {
            feed(
                sum,
                [&*before.inputs, &request.command, &before.version.to_string()],
            )
        }),
        program: env!("CARGO_PKG_VERSION").to_owned(),
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

/// All flips of PLD after the change: those of this part, and those that the change leaves as they are.
fn all_flips(part: &Part, answers: &Answers) -> Flips {
    let after = &part.resolved.after;
    let mut all = Flips::new();
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
    for own in part.reflipped() {
        let flips = all.entry((own.new.modality, own.new.class.clone())).or_default();
        let own = flips::flipped(&own.new.cells);
        *flips = [flips[0] + own[0], flips[1] + own[1]];
    }
    all.retain(|_, flips| *flips != [0, 0]);
    let records = answers.labels.iter();
    let of_part = records.filter(|((video, _), _)| part.names.contains_key(video));
    flips::count(
        &mut all,
        after,
        of_part.map(|((_, modality), record)| (*modality, &**record)),
    );
    all
}

/// The row of the named epoch in table `epochs`, with the number of labels that PLD flips by it.
pub(super) fn epochs(
    snapshot: &Snapshot,
    request: &RelabelRequest,
    flips: Option<&Flips>,
) -> Result<Diff<Epochs>, LabelError> {
    let mut old = match request.changes.epoch {
        Some(_) => snapshot.scan::<Epochs>(&Filter::all())?,
        None => Vec::new(),
    };
    // An epoch whose predictions came from outside has no row.
    old.retain(|found| Some(found.row.epoch) == request.changes.epoch);
    let row = old.first().map(|found| EpochRow {
        flips: flips.map(flips::total),
        ..found.row.clone()
    });
    Ok(Diff::of(&old, row.into_iter().collect()))
}

fn diffs(
    snapshot: &Snapshot,
    part: &Part,
    answers: &Answers,
    epochs: Diff<Epochs>,
    told: &[RejectRow],
) -> Result<Diffs, LabelError> {
    let after = &part.resolved.after;
    let mut found = BTreeMap::new();
    for video in part.videos.keys() {
        let own = VideoAnswers {
            sources: part.sources(*video),
            ..answers.found(*video)
        };
        found.insert(*video, own);
    }
    let (mut videos, mut candidates, mut scores, mut labels) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let stays =
        |video: &str| part.videos.contains_key(&VideoId::of(video)) && !part.touched.rescored.contains(video);
    let old = part.old.candidates.iter().map(|found| &found.row);
    candidates.extend(old.filter(|row| stays(&row.video)).cloned());
    for (id, video) in &part.videos {
        let found = &found[id];
        let whole = part.touched.videos.contains(&video.name);
        if whole {
            videos.push(video_row(after, video, found));
            if part.touched.rescored.contains(&video.name) {
                candidates.extend(candidate_rows(video, found));
            }
        }
        let own = score_tracks(after, &video.name, found).into_iter();
        scores.extend(own.filter(|track| part.holds(track.modality, &track.class, &track.video)));
        let own = label_tracks(after, &video.name, found).into_iter();
        labels.extend(own.filter(|track| part.holds(track.modality, &track.class, &track.video)));
    }
    let removed: BTreeSet<&Arc<str>> = part.resolved.removed().collect();
    let mut labels = Diff::<Labels>::of(&part.old.labels, labels);
    for own in part.reflipped() {
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
        epochs,
        truth: truth(snapshot, &removed)?,
        rejects: rejects(snapshot, part, told)?,
        world: part.resolved.before != *after,
    })
}

/// New predictions, the predictions that they replace, and the predictions of removed videos.
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

/// Rows of `video_predictions` of removed videos.
pub(super) fn video_predictions(
    snapshot: &Snapshot,
    removed: &BTreeSet<&Arc<str>>,
) -> Result<Diff<VideoPredictions>, LabelError> {
    let names = removed.iter().map(|name| (*name).clone());
    let old = snapshot.scan::<VideoPredictions>(&Filter::videos(names))?;
    Ok(Diff::of(&old, Vec::new()))
}

/// Rows of table `truth` without those of removed videos; none: the table stays as it is.
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

/// Rejected rows of the files that this run read, and of the videos that it labelled.
fn told(part: &Part, answers: &Answers) -> Vec<RejectRow> {
    let mut rows = part.resolved.rejects.clone();
    rows.extend(part.reread.rejects.iter().cloned());
    for name in &part.touched.videos {
        let faults = answers.faults(VideoId::of(name));
        rows.extend(faults.flat_map(|fault| rejects::rows(&part.resolved.after, name, fault)));
    }
    rows.sort();
    rows.dedup();
    rows
}

/// Rows of table `rejects` after the change; none: the table stays as it is.
fn rejects(
    snapshot: &Snapshot,
    part: &Part,
    told: &[RejectRow],
) -> Result<Option<Vec<RejectRow>>, LabelError> {
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
        // A row of the graph is replaced by its video, because its file can be a list of all inputs.
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
    after.extend(told.iter().cloned());
    after.sort();
    after.dedup();
    let mut sorted = before;
    sorted.sort();
    Ok((after != sorted).then_some(after))
}
