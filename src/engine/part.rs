//! The part of a store that a change can touch: its videos and tracks, before and after the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::session::{GraphSession, Rows};
use vaplan_dataflows::{Candidate, Cosine, FeatureHash, LabelRecord, Score, ScoreRecord, VideoId};
use vaplan_schemas::rows::{CandidateRow, LabelTrack, ScoreTrack, UserLabelRow, VideoRow};
use vaplan_schemas::store::{Filter, Found, Snapshot};
use vaplan_schemas::tables::{Candidates, Labels, Scores, UserLabels};
use vaplan_schemas::{ClassId, Modality};

use super::features::{RereadFeatures, reread};
use crate::engine::Listener;
use crate::engine::commit::label_records;
use crate::engine::rows::Sources;
use crate::error::LabelError;
use crate::world::evidence::{self, StoredEvidence, counting};
use crate::world::resolve::Resolved;
use crate::world::scope::{RelabelledTrack, Touched};
use crate::world::videos::sources_of;
use crate::world::{Video, World};

/// The part of a store that a change can touch.
#[derive(Debug)]
pub struct TouchedRows {
    pub(super) resolved: Resolved,
    pub(super) touched: Touched,
    pub(super) reread: RereadFeatures,
    /// Rows of the part in the store version before the change, sorted by key.
    pub(super) old: Old,
    /// User labels of the touched videos and tracks after the change.
    pub(super) user: Vec<UserLabelRow>,
    pub(super) evidence: StoredEvidence,
    /// Videos after the change. If only tracks of a video are touched, its weak label has the touched classes only.
    pub(super) videos: BTreeMap<VideoId, Video>,
    /// Names of all touched videos, before or after the change.
    pub(super) names: BTreeMap<VideoId, Arc<str>>,
    candidates: Vec<(VideoId, Candidate)>,
    /// Whether the part has all tracks of its videos.
    all_tracks: bool,
}

/// Rows of the store version before the change, sorted by key. Each row has its place in the data files, so that the
/// commit can delete it.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) videos: Vec<Found<VideoRow>>,
    pub(super) candidates: Vec<Found<CandidateRow>>,
    pub(super) user: Vec<Found<UserLabelRow>>,
    pub(super) scores: Vec<Found<ScoreTrack>>,
    pub(super) labels: Vec<Found<LabelTrack>>,
}

impl Old {
    /// Reads the rows of whole videos and of tracks, and the user labels of `users`. In an object store, a request takes much longer than its rows, so that the
    /// tables are read at once; on a local disk, each table is read by all cores, one after the other.
    fn scan(
        snapshot: &Snapshot,
        videos: Vec<Found<VideoRow>>,
        whole: &Filter,
        filter: &Filter,
        users: &Filter,
    ) -> Result<Old, LabelError> {
        if !snapshot.store().is_remote() {
            return Ok(Old {
                videos,
                candidates: snapshot.scan::<Candidates>(whole)?,
                user: snapshot.scan::<UserLabels>(users)?,
                scores: snapshot.scan::<Scores>(filter)?,
                labels: snapshot.scan::<Labels>(filter)?,
            });
        }
        std::thread::scope(|scope| {
            let candidates = scope.spawn(|| snapshot.scan::<Candidates>(whole));
            let user = scope.spawn(|| snapshot.scan::<UserLabels>(users));
            let scores = scope.spawn(|| snapshot.scan::<Scores>(filter));
            let labels = snapshot.scan::<Labels>(filter);
            Ok(Old {
                videos,
                candidates: joined(candidates)?,
                user: joined(user)?,
                scores: joined(scores)?,
                labels: labels?,
            })
        })
    }
}

/// Waits for a thread, and passes its panic on.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl TouchedRows {
    /// Reads the rows of the part from the tables, and reads and scores the features that must be read again.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read, or an input of features cannot be opened.
    pub fn load(
        snapshot: &Snapshot,
        mut resolved: Resolved,
        mut touched: Touched,
        workers: usize,
        listener: &Listener,
    ) -> Result<TouchedRows, LabelError> {
        let reread = reread(snapshot, &mut resolved, &mut touched, workers, listener)?;
        let whole = Filter::videos(touched.videos.iter().cloned());
        // Load every touched class for both modalities. Otherwise `admit` would report the class as unscored.
        let classes: BTreeSet<ClassId> = touched.tracks.iter().map(|(_, class)| *class).collect();
        let modalities: BTreeSet<Modality> = touched.tracks.iter().map(|(modality, _)| *modality).collect();
        let tracks = modalities.iter().flat_map(|modality| {
            let names = classes
                .iter()
                .map(|class| resolved.after.classes[class.index()].clone());
            names.map(|name| (*modality, name))
        });
        // Use no filter if it would match every track, because testing each row would only cost time.
        let all = classes.len() == resolved.after.classes.len() && modalities.len() == Modality::ALL.len();
        let filter = match all {
            true => Filter::all(),
            false => whole.clone().or_tracks(tracks),
        };
        // `known` has the rows of most touched videos already. It loads the others, and a second scan of the table would
        // cost as much as the scan of the labels.
        resolved.known.want(snapshot, touched.videos.iter().cloned())?;
        let videos = touched.videos.iter();
        let videos = videos
            .filter_map(|name| resolved.known.found(name))
            .cloned()
            .collect();
        let overridden = resolved.overrides.edits.iter().map(|edit| edit.video.clone());
        let users = filter.clone().or_videos(overridden);
        let old = Old::scan(snapshot, videos, &whole, &filter, &users)?;
        let removed: BTreeSet<Arc<str>> = resolved.removed().cloned().collect();
        let user = user_after(&old.user, &resolved, &removed);
        let mut part = TouchedRows {
            videos: BTreeMap::new(),
            names: BTreeMap::new(),
            candidates: Vec::new(),
            all_tracks: all,
            evidence: StoredEvidence::default(),
            resolved,
            touched,
            reread,
            old,
            user,
        };
        let bad = |problem| LabelError::World {
            version: snapshot.version().version,
            problem,
        };
        part.place(&classes).map_err(bad)?;
        part.keep(snapshot)?;
        Ok(part)
    }

    /// Finds the videos after the change, and turns their stored scores into candidates.
    fn place(&mut self, classes: &BTreeSet<ClassId>) -> Result<(), String> {
        let after = &self.resolved.after;
        for name in &self.touched.videos {
            let id = VideoId::of(name);
            self.names.insert(id, name.clone());
            if let Some(now) = self.resolved.weak_of(name) {
                let guessed = after.guesses(&now.classes);
                let weak = match guessed {
                    true => self.guessed(name, id),
                    false => now.classes,
                };
                let video = Video {
                    id,
                    name: name.clone(),
                    split: now.split,
                    weak: weak.into(),
                    guessed,
                    source: now.source,
                };
                self.videos.insert(id, video);
            }
        }
        let stored = self.old.videos.iter().map(|found| (&found.row.video, &found.row));
        let stored: BTreeMap<&Arc<str>, &VideoRow> = stored.collect();
        for tracks in self.old.scores.chunk_by(|a, b| a.row.video == b.row.video) {
            let name = &tracks[0].row.video;
            let id = VideoId::of(name);
            let row = stored.get(name);
            if self.touched.rescored.contains(name) || (row.is_some() && !self.videos.contains_key(&id)) {
                continue;
            }
            let weak: BTreeSet<ClassId> = match self.videos.get(&id) {
                Some(video) => video.weak.iter().copied().collect(),
                None => tracks
                    .iter()
                    .filter_map(|found| after.class_id(&found.row.class))
                    .collect(),
            };
            for modality in Modality::ALL {
                let own = tracks
                    .iter()
                    .map(|found| &found.row)
                    .filter(|track| track.modality == modality);
                let source = row.and_then(|row| sources_of(row)[modality.index()].1.cloned());
                let rule = after.settings.of(modality).rule;
                let before = self.resolved.before.settings.of(modality).rule;
                if let Some(record) = record(own, after, &weak, (before != rule).then_some(rule))? {
                    let candidate = Candidate {
                        modality,
                        source: source.unwrap_or_else(|| Arc::from("")),
                        record: Arc::new(record),
                        features: FeatureHash::default(),
                    };
                    self.candidates.push((id, candidate));
                }
            }
            self.names.entry(id).or_insert_with(|| name.clone());
            self.videos.entry(id).or_insert_with(|| Video {
                id,
                name: name.clone(),
                // If only tracks of a video are touched, its row of `videos` is not written, so split and source are
                // not used.
                split: vaplan_schemas::rows::Split::Train,
                source: Arc::from(""),
                guessed: false,
                weak: weak
                    .iter()
                    .copied()
                    .filter(|class| classes.contains(class))
                    .collect(),
            });
        }
        // A video with an empty weak label has features, but no rows in table `scores`. Make a candidate without
        // classes, because `admit` would otherwise report the features as missing.
        for row in self.old.videos.iter().map(|found| &found.row) {
            let id = VideoId::of(&row.video);
            let empty = |video: &Video| video.weak.is_empty();
            if self.touched.rescored.contains(&row.video) || !self.videos.get(&id).is_some_and(empty) {
                continue;
            }
            for (modality, source) in sources_of(row) {
                let record = ScoreRecord::new(row.segments, Vec::new(), Vec::new(), Vec::new());
                self.candidates.extend(source.map(|source| {
                    let source = source.clone();
                    let record = Arc::new(record);
                    (
                        id,
                        Candidate {
                            modality,
                            source,
                            record,
                            features: FeatureHash::default(),
                        },
                    )
                }));
            }
        }
        for (id, copies) in &self.reread.candidates {
            let Some(video) = self.videos.get(id) else {
                continue;
            };
            // A session keeps the copies in memory, so the scores of all other classes are dropped here.
            let restricted = |copy: &Candidate| match video.guessed {
                true => Candidate {
                    record: Arc::new(copy.record.restricted(|class| video.weak.contains(&class))),
                    ..copy.clone()
                },
                false => copy.clone(),
            };
            let own = copies.iter().map(|copy| (*id, restricted(copy)));
            self.candidates.extend(own);
        }
        Ok(())
    }

    /// The candidates of a video without a weak label: guessed from the features that were read, or as they are in the
    /// store if its features did not change.
    fn guessed(&self, name: &Arc<str>, id: VideoId) -> Vec<ClassId> {
        let after = &self.resolved.after;
        if self.touched.rescored.contains(name) {
            let copies = self.reread.candidates.get(&id).map_or(&[][..], |copies| copies);
            return after.settings.candidates.guess_of(copies.iter());
        }
        let row = self.resolved.known.get(name).filter(|row| row.guessed);
        let classes = row.into_iter().flat_map(|row| &row.weak_labels);
        let mut ids: Vec<ClassId> = classes.filter_map(|class| after.class_id(class)).collect();
        ids.sort_unstable();
        ids
    }

    /// Loads the user labels and predictions of the videos after the change.
    fn keep(&mut self, snapshot: &Snapshot) -> Result<(), LabelError> {
        let after = &self.resolved.after;
        self.evidence.user_labels = evidence::user_labels(&self.user, after);
        if after.active.is_some() {
            let names = self.videos.values().map(|video| video.name.clone());
            let stored = counting(snapshot, after.active.as_ref(), &Filter::videos(names))?;
            let fresh: BTreeSet<(u64, &str, Modality)> = self
                .resolved
                .predictions
                .iter()
                .map(|track| (track.epoch, &*track.video, track.modality))
                .collect();
            let mut tracks: Vec<_> = stored
                .into_iter()
                .filter(|track| !fresh.contains(&(track.epoch, &*track.video, track.modality)))
                .collect();
            tracks.extend(self.resolved.predictions.iter().cloned());
            // Of a video with only some tracks in the part, only some classes of the weak label are known: keep all classes.
            let whole = |name: &str| self.all_tracks || self.touched.videos.contains(name);
            let weak = |name: &str| {
                let video = self.videos.get(&VideoId::of(name)).filter(|_| whole(name));
                video.map(|video| video.weak.clone())
            };
            self.evidence.predictions = evidence::latest(tracks, after, &weak);
        }
        self.evidence
            .predictions
            .retain(|(video, _)| self.videos.contains_key(video));
        Ok(())
    }

    /// The input rows of the graph for this part, after the change.
    pub fn rows(&self) -> Rows {
        let after = &self.resolved.after;
        let denoising = Modality::ALL.into_iter();
        let user_labels = self
            .evidence
            .user_labels
            .iter()
            .filter(|(video, _)| self.videos.contains_key(video));
        Rows {
            weak: self
                .videos
                .values()
                .map(|video| (video.id, video.weak.clone()))
                .collect(),
            scored: self.candidates.clone(),
            thresholds: after.thresholds(),
            user_labels: user_labels.cloned().collect(),
            predictions: self.evidence.predictions.clone(),
            denoising: denoising
                .filter_map(|modality| Some((modality, after.denoising[modality.index()]?)))
                .collect(),
        }
    }

    /// Whether the part holds the rows of a track. The part holds every touched class for both modalities (see
    /// [`TouchedRows::load`]).
    pub(super) fn holds(&self, modality: Modality, class: &str, video: &str) -> bool {
        let Touched { videos, tracks, .. } = &self.touched;
        let class = || self.resolved.after.class_id(class);
        let of = |class: ClassId| tracks.iter().any(|(_, own)| *own == class);
        videos.contains(video) || (tracks.iter().any(|(own, _)| *own == modality) && class().is_some_and(of))
    }

    /// Names of all touched videos, before or after the change.
    #[cfg(feature = "train")]
    pub(crate) fn names(&self) -> &BTreeMap<VideoId, Arc<str>> {
        &self.names
    }

    /// Tracks whose labels are known, and whose rows the part does not hold.
    pub(super) fn relabelled(&self) -> impl Iterator<Item = &RelabelledTrack> {
        let own = self.touched.relabelled.iter();
        own.filter(|own| !self.holds(own.new.modality, &own.new.class, &own.new.video))
    }

    /// The settings, classes and inputs that labels depend on after the change.
    pub(crate) fn world(&self) -> &World {
        &self.resolved.after
    }

    /// Videos whose rows can all change, whether they exist before or after the change.
    pub(crate) fn whole(&self) -> impl Iterator<Item = VideoId> {
        self.touched.videos.iter().map(|name| VideoId::of(name))
    }

    /// Modalities in which every score changes, because the rule or its scale changes.
    pub(crate) fn rescaled(&self) -> Vec<Modality> {
        let rule = |world: &World, modality| world.settings.of(modality).rule;
        let (before, after) = (&self.resolved.before, &self.resolved.after);
        let changed = |modality: &Modality| rule(before, *modality) != rule(after, *modality);
        Modality::ALL.into_iter().filter(changed).collect()
    }

    /// The labels of the part before the change.
    pub fn previous(&self) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
        // A change that retires a class labels all videos again and does not get here, so every class is found.
        let class = |name: &str| self.resolved.after.class_id(name);
        label_records(self.old.labels.iter().map(|found| &found.row), class)
    }

    /// Labels the part in a dataflow that ends afterwards.
    ///
    /// # Errors
    /// Returns [`LabelError::Stopped`] if a worker fails.
    pub fn label(&self, workers: usize) -> Result<Outcome, LabelError> {
        if self.videos.is_empty() && self.old.labels.is_empty() {
            // The labels of all tracks are known already, so there is nothing to start a dataflow for.
            return Ok(Outcome::default());
        }
        let stopped = |error: vaplan_dataflows::session::SessionError| LabelError::Stopped(error.to_string());
        let session = GraphSession::start(workers, self.rows(), self.previous()).map_err(stopped)?;
        session.finish().map_err(stopped)
    }

    /// The feature files of a video whose features were read again.
    pub(super) fn sources(&self, video: VideoId) -> Sources {
        let mut sources = Sources::default();
        for candidate in self.reread.candidates.get(&video).into_iter().flatten() {
            sources[candidate.modality.index()].insert(candidate.source.clone());
        }
        sources
    }
}

/// Turns the stored tracks of a video and modality into a score record; `None` if there are no tracks of the classes
/// `weak`.
///
/// If there is a `rule`, the scores are computed again from the stored cosines. Such a rule is always `logit`: a
/// changed rule `softmax` needs the cosines of all classes, so that all videos are scored again instead.
fn record<'a>(
    tracks: impl Iterator<Item = &'a ScoreTrack>,
    world: &World,
    weak: &BTreeSet<ClassId>,
    rule: Option<Rule>,
) -> Result<Option<ScoreRecord>, String> {
    let mut tracks: Vec<(ClassId, &ScoreTrack)> = tracks
        .filter_map(|track| Some((world.class_id(&track.class)?, track)))
        .filter(|(class, _)| weak.contains(class))
        .collect();
    tracks.sort_unstable_by_key(|(class, _)| *class);
    let Some((_, first)) = tracks.first() else {
        return Ok(None);
    };
    let (video, segments) = (first.video.clone(), first.score.len());
    if tracks.iter().any(|(_, track)| track.score.len() != segments) {
        return Err(format!(
            "table `scores`: tracks of video `{video}` are not equally long: run `vaplan check`"
        ));
    }
    let cells = tracks
        .iter()
        .flat_map(|(_, track)| track.cosine.iter().zip(&track.score));
    let scores = cells.map(|(cosine, score)| {
        let score = rule.map_or(*score, |rule| rule.scale() * f64::from(*cosine));
        Score::new(score).ok_or_else(|| {
            format!("table `scores`: video `{video}` has a score that is NaN, expected a number")
        })
    });
    let scores: Vec<Score> = scores.collect::<Result<_, _>>()?;
    let cosines = tracks.iter().flat_map(|(_, track)| &track.cosine);
    let cosines = cosines.map(|cosine| Cosine::new(*cosine)).collect();
    let classes = tracks.iter().map(|(class, _)| *class).collect();
    Ok(Some(ScoreRecord::new(segments as u32, classes, cosines, scores)))
}

/// Returns the user labels after the edits of the change, without the user labels of removed videos.
pub(super) fn user_after(
    old: &[Found<UserLabelRow>],
    resolved: &Resolved,
    removed: &BTreeSet<Arc<str>>,
) -> Vec<UserLabelRow> {
    type Key = (Arc<str>, Modality, Arc<str>, u32);
    let mut cells: BTreeMap<Key, UserLabelRow> = BTreeMap::new();
    for row in old.iter().map(|found| &found.row) {
        let key = (row.video.clone(), row.modality, row.class.clone(), row.segment);
        cells.insert(key, row.clone());
    }
    for edit in resolved.user.iter().chain(&resolved.overrides.edits) {
        for segment in edit.segments.clone() {
            let key = (edit.video.clone(), edit.modality, edit.class.clone(), segment);
            match edit.label {
                Some(label) if cells.get(&key).is_some_and(|row| row.label == label) => {}
                Some(label) => {
                    let row = UserLabelRow {
                        video: edit.video.clone(),
                        modality: edit.modality,
                        class: edit.class.clone(),
                        segment,
                        label,
                        source: edit.source.clone(),
                    };
                    cells.insert(key, row);
                }
                None => drop(cells.remove(&key)),
            }
        }
    }
    cells
        .into_values()
        .filter(|row| !removed.contains(&row.video))
        .collect()
}
