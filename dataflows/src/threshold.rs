//! Operator: scores and thresholds to PLG labels, and to margins for the denoising rules that read them.
//!
//! ```text
//! admitted ─── by class ─┬─ score > threshold ─▶ tracks
//! thresholds ─ by class ─┤
//! rules that read margins┴─ score − threshold ─▶ margins
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::Admitted;
use crate::decide::{margins, plg};
use crate::denoising::DenoisingRule;
use crate::placement::arrange_here;
use crate::records::{Bits, Score, VideoId};
use crate::workers::panic_point;

/// Score minus threshold of each segment of one track.
pub type TrackMargins = (Modality, ClassId, Arc<[Score]>);

/// Outputs of [`threshold`].
pub struct Thresholded<'scope, T: Timestamp + Lattice> {
    /// PLG labels: one record per video, modality and class.
    pub tracks: VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))>,
    /// Margins: one record per track of a modality whose denoising rule reads them.
    pub margins: VecCollection<'scope, T, (VideoId, TrackMargins)>,
}

/// Computes the PLG labels of each video, modality and class with [`plg`], and the [`margins`] where a denoising rule reads them.
///
/// `thresholds` holds one record per modality and class, and `denoising` at most one per modality. All of these records are on every
/// worker. A class without a threshold gets no track.
///
/// The joins work on records of one video, modality and class, never of one segment. A changed threshold of a class
/// recomputes only the videos that have the class in their weak label. A changed video recomputes only that video. If no rule
/// reads margins, their join holds no record and costs nothing.
///
/// Source: docs/method.md, PLG 3 (see [`plg`]).
pub fn threshold<'scope, T: Timestamp + Lattice>(
    admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    thresholds: VecCollection<'scope, T, ((Modality, ClassId), Score)>,
    denoising: VecCollection<'scope, T, (Modality, DenoisingRule)>,
) -> Thresholded<'scope, T> {
    let scope = admitted.scope();
    scope.region_named("Threshold", |inner| {
        let by_class = admitted
            .enter_region(inner)
            .flat_map(|(video, (modality, admitted))| {
                let record = admitted.record;
                (0..record.classes().len() as u32).map(move |at| {
                    let class = record.classes()[at as usize];
                    ((modality, class), (video, at, record.clone()))
                })
            });
        let by_class = arrange_here(by_class, "Arrange: Scores by class");
        let thresholds = thresholds.enter_region(inner);
        // One record of each modality whose rule reads margins, whatever the parameters of the rule are: another scale then
        // recomputes no margin.
        let reading = denoising
            .enter_region(inner)
            .filter(|(_, rule)| rule.reads_margins())
            .map(|(modality, _)| (modality, ()));
        let by_modality = thresholds
            .clone()
            .map(|((modality, class), threshold)| (modality, (class, threshold)));
        let with_margins = arrange_here(by_modality, "Arrange: Thresholds by modality").join_core(
            arrange_here(reading, "Arrange: Rules that read margins"),
            |&modality, &(class, threshold), ()| Some(((modality, class), threshold)),
        );
        let with_margins = arrange_here(with_margins, "Arrange: Thresholds of margins");
        let margins = by_class.clone().join_core(
            with_margins,
            |&(modality, class), (video, at, record), &score_threshold| {
                let own = margins(record.score_of(*at as usize), score_threshold);
                Some((*video, (modality, class, own)))
            },
        );
        let thresholds = arrange_here(thresholds, "Arrange: Thresholds");
        let tracks = by_class.join_core(
            thresholds,
            |&(modality, class), (video, at, record), &score_threshold| {
                panic_point("threshold");
                let label = plg(record.score_of(*at as usize), score_threshold);
                Some((*video, (modality, class, label)))
            },
        );
        Thresholded {
            tracks: tracks.leave_region(scope),
            margins: margins.leave_region(scope),
        }
    })
}
