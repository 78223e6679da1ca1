//! Score tracks to bit tracks.
//!
//! ```text
//! admitted ─ by class ─┐
//!                      ├─ score > cutoff ─▶ tracks
//! cutoffs ─ by class ──┘
//! ```

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::admit::Admitted;
use crate::decide::plg;
use crate::records::{Bits, Score, VideoId};

/// A class has few keys and very many videos: each is cut into this many slots, so that every worker gets its share.
pub(crate) const SLOTS: u8 = 64;

pub(crate) fn slot(video: VideoId) -> u8 {
    (video.0 % u64::from(SLOTS)) as u8
}

/// Labels every segment whose score is above the cutoff of its class and modality, strict.
///
/// `cutoffs` holds one record per modality and class; a class without one gets no track. The record that is joined
/// is a video, modality and class, never a segment: a changed cutoff of one class touches the videos tagged with it
/// and no others, a changed video touches itself.
///
/// Source: METHOD.md, PLG 3: `softmax` (grade D), `logit` (grade C: VALOR, `get_segment_pseudo_labels` in
/// `utils/clip_preprocess.py`; like there, a score equal to the cutoff is no label).
pub fn threshold<'scope, T: Timestamp + Lattice>(
    admitted: VecCollection<'scope, T, (VideoId, (Modality, Admitted))>,
    cutoffs: VecCollection<'scope, T, ((Modality, ClassId), Score)>,
) -> VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))> {
    let scope = admitted.scope();
    scope.region_named("Threshold", |inner| {
        let by_class = admitted
            .enter_region(inner)
            .flat_map(|(video, (modality, admitted))| {
                let record = admitted.record;
                (0..record.classes().len() as u32).map(move |at| {
                    let class = record.classes()[at as usize];
                    ((slot(video), modality, class), (video, at, record.clone()))
                })
            });
        let cutoffs = cutoffs
            .enter_region(inner)
            .flat_map(|((modality, class), cutoff)| {
                (0..SLOTS).map(move |slot| ((slot, modality, class), cutoff))
            });
        let by_class = by_class.arrange_by_key_named("Arrange: Scores by class");
        let cutoffs = cutoffs.arrange_by_key_named("Arrange: Cutoffs");
        by_class
            .join_core(
                cutoffs,
                |&(_slot, modality, class), (video, at, record), &cutoff| {
                    Some((
                        *video,
                        (modality, class, plg(record.score_of(*at as usize), cutoff)),
                    ))
                },
            )
            .leave_region(scope)
    })
}
