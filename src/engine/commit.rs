//! Writes the passes of a whole run into all tables as one store version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::outcome::Outcome;
use vaplan_dataflows::{LabelRecord, Track, VideoId};
use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack, LabelRule, LabelTrack, RejectRow};
use vaplan_schemas::store::{Commit, CommitInfo, PartFiles, Store, VersionRows, WriteLock};
use vaplan_schemas::tables::{
    Candidates, Classes, LabelChanges, Labels, Prompts, Rejects, Scores, Settings, Truth, Videos,
};
use vaplan_schemas::{ClassId, Modality, StoreError, StoreVersion};

use super::flow::LabelledPass;
use super::lost::LostLabels;
use super::plan::Plan;
use super::remarks::remarks;
use super::rows::{self, candidate_rows, label_tracks, score_tracks, video_row};
use super::score::ReadReport;
use super::{LabelCounts, LabelSummary};
use crate::error::LabelError;
use crate::world::flips::{self, FlipCounts};
use crate::world::rejects;
use crate::world::{Both, Video, World};

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
    /// The rule of labels that nobody changed, by modality.
    generated: Both<LabelRule>,
}

impl Classification {
    /// Numbers the classes of a run and the classes of the version before.
    pub fn new(world: &World, former: &[Arc<str>]) -> Classification {
        let classes = &world.classes[..];
        let mut made = Classification {
            names: Vec::new(),
            ids: BTreeMap::new(),
            generated: Modality::ALL.map(|modality| world.generated(modality)),
        };
        for name in classes.iter().chain(former) {
            if !made.ids.contains_key(name) {
                made.ids.insert(name.clone(), ClassId(made.names.len() as u32));
                made.names.push(name.clone());
            }
        }
        made
    }

    /// Returns the rule of labels of a modality that nobody changed.
    pub(super) fn generated(&self, modality: Modality) -> LabelRule {
        self.generated[modality.index()]
    }

    /// Returns the number of a class.
    pub(super) fn id(&self, name: &str) -> Option<ClassId> {
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

/// What a process counts while it writes passes. In a cluster, process 0 adds the totals of all processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassTotals {
    /// Counts of the labels.
    pub counts: LabelCounts,
    /// Number of labels that are set now and were not set in the version before.
    pub set: u64,
    /// Flips of PLD in all labels; `None` if nobody asks for them.
    pub flips: Option<FlipCounts>,
    /// Rejected rows of the graph.
    pub(crate) rejects: Vec<RejectRow>,
    lost: LostLabels,
}

impl PassTotals {
    /// Makes empty totals. With `flips`, they count the flips of PLD.
    pub(crate) fn new(flips: bool) -> PassTotals {
        PassTotals {
            flips: flips.then(FlipCounts::new),
            ..PassTotals::default()
        }
    }

    /// Adds the totals of another process.
    pub(crate) fn add(&mut self, other: PassTotals) {
        self.counts.add(&other.counts);
        self.set += other.set;
        if let (Some(own), Some(others)) = (&mut self.flips, other.flips) {
            flips::add(own, others);
        }
        self.rejects.extend(other.rejects);
        self.lost.add_counts(&other.lost);
    }

    /// Counts a pass.
    pub(crate) fn count(&mut self, plan: &Plan, labelled: &LabelledPass) {
        let outcome = &labelled.outcome;
        self.counts.count_labels(outcome);
        self.set += outcome.changes.iter().filter(|change| change.to).count() as u64;
        if let Some(all) = &mut self.flips {
            let records = outcome.labels();
            let records = records.map(|(_, modality, record)| (modality, record));
            flips::count(all, &plan.world, records);
        }
        self.rejects.extend(graph_rejects(plan, outcome));
        self.lost.add(&labelled.labelled_before, outcome);
    }

    /// Counts a pass, and writes the rows of its buckets.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if the store cannot be written.
    pub(crate) fn write(
        &mut self,
        to: &mut impl VersionRows,
        plan: &Plan,
        classes: &Classification,
        mut labelled: LabelledPass,
    ) -> Result<(), LabelError> {
        self.count(plan, &labelled);
        let changes = std::mem::take(&mut labelled.outcome.changes);
        append_changes(to, classes, changes, |video| labelled.name(plan, video))?;

        let (world, pass) = (&plan.world, &labelled.pass);
        let buckets = &labelled.buckets;
        let mut by_bucket: BTreeMap<u32, Vec<Video>> = BTreeMap::new();
        for video in plan.videos.of_ids(pass.ids()) {
            let bucket = pass.bucket_of(video.id);
            if buckets.binary_search(&bucket).is_ok() {
                by_bucket.entry(bucket).or_default().push(video.into());
            }
        }
        for videos in by_bucket.values_mut() {
            videos.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let rows = |video: &Video| labelled.outcome.video(video.id);
        let of = |bucket: u32| by_bucket.get(&bucket).into_iter().flatten();
        to.fill_buckets::<Videos>(buckets, |bucket| {
            of(bucket)
                .map(|video| video_row(world, video, rows(video)))
                .collect()
        })?;
        to.fill_buckets::<Candidates>(buckets, |bucket| {
            of(bucket)
                .flat_map(|video| candidate_rows(video, rows(video), &labelled.sources_of(video.id)))
                .collect()
        })?;
        to.fill_buckets::<Scores>(buckets, |bucket| {
            of(bucket)
                .flat_map(|video| score_tracks(world, &video.name, rows(video)))
                .collect()
        })?;
        to.fill_buckets::<Labels>(buckets, |bucket| {
            of(bucket)
                .flat_map(|video| label_tracks(world, &video.name, rows(video)))
                .collect()
        })?;
        Ok(())
    }
}

/// A store version whose tables are being written, pass by pass.
pub struct VersionWriter<'a> {
    commit: Commit<'a>,
    /// Whether the buckets of a pass have rows of the version before, which are to be removed.
    replaces: bool,
    plan: &'a Plan,
    classes: &'a Classification,
    totals: PassTotals,
}

impl<'a> VersionWriter<'a> {
    /// Begins a store version. `classes` has the classes of the plan and of the version before. With `flips`, the version
    /// counts the flips of PLD in all labels.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if the store cannot be written.
    pub fn begin(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
        plan: &'a Plan,
        classes: &'a Classification,
        flips: bool,
    ) -> Result<VersionWriter<'a>, LabelError> {
        let mut writer = VersionWriter::begin_early(store, lock, info, plan, classes)?;
        writer.totals = PassTotals::new(flips);
        let commit = &mut writer.commit;
        commit.replace_all::<Truth>(&plan.truth)?;
        commit.clear::<Videos>();
        commit.clear::<Candidates>();
        commit.clear::<Scores>();
        commit.clear::<Labels>();
        writer.replaces = false;
        Ok(writer)
    }

    /// Like [`VersionWriter::begin`], for a version in which only the passes that are written replace rows. The caller writes
    /// table `truth`.
    ///
    /// # Errors
    /// Returns the errors of [`VersionWriter::begin`].
    pub fn begin_early(
        store: &'a Store,
        lock: &'a WriteLock,
        info: CommitInfo,
        plan: &'a Plan,
        classes: &'a Classification,
    ) -> Result<VersionWriter<'a>, LabelError> {
        let mut commit = store.begin(lock, info)?;
        let world = &plan.world;
        commit.replace_all::<Settings>(&world.setting_rows())?;
        commit.replace_all::<Classes>(&world.class_rows())?;
        commit.replace_all::<Prompts>(&world.prompt_rows())?;
        Ok(VersionWriter {
            commit,
            replaces: true,
            plan,
            classes,
            totals: PassTotals::default(),
        })
    }

    /// The number of the new version.
    pub(crate) fn version(&self) -> StoreVersion {
        self.commit.version()
    }

    /// What was counted so far.
    pub(crate) fn totals(&self) -> &PassTotals {
        &self.totals
    }

    /// Adds rejected rows of the version before that stay in this version.
    #[cfg(feature = "encode")]
    pub(crate) fn keep_rejects(&mut self, rows: impl IntoIterator<Item = RejectRow>) {
        self.totals.rejects.extend(rows);
    }

    /// Writes the rows of a pass.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if the store cannot be written.
    pub fn write(&mut self, labelled: LabelledPass) -> Result<(), LabelError> {
        if self.replaces {
            let (commit, range) = (&mut self.commit, &labelled.pass.buckets);
            commit.clear_buckets::<Videos>(range.clone())?;
            commit.clear_buckets::<Candidates>(range.clone())?;
            commit.clear_buckets::<Scores>(range.clone())?;
            commit.clear_buckets::<Labels>(range.clone())?;
        }
        self.totals
            .write(&mut self.commit, self.plan, self.classes, labelled)
    }

    /// Adds the files and counts of another process.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if this process does not see the files.
    pub(crate) fn adopt(&mut self, totals: PassTotals, files: PartFiles) -> Result<(), LabelError> {
        self.commit.adopt(files)?;
        self.totals.add(totals);
        Ok(())
    }

    /// Commits the version. `also` writes the tables of user labels, predictions and epochs. With `allow_missing`, the
    /// version is committed also if most videos lose the labels of a modality.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if the store cannot be written, and [`LabelError::Lost`] if most videos would lose the
    /// labels of a modality. The version before is then still the latest.
    pub fn finish(
        mut self,
        read: ReadReport,
        allow_missing: bool,
        also: impl FnOnce(&mut Commit<'_>) -> Result<(), StoreError>,
    ) -> Result<LabelSummary, LabelError> {
        let mut counts = self.totals.counts;
        counts.videos = self.plan.videos.len() as u64;
        counts.remarks = remarks(&self.plan.world, [Some(counts.audio), Some(counts.visual)]);
        let rejects = reject_rows(self.plan, self.totals.rejects, read);
        if !allow_missing {
            self.totals.lost.check(&self.plan.world, &rejects)?;
        }
        self.commit.replace_all::<Rejects>(&rejects)?;
        also(&mut self.commit)?;
        tracing::debug!("tables written");
        let version = self.commit.finish()?;
        counts.count_rejects(rejects);
        Ok(LabelSummary {
            version,
            done: Some(counts),
        })
    }
}

/// Approximate number of rows of `label_changes` per data file. Memory holds the rows of the files that are being
/// written, not the rows of all files.
const CHANGE_ROWS: usize = 1 << 17;

/// Returns the rows of `label_changes`, sorted by key. Changes of videos that `names` does not know are left out.
pub fn change_rows<'a>(
    version: u64,
    classes: &Classification,
    changes: &[Change],
    names: impl Fn(VideoId) -> Option<&'a str>,
) -> Vec<LabelChangeRow> {
    let mut rows = Vec::with_capacity(changes.len());
    for own in changes.chunk_by(|a, b| a.video == b.video) {
        if let Some(name) = names(own[0].video) {
            let name: Arc<str> = name.into();
            let row = |change: &Change| rows::change_row(version, &name, classes, change);
            rows.extend(own.iter().map(row));
        }
    }
    sort_changes(&mut rows);
    rows
}

/// Sorts rows of `label_changes` by key.
pub(super) fn sort_changes(rows: &mut [LabelChangeRow]) {
    rows.sort_by(|a, b| {
        let key = (&a.video, a.modality, &a.class, a.segment);
        key.cmp(&(&b.video, b.modality, &b.class, b.segment))
    });
}

/// Appends changed labels to table `label_changes`, sorted by video name, modality, class name and segment.
///
/// # Errors
/// Returns [`StoreError`] if the table cannot be written.
///
/// # Panics
/// Panics if `names` does not know the video of a change.
pub fn append_changes<'a>(
    commit: &mut impl VersionRows,
    classes: &Classification,
    mut changes: Vec<Change>,
    names: impl Fn(VideoId) -> Option<&'a str>,
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
    let mut videos: Vec<(Arc<str>, &[Change])> = changes
        .chunk_by(|a, b| a.video == b.video)
        .map(|own| (name(own[0].video).into(), own))
        .collect();
    videos.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    // Choose the number of videos per part so that each file has about `CHANGE_ROWS` rows.
    let parts = changes.len().div_ceil(CHANGE_ROWS).max(1);
    let share = videos.len().div_ceil(parts).max(1);
    let parts: Vec<&[(Arc<str>, &[Change])]> = videos.chunks(share).collect();
    commit.append_parts::<LabelChanges>(parts.len() as u32, |part| {
        let row = |video: &Arc<str>, change: &Change| rows::change_row(version, video, classes, change);
        let own = parts[part as usize].iter();
        LabelChangeTrack::group(
            own.flat_map(|(video, changes)| changes.iter().map(move |change| row(video, change))),
        )
    })
}

/// Returns the rejected rows of the graph, for the videos of the plan.
pub fn graph_rejects(plan: &Plan, outcome: &Outcome) -> Vec<RejectRow> {
    let mut rows = Vec::new();
    for (video, own) in outcome
        .videos
        .iter()
        .filter(|(_, own)| !own.rejections.is_empty())
    {
        // A rejected user label may belong to a video outside the selected splits. Such a row is left out.
        if let Some(name) = plan.name(*video) {
            let of_video = own.rejections.iter();
            rows.extend(of_video.flat_map(|rejection| rejects::rows(&plan.world, name, rejection)));
        }
    }
    rows
}

/// Returns the rows of table `rejects`: those of the annotations, of reading and scoring, and of the graph. The rows
/// are sorted, and each row is there once.
pub fn reject_rows(plan: &Plan, of_graph: Vec<RejectRow>, read: ReadReport) -> Vec<RejectRow> {
    let mut rows = plan.rejects.clone();
    rows.extend(read.rejects);
    rows.extend(of_graph);
    rows.sort();
    rows.dedup();
    rejects::drop_repeated(&plan.world, &mut rows);
    rows
}
