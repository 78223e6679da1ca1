//! Operator: each prediction, paired with the denoising settings of its modality.
//!
//! ```text
//! predictions ─ by modality ─┐
//!                            ├─▶ predictions with K, α and guard
//! denoising ─ by modality ───┘
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;
use vaplan_schemas::Modality;

use crate::decide::Denoising;
use crate::pld::Pld;
use crate::prediction::Prediction;
use crate::records::VideoId;
use crate::threshold::{SLOTS, slot};

/// Pairs the predictions of each video and modality with the settings of its modality.
///
/// `predictions` holds at most one record per video and modality, `denoising` at most one per modality; predictions of
/// a modality without one are passed over. A changed prediction touches its video, a changed setting the videos with
/// predictions of its modality; a video's flips are then found where its tracks are gathered
/// ([`labels`](mod@crate::labels)).
///
/// Source: METHOD.md, "PLD".
pub fn denoise<'scope, T: Timestamp + Lattice>(
    predictions: VecCollection<'scope, T, (VideoId, (Modality, Arc<Prediction>))>,
    denoising: VecCollection<'scope, T, (Modality, Pld)>,
) -> VecCollection<'scope, T, (VideoId, (Modality, Denoising))> {
    let scope = predictions.scope();
    scope.region_named("Denoise", |inner| {
        let predictions = predictions
            .enter_region(inner)
            .map(|(video, (modality, prediction))| ((slot(video), modality), (video, prediction)))
            .arrange_by_key_named("Arrange: Predictions by modality");
        let denoising = denoising
            .enter_region(inner)
            .flat_map(|(modality, settings)| (0..SLOTS).map(move |slot| ((slot, modality), settings)))
            .arrange_by_key_named("Arrange: Denoising");
        predictions
            .join_core(denoising, |&(_slot, modality), (video, prediction), &settings| {
                let prediction = prediction.clone();
                Some((*video, (modality, Denoising { prediction, settings })))
            })
            .leave_region(scope)
    })
}
