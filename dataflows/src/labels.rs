//! Operator: PLG labels, predictions and user labels to one label record per video and modality.
//!
//! The operator gathers the rows of each video and calls [`decide`](mod@crate::decide), which defines a label.
//!
//! ```text
//! tracks, margins ──┐                         ┌─▶ labels
//! predictions ──────┼─ by video ═ decide ═────┤
//! user labels ──────┘                         └─▶ rejections
//! ```

use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::core::OkErr;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::assert_there;
use crate::decide::{Denoising, ModalityLabels, PlgTrack, decide_modality};
use crate::placement::reduce_here;
use crate::records::{Bits, LabelRecord, Score, VideoId};
use crate::rejection::Rejection;
use crate::threshold::Thresholded;
use crate::user_labels::UserLabelRecord;
use crate::workers::panic_point;

/// Outputs of [`labels`].
pub struct Labelled<'scope, T: Timestamp + Lattice> {
    /// Label records: one per video and modality.
    pub labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    /// User labels and predictions that have no effect, and why.
    pub rejections: VecCollection<'scope, T, (VideoId, Rejection)>,
}

/// One input row of a video. The derived order matters: it sorts tracks and margins by modality and class, and
/// predictions by modality and epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact {
    Track(Modality, ClassId, Bits),
    Margins(Modality, ClassId, Arc<[Score]>),
    Predicted(Modality, Denoising),
    UserLabels(Modality, Arc<UserLabelRecord>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum VideoDecision {
    Of(Modality, Arc<LabelRecord>),
    // The rejection is boxed to keep the enum small, because there are many label records and few rejections.
    Rejection(Box<Rejection>),
}

/// Gathers the tracks, predictions and user labels of each video, and decides its labels.
///
/// `thresholded` has one record per video, modality and class. `user_labels` holds at most one record per video and
/// modality. If `predictions` has several records of a video and modality, the record of the latest epoch counts.
/// Predictions for a modality without labels are ignored without a rejection.
///
/// All records of a video must be on one worker (see [`placement`](crate::placement)).
///
/// After a change, work is proportional to the videos with a track, prediction or user label that changed.
pub fn labels<'scope, T: Timestamp + Lattice>(
    thresholded: Thresholded<'scope, T>,
    predictions: VecCollection<'scope, T, (VideoId, (Modality, Denoising))>,
    user_labels: VecCollection<'scope, T, (VideoId, (Modality, Arc<UserLabelRecord>))>,
) -> Labelled<'scope, T> {
    let scope = thresholded.tracks.scope();
    scope.region_named("Labels", |inner| {
        let tracks = thresholded
            .tracks
            .enter_region(inner)
            .map(|(video, (modality, class, bits))| (video, Fact::Track(modality, class, bits)));
        let margins = thresholded
            .margins
            .enter_region(inner)
            .map(|(video, (modality, class, margins))| (video, Fact::Margins(modality, class, margins)));
        let predictions = predictions
            .enter_region(inner)
            .map(|(video, (modality, own))| (video, Fact::Predicted(modality, own)));
        let user_labels = user_labels
            .enter_region(inner)
            .map(|(video, (modality, user_labels))| (video, Fact::UserLabels(modality, user_labels)));
        let facts = tracks.concatenate([margins, predictions, user_labels]);
        let gathered = reduce_here(facts, "Gather", |video, facts, out| {
            assert_there(*video, facts);
            let facts: Vec<&Fact> = facts.iter().map(|(fact, _)| *fact).collect();
            out.extend(outcomes(&facts).into_iter().map(|outcome| (outcome, 1)));
        });
        // Split the stream instead of filtering two clones: a first run has many records, and clones would copy all of
        // them.
        let (labels, rejections) = gathered.inner.ok_err::<Vec<_>, _, Vec<_>, _, _>(
            |((video, outcome), time, diff)| match outcome {
                VideoDecision::Of(modality, record) => Ok((((video, modality), record), time, diff)),
                VideoDecision::Rejection(rejection) => Err(((video, *rejection), time, diff)),
            },
        );
        Labelled {
            labels: labels.as_collection().leave_region(scope),
            rejections: rejections.as_collection().leave_region(scope),
        }
    })
}

/// Decides the labels of one video from its distinct facts, which are in order.
fn outcomes(facts: &[&Fact]) -> Vec<VideoDecision> {
    panic_point("decide");
    let [audio, visual] = Modality::ALL.map(|modality| of_modality(modality, facts));
    let rejections = audio.rejections.into_iter().chain(visual.rejections);
    let mut outcomes: Vec<VideoDecision> = rejections.map(Box::new).map(VideoDecision::Rejection).collect();
    for (modality, record) in Modality::ALL.into_iter().zip([audio.labels, visual.labels]) {
        outcomes.extend(record.map(|record| VideoDecision::Of(modality, Arc::new(record))));
    }
    outcomes
}

/// Decides the labels of one modality from the facts of the video.
fn of_modality(modality: Modality, facts: &[&Fact]) -> ModalityLabels {
    let of_track = |fact: &&&Fact| matches!(fact, Fact::Track(of, ..) if *of == modality);
    // The exact capacity saves memory: a vector that grows by itself allocates room for at least four tracks.
    let mut tracks = Vec::with_capacity(facts.iter().filter(of_track).count());
    let (mut denoising, mut user_labels) = (None, None);
    for fact in facts {
        match fact {
            // The facts are in order, so the classes ascend, and the last prediction is of the latest epoch.
            Fact::Track(of, class, label) if *of == modality => tracks.push(PlgTrack {
                class: *class,
                label: label.clone(),
                margins: None,
            }),
            // All tracks come before all margins, and each margin has its track.
            Fact::Margins(of, class, margins) if *of == modality => {
                let at = tracks.binary_search_by_key(class, |track| track.class);
                tracks[at.expect("margins have a track")].margins = Some(margins.clone());
            }
            Fact::Predicted(of, own) if *of == modality => denoising = Some(own),
            Fact::UserLabels(of, own) if *of == modality => user_labels = Some(&**own),
            _ => {}
        }
    }
    decide_modality(modality, tracks, denoising, user_labels)
}
