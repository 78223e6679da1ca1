//! The plan of an encoding run: which models, media and prompts a request means, before any of them is decoded. The plan has a
//! name, a hash, by which a later run finds that it has nothing to do.

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
use crate::ingest::seen::{Seen, one_spelling};
use crate::world::hash::{feed, hash};

/// What there is to encode, and by what.
pub(super) struct EncodePlan {
    /// Model folders, visual first.
    pub(super) models: Vec<ModelFolder>,
    /// Media of each video.
    pub(super) media: Vec<Media>,
    /// What of them was left out.
    pub(super) rejects: Vec<RejectRow>,
    /// Annotated videos that no media folder has.
    pub(super) absent: u64,
    /// Names of the classes.
    pub(super) classes: Option<Vec<Arc<str>>>,
    /// Their prompts.
    pub(super) prompts: Option<ClassPrompts>,
    /// SHA-256 of all of it, hex.
    pub(super) name: String,
}

impl EncodePlan {
    /// Opens folders and small files; no model, no media.
    ///
    /// # Errors
    /// [`EncodeError`] for a model or input that cannot be used at all.
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
        Ok(EncodePlan {
            prompts: prompts.transpose()?,
            name: name(request, &models, &media, classes.as_deref())?,
            models,
            media,
            rejects,
            absent,
            classes,
        })
    }
}

/// What `encode.json` of a folder says of itself as `asked`, where the folder holds what is asked.
///
/// # Errors
/// [`EncodeError`] for a model or input that cannot be used at all.
pub fn name_of(request: &EncodeRequest) -> Result<String, EncodeError> {
    Ok(EncodePlan::open(request)?.name)
}

/// Names models, media, prompts and how they become features: SHA-256, hex. Files count by place, size and time.
///
/// # Errors
/// For a prompts file that cannot be read.
fn name(
    request: &EncodeRequest,
    models: &[ModelFolder],
    media: &[Media],
    classes: Option<&[Arc<str>]>,
) -> Result<String, EncodeError> {
    let prompts = match &request.prompts {
        Some(path) => std::fs::read_to_string(path).map_err(IngestError::io("read", path))?,
        None => String::new(),
    };
    let mut frames_of = Vec::new();
    for own in media {
        frames_of.push(match &own.pictures {
            // One that cannot be read is rejected when it is.
            Some(Pictures::Frames(folder)) => frames::list(folder).unwrap_or_default().paths,
            Some(Pictures::Video(path)) => vec![path.clone()],
            None => Vec::new(),
        });
    }
    let mut seen = Seen::default();
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

/// Model folders, visual first.
fn models(request: &EncodeRequest) -> Result<Vec<ModelFolder>, EncodeError> {
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

/// Which videos and classes there are.
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
            names: Some(wanted.map(|video| video.name.clone()).collect()),
            classes: Some(annotations.classes),
        })
    }
}
