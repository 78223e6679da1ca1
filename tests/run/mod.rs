//! `vaplan run`, and `vaplan plan CONFIG.toml`.

mod calibrated;
mod examples;
mod kill;
mod networks;
mod open_vocabulary;
mod stages;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vaplan_schemas::rows::{
    EpochRow, LabelChangeRow, LabelTrack, PredictionTrack, RejectRow, ScoreTrack, VideoPredictionRow,
};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Epochs, Labels, Predictions, Rejects, Scores, VideoPredictions};

use crate::support::{assert_status, sorted, stdout, vaplan};
use crate::train::TrainingSample;

/// Settings with which a run takes a second or two; labels are flipped for little.
const SMALL: &str = "[train]\nepochs = 3\nhidden = 16\nfeedforward = 16\nlearning_rate = 0.01\n\
                     [denoise]\nalpha = 1.05\nguard = 0.3\n";

/// Writes a file for a run of the sample into a store of this name; gives its path.
pub(crate) fn config(sample: &TrainingSample, store: &str, settings: &str) -> String {
    let path = sample.path(&format!("{store}.toml"));
    // The sample's own annotations, or those of its copies.
    let own = match Path::new(&sample.path("features/annotations")).exists() {
        true => "features/annotations",
        false => "annotations",
    };
    let text = format!(
        "store = '{store}'\n[data]\nannotations = '{own}'\n[features]\nvisual = 'features/visual'\n\
         audio = 'features/audio'\nvisual_text = 'features/visual_text.npy'\naudio_text = 'features/audio_text.npy'\n\
         {settings}"
    );
    fs::write(&path, text).unwrap();
    path
}

/// A run; the same threads give the same bits.
fn command(config: &str, workers: &str) -> Command {
    let mut command = vaplan();
    command.args(["run", config, "--workers", workers, "--threads", "1"]);
    command
}

fn run(config: &str) -> Output {
    command(config, "2").output().unwrap()
}

/// What is to be done, and what is done.
fn plan(config: &str) -> Vec<String> {
    let output = crate::support::run(["plan", config]);
    assert_status(&output, 0);
    let lines = stdout(&output).lines();
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// What a store holds in the end, but for what time it took.
#[derive(Debug, PartialEq)]
pub(crate) struct RunTables {
    pub(crate) versions: u64,
    pub(crate) labels: Vec<LabelTrack>,
    pub(crate) predictions: Vec<PredictionTrack>,
    pub(crate) videos: Vec<VideoPredictionRow>,
    pub(crate) changes: Vec<LabelChangeRow>,
    scores: Vec<ScoreTrack>,
    rejects: Vec<RejectRow>,
    pub(crate) epochs: Vec<EpochRow>,
}

pub(crate) fn tables(store: &str) -> RunTables {
    let snapshot = Store::open(Path::new(store)).unwrap().at_version(None).unwrap();
    let mut epochs = sorted::<Epochs>(&snapshot);
    epochs.iter_mut().for_each(|row| row.seconds = 0.0);
    let mut rejects = snapshot.read::<Rejects>().unwrap();
    rejects.sort();
    RunTables {
        changes: crate::support::label_changes(&snapshot),
        scores: sorted::<Scores>(&snapshot),
        rejects,
        versions: snapshot.version().version,
        labels: sorted::<Labels>(&snapshot),
        predictions: sorted::<Predictions>(&snapshot),
        videos: sorted::<VideoPredictions>(&snapshot),
        epochs,
    }
}

/// The output of a run without the lines about checkpoints, which name the store and its numbers of epochs.
pub(crate) fn scores(output: &Output) -> String {
    let lines = stdout(output).lines();
    let scores = lines.filter(|line| !line.starts_with("checkpoint of ") && !line.starts_with("denoising: "));
    scores.map(|line| format!("{line}\n")).collect()
}

/// Epochs of the flips there are.
pub(crate) fn flipped_by(labels: &[LabelTrack]) -> BTreeSet<u64> {
    let flips = labels.iter().flat_map(|track| &track.flips);
    flips.map(|(_, why)| why.epoch).collect()
}
