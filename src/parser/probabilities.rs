//! The probabilities of videos, and the table rows and label matrices that are made from them.

use std::sync::Arc;

use tch::{Kind, Tensor};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{PredictionTrack, Split, VideoPredictionRow};

use super::data::{Dataset, FeatureTables};
use super::features::FeaturePlace;
use super::settings::Gate;
use super::{Parser, ParserInputs};
use crate::eval::{BitMatrix, PredictedLabels, Protocol};

/// The probabilities of one video.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoProbabilities {
    /// The full name of the video.
    pub video: Arc<str>,
    /// C, the number of classes.
    pub classes: usize,
    /// P^a and P^v, `[T, C]` each: audio and visual, by segment.
    pub segments: [Vec<f32>; 2],
    /// p^a and p^v, `[C]` each: audio and visual, whole video. Empty if the predictions came from outside.
    pub modalities: [Vec<f32>; 2],
    /// p, `[C]`: both modalities, whole video. Empty if the predictions came from outside.
    pub all: Vec<f32>,
}

/// The number of videos per batch of prediction.
pub const BATCH: usize = 64;

/// Predicts these videos, in order, without dropout. After each batch, `on_videos` is called with the number of its
/// videos.
pub fn predict(
    parser: &dyn Parser,
    features: &FeatureTables,
    videos: &[(Arc<str>, [FeaturePlace; 3])],
    mut on_videos: impl FnMut(usize),
) -> Vec<VideoProbabilities> {
    let mut predicted = Vec::with_capacity(videos.len());
    for batch in videos.chunks(BATCH) {
        let places: Vec<[FeaturePlace; 3]> = batch.iter().map(|(_, places)| *places).collect();
        let own = batch
            .iter()
            .map(|(video, places)| (video.clone(), places[0].segments));
        let own: Vec<(Arc<str>, u32)> = own.collect();
        predicted.extend(predict_inputs(
            parser,
            &features.inputs(&places, parser.device()),
            &own,
        ));
        on_videos(batch.len());
    }
    predicted
}

/// Predicts one batch without dropout. `videos` has the name and the number of segments of each video of the batch.
pub fn predict_inputs(
    parser: &dyn Parser,
    inputs: &ParserInputs,
    videos: &[(Arc<str>, u32)],
) -> Vec<VideoProbabilities> {
    let classes = parser.sizes().classes as usize;
    let outputs = tch::no_grad(|| parser.forward(inputs, None));
    let flat = |tensor: &Tensor| -> Vec<f32> {
        let flat = tensor
            .to_device(tch::Device::Cpu)
            .to_kind(Kind::Float)
            .flatten(0, -1);
        Vec::try_from(flat).expect("a flat tensor of floats is a vector")
    };
    let length = outputs.segment_audio.size()[1] as usize * classes;
    let segments = [flat(&outputs.segment_audio), flat(&outputs.segment_visual)];
    let modalities = [flat(&outputs.audio), flat(&outputs.visual)];
    let all = flat(&outputs.video);
    let of = |values: &[f32], at: usize, size: usize, take: usize| values[at * size..][..take].to_vec();
    let one = |(at, (video, own)): (usize, &(Arc<str>, u32))| {
        let own = *own as usize * classes;
        VideoProbabilities {
            video: video.clone(),
            classes,
            segments: [
                of(&segments[0], at, length, own),
                of(&segments[1], at, length, own),
            ],
            modalities: [
                of(&modalities[0], at, classes, classes),
                of(&modalities[1], at, classes, classes),
            ],
            all: of(&all, at, classes, classes),
        }
    };
    videos.iter().enumerate().map(one).collect()
}

/// Predicts the videos of a split that have features.
pub fn predict_split(parser: &dyn Parser, dataset: &Dataset, split: Split) -> Vec<VideoProbabilities> {
    let videos: Vec<_> = dataset
        .of_split(split, false)
        .into_iter()
        .map(|at| &dataset.examples[at])
        .map(|example| (example.name.clone(), example.places))
        .collect();
    predict(parser, &dataset.features, &videos, |_| ())
}

impl VideoProbabilities {
    /// Makes the probabilities of predictions from outside: those of one or both modalities of one video.
    pub fn of_tracks(tracks: &[PredictionTrack]) -> VideoProbabilities {
        let of = |modality: Modality| {
            let own = tracks.iter().find(|track| track.modality == modality);
            own.map_or_else(Vec::new, |track| track.probability.clone())
        };
        VideoProbabilities {
            video: tracks[0].video.clone(),
            classes: tracks[0].classes as usize,
            segments: Modality::ALL.map(of),
            modalities: [Vec::new(), Vec::new()],
            all: Vec::new(),
        }
    }

    /// Makes the probabilities from rows of the tables.
    pub fn of_rows(
        video: &VideoPredictionRow,
        audio: &PredictionTrack,
        visual: &PredictionTrack,
    ) -> VideoProbabilities {
        VideoProbabilities {
            video: video.video.clone(),
            classes: video.probability.len(),
            segments: [audio.probability.clone(), visual.probability.clone()],
            modalities: [video.audio.clone(), video.visual.clone()],
            all: video.probability.clone(),
        }
    }

    /// The label matrices that a protocol makes from the probabilities.
    ///
    /// Source (grade C): `eval` in `main_avvp.py` of YapengTian/AVVP-ECCV20 (`fused`); the function of the same name
    /// of JoMoLD (`own`).
    ///
    /// # Panics
    /// Panics if the protocol needs probabilities of the whole video and there are none.
    pub fn labels(&self, gate: Gate) -> PredictedLabels {
        let [audio, visual] = [0, 1].map(|modality| {
            let over = match gate {
                Gate::Fused => Some(&self.all),
                Gate::Own => Some(&self.modalities[modality]),
                Gate::Segment => None,
            };
            if self.segments[modality].is_empty() {
                return None;
            }
            let over = over.map(Vec::as_slice);
            Some(Protocol::labels(&self.segments[modality], self.classes, over))
        });
        PredictedLabels { audio, visual }
    }

    /// Like [`VideoProbabilities::labels`], but with at most one class per segment, because AVE has one event at a
    /// time. Among the classes that are set in both modalities, the class with the largest minimum over the two
    /// modalities stays (grade D).
    pub fn single(&self, gate: Gate) -> PredictedLabels {
        let labels = self.labels(gate);
        let (Some(audio), Some(visual)) = (&labels.audio, &labels.visual) else {
            return labels;
        };
        let mut bits = BitMatrix::new(self.classes, audio.segments());
        for segment in 0..audio.segments() {
            let both = |class: &usize| audio.get(*class, segment) && visual.get(*class, segment);
            let of = |class: usize| {
                let at = segment * self.classes + class;
                self.segments[0][at].min(self.segments[1][at])
            };
            let best = (0..self.classes)
                .filter(both)
                .max_by(|&a, &b| of(a).total_cmp(&of(b)));
            best.into_iter().for_each(|class| bits.set(class, segment));
        }
        PredictedLabels {
            audio: Some(bits.clone()),
            visual: Some(bits),
        }
    }

    /// Makes the rows of the tables.
    pub fn rows(&self, epoch: u64) -> ([PredictionTrack; 2], VideoPredictionRow) {
        let track = |modality: Modality| PredictionTrack {
            epoch,
            video: self.video.clone(),
            modality,
            classes: self.classes as u32,
            probability: self.segments[usize::from(modality == Modality::Visual)].clone(),
        };
        let [audio, visual] = self.modalities.clone();
        let row = VideoPredictionRow {
            epoch,
            video: self.video.clone(),
            probability: self.all.clone(),
            audio,
            visual,
        };
        (Modality::ALL.map(track), row)
    }
}
