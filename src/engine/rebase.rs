//! Moves the inputs of a store to another folder, as one store version.
//!
//! The labels stay as they are. The version changes only the paths in the tables `settings`, `videos`, `candidates`,
//! `user_labels` and `rejects`. The features in the new folder must be the features that the store was made from. To
//! check this, the program reads and scores all of them, and compares their cosines with the cosines in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_dataflows::{Candidate, VideoId};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{CandidateRow, RejectRow, ScoreTrack, UserLabelRow, VersionRow, VideoRow};
use vaplan_schemas::store::{Filter, Found, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Candidates, Rejects, Scores, UserLabels, Videos};

use super::change::RelabelRequest;
use super::patch::{Diff, info, world};
use super::plan::{Plan, PlannedShard};
use super::score::score;
use super::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::absolute;
use crate::ingest::features::FeatureInput;
use crate::ingest::remote;
use crate::world::changes::Changes;
use crate::world::inputs::PathMove;
use crate::world::resolve::Resolved;
use crate::world::videos::sources_of;
use crate::world::{Meaning, World, rejects};

/// A request to record a new folder for inputs that were moved.
#[derive(Clone, Debug)]
pub struct RebaseRequest {
    /// Store to change.
    pub store: PathBuf,
    /// Folder or file as the store records it. `.` is the folder that relative paths of older programs start from.
    pub from: PathBuf,
    /// Path of the same folder or file now.
    pub to: PathBuf,
    /// Number of timely workers.
    pub workers: usize,
    /// The command line, for column `command` of table `versions`.
    pub command: String,
}

/// The result of a rebase.
#[derive(Clone, Debug)]
pub struct RebaseSummary {
    /// The new version.
    pub version: VersionRow,
    /// Number of feature inputs that moved.
    pub inputs: usize,
    /// Number of videos whose features or weak label come from files that moved.
    pub videos: usize,
}

/// Moves inputs and commits the move as one store version.
///
/// # Errors
/// Returns [`LabelError::Change`] if the store records no path below `from`, if `to` lacks a file, or if features
/// differ from the features that the store was made from. Nothing is committed then.
pub fn run(request: &RebaseRequest, listener: &Listener) -> Result<RebaseSummary, LabelError> {
    let store = Store::open(&request.store)?;
    let lock = store.lock(&mut |holder| listener.tell(Progress::Waiting(holder.to_owned())))?;
    let snapshot = store.at_version(None)?;
    commit(&store, &lock, &snapshot, request, listener)
}

/// Does the work of [`run`] while the caller holds the lock.
pub(super) fn commit(
    store: &Store,
    lock: &WriteLock,
    snapshot: &Snapshot,
    request: &RebaseRequest,
    listener: &Listener,
) -> Result<RebaseSummary, LabelError> {
    let to = absolute(&request.to)?;
    let mut resolved = Resolved::new(store, snapshot, &Changes::default())?;
    resolved.known.want_all(snapshot)?;
    // First compare `from` as it is, because the recorded path may be relative. Otherwise take `from` as relative to
    // the working directory.
    let mut moves = PathMove::new(&request.from, &to);
    let moved = |moves: &PathMove, world: &World| {
        let paths = world.features.iter().flatten();
        paths.filter_map(|path| moves.path(path)).count()
    };
    let mut inputs = moved(&moves, &resolved.before);
    if inputs == 0 && request.from.is_relative() {
        moves = PathMove::new(&absolute(&request.from)?, &to);
        inputs = moved(&moves, &resolved.before);
    }
    for modality in Modality::ALL {
        let paths = &mut resolved.after.features[modality.index()];
        let mut seen = BTreeSet::new();
        *paths = std::mem::take(paths)
            .into_iter()
            .map(|path| moves.path(&path).unwrap_or(path))
            .filter(|path| seen.insert(path.clone()))
            .collect();
    }
    let old = PathRows::read(snapshot)?;
    let new = old.moved(&moves, &resolved.before, &resolved.after);
    let videos = new.videos.iter().zip(&old.videos);
    let videos = videos.filter(|(new, old)| **new != old.row).count();
    if inputs == 0 && videos == 0 {
        let known: Vec<String> = resolved
            .before
            .features
            .iter()
            .flatten()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        return Err(LabelError::Change(format!(
            "`{}` holds none of the inputs of store `{}`, expected a folder of {}",
            request.from.display(),
            store.root().display(),
            known.join(", ")
        )));
    }
    check(snapshot, &resolved, &moves, &new, request.workers, listener)?;
    listener.tell(Progress::Committing);
    let asked = RelabelRequest {
        store: request.store.clone(),
        changes: Changes::default(),
        workers: request.workers,
        dry_run: false,
        command: request.command.clone(),
    };
    let mut commit = store.begin(lock, info(snapshot, &asked, &resolved))?;
    world(&mut commit, &resolved)?;
    let counts = &mut Vec::new();
    Diff::<Videos>::of(&old.videos, new.videos).write(&mut commit, counts)?;
    Diff::<Candidates>::of(&old.candidates, new.candidates).write(&mut commit, counts)?;
    Diff::<UserLabels>::of(&old.user, new.user).write(&mut commit, counts)?;
    if new.rejects != old.rejects {
        commit.replace_all::<Rejects>(&new.rejects)?;
    }
    Ok(RebaseSummary {
        version: commit.finish()?,
        inputs,
        videos,
    })
}

/// All rows that have paths, with their places in the data files.
struct PathRows {
    videos: Vec<Found<VideoRow>>,
    candidates: Vec<Found<CandidateRow>>,
    user: Vec<Found<UserLabelRow>>,
    rejects: Vec<RejectRow>,
}

/// The same rows after the move.
struct MovedPathRows {
    videos: Vec<VideoRow>,
    candidates: Vec<CandidateRow>,
    user: Vec<UserLabelRow>,
    rejects: Vec<RejectRow>,
}

impl PathRows {
    fn read(snapshot: &Snapshot) -> Result<PathRows, LabelError> {
        Ok(PathRows {
            videos: snapshot.scan::<Videos>(&Filter::all())?,
            candidates: snapshot.scan::<Candidates>(&Filter::all())?,
            user: snapshot.scan::<UserLabels>(&Filter::all())?,
            rejects: snapshot.read::<Rejects>()?,
        })
    }

    fn moved(&self, moves: &PathMove, before: &World, after: &World) -> MovedPathRows {
        let text = |path: &Arc<str>| moves.text(path).map_or_else(|| path.clone(), Arc::from);
        let videos: Vec<VideoRow> = (self.videos.iter())
            .map(|found| VideoRow {
                source: text(&found.row.source),
                audio_source: found.row.audio_source.as_ref().map(text),
                visual_source: found.row.visual_source.as_ref().map(text),
                ..found.row.clone()
            })
            .collect();
        let admitted: BTreeMap<&Arc<str>, &VideoRow> = videos.iter().map(|row| (&row.video, row)).collect();
        // For older programs, two spellings of one folder were two inputs. Their files are one file now, so a candidate
        // can become equal to the admitted features; such a candidate is removed.
        let candidates: BTreeSet<CandidateRow> = (self.candidates.iter())
            .map(|found| CandidateRow {
                source: text(&found.row.source),
                ..found.row.clone()
            })
            .filter(|row| {
                let own = admitted
                    .get(&row.video)
                    .map(|video| sources_of(video)[row.modality.index()].1);
                own.flatten() != Some(&row.source)
            })
            .collect();
        let user = self.user.iter().map(|found| UserLabelRow {
            source: text(&found.row.source),
            ..found.row.clone()
        });
        let rejected = self.rejects.iter().map(|row| {
            let row = rejects::with_inputs(row.clone(), before, after);
            RejectRow {
                file: moves.text(&row.file).unwrap_or_else(|| row.file.clone()),
                ..row
            }
        });
        let user = user.collect();
        let mut rejected: Vec<RejectRow> = rejected.collect();
        rejects::name_conflicts(&mut rejected);
        rejected.sort();
        rejected.dedup();
        MovedPathRows {
            candidates: candidates.into_iter().collect(),
            user,
            rejects: rejected,
            videos,
        }
    }
}

/// Largest difference between a cosine and the stored cosine. Another processor can give other last bits, so the two
/// need not be equal.
const TOLERANCE: f32 = 1e-4;

/// Checks that every moved file exists in the new folder, and that the features there give the cosines of the store.
fn check(
    snapshot: &Snapshot,
    resolved: &Resolved,
    moves: &PathMove,
    new: &MovedPathRows,
    workers: usize,
    listener: &Listener,
) -> Result<(), LabelError> {
    let after = &resolved.after;
    let is_moved = |path: &Path| path.starts_with(moves.target());
    for path in after.features.iter().flatten().filter(|path| is_moved(path)) {
        if !remote::exists(path) {
            return Err(missing(path, 1));
        }
    }
    let sources = new
        .videos
        .iter()
        .flat_map(sources_of)
        .filter_map(|(_, source)| source);
    let sources = sources.chain(new.candidates.iter().map(|row| &row.source));
    let sources: BTreeSet<&str> = sources.map(|source| &**source).collect();
    let gone = sources
        .into_iter()
        .map(Path::new)
        .filter(|path| is_moved(path) && !remote::exists(path));
    let gone: Vec<&Path> = gone.collect();
    if let Some(first) = gone.first() {
        return Err(missing(first, gone.len()));
    }

    let mut plan = Plan::of_store(after, resolved.videos())?;
    for modality in Modality::ALL {
        for path in after.features[modality.index()]
            .iter()
            .filter(|path| is_moved(path))
        {
            let wanted = |key: &str| matches!(plan.meaning(key), Meaning::Video(_));
            let shards = FeatureInput::open(path, modality, &after.columns, &wanted)?.shards;
            plan.shards.extend(shards.into_iter().map(|shard| PlannedShard {
                shard,
                modality,
                inputs: String::new(),
                key: String::new(),
            }));
        }
    }
    let (found, _) = score(&Arc::new(plan), workers, listener)?;
    let mut found: BTreeMap<(VideoId, Modality, Arc<str>), Candidate> = (found.into_iter())
        .map(|(video, candidate)| ((video, candidate.modality, candidate.source.clone()), candidate))
        .collect();
    let scores = snapshot.read::<Scores>()?;
    let mut stored: BTreeMap<(&str, Modality), Vec<&ScoreTrack>> = BTreeMap::new();
    for track in &scores {
        stored
            .entry((&track.video, track.modality))
            .or_default()
            .push(track);
    }
    for row in &new.videos {
        for (modality, source) in sources_of(row) {
            let Some(source) = source.filter(|source| is_moved(Path::new(&***source))) else {
                continue;
            };
            let now = found.remove(&(VideoId::of(&row.video), modality, source.clone()));
            let tracks = stored
                .get(&(&*row.video, modality))
                .map_or(&[][..], Vec::as_slice);
            let same = now.is_some_and(|now| gives(&now, row.segments, tracks, after));
            if !same {
                return Err(LabelError::Change(format!(
                    "{modality} features of `{}` in `{source}` do not give the scores of the store, expected a copy of the \
                     features that the store was made from: to take them in as changed features, put the old folder \
                     back, or run `vaplan label` with the new one",
                    row.video
                )));
            }
        }
    }
    Ok(())
}

fn missing(path: &Path, files: usize) -> LabelError {
    let others = match files {
        1 => String::new(),
        files => format!(", nor are {} others", files - 1),
    };
    LabelError::Change(format!(
        "`{}` is not there{others}, expected every input of the store below the new folder: copy what lacks, or name the \
         folder that holds all",
        path.display()
    ))
}

/// Returns whether the cosines of a candidate equal the stored cosines, within [`TOLERANCE`].
fn gives(candidate: &Candidate, segments: u32, tracks: &[&ScoreTrack], world: &World) -> bool {
    let near = |track: &&ScoreTrack| {
        let class = world.class_id(&track.class);
        let own = candidate.record.tracks().find(|(own, ..)| Some(*own) == class);
        own.is_some_and(|(_, cosines, _)| {
            cosines.len() == track.cosine.len()
                && cosines
                    .iter()
                    .zip(&track.cosine)
                    .all(|(now, stored)| (now.get() - stored).abs() <= TOLERANCE)
        })
    };
    candidate.record.segments() == segments && tracks.iter().all(near)
}
