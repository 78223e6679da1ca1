//! A whole training, from a store to a store, that can be killed at any moment.
//!
//! ```text
//! each epoch: learn ── predict, score ── best.safetensors ── store version ── last.safetensors
//! ```
//!
//! Killed anywhere, the next run takes up `last.safetensors` and does the epoch after it again: the same numbers, since
//! seed and epoch name all that is random. What that epoch committed already is known and not committed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use vaplan_schemas::rows::{EpochRow, Split};
use vaplan_schemas::store::Store;

use super::data::Dataset;
use super::error::TrainError;
use super::predict::{VideoProbabilities, predict};
use super::record::Recorder;
use super::trainer::Trainer;
use super::validate::{Truths, metrics};
use super::{Progress, Request, Summary};
use crate::label::plan::{feed, hash};
use crate::network::loss::TERMS;
use crate::network::{Han, Weights};

/// Trains what is asked; a training that was interrupted goes on, one that is done does nothing.
///
/// # Errors
/// [`TrainError`]: an input that cannot be used at all, a loss that is no number, a store that cannot be written.
pub fn run(request: &Request, told: &mut dyn FnMut(Progress)) -> Result<Summary, TrainError> {
    request.settings.check()?;
    crate::network::set_threads(request.threads);
    let store = Store::open(&request.store)?;
    let snapshot = store.at_version(request.version)?;
    let dataset = Dataset::read(&snapshot, &request.features, &mut |videos| {
        told(Progress::Read { videos });
    })?;
    let examples = dataset.of_split(Split::Train, true);
    if examples.is_empty() {
        return Err(TrainError::NoVideos {
            version: snapshot.version().version,
            split: "train",
            videos: dataset.videos.get(&Split::Train).copied().unwrap_or(0),
        });
    }
    let learnt = examples.len();
    let trainer = Trainer::new(&request.settings, &dataset, examples, request.device)?;
    std::fs::create_dir_all(&request.out).map_err(TrainError::io("make", &request.out))?;
    let settings = serde_json::to_string(&request.settings).expect("settings are JSON");
    let mut training = Training {
        truths: Truths::read(&snapshot)?,
        recorder: Recorder {
            store,
            command: request.command.clone(),
            run: run_hash(&settings, &dataset),
        },
        state: State {
            labels: snapshot.version().version,
            best: None,
            finished: false,
        },
        resumed: None,
        learnt,
        dataset,
        trainer,
        request,
    };
    training.resume()?;
    told(Progress::Planned {
        epochs: request.settings.epochs,
        done: training.trainer.done(),
        videos: learnt as u64,
    });
    while training.trainer.done() < request.settings.epochs {
        training.epoch(told)?;
    }
    training.finish(told)?;
    training.summary()
}

/// A training under way.
struct Training<'a> {
    request: &'a Request,
    dataset: Dataset,
    truths: Truths,
    trainer: Trainer,
    recorder: Recorder,
    state: State,
    /// Epochs that an earlier run had done.
    resumed: Option<u64>,
    /// Videos learnt from.
    learnt: usize,
}

/// What a checkpoint tells beside the tensors.
struct State {
    /// Store version whose labels are learnt.
    labels: u64,
    /// Best epoch of this training so far, and its score.
    best: Option<(u64, Option<f64>)>,
    /// The predictions of the best epoch are in the store.
    finished: bool,
}

const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";

impl Training<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.request.out.join(name)
    }

    /// Takes up the last checkpoint, if it is of this training.
    fn resume(&mut self) -> Result<(), TrainError> {
        let path = self.file(LAST);
        if !path.exists() {
            return Ok(());
        }
        let checkpoint = Weights::read(&path)?;
        let said = |key: &str| checkpoint.metadata.get(key);
        if said("run") != Some(&self.recorder.run) {
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
        self.state = State {
            labels,
            best: number("best_epoch").map(|epoch| (epoch, score)),
            finished: said("finished").is_some(),
        };
        self.trainer.restore(checkpoint, done, &path)?;
        self.resumed = Some(done);
        Ok(())
    }

    fn epoch(&mut self, told: &mut dyn FnMut(Progress)) -> Result<(), TrainError> {
        let (settings, begun) = (&self.request.settings, Instant::now());
        let losses = self
            .trainer
            .epoch(&self.dataset, |step| told(Progress::Step(step)))?;
        let epoch = self.trainer.done();
        let mut splits: BTreeSet<Split> = settings.predictions.iter().copied().collect();
        splits.insert(settings.best_split);
        let (mut scores, mut kept) = (Vec::new(), Vec::new());
        for split in splits {
            let predicted = self.predict(self.trainer.han(), split);
            if let Some(truth) = self.truths.of(split).filter(|_| !predicted.is_empty()) {
                scores.extend(metrics(truth, &predicted, settings.task)?);
            }
            if settings.predictions.contains(&split) {
                kept.extend(predicted);
            }
        }
        let wanted = settings.best_name();
        let score = scores
            .iter()
            .find(|(name, _)| **name == *wanted)
            .map(|(_, score)| *score);
        let better = match (score, self.state.best) {
            (Some(score), Some((_, Some(best)))) => score > best,
            // Nothing to choose by: the last is the best.
            _ => true,
        };
        if better {
            self.state.best = Some((epoch, score));
            let mut weights = self.trainer.han().weights();
            self.describe(&mut weights);
            weights.write(&self.file(BEST))?;
        }
        let mut named: Vec<(Arc<str>, f64)> = vec![("total".into(), losses.total)];
        named.extend(TERMS.iter().map(|name| Arc::from(*name)).zip(losses.terms));
        named.push(("gradient_norm".into(), losses.gradient));
        let row = EpochRow {
            // The store numbers it.
            epoch: 0,
            run: self.recorder.run.as_str().into(),
            run_epoch: epoch,
            labels: self.state.labels,
            videos: self.learnt as u64,
            flips: None,
            learning_rate: losses.rate,
            seconds: begun.elapsed().as_secs_f64(),
            losses: named,
            metrics: scores,
        };
        let row = self.recorder.record(row, &kept, &mut |holder| {
            told(Progress::Waiting(holder.to_owned()));
        })?;
        self.save()?;
        told(Progress::Epoch {
            row: Box::new(row),
            score,
            better,
        });
        Ok(())
    }

    fn predict(&self, han: &Han, split: Split) -> Vec<VideoProbabilities> {
        let of_split = self.dataset.of_split(split, false);
        let videos: Vec<_> = of_split
            .into_iter()
            .map(|at| &self.dataset.examples[at])
            .map(|example| (example.name.clone(), example.places))
            .collect();
        predict(han, &self.dataset.features, &videos, |_| ())
    }

    /// Puts the best epoch's predictions into the store.
    fn finish(&mut self, told: &mut dyn FnMut(Progress)) -> Result<(), TrainError> {
        let Some((best, _)) = self.state.best.filter(|_| !self.state.finished) else {
            return Ok(());
        };
        let path = self.file(BEST);
        let mut weights = Weights::read(&path)?;
        let bad = crate::network::NetworkError::weights(&path);
        let config = self.trainer.han().config().clone();
        let han = Han::of_weights(config, &mut weights, self.request.device).map_err(bad)?;
        let settings = &self.request.settings;
        let mut predicted = Vec::new();
        for split in Split::ALL {
            let there = settings.predictions.contains(&split);
            if settings.best_predictions.contains(&split) && !there {
                predicted.extend(self.predict(&han, split));
            }
        }
        if !predicted.is_empty() {
            self.recorder.add(best, &predicted, &mut |holder| {
                told(Progress::Waiting(holder.to_owned()));
            })?;
        }
        self.state.finished = true;
        self.save()
    }

    fn save(&self) -> Result<(), TrainError> {
        let mut weights = self.trainer.checkpoint();
        self.describe(&mut weights);
        Ok(weights.write(&self.file(LAST))?)
    }

    fn describe(&self, weights: &mut Weights) {
        let mut say = |key: &str, value: String| drop(weights.metadata.insert(key.to_owned(), value));
        say("run", self.recorder.run.clone());
        say("epoch", self.trainer.done().to_string());
        say("labels", self.state.labels.to_string());
        say("classes", self.dataset.classes.join("\n"));
        if let Some((epoch, score)) = self.state.best {
            say("best_epoch", epoch.to_string());
            if let Some(score) = score {
                // As short as reads back to the same number.
                say("best_score", format!("{score:?}"));
            }
        }
        if self.state.finished {
            say("finished", "1".to_owned());
        }
    }

    fn summary(&self) -> Result<Summary, TrainError> {
        let latest = self.recorder.store.at_version(None)?;
        let best = match self.state.best {
            Some((epoch, score)) => {
                let number = self.recorder.number(&latest, epoch)?;
                number.map(|number| (number, score))
            }
            None => None,
        };
        let counted = |split: Split| self.dataset.videos.get(&split).copied().unwrap_or(0);
        let with = self.dataset.of_split(Split::Train, true).len();
        Ok(Summary {
            epochs: self.trainer.done(),
            resumed: self.resumed,
            best,
            videos: with,
            left_out: counted(Split::Train) - with,
            rejects: self.dataset.features.rejects(),
            checkpoint: self.file(BEST),
        })
    }
}

/// Names what is asked: settings, videos with their labels, features.
fn run_hash(settings: &str, dataset: &Dataset) -> String {
    hash(|sum| {
        feed(sum, [settings]);
        feed(sum, dataset.classes.iter().map(|class| &**class));
        // What was read, not the files it came from: the same rows may come to lie in others.
        dataset.examples.iter().for_each(|example| example.feed(sum));
        let features = &dataset.features;
        for table in [
            Some(&features.audio),
            Some(&features.visual),
            features.clips.as_ref(),
        ] {
            feed(sum, [table.map_or("", |table| table.fingerprint())]);
        }
    })
}

/// Reads the classes that a checkpoint of `train` names.
pub(super) fn classes_of(weights: &Weights, _path: &Path) -> Option<Vec<Arc<str>>> {
    let classes = weights.metadata.get("classes")?;
    Some(classes.split('\n').map(Arc::from).collect())
}

/// Losses and scores by name, for showing.
pub fn named(row: &EpochRow) -> BTreeMap<&str, f64> {
    let all = row.losses.iter().chain(&row.metrics);
    all.map(|(name, value)| (&**name, *value)).collect()
}
