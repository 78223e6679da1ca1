//! A checkpoint on features: predictions without a training.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{EpochRow, RejectKind, RejectRow};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Classes, Videos};

use super::data::{FeaturePaths, Features};
use super::error::TrainError;
use super::features::Lengths;
use super::probabilities::{VideoProbabilities, predict};
use super::record::Recorder;
use super::train::classes_of;
use super::{Han, HanConfig, NetworkError, Weights, set_threads};
use crate::eval::store::classes as class_names;
use crate::ingest::features::{FeatureInput, Shard};
use crate::ingest::npy;
use crate::world::hash::{feed, hash};

/// Where predictions go.
#[derive(Clone, Debug)]
pub enum Target {
    /// `audio/<id>.npy` and `visual/<id>.npy` of a folder; every video that has features.
    Npy(PathBuf),
    /// An epoch of a store; its videos.
    Store(PathBuf),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Weights.
    pub checkpoint: PathBuf,
    /// Features.
    pub features: FeaturePaths,
    /// Where predictions go.
    pub target: Target,
    /// Attention heads, where the checkpoint does not tell.
    pub heads: Option<i64>,
    /// Threads of libtorch.
    pub threads: usize,
    /// Where to compute.
    pub device: tch::Device,
    /// What was asked, as a command line.
    pub command: String,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Videos predicted.
    pub videos: usize,
    /// Videos without all features.
    pub left_out: usize,
    /// Epoch of the store.
    pub epoch: Option<u64>,
    /// Features that could not be used.
    pub rejects: Vec<RejectRow>,
}

/// Predicts; `told` hears how many more videos of how many are done.
///
/// # Errors
/// [`TrainError`]: a checkpoint or features that cannot be used at all, or that do not fit each other.
pub fn run(request: &Request, told: &mut dyn FnMut(u64, u64)) -> Result<Applied, TrainError> {
    set_threads(request.threads);
    let path = &request.checkpoint;
    let mut weights = Weights::read(path)?;
    let bad = NetworkError::weights(path);
    let config = HanConfig::of_weights(&weights, request.heads).map_err(&bad)?;
    let classes = classes_of(&weights);
    let han = Han::of_weights(config, &mut weights, request.device).map_err(&bad)?;
    if let Some(name) = weights.tensors.keys().find(|name| !name.starts_with("adam.")) {
        let name = name.clone();
        return Err(bad(super::WeightsProblem::Unknown { name }).into());
    }
    match &request.target {
        Target::Npy(folder) => {
            let (names, unnamed): (Vec<_>, Vec<_>) = names(&request.features)?
                .into_iter()
                .partition(|name| npy::names_a_file(name));
            let features = open(request, &han, &names, &Lengths::new())?;
            let (predicted, left_out) = all(&han, &features, &names, told);
            for video in &predicted {
                write(folder, video)?;
            }
            let _ = std::fs::remove_dir_all(&request.features.cache);
            let mut rejects = features.rejects();
            rejects.extend(unnamed.iter().map(|name| unwritable(folder, name)));
            Ok(Applied {
                videos: predicted.len(),
                left_out,
                epoch: None,
                rejects,
            })
        }
        Target::Store(folder) => store(request, folder, &han, classes.as_deref(), told),
    }
}

fn store(
    request: &Request,
    folder: &Path,
    han: &Han,
    classes: Option<&[Arc<str>]>,
    told: &mut dyn FnMut(u64, u64),
) -> Result<Applied, TrainError> {
    let store = Store::open(folder)?;
    let snapshot = store.at_version(None)?;
    let own = class_names(&snapshot.read::<Classes>()?);
    let same = classes.is_none_or(|classes| *classes == *own);
    if !same || own.len() as i64 != han.config().classes {
        return Err(TrainError::Settings(format!(
            "checkpoint `{}` is of {} other classes than the {} of the store",
            request.checkpoint.display(),
            han.config().classes,
            own.len()
        )));
    }
    let mut rows = snapshot.read::<Videos>()?;
    rows.sort_by(|a, b| a.video.cmp(&b.video));
    let names: Vec<Arc<str>> = rows.iter().map(|row| row.video.clone()).collect();
    let known = rows.iter().filter(|row| row.segments > 0);
    let lengths = known.map(|row| (row.video.clone(), row.segments)).collect();
    let features = open(request, han, &names, &lengths)?;
    let begun = std::time::Instant::now();
    let (predicted, left_out) = all(han, &features, &names, told);
    let version = snapshot.version().version;
    // The same again is of a later version: an epoch of its own.
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
    let epoch = recorder.record(row, &predicted, &mut |_| ())?.epoch;
    Ok(Applied {
        videos: predicted.len(),
        left_out,
        epoch: Some(epoch),
        rejects: features.rejects(),
    })
}

/// Features of the widths that the network takes.
fn open(request: &Request, han: &Han, names: &[Arc<str>], lengths: &Lengths) -> Result<Features, TrainError> {
    let config = han.config();
    if config.clips.is_none() != request.features.clips.is_empty() {
        return Err(TrainError::Settings(format!(
            "checkpoint `{}` {} clip features, and --clips is {}",
            request.checkpoint.display(),
            if config.clips.is_some() {
                "takes"
            } else {
                "takes no"
            },
            if request.features.clips.is_empty() {
                "missing"
            } else {
                "given"
            },
        )));
    }
    let features = Features::open(&request.features, names, lengths, &mut |_| ())?;
    let clips = features.clips.as_ref().map(|clips| clips.width());
    let widths = [
        ("audio", Some(config.audio), Some(features.audio.width())),
        ("visual", Some(config.visual), Some(features.visual.width())),
        ("clip", config.clips, clips),
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

/// Predictions of all videos that have features, and how many have not.
fn all(
    han: &Han,
    features: &Features,
    names: &[Arc<str>],
    told: &mut dyn FnMut(u64, u64),
) -> (Vec<VideoProbabilities>, usize) {
    let videos: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name.clone(), features.places(name)?)))
        .collect();
    let count = videos.len() as u64;
    let predicted = predict(han, features, &videos, |more| told(more as u64, count));
    (predicted, names.len() - videos.len())
}

/// The videos that the audio features are of, by the names there.
fn names(paths: &FeaturePaths) -> Result<Vec<Arc<str>>, TrainError> {
    let input = FeatureInput::open_all(&paths.audio, Modality::Audio, &|_| true)?;
    let names: BTreeSet<String> = input.shards.iter().flat_map(Shard::keys).collect();
    Ok(names.into_iter().map(Arc::from).collect())
}

fn unwritable(folder: &Path, video: &str) -> RejectRow {
    let reason = format!(
        "`{}` can be no file name, expected no `/` or NUL",
        video.escape_default()
    );
    RejectRow::reject(RejectKind::FileName, folder.display().to_string(), reason).video(video)
}

/// `audio/<id>.npy` and `visual/<id>.npy`, `(T, C)`.
fn write(folder: &Path, video: &VideoProbabilities) -> Result<(), TrainError> {
    for (modality, values) in ["audio", "visual"].into_iter().zip(&video.segments) {
        let folder = folder.join(modality);
        std::fs::create_dir_all(&folder).map_err(TrainError::io("make", &folder))?;
        let path = folder.join(format!("{}.npy", video.video));
        npy::write_f32(&path, &[values.len() / video.classes, video.classes], values)?;
    }
    Ok(())
}
