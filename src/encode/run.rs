//! Runs `vaplan encode`: reads media folders, and writes feature shards and text embeddings.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity, Split};
use vaplan_schemas::store::WriteLock;

use super::cache::Cache;
use super::cluster::{EncodeGroup, EncodeWork};
use super::error::EncodeError;
use super::flow::{self, AfterUnits, EncodeThreads};
use super::image::Resize;
use super::media::Cut;
use super::model::scores::ClassScores;
use super::model::{Encoder, ModelFolder, ModelKind, SessionOptions};
use super::operator::SessionPool;
use super::plan::EncodePlan;
use super::prompts::ClassPrompts;
use super::read::{ModelTarget, Reading};
use super::streamed::{Streamed, StreamedLabelling};
use super::text::{self, ClassTexts};
use super::write::{self, FeatureForm, ShardSet, WrittenShards};
use crate::engine::flow::Alone;
use crate::ingest::seen::one_spelling;
use crate::ingest::shards::FloatType;

/// Default number of segments in a batch.
const BATCH: usize = 32;

/// The request of an encoding run.
#[derive(Clone, Debug)]
pub struct EncodeRequest {
    /// Folder to write the features into.
    pub out: PathBuf,
    /// Folder of the cache of embeddings; if `None`, the folder `cache` in `out`.
    pub cache: Option<PathBuf>,
    /// Folders that have videos, folders of frames, or sound files.
    pub media: Vec<PathBuf>,
    /// Folder of annotations in the form of LLP: its videos and classes are encoded. If `None`, every video of the
    /// media folders is encoded.
    pub annotations: Option<PathBuf>,
    /// File with the names of the classes in order, one in each line.
    pub classes: Option<PathBuf>,
    /// Splits to encode; used only with `annotations`.
    pub splits: Vec<Split>,
    /// Folder of the vision model; if `None`, pictures are not encoded.
    pub clip: Option<PathBuf>,
    /// Folder of the audio model; if `None`, sound is not encoded.
    pub clap: Option<PathBuf>,
    /// File of prompts; if `None`, the default prompts are used.
    pub prompts: Option<PathBuf>,
    /// How videos are cut into segments.
    pub cut: Cut,
    /// How pictures become square; if `None`, as the model folder says.
    pub resize: Option<Resize>,
    /// File format and float type of the features.
    pub form: FeatureForm,
    /// Number of segments in a batch.
    pub batch: usize,
    /// How models are opened.
    pub session: SessionOptions,
    /// Number of sessions of each model.
    pub sessions: usize,
    /// Numbers of timely workers, readers and credits.
    pub threads: EncodeThreads,
    /// The ffmpeg program.
    pub ffmpeg: PathBuf,
}

impl EncodeRequest {
    /// The folder of the cache of embeddings, which also has the memory of the media.
    pub(super) fn cache_folder(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(|| self.out.join("cache"))
    }

    /// Makes a request from media and models, with defaults for all other settings. The threads share `cores` cores.
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

    /// Sets the number of sessions of each model. All sessions share `cores` cores.
    #[must_use]
    pub fn with_sessions(mut self, sessions: usize, cores: usize) -> EncodeRequest {
        let models = [&self.clip, &self.clap].into_iter().flatten().count();
        let all = sessions * models.max(1);
        self.sessions = sessions;
        // The sessions of both models run at the same time, so all of them share the cores.
        self.session.threads = cores.div_ceil(all);
        // Two batches for each session: the session encodes one, and the other is ready when the session is done.
        self.threads.credits = 2 * all;
        self
    }
}

/// The events that a run reports to its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeProgress {
    /// Another process holds the lock of the output folder; the text names that process.
    Waiting(String),
    /// The media were found.
    Planned {
        /// Number of videos to read.
        videos: u64,
    },
    /// Some videos were read.
    Read {
        /// Number of these videos.
        videos: u64,
    },
    /// A batch was encoded.
    Encoded {
        /// Number of segments in the batch.
        segments: u64,
    },
    /// An early version was committed.
    Committed {
        /// The store version.
        version: u64,
        /// Number of videos whose labels are new in this version.
        videos: u64,
    },
    /// The run begins to write features.
    Writing,
}

/// The function that receives the progress of a run. Any thread of the run may call it.
pub type EncodeListener = Arc<dyn Fn(EncodeProgress) + Send + Sync>;

/// The summary of an encoding run.
#[derive(Clone, Debug, Default)]
pub struct EncodeSummary {
    /// For each modality: the features that the run wrote.
    pub written: Vec<WrittenFeatures>,
    /// Number of segments that this run encoded; segments from the cache do not count.
    pub encoded: u64,
    /// Number of prompts that this run encoded; prompts from the cache do not count.
    pub prompts: u64,
    /// Number of annotated videos that no media folder has.
    pub absent: u64,
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
}

/// The features of one modality that a run wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WrittenFeatures {
    /// The modality.
    pub modality: Modality,
    /// Number of videos.
    pub videos: u64,
    /// Number of segments.
    pub segments: u64,
    /// Number of values of a feature (D).
    pub width: usize,
    /// File of the vision or audio model.
    pub model: PathBuf,
    /// SHA-256 of the model, in hexadecimal.
    pub sha256: String,
    /// SHA-256 of the text model, in hexadecimal; `None` if the run had no classes to embed.
    pub text_sha256: Option<String>,
    /// The scale that `label --rule logit` must multiply cosines with.
    pub logit_scale: f64,
    /// Kind of the model.
    pub kind: ModelKind,
    /// Folder of the model, as an absolute path.
    pub folder: PathBuf,
    /// How media were prepared for the model: JSON text. `parse` compares it with that of the model it opens.
    pub preparation: String,
    /// Number type of the values, `f16` or `f32`.
    pub float: &'static str,
    /// How media were cut into segments.
    pub cut: Cut,
    /// For a classifier: the positions of the scores of each class, in the order of the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<Vec<usize>>>,
}

/// Encodes the media of the request, and writes the features in the form that `label` reads.
///
/// Segments that were encoded before are taken from the cache. If a run is interrupted and started again, it continues
/// where it stopped: it encodes again at most the batches that the sessions had not finished.
///
/// # Errors
/// Returns [`EncodeError`] if a model or an input cannot be used, if there are no media, or if a folder cannot be
/// written. A single media file that cannot be used is not an error: it becomes a rejected row in
/// [`EncodeSummary::rejects`] and in `rejects.jsonl`.
pub fn run(request: &EncodeRequest, listener: &EncodeListener) -> Result<EncodeSummary, EncodeError> {
    locked(request, None, &mut Alone, listener).map(|(summary, _lock)| summary)
}

/// Does the work of [`run`], and also returns the lock of the folder: no other process can write to the folder until
/// the lock is dropped. With a labelling, the dataflow also scores the features, and commits early versions if the labelling
/// asks for them. Without a labelling, the processes of `group` encode together.
pub(super) fn locked(
    request: &EncodeRequest,
    labelling: Option<&StreamedLabelling>,
    group: &mut dyn EncodeGroup,
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
        seen,
    } = EncodePlan::open(request)?;
    fs::create_dir_all(&request.out).map_err(EncodeError::write("make", &request.out))?;
    let lock = WriteLock::take(&request.out.join(".lock"), &mut |holder| {
        listener(EncodeProgress::Waiting(holder.to_owned()))
    })?;
    let cache = Arc::new(Cache::open(&request.cache_folder())?);
    // The texts come first, because labelling needs them before the first unit is encoded. No session is open yet, so that
    // memory holds one text model at a time.
    let prompts = prompts.as_ref().zip(classes.as_deref());
    let texts = models.iter().map(|folder| match prompts {
        Some((prompts, _)) if folder.kind != ModelKind::Classifier => {
            text::embed(folder, prompts.of(modality_of(folder)), &cache, &request.session).map(Some)
        }
        _ => Ok(None),
    });
    let texts: Vec<Option<ClassTexts>> = texts.collect::<Result<_, _>>()?;
    let (open, sessions) = sessions(request, &models)?;
    let pool = SessionPool::start(sessions, &cache);
    tracing::debug!(videos = media.len(), "models opened");
    listener(EncodeProgress::Planned {
        videos: media.len() as u64,
    });
    let mut summary = EncodeSummary {
        absent,
        ..EncodeSummary::default()
    };
    let mut sets: Vec<Arc<ShardSet>> = Vec::new();
    for ((folder, open), texts) in models.iter().zip(&open).zip(texts) {
        let set = summary.begin(request, folder, open, texts, prompts, media.len(), &mut rejects)?;
        sets.push(Arc::new(set));
    }
    let reading = reading(request, &open);
    let (mut results, media, written) = match labelling {
        None => {
            let media = Arc::new(media);
            let work = EncodeWork {
                reading,
                pool,
                cache: cache.clone(),
                media: media.clone(),
                threads: request.threads,
                listener: listener.clone(),
            };
            let results = group.encode(work, &request.out)?;
            (results, media, WrittenShards::new())
        }
        Some(labelling) => {
            let labelling = labelling.filled(&request.out, &summary.written, &rejects);
            let own = |modality: Modality| sets.iter().find(|set| set.modality == modality).cloned();
            let shards = Modality::ALL.map(own);
            let (streamed, committer) = Streamed::new(&labelling, shards, media, &cache, listener)?;
            let streamed = Arc::new(streamed);
            let media = streamed.media().clone();
            let after: Arc<dyn AfterUnits> = Arc::new(streamed.clone());
            let threads = request.threads;
            let run = flow::run_with(reading, &cache, &media, pool, threads, Some(after), listener);
            streamed.close();
            // An error of the committer is the cause if both failed.
            committer.join()?;
            (run?, media, streamed.take_written())
        }
    };
    listener(EncodeProgress::Writing);
    summary.encoded = results.encoded;
    for (set, own) in sets.iter().zip(&mut summary.written) {
        let counts = write::features(set, &media, &cache, &mut results, written.clone())?;
        (own.videos, own.segments) = counts;
    }
    rejects.append(&mut results.rejects);
    rejects.sort();
    rejects.dedup();
    summary.rejects = rejects;
    summary.report(&request.out, &name)?;
    seen.remember();
    Ok((summary, lock))
}

/// The modality that a model encodes.
fn modality_of(folder: &ModelFolder) -> Modality {
    match folder.kind {
        ModelKind::Clip => Modality::Visual,
        ModelKind::Clap | ModelKind::Classifier => Modality::Audio,
    }
}

/// The settings of reading media for these models.
pub(super) fn reading(request: &EncodeRequest, open: &[Open]) -> Reading {
    let target = |modality| {
        let own = open.iter().find(|open| open.modality == modality);
        own.map(|open| open.target.clone())
    };
    Reading {
        visual: target(Modality::Visual),
        audio: target(Modality::Audio),
        cut: request.cut.clone(),
        batch: request.batch,
        ffmpeg: request.ffmpeg.clone(),
    }
}

/// A model that is open.
#[derive(Clone, Debug)]
pub struct Open {
    /// Modality of the media that the model encodes.
    pub modality: Modality,
    /// Hash of the model, and how media are prepared for it.
    pub target: ModelTarget,
    /// Number of values of an embedding (D).
    pub width: usize,
}

/// All open sessions, and each model once with its modality.
pub(super) type OpenSessions = (Vec<Open>, Vec<(Modality, Encoder)>);

/// Opens the sessions of all models.
///
/// # Errors
/// Returns [`EncodeError::Model`] if a model cannot be used.
pub(super) fn sessions(request: &EncodeRequest, models: &[ModelFolder]) -> Result<OpenSessions, EncodeError> {
    let mut opened = Vec::new();
    let mut sessions = Vec::new();
    for folder in models {
        let modality = modality_of(folder);
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
    Ok((opened, sessions))
}

impl EncodeSummary {
    /// Writes the text embeddings of a model, and adds its features without their numbers of videos and segments.
    #[expect(clippy::too_many_arguments, reason = "all of a model, in one place")]
    fn begin(
        &mut self,
        request: &EncodeRequest,
        folder: &ModelFolder,
        open: &Open,
        texts: Option<ClassTexts>,
        prompts: Option<(&ClassPrompts, &[Arc<str>])>,
        videos: usize,
        rejects: &mut Vec<RejectRow>,
    ) -> Result<ShardSet, EncodeError> {
        let modality = open.modality;
        let model = &open.target.model;
        let scores = match (folder.kind, prompts) {
            (ModelKind::Classifier, Some((prompts, classes))) => {
                let (scores, unknown) = ClassScores::new(folder, open.width, prompts.of(modality))?;
                rejects.extend(unknown.into_iter().map(|(class, names)| {
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
        let texts = texts.or_else(|| Some(scores.as_ref()?.texts(model)));
        let logit_scale = scores.as_ref().map_or(folder.logit_scale, ClassScores::scale);
        let columns = scores.as_ref().map(|scores| scores.columns().to_vec());
        let what = (modality, open.width, model.as_str());
        let to = request.out.join(modality.as_str());
        let set = ShardSet::new(to, request.form, what, scores, videos)?;
        let mut written = WrittenFeatures {
            modality,
            videos: 0,
            segments: 0,
            width: set.width(),
            model: one_spelling(&folder.media),
            sha256: model.clone(),
            text_sha256: None,
            logit_scale,
            kind: folder.kind,
            folder: one_spelling(&folder.path),
            preparation: open.target.preparation.text(),
            float: request.form.float.as_str(),
            cut: request.cut.clone(),
            columns,
        };
        if let (Some((prompts, classes)), Some(texts)) = (prompts, texts) {
            if texts.width != set.width() {
                return Err(EncodeError::Settings(format!(
                    "`{}` gives {} values and `{}` {}, expected equally many: are they of one model?",
                    folder.media.display(),
                    set.width(),
                    folder.text.display(),
                    texts.width
                )));
            }
            let name = format!("{modality}_text.parquet");
            write::replace(&request.out, &name, |path| {
                Ok(text::write(path, classes, prompts.of(modality), &texts)?)
            })?;
            if request.form.npy {
                let shape = [classes.len(), texts.width];
                write::replace(&request.out, &format!("{modality}_text.npy"), |path| {
                    Ok(crate::ingest::npy::write_f32(path, &shape, &texts.values)?)
                })?;
            }
            self.prompts += texts.encoded as u64;
            written.text_sha256 = Some(texts.model);
        }
        self.written.push(written);
        Ok(set)
    }

    /// Number of segments of all features.
    pub fn segments(&self) -> u64 {
        self.written.iter().map(|written| written.segments).sum()
    }

    /// Number of rejected rows, without notes.
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
            write::replace(out, name, |path| {
                fs::write(path, text).map_err(EncodeError::write("write", path))
            })?;
        }
        Ok(())
    }
}
