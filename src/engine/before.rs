//! The rows of the version before that labelling needs, bucket by bucket: labels, user labels and predictions.
//!
//! ```text
//! labels, user labels ─┬─ files of one bucket ─────────────────────── read when their bucket is labelled ─┐
//!                      └─ patch files, files of other buckets ─┐                                          ├─▶ bucket
//! predictions, user labels of a change ────────────────────────┴─ spilled once, by bucket ────────────────┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::{Bits, LabelRecord, Prediction, Track, VideoId};
use vaplan_schemas::rows::{LabelTrack, PredictionTrack, UserLabelRow};
use vaplan_schemas::store::{DataFile, Snapshot};
use vaplan_schemas::tables::{Labels, Table, UserLabels, Videos};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::commit::Classification;
use super::passes::top_bits;
use super::plan::Plan;
use super::share::BucketShare;
use super::spill::Spill;
use super::stage::Stage;
use crate::error::LabelError;
use crate::world::evidence::{self, Of, StoredEvidence};

/// The version before and the changes of its user labels and predictions, as labelling reads them.
#[derive(Debug)]
pub struct VersionBefore {
    /// The version; `None` if the run makes the first version.
    snapshot: Option<Snapshot>,
    plan: Arc<Plan>,
    buckets: u32,
    /// The buckets whose rows this process needs.
    share: BucketShare,
    classes: Classification,
    /// Whether the user labels are those of the snapshot.
    stored_user_labels: bool,
    spilled: Spill<SpilledRow>,
}

/// A row that does not come from a file of its bucket.
#[derive(Debug, Serialize, Deserialize)]
enum SpilledRow {
    Label(PreviousTrack),
    UserLabel(Arc<str>, Modality, ClassId, u32, bool),
    Prediction(Of<Prediction>),
}

/// The labels of one video, modality and class in the version before.
#[derive(Debug, Serialize, Deserialize)]
struct PreviousTrack {
    video: Arc<str>,
    modality: Modality,
    class: ClassId,
    label: Bits,
}

/// The rows of one bucket.
#[derive(Debug, Default)]
pub(super) struct BucketBefore {
    /// The labels of the version before: one record per video and modality.
    pub(super) previous: Vec<((VideoId, Modality), Arc<LabelRecord>)>,
    /// Names of the videos of `previous` that the new version does not have.
    pub(super) removed: Vec<(VideoId, Arc<str>)>,
    /// User labels, and the latest predictions.
    pub(super) evidence: StoredEvidence,
}

impl VersionBefore {
    /// Makes an empty version before.
    pub fn none(plan: &Arc<Plan>, stage: &Stage, buckets: u32, share: BucketShare) -> VersionBefore {
        VersionBefore {
            snapshot: None,
            plan: plan.clone(),
            buckets,
            share,
            classes: Classification::new(&plan.world, &[]),
            stored_user_labels: false,
            spilled: Spill::new(stage.folder(), buckets),
        }
    }

    /// Opens a version. `former` has the classes of that version. Rows of buckets outside `share` are not kept.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if a table cannot be read, and [`LabelError::Stage`] if rows cannot be spilled.
    pub fn open(
        snapshot: &Snapshot,
        former: &[Arc<str>],
        plan: &Arc<Plan>,
        stage: &Stage,
        buckets: u32,
        share: BucketShare,
    ) -> Result<VersionBefore, LabelError> {
        let mut opened = VersionBefore {
            snapshot: Some(snapshot.clone()),
            classes: Classification::new(&plan.world, former),
            stored_user_labels: true,
            ..VersionBefore::none(plan, stage, buckets, share)
        };
        for rows in opened.elsewhere::<Labels>(snapshot)? {
            for track in &rows? {
                let track = opened.previous_track(snapshot, track)?;
                opened.spill(&track.video.clone(), SpilledRow::Label(track))?;
            }
        }
        for rows in opened.elsewhere::<UserLabels>(snapshot)? {
            opened.spill_user_labels(&rows?)?;
        }
        if let Some(active) = &plan.world.active {
            evidence::each_file_of_epochs(snapshot, &active.epochs, &mut |tracks| {
                opened.add_predictions(tracks)
            })?;
        }
        Ok(opened)
    }

    /// Replaces the user labels of the version by these.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the rows cannot be spilled.
    pub fn replace_user_labels(&mut self, rows: &[UserLabelRow]) -> Result<(), LabelError> {
        self.stored_user_labels = false;
        self.spill_user_labels(rows)
    }

    /// Adds predictions. Of two predictions of one video, modality and epoch, the one that is added later counts.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the rows cannot be spilled.
    pub fn add_predictions(&mut self, mut tracks: Vec<PredictionTrack>) -> Result<(), LabelError> {
        let plan = self.plan.clone();
        let video = |name: &str| plan.videos.get(VideoId::of(name));
        tracks.retain(|track| video(&track.video).is_some());
        // Only the classes of the weak label have labels that a prediction can flip.
        let weak = |name: &str| {
            let weak = video(name)?.weak;
            // The candidates of a video without a weak label are not known yet.
            (!plan.world.guesses(weak)).then(|| weak.clone())
        };
        for latest in evidence::latest(tracks, &plan.world, &weak) {
            let bucket = self.bucket(latest.0);
            if self.share.has(bucket) {
                self.spilled.push(bucket, &SpilledRow::Prediction(latest))?;
            }
        }
        Ok(())
    }

    /// The classes of the plan and of the version before.
    pub fn classes(&self) -> &Classification {
        &self.classes
    }

    /// The number of videos in each bucket of the version, without the videos in patch files.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log of the table cannot be read.
    pub fn videos_by_bucket(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let files = self.snapshot.iter().map(|snapshot| snapshot.files(Videos::NAME));
        let files: Vec<Vec<DataFile>> = files.collect::<Result<_, _>>()?;
        let own = |file: &DataFile| match file.bucket()? {
            (bucket, of) if of == self.buckets => Some((bucket, file.rows)),
            _ => None,
        };
        Ok(files.iter().flatten().filter_map(own).collect())
    }

    /// Reads the rows of a bucket.
    ///
    /// # Errors
    /// Returns [`LabelError::Store`] if a table cannot be read, and [`LabelError::Stage`] if spilled rows cannot be read.
    pub(super) fn bucket_rows(&self, bucket: u32) -> Result<BucketBefore, LabelError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(BucketBefore::default());
        };
        let own = |file: &DataFile| file.bucket() == Some((bucket, self.buckets));
        let labels = snapshot.read_some::<Labels>(own)?;
        let labels = labels.iter().map(|track| self.previous_track(snapshot, track));
        let mut labels: Vec<PreviousTrack> = labels.collect::<Result<_, _>>()?;
        let mut user_labels = match self.stored_user_labels {
            true => snapshot.read_some::<UserLabels>(own)?,
            false => Vec::new(),
        };
        let mut predictions: BTreeMap<(VideoId, Modality), Arc<Prediction>> = BTreeMap::new();
        let classes = &self.plan.world.classes;
        for row in self.spilled.rows(bucket)? {
            match row {
                SpilledRow::Label(track) => labels.push(track),
                SpilledRow::UserLabel(video, modality, class, segment, label) => {
                    user_labels.push(UserLabelRow {
                        video,
                        modality,
                        class: classes[class.index()].clone(),
                        segment,
                        label,
                        source: Arc::from(""),
                    });
                }
                SpilledRow::Prediction((video, (modality, prediction))) => {
                    let latest = predictions
                        .entry((video, modality))
                        .or_insert_with(|| prediction.clone());
                    if latest.epoch() <= prediction.epoch() {
                        *latest = prediction;
                    }
                }
            }
        }
        let (previous, removed) = self.previous_records(labels);
        let predictions = predictions.into_iter();
        Ok(BucketBefore {
            previous,
            removed,
            evidence: StoredEvidence {
                user_labels: evidence::user_labels(&user_labels, &self.plan.world),
                predictions: predictions
                    .map(|((video, modality), own)| (video, (modality, own)))
                    .collect(),
            },
        })
    }

    /// Joins the tracks of each video and modality into a record, and names the videos that the plan does not have.
    #[expect(
        clippy::type_complexity,
        reason = "the two lists are fields of `BucketBefore`"
    )]
    fn previous_records(
        &self,
        tracks: Vec<PreviousTrack>,
    ) -> (
        Vec<((VideoId, Modality), Arc<LabelRecord>)>,
        Vec<(VideoId, Arc<str>)>,
    ) {
        let with_id = tracks.into_iter().map(|track| (VideoId::of(&track.video), track));
        let mut tracks: Vec<(VideoId, PreviousTrack)> = with_id.collect();
        tracks.sort_by_key(|(video, track)| (*video, track.modality, track.class));
        let mut removed = Vec::new();
        for own in tracks.chunk_by(|a, b| a.0 == b.0) {
            let (video, first) = &own[0];
            if self.plan.videos.get(*video).is_none() {
                removed.push((*video, first.video.clone()));
            }
        }
        let mut records: Vec<((VideoId, Modality), LabelRecord)> = Vec::new();
        for (video, track) in tracks {
            let key = (video, track.modality);
            if records.last().is_none_or(|(last, _)| *last != key) {
                records.push((key, LabelRecord::default()));
            }
            let (_, record) = records.last_mut().expect("a record was just added");
            record.tracks.push(Track::plg(track.class, track.label));
        }
        let records = records.into_iter();
        (
            records.map(|(key, record)| (key, Arc::new(record))).collect(),
            removed,
        )
    }

    /// Iterates over the rows of each file that does not hold exactly one bucket.
    fn elsewhere<T: Table>(
        &self,
        snapshot: &Snapshot,
    ) -> Result<impl Iterator<Item = Result<Vec<T::Row>, StoreError>> + use<T>, StoreError> {
        let mut files = snapshot.files(T::NAME)?;
        files.retain(|file| file.bucket().is_none_or(|(_, of)| of != self.buckets));
        let snapshot = snapshot.clone();
        let rows = move |file: DataFile| snapshot.read_some::<T>(|other| other.path == file.path);
        Ok(files.into_iter().map(rows))
    }

    fn previous_track(&self, snapshot: &Snapshot, track: &LabelTrack) -> Result<PreviousTrack, LabelError> {
        let class = self.classes.id(&track.class).ok_or_else(|| LabelError::World {
            version: snapshot.version().version,
            problem: format!(
                "table `labels`: video `{}` has class `{}`, expected a class of table `classes`: run `vaplan check`",
                track.video, track.class
            ),
        })?;
        Ok(PreviousTrack {
            video: track.video.clone(),
            modality: track.modality,
            class,
            label: track.labels.iter().copied().collect(),
        })
    }

    fn spill_user_labels(&mut self, rows: &[UserLabelRow]) -> Result<(), LabelError> {
        for row in rows {
            // User labels of classes that the world does not have stay in their table without effect.
            if let Some(class) = self.plan.world.class_id(&row.class) {
                let spilled =
                    SpilledRow::UserLabel(row.video.clone(), row.modality, class, row.segment, row.label);
                self.spill(&row.video, spilled)?;
            }
        }
        Ok(())
    }

    fn spill(&mut self, video: &str, row: SpilledRow) -> Result<(), LabelError> {
        let bucket = self.bucket(VideoId::of(video));
        match self.share.has(bucket) {
            true => self.spilled.push(bucket, &row),
            false => Ok(()),
        }
    }

    fn bucket(&self, video: VideoId) -> u32 {
        top_bits(video, self.buckets.trailing_zeros())
    }
}
