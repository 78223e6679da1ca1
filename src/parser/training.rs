//! One training with its checkpoints: the loop over epochs that `train`, `run` and `watch --train` share.
//!
//! ```text
//! advance ─┬─ epochs left: train ── predict, score ── next.safetensors ── commit ── last.safetensors, best.safetensors
//!          └─ none remains: probabilities by best.safetensors ── commit ── last.safetensors, marked as finished
//! ```
//!
//! Each call of [`Training::advance`] does one of the two. A command configures the training by a [`TrainingSpec`],
//! and commits and reports the results through a [`TrainingDriver`].
//!
//! The checkpoint of an epoch is written beside the last checkpoint before the epoch is committed, and replaces the
//! last checkpoint after the commit. If the process is killed in between, it repeats the epoch when it continues. The
//! repeated epoch has the same numbers, because seed and epoch decide all random numbers, and the store recognises
//! that it already has the epoch.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use vaplan_schemas::rows::{EpochRow, Split};

use super::data::Dataset;
use super::error::TrainError;
use super::loss::TERMS;
use super::probabilities::{VideoProbabilities, predict_split};
use super::settings::TrainSettings;
use super::trainer::{TrainStep, Trainer};
use super::validate::{Truths, metrics};
use super::{NetworkError, Weights, registry};

/// The description of a training, whichever command runs it.
#[derive(Clone, Debug)]
pub struct TrainingSpec {
    /// The settings.
    pub settings: TrainSettings,
    /// The device to compute on.
    pub device: tch::Device,
    /// The folder of the checkpoints.
    pub folder: PathBuf,
    /// The SHA-256, in hex, of all inputs that the training depends on. A checkpoint with another value belongs to
    /// another training.
    pub run: String,
    /// The store version with the labels that the training uses.
    pub labels: u64,
    /// The SHA-256, in hex, of the content of the data set.
    pub data: String,
    /// The file with the weights that the training begins with; `None` means random weights.
    pub start: Option<PathBuf>,
}

/// A training in progress.
#[derive(Debug)]
pub struct Training {
    spec: TrainingSpec,
    trainer: Trainer,
    /// The number of videos that an epoch trains on.
    videos: usize,
    /// The best epoch so far, and its score.
    best: Option<(u64, Option<f64>)>,
    finished: bool,
    /// The number of epochs that the checkpoint had when the training was opened.
    resumed: Option<u64>,
}

/// The result of an epoch.
#[derive(Clone, Debug)]
pub struct TrainedEpoch {
    /// The row of table `epochs`. Its `epoch` is 0, because the commit assigns the number in the store.
    pub row: EpochRow,
    /// The probabilities of the splits that the settings keep for every epoch, and of
    /// [`TrainingDriver::more_splits`].
    pub predicted: Vec<VideoProbabilities>,
    /// The score that decides the best epoch; `None` if the split has no dense truth.
    pub score: Option<f64>,
    /// Whether this is the best epoch so far.
    pub better: bool,
}

/// When the results that a driver was given are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The results are in the store.
    Now,
    /// The results will be in the store later. The owner of the driver calls [`Training::promote`] when they are.
    Later,
}

/// The work that [`Training::advance`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It trained an epoch.
    Epoch,
    /// No epoch remained, and it gave the probabilities of the best epoch to the driver.
    Best,
    /// There was nothing to do.
    Done,
}

/// The part of the loop that differs between commands: it commits, reports and can stop the training.
pub trait TrainingDriver {
    /// The error type of the command.
    type Error: From<TrainError>;

    /// The splits whose probabilities the commit of an epoch (counted from 1) needs in addition to those that the
    /// settings keep.
    fn more_splits(&self, _epoch: u64) -> Vec<Split> {
        Vec::new()
    }

    /// The splits whose probabilities by the best epoch are committed at the end.
    fn best_splits(&self, settings: &TrainSettings) -> Vec<Split> {
        settings.left_to_best().collect()
    }

    /// Called after each step. `Break` stops the training in the middle of the epoch.
    fn on_step(&mut self, step: TrainStep) -> ControlFlow<()>;

    /// Commits an epoch. Its checkpoint is already on disk, beside the last checkpoint.
    ///
    /// # Errors
    /// An error ends the training. The last checkpoint is then that of the previous epoch.
    fn commit_epoch(&mut self, spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, Self::Error>;

    /// Commits the probabilities of the best epoch, by split.
    ///
    /// # Errors
    /// An error ends the training, which is then not finished.
    fn commit_best(
        &mut self,
        spec: &TrainingSpec,
        epoch: u64,
        predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, Self::Error>;
}

/// The metadata key of [`TrainingSpec::data`]. It has the name that older checkpoints use.
const DATA: &str = "learnt";
const LAST: &str = "last.safetensors";
pub(crate) const BEST: &str = "best.safetensors";
/// The checkpoint of an epoch that may not be committed yet. `NEXT_BEST` has its weights if the epoch is the best so
/// far.
const NEXT: &str = "next.safetensors";
const NEXT_BEST: &str = "next-best.safetensors";

impl Training {
    /// Continues from the last checkpoint in the folder if the checkpoint belongs to this training. Otherwise begins
    /// the training.
    ///
    /// # Errors
    /// Returns [`TrainError`] if the network cannot be made, the data set has no train videos, or the checkpoint
    /// cannot be read.
    pub fn open(spec: TrainingSpec, dataset: &Dataset) -> Result<Training, TrainError> {
        let examples = examples(dataset, spec.labels)?;
        std::fs::create_dir_all(&spec.folder).map_err(TrainError::io("make", &spec.folder))?;
        let mut training = Training {
            videos: examples.len(),
            trainer: Trainer::new(&spec.settings, dataset, examples, spec.device)?,
            spec,
            best: None,
            finished: false,
            resumed: None,
        };
        training.resume()?;
        if let (None, Some(path)) = (training.resumed, &training.spec.start) {
            training.trainer.begin_with(Weights::read(path)?, path)?;
        }
        Ok(training)
    }

    fn resume(&mut self) -> Result<(), TrainError> {
        let path = self.file(LAST);
        if !path.exists() {
            return Ok(());
        }
        let checkpoint = Weights::read(&path)?;
        let value = |key: &str| checkpoint.metadata.get(key);
        if value("run") != Some(&self.spec.run) {
            return Ok(());
        }
        let number = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
        let (Some(done), Some(labels)) = (number("epoch"), number("labels")) else {
            return Err(TrainError::Settings(format!(
                "checkpoint `{}` has no `epoch` or `labels` in its metadata, expected a checkpoint that `train` wrote",
                path.display()
            )));
        };
        let score = value("best_score").and_then(|text| text.parse().ok());
        self.spec.labels = labels;
        if let Some(data) = value(DATA) {
            self.spec.data.clone_from(data);
        }
        self.best = number("best_epoch").map(|epoch| (epoch, score));
        self.finished = value("finished").is_some();
        self.trainer.restore(checkpoint, done, &path)?;
        self.resumed = Some(done);
        Ok(())
    }

    /// The description of the training.
    pub fn spec(&self) -> &TrainingSpec {
        &self.spec
    }

    /// The number of completed epochs.
    pub fn done(&self) -> u64 {
        self.trainer.done()
    }

    /// The number of epochs that the checkpoint had when the training was opened; `None` if the training began from
    /// the start.
    pub fn resumed(&self) -> Option<u64> {
        self.resumed
    }

    /// The number of videos that an epoch trains on.
    pub fn videos(&self) -> usize {
        self.videos
    }

    /// The best epoch so far, counted from 1, and its score.
    pub fn best(&self) -> Option<(u64, Option<f64>)> {
        self.best
    }

    /// The file with the weights of the best epoch.
    pub fn checkpoint(&self) -> PathBuf {
        self.file(BEST)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.spec.folder.join(name)
    }

    /// Sets the data set of the next epochs. It must have the same classes and widths as the previous data set. Its
    /// labels are those of store version `labels`, and `data` is the hash of its content.
    ///
    /// # Errors
    /// Returns [`TrainError::NoVideos`] if the data set has no train videos. The training then keeps the data set
    /// that it had.
    pub fn learn_from(&mut self, dataset: &Dataset, labels: u64, data: String) -> Result<(), TrainError> {
        let examples = examples(dataset, labels)?;
        self.videos = examples.len();
        self.trainer.learn_from(examples);
        (self.spec.labels, self.spec.data) = (labels, data);
        Ok(())
    }

    /// Trains the next epoch. If none remains, commits the probabilities of the best epoch.
    ///
    /// # Errors
    /// Returns an error if a loss is not finite, the folder cannot be written or the driver fails, and
    /// [`TrainError::Stopped`] if the driver stopped the epoch. The training is unusable after an error. Its last
    /// checkpoint is still valid.
    pub fn advance<D: TrainingDriver>(
        &mut self,
        dataset: &Dataset,
        truths: &Truths,
        driver: &mut D,
    ) -> Result<Advance, D::Error> {
        if self.done() < self.spec.settings.epochs {
            let more = driver.more_splits(self.done() + 1);
            let trained = self.epoch(dataset, truths, &more, |step| driver.on_step(step))?;
            self.write_checkpoint(NEXT, dataset)?;
            if driver.commit_epoch(&self.spec, trained)? == Committed::Now {
                self.promote()?;
            }
            return Ok(Advance::Epoch);
        }
        let Some((best, _)) = self.best.filter(|_| !self.finished) else {
            return Ok(Advance::Done);
        };
        let splits = driver.best_splits(&self.spec.settings);
        let predicted = self.predict_with_best(dataset, splits)?;
        if driver.commit_best(&self.spec, best, predicted)? == Committed::Now {
            self.finished = true;
            self.write_checkpoint(LAST, dataset)?;
        }
        Ok(Advance::Best)
    }

    /// Trains one epoch, predicts and scores. If the score is the best so far, writes the weights beside the best
    /// weights.
    fn epoch(
        &mut self,
        dataset: &Dataset,
        truths: &Truths,
        more: &[Split],
        on_step: impl FnMut(TrainStep) -> ControlFlow<()>,
    ) -> Result<TrainedEpoch, TrainError> {
        let begun = Instant::now();
        let losses = self.trainer.epoch(dataset, on_step)?;
        let (settings, epoch) = (&self.spec.settings, self.trainer.done());
        let keeps = |split: &Split| settings.predictions.contains(split) || more.contains(split);
        let mut splits: BTreeSet<Split> = Split::ALL.into_iter().filter(keeps).collect();
        splits.insert(settings.best_split);
        let (mut scores, mut kept) = (Vec::new(), Vec::new());
        for split in splits {
            let predicted = predict_split(self.trainer.parser(), dataset, split);
            if let Some(truth) = truths.of(split).filter(|_| !predicted.is_empty()) {
                scores.extend(metrics(truth, &predicted, settings.task)?);
            }
            if keeps(&split) {
                kept.extend(predicted);
            }
        }
        let wanted = settings.best_name();
        let score = scores
            .iter()
            .find(|(name, _)| **name == *wanted)
            .map(|(_, score)| *score);
        let better = match (score, self.best) {
            (Some(score), Some((_, Some(best)))) => score > best,
            // If there is no score to compare, the last epoch counts as the best epoch.
            _ => true,
        };
        let mut named: Vec<(Arc<str>, f64)> = vec![("total".into(), losses.total)];
        named.extend(TERMS.iter().map(|name| Arc::from(*name)).zip(losses.terms));
        named.push(("gradient_norm".into(), losses.gradient));
        let row = EpochRow {
            // The commit assigns the number in the store.
            epoch: 0,
            run: self.spec.run.as_str().into(),
            run_epoch: epoch,
            labels: self.spec.labels,
            videos: self.videos as u64,
            flips: None,
            learning_rate: losses.rate,
            seconds: begun.elapsed().as_secs_f64(),
            losses: named,
            metrics: scores,
        };
        if better {
            self.best = Some((epoch, score));
            let mut weights = self.trainer.parser().named_weights();
            self.describe(&mut weights, dataset);
            weights.write(&self.file(NEXT_BEST))?;
        } else {
            // A run that was killed may have left weights of this epoch that were trained on other labels. `promote`
            // must not take them.
            remove(&self.file(NEXT_BEST))?;
        }
        Ok(TrainedEpoch {
            row,
            predicted: kept,
            score,
            better,
        })
    }

    /// The probabilities of these splits by the weights of the best epoch.
    fn predict_with_best(
        &self,
        dataset: &Dataset,
        splits: Vec<Split>,
    ) -> Result<Vec<(Split, Vec<VideoProbabilities>)>, TrainError> {
        if splits.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.file(BEST);
        let mut weights = Weights::read(&path)?;
        let parser = registry::load(&mut weights, self.spec.device).map_err(NetworkError::weights(&path))?;
        let of = |split| (split, predict_split(&*parser, dataset, split));
        Ok(splits.into_iter().map(of).collect())
    }

    fn write_checkpoint(&self, name: &str, dataset: &Dataset) -> Result<(), TrainError> {
        let mut weights = self.trainer.checkpoint();
        self.describe(&mut weights, dataset);
        Ok(weights.write(&self.file(name))?)
    }

    /// Makes the checkpoint of the last epoch, which is now committed, the checkpoint from which the training
    /// continues.
    ///
    /// # Errors
    /// Returns [`TrainError::Io`] if the folder cannot be written.
    pub fn promote(&self) -> Result<(), TrainError> {
        Training::promote_in(&self.spec.folder)
    }

    /// The epoch of a checkpoint in the folder that was not promoted, if it belongs to the training `run`.
    ///
    /// # Errors
    /// Returns [`TrainError::Network`] if the file cannot be read.
    pub fn unpromoted(folder: &Path, run: &str) -> Result<Option<u64>, TrainError> {
        let path = folder.join(NEXT);
        if !path.exists() {
            return Ok(None);
        }
        let metadata = Weights::read(&path)?.metadata;
        let own = metadata.get("run").is_some_and(|own| own == run);
        let epoch = metadata.get("epoch").filter(|_| own);
        Ok(epoch.and_then(|epoch| epoch.parse().ok()))
    }

    /// Like [`Training::promote`], for a training that is not open.
    ///
    /// # Errors
    /// Returns the same errors as [`Training::promote`].
    pub fn promote_in(folder: &Path) -> Result<(), TrainError> {
        let best = folder.join(NEXT_BEST);
        match std::fs::rename(&best, folder.join(BEST)) {
            // The epoch was not better than the best epoch before it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.map_err(TrainError::io("rename", &best))?,
        }
        let next = folder.join(NEXT);
        std::fs::rename(&next, folder.join(LAST)).map_err(TrainError::io("rename", &next))
    }

    /// Removes the last checkpoint, so that the training begins from the start when it is opened again.
    ///
    /// # Errors
    /// Returns [`TrainError::Io`] if the file cannot be removed.
    pub fn forget(&self) -> Result<(), TrainError> {
        remove(&self.file(LAST))
    }

    /// Returns whether a folder has the last checkpoint of any training.
    pub fn began(folder: &Path) -> bool {
        folder.join(LAST).exists()
    }

    fn describe(&self, weights: &mut Weights, dataset: &Dataset) {
        let mut set = |key: &str, value: String| drop(weights.metadata.insert(key.to_owned(), value));
        set("run", self.spec.run.clone());
        set("epoch", self.trainer.done().to_string());
        set("labels", self.spec.labels.to_string());
        set(DATA, self.spec.data.clone());
        set("classes", dataset.classes.join("\n"));
        if let Some((epoch, score)) = self.best {
            set("best_epoch", epoch.to_string());
            if let Some(score) = score {
                // `{:?}` writes the shortest text that reads back to the same number.
                set("best_score", format!("{score:?}"));
            }
        }
        if self.finished {
            set("finished", "1".to_owned());
        }
    }
}

/// The positions of the train videos with labels and features.
fn examples(dataset: &Dataset, version: u64) -> Result<Vec<usize>, TrainError> {
    let examples = dataset.of_split(Split::Train, true);
    match examples.is_empty() {
        true => Err(TrainError::NoVideos {
            version,
            split: "train",
            videos: dataset.videos.get(&Split::Train).copied().unwrap_or(0),
        }),
        false => Ok(examples),
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(TrainError::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
