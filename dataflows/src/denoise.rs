//! Operator: each prediction, paired with the denoising settings of its modality.
//!
//! ```text
//! predictions ─ by modality ─┐
//!                            ├─▶ predictions with their denoising rule
//! denoising ─ by modality ───┘
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;
use vaplan_schemas::Modality;

use crate::decide::Denoising;
use crate::denoising::DenoisingRule;
use crate::prediction::Prediction;
use crate::records::VideoId;
use crate::threshold::{SLOTS, slot};
use crate::workers::panic_point;

/// Pairs the predictions of each video and modality with the denoising rule of the modality.
///
/// `denoising` holds at most one record per modality. Predictions of a modality without a denoising rule are ignored.
///
/// A changed prediction recomputes its video only. A changed rule recomputes the videos that have predictions of its
/// modality. Operator [`labels`](mod@crate::labels) then decides the flips, because only that operator has all tracks
/// of a video together.
///
/// Source: docs/method.md, "PLD".
pub fn denoise<'scope, T: Timestamp + Lattice>(
    predictions: VecCollection<'scope, T, (VideoId, (Modality, Arc<Prediction>))>,
    denoising: VecCollection<'scope, T, (Modality, DenoisingRule)>,
) -> VecCollection<'scope, T, (VideoId, (Modality, Denoising))> {
    let scope = predictions.scope();
    scope.region_named("Denoise", |inner| {
        let predictions = predictions
            .enter_region(inner)
            .map(|(video, (modality, prediction))| ((slot(video), modality), (video, prediction)))
            .arrange_by_key_named("Arrange: Predictions by modality");
        let denoising = denoising
            .enter_region(inner)
            .flat_map(|(modality, rule)| (0..SLOTS).map(move |slot| ((slot, modality), rule)))
            .arrange_by_key_named("Arrange: Denoising");
        predictions
            .join_core(denoising, |&(_slot, modality), (video, prediction), &rule| {
                panic_point("denoise");
                let prediction = prediction.clone();
                Some((*video, (modality, Denoising { prediction, rule })))
            })
            .leave_region(scope)
    })
}
