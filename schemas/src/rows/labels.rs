//! Rows of table `labels`, and why PLD flipped a label.

use std::sync::Arc;

use super::LabelRule;
use crate::ids::Modality;

/// A row of `labels`: the labels of one video, modality and class of the weak label; key (`video`, `modality`, `class`).
///
/// `labels`, `rules` and `scores` have one value per segment. [`LabelTrack::iter`] reads them segment by segment.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTrack {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Pseudo labels: whether the event occurs in the segment.
    pub labels: Vec<bool>,
    /// The rule that set each label.
    pub rules: Vec<LabelRule>,
    /// The score that was compared with the threshold; 0 and without meaning for rule `user`.
    pub scores: Vec<f64>,
    /// The number that the scores were compared with; `None` if a person set every label of the track.
    pub threshold: Option<f64>,
    /// Why labels were flipped, by segment, ascending. Few labels are flipped.
    pub flips: Vec<(u32, FlipReason)>,
}

/// One segment of a [`LabelTrack`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentLabel<'a> {
    /// Whether the event occurs.
    pub label: bool,
    /// The rule that set the label.
    pub rule: LabelRule,
    /// The score that was compared; `None` for rule `user`.
    pub score: Option<f64>,
    /// The number that the score was compared with; `None` for rule `user`.
    pub threshold: Option<f64>,
    /// Why the label was flipped; `None` for every rule but `pld`.
    pub why: Option<&'a FlipReason>,
}

/// The labels of a track without their reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelBitTrack {
    /// The full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// The label of each segment.
    pub labels: Vec<bool>,
}

impl LabelTrack {
    /// The labels that PLG gives these scores: set if the score is above the threshold.
    ///
    /// ```
    /// use vaplan_schemas::Modality;
    /// use vaplan_schemas::rows::{LabelRule, LabelTrack};
    /// let mut track = LabelTrack::plg("clip".into(), Modality::Audio, "Dog".into(), vec![0.2, 0.7], 0.5);
    /// assert_eq!(track.labels, [false, true]);
    /// track.set(0, true, LabelRule::User, None);
    /// assert_eq!((track.get(0).score, track.get(1).score), (None, Some(0.7)));
    /// ```
    pub fn plg(
        video: Arc<str>,
        modality: Modality,
        class: Arc<str>,
        scores: Vec<f64>,
        threshold: f64,
    ) -> LabelTrack {
        LabelTrack {
            video,
            modality,
            class,
            labels: scores.iter().map(|score| *score > threshold).collect(),
            rules: vec![LabelRule::Plg; scores.len()],
            threshold: (!scores.is_empty()).then_some(threshold),
            scores,
            flips: Vec::new(),
        }
    }

    /// Replaces the label of a segment, the rule that set it, and the reason of the flip.
    ///
    /// # Panics
    /// Panics if the track has no such segment.
    pub fn set(&mut self, segment: usize, label: bool, rule: LabelRule, why: Option<FlipReason>) {
        self.labels[segment] = label;
        self.rules[segment] = rule;
        self.flips.retain(|(at, _)| *at as usize != segment);
        if let Some(why) = why {
            let at = self.flips.partition_point(|(at, _)| (*at as usize) < segment);
            self.flips.insert(at, (segment as u32, why));
        }
        if !rule.compares() {
            self.scores[segment] = 0.0;
            self.threshold = self
                .threshold
                .filter(|_| self.rules.iter().any(|rule| rule.compares()));
        }
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.labels.len()
    }

    /// The label of a segment, and why it is so.
    ///
    /// # Panics
    /// Panics if the track has no such segment.
    pub fn get(&self, segment: usize) -> SegmentLabel<'_> {
        let rule = self.rules[segment];
        let compared = rule.compares();
        let flip = self.flips.binary_search_by_key(&segment, |(at, _)| *at as usize);
        SegmentLabel {
            label: self.labels[segment],
            rule,
            score: compared.then_some(self.scores[segment]),
            threshold: self.threshold.filter(|_| compared),
            why: flip.ok().map(|at| &self.flips[at].1),
        }
    }

    /// The labels of all segments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SegmentLabel<'_>> + Clone {
        (0..self.segments()).map(|segment| self.get(segment))
    }

    /// Number of labels that PLD set, and number of labels that PLD unset.
    pub fn flipped(&self) -> [u64; 2] {
        let mut flipped = [0, 0];
        for (label, rule) in self.labels.iter().zip(&self.rules) {
            if *rule == LabelRule::Pld {
                flipped[usize::from(!label)] += 1;
            }
        }
        flipped
    }
}

/// Why denoising flipped a label: the struct column `why` of `labels` and `label_changes`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipReason {
    /// Epoch of the predictions that contradicted the label, from 1.
    pub epoch: u64,
    /// Forward loss of the label; `None` in `label_changes` of a program that did not store it.
    pub loss: Option<f64>,
    /// What the loss was compared with; `None` in tables of a program that did not store it.
    pub limit: Option<FlipLimit>,
}

/// What PLD compared a forward loss with: the loss of a flipped label is above `alpha` times `base`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlipLimit {
    /// Mean of the K smallest losses of the track.
    pub base: f64,
    /// Factor on the base.
    pub alpha: f64,
    /// K, from 1.
    pub k: u32,
}
