//! `vaplan predict`: computes the probabilities of a checkpoint's network for videos with features, without a
//! training.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{EpochRow, RejectKind, RejectRow};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Classes, Videos};

use super::data::{FeaturePaths, FeatureTables};
use super::error::TrainError;
use super::features::Lengths;
use super::network::HEADS;
use super::predict_cluster::{self as cluster, PredictOutcome};
use super::probabilities::{BATCH, VideoProbabilities, predict};
use super::record::Recorder;
use super::train::classes_of;
use super::{NetworkError, Parser, Weights, registry};
use crate::engine::cluster::member::ClusterMember;
use crate::eval::store::classes as class_names;
use crate::ingest::features::{ColumnNames, FeatureInput, Shard};
use crate::ingest::npy;
use crate::world::hash::{feed, hash};

/// The place where `predict` writes.
#[derive(Clone, Debug)]
pub enum PredictTarget {
    /// A folder: `audio/<id>.npy` and `visual/<id>.npy` of every video with features.
    Npy(PathBuf),
    /// A store: a new epoch with predictions of the store's videos.
    Store(PathBuf),
}

/// The request of a prediction.
#[derive(Clone, Debug)]
pub struct PredictRequest {
    /// The file of weights: safetensors, or a PyTorch state dict.
    pub checkpoint: PathBuf,
    /// Audio features: folders and files.
    pub audio: Vec<PathBuf>,
    /// Visual features: folders and files.
    pub visual: Vec<PathBuf>,
    /// Clip features: folders and files. Empty if the network takes no clip features.
    pub clips: Vec<PathBuf>,
    /// Names of the columns of Parquet features.
    pub columns: ColumnNames,
    /// The place for the predictions.
    pub target: PredictTarget,
    /// The number of attention heads; `None` means the number in the checkpoint, or 1 if the checkpoint has
    /// none.
    pub heads: Option<i64>,
    /// The device to compute on.
    pub device: tch::Device,
    /// The command line, for the `versions` table.
    pub command: String,
}

/// The result of a prediction.
#[derive(Clone, Debug)]
pub struct PredictSummary {
    /// The number of videos with predictions.
    pub videos: usize,
    /// The number of videos that lack some of their features.
    pub left_out: usize,
    /// The epoch in the store, if the target is a store.
    pub epoch: Option<u64>,
    /// The features and names that could not be used.
    pub rejects: Vec<RejectRow>,
}

/// Predicts. `on_videos` is called with the number of videos that were just predicted, and with the number of all
/// videos.
///
/// # Errors
/// Returns [`TrainError`] if the checkpoint or the features cannot be used at all, or do not fit each other.
pub fn run(
    request: &PredictRequest,
    on_videos: &mut dyn FnMut(u64, u64),
) -> Result<PredictSummary, TrainError> {
    match run_in(request, &mut None, on_videos)? {
        PredictOutcome::Led(summary) => Ok(*summary),
        PredictOutcome::Followed { .. } => unreachable!("a process that is alone follows no other"),
    }
}

/// Predicts as one of several processes, or alone.
pub(super) fn run_in(
    request: &PredictRequest,
    member: &mut Option<ClusterMember>,
    on_videos: &mut dyn FnMut(u64, u64),
) -> Result<PredictOutcome, TrainError> {
    let path = &request.checkpoint;
    let mut weights = Weights::read(path)?;
    let bad = NetworkError::weights(path);
    let classes = classes_of(&weights);
    if let Some(heads) = request.heads {
        weights.metadata.insert(HEADS.to_owned(), heads.to_string());
    }
    let parser = registry::load(&mut weights, request.device).map_err(&bad)?;
    let mut others = weights.tensors.keys().filter(|name| !name.starts_with("adam."));
    if let Some(first) = others.next() {
        let count = 1 + others.count();
        tracing::warn!(
            checkpoint = %path.display(), tensors = count, %first,
            "tensors that are no parameters of the network are not used"
        );
    }
    match &request.target {
        PredictTarget::Npy(folder) => to_folder(request, folder, &*parser, member, on_videos),
        PredictTarget::Store(folder) => {
            to_store(request, folder, (&*parser, classes.as_deref()), member, on_videos)
        }
    }
}

fn to_folder(
    request: &PredictRequest,
    folder: &Path,
    parser: &dyn Parser,
    member: &mut Option<ClusterMember>,
    on_videos: &mut dyn FnMut(u64, u64),
) -> Result<PredictOutcome, TrainError> {
    let mut rejects = Vec::new();
    let mut names = names(&request.audio, &request.columns)?;
    names.retain(|name| match npy::file_name_problem(name) {
        None => true,
        Some(problem) => {
            rejects.push(unwritable(folder, name, &problem));
            false
        }
    });
    std::fs::create_dir_all(folder).map_err(TrainError::io("make", folder))?;
    // Pooled features can be large, so they are written to the disk of the output, not to the system's folder for
    // temporary files. The folder has a random name that did not exist before, and it is removed when it is dropped,
    // also after an error.
    let cache = tempfile::Builder::new()
        .prefix(".vaplan-features-")
        .tempdir_in(folder)
        .map_err(TrainError::io("make a folder in", folder))?;
    let features = open(request, parser, cache.path(), (&names, &Lengths::new()))?;
    let (predicted, left_out) = all(parser, &features, &names, member.as_ref(), on_videos);
    for video in &predicted {
        write(folder, video)?;
    }
    rejects.extend(features.rejects());
    let mut videos = predicted.len();
    if let Some(member) = member {
        if !member.leads() {
            return cluster::told(member, videos);
        }
        videos += cluster::others(member)?;
    }
    let summary = PredictSummary {
        videos,
        left_out,
        epoch: None,
        rejects,
    };
    Ok(cluster::led(member, summary))
}

fn to_store(
    request: &PredictRequest,
    folder: &Path,
    (parser, classes): (&dyn Parser, Option<&[Arc<str>]>),
    member: &mut Option<ClusterMember>,
    on_videos: &mut dyn FnMut(u64, u64),
) -> Result<PredictOutcome, TrainError> {
    let store = Store::open(folder)?;
    let follower = member.as_mut().filter(|member| !member.leads());
    let version = follower.map(cluster::version).transpose()?;
    let snapshot = store.at_version(version)?;
    let own = class_names(&snapshot.read::<Classes>()?);
    let same = classes.is_none_or(|classes| *classes == *own);
    if !same || own.len() as i64 != parser.sizes().classes {
        return Err(TrainError::Settings(format!(
            "checkpoint `{}` is of {} other classes than the {} of the store",
            request.checkpoint.display(),
            parser.sizes().classes,
            own.len()
        )));
    }
    let mut rows = snapshot.read::<Videos>()?;
    rows.sort_by(|a, b| a.video.cmp(&b.video));
    let names: Vec<Arc<str>> = rows.iter().map(|row| row.video.clone()).collect();
    let known = rows.iter().filter(|row| row.segments > 0);
    let lengths = known.map(|row| (row.video.clone(), row.segments)).collect();
    let features = open(
        request,
        parser,
        &store.own_dir().join("train/features"),
        (&names, &lengths),
    )?;
    let begun = std::time::Instant::now();
    let version = snapshot.version().version;
    if let Some(member) = member.as_mut().filter(|member| member.leads()) {
        // The other processes begin only now, so that they find the pooled copies of the features.
        cluster::go(member, version);
    }
    let (predicted, left_out) = all(parser, &features, &names, member.as_ref(), on_videos);
    let mut videos = predicted.len();
    if let Some(member) = member {
        if !member.leads() {
            return cluster::record(member, &store, &predicted);
        }
        videos += cluster::others(member)?;
    }
    // The version is part of the name, so that the same prediction on a later version becomes a new epoch.
    let named = format!("predict {version} {}", request.checkpoint.display());
    let run = hash(|sum| feed(sum, [&*named]));
    let row = EpochRow {
        epoch: 0,
        run: run.as_str().into(),
        run_epoch: 1,
        labels: version,
        videos: 0,
        flips: None,
        learning_rate: 0.0,
        seconds: begun.elapsed().as_secs_f64(),
        losses: Vec::new(),
        metrics: Vec::new(),
    };
    let recorder = Recorder {
        command: request.command.clone(),
        run,
        store,
    };
    let lock = recorder.store.lock(&mut |_| ())?;
    let row = recorder.record_with(&lock, row, &predicted, &mut |commit, epoch| match member {
        Some(member) => cluster::gather(member, commit, epoch),
        None => Ok(()),
    })?;
    let summary = PredictSummary {
        videos,
        left_out,
        epoch: Some(row.epoch),
        rejects: features.rejects(),
    };
    Ok(cluster::led(member, summary))
}

/// Opens the features and checks that they have the widths that the network takes. Pooled copies go to `cache`.
fn open(
    request: &PredictRequest,
    parser: &dyn Parser,
    cache: &Path,
    (names, lengths): (&[Arc<str>], &Lengths),
) -> Result<FeatureTables, TrainError> {
    let sizes = parser.sizes();
    if sizes.clips.is_none() != request.clips.is_empty() {
        return Err(TrainError::Settings(format!(
            "checkpoint `{}` {} clip features, and --clips is {}",
            request.checkpoint.display(),
            if sizes.clips.is_some() {
                "takes"
            } else {
                "takes no"
            },
            if request.clips.is_empty() {
                "missing"
            } else {
                "given"
            },
        )));
    }
    let paths = FeaturePaths {
        audio: request.audio.clone(),
        visual: request.visual.clone(),
        clips: request.clips.clone(),
        columns: request.columns.clone(),
        cache: cache.to_owned(),
    };
    let features = FeatureTables::open(&paths, names, lengths, &mut |_| ())?;
    let clips = features.clips.as_ref().map(|clips| clips.width());
    let widths = [
        ("audio", Some(sizes.audio), Some(features.audio.width())),
        ("visual", Some(sizes.visual), Some(features.visual.width())),
        ("clip", sizes.clips, clips),
    ];
    for (kind, expected, found) in widths {
        if let (Some(expected), Some(found)) = (expected, found)
            && expected != found
        {
            return Err(TrainError::Settings(format!(
                "{kind} features have width {found}, expected {expected} as checkpoint `{}` takes",
                request.checkpoint.display()
            )));
        }
    }
    Ok(features)
}

/// Predicts the videos that have all features; in a cluster, the share of this process. Also returns the number of videos that do not.
fn all(
    parser: &dyn Parser,
    features: &FeatureTables,
    names: &[Arc<str>],
    member: Option<&ClusterMember>,
    on_videos: &mut dyn FnMut(u64, u64),
) -> (Vec<VideoProbabilities>, usize) {
    let videos: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name.clone(), features.places(name)?)))
        .collect();
    let left_out = names.len() - videos.len();
    // A process takes whole batches, so that its numbers are those of a single process, to the last bit.
    let videos: Vec<_> = match member {
        Some(member) => {
            let (process, of) = (member.hosts().process(), member.hosts().processes());
            let batches = videos.chunks(BATCH).skip(process).step_by(of);
            batches.flatten().cloned().collect()
        }
        None => videos,
    };
    let count = videos.len() as u64;
    let predicted = predict(parser, features, &videos, |more| on_videos(more as u64, count));
    (predicted, left_out)
}

/// The names of the videos in the audio features, sorted.
fn names(audio: &[PathBuf], columns: &ColumnNames) -> Result<Vec<Arc<str>>, TrainError> {
    let input = FeatureInput::open_all(audio, Modality::Audio, columns, &|_| true)?;
    let names: BTreeSet<String> = input.shards.iter().flat_map(Shard::keys).collect();
    Ok(names.into_iter().map(Arc::from).collect())
}

fn unwritable(folder: &Path, video: &str, problem: &str) -> RejectRow {
    let reason = format!("no npy file was written: {problem}");
    RejectRow::reject(RejectKind::FileName, folder.display().to_string(), reason).video(video)
}

/// Writes `audio/<id>.npy` and `visual/<id>.npy`, `(T, C)` each.
fn write(folder: &Path, video: &VideoProbabilities) -> Result<(), TrainError> {
    for (modality, values) in ["audio", "visual"].into_iter().zip(&video.segments) {
        let folder = folder.join(modality);
        std::fs::create_dir_all(&folder).map_err(TrainError::io("make", &folder))?;
        let path = folder.join(format!("{}.npy", video.video));
        npy::write_f32(&path, &[values.len() / video.classes, video.classes], values)?;
    }
    Ok(())
}
