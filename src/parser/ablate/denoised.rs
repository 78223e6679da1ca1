//! Denoising within the ablation, in memory.
//!
//! The rule is chosen on val, as `vaplan denoise` chooses it: by the labels of val before and after, cross-fitted. If no rule
//! gains there, the labels stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, Split};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::Labels;

use crate::calibrate::gate::denoising_gain;
use crate::calibrate::pld;
use crate::calibrate::sample::{CalibrationSample, CalibrationVideo};
use crate::eval::Level;
use crate::parser::data::{Dataset, MarginTracks};
use crate::parser::error::TrainError;
use crate::parser::probabilities::{VideoProbabilities, predict_split};
use crate::parser::trainer::Trainer;
use crate::world::settings::LabelSettings;
use crate::world::{Both, World};

/// The videos on which a rule is chosen, and those on which the labels are scored.
pub(super) struct LabelSamples {
    settings: LabelSettings,
    /// Modalities whose labels may flip.
    modalities: Vec<Modality>,
    choice: CalibrationSample,
    scored: CalibrationSample,
    names: BTreeMap<vaplan_dataflows::VideoId, Arc<str>>,
    /// Margins of the train videos, by modality.
    margins: Both<BTreeMap<Arc<str>, MarginTracks>>,
}

impl LabelSamples {
    /// Reads the scores and the dense truth of val and of the split to score.
    pub(super) fn read(
        snapshot: &Snapshot,
        dataset: &Dataset,
        (choose, score): (Split, Split),
    ) -> Result<LabelSamples, TrainError> {
        let world = World::read(snapshot).map_err(label_error)?;
        let sample = |split| {
            let read = CalibrationSample::without_predictions(snapshot, &world, split);
            read.map_err(|error| TrainError::Settings(error.to_string()))
        };
        let denoised = |modality: &Modality| world.denoising[modality.index()].is_some();
        let own: Vec<Modality> = Modality::ALL.into_iter().filter(denoised).collect();
        let examples = dataset.examples.iter();
        Ok(LabelSamples {
            margins: margins(snapshot, &world, dataset)?,
            choice: sample(choose)?,
            scored: sample(score)?,
            settings: world.settings,
            modalities: if own.is_empty() {
                vec![Modality::Visual]
            } else {
                own
            },
            names: examples
                .map(|example| (vaplan_dataflows::VideoId::of(&example.name), example.name.clone()))
                .collect(),
        })
    }

    /// Scores of the labels, without denoising.
    pub(super) fn plain(&self) -> Level {
        level(&self.scored.videos, &self.settings, &[None, None])
    }

    /// Chooses a rule by the predictions of the trained network, denoises the labels of train, and returns the scores of the
    /// denoised labels of the split. Returns `None` if no rule gains on val; the labels then stay.
    pub(super) fn denoise(&self, trainer: &Trainer, dataset: &mut Dataset) -> Option<Level> {
        let videos = self.predicted(&self.choice, trainer, dataset);
        let gain = denoising_gain(&videos, &self.settings, &self.modalities)?;
        if !gain.is_gain() {
            return None;
        }
        let positions = dataset.of_split(Split::Train, true);
        let all = predict_split(trainer.parser(), dataset, Split::Train);
        let by_name: BTreeMap<Arc<str>, VideoProbabilities> =
            all.into_iter().map(|own| (own.video.clone(), own)).collect();
        let own: Vec<VideoProbabilities> = positions
            .iter()
            .map(|&at| by_name[&dataset.examples[at].name].clone())
            .collect();
        let mut rules: Both<Option<DenoisingRule>> = [None, None];
        for &modality in &self.modalities {
            rules[modality.index()] = Some(gain.rule);
            let margins = &self.margins[modality.index()];
            dataset.denoise(&positions, modality, (gain.rule, &own), margins);
        }
        let scored = self.predicted(&self.scored, trainer, dataset);
        Some(level(&scored, &self.settings, &rules))
    }

    /// The modalities whose labels may flip.
    pub(super) fn modalities(&self) -> &[Modality] {
        &self.modalities
    }

    /// The videos of a sample, with the predictions of a network.
    fn predicted(
        &self,
        sample: &CalibrationSample,
        trainer: &Trainer,
        dataset: &Dataset,
    ) -> Vec<CalibrationVideo> {
        let mut predicted = Vec::new();
        for split in Split::ALL {
            let wanted = sample.videos.iter().any(|video| {
                let name = self.names.get(&video.id);
                name.is_some_and(|name| {
                    let found = dataset.examples.binary_search_by(|own| own.name.cmp(name));
                    found.is_ok_and(|at| dataset.examples[at].split == split)
                })
            });
            if wanted {
                predicted.extend(predict_split(trainer.parser(), dataset, split));
            }
        }
        sample.with_predictions(&predicted)
    }
}

/// Score minus threshold of the train videos, as table `labels` repeats both; NaN under a user label, which hides its score. These are the
/// margins of the denoising rule, in f64 as the label graph has them; those of [`Dataset::read_margins`] are logarithms by rule `softmax`.
fn margins(
    snapshot: &Snapshot,
    world: &World,
    dataset: &Dataset,
) -> Result<Both<BTreeMap<Arc<str>, MarginTracks>>, TrainError> {
    let train = dataset
        .of_split(Split::Train, true)
        .into_iter()
        .map(|at| dataset.examples[at].name.clone());
    let filter = Filter::videos(train);
    let rows = snapshot
        .scan::<Labels>(&filter)
        .map_err(|error| label_error(error.into()))?;
    let mut margins: Both<BTreeMap<Arc<str>, MarginTracks>> = Default::default();
    for found in rows {
        let track = found.row;
        let (Some(class), Some(threshold)) = (world.class_id(&track.class), track.threshold) else {
            continue;
        };
        let scored = track.scores.iter().zip(&track.rules);
        let own = scored.map(|(score, rule)| match rule {
            LabelRule::User => f64::NAN,
            _ => score - threshold,
        });
        let by_video = margins[track.modality.index()].entry(track.video).or_default();
        by_video.push((class, own.collect()));
    }
    Ok(margins)
}

fn level(
    videos: &[CalibrationVideo],
    settings: &LabelSettings,
    rules: &Both<Option<DenoisingRule>>,
) -> Level {
    pld::level(&videos.iter().collect::<Vec<_>>(), settings, rules)
}

fn label_error(error: crate::error::LabelError) -> TrainError {
    TrainError::Settings(error.to_string())
}
