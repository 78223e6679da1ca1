//! Batches of media to embeddings of unit length, or to a classifier's scores.

use std::borrow::Cow;
use std::path::PathBuf;

use ort::session::{Session, SessionInputValue};

use super::ModelError;
use super::folder::{ClassifierSettings, ModelFolder, ModelKind, Quantised};
use super::ports::{ModelInput, Port, Role, output};
use super::session::{SessionOptions, open};
use crate::encode::image::ImageSettings;
use crate::encode::sound::mel::MelScale;
use crate::encode::sound::{SoundFeatures, SoundSettings, patch};

/// A session with what is known of its inputs and of its output.
pub(super) struct Model {
    path: PathBuf,
    session: Session,
    ports: Vec<Port>,
    output: String,
    pub(super) sha256: String,
    /// Size of the batch where the model takes no other.
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
        // Only scores are told by bytes.
        let bytes = wanted == SCORES;
        if let Some(port) = ports.iter().find(|port| port.is_bytes() && !bytes) {
            return Err(problem(format!("takes `{}` as bytes, expected f32", port.name)));
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

    /// Rows of the output, each made unit length; `what` is told where it fails.
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

    /// Rows of the output as they are; bytes become numbers.
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
            None => {
                let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
                (shape, values.to_vec())
            }
            Some(told) => {
                let (shape, values) = output.try_extract_tensor::<u8>().map_err(failed)?;
                let number = |&byte: &u8| ((f64::from(byte) - f64::from(told.zero)) * told.scale) as f32;
                (shape, values.iter().map(number).collect())
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

/// Output of a classifier.
const SCORES: &str = "class_scores";

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
    /// Sound to YAMNet's patches.
    Patch(ClassifierSettings),
}

/// The vision or audio model of a folder.
pub struct Encoder {
    model: Model,
    kind: ModelKind,
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
                let told = folder.classifier.clone();
                if model.ports[0].is_bytes() && told.input.is_none() {
                    return Err(problem(
                        "takes bytes, expected `input` with scale and zero in vaplan.toml".to_owned(),
                    ));
                }
                (Preparation::Patch(told), shape, 1)
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

    /// Runs the model on nothing but zeros; gives D.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn trial(&mut self) -> Result<usize, ModelError> {
        let nothing = vec![0.0; self.values];
        Ok(self.encode(&nothing, "a trial of zeros")?.len())
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

    /// Embeddings of unit length, or a classifier's scores, `[B, width]`, of `[B, values]` prepared values; `what`
    /// names them in an error.
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
            let role = if self.kind == ModelKind::Clip {
                Role::Pixels
            } else {
                Role::Features
            };
            let mut given = match &self.preparation {
                Preparation::Patch(ClassifierSettings {
                    input: Some(told), ..
                }) if self.model.ports[0].is_bytes() => {
                    // numpy rounds half to even, and so did whoever made the model's scale.
                    let byte = |&value: &f32| {
                        (f64::from(value) / told.scale + f64::from(told.zero))
                            .round_ties_even()
                            .clamp(0.0, 255.0) as u8
                    };
                    vec![(role, ModelInput::Bytes(shape, input.iter().map(byte).collect()))]
                }
                _ => vec![(role, ModelInput::Floats(shape, input))],
            };
            // transformers marks a lone short clip as longer, so that its fusion has something to fuse.
            given.push((
                Role::Longer,
                ModelInput::Whole(vec![step as i64, 1], vec![1; step]),
            ));
            for (role, value) in [(Role::Ids, 0), (Role::Mask, 1), (Role::Types, 0)] {
                given.push((role, ModelInput::Whole(vec![1, 2], vec![value; 2])));
            }
            let mut rows = match &self.preparation {
                Preparation::Patch(told) => self.model.raw(&given, step, what, told.output)?,
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
