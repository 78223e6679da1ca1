//! What a trained model says of one video and modality.

use std::fmt;

use serde::{Deserialize, Serialize};
use vaplan_schemas::ClassId;

/// Probability of an event, by its bits; the order is not that of the numbers. NaN and others that are no probability
/// can be held, and are told apart by [`Probability::get`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Probability(u32);

impl Probability {
    /// By its bits.
    pub fn new(value: f32) -> Probability {
        Probability(value.to_bits())
    }

    /// The number as it came.
    pub fn raw(self) -> f32 {
        f32::from_bits(self.0)
    }

    /// The number, if it is in [0, 1].
    pub fn get(self) -> Option<f64> {
        let value = f64::from(self.raw());
        (0.0..=1.0).contains(&value).then_some(value)
    }
}

impl fmt::Debug for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probability({})", self.raw())
    }
}

/// Segment probabilities of one video and modality after an epoch, for any classes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prediction {
    epoch: u64,
    segments: u32,
    classes: Vec<ClassId>,
    probability: Vec<Probability>,
}

impl Prediction {
    /// # Shapes
    /// `probability`: `[classes, segments]`, class-major; `classes` strictly ascending.
    ///
    /// # Panics
    /// Where the lengths do not fit: the caller made them.
    pub fn new(
        epoch: u64,
        segments: u32,
        classes: Vec<ClassId>,
        probability: Vec<Probability>,
    ) -> Prediction {
        assert_eq!(
            probability.len(),
            segments as usize * classes.len(),
            "cells of {} classes",
            classes.len()
        );
        assert!(classes.is_sorted_by(|a, b| a < b), "classes ascend");
        Prediction {
            epoch,
            segments,
            classes,
            probability,
        }
    }

    /// After which epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// T.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Classes predicted, ascending.
    pub fn classes(&self) -> &[ClassId] {
        &self.classes
    }

    /// Probabilities of a class, segment by segment, where it was predicted.
    pub fn of(&self, class: ClassId) -> Option<&[Probability]> {
        let (at, segments) = (self.classes.binary_search(&class).ok()?, self.segments as usize);
        Some(&self.probability[at * segments..(at + 1) * segments])
    }
}
