//! HAN, the hybrid attention network for audio-visual video parsing.
//!
//! ```text
//! audio ── fc_a ───────────────────────────┐
//! visual ── fc_v ──┐                       ├─ hat_encoder ──┬─ fc_prob ── sigmoid ──▶ segment probabilities P
//! clips ── fc_st ──┴─ fc_fusion ───────────┘                ├─ fc_frame_att ── softmax over segments ──┐
//!                                                           └─ fc_av_att ── softmax over modalities ───┴─▶ p, p^a, p^v
//! ```
//!
//! Source (grade C): `MMIL_Net`, `Encoder`, `HANLayer` in `nets/net_audiovisual.py` of YapengTian/AVVP-ECCV20.
//! Parameters have the same names. Three things differ:
//!
//! - The inputs are means of the 8 frames per segment, which computes the same function (docs/method.md).
//! - Both modalities pass a layer as one batch.
//! - A second layer takes the output of the first layer. In the source, every layer takes the input of the first
//!   layer, so that only the last layer has an effect. With one layer, as published, both are the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::attention::{Projected, attend, attention, key_mask};
use super::error::{NetworkError, WeightsProblem};
use super::mmil::{MmilNames, pooled};
use super::network::{
    HEADS, Network, NetworkSizes, Parser, ParserInputs, ParserOutputs, check_encoder, heads_of,
};
use super::noise::Noise;
use super::parameters::{Declared, Parameters, Start, linear, matrix, norm};
use super::weights::Weights;

/// Settings of HAN. The defaults are those published for LLP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HanSettings {
    /// H, the width of the hidden rows.
    pub hidden: i64,
    /// The width between the two linear maps of a layer.
    pub feedforward: i64,
    /// The number of layers of the encoder.
    pub layers: usize,
    /// The number of attention heads. It must divide H.
    pub heads: i64,
    /// The probability that an element is dropped in training, at least 0 and below 1.
    pub dropout: f64,
}

impl Default for HanSettings {
    fn default() -> HanSettings {
        HanSettings {
            hidden: 512,
            feedforward: 512,
            layers: 1,
            heads: 1,
            dropout: 0.1,
        }
    }
}

/// The HAN network.
#[derive(Debug)]
pub struct Han {
    sizes: NetworkSizes,
    settings: HanSettings,
    parameters: Parameters,
}

/// Two layer norms that `MMIL_Net` has and never uses. This network has them too, so that its checkpoints can be
/// exchanged with those of `MMIL_Net`.
const UNUSED: [&str; 4] = [
    "hat_encoder.norm1.bias",
    "hat_encoder.norm1.weight",
    "hat_encoder.norm2.bias",
    "hat_encoder.norm2.weight",
];

/// The names, shapes and initial values of all parameters, sorted by name.
fn declared(sizes: &NetworkSizes, settings: &HanSettings) -> Vec<Declared> {
    let (h, c, feedforward) = (settings.hidden, sizes.classes, settings.feedforward);
    let mut all = Vec::new();
    linear(&mut all, "fc_a", sizes.audio, h);
    linear(&mut all, "fc_v", sizes.visual, h);
    if let Some(clips) = sizes.clips {
        linear(&mut all, "fc_st", clips, h);
        linear(&mut all, "fc_fusion", 2 * h, h);
    }
    for name in ["fc_prob", "fc_frame_att", "fc_av_att"] {
        linear(&mut all, name, h, c);
    }
    for layer in 0..settings.layers {
        let layer = format!("hat_encoder.layers.{layer}");
        linear(&mut all, &format!("{layer}.linear1"), h, feedforward);
        linear(&mut all, &format!("{layer}.linear2"), feedforward, h);
        for name in ["self_attn", "cm_attn"] {
            attention(&mut all, &format!("{layer}.{name}"), h);
        }
        for at in ["norm1", "norm2"] {
            norm(&mut all, &format!("{layer}.{at}"), h);
        }
    }
    for name in UNUSED {
        let start = match name.ends_with("weight") {
            true => Start::One,
            false => Start::Zero,
        };
        all.push((name.to_owned(), vec![h], start));
    }
    // Random numbers are drawn in this order. Another order would give other weights for the same seed.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

impl Network for Han {
    const NAME: &'static str = "han";
    const KEYS: &'static [&'static str] = &["hidden", "feedforward", "layers", "heads", "dropout"];
    type Settings = HanSettings;

    fn check(settings: &HanSettings) -> Result<(), NetworkError> {
        check_encoder(
            settings.hidden,
            settings.feedforward,
            settings.layers,
            (settings.heads, settings.dropout),
        )
    }

    fn build(
        settings: &HanSettings,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<Han, NetworkError> {
        Ok(Han {
            parameters: Parameters::random(&declared(sizes, settings), seed, device)?,
            sizes: sizes.clone(),
            settings: settings.clone(),
        })
    }

    /// Reads the sizes from the shapes of the weights. The number of heads is in the metadata of our checkpoints.
    /// PyTorch's state dicts do not have it; the number is then 1, as published. A checkpoint has no dropout, because
    /// a loaded network only predicts.
    fn load(weights: &mut Weights, device: Device) -> Result<Han, WeightsProblem> {
        let ((hidden, audio), (_, visual)) =
            (matrix(weights, "fc_a.weight")?, matrix(weights, "fc_v.weight")?);
        let clips = match weights.tensors.contains_key("fc_st.weight") {
            true => Some(matrix(weights, "fc_st.weight")?.1),
            false => None,
        };
        let layers = (0..)
            .take_while(|layer| {
                let name = format!("hat_encoder.layers.{layer}.linear1.weight");
                weights.tensors.contains_key(&name)
            })
            .count();
        let sizes = NetworkSizes {
            audio,
            visual,
            clips,
            classes: matrix(weights, "fc_prob.weight")?.0,
        };
        let settings = HanSettings {
            hidden,
            feedforward: matrix(weights, "hat_encoder.layers.0.linear1.weight")?.0,
            layers,
            heads: heads_of(weights)?.unwrap_or(1),
            dropout: 0.0,
        };
        sizes
            .check()
            .and_then(|()| Han::check(&settings))
            .map_err(|error| WeightsProblem::Format(error.to_string()))?;
        Ok(Han {
            parameters: Parameters::take(declared(&sizes, &settings), weights, device, &UNUSED)?,
            sizes,
            settings,
        })
    }
}

impl Parser for Han {
    fn name(&self) -> &'static str {
        Han::NAME
    }

    fn sizes(&self) -> &NetworkSizes {
        &self.sizes
    }

    fn device(&self) -> Device {
        self.parameters.device()
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        self.parameters.trainable(&UNUSED)
    }

    fn weights(&self) -> Weights {
        let heads = (HEADS.to_owned(), self.settings.heads.to_string());
        self.parameters.weights(BTreeMap::from([heads]))
    }

    fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem> {
        let declared = declared(&self.sizes, &self.settings);
        self.parameters = Parameters::take(declared, weights, self.device(), &UNUSED)?;
        Ok(())
    }

    fn forward(&self, inputs: &ParserInputs, noise: Option<&mut Noise>) -> ParserOutputs {
        let batch = inputs.audio.size()[0];
        let audio = self.parameters.linear("fc_a", &inputs.audio); // [B, T, H]
        let mut visual = self.parameters.linear("fc_v", &inputs.visual); // [B, T, H]
        if let (Some(_), Some(clips)) = (self.sizes.clips, &inputs.clips) {
            let clips = self.parameters.linear("fc_st", clips); // [B, T, H]
            visual = self
                .parameters
                .linear("fc_fusion", &Tensor::cat(&[visual, clips], -1)); // [B, T, H]
        }
        let padding = inputs.padding.as_ref();
        let keys = padding.map(|padding| key_mask(&padding.repeat([2, 1]), self.settings.heads));
        let mut x = Tensor::cat(&[audio, visual], 0); // [2B, T, H]
        let mut noise = noise;
        for layer in 0..self.settings.layers {
            x = self.layer(layer, &x, keys.as_ref(), noise.as_deref_mut());
        }
        let (_, time, hidden) = x.size3().expect("the encoder's output has three axes");
        let names = MmilNames {
            probability: "fc_prob",
            segments: "fc_frame_att",
            modalities: "fc_av_att",
        };
        pooled(
            &self.parameters,
            names,
            &x.view([2, batch, time, hidden]),
            padding,
        )
    }
}

impl Han {
    /// One layer of the encoder, `[2B, T, H]` to `[2B, T, H]`. The first B rows are audio.
    fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        keys: Option<&Tensor>,
        mut noise: Option<&mut Noise>,
    ) -> Tensor {
        let name = format!("hat_encoder.layers.{layer}");
        let mut drop = |x: Tensor| match noise.as_deref_mut() {
            Some(noise) => noise.drop(&x, self.settings.dropout),
            None => x,
        };
        let cross = self.attention(&format!("{name}.cm_attn"), x, true, keys, &mut drop);
        let own = self.attention(&format!("{name}.self_attn"), x, false, keys, &mut drop);
        let x = self
            .parameters
            .norm(&format!("{name}.norm1"), &(x + drop(cross) + drop(own)));
        let inner = drop(self.parameters.linear(&format!("{name}.linear1"), &x).relu()); // [2B, T, F]
        let inner = drop(self.parameters.linear(&format!("{name}.linear2"), &inner)); // [2B, T, H]
        self.parameters.norm(&format!("{name}.norm2"), &(x + inner))
    }

    /// Attention to the segments of the same modality, or with `cross` to those of the other modality: `[2B, T, H]`
    /// to `[2B, T, H]`.
    fn attention(
        &self,
        name: &str,
        x: &Tensor,
        cross: bool,
        keys: Option<&Tensor>,
        drop: &mut dyn FnMut(Tensor) -> Tensor,
    ) -> Tensor {
        let half = x.size()[0] / 2;
        let weight = self.parameters.get(&format!("{name}.in_proj_weight"));
        let bias = self.parameters.get(&format!("{name}.in_proj_bias"));
        let projected = x.linear(weight, Some(bias)).chunk(3, -1); // 3 × [2B, T, H]
        // Exchanging the halves of the batch gives each modality the rows of the other modality.
        let other = |x: &Tensor| match cross {
            true => x.roll(half, 0),
            false => x.shallow_clone(),
        };
        let projected = Projected {
            query: projected[0].shallow_clone(),
            key: other(&projected[1]),
            value: other(&projected[2]),
        };
        attend(
            &self.parameters,
            name,
            &projected,
            (self.settings.heads, keys),
            drop,
        )
    }
}
