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
use crate::placement::arrange_here;
use crate::prediction::Prediction;
use crate::records::VideoId;
use crate::workers::panic_point;

/// Pairs the predictions of each video and modality with the denoising rule of the modality.
///
/// `denoising` holds at most one record per modality, and these records are on every worker. Predictions of a modality without a denoising rule are ignored.
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
            .map(|(video, (modality, prediction))| (modality, (video, prediction)));
        let predictions = arrange_here(predictions, "Arrange: Predictions by modality");
        let denoising = arrange_here(denoising.enter_region(inner), "Arrange: Denoising");
        predictions
            .join_core(denoising, |&modality, (video, prediction), &rule| {
                panic_point("denoise");
                let prediction = prediction.clone();
                Some((*video, (modality, Denoising { prediction, rule })))
            })
            .leave_region(scope)
    })
}
