//! Results to rows of tables, and one store version.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::changes::Change;
use vaplan_dataflows::{LabelRecord, Track, VideoId};
use vaplan_schemas::rows::{LabelChangeRow, LabelTrack, RejectRow};
use vaplan_schemas::store::{Commit, CommitInfo, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{
    Candidates, Classes, LabelChanges, Labels, Prompts, Rejects, Scores, Settings, Table, Truth, Videos,
};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::flow::Results;
use super::plan::Plan;
use super::rows::{self, VideoAnswers, candidate_rows, label_tracks, score_tracks, video_row};
use super::{LabelCounts, LabelSummary};
use crate::error::LabelError;
use crate::world::rejects;
use crate::world::{Video, at};

/// Labels of the version before, in this run's numbers.
#[derive(Debug)]
pub struct Previous {
    tracks: Vec<LabelTrack>,
    names: BTreeMap<VideoId, Arc<str>>,
}

impl Previous {
    /// Reads the labels of a version.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn read(snapshot: &Snapshot) -> Result<Previous, StoreError> {
        let tracks = snapshot.read::<Labels>()?;
        let names = tracks
            .iter()
            .map(|track| (VideoId::of(&track.video), track.video.clone()))
            .collect();
        Ok(Previous { tracks, names })
    }

    /// Name of a video.
    pub fn name(&self, video: VideoId) -> Option<&Arc<str>> {
        self.names.get(&video)
    }

    /// One record per video and modality; classes that the run does not know come after its own.
    pub fn records(&self, classes: &Classification) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
        let class = |name: &str| {
            let class = classes.id(name);
            Some(class.expect("the classification was made with these tracks"))
        };
        label_records(&self.tracks, class)
    }
}

/// One record per video and modality of label tracks; `class` numbers their classes, those with none are left out.
pub fn label_records<'a>(
    tracks: impl IntoIterator<Item = &'a LabelTrack>,
    class: impl Fn(&str) -> Option<ClassId>,
) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
    let mut records: BTreeMap<(VideoId, Modality), Vec<Track>> = BTreeMap::new();
    for track in tracks {
        if let Some(class) = class(&track.class) {
            let label = track.cells.iter().map(|cell| cell.label).collect();
            let own = records.entry((VideoId::of(&track.video), track.modality));
            own.or_default().push(Track::plg(class, label));
        }
    }
    let record = |(key, mut tracks): (_, Vec<Track>)| {
        tracks.sort();
        (key, Arc::new(LabelRecord { tracks }))
    };
    records.into_iter().map(record).collect()
}

/// Numbers of class names: this run's in order, then those that only the version before knew.
#[derive(Clone, Debug)]
pub struct Classification {
    names: Vec<Arc<str>>,
    ids: BTreeMap<Arc<str>, ClassId>,
}

impl Classification {
    /// Of a run and the version before it.
    pub fn new(classes: &[Arc<str>], previous: Option<&Previous>) -> Classification {
        let mut made = Classification {
            names: Vec::new(),
            ids: BTreeMap::new(),
        };
        let former = previous
            .iter()
            .flat_map(|previous| previous.tracks.iter().map(|track| &track.class));
        for name in classes.iter().chain(former) {
            if !made.ids.contains_key(name) {
                made.ids.insert(name.clone(), ClassId(made.names.len() as u32));
                made.names.push(name.clone());
            }
        }
        made
    }

    fn id(&self, name: &str) -> Option<ClassId> {
        self.ids.get(name).copied()
    }

    /// Of each class, its place in the order of names.
    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![0; self.names.len()];
        for (rank, class) in self.ids.values().enumerate() {
            ranks[class.index()] = rank;
        }
        ranks
    }

    /// Name of a class that has a number.
    pub fn name(&self, class: ClassId) -> &Arc<str> {
        &self.names[class.index()]
    }
}

/// What a commit says of itself, and what else goes into it.
pub struct Asked<'a> {
    /// Command, hashes, epoch.
    pub info: CommitInfo,
    /// Writes tables that hold what persons set and epochs predicted.
    pub also: &'a dyn Fn(&mut Commit<'_>) -> Result<(), StoreError>,
}

/// Writes all tables as one store version.
///
/// # Errors
/// [`LabelError::Store`]; the version before is then still the latest.
pub fn commit(
    store: &Store,
    lock: &WriteLock,
    plan: &Plan,
    asked: &Asked<'_>,
    mut results: Results,
    previous: Option<&Previous>,
) -> Result<LabelSummary, LabelError> {
    let mut done = LabelCounts {
        videos: plan.videos.len() as u64,
        records: results.labels.len() as u64,
        audio_visual: results.audio_visual,
        changes: results.changes.len() as u64,
        ..LabelCounts::default()
    };
    for (_, modality, record) in &results.labels {
        let set = record.ones();
        match modality {
            Modality::Audio => done.audio += set,
            Modality::Visual => done.visual += set,
        }
        done.cells += record
            .tracks
            .iter()
            .map(|track| track.label.len() as u64)
            .sum::<u64>();
    }
    let rejects = reject_rows(plan, &mut results);
    let mut commit = store.begin(lock, asked.info.clone())?;
    let world = &plan.world;
    commit.replace_all::<Settings>(&world.setting_rows())?;
    commit.replace_all::<Classes>(&world.class_rows())?;
    commit.replace_all::<Prompts>(&world.prompt_rows())?;
    commit.replace_all::<Truth>(&plan.truth)?;
    commit.replace_all::<Rejects>(&rejects)?;
    let changes = std::mem::take(&mut results.changes);
    let names = |video| {
        plan.name(video)
            .or_else(|| previous.and_then(|previous| previous.names.get(&video)))
    };
    let classes = Classification::new(&world.classes, previous);
    append_changes(&mut commit, &classes, changes, names)?;

    let mut found: BTreeMap<VideoId, VideoAnswers> = BTreeMap::new();
    for (video, modality, admitted) in results.admitted {
        found.entry(video).or_default().admitted[at(modality)] = Some(admitted);
    }
    for (video, modality, record) in results.labels {
        found.entry(video).or_default().labels[at(modality)] = Some(record);
    }
    for (video, modality, source) in results.read.sources {
        found.entry(video).or_default().sources[at(modality)].insert(source);
    }
    let buckets = commit.buckets();
    let mut by_bucket: Vec<Vec<&Video>> = vec![Vec::new(); buckets as usize];
    for video in &plan.videos {
        by_bucket[vaplan_schemas::bucket_of(&video.name, buckets) as usize].push(video);
    }
    for videos in &mut by_bucket {
        videos.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let nothing = VideoAnswers::default();
    let rows = |video: &Video| found.get(&video.id).unwrap_or(&nothing);
    let of = |bucket: u32| by_bucket[bucket as usize].iter();
    commit.replace_buckets::<Videos>(|bucket| {
        of(bucket)
            .map(|video| video_row(world, video, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Candidates>(|bucket| {
        of(bucket)
            .flat_map(|video| candidate_rows(video, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Scores>(|bucket| {
        of(bucket)
            .flat_map(|video| score_tracks(world, &video.name, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Labels>(|bucket| {
        of(bucket)
            .flat_map(|video| label_tracks(world, &video.name, rows(video)))
            .collect()
    })?;
    (asked.also)(&mut commit)?;
    tracing::debug!(buckets, "tables written");
    let version = commit.finish()?;
    done.count_rejects(rejects);
    Ok(LabelSummary {
        version,
        done: Some(done),
    })
}

/// Rows of `label_changes` per file, about: what is held of them in memory.
const CHANGE_ROWS: usize = 1 << 17;

/// Rows of `label_changes`, by key; of videos that `names` knows.
pub fn change_rows<'a>(
    version: u64,
    classes: &Classification,
    changes: &[Change],
    names: impl Fn(VideoId) -> Option<&'a Arc<str>>,
) -> Vec<LabelChangeRow> {
    let row = |change: &Change| {
        let class = classes.name(change.class);
        Some(rows::change_row(version, names(change.video)?, class, change))
    };
    let mut rows: Vec<LabelChangeRow> = changes.iter().filter_map(row).collect();
    rows.sort_by(LabelChanges::compare);
    rows
}

/// Appends changed cells by video, modality and class, in the order of their names.
///
/// # Panics
/// Where `names` does not know a video of a change.
pub fn append_changes<'a>(
    commit: &mut Commit<'_>,
    classes: &Classification,
    mut changes: Vec<Change>,
    names: impl Fn(VideoId) -> Option<&'a Arc<str>>,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let version = commit.version().0;
    let rank = classes.ranks();
    let name = |video| names(video).expect("a change is of a video of this version or the one before");
    // Names are compared once a video, not once a cell: there are a hundred times as many of those.
    changes.sort_unstable_by_key(|change| {
        (
            change.video,
            change.modality,
            rank[change.class.index()],
            change.segment,
        )
    });
    let mut videos: Vec<(&Arc<str>, &[Change])> = changes
        .chunk_by(|a, b| a.video == b.video)
        .map(|own| (name(own[0].video), own))
        .collect();
    videos.sort_unstable_by_key(|(name, _)| *name);
    let row = |video: &Arc<str>, change: &Change| {
        rows::change_row(version, video, classes.name(change.class), change)
    };
    // As many videos a part as makes files of about the rows wanted.
    let parts = changes.len().div_ceil(CHANGE_ROWS).max(1);
    let share = videos.len().div_ceil(parts).max(1);
    let parts: Vec<&[(&Arc<str>, &[Change])]> = videos.chunks(share).collect();
    commit.append_parts::<LabelChanges>(parts.len() as u32, |part| {
        let own = parts[part as usize].iter();
        own.flat_map(|(video, changes)| changes.iter().map(|change| row(video, change)))
            .collect()
    })
}

/// Of the annotations, of reading and scoring, and of bringing both modalities together; sorted, each once.
pub fn reject_rows(plan: &Plan, results: &mut Results) -> Vec<RejectRow> {
    let mut rows = plan.rejects.clone();
    rows.append(&mut results.read.rejects);
    for (video, fault) in &results.faults {
        // A fault of a mark may be of a video that the splits leave out.
        if let Some(name) = plan.name(*video) {
            rows.extend(rejects::rows(&plan.world, name, fault));
        }
    }
    rows.sort();
    rows.dedup();
    rows
}
