//! Computes embeddings of unit length from texts.

use std::borrow::Cow;

use super::ModelError;
use super::encoder::Model;
use super::folder::{ModelFolder, ModelKind};
use super::ports::{ModelInput, Role};
use super::session::SessionOptions;
use crate::encode::sound::SoundFeatures;
use crate::encode::tokenizer::Tokenizer;

/// The text model of a folder, with its tokenizer.
pub struct TextEncoder {
    model: Model,
    tokenizer: Tokenizer,
    kind: ModelKind,
    most: usize,
    pad: u32,
    /// Number of ids in a text, if the model takes only one length.
    fixed: Option<usize>,
    /// Role and shape of one picture or clip, for models that take text and media together.
    other: (Role, Vec<i64>),
}

impl TextEncoder {
    /// Opens the text model of a folder and its tokenizer.
    ///
    /// # Errors
    /// Returns [`ModelError`], which says what was found and what was expected, if the model or its tokenizer cannot be
    /// used.
    pub fn open(folder: &ModelFolder, options: &SessionOptions) -> Result<TextEncoder, ModelError> {
        if folder.kind == ModelKind::Classifier {
            return Err(ModelError::Folder {
                path: folder.path.clone(),
                problem: "is a classifier, which takes no text".to_owned(),
            });
        }
        let tokenizer = Tokenizer::read(&folder.tokenizer)?;
        let model = Model::open(&folder.text, "text_embeds", Role::Ids, options)?;
        let asked = model.shape(Role::Ids).expect("the role was found");
        let fixed = usize::try_from(asked[1]).ok().filter(|&length| length > 0);
        if fixed.is_some_and(|length| length < 3) {
            return Err(ModelError::Model {
                path: folder.text.clone(),
                problem: format!("takes texts of {asked:?}, expected 3 ids or more"),
            });
        }
        if fixed.is_some() && folder.kind == ModelKind::Clap && model.shape(Role::Mask).is_none() {
            return Err(ModelError::Model {
                path: folder.text.clone(),
                problem: format!(
                    "takes texts of {asked:?} without a mask: padding would change every embedding, expected any \
                     length or an attention_mask"
                ),
            });
        }
        let other = match folder.kind {
            ModelKind::Clip => {
                let asked = model.shape(Role::Pixels).unwrap_or(&[-1, 3, -1, -1]);
                let size = if asked[2] > 0 {
                    asked[2]
                } else {
                    folder.image.size as i64
                };
                (Role::Pixels, vec![1, 3, size, size])
            }
            ModelKind::Clap | ModelKind::Classifier => {
                let (frames, bands) = SoundFeatures::new(&folder.sound).shape();
                let channels = model.shape(Role::Features).map_or(1, |asked| asked[1].max(1));
                (Role::Features, vec![1, channels, frames as i64, bands as i64])
            }
        };
        let usual = match folder.kind {
            ModelKind::Clip => tokenizer.end(),
            ModelKind::Clap | ModelKind::Classifier => 1,
        };
        Ok(TextEncoder {
            model,
            kind: folder.kind,
            most: fixed.unwrap_or(usize::MAX).min(folder.max_tokens),
            pad: folder.pad.unwrap_or(usual),
            tokenizer,
            fixed,
            other,
        })
    }

    /// SHA-256 of the model, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.model.sha256
    }

    /// The kind of the model.
    pub fn kind(&self) -> ModelKind {
        self.kind
    }

    /// Computes the embedding of a text, of unit length.
    ///
    /// The function encodes one text at a time, so that texts need no padding to a common length. It pads a text only
    /// if the model takes only one length. In a model without a mask, padding changes the embeddings of CLAP: the
    /// cosine between the embeddings with and without padding can be as low as 0.92.
    ///
    /// # Errors
    /// Returns [`ModelError::Tokenizer`] if the text cannot be tokenized, [`ModelError::Run`] if the model fails, and
    /// [`ModelError::Embedding`] if the embedding has no direction.
    pub fn encode(&mut self, text: &str) -> Result<Vec<f32>, ModelError> {
        let mut ids: Vec<i64> = self
            .tokenizer
            .encode(text, self.most)?
            .into_iter()
            .map(i64::from)
            .collect();
        let mut mask = vec![1; ids.len()];
        if let Some(length) = self.fixed {
            ids.resize(length, i64::from(self.pad));
            mask.resize(length, 0);
        }
        let shape = vec![1, ids.len() as i64];
        let types = vec![0; ids.len()];
        let (role, other) = &self.other;
        let zeros = vec![0.0; other.iter().map(|&size| size as usize).product()];
        let given = [
            (Role::Ids, ModelInput::Whole(shape.clone(), ids)),
            (Role::Mask, ModelInput::Whole(shape.clone(), mask)),
            (Role::Types, ModelInput::Whole(shape, types)),
            (*role, ModelInput::Floats(other.clone(), Cow::Owned(zeros))),
            (Role::Longer, ModelInput::Whole(vec![1, 1], vec![1])),
        ];
        self.model.run(&given, 1, &format!("the text `{text}`"))
    }
}
