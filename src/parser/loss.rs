//! The loss of a batch: HAN's basic loss, and the richness of pseudo labels.
//!
//! docs/method.md, "PLE". The basic loss is HAN's, `main_avvp.py` (grade C), with LEAP's targets. The richness terms are
//! those of VAPLAN (arXiv 2406.00919). That paper describes them in words; the formula is ours (grade D).

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::network::ParserOutputs;
use super::variants::compare_modalities;

/// The smallest distance of a probability from 0 and 1 in a loss. It keeps the logarithm finite.
const CLAMP: f64 = 1e-7;

/// The targets of the probabilities of each modality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetName {
    /// 1 if any segment of the modality has the pseudo label (grade C, LEAP).
    Pseudo,
    /// The weak label y; for visual 0.9 y + 0.05 (grade C, HAN).
    Smoothed,
    /// The weak label, for both modalities.
    Weak,
}

/// The classes whose probabilities count as the richness of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RichnessClasses {
    /// The n classes of the weak label: cr = Σ_c Ŷ / n and pcr = Σ_c y·P / n (grade D).
    Weak,
    /// All C classes: cr = Σ_c Ŷ / C and pcr = Σ_c P / C (grade D, the default).
    ///
    /// A mean over the weak classes gives each of their probabilities a weight that is C / n times that of the other
    /// terms, and never lowers the probability of another class. A network that is not yet certain then predicts
    /// frequent classes too often. A mean over all classes has neither effect. docs/results.md compares both.
    #[default]
    All,
}

/// The terms of the richness-aware loss that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RichnessTerms {
    /// Category richness and segment richness.
    #[default]
    Both,
    /// Category richness only, for the ablation.
    Category,
    /// Segment richness only, for the ablation.
    Segment,
}

/// The targets and the weights of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossConfig {
    /// The targets of the basic loss.
    pub targets: TargetName,
    /// λ, the weight of the richness terms (grade D). The default is 0.5.
    pub richness: f64,
    /// The classes of the category richness.
    pub classes: RichnessClasses,
    /// The terms that λ weighs.
    pub richness_terms: RichnessTerms,
    /// μ, the weight of the segment term (grade C, LEAP). The default is 0, which turns the term off.
    pub segment: f64,
}

impl Default for LossConfig {
    fn default() -> LossConfig {
        LossConfig {
            targets: TargetName::Pseudo,
            richness: 0.5,
            classes: RichnessClasses::All,
            richness_terms: RichnessTerms::Both,
            segment: 0.0,
        }
    }
}

/// The labels of a batch of B videos of at most T segments.
#[derive(Debug)]
pub struct Targets {
    /// Ŷ^a, `[B, T, C]`, 0 or 1; 0 past the end of a video.
    pub audio: Tensor,
    /// Ŷ^v, like `audio`.
    pub visual: Tensor,
    /// y, `[B, C]`, the weak labels.
    pub weak: Tensor,
    /// `[B, T]`, 1 within a video and 0 past its end; `None` if every video has T segments.
    pub within: Option<Tensor>,
}

impl Targets {
    /// Replaces the labels of each modality by the labels that both modalities have.
    ///
    /// docs/method.md, "AVE task": PL-AV is PL-A and PL-V; a segment without any such label is background.
    pub fn audio_visual(self) -> Targets {
        let both = &self.audio * &self.visual; // [B, T, C]
        Targets {
            audio: both.shallow_clone(),
            visual: both,
            ..self
        }
    }
}

/// The names of the terms, in the order of [`Loss::terms`].
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
    /// The weighted sum of the terms.
    pub total: Tensor,
    /// Each term without its weight, in the order of [`TERMS`]. A term of weight 0 is not computed; its value is 0.
    pub terms: Vec<Tensor>,
}

/// What a loss of a variant ([`super::variants`]) has beside the labels. The default is the plain loss.
#[derive(Debug, Default)]
pub struct LossVariant {
    /// Targets of the segments, audio and visual, `[B, T, C]`, in place of the labels in richness and segment terms.
    pub segments: Option<[Tensor; 2]>,
    /// Weights of the classes, `[C]`, in the basic loss and the segment terms.
    pub class_weights: Option<Tensor>,
    /// Share of the targets of a modality that are dropped because the other modality has a smaller loss.
    pub comparison: f64,
}

impl LossConfig {
    /// Computes the loss of a batch.
    pub fn loss(&self, outputs: &ParserOutputs, targets: &Targets) -> Loss {
        self.loss_of_variant(outputs, targets, &LossVariant::default())
    }

    /// Computes the loss of a batch of a variant.
    pub fn loss_of_variant(&self, outputs: &ParserOutputs, targets: &Targets, variant: &LossVariant) -> Loss {
        let (audio, visual) = self.modality_targets(targets);
        let (audio, visual) = match variant.comparison > 0.0 {
            true => compare_modalities(outputs, (&audio, &visual), variant.comparison),
            false => (audio, visual),
        };
        let weights = variant.class_weights.as_ref();
        let mut terms = vec![
            weighted_bce(&outputs.video, &targets.weak, weights),
            weighted_bce(&outputs.audio, &audio, weights),
            weighted_bce(&outputs.visual, &visual, weights),
        ];
        let [audio, visual] = match &variant.segments {
            Some([audio, visual]) => [audio, visual],
            None => [&targets.audio, &targets.visual],
        };
        let modalities = [(&outputs.segment_audio, audio), (&outputs.segment_visual, visual)];
        let nothing = || Tensor::from(0f32).to_device(outputs.video.device());
        for (probability, labels) in modalities {
            let counts = |term| {
                let counted = [RichnessTerms::Both, term].contains(&self.richness_terms);
                counted && self.richness != 0.0
            };
            terms.push(match (counts(RichnessTerms::Category), self.classes) {
                (false, _) => nothing(),
                (true, RichnessClasses::Weak) => category_richness(probability, labels, targets),
                (true, RichnessClasses::All) => category_richness_of_all(probability, labels, targets),
            });
            terms.push(match counts(RichnessTerms::Segment) {
                true => segment_richness(probability, labels, targets),
                false => nothing(),
            });
        }
        for (probability, labels) in modalities {
            if self.segment == 0.0 {
                terms.push(nothing());
            } else {
                let within = targets.within.as_ref().map(|within| within.unsqueeze(-1));
                terms.push(masked_bce_of(probability, labels, within.as_ref(), weights));
            }
        }
        let sum = |terms: &[Tensor]| Tensor::stack(terms, 0).sum(Kind::Float);
        let total = sum(&terms[..3]) + sum(&terms[3..7]) * self.richness + sum(&terms[7..]) * self.segment;
        Loss { total, terms }
    }

    /// The targets y^a and y^v of the modalities, `[B, C]`.
    fn modality_targets(&self, targets: &Targets) -> (Tensor, Tensor) {
        let weak = &targets.weak;
        match self.targets {
            TargetName::Pseudo => (targets.audio.amax(1, false), targets.visual.amax(1, false)),
            TargetName::Smoothed => (weak.shallow_clone(), weak * 0.9 + 0.05),
            TargetName::Weak => (weak.shallow_clone(), weak.shallow_clone()),
        }
    }
}

/// BCE of Σ_c y·P / n and Σ_c Ŷ / n, per segment, where n = Σ_c y and at least 1.
fn category_richness(probability: &Tensor, labels: &Tensor, targets: &Targets) -> Tensor {
    let weak = targets.weak.unsqueeze(1); // [B, 1, C]
    let count = weak.sum_dim_intlist(-1, false, None::<Kind>).clamp_min(1.0); // [B, 1]
    let label = labels.sum_dim_intlist(-1, false, None::<Kind>) / &count; // [B, T]
    let predicted = (probability * weak).sum_dim_intlist(-1, false, None::<Kind>) / &count; // [B, T]
    masked_bce(&predicted, &label, targets.within.as_ref())
}

/// BCE of Σ_c P / C and Σ_c Ŷ / C, per segment.
fn category_richness_of_all(probability: &Tensor, labels: &Tensor, targets: &Targets) -> Tensor {
    let mean = |x: &Tensor| x.mean_dim(-1, false, None::<Kind>); // [B, T]
    masked_bce(&mean(probability), &mean(labels), targets.within.as_ref())
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
    weighted_bce(probability, target, None)
}

/// The mean of the BCE, with weights of the classes.
fn weighted_bce(probability: &Tensor, target: &Tensor, weights: Option<&Tensor>) -> Tensor {
    let clamped = probability.clamp(CLAMP, 1.0 - CLAMP);
    let weights = weights.map(|weights| weights.expand_as(&clamped));
    clamped.binary_cross_entropy(target, weights, Reduction::Mean)
}

/// The mean BCE over the segments within the videos.
fn masked_bce(probability: &Tensor, target: &Tensor, within: Option<&Tensor>) -> Tensor {
    masked_bce_of(probability, target, within, None)
}

/// The same with weights of the classes.
fn masked_bce_of(
    probability: &Tensor,
    target: &Tensor,
    within: Option<&Tensor>,
    weights: Option<&Tensor>,
) -> Tensor {
    let Some(within) = within else {
        return weighted_bce(probability, target, weights);
    };
    let clamped = probability.clamp(CLAMP, 1.0 - CLAMP);
    let weights = weights.map(|weights| weights.expand_as(&clamped));
    let each = clamped.binary_cross_entropy(target, weights, Reduction::None);
    let within = within.expand_as(&each);
    (each * &within).sum(Kind::Float) / within.sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two segments and four classes. The weak label has class 0, whose label is set in segment 0.
    fn category_term(classes: RichnessClasses, probability: &[f32; 8]) -> f64 {
        let segments = |values: &[f32]| Tensor::from_slice(values).view([1, 2, 4]);
        let video = || Tensor::from_slice(&[0.5f32, 0.0, 0.0, 0.0]).view([1, 4]);
        let outputs = ParserOutputs {
            segment_audio: segments(probability),
            segment_visual: segments(probability),
            audio: video(),
            visual: video(),
            video: video(),
        };
        let labels = || segments(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let targets = Targets {
            audio: labels(),
            visual: labels(),
            weak: Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0]).view([1, 4]),
            within: None,
        };
        let loss = LossConfig {
            classes,
            ..LossConfig::default()
        };
        f64::try_from(&loss.loss(&outputs, &targets).terms[3]).unwrap()
    }

    #[test]
    fn a_term_that_does_not_count_is_not_computed() {
        let probability = Tensor::from_slice(&[0.8_f32, 0.4]).view([1, 2, 1]);
        let terms = |richness_terms| {
            let outputs = ParserOutputs {
                segment_audio: probability.shallow_clone(),
                segment_visual: probability.shallow_clone(),
                audio: Tensor::from_slice(&[0.5_f32]).view([1, 1]),
                visual: Tensor::from_slice(&[0.5_f32]).view([1, 1]),
                video: Tensor::from_slice(&[0.5_f32]).view([1, 1]),
            };
            let labels = || Tensor::from_slice(&[1.0_f32, 0.0]).view([1, 2, 1]);
            let targets = Targets {
                audio: labels(),
                visual: labels(),
                weak: Tensor::from_slice(&[1.0_f32]).view([1, 1]),
                within: None,
            };
            let loss = LossConfig {
                richness_terms,
                ..LossConfig::default()
            };
            let terms = loss.loss(&outputs, &targets).terms;
            [3, 4].map(|term| f64::try_from(&terms[term]).unwrap())
        };
        let [category, segment] = terms(RichnessTerms::Both);
        assert!(category > 0.1 && segment > 0.1);
        assert_eq!(terms(RichnessTerms::Category), [category, 0.0]);
        assert_eq!(terms(RichnessTerms::Segment), [0.0, segment]);
    }

    fn entropy(probability: f64, target: f64) -> f64 {
        -target * probability.ln() - (1.0 - target) * (1.0 - probability).ln()
    }

    #[test]
    fn category_richness_is_a_mean_over_the_weak_or_over_all_classes() {
        let probability = [0.8, 0.4, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0];
        let weak = category_term(RichnessClasses::Weak, &probability);
        let expected = (entropy(0.8, 1.0) + entropy(0.4, 0.0)) / 2.0;
        assert!((weak - expected).abs() < 1e-6, "{weak}, expected {expected}");
        let all = category_term(RichnessClasses::All, &probability);
        let expected = (entropy(0.3, 0.25) + entropy(0.1, 0.0)) / 2.0;
        assert!((all - expected).abs() < 1e-6, "{all}, expected {expected}");
    }

    #[test]
    fn only_the_mean_over_all_classes_sees_a_class_outside_the_weak_label() {
        let (right, wrong) = (
            [0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.9, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        );
        let rise = |classes| category_term(classes, &wrong) - category_term(classes, &right);
        assert_eq!(rise(RichnessClasses::Weak), 0.0);
        assert!(rise(RichnessClasses::All) > 0.01);
    }
}
