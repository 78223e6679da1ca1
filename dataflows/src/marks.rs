//! What a person set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::bits::Bits;
use crate::fault::{Fault, MarkFault};
use crate::records::{Denoised, Score, Track};

/// What a person set in one video and modality; it outranks PLG and PLD until it is withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Marks {
    /// Per class, strictly ascending.
    pub classes: Vec<Mark>,
}

/// What a person set of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Which class.
    pub class: ClassId,
    /// Segments that were set, to either label.
    pub known: Bits,
    /// To which; where `known` is unset it means nothing.
    pub label: Bits,
}

impl Mark {
    /// Puts the marks on a track: labels, who set them, and no flips below them. A fault where the first mark beyond
    /// the end is; those before it count.
    pub(crate) fn apply(&self, modality: Modality, track: &mut Track) -> Option<Fault> {
        let segments = track.label.len();
        let marked = |segment: usize| self.known.get(segment);
        if (0..segments).any(marked) {
            let label = |segment| match marked(segment) {
                true => self.label.get(segment),
                false => track.label.get(segment),
            };
            track.label = (0..segments).map(label).collect();
            track.user = (0..segments).map(marked).collect();
            unflip(track, marked);
        }
        let segment = (segments..self.known.len()).find(|&segment| marked(segment))? as u32;
        Some(Fault::Mark {
            modality,
            why: MarkFault::Segment {
                class: self.class,
                segment,
                segments: segments as u32,
            },
        })
    }

    /// Some segment is set.
    pub(crate) fn says_something(&self) -> bool {
        self.known.ones() > 0
    }
}

/// Takes the flips of some segments out of a track: no one is told of a flip that does not count.
fn unflip(track: &mut Track, of: impl Fn(usize) -> bool) {
    let Some(denoised) = track.denoised.take() else {
        return;
    };
    let flipped = (0..track.pld.len()).filter(|&segment| track.pld.get(segment));
    let kept: Vec<Score> = flipped
        .zip(&denoised.losses)
        .filter_map(|(segment, loss)| (!of(segment)).then_some(*loss))
        .collect();
    if kept.is_empty() {
        track.pld = Bits::default();
        return;
    }
    let bits = track.pld.iter().enumerate();
    track.pld = bits.map(|(segment, bit)| bit && !of(segment)).collect();
    track.denoised = Some(Arc::new(Denoised {
        losses: kept,
        ..(*denoised).clone()
    }));
}
