//! Bit tracks to one record per video and modality, and the meet of the two.
//!
//! ```text
//! tracks ── by video ─┬─ audio, visual ─▶ labels
//!                     └─ audio ∧ visual ─▶ audio_visual
//! ```

use std::sync::Arc;

use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::progress::Timestamp;
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Bits, LabelRecord, VideoId};

/// What [`labels`] gives.
pub struct Labelled<'scope, T: Timestamp + Lattice> {
    /// One record per video and modality.
    pub labels: VecCollection<'scope, T, ((VideoId, Modality), Arc<LabelRecord>)>,
    /// One record per video with labels of both: an audio-visual event is one that is in both (grade C).
    pub audio_visual: VecCollection<'scope, T, (VideoId, Arc<LabelRecord>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Channel {
    Of(Modality),
    Both,
}

/// Gathers the tracks of each video.
///
/// `tracks` holds one record per video, modality and class. After a change, work is proportional to the videos with
/// a track that changed.
pub fn labels<'scope, T: Timestamp + Lattice>(
    tracks: VecCollection<'scope, T, (VideoId, (Modality, ClassId, Bits))>,
) -> Labelled<'scope, T> {
    let scope = tracks.scope();
    scope.region_named("Labels", |inner| {
        let gathered = tracks
            .enter_region(inner)
            .reduce_named("Gather", |_video, tracks, out| {
                let record_of = |wanted| {
                    let own = tracks.iter().filter(|((modality, ..), _)| *modality == wanted);
                    // Values come in order, so the classes ascend.
                    let tracks: Vec<_> = own.map(|((_, class, bits), _)| (*class, bits.clone())).collect();
                    (!tracks.is_empty()).then_some(LabelRecord { tracks })
                };
                let (audio, visual) = (record_of(Modality::Audio), record_of(Modality::Visual));
                if let (Some(audio), Some(visual)) = (&audio, &visual) {
                    out.push(((Channel::Both, Arc::new(audio.meet(visual))), 1));
                }
                for (modality, record) in [(Modality::Audio, audio), (Modality::Visual, visual)] {
                    out.extend(record.map(|record| ((Channel::Of(modality), Arc::new(record)), 1)));
                }
            });
        let labels = gathered
            .clone()
            .flat_map(|(video, (channel, record))| match channel {
                Channel::Of(modality) => Some(((video, modality), record)),
                Channel::Both => None,
            });
        let audio_visual = gathered.flat_map(|(video, (channel, record))| match channel {
            Channel::Of(_) => None,
            Channel::Both => Some((video, record)),
        });
        Labelled {
            labels: labels.leave_region(scope),
            audio_visual: audio_visual.leave_region(scope),
        }
    })
}
