//! `vaplan predict --npy`: which files it writes, and which it leaves alone.

use std::fs;
use std::path::Path;
use std::process::Output;

use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;

use crate::support::{assert_status, run, stderr, stdout};
use crate::train::TrainingSample;

/// A checkpoint trained for one epoch on features of width 32.
fn trained() -> TrainingSample {
    let sample = TrainingSample::new("1");
    assert_status(&sample.train("store", "", "1"), 0);
    sample
}

/// Predicts videos of these names, whose features have this width, into the folder `npy`.
fn predict(sample: &TrainingSample, videos: &[&str], width: usize) -> Output {
    let shard = |modality: Modality| {
        let path = sample.path(&format!("{modality}.parquet"));
        let format = ShardFormat {
            modality,
            width,
            float: FloatType::F32,
            layout: FeatureLayout::Packed,
            model: None,
        };
        let mut writer = ShardWriter::create(Path::new(&path), format).unwrap();
        for video in videos {
            writer.append(video, &vec![0.25; 5 * width]).unwrap();
        }
        writer.finish().unwrap();
        path
    };
    let (audio, visual) = (shard(Modality::Audio), shard(Modality::Visual));
    let checkpoint = sample.path("store/_vaplan/train/best.safetensors");
    let words = [
        "predict",
        "--checkpoint",
        &checkpoint,
        "--npy",
        &sample.path("npy"),
    ];
    let features = ["--audio", &audio, "--visual", &visual, "--threads", "1"];
    run([&words[..], &features].concat())
}

/// Sorted names in a folder.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_name_that_is_no_file_name_is_left_out_and_the_others_are_predicted() {
    let sample = trained();
    let output = predict(&sample, &["../../evil", "good one"], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("1 videos predicted"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("video name `../../evil` cannot be a file name"),
        "{}",
        stderr(&output)
    );
    assert_eq!(names(&sample.path("npy/visual")), ["good one.npy"]);
    assert!(!sample.folder.path().join("evil.npy").exists());
}

#[test]
fn a_name_too_long_for_a_file_is_left_out_and_the_others_are_predicted() {
    let sample = trained();
    let (long, longest) = ("x".repeat(300), "y".repeat(251));
    let output = predict(&sample, &["good one", &longest, &long], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("2 videos predicted"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("has 300 bytes, expected at most 251"),
        "{}",
        stderr(&output)
    );
    let expected = ["good one.npy".to_owned(), format!("{longest}.npy")];
    assert_eq!(names(&sample.path("npy/audio")), expected);
    assert_eq!(names(&sample.path("npy")), ["audio", "visual"]);
}

#[test]
fn a_folder_that_was_there_before_stays_and_scratch_folders_go_even_after_an_error() {
    let sample = trained();
    let foreign = sample.path("npy/features.part");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(format!("{foreign}/thesis.txt"), "precious").unwrap();
    assert_status(&predict(&sample, &["good one"], 32), 0);
    assert_eq!(
        fs::read_to_string(format!("{foreign}/thesis.txt")).unwrap(),
        "precious"
    );
    assert_eq!(names(&sample.path("npy")), ["audio", "features.part", "visual"]);

    // The features do not fit the checkpoint: this is known only after they were pooled into the scratch folder.
    let output = predict(&sample, &["good one"], 16);
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("features have width 16, expected 32"),
        "{}",
        stderr(&output)
    );
    assert_eq!(names(&sample.path("npy")), ["audio", "features.part", "visual"]);
}
