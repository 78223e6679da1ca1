//! Features of some videos, read again from their files and scored.
//!
//! ```text
//! changed paths ── read, score ─┬─ videos with features there, now or before ─┐
//!                               │  videos to score again ─────────────────────┴─ their other files ── read, score ─┐
//!                               └───────────────────────────────────────────────────────────────────── candidates ◀┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_dataflows::{Candidate, VideoId};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{CandidateRow, RejectKind, RejectRow, Severity};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Candidates, Rejects};

use crate::engine::Listener;
use crate::engine::plan::{Plan, PlannedShard};
use crate::engine::score::{ReadReport, score};
use crate::error::LabelError;
use crate::ingest::annotations::key11;
use crate::ingest::features::{ColumnNames, FeatureInput, Shard};
use crate::ingest::npy::is_npy;
use crate::ingest::remote;
use crate::world::Both;
use crate::world::Meaning;
use crate::world::inputs;
use crate::world::resolve::Resolved;
use crate::world::scope::Touched;
use crate::world::videos::sources_of;

/// The features that were read again.
#[derive(Debug, Default)]
pub(super) struct RereadFeatures {
    /// All candidates of each video that was scored again.
    pub(super) candidates: BTreeMap<VideoId, Vec<Candidate>>,
    /// Files that were read. Their new rejected rows replace the old ones.
    pub(super) files: BTreeSet<String>,
    /// Rejected rows and notes of these files.
    pub(super) rejects: Vec<RejectRow>,
}

/// Reads and scores the features that a change needs, and adds to `touched` the videos that these files affect.
pub(super) fn reread(
    snapshot: &Snapshot,
    resolved: &mut Resolved,
    touched: &mut Touched,
    workers: usize,
    listener: &Listener,
) -> Result<RereadFeatures, LabelError> {
    let looked: Both<Vec<PathBuf>> = resolved.paths.clone().map(|paths| paths.into_iter().collect());
    let mut spares = spares(snapshot, &Filter::videos(touched.videos.iter().cloned()))?;
    // If no copy was admitted, the graph needs every copy to explain why, so all copies are read again. If a copy was
    // admitted, the other copies need not be read: copies are compared by the hash of their features, which no weak
    // label, prompt or rule changes.
    resolved
        .known
        .want(snapshot, spares.iter().map(|row| row.video.clone()))?;
    let unsettled = |row: &&CandidateRow| {
        let source = |row: &CandidateRow| sources_of(resolved.known.get(&row.video)?)[row.modality.index()].1;
        source(row).is_none()
    };
    let unsettled = spares.iter().filter(unsettled);
    touched.rescored.extend(unsettled.map(|row| row.video.clone()));
    if looked.iter().all(Vec::is_empty) && touched.rescored.is_empty() {
        return Ok(RereadFeatures::default());
    }
    inputs::check(snapshot.store(), &resolved.after)?;
    // A key can be the first 11 characters of a name, so the names of all videos are needed to tell what a key stands
    // for.
    resolved.known.want_all(snapshot)?;
    let mut reader = Reader::new(resolved)?;
    let mut reread = RereadFeatures::default();

    let mut shards = Vec::new();
    for modality in Modality::ALL {
        for path in looked[modality.index()]
            .iter()
            .filter(|path| remote::exists(path))
        {
            if counts(resolved, modality, path) {
                let wanted = |key: &str| reader.plan.meaning(key).is_wanted();
                shards.extend(open(modality, path, &resolved.after.columns, &wanted)?);
            }
        }
    }
    let (candidates, read) = reader.read(shards, workers, listener)?;
    let held = candidates.iter();
    let held = held.filter_map(|(video, _)| reader.plan.name(*video).map(Arc::from));
    touched.rescored.extend(held);
    touched.rescored.extend(reader.rejected(&read));
    reread.rejects.extend(read.rejects);
    if looked.iter().any(|paths| !paths.is_empty()) {
        // Features that these files had before may be gone. Only the recorded sources of all videos tell whose features
        // these were.
        spares = self::spares(snapshot, &Filter::all())?;
        for row in resolved.known.rows() {
            let gone = |(modality, source): (Modality, Option<&Arc<str>>)| {
                source.is_some_and(|source| under(source, &looked[modality.index()]))
            };
            if sources_of(row).into_iter().any(gone) {
                touched.rescored.insert(row.video.clone());
            }
        }
        let gone = spares
            .iter()
            .filter(|row| under(&row.source, &looked[row.modality.index()]));
        touched.rescored.extend(gone.map(|row| row.video.clone()));
    }
    touched.videos.extend(touched.rescored.iter().cloned());

    let others = reader.others(snapshot, resolved, touched, &spares, &looked)?;
    let (more, read) = reader.read(others, workers, listener)?;
    reread.rejects.extend(read.rejects);
    reread.files = reader.files;
    let wanted: BTreeSet<VideoId> = touched.rescored.iter().map(|name| VideoId::of(name)).collect();
    for (video, candidate) in candidates.into_iter().chain(more) {
        if wanted.contains(&video) {
            reread.candidates.entry(video).or_default().push(candidate);
        }
    }
    Ok(reread)
}

fn spares(snapshot: &Snapshot, filter: &Filter) -> Result<Vec<CandidateRow>, LabelError> {
    let found = snapshot.scan::<Candidates>(filter)?;
    Ok(found.into_iter().map(|found| found.row).collect())
}

/// The key of the features in an npy file: its name without extension.
fn key_of(path: &Path) -> &str {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.unwrap_or_default()
}

/// Returns whether the file is one of these paths, or is in one of them.
fn under(file: &str, paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| Path::new(file).starts_with(path))
}

/// Returns whether the path is an input after the change, or is in one.
fn counts(resolved: &Resolved, modality: Modality, path: &Path) -> bool {
    let inputs = &resolved.after.features[modality.index()];
    inputs.iter().any(|input| path.starts_with(input))
}

fn open(
    modality: Modality,
    path: &Path,
    columns: &ColumnNames,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Shard>, LabelError> {
    // A change may name a single npy file of a folder.
    if is_npy(path) && path.is_file() {
        let wanted = wanted(key_of(path)).then(|| path.to_owned());
        return Ok(FeatureInput::of_files(modality, wanted).shards);
    }
    Ok(FeatureInput::open(path, modality, columns, wanted)?.shards)
}

/// Reads and scores shards, for all videos that exist after a change.
struct Reader {
    /// Videos and prompts; [`Reader::read`] replaces the shards by those that it reads.
    plan: Arc<Plan>,
    /// Files that were read, or that belong to no video.
    files: BTreeSet<String>,
}

impl Reader {
    fn new(resolved: &Resolved) -> Result<Reader, LabelError> {
        Ok(Reader {
            plan: Arc::new(Plan::of_store(&resolved.after, resolved.videos())?),
            files: BTreeSet::new(),
        })
    }

    fn read(
        &mut self,
        shards: Vec<Shard>,
        workers: usize,
        listener: &Listener,
    ) -> Result<(Vec<(VideoId, Candidate)>, ReadReport), LabelError> {
        for shard in &shards {
            let files = shard.files().iter().map(|file| file.display().to_string());
            self.files.extend(files);
        }
        let shards = shards.into_iter().map(|shard| PlannedShard {
            modality: shard.modality(),
            shard,
            // These shards are not staged, so they need no keys.
            inputs: String::new(),
            key: String::new(),
        });
        // `make_mut` does not copy the plan, because no other reference exists between two runs.
        Arc::make_mut(&mut self.plan).shards = shards.collect();
        score(&self.plan, workers, listener)
    }

    /// Returns the videos with a rejected row in the files that were read.
    fn rejected(&self, read: &ReadReport) -> BTreeSet<Arc<str>> {
        let rows = read.rejects.iter().filter(|row| row.severity == Severity::Reject);
        let names = rows.filter_map(|row| match self.plan.meaning(row.video.as_deref()?) {
            Meaning::Video(position) => Some(self.plan.videos.at(position).name.into()),
            _ => None,
        });
        names.collect()
    }

    /// Returns the feature files of the videos to score again that were not read yet.
    fn others(
        &mut self,
        snapshot: &Snapshot,
        resolved: &Resolved,
        touched: &Touched,
        spares: &[CandidateRow],
        looked: &Both<Vec<PathBuf>>,
    ) -> Result<Vec<Shard>, LabelError> {
        let mut files: Both<BTreeSet<PathBuf>> = Default::default();
        let mut add = |modality: Modality, source: &str| {
            let path = Path::new(source);
            if !under(source, &looked[modality.index()]) && counts(resolved, modality, path) {
                files[modality.index()].insert(path.to_owned());
            }
        };
        // A key of 11 characters can stand for another video if a video with these first characters is added or
        // removed.
        let moved = resolved.weak.iter();
        let moved = moved.filter(|(name, now)| resolved.known.get(name).is_some() != now.is_some());
        let moved: BTreeSet<&str> = moved.map(|(name, _)| key11(name)).collect();
        let gone: BTreeSet<&Arc<str>> = resolved.removed().collect();
        let mut unplaced: BTreeSet<&str> = BTreeSet::new();
        for name in touched.rescored.iter().filter(|name| !gone.contains(name)) {
            let row = resolved.known.get(name);
            for (modality, source) in row.map(sources_of).into_iter().flatten() {
                source.into_iter().for_each(|source| add(modality, source));
            }
            if row.is_none() || moved.contains(key11(name)) {
                unplaced.insert(&**name);
            }
        }
        // A removed video has no rows of its own any more, but a file can have rejected rows that name the video. Read
        // such a file again, so that these rows are replaced. Rows of older programs do not tell which key was
        // ambiguous, so files with such rows are read, too.
        if !gone.is_empty() {
            let rows = snapshot.read::<Rejects>()?;
            for row in rows.iter().filter(|row| !row.kind.is_of_graph()) {
                let of = |name: &&Arc<str>| match row.video.as_deref() {
                    Some(video) => *video == ***name || video == key11(name),
                    None => matches!(row.kind, RejectKind::AmbiguousKey | RejectKind::Unknown),
                };
                if gone.iter().any(of) {
                    Modality::ALL
                        .into_iter()
                        .for_each(|modality| add(modality, &row.file));
                }
            }
        }
        for row in spares.iter().filter(|row| touched.rescored.contains(&row.video)) {
            add(row.modality, &row.source);
        }
        // No table tells which files have features of these videos, so read the keys of all files.
        if !unplaced.is_empty() {
            let wanted = |key: &str| match self.plan.meaning(key) {
                Meaning::Video(position) => unplaced.contains(self.plan.videos.at(position).name),
                Meaning::Ambiguous { .. } => unplaced.iter().any(|name| name.starts_with(key)),
                Meaning::NotLabelled | Meaning::Unknown => false,
            };
            for modality in Modality::ALL {
                for input in &resolved.after.features[modality.index()] {
                    for shard in open(modality, input, &resolved.after.columns, &wanted)? {
                        let holds = shard.keys().iter().any(|key| wanted(key));
                        let unread = shard.files().iter().filter(|file| {
                            holds && !under(&file.display().to_string(), &looked[modality.index()])
                        });
                        files[modality.index()].extend(unread.cloned());
                    }
                }
            }
        }
        for modality in Modality::ALL {
            let other = Modality::ALL[1 - modality.index()];
            let shared = |path: &&PathBuf| {
                counts(resolved, other, path) && !under(&path.display().to_string(), &looked[other.index()])
            };
            let shared: Vec<PathBuf> = files[modality.index()].iter().filter(shared).cloned().collect();
            files[other.index()].extend(shared);
        }
        // Do not read an npy file that belongs to no video. Listing it in `self.files` removes its rejected rows.
        for files in &mut files {
            files.retain(|path| {
                let read = !is_npy(path) || self.plan.meaning(key_of(path)).is_wanted();
                if !read {
                    self.files.insert(path.display().to_string());
                }
                read
            });
        }
        let [audio, visual] = files;
        let mut shards = FeatureInput::of_files(Modality::Audio, audio).shards;
        shards.extend(FeatureInput::of_files(Modality::Visual, visual).shards);
        Ok(shards)
    }
}
