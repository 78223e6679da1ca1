//! Multi-head attention, which the networks share.
//!
//! Source: `multi_head_attention_forward` in `torch/nn/functional.py`. The parameters have the names and shapes of
//! `torch.nn.MultiheadAttention`: `in_proj_weight`, `in_proj_bias`, `out_proj.weight`, `out_proj.bias`.

use tch::{Kind, Tensor};

use super::parameters::{Declared, Parameters, Start};

/// Declares the parameters of an attention of width `hidden`, with the initial values of PyTorch.
pub fn attention(declared: &mut Vec<Declared>, name: &str, hidden: i64) {
    declared.push((
        format!("{name}.in_proj_weight"),
        vec![3 * hidden, hidden],
        Start::Attention,
    ));
    declared.push((format!("{name}.in_proj_bias"), vec![3 * hidden], Start::Zero));
    declared.push((
        format!("{name}.out_proj.weight"),
        vec![hidden, hidden],
        Start::Linear(hidden),
    ));
    declared.push((format!("{name}.out_proj.bias"), vec![hidden], Start::Zero));
}

/// The queries, keys and values of an attention, each `[B, T, H]`.
#[derive(Debug)]
pub struct Projected {
    /// The queries.
    pub query: Tensor,
    /// The keys.
    pub key: Tensor,
    /// The values.
    pub value: Tensor,
}

/// Attends to the keys, and returns `[B, T, H]`.
///
/// `keys` is true for keys that do not count, `[B·heads, 1, T]`; [`key_mask`] makes it. `drop` drops out the weights
/// of the attention.
pub fn attend(
    parameters: &Parameters,
    name: &str,
    projected: &Projected,
    (heads, keys): (i64, Option<&Tensor>),
    drop: &mut dyn FnMut(Tensor) -> Tensor,
) -> Tensor {
    let (batch, time, hidden) = projected.query.size3().expect("a layer's input has three axes");
    let width = hidden / heads;
    let split = |x: &Tensor| {
        let by_head = x.reshape([batch, time, heads, width]).transpose(1, 2);
        by_head.reshape([batch * heads, time, width]) // [B·heads, T, H/heads]
    };
    let query = split(&projected.query) * (width as f64).sqrt().recip();
    let (key, value) = (split(&projected.key), split(&projected.value));
    let mut scores = query.bmm(&key.transpose(1, 2)); // [B·heads, T, T]
    if let Some(keys) = keys {
        scores = scores.masked_fill(keys, f64::NEG_INFINITY);
    }
    let attended = drop(scores.softmax(-1, None::<Kind>)).bmm(&value); // [B·heads, T, H/heads]
    let joined = attended.reshape([batch, heads, time, width]).transpose(1, 2);
    parameters.linear(
        &format!("{name}.out_proj"),
        &joined.reshape([batch, time, hidden]),
    )
}

/// The mask of attention keys, `[B·heads, 1, T]`, of the padding `[B, T]`.
pub fn key_mask(padding: &Tensor, heads: i64) -> Tensor {
    padding.repeat_interleave_self_int(heads, 0, None).unsqueeze(1)
}
