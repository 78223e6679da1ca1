//! Computes banks of triangular filters on the mel scale.
//!
//! Source: transformers, `audio_utils.mel_filter_bank`, which follows librosa.

use serde::{Deserialize, Serialize};

/// The mel scale of a bank, and the norm of its bands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MelScale {
    /// Slaney's scale; each band has area 1. CLAP models that are not fused use it.
    #[default]
    Slaney,
    /// HTK's scale; each band has height 1. Fused CLAP models and YAMNet use it.
    Htk,
}

/// A bank of filters. Each band has the index of its first frequency, and the weights from that frequency on.
#[derive(Clone, Debug, PartialEq)]
pub struct MelBank {
    bands: Vec<(usize, Vec<f64>)>,
}

impl MelBank {
    /// Computes `bands` filters from `low` to `high` Hz, for spectra of `bins` frequencies from 0 Hz to half of `rate`.
    pub fn new(scale: MelScale, rate: u32, bins: usize, bands: usize, low: f64, high: f64) -> MelBank {
        let (from, to) = (scale.of_hertz(low), scale.of_hertz(high));
        let edges: Vec<f64> = (0..bands + 2)
            .map(|at| scale.hertz(from + (to - from) * at as f64 / (bands + 1) as f64))
            .collect();
        let hertz = |bin: usize| f64::from(rate) / 2.0 * bin as f64 / (bins - 1) as f64;
        let band = |edges: &[f64]| {
            let (left, center, right) = (edges[0], edges[1], edges[2]);
            let norm = match scale {
                MelScale::Slaney => 2.0 / (right - left),
                MelScale::Htk => 1.0,
            };
            let weight = |bin: usize| {
                let (up, down) = (
                    (hertz(bin) - left) / (center - left),
                    (right - hertz(bin)) / (right - center),
                );
                up.min(down).max(0.0) * norm
            };
            let first = (0..bins).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
            let weights: Vec<f64> = (first..bins)
                .map(weight)
                .take_while(|&weight| weight > 0.0)
                .collect();
            (first, weights)
        };
        MelBank {
            bands: edges.windows(3).map(band).collect(),
        }
    }

    /// Number of bands.
    pub fn len(&self) -> usize {
        self.bands.len()
    }

    /// Is there no band?
    pub fn is_empty(&self) -> bool {
        self.bands.is_empty()
    }

    /// Returns the weighted sum of the spectrum in each band.
    pub fn gather<'a>(&'a self, spectrum: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.bands.iter().map(|(first, weights)| {
            weights
                .iter()
                .zip(&spectrum[*first..])
                .map(|(weight, power)| weight * power)
                .sum()
        })
    }
}

impl MelScale {
    fn of_hertz(self, hertz: f64) -> f64 {
        match self {
            MelScale::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
            // Slaney's scale is linear up to 1000 Hz, which is 15 mel, and logarithmic above.
            MelScale::Slaney if hertz < 1000.0 => 3.0 * hertz / 200.0,
            MelScale::Slaney => 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4_f64.ln(),
        }
    }

    fn hertz(self, mel: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10_f64.powf(mel / 2595.0) - 1.0),
            MelScale::Slaney if mel < 15.0 => 200.0 * mel / 3.0,
            MelScale::Slaney => 1000.0 * (6.4_f64.ln() / 27.0 * (mel - 15.0)).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_banks_are_those_of_transformers() {
        let Some(shared) = crate::ingest::shared("both_banks_are_those_of_transformers") else {
            return;
        };
        let text = std::fs::read_to_string(shared.join("golden/audio/mel_filters.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (scale, key) in [
            (MelScale::Slaney, "slaney"),
            (MelScale::Htk, "htk_used_only_by_fusion_models"),
        ] {
            let bank = MelBank::new(scale, 48_000, 513, 64, 50.0, 14_000.0);
            let golden = json[key].as_array().unwrap();
            assert_eq!(bank.len(), golden.len());
            for ((first, weights), golden_value) in bank.bands.iter().zip(golden) {
                assert_eq!(*first as u64, golden_value["start"].as_u64().unwrap());
                let values = golden_value["values"].as_array().unwrap();
                assert_eq!(weights.len(), values.len());
                for (weight, golden_value) in weights.iter().zip(values) {
                    assert!(
                        (weight - golden_value.as_f64().unwrap()).abs() < 1e-12,
                        "{weight} against {golden_value}"
                    );
                }
            }
        }
    }
}
