//! Labels tracks of all videos anew from the tables, bucket by bucket, so that memory does not depend on the number of videos.
//!
//! ```text
//! labels of a bucket ── scores, user labels, labels before ─┐
//! scores of a bucket (new rule, or hidden by a user label) ─┼─ decide ─┬─▶ rows of labels, and of scores under a new rule
//! predictions of the bucket (if PLD denoises) ──────────────┘          └─▶ changed labels
//! ```
//!
//! Table `labels` repeats the scores that it compares, so a new threshold needs no other table. The tracks are decided by
//! [`decide_modality`], as in the label graph. Neither features nor the graph are needed, because a threshold, a rule or an
//! epoch changes neither which features count nor which rows are rejected.
//!
//! A bucket whose labels depend on scores and thresholds alone is labelled column by column, so that no row is decoded. Its file has
//! the same bytes as if its rows were decoded and encoded.
//!
//! Many tracks are written by writing their buckets anew ([`TrackOutput::Buckets`]). Few tracks become a patch
//! ([`TrackOutput::Patch`]). A bucket has about 1,024 videos, and each core works on one bucket at a time.

mod changes;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::decide::{Denoising, PlgTrack, decide_modality};
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::{Score, UserLabelRecord, UserLabelTrack, VideoId};
use vaplan_schemas::rows::{LabelChangeTrack, LabelRule, LabelTrack, ScoreTrack};
use vaplan_schemas::store::{
    BucketGroups, FileWriter, Filter, Found, GroupRows, Snapshot, VersionRows, on_every_core,
};
use vaplan_schemas::tables::{LabelColumns, Labels, Scores, Table};
use vaplan_schemas::{ClassId, Modality, bucket_of};

pub(crate) use self::changes::{TrackChanges, TrackCounts};
pub(crate) use self::others::{OtherRows, OtherTracks};
use super::rows::label_track;
use super::share::BucketShare;
use super::{Listener, SetLabels};
use crate::error::LabelError;
use crate::world::bucketed::PredictionsByBucket;
use crate::world::hash::{feed, hash};
use crate::world::resolve::Resolved;
use crate::world::{Both, World};

/// The number of videos of a group of buckets.
const GROUP_VIDEOS: u64 = 1 << 15;
/// The largest number of tracks that become a patch. Memory holds the rows of a patch, at about 500 bytes a track.
const PATCHED: usize = 1 << 18;
/// If more than one of so many pairs of modality and class are labelled anew, buckets are written anew: a patch of a large
/// part of a table would cost every reader more than it saves now.
const SHARE: usize = 8;

/// The tracks of all videos to label anew.
pub(crate) struct TracksAnew<'a> {
    snapshot: &'a Snapshot,
    /// The world after the change.
    world: &'a World,
    groups: BucketGroups,
    /// The new rule of each modality whose scores change.
    rescored: Both<Option<Rule>>,
    /// By modality and class: whether the tracks are labelled anew.
    wanted: Both<Vec<bool>>,
    /// By bucket: videos that another part of the change labels. Their tracks stay as they are here.
    elsewhere: BTreeMap<u32, BTreeSet<Arc<str>>>,
    /// Whether to count the flips of all tracks.
    counts_flips: bool,
    predictions: Option<PredictionsByBucket>,
    version: u64,
}

/// How the new rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackOutput {
    /// Every bucket is written anew.
    Buckets,
    /// The old places and the new rows are returned. Only the changed labels are written.
    Patch,
    /// The changed labels are returned, and nothing is written.
    Nothing,
}

/// The numbers of the classes whose tracks are labelled anew, by modality. The rows of a file share the names of their classes,
/// so that a look-up compares pointers.
#[derive(Default)]
struct WantedClasses(Vec<(Arc<str>, Both<Option<ClassId>>)>);

impl WantedClasses {
    fn of(&mut self, tracks: &TracksAnew<'_>, name: &Arc<str>, modality: Modality) -> Option<ClassId> {
        if let Some((_, known)) = self.0.iter().find(|(own, _)| Arc::ptr_eq(own, name)) {
            return known[modality.index()];
        }
        let class = tracks.world.class_id(name);
        let wanted = tracks
            .wanted
            .each_ref()
            .map(|wanted| class.filter(|class| wanted[class.index()]));
        self.0.push((name.clone(), wanted));
        wanted[modality.index()]
    }
}

/// What is read of one group of buckets.
struct GroupTracks<'a> {
    labels: GroupRows<'a, Labels>,
    scores: GroupRows<'a, Scores>,
}

impl<'a> TracksAnew<'a> {
    /// Plans to label these tracks anew in all videos but those of `elsewhere`.
    ///
    /// # Errors
    /// Returns [`LabelError`] if predictions cannot be read.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        resolved: &'a Resolved,
        tracks: &BTreeSet<(Modality, ClassId)>,
        elsewhere: &BTreeSet<Arc<str>>,
    ) -> Result<TracksAnew<'a>, LabelError> {
        let (before, world) = (&resolved.before, &resolved.after);
        let wanted: Both<Vec<bool>> = Modality::ALL.map(|modality| {
            let classes = (0..world.classes.len() as u32).map(ClassId);
            classes.map(|class| tracks.contains(&(modality, class))).collect()
        });
        let rescored = Modality::ALL.map(|modality| {
            let rule = world.settings.of(modality).rule;
            (before.settings.of(modality).rule != rule).then_some(rule)
        });
        let groups = snapshot.bucket_groups(GROUP_VIDEOS)?;
        let mut by_bucket: BTreeMap<u32, BTreeSet<Arc<str>>> = BTreeMap::new();
        for video in elsewhere {
            let bucket = bucket_of(video, groups.buckets());
            by_bucket.entry(bucket).or_default().insert(video.clone());
        }
        let denoises = |modality: Modality| {
            let at = modality.index();
            world.denoising[at].is_some() && wanted[at].contains(&true)
        };
        let predictions = match Modality::ALL.into_iter().any(denoises) {
            true => PredictionsByBucket::read(snapshot, world, &resolved.predictions, groups.buckets())?,
            false => None,
        };
        Ok(TracksAnew {
            snapshot,
            world,
            groups,
            rescored,
            wanted,
            elsewhere: by_bucket,
            counts_flips: resolved.asks_for_flips,
            predictions,
            version: snapshot.version().version + 1,
        })
    }

    /// Hash of what decides the tracks. Processes that label tracks together compare it.
    pub(crate) fn hash(&self) -> String {
        let world = self.world;
        let wanted = format!("{:?}", (&self.wanted, &self.rescored, &self.elsewhere));
        let denoised = format!("{:?}", (&world.denoising, &world.active));
        hash(|sum| {
            feed(
                sum,
                [&*world.settings_hash(), &world.models_hash(), &wanted, &denoised],
            )
        })
    }

    /// The number of buckets of the store.
    pub(crate) fn buckets(&self) -> u32 {
        self.groups.buckets()
    }

    /// Whether the tracks of every class of a modality are labelled anew.
    pub(crate) fn is_whole(&self, modality: Modality) -> bool {
        self.wanted[modality.index()].iter().all(|wanted| *wanted)
    }

    /// Whether the scores of a modality change.
    pub(crate) fn rescores(&self) -> bool {
        self.rescored.iter().any(Option::is_some)
    }

    /// How to write the tracks, as far as their number can be estimated.
    ///
    /// # Errors
    /// Returns [`LabelError`] if the log of a table cannot be read.
    pub(crate) fn output(&self) -> Result<TrackOutput, LabelError> {
        let wanted = self.wanted.iter().flatten().filter(|wanted| **wanted).count();
        let all = self.wanted.iter().map(Vec::len).sum::<usize>().max(1);
        let tracks: u64 = self
            .snapshot
            .files(Labels::NAME)?
            .iter()
            .map(|file| file.rows)
            .sum();
        let many = wanted * SHARE > all || tracks * wanted as u64 > (PATCHED * all) as u64;
        Ok(match many || self.counts_flips || self.rescores() {
            true => TrackOutput::Buckets,
            false => TrackOutput::Patch,
        })
    }

    /// Labels the tracks in the buckets of `share`, and writes them to `commit` unless there is none.
    ///
    /// Returns `None` if a patch would have too many rows. The caller must then begin another commit, and write buckets.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read or written, or the listener's token was cancelled.
    pub(crate) fn label(
        &self,
        output: TrackOutput,
        share: BucketShare,
        others: &OtherTracks,
        mut commit: Option<&mut impl VersionRows>,
        listener: &Listener,
    ) -> Result<Option<TrackChanges>, LabelError> {
        let labels = self.snapshot.by_bucket::<Labels>(self.buckets())?;
        let scores = self.snapshot.by_bucket::<Scores>(self.buckets())?;
        if let (TrackOutput::Buckets, Some(commit)) = (output, &mut commit) {
            commit.clear::<Labels>();
            if self.rescores() {
                commit.clear::<Scores>();
            }
        }
        let mut all = TrackChanges::default();
        // The changed labels of a group are written while the next group is labelled, so that no core waits for them.
        let mut changed: Vec<LabelChangeTrack> = Vec::new();
        for range in self.groups.iter() {
            listener.check()?;
            let group = GroupTracks {
                labels: labels.group(range.clone())?,
                scores: scores.group(range.clone())?,
            };
            let buckets: Vec<u32> = range.filter(|bucket| share.has(*bucket)).collect();
            let bucket = |nth: usize, writer: Option<&FileWriter<'_>>| {
                self.bucket(buckets[nth], &group, (output, writer), others)
            };
            let done = match &mut commit {
                Some(commit) => commit.write_files(buckets.len() + 1, |nth, writer| match nth {
                    0 => {
                        writer.changes(&changed)?;
                        Ok(Default::default())
                    }
                    _ => bucket(nth - 1, Some(writer)),
                })?,
                None => on_every_core(buckets.len(), |nth| bucket(nth, None))?,
            };
            changed.clear();
            for (own, changes) in done {
                all.add(own);
                match output {
                    TrackOutput::Nothing => all
                        .changes
                        .extend(changes.iter().flat_map(LabelChangeTrack::changes)),
                    TrackOutput::Buckets | TrackOutput::Patch => changed.extend(changes),
                }
            }
            if all.new.len() > PATCHED {
                return Ok(None);
            }
        }
        if let Some(commit) = commit {
            commit.write_files(1, |_, writer| writer.changes(&changed))?;
        }
        Ok(Some(all))
    }

    /// Labels the tracks of a bucket. With a writer and [`TrackOutput::Buckets`], writes the whole bucket.
    fn bucket(
        &self,
        bucket: u32,
        group: &GroupTracks<'_>,
        (output, writer): (TrackOutput, Option<&FileWriter<'_>>),
        others: &OtherTracks,
    ) -> Result<(TrackChanges, Vec<LabelChangeTrack>), LabelError> {
        let whole = output == TrackOutput::Buckets;
        let none = BTreeSet::new();
        let elsewhere = self.elsewhere.get(&bucket).unwrap_or(&none);
        if let Some(writer) = writer.filter(|_| whole && elsewhere.is_empty() && self.only_generates(others))
        {
            let columns = group.labels.columns(bucket)?;
            let thresholds = columns.as_ref().and_then(|columns| self.thresholds(columns));
            if let (Some(columns), Some(thresholds)) = (columns, thresholds) {
                return self.columns(bucket, &columns, &thresholds, writer);
            }
        }
        let filter = match whole || self.counts_flips {
            true => Filter::all(),
            false => self.filter(),
        };
        let tracks = group.labels.bucket(bucket, &filter)?;
        let hidden = |found: &Found<LabelTrack>| found.row.rules.contains(&LabelRule::User);
        let scores = match self.rescores() || tracks.iter().any(hidden) {
            true => group.scores.bucket(bucket, &Filter::all())?,
            false => Vec::new(),
        };
        let predictions = self.predictions.as_ref().map(|own| own.of(bucket)).transpose()?;
        let (mut found, mut changes, mut rows) = (TrackChanges::default(), Vec::new(), Vec::new());
        let mut classes = WantedClasses::default();
        let mut last: Option<(Arc<str>, VideoId)> = None;
        for Found { mut row, place } in tracks {
            if others.labels.removes(&place) {
                continue;
            }
            let class = classes.of(self, &row.class, row.modality);
            let Some(class) = class.filter(|_| !elsewhere.contains(&row.video)) else {
                found.keep(row, whole, self.counts_flips, &mut rows);
                continue;
            };
            let id = match &last {
                Some((name, id)) if *name == row.video => *id,
                _ => {
                    found.videos += 1;
                    let id = VideoId::of(&row.video);
                    last = Some((row.video.clone(), id));
                    id
                }
            };
            let denoising = predictions
                .as_ref()
                .and_then(|own| own.denoising(self.world, (id, row.modality, class)));
            let before = (output == TrackOutput::Patch).then(|| row.clone());
            let labels = self.track(&mut row, class, &scores, denoising.as_ref())?;
            found.compare(&labels, &row, self.version, &mut changes);
            found.rows[0] += 1;
            found.labels[row.modality.index()].add_counts(SetLabels {
                set: row.labels.iter().filter(|label| **label).count() as u64,
                of: row.labels.len() as u64,
            });
            match before {
                Some(before) if before != row => {
                    found.gone.push(place);
                    found.new.push(row);
                }
                _ => found.keep(row, whole, self.counts_flips, &mut rows),
            }
        }
        for row in others.labels.of(bucket) {
            found.keep(row.clone(), whole, self.counts_flips, &mut rows);
        }
        if let Some(writer) = writer.filter(|_| whole) {
            writer.bucket::<Labels>(bucket, &rows)?;
            if self.rescores() {
                let mut rows = others.scores.of(bucket).to_vec();
                for Found { row, place } in scores {
                    if others.scores.removes(&place) {
                        continue;
                    }
                    let rule =
                        self.rescored[row.modality.index()].filter(|_| !elsewhere.contains(&row.video));
                    found.rows[1] += u64::from(rule.is_some());
                    rows.push(match rule {
                        Some(rule) => rescored(row, rule)?,
                        None => row,
                    });
                }
                writer.bucket::<Scores>(bucket, &rows)?;
            }
        }
        Ok((found, changes))
    }

    /// Whether scores and thresholds alone decide all tracks.
    fn only_generates(&self, others: &OtherTracks) -> bool {
        let all = self.wanted.iter().flatten().all(|wanted| *wanted);
        all && !self.rescores()
            && !self.counts_flips
            && self.predictions.is_none()
            && others.labels.is_empty()
    }

    /// The threshold of each row; `None` if the world has not all classes.
    fn thresholds(&self, columns: &LabelColumns) -> Option<Vec<f64>> {
        let mut classes = WantedClasses::default();
        let threshold = |row: usize| {
            let (name, modality) = (columns.class(row), columns.modality(row));
            let class = classes.of(self, name, modality)?;
            Some(self.world.settings.of(modality).score_threshold(class))
        };
        (0..columns.rows()).map(threshold).collect()
    }

    /// Labels the tracks of a bucket column by column, and writes the whole bucket.
    fn columns(
        &self,
        bucket: u32,
        columns: &LabelColumns,
        thresholds: &[f64],
        writer: &FileWriter<'_>,
    ) -> Result<(TrackChanges, Vec<LabelChangeTrack>), LabelError> {
        let generated = columns.generate(thresholds, |modality| self.world.generated(modality));
        writer.labels(bucket, &generated)?;
        let (mut found, mut changes) = (TrackChanges::default(), Vec::new());
        for (before, row) in &generated.changed {
            found.compare(before, row, self.version, &mut changes);
        }
        found.videos = columns.videos();
        found.rows[0] = columns.rows() as u64;
        found.labels = generated.counts.map(|[set, of]| SetLabels { set, of });
        Ok((found, changes))
    }

    /// Selects the tracks to label anew.
    fn filter(&self) -> Filter {
        let of = |modality: Modality| {
            let classes = self.world.classes.iter().zip(&self.wanted[modality.index()]);
            let wanted = classes.filter(|(_, wanted)| **wanted);
            wanted.map(move |(class, _)| (modality, class.clone()))
        };
        Filter::tracks(Modality::ALL.into_iter().flat_map(of))
    }

    /// Decides a track. Returns the labels before.
    fn track(
        &self,
        row: &mut LabelTrack,
        class: ClassId,
        scores: &[Found<ScoreTrack>],
        denoising: Option<&Denoising>,
    ) -> Result<Vec<bool>, LabelError> {
        let modality = row.modality;
        let threshold = self.world.settings.of(modality).score_threshold(class);
        let user = row.rules.contains(&LabelRule::User);
        let rule = self.rescored[modality.index()];
        if !user && rule.is_none() && denoising.is_none() {
            // Most tracks are decided here: a score, a threshold, and nothing else.
            let labels = row.scores.iter().map(|score| *score > threshold).collect();
            row.rules.fill(self.world.generated(modality));
            row.threshold = Some(threshold);
            row.flips.clear();
            return Ok(std::mem::replace(&mut row.labels, labels));
        }
        let before = &*row;
        let wrong = |what: &str| self.wrong(before, what);
        let values: Vec<Score> = match user || rule.is_some() {
            true => {
                let key = (&before.video, before.modality, &before.class);
                let at = scores.binary_search_by(|found| {
                    (&found.row.video, found.row.modality, &found.row.class).cmp(&key)
                });
                let stored = &scores[at.map_err(|_| wrong("no scores"))?].row;
                if stored.score.len() != before.segments() {
                    return Err(wrong("scores of another length than its labels"));
                }
                let cells = stored.cosine.iter().zip(&stored.score);
                let score = cells.map(|(cosine, score)| {
                    Score::new(rule.map_or(*score, |rule| rule.scale() * f64::from(*cosine)))
                });
                score.collect::<Option<_>>()
            }
            false => before.scores.iter().map(|score| Score::new(*score)).collect(),
        }
        .ok_or_else(|| wrong("a score that is NaN"))?;
        let threshold = Score::new(threshold).ok_or_else(|| wrong("a threshold that is NaN"))?;
        let known = before.rules.iter().map(|rule| *rule == LabelRule::User);
        let user = user.then(|| UserLabelRecord {
            classes: vec![UserLabelTrack {
                class,
                known: known.collect(),
                label: before.labels.iter().copied().collect(),
            }],
        });
        let own = PlgTrack::new(class, &values, threshold, denoising.map(|own| own.rule));
        let decided = decide_modality(modality, vec![own], denoising, user.as_ref());
        let record = decided.labels.expect("a track was given");
        let generated = self.world.generated(modality);
        let made = label_track(
            self.world,
            &before.video,
            (modality, class),
            generated,
            &record,
            &values,
        );
        Ok(std::mem::replace(row, made.expect("the record has the class")).labels)
    }

    fn wrong(&self, track: &LabelTrack, what: &str) -> LabelError {
        LabelError::World {
            version: self.version - 1,
            problem: format!(
                "table `scores`: video `{}` has {what} for its {} labels of class `{}`: run `vaplan check`",
                track.video, track.modality, track.class
            ),
        }
    }
}

/// The scores of a track under another rule, computed from its cosines. Such a rule is always `logit`: a changed rule `softmax`
/// needs the cosines of all classes, so that all videos are scored again instead.
fn rescored(mut track: ScoreTrack, rule: Rule) -> Result<ScoreTrack, LabelError> {
    for (score, cosine) in track.score.iter_mut().zip(&track.cosine) {
        *score = Score::new(rule.scale() * f64::from(*cosine))
            .ok_or_else(|| {
                LabelError::Change(format!(
                    "table `scores`: video `{}` has a cosine that is NaN",
                    track.video
                ))
            })?
            .get();
    }
    Ok(track)
}
