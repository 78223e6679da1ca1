//! Writes the outcome of a whole run into all tables as one store version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::changes::Change;
use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::{LabelRecord, Track, VideoId};
use vaplan_schemas::rows::{LabelChangeRow, LabelTrack, RejectRow};
use vaplan_schemas::store::{Commit, CommitInfo, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{
    Candidates, Classes, LabelChanges, Labels, Prompts, Rejects, Scores, Settings, Table, Truth, Videos,
};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::lost::{self, LabelledVideos};
use super::plan::Plan;
use super::rows::{self, Sources, candidate_rows, label_tracks, score_tracks, video_row};
use super::score::ReadReport;
use super::{LabelCounts, LabelSummary};
use crate::error::LabelError;
use crate::world::rejects;
use crate::world::{Both, Video};

/// The labels of the version before.
#[derive(Debug)]
pub struct Previous {
    tracks: Vec<LabelTrack>,
    names: BTreeMap<VideoId, Arc<str>>,
}

impl Previous {
    /// Reads the labels of a version.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the table cannot be read (see [`Snapshot::read`]).
    pub fn read(snapshot: &Snapshot) -> Result<Previous, StoreError> {
        let tracks = snapshot.read::<Labels>()?;
        let names = tracks
            .iter()
            .map(|track| (VideoId::of(&track.video), track.video.clone()))
            .collect();
        Ok(Previous { tracks, names })
    }

    /// Returns the name of a video; `None` if the video had no labels.
    pub fn name(&self, video: VideoId) -> Option<&Arc<str>> {
        self.names.get(&video)
    }

    /// The videos of a plan that had labels.
    fn labelled(&self, plan: &Plan) -> LabelledVideos {
        let mut touched: Both<BTreeSet<VideoId>> = Default::default();
        for track in &self.tracks {
            let video = VideoId::of(&track.video);
            if plan.by_id.contains_key(&video) {
                touched[track.modality.index()].insert(video);
            }
        }
        LabelledVideos {
            count: [touched[0].len(), touched[1].len()],
            touched,
        }
    }

    /// Returns one label record per video and modality, with the class numbers of `classes`.
    ///
    /// # Panics
    /// Panics if `classes` was not made with these labels (see [`Classification::new`]).
    pub fn records(&self, classes: &Classification) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
        let class = |name: &str| {
            let class = classes.id(name);
            Some(class.expect("the classification was made with these tracks"))
        };
        label_records(&self.tracks, class)
    }
}

/// Turns label tracks into one record per video and modality. `class` gives the number of a class; tracks of classes
/// without a number are left out.
pub fn label_records<'a>(
    tracks: impl IntoIterator<Item = &'a LabelTrack>,
    class: impl Fn(&str) -> Option<ClassId>,
) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
    let mut records: BTreeMap<(VideoId, Modality), Vec<Track>> = BTreeMap::new();
    for track in tracks {
        if let Some(class) = class(&track.class) {
            let label = track.labels.iter().copied().collect();
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

/// Numbers for class names: first the classes of the run in their order, then the classes that only the version before
/// had. Labels of such a class become unset, and their rows of `label_changes` need its name.
#[derive(Clone, Debug)]
pub struct Classification {
    names: Vec<Arc<str>>,
    ids: BTreeMap<Arc<str>, ClassId>,
}

impl Classification {
    /// Numbers the classes of a run and of the version before.
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

    /// Returns for each class its rank in the order of names.
    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![0; self.names.len()];
        for (rank, class) in self.ids.values().enumerate() {
            ranks[class.index()] = rank;
        }
        ranks
    }

    /// Returns the name of a class that has a number.
    pub fn name(&self, class: ClassId) -> &Arc<str> {
        &self.names[class.index()]
    }
}

/// The data of a commit that do not come from the labelling run.
pub struct CommitRequest<'a> {
    /// Command, hashes and epoch for table `versions`.
    pub info: CommitInfo,
    /// Whether to commit also if most videos lose the labels of a modality.
    pub allow_missing: bool,
    /// Writes the tables of user labels, predictions and epochs.
    pub also: &'a dyn Fn(&mut Commit<'_>) -> Result<(), StoreError>,
}

/// Writes all tables as one store version.
///
/// # Errors
/// Returns [`LabelError::Store`] if the store cannot be written, and [`LabelError::Lost`] if most videos would lose the
/// labels of a modality. The version before is then still the latest.
pub fn commit(
    store: &Store,
    lock: &WriteLock,
    plan: &Plan,
    asked: &CommitRequest<'_>,
    mut outcome: Outcome,
    mut read: ReadReport,
    previous: Option<&Previous>,
) -> Result<LabelSummary, LabelError> {
    let mut done = LabelCounts {
        videos: plan.videos.len() as u64,
        changes: outcome.changes.len() as u64,
        ..LabelCounts::default()
    };
    for own in outcome.videos.values() {
        if let [Some(audio), Some(visual)] = &own.labels {
            let both = audio.shared(visual);
            both.for_each(|(_, labels)| done.audio_visual.add(&labels));
        }
    }
    for (_, modality, record) in outcome.labels() {
        done.records += 1;
        let count = match modality {
            Modality::Audio => &mut done.audio,
            Modality::Visual => &mut done.visual,
        };
        record.tracks.iter().for_each(|track| count.add(&track.label));
    }
    for (modality, labels) in [(Modality::Audio, done.audio), (Modality::Visual, done.visual)] {
        labels.warn(modality, plan.world.settings.of(modality).rule.name());
    }
    let rejects = reject_rows(plan, &outcome, &mut read);
    if let (Some(previous), false) = (previous, asked.allow_missing) {
        lost::check(&previous.labelled(plan), &outcome, &rejects)?;
    }
    let mut commit = store.begin(lock, asked.info.clone())?;
    let world = &plan.world;
    commit.replace_all::<Settings>(&world.setting_rows())?;
    commit.replace_all::<Classes>(&world.class_rows())?;
    commit.replace_all::<Prompts>(&world.prompt_rows())?;
    commit.replace_all::<Truth>(&plan.truth)?;
    commit.replace_all::<Rejects>(&rejects)?;
    let changes = std::mem::take(&mut outcome.changes);
    let names = |video| {
        plan.name(video)
            .or_else(|| previous.and_then(|previous| previous.names.get(&video)))
    };
    let classes = Classification::new(&world.classes, previous);
    append_changes(&mut commit, &classes, changes, names)?;

    let mut sources: BTreeMap<VideoId, Sources> = BTreeMap::new();
    for (video, modality, source) in read.sources {
        sources.entry(video).or_default()[modality.index()].insert(source);
    }
    let buckets = commit.buckets();
    let mut by_bucket: Vec<Vec<&Video>> = vec![Vec::new(); buckets as usize];
    for video in &plan.videos {
        by_bucket[vaplan_schemas::bucket_of(&video.name, buckets) as usize].push(video);
    }
    for videos in &mut by_bucket {
        videos.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let unread = Sources::default();
    let sources = |video: &Video| sources.get(&video.id).unwrap_or(&unread);
    let rows = |video: &Video| outcome.video(video.id);
    let of = |bucket: u32| by_bucket[bucket as usize].iter();
    commit.replace_buckets::<Videos>(|bucket| {
        of(bucket)
            .map(|video| video_row(world, video, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Candidates>(|bucket| {
        of(bucket)
            .flat_map(|video| candidate_rows(video, rows(video), sources(video)))
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

/// Approximate number of rows of `label_changes` per data file. Memory holds the rows of the files that are being
/// written, not the rows of all files.
const CHANGE_ROWS: usize = 1 << 17;

/// Returns the rows of `label_changes`, sorted by key. Changes of videos that `names` does not know are left out.
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

/// Appends changed labels to table `label_changes`, sorted by video name, modality, class name and segment.
///
/// # Errors
/// Returns [`StoreError`] if the table cannot be written.
///
/// # Panics
/// Panics if `names` does not know the video of a change.
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
    // Sort the changes by id, and then only the videos by name. There are about a hundred times as many changes as
    // videos, and comparing names is slower than comparing ids.
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
    // Choose the number of videos per part so that each file has about `CHANGE_ROWS` rows.
    let parts = changes.len().div_ceil(CHANGE_ROWS).max(1);
    let share = videos.len().div_ceil(parts).max(1);
    let parts: Vec<&[(&Arc<str>, &[Change])]> = videos.chunks(share).collect();
    commit.append_parts::<LabelChanges>(parts.len() as u32, |part| {
        let own = parts[part as usize].iter();
        own.flat_map(|(video, changes)| changes.iter().map(|change| row(video, change)))
            .collect()
    })
}

/// Returns the rows of table `rejects`: those of the annotations, of reading and scoring, and of the graph. The rows
/// are sorted, and each row is there once.
pub fn reject_rows(plan: &Plan, outcome: &Outcome, read: &mut ReadReport) -> Vec<RejectRow> {
    let mut rows = plan.rejects.clone();
    rows.append(&mut read.rejects);
    for (video, own) in &outcome.videos {
        // A rejected user label may belong to a video outside the selected splits. Such a row is left out.
        if let Some(name) = plan.name(*video) {
            let of_video = own.rejections.iter();
            rows.extend(of_video.flat_map(|rejection| rejects::rows(&plan.world, name, rejection)));
        }
    }
    rows.sort();
    rows.dedup();
    rows
}
