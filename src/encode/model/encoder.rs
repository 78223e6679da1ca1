//! Batches of media, and texts, to embeddings of unit length.

use std::borrow::Cow;
use std::path::PathBuf;

use ort::session::{Session, SessionInputValue};

use super::ModelError;
use super::folder::{Kind, ModelFolder};
use super::ports::{Given, Port, Role, output};
use super::session::{SessionOptions, open};
use crate::encode::image::ImageSettings;
use crate::encode::sound::mel::MelScale;
use crate::encode::sound::{SoundFeatures, SoundSettings};
use crate::encode::tokenizer::Tokenizer;

/// A session with what is known of its inputs and of its output.
struct Model {
    path: PathBuf,
    session: Session,
    ports: Vec<Port>,
    output: String,
    sha256: String,
    /// Size of the batch where the model takes no other.
    fixed: Option<usize>,
}

impl Model {
    fn open(
        path: &std::path::Path,
        wanted: &str,
        role: Role,
        options: &SessionOptions,
    ) -> Result<Model, ModelError> {
        let problem = |problem: String| ModelError::Model {
            path: path.to_owned(),
            problem,
        };
        let (session, sha256) = open(path, options)?;
        let ports = Port::all(&session).map_err(problem)?;
        let mut own = ports.iter().filter(|port| port.role == role);
        let port = match (own.next(), own.next()) {
            (Some(port), None) => port,
            (found, _) => {
                let many = if found.is_some() {
                    "several inputs"
                } else {
                    "no input"
                };
                let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
                let what = match role {
                    Role::Pixels => "pixel_values (f32, rank 4)",
                    Role::Features => "input_features (f32, rank 4)",
                    _ => "input_ids (i64, rank 2)",
                };
                let names = names.join(", ");
                return Err(problem(format!(
                    "has {many} for {what}, expected one (inputs: {names})"
                )));
            }
        };
        let fixed = usize::try_from(port.shape[0]).ok().filter(|&size| size > 0);
        let output = output(&session, wanted).map_err(problem)?;
        Ok(Model {
            path: path.to_owned(),
            session,
            ports,
            output,
            sha256,
            fixed,
        })
    }

    fn shape(&self, role: Role) -> Option<&[i64]> {
        self.ports
            .iter()
            .find(|port| port.role == role)
            .map(|port| &*port.shape)
    }

    /// Rows of the output, each made unit length; `what` is told where it fails.
    fn run(&mut self, given: &[(Role, Given<'_>)], rows: usize, what: &str) -> Result<Vec<f32>, ModelError> {
        let path = &self.path;
        let failed = |source: ort::Error| ModelError::Run {
            path: path.clone(),
            what: what.to_owned(),
            source,
        };
        let inputs = self
            .ports
            .iter()
            .map(|port| {
                let (_, given) = given
                    .iter()
                    .find(|(role, _)| *role == port.role)
                    .expect("every role is given");
                Ok((Cow::from(port.name.as_str()), port.value(given)?))
            })
            .collect::<ort::Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>>>()
            .map_err(failed)?;
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (shape, values) = outputs[self.output.as_str()]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        let width = match shape[..] {
            [found, width] if found == rows as i64 && width > 0 => width as usize,
            _ => {
                return Err(ModelError::Model {
                    path: path.clone(),
                    problem: format!(
                        "gives `{}` of shape {:?}, expected [{rows}, width]",
                        self.output,
                        &shape[..]
                    ),
                });
            }
        };
        let mut values = values.to_vec();
        for row in values.chunks_exact_mut(width) {
            unit(row).map_err(|problem| ModelError::Embedding {
                path: path.clone(),
                what: what.to_owned(),
                problem,
            })?;
        }
        Ok(values)
    }
}

/// Makes a row unit length.
fn unit(row: &mut [f32]) -> Result<(), &'static str> {
    let square: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    if !square.is_finite() {
        return Err("holds NaN or infinity");
    }
    if square == 0.0 {
        return Err("is all zeros");
    }
    let length = square.sqrt();
    row.iter_mut()
        .for_each(|value| *value = (f64::from(*value) / length) as f32);
    Ok(())
}

/// What prepares media for an encoder, in any thread.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum Preparation {
    /// Pictures to pixels.
    Image(ImageSettings),
    /// Sound to log-mel features.
    Sound(SoundSettings),
}

/// The vision or audio model of a folder.
pub struct Encoder {
    model: Model,
    kind: Kind,
    preparation: Preparation,
    /// Values of one picture or clip, as prepared.
    values: usize,
    /// Shape of one, without the batch.
    shape: Vec<i64>,
    /// Channels of features: 4 for fused models, which take four of a long clip.
    channels: usize,
    width: usize,
}

impl Encoder {
    /// Opens the model, asks what it takes and gives, and runs it once on nothing.
    ///
    /// # Errors
    /// [`ModelError`], which says what was found and what is needed.
    pub fn open(folder: &ModelFolder, options: &SessionOptions) -> Result<Encoder, ModelError> {
        let (role, wanted) = match folder.kind {
            Kind::Clip => (Role::Pixels, "image_embeds"),
            Kind::Clap => (Role::Features, "audio_embeds"),
        };
        let model = Model::open(&folder.media, wanted, role, options)?;
        let problem = |problem: String| ModelError::Model {
            path: folder.media.clone(),
            problem,
        };
        let asked = model.shape(role).expect("the role was found").to_vec();
        let (preparation, shape, channels) = match folder.kind {
            Kind::Clip => {
                let image = image_settings(folder, &asked).map_err(problem)?;
                let size = image.size as i64;
                (Preparation::Image(image), vec![3, size, size], 1)
            }
            Kind::Clap => {
                let fused = asked[1] == 4 || model.shape(Role::Longer).is_some();
                let mut sound = folder.sound.clone();
                if fused && !folder.mel_told {
                    sound.mel = MelScale::Htk;
                }
                let (frames, bands) = SoundFeatures::new(&sound).shape();
                let channels = if fused { 4 } else { 1 };
                let shape = vec![channels as i64, frames as i64, bands as i64];
                if asked[1..]
                    .iter()
                    .zip(&shape)
                    .any(|(&asked, &made)| asked > 0 && asked != made)
                {
                    return Err(problem(format!(
                        "takes features of {:?}, expected {shape:?}",
                        &asked[1..]
                    )));
                }
                (Preparation::Sound(sound), shape, channels)
            }
        };
        let values: usize = shape.iter().map(|&size| size as usize).product::<usize>() / channels;
        let mut encoder = Encoder {
            model,
            kind: folder.kind,
            preparation,
            values,
            shape,
            channels,
            width: 0,
        };
        let nothing = vec![0.0; encoder.values];
        encoder.width = encoder.encode(&nothing, "a trial of zeros")?.len();
        Ok(encoder)
    }

    /// Its file.
    pub fn path(&self) -> &std::path::Path {
        &self.model.path
    }

    /// What it wants of media.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// Values of one picture or clip, as prepared.
    pub fn values(&self) -> usize {
        self.values
    }

    /// D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// SHA-256, hex, of the model.
    pub fn sha256(&self) -> &str {
        &self.model.sha256
    }

    /// Embeddings of unit length, `[B, width]`, of `[B, values]` prepared values; `what` names them in an error.
    ///
    /// # Errors
    /// [`ModelError::Run`], [`ModelError::Embedding`].
    pub fn encode(&mut self, prepared: &[f32], what: &str) -> Result<Vec<f32>, ModelError> {
        let rows = prepared.len() / self.values;
        let step = self.model.fixed.unwrap_or(rows.max(1));
        let mut embeddings = Vec::with_capacity(rows * self.width);
        for part in prepared.chunks(step * self.values) {
            let own = part.len() / self.values;
            let mut input = Cow::Borrowed(part);
            if self.channels > 1 {
                // A clip that is not longer is told four times, as transformers does.
                let repeated = part
                    .chunks_exact(self.values)
                    .flat_map(|clip| clip.repeat(self.channels));
                input = Cow::Owned(repeated.collect());
            }
            if own < step {
                input.to_mut().resize(step * self.values * self.channels, 0.0);
            }
            let mut shape = vec![step as i64];
            shape.extend(&self.shape);
            let role = if self.kind == Kind::Clip {
                Role::Pixels
            } else {
                Role::Features
            };
            let mut given = vec![(role, Given::Floats(shape, input))];
            // transformers marks a lone short clip as longer, so that its fusion has something to fuse.
            given.push((Role::Longer, Given::Whole(vec![step as i64, 1], vec![1; step])));
            for (role, value) in [(Role::Ids, 0), (Role::Mask, 1), (Role::Types, 0)] {
                given.push((role, Given::Whole(vec![1, 2], vec![value; 2])));
            }
            let mut rows = self.model.run(&given, step, what)?;
            rows.truncate(rows.len() / step * own);
            embeddings.extend(rows);
        }
        Ok(embeddings)
    }
}

fn image_settings(folder: &ModelFolder, asked: &[i64]) -> Result<ImageSettings, String> {
    let mut image = folder.image.clone();
    if asked[1] > 0 && asked[1] != 3 {
        return Err(format!("takes pictures of {} channels, expected 3", asked[1]));
    }
    for &size in asked[2..].iter().filter(|&&size| size > 0) {
        if !folder.image_size_told {
            image.size = size as usize;
        }
        if size != image.size as i64 {
            return Err(format!(
                "takes pictures of {:?}, expected {} on a side",
                &asked[2..],
                image.size
            ));
        }
    }
    Ok(image)
}

/// The text model of a folder, with its tokenizer.
pub struct TextEncoder {
    model: Model,
    tokenizer: Tokenizer,
    kind: Kind,
    most: usize,
    pad: u32,
    /// Length of texts where the model takes no other.
    fixed: Option<usize>,
    /// Shape of one picture or clip, for models that want both.
    other: (Role, Vec<i64>),
}

impl TextEncoder {
    /// Opens the model and its tokenizer.
    ///
    /// # Errors
    /// [`ModelError`], which says what was found and what is needed.
    pub fn open(folder: &ModelFolder, options: &SessionOptions) -> Result<TextEncoder, ModelError> {
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
        if fixed.is_some() && folder.kind == Kind::Clap && model.shape(Role::Mask).is_none() {
            return Err(ModelError::Model {
                path: folder.text.clone(),
                problem: format!(
                    "takes texts of {asked:?} without a mask: padding would change every embedding, expected any \
                     length or an attention_mask"
                ),
            });
        }
        let other = match folder.kind {
            Kind::Clip => {
                let asked = model.shape(Role::Pixels).unwrap_or(&[-1, 3, -1, -1]);
                let size = if asked[2] > 0 {
                    asked[2]
                } else {
                    folder.image.size as i64
                };
                (Role::Pixels, vec![1, 3, size, size])
            }
            Kind::Clap => {
                let (frames, bands) = SoundFeatures::new(&folder.sound).shape();
                let channels = model.shape(Role::Features).map_or(1, |asked| asked[1].max(1));
                (Role::Features, vec![1, channels, frames as i64, bands as i64])
            }
        };
        let usual = match folder.kind {
            Kind::Clip => tokenizer.end(),
            Kind::Clap => 1,
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

    /// SHA-256, hex, of the model.
    pub fn sha256(&self) -> &str {
        &self.model.sha256
    }

    /// What it encodes.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Embedding of unit length of a text.
    ///
    /// One text at a time, and padded only where the model wants a length: without a mask padding changes CLAP's
    /// embeddings (cosine down to 0.92).
    ///
    /// # Errors
    /// [`ModelError::Run`], [`ModelError::Embedding`].
    pub fn encode(&mut self, text: &str) -> Result<Vec<f32>, ModelError> {
        let mut ids: Vec<i64> = self
            .tokenizer
            .encode(text, self.most)
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
            (Role::Ids, Given::Whole(shape.clone(), ids)),
            (Role::Mask, Given::Whole(shape.clone(), mask)),
            (Role::Types, Given::Whole(shape, types)),
            (*role, Given::Floats(other.clone(), Cow::Owned(zeros))),
            (Role::Longer, Given::Whole(vec![1, 1], vec![1])),
        ];
        self.model.run(&given, 1, &format!("the text `{text}`"))
    }
}
