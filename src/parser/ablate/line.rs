//! The lines of the ablation.

use serde::{Deserialize, Serialize};

use crate::parser::{RichnessTerms, Supervision, TrainSettings};

/// One line of the ablation: the labels and the loss of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AblationLine {
    /// Weak labels only.
    #[serde(rename = "weak")]
    Weak,
    /// Pseudo labels.
    #[serde(rename = "pseudo")]
    Pseudo,
    /// Pseudo labels and category richness.
    #[serde(rename = "pseudo+category")]
    Category,
    /// Pseudo labels and segment richness.
    #[serde(rename = "pseudo+segment")]
    Segment,
    /// Pseudo labels and both terms of the richness-aware loss (PLE).
    #[serde(rename = "pseudo+richness")]
    Richness,
    /// PLE; its best epoch denoises the labels of train; then PLE again, from new weights.
    #[serde(rename = "pseudo+richness+pld")]
    DenoisedOnce,
    /// PLE for half of the epochs; its best epoch denoises the labels of train, and goes on for the other half.
    #[serde(rename = "pseudo+richness+pld-on")]
    DenoisedOn,
    /// PLE in two trainings, of which the second goes on from the best weights of the first, without denoising: the control of
    /// [`AblationLine::DenoisedOn`].
    #[serde(rename = "pseudo+richness-on")]
    Continued,
    /// PLE whose labels are denoised by every second epoch, from the third on.
    #[serde(rename = "pseudo+richness+pld-every")]
    DenoisedEvery,
    /// PLE and the segment loss.
    #[serde(rename = "pseudo+richness+segments")]
    SegmentLoss,
    /// PLE with soft targets of segments.
    #[serde(rename = "pseudo+richness+soft")]
    SoftLabels,
    /// PLE with weights of the classes.
    #[serde(rename = "pseudo+richness+balance")]
    ClassBalance,
    /// PLE with mixed features.
    #[serde(rename = "pseudo+richness+mixup")]
    Mixup,
    /// PLE with smoothed borders of events.
    #[serde(rename = "pseudo+richness+borders")]
    Borders,
    /// PLE with comparison of the losses of the modalities.
    #[serde(rename = "pseudo+richness+modalities")]
    Modalities,
}

impl AblationLine {
    /// All lines, in the order of the table.
    pub const ALL: [AblationLine; 15] = [
        AblationLine::Weak,
        AblationLine::Pseudo,
        AblationLine::Category,
        AblationLine::Segment,
        AblationLine::Richness,
        AblationLine::Continued,
        AblationLine::DenoisedOnce,
        AblationLine::DenoisedOn,
        AblationLine::DenoisedEvery,
        AblationLine::SegmentLoss,
        AblationLine::SoftLabels,
        AblationLine::ClassBalance,
        AblationLine::Mixup,
        AblationLine::Borders,
        AblationLine::Modalities,
    ];
    /// First epoch of [`AblationLine::DenoisedEvery`] after which the labels are denoised.
    pub const FIRST: u64 = 3;
    /// Epochs between two denoisings of [`AblationLine::DenoisedEvery`].
    pub const EVERY: u64 = 2;

    /// The name in flags and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            AblationLine::Weak => "weak",
            AblationLine::Pseudo => "pseudo",
            AblationLine::Category => "pseudo+category",
            AblationLine::Segment => "pseudo+segment",
            AblationLine::Richness => "pseudo+richness",
            AblationLine::DenoisedOnce => "pseudo+richness+pld",
            AblationLine::DenoisedOn => "pseudo+richness+pld-on",
            AblationLine::Continued => "pseudo+richness-on",
            AblationLine::DenoisedEvery => "pseudo+richness+pld-every",
            AblationLine::SegmentLoss => "pseudo+richness+segments",
            AblationLine::SoftLabels => "pseudo+richness+soft",
            AblationLine::ClassBalance => "pseudo+richness+balance",
            AblationLine::Mixup => "pseudo+richness+mixup",
            AblationLine::Borders => "pseudo+richness+borders",
            AblationLine::Modalities => "pseudo+richness+modalities",
        }
    }

    /// What the line trains with, for help texts.
    pub const fn help(self) -> &'static str {
        match self {
            AblationLine::Weak => "Weak labels, as HAN was published: smoothed targets, no richness terms",
            AblationLine::Pseudo => "Pseudo labels as targets of each modality, no richness terms",
            AblationLine::Category => "Pseudo labels and category richness",
            AblationLine::Segment => "Pseudo labels and segment richness",
            AblationLine::Richness => "Pseudo labels and the richness-aware loss",
            AblationLine::DenoisedOnce => {
                "The same, then labels denoised by its best epoch, and trained again"
            }
            AblationLine::DenoisedOn => {
                "PLE for half of the epochs, then labels denoised by its best epoch, which goes on for the other half"
            }
            AblationLine::Continued => {
                "PLE for half of the epochs, whose best epoch goes on for the other half, without denoising"
            }
            AblationLine::DenoisedEvery => {
                "One training, with labels denoised by every second epoch from the third on"
            }
            AblationLine::SegmentLoss => "PLE and the segment loss, `segment = 1`",
            AblationLine::SoftLabels => "PLE with soft targets of segments, `soft_labels = 20`",
            AblationLine::ClassBalance => "PLE with weights of the classes, `class_balance = 0.99`",
            AblationLine::Mixup => "PLE with mixed features, `mixup = 0.2`",
            AblationLine::Borders => "PLE with smoothed borders of events, `border_smoothing = 0.1`",
            AblationLine::Modalities => {
                "PLE with comparison of the losses of the modalities, `modality_comparison = 0.1`"
            }
        }
    }

    /// The settings of the line. All lines differ in their labels and loss only.
    pub fn settings(self, all: &TrainSettings, seed: u64) -> TrainSettings {
        let (supervision, terms) = match self {
            AblationLine::Weak => (Supervision::Weak, None),
            AblationLine::Pseudo => (Supervision::Pseudo, None),
            AblationLine::Category => (Supervision::Richness, Some(RichnessTerms::Category)),
            AblationLine::Segment => (Supervision::Richness, Some(RichnessTerms::Segment)),
            _ => (Supervision::Richness, all.richness_terms),
        };
        let mut settings = TrainSettings {
            supervision,
            seed,
            richness_terms: terms,
            ..all.clone()
        };
        match self {
            AblationLine::SegmentLoss => settings.segment = 1.0,
            AblationLine::SoftLabels => settings.soft_labels = 20.0,
            AblationLine::ClassBalance => settings.class_balance = 0.99,
            AblationLine::Mixup => settings.mixup = 0.2,
            AblationLine::Borders => settings.border_smoothing = 0.1,
            AblationLine::Modalities => settings.modality_comparison = 0.1,
            _ => {}
        }
        settings
    }

    /// Whether labels are denoised.
    pub const fn denoises(self) -> bool {
        matches!(
            self,
            AblationLine::DenoisedOnce | AblationLine::DenoisedOn | AblationLine::DenoisedEvery
        )
    }

    /// The number of trainings, one after the other.
    pub const fn trainings(self) -> u64 {
        match self {
            AblationLine::DenoisedOnce | AblationLine::DenoisedOn | AblationLine::Continued => 2,
            _ => 1,
        }
    }

    /// Whether the second training goes on from the best weights of the first.
    pub const fn goes_on(self) -> bool {
        matches!(self, AblationLine::DenoisedOn | AblationLine::Continued)
    }

    /// The epochs of each training, so that every network of the table learns for `epochs` epochs. A second training with new
    /// weights makes another network than the first.
    pub const fn epochs(self, epochs: u64) -> [u64; 2] {
        match (self.goes_on(), self.trainings()) {
            (true, _) => [epochs.div_ceil(2), epochs / 2],
            (false, 2) => [epochs, epochs],
            (false, _) => [epochs, 0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_flags_and_tables_are_the_same() {
        for line in AblationLine::ALL {
            assert_eq!(serde_json::to_value(line).unwrap(), line.as_str());
        }
    }

    #[test]
    fn every_network_learns_for_the_same_number_of_epochs() {
        assert_eq!(AblationLine::Richness.epochs(9), [9, 0]);
        assert_eq!(AblationLine::DenoisedOnce.epochs(9), [9, 9]);
        assert_eq!(AblationLine::DenoisedOn.epochs(9), [5, 4]);
        assert_eq!(AblationLine::Continued.epochs(1), [1, 0]);
    }

    #[test]
    fn lines_differ_in_labels_and_loss_only() {
        let all = TrainSettings {
            epochs: 3,
            ..TrainSettings::default()
        };
        let of = |line: AblationLine| line.settings(&all, 7);
        assert_eq!(of(AblationLine::Richness), of(AblationLine::DenoisedOnce));
        assert_eq!(of(AblationLine::Weak).loss().richness, 0.0);
        let category = of(AblationLine::Category);
        assert_eq!(category.richness_terms, Some(RichnessTerms::Category));
        let alike = TrainSettings {
            richness_terms: None,
            ..category
        };
        assert_eq!(alike, of(AblationLine::Richness));
        assert_eq!((alike.epochs, alike.seed), (3, 7));
    }
}
