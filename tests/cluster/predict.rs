//! `vaplan predict --hosts`: several processes on loopback against one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use vaplan_schemas::rows::{PredictionTrack, VideoPredictionRow};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Predictions, VideoPredictions};

use super::processes::together;
use crate::support::{assert_status, stderr, stdout};
use crate::train::TrainingSample;

fn predict(sample: &TrainingSample, target: [&str; 2], processes: usize) -> Vec<Output> {
    let (checkpoint, target) = (
        sample.path("store/_vaplan/train/best.safetensors"),
        [target[0], &*sample.path(target[1])].map(str::to_owned),
    );
    let (audio, visual) = (sample.path("features/audio"), sample.path("features/visual"));
    together(processes, |command| {
        command
            .args([
                "predict",
                "--checkpoint",
                &checkpoint,
                "--audio",
                &audio,
                "--visual",
                &visual,
            ])
            .args(["--threads", "1"])
            .args(&target);
    })
}

/// The npy files of a folder.
fn files(folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for modality in ["audio", "visual"] {
        for entry in std::fs::read_dir(Path::new(folder).join(modality)).unwrap() {
            let path = entry.unwrap().path();
            let name = Path::new(modality).join(path.file_name().unwrap());
            files.insert(name, std::fs::read(path).unwrap());
        }
    }
    files
}

/// The predictions of the last epoch, without its number.
fn last_epoch(store: &str) -> (u64, Vec<PredictionTrack>, Vec<VideoPredictionRow>) {
    let latest = Store::open(Path::new(store)).unwrap().latest().unwrap().unwrap();
    let mut tracks = latest.read::<Predictions>().unwrap();
    let epoch = tracks.iter().map(|track| track.epoch).max().unwrap();
    tracks.retain(|track| track.epoch == epoch);
    tracks.iter_mut().for_each(|track| track.epoch = 0);
    tracks.sort_by(|a, b| (&a.video, a.modality).cmp(&(&b.video, b.modality)));
    let mut videos = latest.read::<VideoPredictions>().unwrap();
    videos.retain(|row| row.epoch == epoch);
    videos.iter_mut().for_each(|row| row.epoch = 0);
    videos.sort_by(|a, b| a.video.cmp(&b.video));
    (epoch, tracks, videos)
}

#[test]
fn several_processes_predict_what_one_predicts() {
    // 160 videos are three batches.
    let sample = TrainingSample::new("2");
    assert_status(&sample.train("store", "", "1"), 0);
    let one = predict(&sample, ["--npy", "one"], 1);
    assert_status(&one[0], 0);
    let outputs = predict(&sample, ["--npy", "many"], 3);
    for output in &outputs {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    }
    assert_eq!(stdout(&outputs[0]), stdout(&one[0]));
    assert!(
        files(&sample.path("many")) == files(&sample.path("one")),
        "the files of one process"
    );

    assert_status(&predict(&sample, ["--store", "store"], 1)[0], 0);
    let (first, tracks, videos) = last_epoch(&sample.path("store"));
    let outputs = predict(&sample, ["--store", "store"], 2);
    for output in &outputs {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    }
    let (second, own, own_videos) = last_epoch(&sample.path("store"));
    assert_eq!(second, first + 1);
    assert!(own == tracks && own_videos == videos, "the rows of one process");
    assert!(tracks.len() >= 2 * 160, "{} tracks", tracks.len());
    println!(
        "predict: {} tracks by 2 processes, and files by 3 processes, equal those of one",
        own.len()
    );
}
