//! A network in training, epoch by epoch, without any file.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};

use super::average::WeightAverage;
use super::data::Dataset;
use super::error::TrainError;
use super::loss::{LossVariant, TERMS};
use super::optimizer::gradients;
use super::settings::TrainSettings;
use super::variants::{Mixup, class_weights, smooth_borders};
use super::{
    Adam, Loss, LossConfig, NetworkError, NetworkSizes, Noise, Parser, ParserInputs, ParserOutputs, Targets,
    Weights,
};
use crate::eval::Task;

/// A network with its optimizer and the number of completed epochs.
#[derive(Debug)]
pub struct Trainer {
    settings: TrainSettings,
    loss: LossConfig,
    parser: Box<dyn Parser>,
    adam: Adam,
    /// The average of the weights; `None` if the settings turn averaging off.
    average: Option<WeightAverage>,
    /// The number of completed epochs.
    done: u64,
    /// The positions in the data set that an epoch trains on.
    examples: Vec<usize>,
}

/// The losses of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochLosses {
    /// The total loss: the mean over the videos.
    pub total: f64,
    /// Each term, in the order of [`TERMS`]: the mean over the videos.
    pub terms: [f64; TERMS.len()],
    /// The norm of the gradient before clipping: the mean over the steps.
    pub gradient: f64,
    /// The learning rate of the last step.
    pub rate: f64,
}

/// A completed step of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct TrainStep {
    /// The number of videos in the batch.
    pub videos: usize,
    /// The loss of the batch.
    pub loss: f64,
}

impl Trainer {
    /// A training before its first epoch. `examples` are the positions in the data set that an epoch trains on.
    ///
    /// # Errors
    /// Returns [`TrainError::Settings`] if a setting is wrong, and [`TrainError::Network`] if the network cannot be
    /// made.
    pub fn new(
        settings: &TrainSettings,
        dataset: &Dataset,
        examples: Vec<usize>,
        device: Device,
    ) -> Result<Trainer, TrainError> {
        settings.check()?;
        let features = &dataset.features;
        let sizes = NetworkSizes {
            audio: features.audio.width(),
            visual: features.visual.width(),
            clips: features.clips.as_ref().map(|clips| clips.width()),
            classes: dataset.classes.len() as i64,
        };
        Ok(Trainer {
            settings: settings.clone(),
            loss: settings.loss(),
            parser: settings.network.build(&sizes, settings.seed, device)?,
            adam: Adam::new(settings.adam()),
            average: WeightAverage::new(settings, &sizes, device)?,
            done: 0,
            examples,
        })
    }

    /// Replaces parameters and optimizer by those of a checkpoint after `done` epochs.
    ///
    /// # Errors
    /// Returns [`NetworkError::Weights`] with `path` if the checkpoint is one of another network.
    pub fn restore(
        &mut self,
        mut checkpoint: Weights,
        done: u64,
        path: &std::path::Path,
    ) -> Result<(), TrainError> {
        let bad = NetworkError::weights(path);
        let parameters = self.parser.trainable();
        self.adam = Adam::restore(self.settings.adam(), &mut checkpoint, &parameters).map_err(&bad)?;
        if let Some(average) = &mut self.average {
            average.restore(&mut checkpoint).map_err(&bad)?;
        }
        self.parser.restore(&mut checkpoint).map_err(&bad)?;
        self.done = done;
        Ok(())
    }

    /// Replaces the parameters, before the first epoch, by those of another training.
    ///
    /// # Errors
    /// Returns [`NetworkError::Weights`] with `path` if the weights are of another network.
    pub fn begin_with(&mut self, mut weights: Weights, path: &std::path::Path) -> Result<(), TrainError> {
        self.parser
            .restore(&mut weights)
            .map_err(NetworkError::weights(path))?;
        if let Some(average) = &mut self.average {
            average.begin_with(&self.parser.trainable());
        }
        Ok(())
    }

    /// The parameters, their average and the optimizer's state. Together with seed and epoch they decide the next epoch.
    pub fn checkpoint(&self) -> Weights {
        let mut weights = self.parser.named_weights();
        self.adam.save(&mut weights);
        if let Some(average) = &self.average {
            average.save(&mut weights);
        }
        weights
    }

    /// The network that predicts: the average of the weights, or the weights of the last step if averaging is off.
    pub fn parser(&self) -> &dyn Parser {
        match &self.average {
            Some(average) => average.parser(),
            None => &*self.parser,
        }
    }

    /// The number of completed epochs.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The number of steps of an epoch.
    pub fn steps(&self) -> usize {
        self.examples.len().div_ceil(self.settings.batch)
    }

    /// Sets the positions that the next epochs train on. They are positions in the data set that is passed to those
    /// epochs.
    pub fn learn_from(&mut self, examples: Vec<usize>) {
        self.examples = examples;
    }

    /// Trains on every example once, in an order that seed and epoch decide. `on_step` is called after each step and
    /// can stop the epoch.
    ///
    /// # Errors
    /// Returns [`TrainError::NotFinite`] before a batch with such a value changes the parameters, and
    /// [`TrainError::Stopped`] if `on_step` stopped the epoch.
    pub fn epoch(
        &mut self,
        dataset: &Dataset,
        mut on_step: impl FnMut(TrainStep) -> ControlFlow<()>,
    ) -> Result<EpochLosses, TrainError> {
        let epoch = self.done + 1;
        let mut noise = Noise::new(self.settings.seed, epoch);
        let mut order = self.examples.clone();
        noise.shuffle(&mut order);
        let (device, parameters) = (self.parser.device(), self.parser.trainable());
        let steps = self.steps();
        let weights = (self.settings.class_balance > 0.0).then(|| {
            let weights = class_weights(&dataset.class_counts(&self.examples), self.settings.class_balance);
            Tensor::from_slice(&weights).to_device(device)
        });
        let mut losses = EpochLosses {
            total: 0.0,
            terms: [0.0; TERMS.len()],
            gradient: 0.0,
            rate: 0.0,
        };
        for (step, batch) in order.chunks(self.settings.batch).enumerate() {
            let inputs = drop_features(
                dataset.inputs(batch, device),
                self.settings.feature_dropout,
                &mut noise,
            );
            let mixup = Mixup::draw(self.settings.mixup, batch.len(), &mut noise);
            let inputs = match &mixup {
                Some(mixup) => mixup.inputs(&inputs),
                None => inputs,
            };
            let (targets, variant) = self.targets(dataset, batch, (epoch, &weights));
            let outputs = self.parser.forward(&inputs, Some(&mut noise));
            let not_finite = |what, value| TrainError::NotFinite {
                epoch,
                batch: step,
                what,
                value,
                videos: names(dataset, batch),
            };
            // libtorch's cross entropy throws if a probability is NaN. Check first, because this check can name the
            // batch.
            let probabilities = [&outputs.video, &outputs.audio, &outputs.visual].map(|p| p.sum(Kind::Float));
            let sum = f64::try_from(Tensor::stack(&probabilities, 0).sum(Kind::Float))
                .map_err(NetworkError::from)?;
            if !sum.is_finite() {
                return Err(not_finite("sum of the network's probabilities", sum));
            }
            let loss = match &mixup {
                None => self.loss.loss_of_variant(&outputs, &targets, &variant),
                Some(mixup) => self.mixed_loss(mixup, &outputs, (&targets, &variant)),
            };
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
            if let Some(average) = &mut self.average {
                average.step(&parameters);
            }
            let share = batch.len() as f64 / order.len() as f64;
            losses.total += total * share;
            losses.gradient += norm / steps as f64;
            for (sum, term) in losses.terms.iter_mut().zip(&loss.terms) {
                *sum += f64::try_from(term).map_err(NetworkError::from)? * share;
            }
            let made = TrainStep {
                videos: batch.len(),
                loss: total,
            };
            if on_step(made).is_break() {
                return Err(TrainError::Stopped);
            }
        }
        self.done = epoch;
        Ok(losses)
    }
}

impl Trainer {
    /// The targets of a batch, and what its loss has beside them.
    fn targets(
        &self,
        dataset: &Dataset,
        batch: &[usize],
        (epoch, weights): (u64, &Option<Tensor>),
    ) -> (Targets, LossVariant) {
        let (settings, device) = (&self.settings, self.parser.device());
        let targets = dataset.targets(batch, device);
        let soft =
            (settings.soft_labels > 0.0).then(|| dataset.soft_targets(batch, settings.soft_labels, device));
        let (targets, soft) = match settings.task {
            Task::Avvp => (targets, soft),
            Task::Ave => {
                let both = soft.map(|[audio, visual]| {
                    let both = audio * visual;
                    [both.shallow_clone(), both]
                });
                (targets.audio_visual(), both)
            }
        };
        let segments = match settings.border_smoothing > 0.0 {
            true => {
                let own = |labels: &Tensor| {
                    smooth_borders(labels, targets.within.as_ref(), settings.border_smoothing)
                };
                let hard = [own(&targets.audio), own(&targets.visual)];
                Some(match soft {
                    // A soft target may be nearer to 0.5 than the border makes it, and then stays.
                    Some(soft) => nearer_to_half(soft, &hard),
                    None => hard,
                })
            }
            false => soft,
        };
        let variant = LossVariant {
            segments,
            class_weights: weights.as_ref().map(Tensor::shallow_clone),
            // In the first epoch the losses of a modality say nothing about its labels.
            comparison: if epoch > 1 {
                settings.modality_comparison
            } else {
                0.0
            },
        };
        (targets, variant)
    }

    /// The loss of mixed videos: that of each video by its share, and that of its partner by the rest.
    fn mixed_loss(
        &self,
        mixup: &Mixup,
        outputs: &ParserOutputs,
        (targets, variant): (&Targets, &LossVariant),
    ) -> Loss {
        let own = self.loss.loss_of_variant(outputs, targets, variant);
        let partner = LossVariant {
            segments: (variant.segments.as_ref())
                .map(|both| both.each_ref().map(|labels| mixup.of_partners(labels))),
            class_weights: variant.class_weights.as_ref().map(Tensor::shallow_clone),
            comparison: variant.comparison,
        };
        let other = self
            .loss
            .loss_of_variant(outputs, &mixup.targets(targets), &partner);
        let mix = |own: &Tensor, other: &Tensor| own * mixup.share + other * (1.0 - mixup.share);
        Loss {
            total: mix(&own.total, &other.total),
            terms: own
                .terms
                .iter()
                .zip(&other.terms)
                .map(|(own, other)| mix(own, other))
                .collect(),
        }
    }
}

/// For each segment, the target that is nearer to 0.5.
fn nearer_to_half([audio, visual]: [Tensor; 2], hard: &[Tensor; 2]) -> [Tensor; 2] {
    let nearer = |soft: Tensor, hard: &Tensor| {
        let closer = (&soft - 0.5).abs().lt_tensor(&(hard - 0.5).abs());
        soft.where_self(&closer, hard)
    };
    [nearer(audio, &hard[0]), nearer(visual, &hard[1])]
}

/// Sets each value of the features to 0 with this probability, and scales the other values up.
///
/// A network that cannot rely on single values learns less of the noise of the training videos.
fn drop_features(inputs: ParserInputs, probability: f64, noise: &mut Noise) -> ParserInputs {
    let mut drop = |features: &Tensor| noise.drop(features, probability);
    ParserInputs {
        audio: drop(&inputs.audio),
        visual: drop(&inputs.visual),
        clips: inputs.clips.as_ref().map(drop),
        padding: inputs.padding,
    }
}

/// The first four names of a batch, and the number of further names.
fn names(dataset: &Dataset, batch: &[usize]) -> String {
    let mut names: Vec<&str> = batch.iter().map(|&at| &*dataset.examples[at].name).collect();
    let more = names.len().saturating_sub(4);
    names.truncate(4);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
