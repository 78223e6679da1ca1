//! The inputs through which rows enter the graph.

use std::sync::Arc;

use differential_dataflow::input::{Input, InputSession};
use timely::dataflow::Scope;
use vaplan_schemas::{ClassId, Modality};

use crate::candidates::CandidateRule;
use crate::denoising::DenoisingRule;
use crate::graph::Inputs;
use crate::placement::{Placement, everywhere};
use crate::prediction::Prediction;
use crate::records::{Candidate, LabelRecord, Score, VideoId};
use crate::user_labels::UserLabelRecord;

/// One input of the graph. Rows enter the graph at the current version.
pub type InputOf<D> = InputSession<u64, D, isize>;

/// All [`Inputs`] of one worker. When the feed is dropped, the inputs end.
pub struct Feed {
    /// Feeds [`Inputs::weak`].
    pub weak: InputOf<(VideoId, Arc<[ClassId]>)>,
    /// Feeds [`Inputs::guessed`].
    pub guessed: InputOf<(VideoId, CandidateRule)>,
    /// Feeds [`Inputs::scored`].
    pub scored: InputOf<(VideoId, Candidate)>,
    /// Feeds [`Inputs::thresholds`].
    pub thresholds: InputOf<((Modality, ClassId), Score)>,
    /// Feeds [`Inputs::user_labels`].
    pub user_labels: InputOf<(VideoId, (Modality, Arc<UserLabelRecord>))>,
    /// Feeds [`Inputs::predictions`].
    pub predictions: InputOf<(VideoId, (Modality, Arc<Prediction>))>,
    /// Feeds [`Inputs::denoising`].
    pub denoising: InputOf<(Modality, DenoisingRule)>,
    /// Feeds [`Inputs::previous`].
    pub previous: InputOf<((VideoId, Modality), Arc<LabelRecord>)>,
}

impl Feed {
    /// Makes the inputs of a graph, and the feed that fills them.
    ///
    /// A worker can feed records of any video: they move to the worker that `placement` gives. Each threshold and denoising
    /// rule must be fed on one worker, and is copied to all workers.
    pub fn new<'scope>(scope: Scope<'scope, u64>, placement: Placement) -> (Feed, Inputs<'scope, u64>) {
        let (weak_in, weak) = scope.new_collection();
        let (guessed_in, guessed) = scope.new_collection();
        let (scored_in, scored) = scope.new_collection();
        let (thresholds_in, thresholds) = scope.new_collection();
        let (user_labels_in, user_labels) = scope.new_collection();
        let (predictions_in, predictions) = scope.new_collection();
        let (denoising_in, denoising) = scope.new_collection();
        let (previous_in, previous) = scope.new_collection();
        let feed = Feed {
            weak: weak_in,
            guessed: guessed_in,
            scored: scored_in,
            thresholds: thresholds_in,
            user_labels: user_labels_in,
            predictions: predictions_in,
            denoising: denoising_in,
            previous: previous_in,
        };
        let inputs = Inputs {
            weak: placement.place(weak, |(video, _)| *video),
            guessed: placement.place(guessed, |(video, _)| *video),
            scored: placement.place(scored, |(video, _)| *video),
            thresholds: everywhere(thresholds),
            user_labels: placement.place(user_labels, |(video, _)| *video),
            predictions: placement.place(predictions, |(video, _)| *video),
            denoising: everywhere(denoising),
            previous: placement.place(previous, |((video, _), _)| *video),
        };
        (feed, inputs)
    }

    /// Ends the current version. Rows that are fed from now on belong to version `to`.
    pub fn advance(&mut self, to: u64) {
        macro_rules! advance {
            ($($input:ident)*) => { $(
                self.$input.advance_to(to);
                self.$input.flush();
            )* };
        }
        advance!(weak guessed scored thresholds user_labels predictions denoising previous);
    }
}
