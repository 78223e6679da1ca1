//! The decision of a denoising rule for one track.

use crate::bits::Bits;

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
