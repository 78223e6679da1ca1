//! `vaplan encode`: media folders in, feature shards and text embeddings out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity, Split};
use vaplan_schemas::store::WriteLock;

use super::cache::Cache;
use super::error::EncodeError;
use super::flow::{self, EncodeResults, EncodeThreads};
use super::image::Resize;
use super::media::{Cut, Media};
use super::model::scores::ClassScores;
use super::model::{Encoder, ModelFolder, ModelKind, SessionOptions};
use super::operator::SessionPool;
use super::plan::EncodePlan;
use super::prompts::ClassPrompts;
use super::read::{ModelTarget, Reading};
use super::text;
use super::write::{self, FeatureForm};
use crate::ingest::shards::FloatType;

/// Segments of a batch, by default.
const BATCH: usize = 32;

/// What is asked of an encoding run.
#[derive(Clone, Debug)]
pub struct EncodeRequest {
    /// Folder to write.
    pub out: PathBuf,
    /// Folder of embeddings by content; none: `cache` in `out`.
    pub cache: Option<PathBuf>,
    /// Folders of videos, folders of frames, sound files.
    pub media: Vec<PathBuf>,
    /// LLP-style folder: its videos are encoded, and its classes; none: every video there is.
    pub annotations: Option<PathBuf>,
    /// Names of the classes in order, one a line.
    pub classes: Option<PathBuf>,
    /// Splits to encode, with annotations.
    pub splits: Vec<Split>,
    /// Model of pictures; none: they are not encoded.
    pub clip: Option<PathBuf>,
    /// Model of sound; none: it is not encoded.
    pub clap: Option<PathBuf>,
    /// Prompts; none: the default ones.
    pub prompts: Option<PathBuf>,
    /// How videos become segments.
    pub cut: Cut,
    /// How pictures become square, if not as the model's folder says.
    pub resize: Option<Resize>,
    /// In what form features are written.
    pub form: FeatureForm,
    /// Segments of a batch.
    pub batch: usize,
    /// How models are opened.
    pub session: SessionOptions,
    /// Sessions of each model.
    pub sessions: usize,
    /// Timely workers and readers.
    pub threads: EncodeThreads,
    /// The ffmpeg program.
    pub ffmpeg: PathBuf,
}

impl EncodeRequest {
    /// Media and models, with everything else as it is by default; `cores` are shared out.
    pub fn new(
        media: Vec<PathBuf>,
        clip: Option<PathBuf>,
        clap: Option<PathBuf>,
        cores: usize,
    ) -> EncodeRequest {
        let request = EncodeRequest {
            out: PathBuf::new(),
            cache: None,
            media,
            annotations: None,
            classes: None,
            splits: Vec::new(),
            clip,
            clap,
            prompts: None,
            cut: Cut::default(),
            resize: None,
            form: FeatureForm {
                npy: false,
                float: FloatType::F16,
            },
            batch: BATCH,
            session: SessionOptions::default(),
            sessions: 1,
            threads: EncodeThreads {
                workers: 1,
                readers: (cores / 4).max(1),
                credits: 0,
            },
            ffmpeg: PathBuf::from("ffmpeg"),
        };
        request.with_sessions(1, cores)
    }

    /// With so many sessions of each model, which share the cores.
    #[must_use]
    pub fn with_sessions(mut self, sessions: usize, cores: usize) -> EncodeRequest {
        let models = [&self.clip, &self.clap].into_iter().flatten().count();
        let all = sessions * models.max(1);
        self.sessions = sessions;
        // All sessions run at once where both modalities are encoded.
        self.session.threads = cores.div_ceil(all);
        // Each session has a batch in work and one to go on with.
        self.threads.credits = 2 * all;
        self
    }
}

/// What a run tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeProgress {
    /// Another process writes to the folder.
    Waiting(String),
    /// Media are found.
    Planned {
        /// Videos to read.
        videos: u64,
    },
    /// Some videos are read.
    Read {
        /// How many.
        videos: u64,
    },
    /// A batch is encoded.
    Encoded {
        /// Segments of it.
        segments: u64,
    },
    /// Writing features.
    Writing,
}

/// Told from any thread.
pub type EncodeListener = Arc<dyn Fn(EncodeProgress) + Send + Sync>;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct EncodeSummary {
    /// Of each modality: features written.
    pub written: Vec<WrittenFeatures>,
    /// Segments encoded now.
    pub encoded: u64,
    /// Prompts encoded now.
    pub prompts: u64,
    /// Annotated videos that no media folder has.
    pub absent: u64,
    /// What was left out, or is odd.
    pub rejects: Vec<RejectRow>,
}

/// Features of one modality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenFeatures {
    /// Which.
    pub modality: Modality,
    /// Videos.
    pub videos: u64,
    /// Segments.
    pub segments: u64,
    /// D.
    pub width: usize,
    /// Model of the features: its file, and SHA-256.
    pub model: PathBuf,
    /// SHA-256 of the model, hex.
    pub sha256: String,
    /// SHA-256 of the text model, hex, where texts were embedded.
    pub text_sha256: Option<String>,
    /// What `label --rule logit` is to multiply cosines with.
    pub logit_scale: f64,
}

/// Encodes what is asked, and writes it as `label` reads it.
///
/// What was encoded before is taken from the cache. An interrupted run, run again, goes on where it was, and encodes
/// again at most the batches that were in the models.
///
/// # Errors
/// [`EncodeError`]: a model or input that cannot be used at all, or a folder that cannot be written. Media that are bad
/// beside good ones are no error: they are in [`EncodeSummary::rejects`], and in `rejects.jsonl`.
pub fn run(request: &EncodeRequest, listener: &EncodeListener) -> Result<EncodeSummary, EncodeError> {
    locked(request, listener).map(|(summary, _lock)| summary)
}

/// As [`run`]; the folder stays this process's own as long as the lock is held.
pub(super) fn locked(
    request: &EncodeRequest,
    listener: &EncodeListener,
) -> Result<(EncodeSummary, WriteLock), EncodeError> {
    let EncodePlan {
        models,
        media,
        mut rejects,
        absent,
        classes,
        prompts,
        name,
    } = EncodePlan::open(request)?;
    fs::create_dir_all(&request.out).map_err(EncodeError::write("make", &request.out))?;
    let lock = WriteLock::take(&request.out.join(".lock"), &mut |holder| {
        listener(EncodeProgress::Waiting(holder.to_owned()))
    })?;
    let cache = Arc::new(Cache::open(
        &request.cache.clone().unwrap_or_else(|| request.out.join("cache")),
    )?);
    let (open, pool) = sessions(request, &models, &cache)?;
    tracing::debug!(videos = media.len(), "models opened");
    listener(EncodeProgress::Planned {
        videos: media.len() as u64,
    });
    let target = |modality| {
        open.iter()
            .find(|open| open.modality == modality)
            .map(|open| open.target.clone())
    };
    let reading = Reading {
        visual: target(Modality::Visual),
        audio: target(Modality::Audio),
        cut: request.cut.clone(),
        batch: request.batch,
        ffmpeg: request.ffmpeg.clone(),
    };
    let media = Arc::new(media);
    let mut results = flow::run(reading, &cache, &media, pool, request.threads, listener)?;
    listener(EncodeProgress::Writing);
    let mut summary = EncodeSummary {
        encoded: results.encoded,
        absent,
        ..EncodeSummary::default()
    };
    for (folder, open) in models.iter().zip(&open) {
        let prompts = prompts.as_ref().zip(classes.as_deref());
        summary.one(request, folder, open, &media, &cache, &mut results, prompts)?;
    }
    rejects.append(&mut results.rejects);
    rejects.sort();
    rejects.dedup();
    summary.rejects = rejects;
    summary.report(&request.out, &name)?;
    Ok((summary, lock))
}

/// A model that is open in the pool.
struct Open {
    modality: Modality,
    target: ModelTarget,
    width: usize,
}

fn sessions(
    request: &EncodeRequest,
    models: &[ModelFolder],
    cache: &Arc<Cache>,
) -> Result<(Vec<Open>, SessionPool), EncodeError> {
    let mut opened = Vec::new();
    let mut sessions = Vec::new();
    for folder in models {
        let modality = match folder.kind {
            ModelKind::Clip => Modality::Visual,
            ModelKind::Clap | ModelKind::Classifier => Modality::Audio,
        };
        for nth in 0..request.sessions.max(1) {
            let encoder = Encoder::open(folder, &request.session)?;
            if nth == 0 {
                opened.push(Open {
                    modality,
                    target: ModelTarget {
                        model: encoder.sha256().to_owned(),
                        preparation: encoder.preparation().clone(),
                    },
                    width: encoder.width(),
                });
            }
            sessions.push((modality, encoder));
        }
    }
    Ok((opened, SessionPool::start(sessions, cache)))
}

impl EncodeSummary {
    #[expect(clippy::too_many_arguments, reason = "all of a run, in one place")]
    fn one(
        &mut self,
        request: &EncodeRequest,
        folder: &ModelFolder,
        open: &Open,
        media: &[Media],
        cache: &Cache,
        results: &mut EncodeResults,
        prompts: Option<(&ClassPrompts, &[Arc<str>])>,
    ) -> Result<(), EncodeError> {
        let modality = open.modality;
        let model = &open.target.model;
        let to = request.out.join(modality.as_str());
        let scores = match (folder.kind, prompts) {
            (ModelKind::Classifier, Some((prompts, classes))) => {
                let (scores, unknown) = ClassScores::new(folder, open.width, prompts.of(modality))?;
                results.rejects.extend(unknown.into_iter().map(|(class, names)| {
                    let reason = format!(
                        "class `{}` has no score: none is called `{names}`",
                        classes[class]
                    );
                    let file = folder.tokenizer.display().to_string();
                    RejectRow::note(RejectKind::Prompt, file, reason).modality(modality)
                }));
                Some(scores)
            }
            _ => None,
        };
        let what = (modality, open.width, model.as_str());
        let (videos, segments) =
            write::features(&to, request.form, what, scores.as_ref(), media, cache, results)?;
        let width = scores.as_ref().map_or(open.width, ClassScores::width);
        let mut written = WrittenFeatures {
            modality,
            videos,
            segments,
            width,
            model: folder.media.clone(),
            sha256: model.clone(),
            text_sha256: None,
            logit_scale: scores.as_ref().map_or(folder.logit_scale, ClassScores::scale),
        };
        if let Some((prompts, classes)) = prompts {
            let prompts = prompts.of(modality);
            let texts = match &scores {
                Some(scores) => scores.texts(model),
                None => text::embed(folder, prompts, cache, &request.session)?,
            };
            if texts.width != width {
                return Err(EncodeError::Settings(format!(
                    "`{}` gives {} values and `{}` {}, expected equally many: are they of one model?",
                    folder.media.display(),
                    width,
                    folder.text.display(),
                    texts.width
                )));
            }
            write::replace(
                &request.out,
                &format!("{modality}_text.parquet"),
                &mut Vec::new(),
                |path| Ok(text::write(path, classes, prompts, &texts)?),
            )?;
            if request.form.npy {
                let shape = [classes.len(), texts.width];
                write::replace(
                    &request.out,
                    &format!("{modality}_text.npy"),
                    &mut Vec::new(),
                    |path| Ok(crate::ingest::npy::write_f32(path, &shape, &texts.values)?),
                )?;
            }
            self.prompts += texts.encoded as u64;
            written.text_sha256 = Some(texts.model);
        }
        self.written.push(written);
        Ok(())
    }

    /// Segments of all features.
    pub fn segments(&self) -> u64 {
        self.written.iter().map(|written| written.segments).sum()
    }

    /// Number of videos and modalities left out.
    pub fn left_out(&self) -> usize {
        self.rejects
            .iter()
            .filter(|row| row.severity == Severity::Reject)
            .count()
    }

    /// Writes `encode.json` and `rejects.jsonl`.
    fn report(&self, out: &Path, asked: &str) -> Result<(), EncodeError> {
        let report = serde_json::json!({
            "asked": asked,
            "program": env!("CARGO_PKG_VERSION"),
            "features": self.written,
        });
        let mut rejects = String::new();
        for row in &self.rejects {
            rejects.push_str(&serde_json::to_string(row).expect("a row is plain text and numbers"));
            rejects.push('\n');
        }
        let texts = [
            ("encode.json", format!("{report:#}\n")),
            ("rejects.jsonl", rejects),
        ];
        for (name, text) in texts {
            write::replace(out, name, &mut Vec::new(), |path| {
                fs::write(path, text).map_err(EncodeError::write("write", path))
            })?;
        }
        Ok(())
    }
}
