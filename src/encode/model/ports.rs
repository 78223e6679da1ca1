//! Finds out from a session what each input takes, and which output has the embeddings.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Shape, Tensor, TensorElementType, TensorRef};

/// The role of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Pixels, of shape `[B, 3, size, size]`.
    Pixels,
    /// Log-mel features, of shape `[B, 1 or 4, frames, bands]`.
    Features,
    /// Token ids, of shape `[B, S]`.
    Ids,
    /// Mask of the token ids, of shape `[B, S]`: 1 for an id of the text, 0 for padding.
    Mask,
    /// Types of the token ids, of shape `[B, S]`: always 0.
    Types,
    /// Flags of shape `[B, 1]`: is the clip longer than the model takes?
    Longer,
}

/// An input of a session.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) role: Role,
    element: TensorElementType,
    /// The shape; -1 means that the input takes any size in this dimension.
    pub(super) shape: Vec<i64>,
}

/// The value that a session gets for an input.
pub(super) enum ModelInput<'a> {
    /// Shape and values.
    Floats(Vec<i64>, Cow<'a, [f32]>),
    /// Shape and values.
    Bytes(Vec<i64>, Vec<u8>),
    /// Shape and values.
    Whole(Vec<i64>, Vec<i64>),
}

impl Port {
    /// Returns all inputs of a session, or an error that names an input that vaplan does not know.
    pub(super) fn all(session: &Session) -> Result<Vec<Port>, String> {
        session
            .inputs()
            .iter()
            .map(|input| Port::new(input, session))
            .collect()
    }

    fn new(input: &Outlet, session: &Session) -> Result<Port, String> {
        let name = input.name();
        let unknown = || {
            format!(
                "takes `{name}` ({}), expected pixel_values or input_features of f32 or f16 and rank 4, or input_ids, \
                 attention_mask, token_type_ids of i64 and rank 2 (inputs: {})",
                input.dtype(),
                names(session.inputs())
            )
        };
        let (Some(element), Some(shape)) = (input.dtype().tensor_type(), input.dtype().tensor_shape()) else {
            return Err(unknown());
        };
        let shape: Vec<i64> = shape.to_vec();
        let whole = matches!(element, TensorElementType::Int64 | TensorElementType::Int32);
        let floats = is_float(element);
        let lower = name.to_ascii_lowercase();
        let has = |part: &str| lower.contains(part);
        let role = match (element, shape.len()) {
            (_, 4) if floats && (has("pixel") || has("image") || has("vision")) => Role::Pixels,
            (_, 4) if floats && (has("feature") || has("audio") || has("mel")) => Role::Features,
            // The name says nothing, but an input with three channels is a picture.
            (_, 4) if floats && shape[1] == 3 => Role::Pixels,
            (TensorElementType::Uint8, 4) => Role::Features,
            (_, 2) if whole && has("mask") => Role::Mask,
            (_, 2) if whole && has("type") => Role::Types,
            (_, 2) if whole && !has("position") => Role::Ids,
            (TensorElementType::Bool, 1 | 2) if has("longer") => Role::Longer,
            _ => return Err(unknown()),
        };
        Ok(Port {
            name: name.to_owned(),
            role,
            element,
            shape,
        })
    }

    /// Does the input take bytes?
    pub(super) fn is_bytes(&self) -> bool {
        self.element == TensorElementType::Uint8
    }

    /// Converts a value to the element type of this input.
    pub(super) fn value<'a>(&self, given: &'a ModelInput<'_>) -> ort::Result<SessionInputValue<'a>> {
        Ok(match given {
            ModelInput::Floats(shape, values) if self.element == TensorElementType::Float16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                Tensor::from_array((shape.clone(), halves))?.into()
            }
            ModelInput::Floats(shape, values) => {
                TensorRef::from_array_view((shape.clone(), &**values))?.into()
            }
            ModelInput::Bytes(shape, values) => {
                TensorRef::from_array_view((shape.clone(), &**values))?.into()
            }
            ModelInput::Whole(shape, values) => match self.element {
                TensorElementType::Bool => {
                    let values: Vec<bool> = values.iter().map(|&value| value != 0).collect();
                    let shape = if self.shape.len() == 1 {
                        vec![shape[0]]
                    } else {
                        shape.clone()
                    };
                    Tensor::from_array((shape, values))?.into()
                }
                TensorElementType::Int32 => {
                    // The cast loses nothing: ids and masks are far below 2^31.
                    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
                    Tensor::from_array((shape.clone(), values))?.into()
                }
                _ => TensorRef::from_array_view((shape.clone(), &**values))?.into(),
            },
        })
    }
}

/// Does a model compute with floats of this type that vaplan converts to and from f32?
fn is_float(element: TensorElementType) -> bool {
    matches!(element, TensorElementType::Float32 | TensorElementType::Float16)
}

/// Returns the shape and the values of an output of f32 or f16 values.
pub(super) fn floats(output: &DynValue) -> ort::Result<(Shape, Vec<f32>)> {
    if output.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let (shape, halves) = output.try_extract_tensor::<f16>()?;
        return Ok((shape.clone(), halves.to_f32_vec()));
    }
    let (shape, values) = output.try_extract_tensor::<f32>()?;
    Ok((shape.clone(), values.to_vec()))
}

/// Returns the name of the output that has the embeddings: the output with the wanted name, or else the only output of
/// f32 or f16 values and rank 2. If `bytes` is true (for a classifier), the output may also have bytes.
pub(super) fn output(session: &Session, wanted: &str, bytes: bool) -> Result<String, String> {
    let embeds = |output: &&Outlet| {
        let element = output.dtype().tensor_type();
        (element.is_some_and(is_float) || bytes && element == Some(TensorElementType::Uint8))
            && output
                .dtype()
                .tensor_shape()
                .is_some_and(|shape| shape.len() == 2)
    };
    if let Some(output) = session.outputs().iter().find(|output| output.name() == wanted) {
        return match embeds(&output) {
            true => Ok(wanted.to_owned()),
            false => Err(format!(
                "gives `{wanted}` as {}, expected f32 or f16 of rank 2",
                output.dtype()
            )),
        };
    }
    let mut others = session.outputs().iter().filter(embeds);
    match (others.next(), others.next()) {
        (Some(only), None) => Ok(only.name().to_owned()),
        _ => Err(format!(
            "gives {}, expected `{wanted}`, or one output of f32 or f16 and rank 2",
            names(session.outputs())
        )),
    }
}

fn names(outlets: &[Outlet]) -> String {
    let names: Vec<String> = outlets
        .iter()
        .map(|outlet| format!("{} {}", outlet.name(), outlet.dtype()))
        .collect();
    names.join(", ")
}
