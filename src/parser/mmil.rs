//! Attentive pooling over segments and modalities (MMIL), which the networks share.
//!
//! ```text
//! hidden rows ─┬─ prob ── sigmoid ──────────────────────────▶ segment probabilities P
//!              ├─ attention ── softmax over segments ───┐
//!              └─ attention ── softmax over modalities ─┴─▶ p, p^a, p^v
//! ```
//!
//! Source (grade C): `MMIL_Net.forward` in `nets/net_audiovisual.py` of YapengTian/AVVP-ECCV20.

use tch::{Kind, Tensor};

use super::network::ParserOutputs;
use super::parameters::Parameters;

/// The names of the linear maps of the pooling.
#[derive(Clone, Copy, Debug)]
pub struct MmilNames {
    /// The logits of the segment probabilities.
    pub probability: &'static str,
    /// The attention over the segments.
    pub segments: &'static str,
    /// The attention over the modalities.
    pub modalities: &'static str,
}

/// The probabilities of the hidden rows `x`, `[2, B, T, H]`, whose first half is audio. `padding`, `[B, T]`, is true past the
/// end of a video.
pub fn pooled(
    parameters: &Parameters,
    names: MmilNames,
    x: &Tensor,
    padding: Option<&Tensor>,
) -> ParserOutputs {
    let probability = parameters.linear(names.probability, x).sigmoid(); // [2, B, T, C]
    let mut over_time = parameters.linear(names.segments, x); // [2, B, T, C]
    if let Some(padding) = padding {
        over_time = over_time.masked_fill(&padding.unsqueeze(0).unsqueeze(-1), f64::NEG_INFINITY);
    }
    let pooled = over_time.softmax(2, None::<Kind>) * &probability; // [2, B, T, C]
    let over_modalities = parameters.linear(names.modalities, x).softmax(0, None::<Kind>); // [2, B, T, C]
    let modalities = pooled.sum_dim_intlist(2, false, None::<Kind>); // [2, B, C]
    ParserOutputs {
        segment_audio: probability.get(0),
        segment_visual: probability.get(1),
        audio: modalities.get(0),
        visual: modalities.get(1),
        video: (pooled * over_modalities).sum_dim_intlist([0, 2].as_slice(), false, None::<Kind>),
    }
}
