//! The prediction of a trained parser for one video and modality.

use std::fmt;

use serde::{Deserialize, Serialize};
use vaplan_schemas::ClassId;

/// The probability of an event, stored as its bits. The order of this type is not the order of the numbers.
///
/// The value may be NaN or another number that is not a probability, as it came from a file or a parser.
/// [`Probability::get`] returns `None` for such a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Probability(u32);

impl Probability {
    /// Stores the bits of `value`.
    pub fn new(value: f32) -> Probability {
        Probability(value.to_bits())
    }

    /// Returns the number as it was given.
    pub fn raw(self) -> f32 {
        f32::from_bits(self.0)
    }

    /// Returns the number; `None` if it is NaN or outside [0, 1].
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

/// The segment probabilities of one video and modality after an epoch, for any set of classes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prediction {
    epoch: u64,
    segments: u32,
    classes: Vec<ClassId>,
    probability: Vec<Probability>,
}

impl Prediction {
    /// Makes the prediction of one video and modality.
    ///
    /// # Shapes
    /// `probability`: `[classes, segments]`, class-major; `classes` strictly ascending.
    ///
    /// # Panics
    /// Panics if the lengths do not match or `classes` does not strictly ascend. Both are bugs of the caller, not bad
    /// input.
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

    /// The epoch after which the parser made the prediction.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of segments, T.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// The classes that have probabilities, ascending.
    pub fn classes(&self) -> &[ClassId] {
        &self.classes
    }

    /// Returns the prediction for only the classes for which `keep` returns true.
    #[must_use]
    pub fn restricted(&self, keep: impl Fn(ClassId) -> bool) -> Prediction {
        let classes: Vec<ClassId> = self
            .classes
            .iter()
            .copied()
            .filter(|class| keep(*class))
            .collect();
        let own = classes.iter().filter_map(|class| self.of(*class));
        Prediction {
            epoch: self.epoch,
            segments: self.segments,
            probability: own.flatten().copied().collect(),
            classes,
        }
    }

    /// Returns the probabilities of a class, one per segment; `None` if the class was not predicted.
    pub fn of(&self, class: ClassId) -> Option<&[Probability]> {
        let (at, segments) = (self.classes.binary_search(&class).ok()?, self.segments as usize);
        Some(&self.probability[at * segments..(at + 1) * segments])
    }
}
