//! One training, epoch by epoch: checkpoints in a folder, all else in the hands of whoever runs it.
//!
//! ```text
//! each epoch: learn ── predict, score ── (a store version) ── best.safetensors, last.safetensors
//! ```
//!
//! Killed anywhere, the next run takes up `last.safetensors` and does the epoch after it again: the same numbers, since
//! seed and epoch name all that is random. What that epoch committed already is known and not committed twice.

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
use super::trainer::{Step, Trainer};
use super::validate::{Truths, metrics};
use super::{Han, Weights};

/// What a training is, whoever runs it.
#[derive(Clone, Debug)]
pub struct Brief {
    /// How.
    pub settings: TrainSettings,
    /// Where to compute.
    pub device: tch::Device,
    /// Folder of the checkpoints.
    pub folder: PathBuf,
    /// SHA-256 of all that is asked, hex: a checkpoint of another training is none of this one.
    pub run: String,
    /// Store version whose labels are learnt.
    pub labels: u64,
    /// Names what is learnt from, by its content.
    pub learnt: String,
}

/// A training under way.
#[derive(Debug)]
pub struct Course {
    brief: Brief,
    trainer: Trainer,
    /// Videos learnt from.
    learnt: usize,
    /// Best epoch so far, and its score.
    best: Option<(u64, Option<f64>)>,
    finished: bool,
    /// Epochs that an earlier run had done.
    resumed: Option<u64>,
}

/// What an epoch gave.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Its row of `epochs`, without its number there.
    pub row: EpochRow,
    /// Probabilities of the splits whose predictions every epoch keeps, and of those asked for besides.
    pub predicted: Vec<VideoProbabilities>,
    /// What the best is chosen by; none: there is nothing to choose by.
    pub score: Option<f64>,
    /// It is the best so far.
    pub better: bool,
}

const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
/// The same of an epoch that is not known yet to be in the store.
const NEXT: &str = "next.safetensors";
const NEXT_BEST: &str = "next-best.safetensors";

impl Course {
    /// Takes up the last checkpoint where there is one of this training, and begins it otherwise.
    ///
    /// # Errors
    /// [`TrainError`]: settings that make no network, nothing to learn from, a checkpoint that does not read.
    pub fn open(brief: Brief, dataset: &Dataset) -> Result<Course, TrainError> {
        let examples = examples(dataset, brief.labels)?;
        std::fs::create_dir_all(&brief.folder).map_err(TrainError::io("make", &brief.folder))?;
        let mut course = Course {
            learnt: examples.len(),
            trainer: Trainer::new(&brief.settings, dataset, examples, brief.device)?,
            brief,
            best: None,
            finished: false,
            resumed: None,
        };
        course.resume()?;
        Ok(course)
    }

    fn resume(&mut self) -> Result<(), TrainError> {
        let path = self.file(LAST);
        if !path.exists() {
            return Ok(());
        }
        let checkpoint = Weights::read(&path)?;
        let said = |key: &str| checkpoint.metadata.get(key);
        if said("run") != Some(&self.brief.run) {
            return Ok(());
        }
        let number = |key: &str| said(key).and_then(|value| value.parse::<u64>().ok());
        let (Some(done), Some(labels)) = (number("epoch"), number("labels")) else {
            return Err(TrainError::Settings(format!(
                "checkpoint `{}` does not tell its epoch, expected one that `train` wrote",
                path.display()
            )));
        };
        let score = said("best_score").and_then(|value| value.parse().ok());
        self.brief.labels = labels;
        if let Some(learnt) = said("learnt") {
            self.brief.learnt.clone_from(learnt);
        }
        self.best = number("best_epoch").map(|epoch| (epoch, score));
        self.finished = said("finished").is_some();
        self.trainer.restore(checkpoint, done, &path)?;
        self.resumed = Some(done);
        Ok(())
    }

    /// What it is.
    pub fn brief(&self) -> &Brief {
        &self.brief
    }

    /// Epochs done.
    pub fn done(&self) -> u64 {
        self.trainer.done()
    }

    /// Epochs that an earlier run had done.
    pub fn resumed(&self) -> Option<u64> {
        self.resumed
    }

    /// Videos learnt from.
    pub fn learnt(&self) -> usize {
        self.learnt
    }

    /// Best epoch of this training so far, and its score.
    pub fn best(&self) -> Option<(u64, Option<f64>)> {
        self.best
    }

    /// Are the predictions of the best epoch where they belong?
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// The best epoch's weights.
    pub fn checkpoint(&self) -> PathBuf {
        self.file(BEST)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.brief.folder.join(name)
    }

    /// Learns from another data set from the next epoch on: of the same classes and widths, at this store version, and
    /// by this name.
    ///
    /// # Errors
    /// [`TrainError::NoVideos`]; it then learns from what it did before.
    pub fn learn_from(&mut self, dataset: &Dataset, labels: u64, learnt: String) -> Result<(), TrainError> {
        let examples = examples(dataset, labels)?;
        self.learnt = examples.len();
        self.trainer.learn_from(examples);
        (self.brief.labels, self.brief.learnt) = (labels, learnt);
        Ok(())
    }

    /// Learns an epoch; the predictions of the splits `also` are among what it gives. What it learnt is kept by
    /// [`Course::save`], after a commit of what it gave.
    ///
    /// # Errors
    /// A loss that is no number, a folder that cannot be written; [`TrainError::Stopped`] where `told` asks for it: the
    /// course is then of no more use, its checkpoints are.
    pub fn epoch(
        &mut self,
        dataset: &Dataset,
        truths: &Truths,
        also: &[Split],
        told: impl FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Learned, TrainError> {
        let begun = Instant::now();
        let losses = self.trainer.epoch(dataset, told)?;
        let (settings, epoch) = (&self.brief.settings, self.trainer.done());
        let keeps = |split: &Split| settings.predictions.contains(split) || also.contains(split);
        let mut splits: BTreeSet<Split> = Split::ALL.into_iter().filter(keeps).collect();
        splits.insert(settings.best_split);
        let (mut scores, mut kept) = (Vec::new(), Vec::new());
        for split in splits {
            let predicted = predict_split(self.trainer.han(), dataset, split);
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
            // Nothing to choose by: the last is the best.
            _ => true,
        };
        let mut named: Vec<(Arc<str>, f64)> = vec![("total".into(), losses.total)];
        named.extend(TERMS.iter().map(|name| Arc::from(*name)).zip(losses.terms));
        named.push(("gradient_norm".into(), losses.gradient));
        let row = EpochRow {
            // Whoever puts it into the store numbers it.
            epoch: 0,
            run: self.brief.run.as_str().into(),
            run_epoch: epoch,
            labels: self.brief.labels,
            videos: self.learnt as u64,
            flips: None,
            learning_rate: losses.rate,
            seconds: begun.elapsed().as_secs_f64(),
            losses: named,
            metrics: scores,
        };
        if better {
            self.best = Some((epoch, score));
            let mut weights = self.trainer.han().weights();
            self.describe(&mut weights, dataset);
            weights.write(&self.file(NEXT_BEST))?;
        } else {
            // Of this epoch when it was begun before, and its labels were others.
            remove(&self.file(NEXT_BEST))?;
        }
        Ok(Learned {
            row,
            predicted: kept,
            score,
            better,
        })
    }

    /// Probabilities of these splits by the best epoch's weights; none before the first epoch.
    ///
    /// # Errors
    /// Weights that do not read back.
    pub fn by_best(
        &self,
        dataset: &Dataset,
        splits: impl IntoIterator<Item = Split>,
    ) -> Result<Vec<VideoProbabilities>, TrainError> {
        let path = self.file(BEST);
        let mut weights = Weights::read(&path)?;
        let bad = super::NetworkError::weights(&path);
        let config = self.trainer.han().config().clone();
        let han = Han::of_weights(config, &mut weights, self.brief.device).map_err(bad)?;
        let of = |split| predict_split(&han, dataset, split);
        Ok(splits.into_iter().flat_map(of).collect())
    }

    /// Keeps what was learnt so far.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dataset: &Dataset) -> Result<(), TrainError> {
        settle_best(&self.brief.folder)?;
        let mut weights = self.trainer.checkpoint();
        self.describe(&mut weights, dataset);
        Ok(weights.write(&self.file(LAST))?)
    }

    /// Keeps what was learnt beside the last checkpoint, before a commit; [`Course::settle`] makes it the last. For who
    /// changes what is learnt from with that commit, so that the epoch could not be done again.
    ///
    /// # Errors
    /// As [`Course::save`].
    pub fn save_next(&self, dataset: &Dataset) -> Result<(), TrainError> {
        let mut weights = self.trainer.checkpoint();
        self.describe(&mut weights, dataset);
        Ok(weights.write(&self.file(NEXT))?)
    }

    /// The epoch that [`Course::save_next`] kept in a folder, where it is of this training.
    ///
    /// # Errors
    /// For a file that does not read.
    pub fn next(folder: &Path, run: &str) -> Result<Option<u64>, TrainError> {
        let path = folder.join(NEXT);
        if !path.exists() {
            return Ok(None);
        }
        let metadata = Weights::read(&path)?.metadata;
        let own = metadata.get("run").is_some_and(|own| own == run);
        let epoch = metadata.get("epoch").filter(|_| own);
        Ok(epoch.and_then(|epoch| epoch.parse().ok()))
    }

    /// Makes what [`Course::save_next`] kept in a folder its last checkpoint.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn settle(folder: &Path) -> Result<(), TrainError> {
        settle_best(folder)?;
        let next = folder.join(NEXT);
        std::fs::rename(&next, folder.join(LAST)).map_err(TrainError::io("rename", &next))
    }

    /// Forgets the last checkpoint: the training begins anew when it is opened again.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn forget(&self) -> Result<(), TrainError> {
        remove(&self.file(LAST))
    }

    /// Is there a checkpoint in a folder, of whatever training?
    pub fn began(folder: &Path) -> bool {
        folder.join(LAST).exists()
    }

    /// As [`Course::save`], when the predictions of the best epoch are where they belong.
    ///
    /// # Errors
    /// As [`Course::save`].
    pub fn finish(&mut self, dataset: &Dataset) -> Result<(), TrainError> {
        self.finished = true;
        self.save(dataset)
    }

    fn describe(&self, weights: &mut Weights, dataset: &Dataset) {
        let mut say = |key: &str, value: String| drop(weights.metadata.insert(key.to_owned(), value));
        say("run", self.brief.run.clone());
        say("epoch", self.trainer.done().to_string());
        say("labels", self.brief.labels.to_string());
        say("learnt", self.brief.learnt.clone());
        say("classes", dataset.classes.join("\n"));
        if let Some((epoch, score)) = self.best {
            say("best_epoch", epoch.to_string());
            if let Some(score) = score {
                // As short as reads back to the same number.
                say("best_score", format!("{score:?}"));
            }
        }
        if self.finished {
            say("finished", "1".to_owned());
        }
    }
}

/// What is learnt from.
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

/// The best weights of an epoch that is in the store are the best there are.
fn settle_best(folder: &Path) -> Result<(), TrainError> {
    let next = folder.join(NEXT_BEST);
    match std::fs::rename(&next, folder.join(BEST)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(TrainError::io("rename", &next)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(TrainError::io("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
