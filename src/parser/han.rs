//! HAN, the hybrid attention network for audio-visual video parsing.
//!
//! ```text
//! audio ── fc_a ───────────────────────────┐
//! visual ── fc_v ──┐                       ├─ hat_encoder ──┬─ fc_prob ── sigmoid ──▶ segment probabilities P
//! clips ── fc_st ──┴─ fc_fusion ───────────┘                ├─ fc_frame_att ── softmax over segments ──┐
//!                                                           └─ fc_av_att ── softmax over modalities ───┴─▶ p, p^a, p^v
//! ```
//!
//! Source (grade C): `MMIL_Net`, `Encoder`, `HANLayer` in `nets/net_audiovisual.py` of YapengTian/AVVP-ECCV20, whose
//! parameter names these are. Differences: its 8 frames a segment come in averaged (METHOD.md: the same function);
//! both modalities pass a layer as one batch; a second layer takes the first one's output (there, every layer takes
//! the first one's input, so that only the last counts; with one layer, as published, there is none).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::error::{NetworkError, WeightsProblem};
use super::noise::Noise;
use super::weights::Weights;

/// Sizes of the network; defaults are those published for LLP, without clip features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HanConfig {
    /// Da, width of audio features (VGGish 128).
    pub audio: i64,
    /// Dv, width of visual features (ResNet-152 2048).
    pub visual: i64,
    /// Ds, width of clip features (R(2+1)D 512); none: not used.
    pub clips: Option<i64>,
    /// C.
    pub classes: i64,
    /// H.
    pub hidden: i64,
    /// Width between the two linear maps of a layer.
    pub feedforward: i64,
    /// Layers of the encoder.
    pub layers: usize,
    /// Attention heads; they divide H.
    pub heads: i64,
    /// Probability that an element is dropped in training.
    pub dropout: f64,
}

impl Default for HanConfig {
    fn default() -> HanConfig {
        HanConfig {
            audio: 128,
            visual: 2048,
            clips: None,
            classes: 25,
            hidden: 512,
            feedforward: 512,
            layers: 1,
            heads: 1,
            dropout: 0.1,
        }
    }
}

/// A batch of B videos of at most T segments.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, T, Da]`.
    pub audio: Tensor,
    /// `[B, T, Dv]`.
    pub visual: Tensor,
    /// `[B, T, Ds]`, where the network takes clip features.
    pub clips: Option<Tensor>,
    /// `[B, T]`, true past the end of a video; none: all are of T segments.
    pub padding: Option<Tensor>,
}

/// Probabilities of a batch; past the end of a video they mean nothing.
#[derive(Debug)]
pub struct Outputs {
    /// P^a, `[B, T, C]`.
    pub segment_audio: Tensor,
    /// P^v, `[B, T, C]`.
    pub segment_visual: Tensor,
    /// p^a, `[B, C]`.
    pub audio: Tensor,
    /// p^v, `[B, C]`.
    pub visual: Tensor,
    /// p, `[B, C]`.
    pub video: Tensor,
}

/// The network.
#[derive(Debug)]
pub struct Han {
    config: HanConfig,
    parameters: BTreeMap<String, Tensor>,
}

/// Two parameters that `MMIL_Net` has and never uses; kept, so that its checkpoints exchange.
const UNUSED: [&str; 4] = [
    "hat_encoder.norm1.bias",
    "hat_encoder.norm1.weight",
    "hat_encoder.norm2.bias",
    "hat_encoder.norm2.weight",
];
const EPSILON: f64 = 1e-5;

/// How a parameter begins; as PyTorch's modules do.
#[derive(Clone, Copy)]
enum Start {
    /// Uniform within 1 / sqrt of the width that comes in.
    Linear(i64),
    /// Xavier, uniform.
    Attention,
    Zero,
    One,
}

impl HanConfig {
    /// Names and shapes of all parameters, and how each begins.
    fn parameters(&self) -> Vec<(String, Vec<i64>, Start)> {
        let (h, c) = (self.hidden, self.classes);
        let mut all = Vec::new();
        let mut linear = |name: &str, from: i64, to: i64| {
            all.push((format!("{name}.weight"), vec![to, from], Start::Linear(from)));
            all.push((format!("{name}.bias"), vec![to], Start::Linear(from)));
        };
        linear("fc_a", self.audio, h);
        linear("fc_v", self.visual, h);
        if let Some(clips) = self.clips {
            linear("fc_st", clips, h);
            linear("fc_fusion", 2 * h, h);
        }
        for name in ["fc_prob", "fc_frame_att", "fc_av_att"] {
            linear(name, h, c);
        }
        for layer in 0..self.layers {
            linear(
                &format!("hat_encoder.layers.{layer}.linear1"),
                h,
                self.feedforward,
            );
            linear(
                &format!("hat_encoder.layers.{layer}.linear2"),
                self.feedforward,
                h,
            );
        }
        for layer in 0..self.layers {
            let layer = format!("hat_encoder.layers.{layer}");
            for attention in ["self_attn", "cm_attn"] {
                let name = format!("{layer}.{attention}");
                all.push((format!("{name}.in_proj_weight"), vec![3 * h, h], Start::Attention));
                all.push((format!("{name}.in_proj_bias"), vec![3 * h], Start::Zero));
                all.push((format!("{name}.out_proj.weight"), vec![h, h], Start::Linear(h)));
                all.push((format!("{name}.out_proj.bias"), vec![h], Start::Zero));
            }
            for norm in ["norm1", "norm2"] {
                all.push((format!("{layer}.{norm}.weight"), vec![h], Start::One));
                all.push((format!("{layer}.{norm}.bias"), vec![h], Start::Zero));
            }
        }
        for name in UNUSED {
            let start = if name.ends_with("weight") {
                Start::One
            } else {
                Start::Zero
            };
            all.push((name.to_owned(), vec![h], start));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// # Errors
    /// [`NetworkError::Config`] for a size below 1, heads that do not divide H, or a dropout outside 0..1.
    pub fn check(&self) -> Result<(), NetworkError> {
        let sizes = [
            ("audio", self.audio),
            ("visual", self.visual),
            ("clips", self.clips.unwrap_or(1)),
            ("classes", self.classes),
            ("hidden", self.hidden),
            ("feedforward", self.feedforward),
            ("layers", i64::try_from(self.layers).unwrap_or(i64::MAX)),
            ("heads", self.heads),
        ];
        if let Some((name, size)) = sizes.iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return Err(NetworkError::Config(format!(
                "network: {name} is {size}, expected 1 to 16777216"
            )));
        }
        if self.hidden % self.heads != 0 {
            return Err(NetworkError::Config(format!(
                "network: {} heads do not divide the hidden size {}",
                self.heads, self.hidden
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(NetworkError::Config(format!(
                "network: dropout is {}, expected at least 0 and below 1",
                self.dropout
            )));
        }
        Ok(())
    }

    /// Reads the sizes off weights. Heads and dropout are not in them: as given, or as published.
    ///
    /// # Errors
    /// [`WeightsProblem::Missing`], [`WeightsProblem::Shape`].
    pub fn of_weights(weights: &Weights, heads: Option<i64>) -> Result<HanConfig, WeightsProblem> {
        let matrix = |name: &str| -> Result<(i64, i64), WeightsProblem> {
            let tensor = weights.tensors.get(name).ok_or_else(|| WeightsProblem::Missing {
                name: name.to_owned(),
            })?;
            tensor.size2().map_err(|_| WeightsProblem::Shape {
                name: name.to_owned(),
                found: tensor.size(),
                expected: "two axes".to_owned(),
            })
        };
        let ((hidden, audio), (_, visual)) = (matrix("fc_a.weight")?, matrix("fc_v.weight")?);
        let clips = match weights.tensors.contains_key("fc_st.weight") {
            true => Some(matrix("fc_st.weight")?.1),
            false => None,
        };
        let layers = (0..)
            .take_while(|layer| {
                let name = format!("hat_encoder.layers.{layer}.linear1.weight");
                weights.tensors.contains_key(&name)
            })
            .count();
        let said = |key: &str| weights.metadata.get(key).and_then(|value| value.parse().ok());
        Ok(HanConfig {
            audio,
            visual,
            clips,
            classes: matrix("fc_prob.weight")?.0,
            hidden,
            feedforward: matrix("hat_encoder.layers.0.linear1.weight")?.0,
            layers,
            heads: heads.or_else(|| said("heads")).unwrap_or(1),
            dropout: 0.1,
        })
    }
}

impl Han {
    /// A network of random weights.
    ///
    /// # Errors
    /// As [`HanConfig::check`].
    pub fn new(config: HanConfig, seed: u64, device: Device) -> Result<Han, NetworkError> {
        config.check()?;
        let mut noise = Noise::new(seed, 0, 0.0);
        let mut parameters = BTreeMap::new();
        for (name, shape, start) in config.parameters() {
            let begin = match start {
                Start::Linear(width) => noise.uniform(&shape, (width as f64).sqrt().recip()),
                Start::Attention => noise.uniform(&shape, (6.0 / (shape[0] + shape[1]) as f64).sqrt()),
                Start::Zero => Tensor::f_zeros(&shape, (Kind::Float, Device::Cpu))?,
                Start::One => Tensor::f_ones(&shape, (Kind::Float, Device::Cpu))?,
            };
            parameters.insert(name, begin.f_to_device(device)?.set_requires_grad(true));
        }
        Ok(Han { config, parameters })
    }

    /// Takes the network's parameters out of `weights`; F16, BF16 and F64 become F32.
    ///
    /// # Errors
    /// [`WeightsProblem::Missing`], [`WeightsProblem::Shape`], and sizes that make no network.
    pub fn of_weights(
        config: HanConfig,
        weights: &mut Weights,
        device: Device,
    ) -> Result<Han, WeightsProblem> {
        config
            .check()
            .map_err(|error| WeightsProblem::Format(error.to_string()))?;
        let mut parameters = BTreeMap::new();
        for (name, shape, _) in config.parameters() {
            let tensor = match weights.take(&name) {
                // Never used, so a checkpoint may do without.
                Err(_) if UNUSED.contains(&&*name) => Tensor::zeros(&shape, (Kind::Float, Device::Cpu)),
                tensor => tensor?,
            };
            if tensor.size() != shape {
                return Err(WeightsProblem::Shape {
                    name,
                    found: tensor.size(),
                    expected: format!("{shape:?}"),
                });
            }
            let tensor = tensor
                .f_to_device(device)
                .and_then(|tensor| tensor.f_to_kind(Kind::Float))
                .map_err(|error| WeightsProblem::Format(error.to_string()))?;
            parameters.insert(name, tensor.detach().set_requires_grad(true));
        }
        Ok(Han { config, parameters })
    }

    /// Its sizes.
    pub fn config(&self) -> &HanConfig {
        &self.config
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.parameters["fc_prob.weight"].device()
    }

    /// The parameters that training moves, by name.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let used = self
            .parameters
            .iter()
            .filter(|(name, _)| !UNUSED.contains(&name.as_str()));
        used.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    /// All parameters, for saving; the number of heads is said beside them.
    pub fn weights(&self) -> Weights {
        let tensor = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.detach());
        let heads = ("heads".to_owned(), self.config.heads.to_string());
        Weights {
            tensors: self.parameters.iter().map(tensor).collect(),
            metadata: BTreeMap::from([heads]),
        }
    }

    /// Probabilities of a batch; `noise` is there in training only, for dropout.
    ///
    /// # Panics
    /// When inputs are of other shapes than [`Inputs`] says for this network.
    pub fn forward(&self, inputs: &Inputs, noise: Option<&mut Noise>) -> Outputs {
        let batch = inputs.audio.size()[0];
        let audio = self.linear("fc_a", &inputs.audio); // [B, T, H]
        let mut visual = self.linear("fc_v", &inputs.visual); // [B, T, H]
        if let (Some(_), Some(clips)) = (self.config.clips, &inputs.clips) {
            let clips = self.linear("fc_st", clips); // [B, T, H]
            visual = self.linear("fc_fusion", &Tensor::cat(&[visual, clips], -1)); // [B, T, H]
        }
        let padding = inputs
            .padding
            .as_ref()
            .map(|padding| Padding::new(padding, self.config.heads));
        let mut x = Tensor::cat(&[audio, visual], 0); // [2B, T, H]
        let mut noise = noise;
        for layer in 0..self.config.layers {
            x = self.layer(layer, &x, padding.as_ref(), noise.as_deref_mut());
        }
        let probability = self.linear("fc_prob", &x).sigmoid(); // [2B, T, C]
        let mut over_time = self.linear("fc_frame_att", &x); // [2B, T, C]
        if let Some(padding) = &padding {
            over_time = over_time.masked_fill(&padding.segments, f64::NEG_INFINITY);
        }
        let over_time = over_time.softmax(1, None::<Kind>);
        let by_modality = |tensor: &Tensor| {
            let size = tensor.size();
            tensor.view([2, batch, size[1], size[2]])
        };
        let over_modalities = by_modality(&self.linear("fc_av_att", &x)).softmax(0, None::<Kind>); // [2, B, T, C]
        let pooled = by_modality(&(&over_time * &probability)); // [2, B, T, C]
        let modalities = pooled.sum_dim_intlist(2, false, None::<Kind>); // [2, B, C]
        let probability = by_modality(&probability);
        Outputs {
            segment_audio: probability.get(0),
            segment_visual: probability.get(1),
            audio: modalities.get(0),
            visual: modalities.get(1),
            video: (pooled * over_modalities).sum_dim_intlist([0, 2].as_slice(), false, None::<Kind>),
        }
    }

    /// One layer of the encoder, `[2B, T, H]` to the same; audio first.
    fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        padding: Option<&Padding>,
        mut noise: Option<&mut Noise>,
    ) -> Tensor {
        let name = format!("hat_encoder.layers.{layer}");
        let mut drop = |x: Tensor| match noise.as_deref_mut() {
            Some(noise) => noise.drop(&x),
            None => x,
        };
        let cross = self.attention(&format!("{name}.cm_attn"), x, true, padding, &mut drop);
        let own = self.attention(&format!("{name}.self_attn"), x, false, padding, &mut drop);
        let x = self.norm(&format!("{name}.norm1"), &(x + drop(cross) + drop(own)));
        let inner = drop(self.linear(&format!("{name}.linear1"), &x).relu()); // [2B, T, F]
        let inner = drop(self.linear(&format!("{name}.linear2"), &inner)); // [2B, T, H]
        self.norm(&format!("{name}.norm2"), &(x + inner))
    }

    /// Attention to the segments of the same modality, or (`cross`) of the other one.
    ///
    /// Source: `multi_head_attention_forward` in `torch/nn/functional.py`.
    fn attention(
        &self,
        name: &str,
        x: &Tensor,
        cross: bool,
        padding: Option<&Padding>,
        drop: &mut dyn FnMut(Tensor) -> Tensor,
    ) -> Tensor {
        let (batch, time, hidden) = x.size3().expect("a layer's input has three axes");
        let (heads, width) = (self.config.heads, hidden / self.config.heads);
        let weight = self.parameter(&format!("{name}.in_proj_weight"));
        let bias = self.parameter(&format!("{name}.in_proj_bias"));
        let projected = x.linear(weight, Some(bias)).chunk(3, -1); // 3 of [2B, T, H]
        let split = |x: &Tensor| {
            let by_head = x.reshape([batch, time, heads, width]).transpose(1, 2);
            by_head.reshape([batch * heads, time, width])
        };
        // The other modality's rows: the halves of the batch change places.
        let other = |x: &Tensor| {
            if cross {
                x.roll(batch / 2, 0)
            } else {
                x.shallow_clone()
            }
        };
        let query = split(&projected[0]) * (width as f64).sqrt().recip();
        let (key, value) = (split(&other(&projected[1])), split(&other(&projected[2])));
        let mut scores = query.bmm(&key.transpose(1, 2)); // [2B·heads, T, T]
        if let Some(padding) = padding {
            scores = scores.masked_fill(&padding.keys, f64::NEG_INFINITY);
        }
        let attended = drop(scores.softmax(-1, None::<Kind>)).bmm(&value); // [2B·heads, T, H/heads]
        let joined = attended.reshape([batch, heads, time, width]).transpose(1, 2);
        self.linear(
            &format!("{name}.out_proj"),
            &joined.reshape([batch, time, hidden]),
        )
    }

    fn linear(&self, name: &str, x: &Tensor) -> Tensor {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        x.linear(self.parameter(&weight), Some(self.parameter(&bias)))
    }

    fn norm(&self, name: &str, x: &Tensor) -> Tensor {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (weight, bias) = (self.parameter(&weight), self.parameter(&bias));
        x.layer_norm([self.config.hidden], Some(weight), Some(bias), EPSILON, false)
    }

    fn parameter(&self, name: &str) -> &Tensor {
        &self.parameters[name]
    }
}

/// What is past the end of a video, for both modalities.
struct Padding {
    /// `[2B·heads, 1, T]`.
    keys: Tensor,
    /// `[2B, T, 1]`.
    segments: Tensor,
}

impl Padding {
    /// Of `[B, T]`.
    fn new(padding: &Tensor, heads: i64) -> Padding {
        let both = padding.repeat([2, 1]);
        let keys = both.repeat_interleave_self_int(heads, 0, None);
        Padding {
            keys: keys.unsqueeze(1),
            segments: both.unsqueeze(-1),
        }
    }
}
