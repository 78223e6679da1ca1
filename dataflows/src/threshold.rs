//! Operator: scores and thresholds to PLG labels.
//!
//! ```text
//! admitted ─── by class ─┐
//!                        ├─ score > threshold ─▶ tracks
//! thresholds ─ by class ─┘
//! ```

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::Admitted;
use crate::decide::plg;
use crate::placement::arrange_here;
use crate::records::{Bits, Score, VideoId};
use crate::workers::panic_point;

/// Computes the PLG labels of each video, modality and class with [`plg`].
///
/// `thresholds` holds one record per modality and class, and all of these records are on every worker. A class without a
/// threshold gets no track.
///
/// The join works on records of one video, modality and class, never of one segment. A changed threshold of a class
/// recomputes only the videos that have the class in their weak label. A changed video recomputes only that video.
///
/// Source: docs/method.md, PLG 3 (see [`plg`]).
pub fn threshold<'scope, T: Timestamp + Lattice>(
    admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    thresholds: VecCollection<'scope, T, ((Modality, ClassId), Score)>,
) -> VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))> {
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
        let thresholds = arrange_here(thresholds.enter_region(inner), "Arrange: Thresholds");
        by_class
            .join_core(
                thresholds,
                |&(modality, class), (video, at, record), &score_threshold| {
                    panic_point("threshold");
                    Some((
                        *video,
                        (
                            modality,
                            class,
                            plg(record.score_of(*at as usize), score_threshold),
                        ),
                    ))
                },
            )
            .leave_region(scope)
    })
}
