//! A network in training: one epoch after the other, from memory to memory.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};

use super::data::Dataset;
use super::error::TrainError;
use super::loss::TERMS;
use super::optimizer::gradients;
use super::settings::TrainSettings;
use super::{Adam, Han, LossConfig, NetworkError, Noise, Weights};
use crate::eval::Task;

/// A network, its optimizer, and how far they are.
#[derive(Debug)]
pub struct Trainer {
    settings: TrainSettings,
    loss: LossConfig,
    han: Han,
    adam: Adam,
    /// Epochs done.
    done: u64,
    /// Positions in the data set.
    examples: Vec<usize>,
}

/// What an epoch gave.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochLosses {
    /// Mean over the videos of the weighted sum.
    pub total: f64,
    /// Mean over the videos of each term, in the order of [`TERMS`].
    pub terms: [f64; TERMS.len()],
    /// Mean over the steps of the gradient's norm, before clipping.
    pub gradient: f64,
    /// Learning rate of the last step.
    pub rate: f64,
}

/// A step that was made.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Videos in it.
    pub videos: usize,
    /// Loss.
    pub loss: f64,
}

impl Trainer {
    /// Before the first epoch; `examples` are the positions to learn from.
    ///
    /// # Errors
    /// Settings that make no network.
    pub fn new(
        settings: &TrainSettings,
        dataset: &Dataset,
        examples: Vec<usize>,
        device: Device,
    ) -> Result<Trainer, TrainError> {
        settings.check()?;
        let features = &dataset.features;
        let clips = features.clips.as_ref().map(|clips| clips.width());
        let classes = dataset.classes.len() as i64;
        let config = settings.network(features.audio.width(), features.visual.width(), clips, classes);
        Ok(Trainer {
            settings: settings.clone(),
            loss: settings.loss(),
            han: Han::new(config, settings.seed, device)?,
            adam: Adam::new(settings.adam()),
            done: 0,
            examples,
        })
    }

    /// After the epochs that a checkpoint tells of; everything else is as it was.
    ///
    /// # Errors
    /// [`NetworkError::Weights`] for a checkpoint of another network; `path` is for the message.
    pub fn restore(
        &mut self,
        mut checkpoint: Weights,
        done: u64,
        path: &std::path::Path,
    ) -> Result<(), TrainError> {
        let bad = NetworkError::weights(path);
        let device = self.han.device();
        let adam =
            Adam::restore(self.settings.adam(), &mut checkpoint, &self.han.trainable()).map_err(&bad)?;
        let config = self.han.config().clone();
        self.han = Han::of_weights(config, &mut checkpoint, device).map_err(&bad)?;
        self.adam = adam;
        self.done = done;
        Ok(())
    }

    /// Parameters and the optimizer's state: with seed and epoch, all that the next epoch depends on.
    pub fn checkpoint(&self) -> Weights {
        let mut weights = self.han.weights();
        self.adam.save(&mut weights);
        weights
    }

    /// The network.
    pub fn han(&self) -> &Han {
        &self.han
    }

    /// Epochs done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Steps of an epoch.
    pub fn steps(&self) -> usize {
        self.examples.len().div_ceil(self.settings.batch)
    }

    /// Learns from other examples from now on: positions in the data set of the next epoch.
    pub fn learn_from(&mut self, examples: Vec<usize>) {
        self.examples = examples;
    }

    /// Learns from every example once, in the order that seed and epoch give; `told` hears of every step, and may stop.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`], before the parameters are touched by it; [`TrainError::Stopped`], in the middle of the
    /// epoch.
    pub fn epoch(
        &mut self,
        dataset: &Dataset,
        mut told: impl FnMut(Step) -> ControlFlow<()>,
    ) -> Result<EpochLosses, TrainError> {
        let epoch = self.done + 1;
        let mut noise = Noise::new(self.settings.seed, epoch, self.settings.dropout);
        let mut order = self.examples.clone();
        noise.shuffle(&mut order);
        let (device, parameters) = (self.han.device(), self.han.trainable());
        let steps = self.steps();
        let mut losses = EpochLosses {
            total: 0.0,
            terms: [0.0; TERMS.len()],
            gradient: 0.0,
            rate: 0.0,
        };
        for (step, batch) in order.chunks(self.settings.batch).enumerate() {
            let inputs = dataset.inputs(batch, device);
            let targets = dataset.targets(batch, device);
            let targets = match self.settings.task {
                Task::Avvp => targets,
                Task::Ave => targets.audio_visual(),
            };
            let outputs = self.han.forward(&inputs, Some(&mut noise));
            let not_finite = |what, value| TrainError::NotFinite {
                epoch,
                batch: step,
                what,
                value,
                videos: names(dataset, batch),
            };
            // libtorch's cross entropy throws where a probability is none; here its batch can be named.
            let probabilities = [&outputs.video, &outputs.audio, &outputs.visual].map(|p| p.sum(Kind::Float));
            let sum = f64::try_from(Tensor::stack(&probabilities, 0).sum(Kind::Float))
                .map_err(NetworkError::from)?;
            if !sum.is_finite() {
                return Err(not_finite("sum of the network's probabilities", sum));
            }
            let loss = self.loss.loss(&outputs, &targets);
            let total = f64::try_from(&loss.total).map_err(NetworkError::from)?;
            if !total.is_finite() {
                return Err(not_finite("loss", total));
            }
            let (gradients, norm) = gradients(&loss.total, &parameters, self.settings.clip)?;
            if !norm.is_finite() {
                return Err(not_finite("norm of its gradient", norm));
            }
            losses.rate = self.settings.rate(epoch, step, steps);
            self.adam.step(&parameters, &gradients, losses.rate);
            let share = batch.len() as f64 / order.len() as f64;
            losses.total += total * share;
            losses.gradient += norm / steps as f64;
            for (sum, term) in losses.terms.iter_mut().zip(&loss.terms) {
                *sum += f64::try_from(term).map_err(NetworkError::from)? * share;
            }
            let made = Step {
                videos: batch.len(),
                loss: total,
            };
            if told(made).is_break() {
                return Err(TrainError::Stopped);
            }
        }
        self.done = epoch;
        Ok(losses)
    }
}

/// The first names of a batch.
fn names(dataset: &Dataset, batch: &[usize]) -> String {
    let mut names: Vec<&str> = batch.iter().map(|&at| &*dataset.examples[at].name).collect();
    let more = names.len().saturating_sub(4);
    names.truncate(4);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
