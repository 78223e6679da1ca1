//! Where rows are handed to the graph.

use std::sync::Arc;

use differential_dataflow::input::{Input, InputSession};
use timely::dataflow::Scope;
use vaplan_schemas::{ClassId, Modality};

use crate::graph::Inputs;
use crate::marks::Marks;
use crate::pld::Pld;
use crate::prediction::Prediction;
use crate::records::{Candidate, LabelRecord, Score, VideoId};

/// One input, at the version of now.
pub type InputOf<D> = InputSession<u64, D, isize>;

/// A worker's ends of all [`Inputs`]; they end where it is dropped.
pub struct Feed {
    /// Of [`Inputs::weak`].
    pub weak: InputOf<(VideoId, Arc<[ClassId]>)>,
    /// Of [`Inputs::scored`].
    pub scored: InputOf<(VideoId, Candidate)>,
    /// Of [`Inputs::cutoffs`].
    pub cutoffs: InputOf<((Modality, ClassId), Score)>,
    /// Of [`Inputs::marks`].
    pub marks: InputOf<(VideoId, (Modality, Arc<Marks>))>,
    /// Of [`Inputs::predictions`].
    pub predictions: InputOf<(VideoId, (Modality, Arc<Prediction>))>,
    /// Of [`Inputs::denoising`].
    pub denoising: InputOf<(Modality, Pld)>,
    /// Of [`Inputs::previous`].
    pub previous: InputOf<((VideoId, Modality), Arc<LabelRecord>)>,
}

impl Feed {
    /// Inputs of a graph, and where they are fed.
    pub fn new<'scope>(scope: Scope<'scope, u64>) -> (Feed, Inputs<'scope, u64>) {
        let (weak_in, weak) = scope.new_collection();
        let (scored_in, scored) = scope.new_collection();
        let (cutoffs_in, cutoffs) = scope.new_collection();
        let (marks_in, marks) = scope.new_collection();
        let (predictions_in, predictions) = scope.new_collection();
        let (denoising_in, denoising) = scope.new_collection();
        let (previous_in, previous) = scope.new_collection();
        let feed = Feed {
            weak: weak_in,
            scored: scored_in,
            cutoffs: cutoffs_in,
            marks: marks_in,
            predictions: predictions_in,
            denoising: denoising_in,
            previous: previous_in,
        };
        let inputs = Inputs {
            weak,
            scored,
            cutoffs,
            marks,
            predictions,
            denoising,
            previous,
        };
        (feed, inputs)
    }

    /// Ends the version of now; the next is `to`.
    pub fn advance(&mut self, to: u64) {
        macro_rules! advance {
            ($($input:ident)*) => { $(
                self.$input.advance_to(to);
                self.$input.flush();
            )* };
        }
        advance!(weak scored cutoffs marks predictions denoising previous);
    }
}
