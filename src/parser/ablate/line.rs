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
    /// The same as [`AblationLine::DenoisedOnce`], but the second training goes on from the best weights of the first.
    #[serde(rename = "pseudo+richness+pld-on")]
    DenoisedOn,
    /// PLE whose labels are denoised by every second epoch, from the third on.
    #[serde(rename = "pseudo+richness+pld-every")]
    DenoisedEvery,
}

impl AblationLine {
    /// All lines, in the order of the table.
    pub const ALL: [AblationLine; 8] = [
        AblationLine::Weak,
        AblationLine::Pseudo,
        AblationLine::Category,
        AblationLine::Segment,
        AblationLine::Richness,
        AblationLine::DenoisedOnce,
        AblationLine::DenoisedOn,
        AblationLine::DenoisedEvery,
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
            AblationLine::DenoisedEvery => "pseudo+richness+pld-every",
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
                "The same, but the second training goes on from the best epoch of the first"
            }
            AblationLine::DenoisedEvery => {
                "One training, with labels denoised by every second epoch from the third on"
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
            AblationLine::Richness
            | AblationLine::DenoisedOnce
            | AblationLine::DenoisedOn
            | AblationLine::DenoisedEvery => (Supervision::Richness, all.richness_terms),
        };
        TrainSettings {
            supervision,
            seed,
            richness_terms: terms,
            ..all.clone()
        }
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
            AblationLine::DenoisedOnce | AblationLine::DenoisedOn => 2,
            _ => 1,
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
