//! Which predictions PLD goes by.
//!
//! ```text
//! predictions ─ by modality ─┐
//!                            ├─▶ predictions with K, α and guard
//! denoising ─ by modality ───┘
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::fault::Fault;
use crate::pld::{Pld, flips};
use crate::prediction::Prediction;
use crate::records::{Denoised, Score, Track, VideoId};
use crate::threshold::{SLOTS, slot};

/// What PLD goes by in one modality of a video.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Predicted {
    /// Which of the two.
    pub modality: Modality,
    /// What the model says.
    pub prediction: Arc<Prediction>,
    /// K, α and guard.
    pub settings: Pld,
}

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
) -> VecCollection<'scope, T, (VideoId, Predicted)> {
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
                let predicted = Predicted {
                    modality,
                    prediction: prediction.clone(),
                    settings,
                };
                Some((*video, predicted))
            })
            .leave_region(scope)
    })
}

/// Flips the labels of a track. A fault where the first prediction is that is no probability; a class that was not
/// predicted is left as it is.
///
/// # Panics
/// Where the prediction is of another number of segments.
pub fn denoise_track(predicted: &Predicted, track: &mut Track) -> Option<Fault> {
    let Predicted {
        modality,
        ref prediction,
        settings,
    } = *predicted;
    let class: ClassId = track.class;
    let probabilities = prediction.of(class)?;
    assert_eq!(probabilities.len(), track.label.len(), "segments");
    let found = flips(&track.label, probabilities, settings);
    if found.flipped.ones() > 0 {
        let score = |value: f64| Score::new(value).expect("losses of probabilities are numbers");
        track.denoised = Some(Arc::new(Denoised {
            epoch: prediction.epoch(),
            settings,
            base: score(found.base.expect("what flips has a loss")),
            losses: (found.losses.iter().zip(found.flipped.iter()))
                .filter(|(_, flipped)| *flipped)
                .map(|(loss, _)| score(loss.expect("what flips has a loss")))
                .collect(),
        }));
        let cells = track.label.iter().zip(found.flipped.iter());
        track.label = cells.map(|(label, flipped)| label != flipped).collect();
        track.pld = found.flipped;
    }
    let segment = found.losses.iter().position(Option::is_none)?;
    Some(Fault::Probability {
        modality,
        epoch: prediction.epoch(),
        class,
        segment: segment as u32,
        value: probabilities[segment],
    })
}
