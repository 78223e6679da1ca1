//! Soft targets from the margins of scores, and counts of classes, for the variants of the loss.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::{Device, Tensor};
use vaplan_dataflows::rule::Rule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::LabelRule;
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables;

use super::{Dataset, Example, longest};
use crate::parser::error::TrainError;
use crate::parser::variants::soft_target;
use crate::world::World;

impl Dataset {
    /// Reads how far each score is above its threshold: ln(q / τ) of rule `softmax`, and s − θ of rule `logit`.
    ///
    /// # Errors
    /// Returns [`TrainError::Store`] if the store cannot be read, and [`TrainError::Settings`] if its settings cannot.
    pub fn read_margins(&mut self, snapshot: &Snapshot) -> Result<(), TrainError> {
        let world = World::read(snapshot).map_err(|error| TrainError::Settings(error.to_string()))?;
        let position: BTreeMap<Arc<str>, usize> = self.classes.iter().cloned().zip(0..).collect();
        let classes = self.classes.len();
        for track in snapshot.read::<tables::Labels>()? {
            let found = self
                .examples
                .binary_search_by(|example| example.name.cmp(&track.video));
            let (Ok(at), Some(&class), Some(threshold)) =
                (found, position.get(&track.class), track.threshold)
            else {
                continue;
            };
            let margin = |score: f64| match world.settings.of(track.modality).rule {
                Rule::Softmax { .. } => (score / threshold).ln(),
                Rule::Logit { .. } => score - threshold,
            };
            let example = &mut self.examples[at];
            let segments = example.places[0].segments as usize;
            let margins = &mut example.margins[usize::from(track.modality == Modality::Visual)];
            if margins.is_empty() {
                *margins = vec![f32::NAN; segments * classes];
            }
            let scored = track.scores.iter().zip(&track.rules).enumerate();
            for (segment, (&score, rule)) in scored.take(segments) {
                if *rule != LabelRule::User {
                    margins[segment * classes + class] = margin(score) as f32;
                }
            }
        }
        Ok(())
    }

    /// The soft targets of the examples at these positions, audio and visual, `[B, T, C]`
    /// ([`soft_target`](crate::parser::variants::soft_target)). A label without a margin is its own target.
    pub fn soft_targets(&self, positions: &[usize], slope: f64, device: Device) -> [Tensor; 2] {
        let (classes, segments) = (self.classes.len(), longest(&self.places(positions)));
        let size = segments as usize * classes;
        [0, 1].map(|modality| {
            let mut values = vec![0f32; positions.len() * size];
            for (&at, out) in positions.iter().zip(values.chunks_exact_mut(size)) {
                let Example { labels, margins, .. } = &self.examples[at];
                let margins = margins[modality]
                    .iter()
                    .copied()
                    .chain(std::iter::repeat(f32::NAN));
                for ((label, margin), out) in labels[modality].iter().zip(margins).zip(out) {
                    *out = match margin.is_nan() {
                        true => f32::from(*label),
                        false => soft_target(f64::from(margin), slope, *label == 1),
                    };
                }
            }
            let shape = [positions.len() as i64, i64::from(segments), classes as i64];
            Tensor::from_slice(&values).view(shape).to_device(device)
        })
    }

    /// The number of the examples at these positions that have each class in their weak label.
    pub fn class_counts(&self, positions: &[usize]) -> Vec<u64> {
        let mut counts = vec![0; self.classes.len()];
        for &at in positions {
            for (count, label) in counts.iter_mut().zip(&self.examples[at].weak) {
                *count += u64::from(*label);
            }
        }
        counts
    }
}
