//! What a denoising rule reads of one track, and its decision.

use crate::bits::Bits;
use crate::prediction::Probability;
use crate::score::Score;

/// The labels of one track, and the predictions that may flip them.
///
/// # Shapes
/// All fields: `[T]`, one class.
#[derive(Clone, Copy, Debug)]
pub struct PredictedTrack<'a> {
    /// Labels of PLG.
    pub labels: &'a Bits,
    /// Score minus threshold of each segment. Only a rule that
    /// [reads margins](crate::denoising::DenoisingRule::reads_margins) needs them.
    pub margins: Option<&'a [Score]>,
    /// Probabilities of the parser.
    pub probabilities: &'a [Probability],
}

/// The decision of a rule for one track.
#[derive(Clone, Debug, PartialEq)]
pub struct Flips {
    /// A bit for each segment whose label is to be flipped. The length is that of the labels.
    pub flipped: Bits,
    /// Loss of each segment; `None` if the prediction of the segment is not a probability. Empty if the rule flips no label
    /// whatever the losses are.
    pub losses: Vec<Option<f64>>,
    /// The base of the track, which rule `pld` compared the losses with; `None` if the track has no loss, if `losses` is empty,
    /// or by a rule without a base.
    pub base: Option<f64>,
    /// The first segment whose prediction is not a probability.
    pub invalid: Option<usize>,
}
