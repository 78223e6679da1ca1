//! The loss of a batch: HAN's basic loss, and the richness of pseudo labels.
//!
//! METHOD.md, "PLE". The basic loss is HAN's, `main_avvp.py` (grade C), with LEAP's targets. The richness terms are those of
//! VAPLAN (arXiv 2406.00919), which describes them in words; the formula is ours (grade D).

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::network::Outputs;

/// Smallest distance of a probability from 0 and 1 in a loss, so that its logarithm is finite.
const CLAMP: f64 = 1e-7;

/// Targets of the probabilities of each modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetName {
    /// Any pseudo label of the modality in the video (grade C, LEAP).
    Pseudo,
    /// The weak label; visual 0.9 y + 0.05 (grade C, HAN).
    Smoothed,
    /// The weak label, for both.
    Weak,
}

/// The terms of the loss, and their weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossConfig {
    /// Targets of the basic loss.
    pub targets: TargetName,
    /// λ, weight of the richness terms (grade D: 0.5).
    pub richness: f64,
    /// μ, weight of the segment term (grade C, LEAP; 0: off).
    pub segment: f64,
}

impl Default for LossConfig {
    fn default() -> LossConfig {
        LossConfig {
            targets: TargetName::Pseudo,
            richness: 0.5,
            segment: 0.0,
        }
    }
}

/// Labels of a batch of B videos of at most T segments.
#[derive(Debug)]
pub struct Targets {
    /// Ŷ^a, `[B, T, C]`, 0 or 1; 0 past the end of a video.
    pub audio: Tensor,
    /// Ŷ^v, as `audio`.
    pub visual: Tensor,
    /// y, `[B, C]`.
    pub weak: Tensor,
    /// `[B, T]`, 1 within a video and 0 past its end; `None`: every video has T segments.
    pub within: Option<Tensor>,
}

impl Targets {
    /// Replaces the labels of each modality by the labels that both modalities have.
    ///
    /// METHOD.md, "AVE task": PL-AV = PL-A and PL-V; a segment without such a label is background.
    pub fn audio_visual(self) -> Targets {
        let both = &self.audio * &self.visual; // [B, T, C]
        Targets {
            audio: both.shallow_clone(),
            visual: both,
            ..self
        }
    }
}

/// Names of the terms, in the order of [`Loss::terms`].
pub const TERMS: [&str; 9] = [
    "video",
    "audio",
    "visual",
    "category_richness_audio",
    "segment_richness_audio",
    "category_richness_visual",
    "segment_richness_visual",
    "segment_audio",
    "segment_visual",
];

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// Weighted sum of the terms.
    pub total: Tensor,
    /// Each term without its weight, in the order of [`TERMS`]. A term of weight 0 is not computed and is 0.
    pub terms: Vec<Tensor>,
}

impl LossConfig {
    /// The loss of a batch.
    pub fn loss(&self, outputs: &Outputs, targets: &Targets) -> Loss {
        let (audio, visual) = self.modality_targets(targets);
        let mut terms = vec![
            mean_bce(&outputs.video, &targets.weak),
            mean_bce(&outputs.audio, &audio),
            mean_bce(&outputs.visual, &visual),
        ];
        let modalities = [
            (&outputs.segment_audio, &targets.audio),
            (&outputs.segment_visual, &targets.visual),
        ];
        let nothing = || Tensor::from(0f32).to_device(outputs.video.device());
        for (probability, labels) in modalities {
            if self.richness == 0.0 {
                terms.extend([nothing(), nothing()]);
            } else {
                terms.push(category_richness(probability, labels, targets));
                terms.push(segment_richness(probability, labels, targets));
            }
        }
        for (probability, labels) in modalities {
            if self.segment == 0.0 {
                terms.push(nothing());
            } else {
                let within = targets.within.as_ref().map(|within| within.unsqueeze(-1));
                terms.push(masked_bce(probability, labels, within.as_ref()));
            }
        }
        let sum = |terms: &[Tensor]| Tensor::stack(terms, 0).sum(Kind::Float);
        let total = sum(&terms[..3]) + sum(&terms[3..7]) * self.richness + sum(&terms[7..]) * self.segment;
        Loss { total, terms }
    }

    /// y^a and y^v, `[B, C]`.
    fn modality_targets(&self, targets: &Targets) -> (Tensor, Tensor) {
        let weak = &targets.weak;
        match self.targets {
            TargetName::Pseudo => (targets.audio.amax(1, false), targets.visual.amax(1, false)),
            TargetName::Smoothed => (weak.shallow_clone(), weak * 0.9 + 0.05),
            TargetName::Weak => (weak.shallow_clone(), weak.shallow_clone()),
        }
    }
}

/// BCE of Σ_c y·P / n and Σ_c Ŷ / n, per segment; n = Σ_c y, at least 1.
fn category_richness(probability: &Tensor, labels: &Tensor, targets: &Targets) -> Tensor {
    let weak = targets.weak.unsqueeze(1); // [B, 1, C]
    let count = weak.sum_dim_intlist(-1, false, None::<Kind>).clamp_min(1.0); // [B, 1]
    let label = labels.sum_dim_intlist(-1, false, None::<Kind>) / &count; // [B, T]
    let predicted = (probability * weak).sum_dim_intlist(-1, false, None::<Kind>) / &count; // [B, T]
    masked_bce(&predicted, &label, targets.within.as_ref())
}

/// BCE of Σ_t P / T and Σ_t Ŷ / T, per class.
fn segment_richness(probability: &Tensor, labels: &Tensor, targets: &Targets) -> Tensor {
    match &targets.within {
        None => {
            let mean = |x: &Tensor| x.mean_dim(1, false, None::<Kind>); // [B, C]
            mean_bce(&mean(probability), &mean(labels))
        }
        Some(within) => {
            let within = within.unsqueeze(-1); // [B, T, 1]
            let length = within.sum_dim_intlist(1, false, None::<Kind>); // [B, 1]
            let mean = |x: &Tensor| (x * &within).sum_dim_intlist(1, false, None::<Kind>) / &length;
            mean_bce(&mean(probability), &mean(labels))
        }
    }
}

fn mean_bce(probability: &Tensor, target: &Tensor) -> Tensor {
    let clamped = probability.clamp(CLAMP, 1.0 - CLAMP);
    clamped.binary_cross_entropy(target, None::<Tensor>, Reduction::Mean)
}

/// Mean over the elements within the videos.
fn masked_bce(probability: &Tensor, target: &Tensor, within: Option<&Tensor>) -> Tensor {
    let Some(within) = within else {
        return mean_bce(probability, target);
    };
    let clamped = probability.clamp(CLAMP, 1.0 - CLAMP);
    let each = clamped.binary_cross_entropy(target, None::<Tensor>, Reduction::None);
    let within = within.expand_as(&each);
    (each * &within).sum(Kind::Float) / within.sum(Kind::Float)
}
