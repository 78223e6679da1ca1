//! Computes embeddings of unit length, or a classifier's scores, from batches of media.

use std::borrow::Cow;
use std::path::PathBuf;

use ort::session::{Session, SessionInputValue};

use super::ModelError;
use super::folder::{ClassifierSettings, ModelFolder, ModelKind, Quantised};
use super::ports::{ModelInput, Port, Role, floats, output};
use super::session::{SessionOptions, open};
use crate::encode::image::ImageSettings;
use crate::encode::sound::mel::MelScale;
use crate::encode::sound::{SoundFeatures, SoundSettings, patch};

/// A session, with its inputs and the name of its output.
pub(super) struct Model {
    path: PathBuf,
    session: Session,
    ports: Vec<Port>,
    output: String,
    pub(super) sha256: String,
    /// Number of rows in a batch, if the model takes only one size.
    fixed: Option<usize>,
}

impl Model {
    pub(super) fn open(
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
                    Role::Pixels => "pixel_values (f32 or f16, rank 4)",
                    Role::Features => "input_features (f32 or f16, rank 4)",
                    _ => "input_ids (i64, rank 2)",
                };
                let names = names.join(", ");
                return Err(problem(format!(
                    "has {many} for {what}, expected one (inputs: {names})"
                )));
            }
        };
        let fixed = usize::try_from(port.shape[0]).ok().filter(|&size| size > 0);
        // Only a classifier may take or give bytes.
        let bytes = wanted == SCORES;
        if let Some(port) = ports.iter().find(|port| port.is_bytes() && !bytes) {
            return Err(problem(format!(
                "takes `{}` as bytes, expected f32 or f16",
                port.name
            )));
        }
        let output = output(&session, wanted, bytes).map_err(problem)?;
        Ok(Model {
            path: path.to_owned(),
            session,
            ports,
            output,
            sha256,
            fixed,
        })
    }

    pub(super) fn shape(&self, role: Role) -> Option<&[i64]> {
        self.ports
            .iter()
            .find(|port| port.role == role)
            .map(|port| &*port.shape)
    }

    /// Runs the model, and scales each row of the output to unit length. `what` names the input in an error.
    pub(super) fn run(
        &mut self,
        given: &[(Role, ModelInput<'_>)],
        rows: usize,
        what: &str,
    ) -> Result<Vec<f32>, ModelError> {
        let mut values = self.raw(given, rows, what, None)?;
        let width = (values.len() / rows).max(1);
        for row in values.chunks_exact_mut(width) {
            unit(row).map_err(|problem| ModelError::Embedding {
                path: self.path.clone(),
                what: what.to_owned(),
                problem,
            })?;
        }
        Ok(values)
    }

    /// Runs the model, and returns the rows of the output unchanged. If `bytes` is given, it converts output bytes to
    /// numbers.
    fn raw(
        &mut self,
        given: &[(Role, ModelInput<'_>)],
        rows: usize,
        what: &str,
        bytes: Option<Quantised>,
    ) -> Result<Vec<f32>, ModelError> {
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
        let output = &outputs[self.output.as_str()];
        let (shape, values) = match bytes {
            None => floats(output).map_err(failed)?,
            Some(quantization) => {
                let (shape, values) = output.try_extract_tensor::<u8>().map_err(failed)?;
                let number = |&byte: &u8| {
                    ((f64::from(byte) - f64::from(quantization.zero)) * quantization.scale) as f32
                };
                (shape.clone(), values.iter().map(number).collect())
            }
        };
        match shape[..] {
            [found, width] if found == rows as i64 && width > 0 => Ok(values),
            _ => Err(ModelError::Model {
                path: path.clone(),
                problem: format!(
                    "gives `{}` of shape {:?}, expected [{rows}, width]",
                    self.output,
                    &shape[..]
                ),
            }),
        }
    }
}

/// Name of a classifier's output.
const SCORES: &str = "class_scores";

/// Scales a row to unit length.
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

/// How media are prepared for an encoder. Any thread can do the preparation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum Preparation {
    /// Turn pictures into pixels.
    Image(ImageSettings),
    /// Turn sound into log-mel features.
    Sound(SoundSettings),
    /// Turn sound into YAMNet's patches.
    Patch(ClassifierSettings),
}

impl Preparation {
    /// The preparation as JSON text: equal preparations have equal texts.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("settings are names and finite numbers")
    }
}

/// The vision model, audio model or classifier of a folder.
pub struct Encoder {
    model: Model,
    kind: ModelKind,
    preparation: Preparation,
    /// Number of prepared values of one picture or clip.
    values: usize,
    /// Shape of one picture or clip, without the dimension of the batch.
    shape: Vec<i64>,
    /// Number of channels of the features: 4 for fused models, which take four views of a long clip; otherwise 1.
    channels: usize,
    width: usize,
}

impl Encoder {
    /// Opens the model, checks its inputs and its output, and runs it once on zeros.
    ///
    /// # Errors
    /// Returns [`ModelError`], which says what was found and what was expected, if the model cannot be used.
    pub fn open(folder: &ModelFolder, options: &SessionOptions) -> Result<Encoder, ModelError> {
        let (role, wanted) = match folder.kind {
            ModelKind::Clip => (Role::Pixels, "image_embeds"),
            ModelKind::Clap => (Role::Features, "audio_embeds"),
            ModelKind::Classifier => (Role::Features, SCORES),
        };
        let model = Model::open(&folder.media, wanted, role, options)?;
        let problem = |problem: String| ModelError::Model {
            path: folder.media.clone(),
            problem,
        };
        let asked = model.shape(role).expect("the role was found").to_vec();
        let (preparation, shape, channels) = match folder.kind {
            ModelKind::Clip => {
                let image = image_settings(folder, &asked).map_err(problem)?;
                let size = image.size as i64;
                (Preparation::Image(image), vec![3, size, size], 1)
            }
            ModelKind::Clap => {
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
            ModelKind::Classifier => {
                let shape = vec![1, patch::FRAMES as i64, patch::BANDS as i64];
                if asked[1..]
                    .iter()
                    .zip(&shape)
                    .any(|(&asked, &made)| asked > 0 && asked != made)
                {
                    return Err(problem(format!(
                        "takes patches of {:?}, expected {shape:?}",
                        &asked[1..]
                    )));
                }
                let ports = folder.classifier.clone();
                if model.ports[0].is_bytes() && ports.input.is_none() {
                    return Err(problem(
                        "takes bytes, expected `input` with scale and zero in vaplan.toml".to_owned(),
                    ));
                }
                (Preparation::Patch(ports), shape, 1)
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
        encoder.width = encoder.trial()?;
        Ok(encoder)
    }

    /// Runs the model on one picture or clip of zeros. Returns the number of values of an embedding (D).
    ///
    /// # Errors
    /// Returns the errors of [`Encoder::encode`].
    pub fn trial(&mut self) -> Result<usize, ModelError> {
        let nothing = vec![0.0; self.values];
        // The inputs of an exported model often have no fixed size. A wrong size then fails only inside the model.
        let what = match &self.preparation {
            Preparation::Image(settings) => format!(
                "a trial of zeros (a picture of {0} by {0} pixels; if the model takes another size, set `size` below \
                 `[image]` in vaplan.toml, or `crop_size` in preprocessor_config.json)",
                settings.size
            ),
            _ => "a trial of zeros".to_owned(),
        };
        Ok(self.encode(&nothing, &what)?.len())
    }

    /// File of the model.
    pub fn path(&self) -> &std::path::Path {
        &self.model.path
    }

    /// How media are prepared for the model.
    pub fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// Number of prepared values of one picture or clip.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Number of values of an embedding (D).
    pub fn width(&self) -> usize {
        self.width
    }

    /// SHA-256 of the model, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.model.sha256
    }

    /// Computes embeddings of unit length, or a classifier's scores, of shape `[B, width]`. `prepared` has the prepared
    /// values, of shape `[B, values]`; `what` names them in an error.
    ///
    /// # Errors
    /// Returns [`ModelError::Run`] if the model fails, [`ModelError::Model`] if its output has another shape than
    /// expected, and [`ModelError::Embedding`] if an embedding is all zeros or has values that are not finite.
    pub fn encode(&mut self, prepared: &[f32], what: &str) -> Result<Vec<f32>, ModelError> {
        let rows = prepared.len() / self.values;
        let step = self.model.fixed.unwrap_or(rows.max(1));
        let mut embeddings = Vec::with_capacity(rows * self.width);
        for part in prepared.chunks(step * self.values) {
            let own = part.len() / self.values;
            let mut input = Cow::Borrowed(part);
            if self.channels > 1 {
                // A fused model takes four views of a long clip. This clip is short, so all four are the clip itself,
                // as in transformers.
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
            let role = if self.kind == ModelKind::Clip {
                Role::Pixels
            } else {
                Role::Features
            };
            let mut given = match &self.preparation {
                Preparation::Patch(ClassifierSettings {
                    input: Some(quantization),
                    ..
                }) if self.model.ports[0].is_bytes() => {
                    // Ties round to even, as in numpy, so that the bytes equal the bytes that numpy computes for this
                    // model.
                    let byte = |&value: &f32| {
                        (f64::from(value) / quantization.scale + f64::from(quantization.zero))
                            .round_ties_even()
                            .clamp(0.0, 255.0) as u8
                    };
                    vec![(role, ModelInput::Bytes(shape, input.iter().map(byte).collect()))]
                }
                _ => vec![(role, ModelInput::Floats(shape, input))],
            };
            // transformers marks a clip that is alone in its batch as longer, also if it is short. Do the same for
            // every clip, so that a clip's embedding does not depend on the other clips of its batch.
            given.push((
                Role::Longer,
                ModelInput::Whole(vec![step as i64, 1], vec![1; step]),
            ));
            for (role, value) in [(Role::Ids, 0), (Role::Mask, 1), (Role::Types, 0)] {
                given.push((role, ModelInput::Whole(vec![1, 2], vec![value; 2])));
            }
            let mut rows = match &self.preparation {
                Preparation::Patch(ports) => self.model.raw(&given, step, what, ports.output)?,
                _ => self.model.run(&given, step, what)?,
            };
            if rows.iter().any(|value| !value.is_finite()) {
                return Err(ModelError::Embedding {
                    path: self.model.path.clone(),
                    what: what.to_owned(),
                    problem: "holds NaN or infinity",
                });
            }
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
        if !folder.image_size_given {
            image.size = size as usize;
        }
        if size != image.size as i64 {
            return Err(format!(
                "takes pictures of {:?}, expected {} on a side: set `size = {size}` below `[image]` in vaplan.toml, or \
                 correct `crop_size` in preprocessor_config.json",
                &asked[2..],
                image.size
            ));
        }
    }
    Ok(image)
}
