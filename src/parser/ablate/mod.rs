//! `vaplan ablate`: the paper's ablation over labels, losses, denoising and seeds.
//!
//! | module | content |
//! |---|---|
//! | [`line`] | the lines of the ablation |
//! | `denoised` | denoising in memory |
//! | [`table`] | the table of means and deviations |
//!
//! The ablation reads the store once and does not write to it. It trains each network in memory. The split and metric
//! of the settings choose the best epoch of a network; the scores on the requested split are those of that epoch. The
//! scores of each network are written to a file, so that an ablation that was killed continues with the network that
//! it was training.

mod denoised;
pub mod line;
pub mod table;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vaplan_dataflows::denoising::RULES;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreVersion};

use self::denoised::LabelSamples;
pub use self::line::AblationLine;
use super::data::{Dataset, FeaturePaths};
use super::error::TrainError;
use super::features::write_beside;
use super::probabilities::predict_split;
use super::registry::DEFAULT;
use super::settings::{Gate, TrainSettings};
use super::train::run_hash;
use super::trainer::Trainer;
use super::validate::{Truths, metrics};
use super::{NetworkSettings, Weights};
use crate::eval::{Level, Task};

/// The request of an ablation.
#[derive(Clone, Debug)]
pub struct AblateRequest {
    /// The store with the labels.
    pub store: PathBuf,
    /// The store version with the labels; `None` means the latest version.
    pub version: Option<StoreVersion>,
    /// The paths of the features.
    pub features: FeaturePaths,
    /// The settings of all trainings. The ablation sets their labels, loss and seed.
    pub settings: TrainSettings,
    /// The lines of the table.
    pub lines: Vec<AblationLine>,
    /// The networks; each line is trained with each network.
    pub networks: Vec<NetworkSettings>,
    /// The seeds; each line is trained with each seed.
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
    /// The line of the network.
    pub line: AblationLine,
    /// The name of the network in the registry. Programs before there was a second network wrote no name.
    #[serde(default = "default_network")]
    pub network: String,
    /// The seed of the network.
    pub seed: u64,
    /// The best epoch, from 1.
    pub epoch: u64,
    /// The loss of the last epoch.
    pub loss: f64,
    /// The score that chose the best epoch ([`Ablation::chosen_by`]), in percent.
    pub score: f64,
    /// The scores on the split in percent, by protocol, in the order of [`COLUMNS`].
    pub scores: Vec<(Gate, Vec<f64>)>,
    /// The scores of the labels of the split before and after denoising. `None` if the line does not denoise, or if no
    /// denoising rule gained on val.
    pub labels: Option<[Level; 2]>,
}

fn default_network() -> String {
    DEFAULT.to_owned()
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
    /// The name of the score that chose the best epochs, `<split>.<protocol>.<level>.<score>`.
    pub chosen_by: String,
    /// The networks, in the order of lines and seeds.
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
    for network in &request.networks {
        network.check()?;
    }
    let snapshot = Store::open(&request.store)?.at_version(request.version)?;
    // The lines without denoising learn labels that nothing denoised, and the others denoise these labels themselves.
    let mut dataset = Dataset::read_undenoised(&snapshot, &request.features, &mut |_| ())?;
    let soft = |line: &AblationLine| line.settings(&request.settings, 0).soft_labels > 0.0;
    if request.lines.iter().any(soft) {
        dataset.read_margins(&snapshot)?;
    }
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
    let epochs = |line: AblationLine| line.epochs(request.settings.epochs).iter().sum::<u64>();
    let epochs_of_seed: u64 = request.lines.iter().map(|line| epochs(*line)).sum();
    let seeds = (request.networks.len() * request.seeds.len()) as u64;
    let samples = match request.lines.iter().any(|line| line.denoises()) {
        true => Some(LabelSamples::read(
            &snapshot,
            &dataset,
            (Split::Val, request.split),
        )?),
        false => None,
    };
    on_progress(AblateProgress::Planned(
        epochs_of_seed * seeds * examples.len() as u64,
    ));
    let mut runs = Vec::new();
    for (&line, network) in request
        .lines
        .iter()
        .flat_map(|line| request.networks.iter().map(move |network| (line, network)))
    {
        for &seed in &request.seeds {
            let settings = TrainSettings {
                network: network.clone(),
                ..line.settings(&request.settings, seed)
            };
            // A line whose network goes on had twice the epochs before, so its results of older programs are others.
            let halves = if line.goes_on() { " halves" } else { "" };
            // Other rules are tried on val by another program, and other modalities are denoised after `relabel --denoise`.
            let own = samples.as_ref().filter(|_| line.denoises());
            let denoising = own.map_or(String::new(), |own| {
                format!(" {} of {:?}", RULES.join(" "), own.modalities())
            });
            let identity = settings.identity();
            let name = run_hash(
                &format!("{}{halves}{denoising} {identity}", line.as_str()),
                &dataset,
            );
            let kept = request.kept.join(format!("{name}.{}.json", request.split));
            let run = match known(&kept) {
                Some(run) => {
                    let videos = epochs(line) * examples.len() as u64;
                    on_progress(AblateProgress::Videos(videos));
                    run
                }
                None => {
                    let mut ablated = AblatedNetwork {
                        request,
                        settings: &settings,
                        line,
                        truths: &truths,
                        samples: samples.as_ref().filter(|_| line.denoises()),
                    };
                    let run = ablated.run(&mut dataset, on_progress)?;
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
        chosen_by: request.settings.best_name(),
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

/// One network of the ablation.
struct AblatedNetwork<'a> {
    request: &'a AblateRequest,
    settings: &'a TrainSettings,
    line: AblationLine,
    truths: &'a Truths,
    /// Set if the line denoises.
    samples: Option<&'a LabelSamples>,
}

impl AblatedNetwork<'_> {
    /// Trains the network, and puts the labels of the data set back that it denoised.
    fn run(
        &mut self,
        dataset: &mut Dataset,
        on_progress: &mut dyn FnMut(AblateProgress),
    ) -> Result<AblationRun, TrainError> {
        let own: Vec<Modality> = self
            .samples
            .map_or(Vec::new(), |samples| samples.modalities().to_vec());
        let before: Vec<_> = own.iter().map(|modality| dataset.labels_of(*modality)).collect();
        let run = match self.line.trainings() {
            2 => self.twice(dataset, on_progress),
            _ => self
                .train(dataset, (self.settings.epochs, None), on_progress)
                .map(|(run, _)| run),
        };
        for (modality, labels) in own.into_iter().zip(before) {
            dataset.put_back(modality, labels);
        }
        run
    }

    /// Trains, denoises by the best epoch if the line does so, and trains again.
    fn twice(
        &self,
        dataset: &mut Dataset,
        on_progress: &mut dyn FnMut(AblateProgress),
    ) -> Result<AblationRun, TrainError> {
        let [first, second] = self.line.epochs(self.settings.epochs);
        let (earlier, trainer) = self.train(dataset, (first, None), on_progress)?;
        let levels = self.samples.and_then(|samples| {
            let after = samples.denoise(&trainer, dataset)?;
            Some([samples.plain(), after])
        });
        if second == 0 {
            return Ok(earlier);
        }
        let start = self.line.goes_on().then(|| trainer.parser().named_weights());
        let (mut run, _) = self.train(dataset, (second, start), on_progress)?;
        if self.line.goes_on() {
            run.epoch += first;
            // One network: its best epoch may be one before the labels were denoised.
            if earlier.score >= run.score {
                run = AblationRun {
                    loss: run.loss,
                    ..earlier
                };
            }
        }
        run.labels = levels;
        Ok(run)
    }

    /// Trains a network that begins with `start`, or with random weights. Returns it with the weights of its best epoch. The
    /// line [`AblationLine::DenoisedEvery`] denoises on the way.
    fn train(
        &self,
        dataset: &mut Dataset,
        (epochs, start): (u64, Option<Weights>),
        on_progress: &mut dyn FnMut(AblateProgress),
    ) -> Result<(AblationRun, Trainer), TrainError> {
        let request = self.request;
        // The schedule of the learning rate is that of this training.
        let settings = &TrainSettings {
            epochs,
            ..self.settings.clone()
        };
        let examples = dataset.of_split(Split::Train, true);
        let mut trainer = Trainer::new(settings, dataset, examples, request.device)?;
        if let Some(mut start) = start {
            // The second training must not change the tensors of the first.
            start
                .tensors
                .values_mut()
                .for_each(|tensor| *tensor = tensor.copy());
            trainer.begin_with(start, Path::new("the best epoch"))?;
        }
        let every = self.line == AblationLine::DenoisedEvery;
        let wanted = settings.best_name();
        let mut best = f64::NEG_INFINITY;
        let mut weights = Weights::default();
        let mut run = AblationRun {
            line: self.line,
            network: settings.network.name().to_owned(),
            seed: settings.seed,
            epoch: 0,
            loss: 0.0,
            score: f64::NEG_INFINITY,
            scores: Vec::new(),
            labels: None,
        };
        let plain: Vec<_> = self
            .samples
            .into_iter()
            .flat_map(|samples| samples.modalities())
            .map(|modality| (*modality, dataset.labels_of(*modality)))
            .collect();
        for epoch in 1..=epochs {
            let losses = trainer.epoch(dataset, |step| {
                on_progress(AblateProgress::Videos(step.videos as u64));
                ControlFlow::Continue(())
            })?;
            run.loss = losses.total;
            let chosen = scores(
                &trainer,
                dataset,
                self.truths,
                (settings.task, settings.best_split),
            )?;
            let score = chosen
                .iter()
                .find(|(name, _)| **name == wanted)
                .map(|(_, score)| *score);
            let score = score.expect("the metric was checked, and the split has truth");
            if score > best {
                (best, run.epoch, run.score) = (score, epoch, score);
                // The tensors of a checkpoint share memory with the network, which the next epoch changes.
                weights = trainer.checkpoint();
                weights
                    .tensors
                    .values_mut()
                    .for_each(|tensor| *tensor = tensor.copy());
                let own = match request.split == settings.best_split {
                    true => chosen,
                    false => scores(&trainer, dataset, self.truths, (settings.task, request.split))?,
                };
                run.scores = Gate::ALL
                    .into_iter()
                    .zip(own.chunks(COLUMNS.len()))
                    .map(|(gate, scores)| (gate, scores.iter().map(|(_, score)| *score).collect()))
                    .collect();
            }
            let due = every
                && epoch >= AblationLine::FIRST
                && (epoch - AblationLine::FIRST).is_multiple_of(AblationLine::EVERY)
                && epoch < epochs;
            if let Some(samples) = self.samples.filter(|_| due) {
                // Denoising compares with the labels of PLG, so the flips of an epoch replace those of the epoch before.
                for (modality, labels) in &plain {
                    dataset.put_back(*modality, labels.clone());
                }
                let after = samples.denoise(&trainer, dataset);
                run.labels = after.map(|after| [samples.plain(), after]);
            }
        }
        let done = trainer.done();
        trainer.restore(weights, done, Path::new("the best epoch"))?;
        Ok((run, trainer))
    }
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
