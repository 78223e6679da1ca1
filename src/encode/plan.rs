//! Makes the plan of an encoding run: the models, media and prompts that a request means.
//!
//! Making a plan decodes no media and opens no model. The name of a plan is a hash of everything that the features
//! depend on. A later run compares this name with the name in `encode.json`, and so finds out that it has nothing to
//! do.

use std::sync::Arc;

use sha2::Digest;
use vaplan_schemas::rows::RejectRow;

use super::error::EncodeError;
use super::media::{Media, Pictures, find, frames};
use super::model::{ModelFolder, ModelKind};
use super::prompts::ClassPrompts;
use super::read::READING;
use super::run::EncodeRequest;
use crate::ingest::IngestError;
use crate::ingest::annotations::{Annotations, read_classes};
use crate::ingest::seen::{SeenInputs, one_spelling};
use crate::world::hash::{feed, hash};

/// The models and media of an encoding run.
pub(super) struct EncodePlan {
    /// Model folders, the visual one first.
    pub(super) models: Vec<ModelFolder>,
    /// Media of each video.
    pub(super) media: Vec<Media>,
    /// Rejected rows: files in the media folders that were left out.
    pub(super) rejects: Vec<RejectRow>,
    /// Number of annotated videos that no media folder has.
    pub(super) absent: u64,
    /// Names of the classes.
    pub(super) classes: Option<Vec<Arc<str>>>,
    /// Prompts of the classes.
    pub(super) prompts: Option<ClassPrompts>,
    /// Name of the plan: SHA-256 in hexadecimal.
    pub(super) name: String,
    /// The files of the models and media, and which of them are the same as before.
    pub(super) seen: SeenInputs,
}

impl EncodePlan {
    /// Makes the plan of a request. The function lists folders and reads small text files; it opens no model and no
    /// media.
    ///
    /// # Errors
    /// Returns [`EncodeError`] if a model folder or an input cannot be used, or if there are no media to encode.
    pub(super) fn open(request: &EncodeRequest) -> Result<EncodePlan, EncodeError> {
        let models = models(request)?;
        let Names { names, classes } = Names::read(request)?;
        let (media, rejects) = find::find(&request.media, names.as_deref())?;
        let absent = names.map_or(0, |names| names.len().saturating_sub(media.len()) as u64);
        if media.is_empty() {
            return Err(nothing(request));
        }
        let tags = models.iter().any(|folder| folder.kind == ModelKind::Classifier);
        if tags && classes.is_none() {
            return Err(EncodeError::Settings(
                "a classifier's scores need classes to stand for, expected --annotations or --classes"
                    .to_owned(),
            ));
        }
        let read = if tags {
            ClassPrompts::read_names
        } else {
            ClassPrompts::read
        };
        let prompts = classes
            .as_ref()
            .map(|classes| read(request.prompts.as_deref(), classes));
        let mut seen = SeenInputs::open(&request.cache_folder());
        Ok(EncodePlan {
            prompts: prompts.transpose()?,
            name: name(request, &models, &media, classes.as_deref(), &mut seen)?,
            seen,
            models,
            media,
            rejects,
            absent,
            classes,
        })
    }
}

/// Returns the name of the plan of a request. If `encode.json` of a folder has this name as `asked`, the folder has
/// the features that the request asks for.
///
/// # Errors
/// Returns [`EncodeError`] if a model folder or an input cannot be used, or if there are no media to encode.
pub fn name_of(request: &EncodeRequest) -> Result<String, EncodeError> {
    Ok(EncodePlan::open(request)?.name)
}

/// Computes the name of a plan: the SHA-256 (in hexadecimal) of the models, media, prompts and settings. For large
/// files, the hash has the identity instead of the contents ([`SeenInputs`]), so that a plan is made quickly.
///
/// # Errors
/// Returns [`EncodeError::Ingest`] if the prompts file cannot be read.
fn name(
    request: &EncodeRequest,
    models: &[ModelFolder],
    media: &[Media],
    classes: Option<&[Arc<str>]>,
    seen: &mut SeenInputs,
) -> Result<String, EncodeError> {
    let prompts = match &request.prompts {
        Some(path) => std::fs::read_to_string(path).map_err(IngestError::io("read", path))?,
        None => String::new(),
    };
    let mut frames_of = Vec::new();
    for own in media {
        frames_of.push(match &own.pictures {
            // A folder that cannot be listed becomes a rejected row later, when the reader lists it.
            Some(Pictures::Frames(folder)) => frames::list(folder).unwrap_or_default().paths,
            Some(Pictures::Video(path)) => vec![path.clone()],
            None => Vec::new(),
        });
    }
    seen.look_at(frames_of.iter().flatten());
    seen.look_at(media.iter().flat_map(|own| &own.sound));
    Ok(hash(|sum| {
        let form = (
            &request.cut,
            &request.form,
            request.clip.is_some(),
            request.clap.is_some(),
        );
        feed(
            sum,
            [env!("CARGO_PKG_VERSION"), READING, &prompts, &format!("{form:?}")],
        );
        for folder in models {
            let files = [&folder.media, &folder.text, &folder.tokenizer].map(|file| one_spelling(file));
            files.iter().for_each(|file| seen.feed(sum, file));
            let [media, text, tokenizer] = files;
            let settings = ModelFolder {
                path: one_spelling(&folder.path),
                media,
                text,
                tokenizer,
                ..folder.clone()
            };
            feed(sum, [&*format!("{settings:?}")]);
        }
        feed(sum, classes.unwrap_or_default().iter().map(|class| &**class));
        for (own, frames) in media.iter().zip(&frames_of) {
            feed(sum, [&*own.name, &frames.len().to_string()]);
            frames.iter().for_each(|file| seen.feed(sum, file));
            sum.update([u8::from(own.sound.is_some())]);
            own.sound.iter().for_each(|file| seen.feed(sum, file));
        }
    }))
}

/// Finds the model folders of the request, the visual one first.
pub(super) fn models(request: &EncodeRequest) -> Result<Vec<ModelFolder>, EncodeError> {
    let mut models = Vec::new();
    for (path, kind, flag) in [
        (&request.clip, ModelKind::Clip, "--clip"),
        (&request.clap, ModelKind::Clap, "--clap"),
    ] {
        let Some(path) = path else { continue };
        let mut folder = ModelFolder::find(path)?;
        if folder.kind != kind && !(kind == ModelKind::Clap && folder.kind == ModelKind::Classifier) {
            let (path, found) = (path.display(), folder.kind);
            return Err(EncodeError::Settings(format!(
                "{flag} `{path}` is a {found} model, expected {kind}"
            )));
        }
        folder.image.resize = request.resize.unwrap_or(folder.image.resize);
        models.push(folder);
    }
    if models.is_empty() {
        return Err(EncodeError::Settings(
            "no model is given, expected --clip, --clap or both".to_owned(),
        ));
    }
    Ok(models)
}

fn nothing(request: &EncodeRequest) -> EncodeError {
    let folders: Vec<String> = request
        .media
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    let whose = if request.annotations.is_some() {
        " of an annotated video"
    } else {
        ""
    };
    EncodeError::Settings(format!(
        "{} holds no media{whose}, expected <video>.mp4, <video>.wav or folders <video>/ of frames",
        folders.join(", ")
    ))
}

/// Names of the videos and classes that the request names; `None` where the request names none.
struct Names {
    names: Option<Vec<Arc<str>>>,
    classes: Option<Vec<Arc<str>>>,
}

impl Names {
    fn read(request: &EncodeRequest) -> Result<Names, IngestError> {
        let classes = request.classes.as_deref().map(read_classes).transpose()?;
        let Some(folder) = &request.annotations else {
            return Ok(Names { names: None, classes });
        };
        let annotations = Annotations::read_with_classes(folder, classes)?;
        let wanted = annotations
            .videos
            .iter()
            .filter(|video| request.splits.contains(&video.split));
        Ok(Names {
            names: Some(wanted.map(|video| video.name.into()).collect()),
            classes: Some(annotations.classes),
        })
    }
}
