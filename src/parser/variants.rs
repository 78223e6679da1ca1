//! Variants of the loss and its targets from later work. Each is off by default, and a line of `vaplan ablate`.
//!
//! | setting | what it does | source |
//! |---|---|---|
//! | `soft_labels` | targets of segments are probabilities from the margin of the score | UWAV (arXiv 2505.09615), idea; formula D |
//! | `class_balance` | rare classes weigh more | Cui et al. 2019 (arXiv 1901.05555), effective number of samples |
//! | `mixup` | features and losses of two videos are mixed | Zhang et al. 2018 (arXiv 1710.09412) |
//! | `border_smoothing` | targets next to the border of an event are less certain | label smoothing, Szegedy et al. 2016; borders D |
//! | `modality_comparison` | a target with a larger loss in this modality than in the other one is dropped | JoMoLD (ECCV 2022, arXiv 2204.11573), idea; formula D |
//!
//! docs/train.md describes the settings, and docs/results.md what they gain.

use tch::{Kind, Tensor};

use super::noise::Noise;
use super::{ParserInputs, ParserOutputs, Targets};

/// The smallest distance of a probability from 0 and 1 in a loss that is only compared.
const CLAMP: f64 = 1e-7;

/// The soft target of a segment: sigmoid(slope · margin), where the margin is how far the score is above its threshold.
///
/// A label that another rule set, such as a flip of PLD or a person, contradicts its margin. The target is then the label.
///
/// ```
/// use vaplan::parser::variants::soft_target;
/// assert_eq!(soft_target(0.0, 5.0, false), 0.5);
/// assert!((soft_target(0.2, 5.0, true) - 0.7311).abs() < 1e-4);
/// assert_eq!(soft_target(0.2, 5.0, false), 0.0, "a flip");
/// ```
pub fn soft_target(margin: f64, slope: f64, label: bool) -> f32 {
    // A score that equals its threshold sets no label.
    if (margin > 0.0) != label {
        return f32::from(u8::from(label));
    }
    (1.0 / (1.0 + (-slope * margin).exp())) as f32
}

/// Moves the targets of segments next to a border of an event by `share` from 0 and 1 towards each other.
///
/// A segment is next to a border if the segment before or after it has another label. The start and the end of a video are no
/// borders.
///
/// # Shapes
/// - `labels`: `[B, T, C]`, 0 or 1
/// - `within`: `[B, T]`, 1 within a video and 0 past its end; `None` if every video has T segments
/// - returns `[B, T, C]`
pub fn smooth_borders(labels: &Tensor, within: Option<&Tensor>, share: f64) -> Tensor {
    let segments = labels.size()[1];
    if segments < 2 {
        return labels.shallow_clone();
    }
    let (first, last) = (
        labels.narrow(1, 0, segments - 1),
        labels.narrow(1, 1, segments - 1),
    );
    let mut differs = (first - last).abs(); // [B, T - 1, C]
    if let Some(within) = within {
        // The padding past the end of a video has label 0 and is no segment.
        differs *= within.narrow(1, 1, segments - 1).unsqueeze(-1);
    }
    let none = differs.narrow(1, 0, 1).zeros_like();
    let after = Tensor::cat(&[&differs, &none], 1);
    let before = Tensor::cat(&[&none, &differs], 1);
    let border = after.maximum(&before); // [B, T, C]
    labels + border * (-2.0 * labels + 1.0) * share
}

/// Weights of the classes, (1 − β) / (1 − βⁿ) for n videos with the class, scaled to a mean of 1. A class without videos counts as
/// a class with one.
///
/// ```
/// use vaplan::parser::variants::class_weights;
/// let weights = class_weights(&[1, 2], 0.5);
/// // 0.5 / 0.5 = 1 and 0.5 / 0.75 = 2/3, divided by their mean of 5/6.
/// assert!((weights[0] - 1.2).abs() < 1e-6 && (weights[1] - 0.8).abs() < 1e-6);
/// ```
pub fn class_weights(videos: &[u64], beta: f64) -> Vec<f32> {
    let weight = |count: &u64| {
        let count = (*count).max(1) as f64;
        (1.0 - beta) / (1.0 - beta.powf(count))
    };
    let weights: Vec<f64> = videos.iter().map(weight).collect();
    let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    weights.iter().map(|weight| (weight / mean) as f32).collect()
}

/// Drops targets of whole videos that both modalities have, and that one modality contradicts more than the other.
///
/// n is the number of targets that both modalities have in the batch. For each modality, up to ⌊share · n⌋ of these targets
/// become 0: those by which its loss −ln p exceeds the loss of the other modality most.
///
/// # Shapes
/// - `audio`, `visual`: `[B, C]`, targets
/// - returns both, `[B, C]`
pub fn compare_modalities(
    outputs: &ParserOutputs,
    (audio, visual): (&Tensor, &Tensor),
    share: f64,
) -> (Tensor, Tensor) {
    tch::no_grad(|| {
        let both = audio.ge(0.5).logical_and(&visual.ge(0.5)); // [B, C]
        let count = i64::try_from(both.sum(Kind::Int64)).unwrap_or(0);
        let most = (share * count as f64).floor() as i64;
        if most == 0 {
            return (audio.shallow_clone(), visual.shallow_clone());
        }
        let loss = |p: &Tensor| -p.clamp(CLAMP, 1.0 - CLAMP).log();
        let difference = (loss(&outputs.audio) - loss(&outputs.visual)) * both.to_kind(Kind::Float);
        let without = |target: &Tensor, excess: &Tensor| {
            let flat = excess.flatten(0, -1);
            let (largest, at) = flat.topk(most, 0, true, true);
            let dropped = flat
                .zeros_like()
                .scatter(0, &at, &largest.gt(0.0).to_kind(Kind::Float));
            target * (dropped.view_as(target) * -1.0 + 1.0)
        };
        (without(audio, &difference), without(visual, &difference.neg()))
    })
}

/// The mixing of a batch with itself in another order.
#[derive(Debug)]
pub struct Mixup {
    /// Share of each video itself; the rest is its partner.
    pub share: f64,
    /// Position of each video's partner in the batch.
    pub partners: Tensor,
}

impl Mixup {
    /// Draws the share from Beta(α, α), and partners at random. Returns `None` for α = 0.
    pub fn draw(alpha: f64, videos: usize, noise: &mut Noise) -> Option<Mixup> {
        if alpha == 0.0 {
            return None;
        }
        let mut partners: Vec<i64> = (0..videos as i64).collect();
        noise.shuffle(&mut partners);
        Some(Mixup {
            share: noise.beta(alpha),
            partners: Tensor::from_slice(&partners),
        })
    }

    /// The mixed features. A segment is padding only if it is past the end of both videos.
    pub fn inputs(&self, inputs: &ParserInputs) -> ParserInputs {
        let of = |x: &Tensor| x * self.share + self.of_partners(x) * (1.0 - self.share);
        ParserInputs {
            audio: of(&inputs.audio),
            visual: of(&inputs.visual),
            clips: inputs.clips.as_ref().map(of),
            padding: (inputs.padding.as_ref()).map(|past| past.logical_and(&self.of_partners(past))),
        }
    }

    /// The targets of the partners.
    pub fn targets(&self, targets: &Targets) -> Targets {
        Targets {
            audio: self.of_partners(&targets.audio),
            visual: self.of_partners(&targets.visual),
            weak: self.of_partners(&targets.weak),
            within: targets.within.as_ref().map(|within| self.of_partners(within)),
        }
    }

    /// Puts the rows of the partners in the place of the videos.
    pub fn of_partners(&self, x: &Tensor) -> Tensor {
        x.index_select(0, &self.partners.to_device(x.device()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        let flat = tensor.flatten(0, -1).to_kind(Kind::Double);
        (0..flat.size()[0]).map(|at| flat.double_value(&[at])).collect()
    }

    fn close(found: &Tensor, expected: &[f64]) {
        let found = values(found);
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
        assert!(
            found.len() == expected.len() && found.iter().zip(expected).all(near),
            "{found:?}, expected {expected:?}"
        );
    }

    #[test]
    fn targets_at_borders_move_and_others_stay() {
        let labels = Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 1.0, 1.0, 0.0]).view([1, 6, 1]);
        close(
            &smooth_borders(&labels, None, 0.2),
            &[0.0, 0.2, 0.8, 1.0, 0.8, 0.2],
        );
        let short = Tensor::from_slice(&[1.0_f32, 0.0, 1.0]).view([1, 3, 1]);
        close(&smooth_borders(&short, None, 0.1), &[0.9, 0.1, 0.9]);
        // The video ends after two segments.
        let within = Tensor::from_slice(&[1.0_f32, 1.0, 0.0]).view([1, 3]);
        let ended = Tensor::from_slice(&[0.0_f32, 1.0, 0.0]).view([1, 3, 1]);
        close(&smooth_borders(&ended, Some(&within), 0.2), &[0.2, 0.8, 0.0]);
        close(&smooth_borders(&labels.narrow(1, 2, 1), None, 0.2), &[1.0]);
    }

    fn outputs(audio: &[f32], visual: &[f32]) -> ParserOutputs {
        let row = |values: &[f32]| Tensor::from_slice(values).view([1, values.len() as i64]);
        let segments = |values: &[f32]| row(values).unsqueeze(1);
        ParserOutputs {
            segment_audio: segments(audio),
            segment_visual: segments(visual),
            audio: row(audio),
            visual: row(visual),
            video: row(audio),
        }
    }

    #[test]
    fn the_target_that_one_modality_contradicts_most_is_dropped_from_it_alone() {
        // −ln p exceeds that of the other modality by ln 9 in class 0 (audio) and by ln 4 in class 1 (visual); class 2 is in one
        // modality only, and class 3 has equal losses.
        let outputs = outputs(&[0.1, 0.8, 0.01, 0.5], &[0.9, 0.2, 0.99, 0.5]);
        let audio = Tensor::from_slice(&[1.0_f32, 1.0, 1.0, 1.0]).view([1, 4]);
        let visual = Tensor::from_slice(&[1.0_f32, 1.0, 0.0, 1.0]).view([1, 4]);
        let of = |share| compare_modalities(&outputs, (&audio, &visual), share);
        let (a, v) = of(0.34);
        close(&a, &[0.0, 1.0, 1.0, 1.0]);
        close(&v, &[1.0, 0.0, 0.0, 1.0]);
        let (a, v) = of(0.3);
        close(&a, &[1.0; 4]);
        close(&v, &[1.0, 1.0, 0.0, 1.0]);
        // Equal losses never drop a target, whatever the share.
        let (a, _) = of(0.99);
        close(&a, &[0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn mixing_takes_each_video_and_its_partner_by_the_share() {
        let mix = Mixup {
            share: 0.75,
            partners: Tensor::from_slice(&[1_i64, 0]),
        };
        let x = |values: &[f32]| Tensor::from_slice(values).view([2, 2, 1]);
        let mixed = mix.inputs(&ParserInputs {
            audio: x(&[4.0, 8.0, 0.0, 0.0]),
            visual: x(&[0.0; 4]),
            clips: None,
            padding: Some(Tensor::from_slice(&[false, true, false, false]).view([2, 2])),
        });
        close(&mixed.audio, &[3.0, 6.0, 1.0, 2.0]);
        close(&mixed.padding.unwrap(), &[0.0; 4]);
        let mut noise = Noise::new(1, 1);
        let shares: Vec<f64> = (0..2000).map(|_| noise.beta(0.5)).collect();
        let mean = shares.iter().sum::<f64>() / 2000.0;
        let squares = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 2000.0;
        // Beta(½, ½) has mean ½ and variance ⅛.
        assert!(
            (mean - 0.5).abs() < 0.03 && (squares - 0.125).abs() < 0.01,
            "{mean}, {squares}"
        );
        assert!(Mixup::draw(0.0, 4, &mut noise).is_none());
    }

    #[test]
    fn rare_classes_weigh_more_and_the_mean_is_1() {
        let weights = class_weights(&[1000, 10, 0, 1], 0.99);
        assert!(weights[0] < weights[1] && weights[1] < weights[2]);
        assert_eq!(weights[2], weights[3]);
        assert!((weights.iter().sum::<f32>() / 4.0 - 1.0).abs() < 1e-6);
        // 0.01 / (1 − 0.99¹⁰) = 0.104584, and 1 for one video.
        let ratio = f64::from(weights[1] / weights[3]);
        assert!((ratio - 0.104_584).abs() < 1e-5, "{ratio}");
    }

    #[test]
    fn weights_and_soft_targets_count_in_the_loss() {
        use crate::parser::loss::{LossConfig, LossVariant};
        let outputs = outputs(&[0.5, 0.2], &[0.5, 0.2]);
        let labels = || Tensor::from_slice(&[1.0_f32, 0.0]).view([1, 1, 2]);
        let targets = Targets {
            audio: labels(),
            visual: labels(),
            weak: Tensor::from_slice(&[1.0_f32, 0.0]).view([1, 2]),
            within: None,
        };
        let config = LossConfig {
            richness: 0.0,
            segment: 1.0,
            ..LossConfig::default()
        };
        let soft = || Tensor::from_slice(&[0.8_f32, 0.0]).view([1, 1, 2]);
        let variant = LossVariant {
            segments: Some([soft(), soft()]),
            class_weights: Some(Tensor::from_slice(&[1.5_f32, 0.5])),
            comparison: 0.0,
        };
        let terms = config.loss_of_variant(&outputs, &targets, &variant).terms;
        let term = |at: usize| f64::try_from(&terms[at]).unwrap();
        // BCE(0.5, ·) = ln 2 for every target, and BCE(0.2, 0) = −ln 0.8.
        let expected = (1.5 * 2.0_f64.ln() - 0.5 * 0.8_f64.ln()) / 2.0;
        for at in [0, 1, 2, 7, 8] {
            assert!((term(at) - expected).abs() < 1e-6, "term {at}: {}", term(at));
        }
    }
}
