//! The resident graph of a run, and the label records that it holds now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::changes::Change;
use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::session::{GraphSession, SessionError, SessionWorkers, Updates};
use vaplan_dataflows::train::{Learner, Predicted};
use vaplan_dataflows::{LabelRecord, Rejection, Track, VideoId};
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Commit, Filter, Snapshot, TrackKeys};
use vaplan_schemas::tables::{Labels, Rejects};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::RunError;
use crate::engine::commit::{Classification, append_changes};
use crate::engine::part::TouchedRows;
use crate::engine::patch::Diff;
use crate::engine::rows::{label_track_of, label_tracks};
use crate::world::rejects;
use crate::world::{Both, World};

/// The graph, and the label records that it holds.
pub struct Graph {
    session: GraphSession,
    names: BTreeMap<VideoId, Arc<str>>,
    /// Predictions that PLD reads and that come from the store, not from the learner.
    outside: Vec<Predicted>,
    /// Denoising rule of each modality.
    denoising: Both<Option<DenoisingRule>>,
}

/// Changes of one step of the graph.
#[derive(Default)]
pub struct StepChanges {
    /// Labels that were set or unset.
    pub changes: Vec<Change>,
    /// Videos whose labels, or the reasons for them, may have changed.
    videos: BTreeSet<VideoId>,
    /// The tracks of these videos that changed; `None` if they are not known.
    tracks: Option<ChangedTracks>,
}

/// Tracks whose labels, or the reasons for them, a step changed.
struct ChangedTracks(Vec<(VideoId, Modality, ClassId)>);

impl ChangedTracks {
    /// Compares the label records of the last version of a session with those of the version before.
    fn of(session: &GraphSession) -> ChangedTracks {
        let mut changed = Vec::new();
        for ((video, modality), before) in session.labels_before() {
            let now = session.outcome().video(*video).labels[modality.index()].as_ref();
            let (before, now) = (tracks_of(before.as_ref()), tracks_of(now));
            let classes: BTreeSet<ClassId> = before.keys().chain(now.keys()).copied().collect();
            let differing = classes
                .into_iter()
                .filter(|class| before.get(class) != now.get(class));
            changed.extend(differing.map(|class| (*video, *modality, class)));
        }
        ChangedTracks(changed)
    }
}

fn tracks_of(record: Option<&Arc<LabelRecord>>) -> BTreeMap<ClassId, &Track> {
    let tracks = record.map_or(&[][..], |record| &record.tracks);
    tracks.iter().map(|track| (track.class, track)).collect()
}

impl StepChanges {
    /// Returns whether the step changed nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.videos.is_empty()
    }
}

impl Graph {
    /// Starts the graph on a store version with these settings of PLD. With `keeps`, PLD reads the predictions that are
    /// active in that version; otherwise it reads none.
    ///
    /// # Errors
    /// Returns [`RunError::Stopped`] if the dataflow ended early.
    pub fn start(
        part: &TouchedRows,
        denoising: Both<Option<DenoisingRule>>,
        keeps: bool,
        workers: SessionWorkers,
        learner: Box<dyn Learner>,
    ) -> Result<(Graph, StepChanges), RunError> {
        let mut rows = part.rows();
        let active = std::mem::take(&mut rows.predictions);
        let outside = if keeps { active.clone() } else { Vec::new() };
        rows.predictions.clone_from(&outside);
        rows.denoising = rule_rows(denoising);
        let session =
            GraphSession::start_learning(workers, rows, part.previous(), learner).map_err(stopped)?;
        let graph = Graph {
            session,
            names: part.names().clone(),
            outside,
            denoising,
        };
        let changes = graph.outcome().changes.clone();
        // Every record of the first step is new. Without `keeps`, flips are taken back, so videos with predictions may
        // change.
        let of = if keeps { &[][..] } else { &active };
        let mut videos: BTreeSet<VideoId> = of.iter().map(|(video, _)| *video).collect();
        videos.extend(changes.iter().map(|change| change.video));
        let changes = StepChanges {
            changes,
            videos,
            tracks: None,
        };
        Ok((graph, changes))
    }

    /// Returns whether the learner has another step.
    pub fn learning(&self) -> bool {
        self.session.learning()
    }

    /// Takes the step that the learner has finished. With `denoising`, its predictions replace those that PLD reads, and these
    /// rules those of before.
    ///
    /// # Errors
    /// Returns [`RunError::Stopped`] if the dataflow ended early.
    pub fn step(&mut self, denoising: Option<Both<Option<DenoisingRule>>>) -> Result<StepChanges, RunError> {
        let mut updates = Updates::default();
        if let Some(rules) = denoising {
            updates.gone.predictions = std::mem::take(&mut self.outside);
            if rules != self.denoising {
                updates.gone.denoising = rule_rows(self.denoising);
                updates.new.denoising = rule_rows(rules);
                self.denoising = rules;
            }
        }
        self.session.apply(updates).map_err(stopped)?;
        Ok(StepChanges {
            changes: self.outcome().changes.clone(),
            videos: self.session.touched().clone(),
            tracks: Some(ChangedTracks::of(&self.session)),
        })
    }

    /// Returns the number of labels that PLD flips.
    pub fn flipped(&self) -> u64 {
        self.outcome().flipped()
    }

    /// Ends the graph and its threads.
    ///
    /// # Errors
    /// Returns [`RunError::Stopped`] if the dataflow ended early.
    pub fn finish(self) -> Result<(), RunError> {
        self.session.finish().map(drop).map_err(stopped)
    }

    /// Adds the changes of a step to a commit: label rows, label changes and rejected rows.
    ///
    /// # Errors
    /// Returns [`StoreError`] if a table cannot be read or a file cannot be written.
    pub fn write(
        &self,
        commit: &mut Commit<'_>,
        snapshot: &Snapshot,
        world: &World,
        stepped: StepChanges,
    ) -> Result<(), StoreError> {
        let names = stepped.videos.iter().filter_map(|video| self.names.get(video));
        let names: Vec<Arc<str>> = names.cloned().collect();
        match &stepped.tracks {
            Some(tracks) => self.write_tracks(commit, snapshot, world, tracks)?,
            None => {
                let old = snapshot.scan::<Labels>(&Filter::videos(names.iter().cloned()))?;
                let new = names
                    .iter()
                    .flat_map(|name| label_tracks(world, name, self.outcome().video(VideoId::of(name))))
                    .collect();
                Diff::<Labels>::of(&old, new).write(commit, &mut Vec::new())?;
            }
        }
        self.reject_rows(commit, snapshot, world, &names)?;
        append_changes(
            commit,
            &Classification::new(world, &[]),
            stepped.changes,
            |video| self.names.get(&video).map(|name| &**name),
        )
    }

    /// Replaces the rows of these tracks. Their old rows are found by key, and not read.
    fn write_tracks(
        &self,
        commit: &mut Commit<'_>,
        snapshot: &Snapshot,
        world: &World,
        tracks: &ChangedTracks,
    ) -> Result<(), StoreError> {
        let (mut gone, mut new) = (TrackKeys::default(), Vec::new());
        let generated = Modality::ALL.map(|modality| world.generated(modality));
        for (video, modality, class) in &tracks.0 {
            let Some(name) = self.names.get(video) else {
                continue;
            };
            gone.insert(name, *modality, &world.classes[class.index()]);
            let found = self.outcome().video(*video);
            new.extend(label_track_of(
                world,
                name,
                found,
                (*modality, *class),
                generated[modality.index()],
            ));
        }
        let gone = snapshot.places::<Labels>(&gone)?;
        Diff::<Labels>::known(gone, new).write(commit, &mut Vec::new())
    }

    /// Returns the current output of the graph.
    pub fn outcome(&self) -> &Outcome {
        self.session.outcome()
    }

    fn reject_rows(
        &self,
        commit: &mut Commit<'_>,
        snapshot: &Snapshot,
        world: &World,
        names: &[Arc<str>],
    ) -> Result<(), StoreError> {
        let before = snapshot.read::<Rejects>()?;
        let own: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
        // A step changes only the rejected rows of predictions. Those of features stay.
        let stays = |row: &&RejectRow| {
            let of = row.video.as_deref().is_some_and(|video| own.contains(video));
            !(of && row.kind.is_of_predictions())
        };
        let mut after: Vec<RejectRow> = before.iter().filter(stays).cloned().collect();
        for name in names {
            let rejections = self.outcome().video(VideoId::of(name)).rejections.iter();
            let of = |rejection: &&Rejection| {
                matches!(
                    rejection,
                    Rejection::Prediction { .. } | Rejection::Probability { .. }
                )
            };
            after.extend(
                rejections
                    .filter(of)
                    .flat_map(|rejection| rejects::rows(world, name, rejection)),
            );
        }
        after.sort();
        after.dedup();
        if after != before {
            commit.replace_all::<Rejects>(&after)?;
        }
        Ok(())
    }
}

/// Returns the denoising rules as rows of the graph.
fn rule_rows(denoising: Both<Option<DenoisingRule>>) -> Vec<(Modality, DenoisingRule)> {
    let row = |modality: Modality| Some((modality, denoising[modality.index()]?));
    Modality::ALL.into_iter().filter_map(row).collect()
}

/// Returns the classes of the weak label of each video.
pub fn weak(part: &TouchedRows) -> BTreeMap<VideoId, Arc<[ClassId]>> {
    part.rows().weak.into_iter().collect()
}

fn stopped(error: SessionError) -> RunError {
    RunError::Stopped(error.to_string())
}
