//! One training with its checkpoints: the loop over epochs that `train`, `run` and `watch --train` share.
//!
//! ```text
//! advance ─┬─ an epoch is left: train ── predict, score ── next.safetensors ── commit ── last.safetensors, best.safetensors
//!          └─ none is left: probabilities by best.safetensors ── commit ── last.safetensors, marked as finished
//! ```
//!
//! Each call of [`Training::advance`] does one of the two. A command configures the training by a [`TrainingSpec`], commits
//! what it gives through a [`TrainingDriver`], and reports.
//!
//! The checkpoint of an epoch is written beside the last one before the epoch is committed, and replaces the last one after
//! the commit. A process that is killed in between repeats the epoch when it continues. The repeated epoch has the same
//! numbers, because seed and epoch decide all random numbers, and the store knows that it has the epoch already.

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

/// What a training is, whichever command runs it.
#[derive(Clone, Debug)]
pub struct TrainingSpec {
    /// Settings.
    pub settings: TrainSettings,
    /// Device to compute on.
    pub device: tch::Device,
    /// Folder of the checkpoints.
    pub folder: PathBuf,
    /// SHA-256, hex, of everything that the training depends on. A checkpoint with another value belongs to another training.
    pub run: String,
    /// Store version whose labels are learnt.
    pub labels: u64,
    /// SHA-256, hex, of the content of the data set.
    pub data: String,
}

/// A training under way.
#[derive(Debug)]
pub struct Training {
    spec: TrainingSpec,
    trainer: Trainer,
    /// Number of videos that an epoch learns from.
    videos: usize,
    /// Best epoch so far, and its score.
    best: Option<(u64, Option<f64>)>,
    finished: bool,
    /// Number of epochs that the checkpoint had when the training was opened.
    resumed: Option<u64>,
}

/// What an epoch gave.
#[derive(Clone, Debug)]
pub struct TrainedEpoch {
    /// Row of table `epochs`. Its `epoch` is 0: the commit assigns the number in the store.
    pub row: EpochRow,
    /// Probabilities of the splits that the settings keep for every epoch, and of [`TrainingDriver::more_splits`].
    pub predicted: Vec<VideoProbabilities>,
    /// Score that the best epoch is chosen by; `None` if the split has no dense truth.
    pub score: Option<f64>,
    /// Whether this is the best epoch so far.
    pub better: bool,
}

/// When the store has what a driver was given to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is in the store.
    Now,
    /// It will be. The driver's owner calls [`Training::promote`] once it is.
    Later,
}

/// What [`Training::advance`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It trained an epoch.
    Epoch,
    /// No epoch was left, and it gave the probabilities of the best epoch.
    Best,
    /// Nothing was left to do.
    Done,
}

/// What a command adds to the loop: it commits, reports and may stop.
pub trait TrainingDriver {
    /// Error of the command.
    type Error: From<TrainError>;

    /// Splits whose probabilities the commit of an epoch (counted from 1) needs, beside those that the settings keep.
    fn more_splits(&self, _epoch: u64) -> Vec<Split> {
        Vec::new()
    }

    /// Splits whose probabilities by the best epoch are committed at the end.
    fn best_splits(&self, settings: &TrainSettings) -> Vec<Split> {
        settings.left_to_best().collect()
    }

    /// Called after each step. `Break` stops the training in the middle of the epoch.
    fn on_step(&mut self, step: TrainStep) -> ControlFlow<()>;

    /// Commits an epoch. Its checkpoint is on disk, beside the last one.
    ///
    /// # Errors
    /// The error ends the training. The last checkpoint is then that of the epoch before.
    fn commit_epoch(&mut self, spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, Self::Error>;

    /// Commits the probabilities of the best epoch, by split.
    ///
    /// # Errors
    /// The error ends the training, which is then not finished.
    fn commit_best(
        &mut self,
        spec: &TrainingSpec,
        epoch: u64,
        predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, Self::Error>;
}

/// Key of the metadata that holds [`TrainingSpec::data`]. Its name is that of older checkpoints.
const DATA: &str = "learnt";
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
/// The last checkpoint and the best weights of an epoch that may not be committed yet.
const NEXT: &str = "next.safetensors";
const NEXT_BEST: &str = "next-best.safetensors";

impl Training {
    /// Continues from the last checkpoint in the folder if it belongs to this training, and begins the training otherwise.
    ///
    /// # Errors
    /// [`TrainError`] for settings that make no network, a data set without train videos, or a checkpoint that cannot be read.
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

    /// What the training is.
    pub fn spec(&self) -> &TrainingSpec {
        &self.spec
    }

    /// Number of epochs done.
    pub fn done(&self) -> u64 {
        self.trainer.done()
    }

    /// Number of epochs that the checkpoint had when the training was opened; `None`: it began from the start.
    pub fn resumed(&self) -> Option<u64> {
        self.resumed
    }

    /// Number of videos that an epoch learns from.
    pub fn videos(&self) -> usize {
        self.videos
    }

    /// The best epoch so far, counted from 1, and its score.
    pub fn best(&self) -> Option<(u64, Option<f64>)> {
        self.best
    }

    /// File with the weights of the best epoch.
    pub fn checkpoint(&self) -> PathBuf {
        self.file(BEST)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.spec.folder.join(name)
    }

    /// Sets the data set of the next epochs. It has the same classes and widths as the one before, the labels of store
    /// version `labels`, and content with the hash `data`.
    ///
    /// # Errors
    /// [`TrainError::NoVideos`]. The training then keeps the data set that it had.
    pub fn learn_from(&mut self, dataset: &Dataset, labels: u64, data: String) -> Result<(), TrainError> {
        let examples = examples(dataset, labels)?;
        self.videos = examples.len();
        self.trainer.learn_from(examples);
        (self.spec.labels, self.spec.data) = (labels, data);
        Ok(())
    }

    /// Trains the next epoch, or commits the probabilities of the best epoch if none is left.
    ///
    /// # Errors
    /// A loss that is not finite, a folder that cannot be written, an error of the driver; [`TrainError::Stopped`] if the driver
    /// stopped the epoch. The training is unusable after an error. Its last checkpoint is still good.
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

    /// Trains one epoch, predicts, scores, and writes the weights beside the best ones if the score is better.
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
            // Without a score to compare, the last epoch counts as the best.
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
            // A run that was killed may have left weights of this epoch, trained on other labels.
            remove(&self.file(NEXT_BEST))?;
        }
        Ok(TrainedEpoch {
            row,
            predicted: kept,
            score,
            better,
        })
    }

    /// Probabilities of these splits by the weights of the best epoch.
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

    /// Makes the checkpoint of the last epoch, which is committed now, the one that the training continues from.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the folder cannot be written.
    pub fn promote(&self) -> Result<(), TrainError> {
        Training::promote_in(&self.spec.folder)
    }

    /// The epoch whose checkpoint in a folder was not promoted, if it belongs to the training `run`.
    ///
    /// # Errors
    /// [`TrainError::Network`] for a file that cannot be read.
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

    /// As [`Training::promote`], before the training in the folder is opened.
    ///
    /// # Errors
    /// As [`Training::promote`].
    pub fn promote_in(folder: &Path) -> Result<(), TrainError> {
        let best = folder.join(NEXT_BEST);
        match std::fs::rename(&best, folder.join(BEST)) {
            // The epoch was not better than the best one before it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed.map_err(TrainError::io("rename", &best))?,
        }
        let next = folder.join(NEXT);
        std::fs::rename(&next, folder.join(LAST)).map_err(TrainError::io("rename", &next))
    }

    /// Removes the last checkpoint, so that the training begins from the start when it is opened again.
    ///
    /// # Errors
    /// [`TrainError::Io`] if the folder cannot be written.
    pub fn forget(&self) -> Result<(), TrainError> {
        remove(&self.file(LAST))
    }

    /// Whether a folder has the checkpoint of any training.
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

/// Positions of the train videos with labels and features.
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
