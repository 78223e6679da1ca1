//! `vaplan ablate`: the paper's ablation over supervisions and seeds.
//!
//! The ablation reads the store once and does not write to it. It trains each network in memory. The split and metric
//! of the settings choose the best epoch of a network; the scores on the requested split are those of that epoch. The
//! scores of each network are written to a file, so that an ablation that was killed continues with the network that
//! it was training.

use std::fmt;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;

use super::data::{Dataset, FeaturePaths};
use super::error::TrainError;
use super::features::write_beside;
use super::probabilities::predict_split;
use super::settings::{Gate, Supervision, TrainSettings};
use super::train::run_hash;
use super::trainer::Trainer;
use super::validate::{Truths, metrics};
use crate::eval::Task;

/// The request of an ablation.
#[derive(Clone, Debug)]
pub struct AblateRequest {
    /// The store with the labels.
    pub store: PathBuf,
    /// The store version with the labels; `None` means the latest version.
    pub version: Option<StoreVersion>,
    /// The paths of the features.
    pub features: FeaturePaths,
    /// The settings of all trainings. The ablation sets their supervision and seed.
    pub settings: TrainSettings,
    /// The supervisions: one line of the table each.
    pub supervisions: Vec<Supervision>,
    /// The seeds; each supervision is trained with each seed.
    pub seeds: Vec<u64>,
    /// The split that the networks are scored on.
    pub split: Split,
    /// The device to compute on.
    pub device: tch::Device,
    /// The folder for the scores of each network.
    pub kept: PathBuf,
}

/// The scores of one network at its best epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AblationRun {
    /// The supervision of the network.
    pub supervision: Supervision,
    /// The seed of the network.
    pub seed: u64,
    /// The best epoch, from 1.
    pub epoch: u64,
    /// The loss of the last epoch.
    pub loss: f64,
    /// The scores on the split in percent, by protocol, in the order of [`COLUMNS`].
    pub scores: Vec<(Gate, Vec<f64>)>,
}

/// The names of the scores, as in table `epochs`.
pub const COLUMNS: [&str; 10] = super::settings::METRICS;

/// The result of an ablation.
#[derive(Clone, Debug, Serialize)]
pub struct Ablation {
    /// The split of the scores.
    pub split: Split,
    /// The number of epochs of each network.
    pub epochs: u64,
    /// The number of videos that an epoch trains on.
    pub videos: usize,
    /// The networks, in the order of supervisions and seeds.
    pub runs: Vec<AblationRun>,
}

/// The progress that an ablation reports.
#[derive(Clone, Debug)]
pub enum AblateProgress {
    /// All inputs are read. The number is the sum of the training videos over all networks and epochs.
    Planned(u64),
    /// The networks were trained on this number of further videos.
    Videos(u64),
    /// One network is trained and scored.
    Run(Box<AblationRun>),
}

/// Trains and scores every network of the table.
///
/// # Errors
/// Returns the same errors as [`super::train::run`], and [`TrainError::Settings`] if a split has no dense truth.
pub fn run(
    request: &AblateRequest,
    on_progress: &mut dyn FnMut(AblateProgress),
) -> Result<Ablation, TrainError> {
    request.settings.check()?;
    let snapshot = Store::open(&request.store)?.at_version(request.version)?;
    let dataset = Dataset::read(&snapshot, &request.features, &mut |_| ())?;
    let truths = Truths::read(&snapshot)?;
    for split in [request.split, request.settings.best_split] {
        if truths.of(split).is_none() {
            return Err(TrainError::Settings(format!(
                "split `{split}` has no dense truth, expected one to score on"
            )));
        }
    }
    let examples = dataset.of_split(Split::Train, true);
    if examples.is_empty() {
        return Err(TrainError::NoVideos {
            version: snapshot.version().version,
            split: "train",
            videos: dataset.videos.get(&Split::Train).copied().unwrap_or(0),
        });
    }
    let networks = (request.supervisions.len() * request.seeds.len()) as u64;
    on_progress(AblateProgress::Planned(
        networks * request.settings.epochs * examples.len() as u64,
    ));
    let mut runs = Vec::new();
    for &supervision in &request.supervisions {
        for &seed in &request.seeds {
            let settings = TrainSettings {
                supervision,
                seed,
                ..request.settings.clone()
            };
            let name = run_hash(&settings.identity(), &dataset);
            let kept = request.kept.join(format!("{name}.{}.json", request.split));
            let run = match known(&kept) {
                Some(run) => {
                    on_progress(AblateProgress::Videos(settings.epochs * examples.len() as u64));
                    run
                }
                None => {
                    let run = one(request, &settings, &dataset, &truths, on_progress)?;
                    keep(&kept, &run)?;
                    run
                }
            };
            on_progress(AblateProgress::Run(Box::new(run.clone())));
            runs.push(run);
        }
    }
    Ok(Ablation {
        split: request.split,
        epochs: request.settings.epochs,
        videos: examples.len(),
        runs,
    })
}

/// Reads the scores that an earlier ablation wrote. Returns `None` for a file that is missing or cannot be read.
fn known(path: &Path) -> Option<AblationRun> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn keep(path: &Path, run: &AblationRun) -> Result<(), TrainError> {
    let folder = path.parent().expect("it is a file in a folder");
    std::fs::create_dir_all(folder).map_err(TrainError::io("make", folder))?;
    let json = serde_json::to_vec(run).expect("names and numbers are JSON");
    write_beside(path, |file| file.write_all(&json))
}

fn one(
    request: &AblateRequest,
    settings: &TrainSettings,
    dataset: &Dataset,
    truths: &Truths,
    on_progress: &mut dyn FnMut(AblateProgress),
) -> Result<AblationRun, TrainError> {
    let examples = dataset.of_split(Split::Train, true);
    let mut trainer = Trainer::new(settings, dataset, examples, request.device)?;
    let wanted = settings.best_name();
    let mut best = f64::NEG_INFINITY;
    let mut run = AblationRun {
        supervision: settings.supervision,
        seed: settings.seed,
        epoch: 0,
        loss: 0.0,
        scores: Vec::new(),
    };
    for epoch in 1..=settings.epochs {
        let losses = trainer.epoch(dataset, |step| {
            on_progress(AblateProgress::Videos(step.videos as u64));
            ControlFlow::Continue(())
        })?;
        run.loss = losses.total;
        let chosen = scores(&trainer, dataset, truths, (settings.task, settings.best_split))?;
        let score = chosen
            .iter()
            .find(|(name, _)| **name == wanted)
            .map(|(_, score)| *score);
        let score = score.expect("the metric was checked, and the split has truth");
        if score > best {
            (best, run.epoch) = (score, epoch);
            let own = match request.split == settings.best_split {
                true => chosen,
                false => scores(&trainer, dataset, truths, (settings.task, request.split))?,
            };
            run.scores = Gate::ALL
                .into_iter()
                .zip(own.chunks(COLUMNS.len()))
                .map(|(gate, scores)| (gate, scores.iter().map(|(_, score)| *score).collect()))
                .collect();
        }
    }
    Ok(run)
}

type Named = Vec<(String, f64)>;

/// The scores of a split by both protocols, in the order of [`Gate::ALL`] and [`COLUMNS`], followed by the other
/// scores of the task.
fn scores(
    trainer: &Trainer,
    dataset: &Dataset,
    truths: &Truths,
    (task, split): (Task, Split),
) -> Result<Named, TrainError> {
    let predicted = predict_split(trainer.parser(), dataset, split);
    let truth = truths.of(split).expect("it was looked for at the beginning");
    let named = metrics(truth, &predicted, task)?;
    Ok(named
        .into_iter()
        .map(|(name, score)| (name.to_string(), score))
        .collect())
}

/// The mean and the sample standard deviation. The deviation of one value is 0.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// Writes the table of means and deviations, with one decimal.
impl fmt::Display for Ablation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self
            .runs
            .iter()
            .map(|run| run.seed)
            .collect::<std::collections::BTreeSet<_>>();
        writeln!(
            f,
            "split {}, {} videos learnt from, {} epochs, mean and deviation over {} seeds, percent",
            self.split,
            self.videos,
            self.epochs,
            seeds.len()
        )?;
        for gate in Gate::ALL {
            writeln!(f, "\nprotocol {}", gate.as_str())?;
            writeln!(
                f,
                "{:<16}{:>11}{:>11}{:>11}{:>11}{:>11} |{:>12}{:>13}",
                "segment level", "A", "V", "AV", "Type@AV", "Event@AV", "event Type", "event Event"
            )?;
            for supervision in Supervision::ALL {
                let runs: Vec<&AblationRun> = self
                    .runs
                    .iter()
                    .filter(|run| run.supervision == supervision)
                    .collect();
                if runs.is_empty() {
                    continue;
                }
                let cell = |column: usize| {
                    let of = |run: &&AblationRun| {
                        let own = run.scores.iter().find(|(own, _)| *own == gate);
                        own.map_or(f64::NAN, |(_, scores)| scores[column])
                    };
                    let (mean, deviation) = spread(&runs.iter().map(of).collect::<Vec<_>>());
                    format!("{mean:.1} ±{deviation:.1}")
                };
                write!(f, "{:<16}", supervision.as_str())?;
                for column in 0..5 {
                    write!(f, "{:>11}", cell(column))?;
                }
                writeln!(f, " |{:>12}{:>13}", cell(8), cell(9))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_mean_and_sample_deviation() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(spread(&[5.0]), (5.0, 0.0));
        let run = |supervision, seed, score: f64| AblationRun {
            supervision,
            seed,
            epoch: 3,
            loss: 1.0,
            scores: Gate::ALL.map(|gate| (gate, vec![score; 10])).to_vec(),
        };
        let ablation = Ablation {
            split: Split::Test,
            epochs: 40,
            videos: 100,
            runs: vec![
                run(Supervision::Weak, 1, 50.0),
                run(Supervision::Weak, 2, 52.0),
                run(Supervision::Richness, 1, 60.0),
            ],
        };
        let table = ablation.to_string();
        assert!(table.contains("mean and deviation over 2 seeds"), "{table}");
        let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("weak")).collect();
        assert_eq!(lines.len(), 2, "one a protocol");
        assert!(lines[0].contains("51.0 ±1.4"), "{table}");
        assert!(table.contains("event Type  event Event"), "{table}");
        assert!(table.contains("pseudo+richness   60.0 ±0.0"), "{table}");
    }
}
