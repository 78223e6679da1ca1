//! Labels that a person set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::bits::Bits;
use crate::records::{Denoised, Score, Track};
use crate::rejection::{Rejection, UserLabelRejection};

/// The user labels of one video and modality. A user label outranks PLG and PLD until the person withdraws it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserLabelRecord {
    /// One track per class, classes strictly ascending.
    pub classes: Vec<UserLabelTrack>,
}

/// The user labels of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserLabelTrack {
    /// Class of the user labels.
    pub class: ClassId,
    /// Segments that have a user label, whether the label is 0 or 1.
    pub known: Bits,
    /// The label of each segment. A bit has no meaning if the segment is not in `known`.
    pub label: Bits,
}

impl UserLabelTrack {
    /// Replaces the labels of a track by the user labels, and removes the flips of the replaced labels.
    ///
    /// Returns a rejection that names the first user label beyond the last segment of the track, if there is one. The
    /// user labels within the track count all the same.
    pub(crate) fn apply(&self, modality: Modality, track: &mut Track) -> Option<Rejection> {
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
        Some(Rejection::UserLabel {
            modality,
            why: UserLabelRejection::Segment {
                class: self.class,
                segment,
                segments: segments as u32,
            },
        })
    }

    /// Returns whether at least one segment has a user label.
    pub(crate) fn says_something(&self) -> bool {
        self.known.ones() > 0
    }
}

/// Removes the flips of some segments from a track. The tables would otherwise report flips that a user label replaced.
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
