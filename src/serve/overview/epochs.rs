//! Scores of the predictions of each epoch, on the videos of a split with dense truth.
//!
//! The data files of an epoch do not change after the commit of the epoch. The reader therefore keeps the scores of each epoch,
//! and a later version reads only epochs with other files than before. A change of the truth, of the scored videos or of the
//! classes makes all scores anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use vaplan_schemas::rows::{PredictionTrack, Split};
use vaplan_schemas::store::{Deleted, Filter, Snapshot};
use vaplan_schemas::tables::{Predictions, Table, VideoPredictions};
use vaplan_schemas::{ClassId, Modality};

use super::quality::{QualityStage, StageQuality};
use crate::error::LabelError;
use crate::eval::{BitMatrix, DenseTruth, PredictedLabels, Protocol};
use crate::world::World;
use crate::world::epochs::EpochClasses;
use crate::world::evidence::files_of;

/// Largest number of epochs that are scored, the latest.
const MOST_EPOCHS: usize = 100;
/// Largest number of scores (epochs × classes × modalities) of a split, so that the overview stays a small answer.
const MOST_SCORES: usize = 10_000;

/// Scores the predictions of epochs, and keeps the scores.
#[derive(Debug, Default)]
pub struct EpochScoreReader(Mutex<BTreeMap<Split, KeptScores>>);

/// The scores of a split.
#[derive(Debug)]
struct KeptScores {
    truth: DenseTruth,
    epochs: BTreeMap<u64, KeptEpoch>,
}

/// The scores of an epoch, and the files that they were read from. Without predictions of the split, there are no scores.
#[derive(Debug)]
struct KeptEpoch {
    files: EpochFiles,
    stage: Option<StageQuality>,
}

/// The files that can hold predictions of an epoch, each with its deleted rows.
type EpochFiles = BTreeMap<PathBuf, Option<Deleted>>;

impl EpochScoreReader {
    /// The scores of the last epochs that have predictions of videos of the truth, the first epoch first. `filter` selects
    /// these videos.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(
        &self,
        snapshot: &Snapshot,
        world: &World,
        truth: &DenseTruth,
        filter: &Filter,
    ) -> Result<Vec<StageQuality>, LabelError> {
        let most = MOST_SCORES / (2 * truth.classes.len().max(1));
        let files = PredictionFiles::list(snapshot)?;
        let wanted = files.last_epochs(most.clamp(1, MOST_EPOCHS));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = known.entry(truth.split).or_insert_with(|| KeptScores::new(truth));
        if kept.truth != *truth {
            *kept = KeptScores::new(truth);
        }
        kept.epochs
            .retain(|epoch, own| wanted.contains(epoch) && own.files == files.of(*epoch));
        let missing: BTreeSet<u64> = wanted
            .into_iter()
            .filter(|epoch| !kept.epochs.contains_key(epoch))
            .collect();
        for group in files.groups(missing) {
            let mut stages = scored(snapshot, world, truth, filter, &group)?;
            for epoch in group {
                let (files, stage) = (files.of(epoch), stages.remove(&epoch));
                kept.epochs.insert(epoch, KeptEpoch { files, stage });
            }
        }
        Ok(kept.epochs.values().filter_map(|own| own.stage.clone()).collect())
    }
}

impl KeptScores {
    fn new(truth: &DenseTruth) -> KeptScores {
        KeptScores {
            truth: truth.clone(),
            epochs: BTreeMap::new(),
        }
    }
}

/// The data files of tables `predictions` and `video_predictions` by epoch.
struct PredictionFiles {
    by_epoch: BTreeMap<u64, EpochFiles>,
    /// Files of several versions, or of a patch: these files can hold any epoch.
    any: EpochFiles,
}

impl PredictionFiles {
    fn list(snapshot: &Snapshot) -> Result<PredictionFiles, LabelError> {
        let versions = snapshot.store().versions()?;
        let epoch_of: BTreeMap<u64, u64> = versions
            .iter()
            .filter_map(|row| Some((row.version, row.epoch?)))
            .collect();
        let mut found = PredictionFiles {
            by_epoch: BTreeMap::new(),
            any: EpochFiles::new(),
        };
        let mut files = snapshot.files(Predictions::NAME)?;
        files.extend(snapshot.files(VideoPredictions::NAME)?);
        for file in files {
            let epoch = file.version().and_then(|version| epoch_of.get(&version));
            let own = match epoch {
                Some(epoch) => found.by_epoch.entry(*epoch).or_default(),
                None => &mut found.any,
            };
            own.insert(file.path, file.deleted);
        }
        if !found.any.is_empty() {
            for epoch in epoch_of.into_values() {
                found.by_epoch.entry(epoch).or_default();
            }
        }
        Ok(found)
    }

    fn last_epochs(&self, most: usize) -> BTreeSet<u64> {
        self.by_epoch.keys().rev().take(most).copied().collect()
    }

    fn of(&self, epoch: u64) -> EpochFiles {
        let mut files = self.any.clone();
        files.extend(self.by_epoch.get(&epoch).cloned().unwrap_or_default());
        files
    }

    /// The epochs that are read together: each alone, so that the predictions of one epoch are in memory, or all at once if a
    /// file holds several epochs, so that the file is read once.
    fn groups(&self, epochs: BTreeSet<u64>) -> Vec<BTreeSet<u64>> {
        match self.any.is_empty() {
            true => epochs.into_iter().map(|epoch| BTreeSet::from([epoch])).collect(),
            false if epochs.is_empty() => Vec::new(),
            false => vec![epochs],
        }
    }
}

/// Scores the predictions of these epochs. Epochs without predictions of the videos have no entry.
fn scored(
    snapshot: &Snapshot,
    world: &World,
    truth: &DenseTruth,
    filter: &Filter,
    epochs: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, StageQuality>, LabelError> {
    let wanted = files_of(snapshot, epochs)?;
    let whole: BTreeMap<(u64, Arc<str>), Vec<f32>> = snapshot
        .scan_some::<VideoPredictions>(filter, &wanted)?
        .into_iter()
        .map(|found| ((found.row.epoch, found.row.video), found.row.probability))
        .collect();
    let classes = EpochClasses::read(snapshot, world)?;
    let columns: BTreeMap<u64, ClassColumns> = epochs
        .iter()
        .filter_map(|epoch| Some((*epoch, ClassColumns::new(truth, &classes.of(*epoch).ok()?))))
        .collect();
    let places: BTreeMap<&str, usize> = truth
        .videos
        .iter()
        .zip(0..)
        .map(|(video, place)| (&*video.name, place))
        .collect();
    let labelled = |track: PredictionTrack| {
        let place = *places.get(&*track.video)?;
        let whole = whole.get(&(track.epoch, track.video.clone()));
        let labels = columns.get(&track.epoch)?.labels(&track, whole)?;
        Some((track.epoch, place, track.modality, labels))
    };
    let by_file = snapshot.map_some_files::<Predictions, _>(filter, &wanted, |rows| {
        let tracks = rows.into_iter().map(|found| found.row);
        tracks.filter_map(labelled).collect::<Vec<_>>()
    })?;
    let mut predicted: BTreeMap<u64, Vec<PredictedLabels>> = BTreeMap::new();
    for (epoch, place, modality, labels) in by_file.into_iter().flatten() {
        let own = predicted
            .entry(epoch)
            .or_insert_with(|| vec![PredictedLabels::default(); truth.videos.len()]);
        match modality {
            Modality::Audio => own[place].audio = Some(labels),
            Modality::Visual => own[place].visual = Some(labels),
        }
    }
    let fused: BTreeSet<u64> = whole.into_keys().map(|(epoch, _)| epoch).collect();
    let stage = |(epoch, mut videos): (u64, Vec<PredictedLabels>)| {
        videos.iter_mut().for_each(forget_unequal);
        let protocol = match fused.contains(&epoch) {
            true => Protocol::Fused,
            false => Protocol::Segment,
        };
        let stage = StageQuality::of(QualityStage::Parser, truth, &videos)?;
        Some((
            epoch,
            StageQuality {
                epoch: Some(epoch),
                protocol,
                ..stage
            },
        ))
    };
    Ok(predicted.into_iter().filter_map(stage).collect())
}

/// Forgets predictions from outside whose modalities differ in length: such a video cannot be scored.
fn forget_unequal(video: &mut PredictedLabels) {
    if let PredictedLabels {
        audio: Some(audio),
        visual: Some(visual),
    } = video
        && audio.segments() != visual.segments()
    {
        *video = PredictedLabels::default();
    }
}

/// The class of today for each column of the predictions of an epoch.
struct ClassColumns {
    columns: Vec<Option<ClassId>>,
    classes: usize,
}

impl ClassColumns {
    fn new(truth: &DenseTruth, columns: &[Arc<str>]) -> ClassColumns {
        let ids: BTreeMap<&Arc<str>, ClassId> = truth.classes.iter().zip((0..).map(ClassId)).collect();
        ClassColumns {
            columns: columns.iter().map(|name| ids.get(name).copied()).collect(),
            classes: truth.classes.len(),
        }
    }

    /// The labels of a track by protocol `fused`, or by protocol `segment` without the probabilities of the whole video.
    /// `None` if the track does not have the columns of its epoch.
    fn labels(&self, track: &PredictionTrack, whole: Option<&Vec<f32>>) -> Option<BitMatrix> {
        let count = self.columns.len();
        if track.classes as usize != count || whole.is_some_and(|whole| whole.len() != count) {
            return None;
        }
        let predicted = Protocol::labels(&track.probability, count, whole.map(Vec::as_slice));
        let mut labels = BitMatrix::new(self.classes, predicted.segments());
        for (column, class) in self.columns.iter().enumerate() {
            let Some(class) = class else { continue };
            for segment in (0..predicted.segments()).filter(|segment| predicted.get(column, *segment)) {
                labels.set(class.index(), segment);
            }
        }
        Some(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{TruthEvent, TruthVideo};

    fn truth() -> DenseTruth {
        let event = TruthEvent {
            modality: Modality::Audio,
            class: ClassId(0),
            onset: 0,
            offset: 2,
        };
        DenseTruth {
            classes: ["Cat", "Dog"].map(Arc::from).to_vec(),
            split: Split::Val,
            videos: vec![TruthVideo {
                name: "clip".into(),
                events: vec![event],
            }],
        }
    }

    fn track(classes: u32, probability: &[f32]) -> PredictionTrack {
        PredictionTrack {
            epoch: 1,
            video: "clip".into(),
            modality: Modality::Audio,
            classes,
            probability: probability.to_vec(),
        }
    }

    #[test]
    fn columns_of_an_epoch_with_other_classes_are_found_by_name() {
        let columns = ClassColumns::new(&truth(), &["Dog", "Car", "Cat"].map(Arc::from));
        // Segment 0: Dog and Car; segment 1: Cat, and Dog at the limit.
        let track = track(3, &[0.9, 0.9, 0.1, 0.5, 0.0, 0.7]);
        let found = columns.labels(&track, None).unwrap();
        let bits = |class| [0, 1].map(|segment| found.get(class, segment));
        assert_eq!((bits(0), bits(1)), ([false, true], [true, true]));
        // Protocol `fused` also asks for the probability of the whole video.
        let found = columns.labels(&track, Some(&vec![0.4, 0.9, 0.5])).unwrap();
        let bits = |class| [0, 1].map(|segment| found.get(class, segment));
        assert_eq!((bits(0), bits(1)), ([false, true], [false, false]));
        assert!(
            columns.labels(&track, Some(&vec![0.4])).is_none(),
            "a row with other columns is left out"
        );
    }

    #[test]
    fn a_video_whose_modalities_differ_in_length_is_not_scored() {
        let mut video = PredictedLabels {
            audio: Some(BitMatrix::new(2, 3)),
            visual: Some(BitMatrix::new(2, 4)),
        };
        forget_unequal(&mut video);
        assert_eq!(video, PredictedLabels::default());
    }

    #[test]
    fn files_of_several_versions_belong_to_every_epoch_and_are_read_once() {
        let file = |name: &str| (PathBuf::from(name), None);
        let mut files = PredictionFiles {
            by_epoch: BTreeMap::from([
                (1, EpochFiles::from([file("one")])),
                (2, EpochFiles::from([file("two")])),
                (3, EpochFiles::from([file("three")])),
            ]),
            any: EpochFiles::new(),
        };
        assert_eq!(files.last_epochs(2), BTreeSet::from([2, 3]));
        assert_eq!(files.groups(BTreeSet::from([2, 3])).len(), 2);
        let before = files.of(2);
        files.any.insert(PathBuf::from("joined"), None);
        assert_ne!(files.of(2), before, "the epoch is read again");
        assert_eq!(files.groups(BTreeSet::from([2, 3])), [BTreeSet::from([2, 3])]);
        assert!(files.groups(BTreeSet::new()).is_empty());
    }
}
