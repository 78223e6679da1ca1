//! A temporal transformer over the segments of both modalities.
//!
//! ```text
//! audio ── audio.input ── norm ── + position ──────────────────┐         ┌─ self_attn ─┐ ┌─ cross_attn ─┐
//! visual ── visual.input ──┐                                    ├─ layers ┤             ├─┤   ⇅ other    ├─ linear ─┐
//! clips ── clips.input ────┴─ fusion ── norm ── + position ─────┘         └─────────────┘ └──────────────┘          │
//!                    ┌─ prob ── sigmoid ──────────────────────────────▶ segment probabilities P              norm ◀─┘
//!                    ├─ segment_attention ── softmax over segments ──┐                                         │
//!                    ├─ modality_attention ── softmax over modalities ┴─▶ p, p^a, p^v                          │
//!                    └─────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Sources:
//!
//! - Five layers of self-attention over the segments of each modality, on CLIP and CLAP features: UWAV
//!   (arXiv 2505.09615, grade C), where this encoder generates pseudo labels.
//! - Attention to the other modality, and probabilities of a video by attentive pooling (MMIL): HAN (grade C).
//! - The layer is that of `torch.nn.TransformerDecoderLayer` with `norm_first=True` and GELU, except that the keys of
//!   the cross-attention are normalised, too. The positions are the sines and cosines of Vaswani et al. 2017.
//! - Our own definition (grade D): a cross-attention in every layer, parameters of its own for each modality, the norm
//!   of the projected features, and all widths.

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
use super::parameters::{Declared, Parameters, linear, matrix, norm};
use super::weights::Weights;

/// Settings of the transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerSettings {
    /// H, the width of the hidden rows (grade D). It must be even.
    pub hidden: i64,
    /// The width between the two linear maps of a layer (grade D).
    pub feedforward: i64,
    /// The number of layers (grade C, UWAV).
    pub layers: usize,
    /// The number of attention heads (grade D). It must divide H.
    pub heads: i64,
    /// The probability that an element is dropped in training, at least 0 and below 1 (grade D).
    pub dropout: f64,
}

impl Default for TransformerSettings {
    fn default() -> TransformerSettings {
        TransformerSettings {
            hidden: 256,
            feedforward: 512,
            layers: 5,
            heads: 4,
            dropout: 0.1,
        }
    }
}

/// The transformer network.
#[derive(Debug)]
pub struct TemporalTransformer {
    sizes: NetworkSizes,
    settings: TransformerSettings,
    parameters: Parameters,
}

/// The modalities, in the order of the parameters' names and of the outputs.
const MODALITIES: [&str; 2] = ["audio", "visual"];

/// The names, shapes and initial values of all parameters, in the order in which random numbers are drawn for them.
fn declared(sizes: &NetworkSizes, settings: &TransformerSettings) -> Vec<Declared> {
    let h = settings.hidden;
    let mut all = Vec::new();
    linear(&mut all, "audio.input", sizes.audio, h);
    linear(&mut all, "visual.input", sizes.visual, h);
    if let Some(clips) = sizes.clips {
        linear(&mut all, "clips.input", clips, h);
        linear(&mut all, "fusion", 2 * h, h);
    }
    for modality in MODALITIES {
        norm(&mut all, &format!("{modality}.input_norm"), h);
        for layer in 0..settings.layers {
            let layer = format!("{modality}.layers.{layer}");
            attention(&mut all, &format!("{layer}.self_attn"), h);
            attention(&mut all, &format!("{layer}.cross_attn"), h);
            linear(&mut all, &format!("{layer}.linear1"), h, settings.feedforward);
            linear(&mut all, &format!("{layer}.linear2"), settings.feedforward, h);
            for at in ["norm1", "norm2", "norm3"] {
                norm(&mut all, &format!("{layer}.{at}"), h);
            }
        }
        norm(&mut all, &format!("{modality}.norm"), h);
    }
    for name in ["prob", "segment_attention", "modality_attention"] {
        linear(&mut all, name, h, sizes.classes);
    }
    all
}

impl Network for TemporalTransformer {
    const NAME: &'static str = "transformer";
    const KEYS: &'static [&'static str] = &["hidden", "feedforward", "layers", "heads", "dropout"];
    type Settings = TransformerSettings;

    fn check(settings: &TransformerSettings) -> Result<(), NetworkError> {
        check_encoder(
            settings.hidden,
            settings.feedforward,
            settings.layers,
            (settings.heads, settings.dropout),
        )?;
        match settings.hidden % 2 {
            0 => Ok(()),
            _ => Err(NetworkError::Config(format!(
                "network: hidden is {}, expected an even number for network `transformer`",
                settings.hidden
            ))),
        }
    }

    fn build(
        settings: &TransformerSettings,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<TemporalTransformer, NetworkError> {
        Ok(TemporalTransformer {
            parameters: Parameters::random(&declared(sizes, settings), seed, device)?,
            sizes: sizes.clone(),
            settings: settings.clone(),
        })
    }

    /// Reads the sizes from the shapes of the weights, and the number of heads from the metadata (1 without it). A
    /// checkpoint has no dropout, because a loaded network only predicts.
    fn load(weights: &mut Weights, device: Device) -> Result<TemporalTransformer, WeightsProblem> {
        let (hidden, audio) = matrix(weights, "audio.input.weight")?;
        let clips = match weights.tensors.contains_key("clips.input.weight") {
            true => Some(matrix(weights, "clips.input.weight")?.1),
            false => None,
        };
        let sizes = NetworkSizes {
            audio,
            visual: matrix(weights, "visual.input.weight")?.1,
            clips,
            classes: matrix(weights, "prob.weight")?.0,
        };
        let first = |layer: usize| format!("audio.layers.{layer}.linear1.weight");
        let settings = TransformerSettings {
            hidden,
            feedforward: matrix(weights, &first(0))?.0,
            layers: (0..)
                .take_while(|layer| weights.tensors.contains_key(&first(*layer)))
                .count(),
            heads: heads_of(weights)?.unwrap_or(1),
            dropout: 0.0,
        };
        sizes
            .check()
            .and_then(|()| TemporalTransformer::check(&settings))
            .map_err(|error| WeightsProblem::Format(error.to_string()))?;
        Ok(TemporalTransformer {
            parameters: Parameters::take(declared(&sizes, &settings), weights, device, &[])?,
            sizes,
            settings,
        })
    }
}

impl Parser for TemporalTransformer {
    fn name(&self) -> &'static str {
        TemporalTransformer::NAME
    }

    fn sizes(&self) -> &NetworkSizes {
        &self.sizes
    }

    fn device(&self) -> Device {
        self.parameters.device()
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        self.parameters.trainable(&[])
    }

    fn weights(&self) -> Weights {
        let heads = (HEADS.to_owned(), self.settings.heads.to_string());
        self.parameters.weights(BTreeMap::from([heads]))
    }

    fn restore(&mut self, weights: &mut Weights) -> Result<(), WeightsProblem> {
        let declared = declared(&self.sizes, &self.settings);
        self.parameters = Parameters::take(declared, weights, self.device(), &[])?;
        Ok(())
    }

    fn forward(&self, inputs: &ParserInputs, mut noise: Option<&mut Noise>) -> ParserOutputs {
        let p = &self.parameters;
        let audio = p.linear("audio.input", &inputs.audio); // [B, T, H]
        let mut visual = p.linear("visual.input", &inputs.visual); // [B, T, H]
        if let (Some(_), Some(clips)) = (self.sizes.clips, &inputs.clips) {
            let clips = p.linear("clips.input", clips); // [B, T, H]
            visual = p.linear("fusion", &Tensor::cat(&[visual, clips], -1)); // [B, T, H]
        }
        let positions = positions(audio.size()[1], self.settings.hidden).to_device(self.device()); // [T, H]
        let input = |modality: &str, x: &Tensor| p.norm(&format!("{modality}.input_norm"), x) + &positions;
        let mut streams = [input("audio", &audio), input("visual", &visual)]; // 2 × [B, T, H]
        let padding = inputs.padding.as_ref();
        let keys = padding.map(|padding| key_mask(padding, self.settings.heads));
        let mut drop = |x: Tensor| match noise.as_deref_mut() {
            Some(noise) => noise.drop(&x, self.settings.dropout),
            None => x,
        };
        for layer in 0..self.settings.layers {
            streams = self.layer(layer, &streams, keys.as_ref(), &mut drop);
        }
        let mut at = MODALITIES.iter().zip(&streams);
        let mut last = || {
            let (modality, x) = at.next().expect("there are two modalities");
            p.norm(&format!("{modality}.norm"), x)
        };
        let x = Tensor::stack(&[last(), last()], 0); // [2, B, T, H]
        let names = MmilNames {
            probability: "prob",
            segments: "segment_attention",
            modalities: "modality_attention",
        };
        pooled(p, names, &x, padding)
    }
}

impl TemporalTransformer {
    /// One layer: self-attention of both modalities, then attention of each to the other, then two linear maps.
    fn layer(
        &self,
        layer: usize,
        streams: &[Tensor; 2],
        keys: Option<&Tensor>,
        drop: &mut dyn FnMut(Tensor) -> Tensor,
    ) -> [Tensor; 2] {
        let p = &self.parameters;
        let name = |at: usize, part: &str| format!("{}.layers.{layer}.{part}", MODALITIES[at]);
        let mut own = |at: usize| {
            let x = p.norm(&name(at, "norm1"), &streams[at]);
            let attended = self.attention(&name(at, "self_attn"), (&x, &x), keys, drop);
            &streams[at] + drop(attended)
        };
        let streams = [own(0), own(1)];
        let normed = [0, 1].map(|at| p.norm(&name(at, "norm2"), &streams[at]));
        let mut rest = |at: usize| {
            let pair = (&normed[at], &normed[1 - at]);
            let attended = self.attention(&name(at, "cross_attn"), pair, keys, drop);
            let x = &streams[at] + drop(attended);
            let inner = p.linear(&name(at, "linear1"), &p.norm(&name(at, "norm3"), &x)); // [B, T, F]
            let inner = drop(inner.gelu("none"));
            let inner = drop(p.linear(&name(at, "linear2"), &inner)); // [B, T, H]
            x + inner
        };
        [rest(0), rest(1)]
    }

    /// Attention of the first rows to the second rows, `[B, T, H]` to `[B, T, H]`.
    fn attention(
        &self,
        name: &str,
        (query, key): (&Tensor, &Tensor),
        keys: Option<&Tensor>,
        drop: &mut dyn FnMut(Tensor) -> Tensor,
    ) -> Tensor {
        let p = &self.parameters;
        let weight = p.get(&format!("{name}.in_proj_weight")).chunk(3, 0); // 3 × [H, H]
        let bias = p.get(&format!("{name}.in_proj_bias")).chunk(3, 0); // 3 × [H]
        let project = |x: &Tensor, at: usize| x.linear(&weight[at], Some(&bias[at]));
        let projected = Projected {
            query: project(query, 0),
            key: project(key, 1),
            value: project(key, 2),
        };
        attend(p, name, &projected, (self.settings.heads, keys), drop)
    }
}

/// The sines and cosines of the positions of T segments, `[T, H]`: column 2i is sin(t / 10000^(2i/H)), and column
/// 2i + 1 its cosine.
///
/// Source: Vaswani et al. 2017, section 3.5.
fn positions(time: i64, hidden: i64) -> Tensor {
    let value = |at: i64| {
        let (t, column) = (at / hidden, at % hidden);
        let angle = t as f64 / 10000_f64.powf((column - column % 2) as f64 / hidden as f64);
        let value = if column % 2 == 0 { angle.sin() } else { angle.cos() };
        value as f32
    };
    let values: Vec<f32> = (0..time * hidden).map(value).collect();
    Tensor::from_slice(&values).view([time, hidden])
}
