//! `vaplan eval --store`.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use vaplan_schemas::Modality;

use super::command::write_labels;
use crate::sample::{CLASSES, Sample, Tables, name};
use crate::support::{assert_status, run, stderr};
use vaplan::eval::BitMatrix;

fn eval(sample: &Sample, more: &[&str]) -> Output {
    let store = sample.path("store").display().to_string();
    run(["eval", "--store", &store, "--split", "test"].iter().chain(more))
}

fn scores(output: &Output) -> Value {
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    json!([report["segment"].take(), report["event"].take()])
}

/// Writes the labels that a store holds of the last `videos` of 40 as label folders.
fn export(sample: &Sample, videos: usize) {
    let tables = Tables::read(&sample.path("store"));
    for modality in Modality::ALL {
        let folder = sample.path(&format!("{modality}_labels"));
        fs::create_dir(&folder).unwrap();
        for nth in 40 - videos..40 {
            let mut matrix = BitMatrix::new(3, 10);
            let own = |track: &&_| {
                let track: &vaplan_schemas::rows::LabelTrack = track;
                *track.video == *name(nth) && track.modality == modality
            };
            for track in tables.labels.iter().filter(own) {
                let class = CLASSES.iter().position(|class| **class == *track.class).unwrap();
                for (segment, _) in track.iter().enumerate().filter(|(_, cell)| cell.label) {
                    matrix.set(class, segment);
                }
            }
            write_labels(&folder.join(format!("{}.npy", name(nth))), &matrix);
        }
    }
}

#[test]
fn a_store_scores_as_its_labels_in_folders_do() {
    let sample = Sample::new(40);
    assert_status(&sample.label("store", &[]), 0);
    let of_store = eval(&sample, &["--format", "json"]);
    assert_status(&of_store, 0);

    export(&sample, 10);
    let path = |name: &str| sample.path(name).display().to_string();
    let (annotations, audio, visual) = (path("annotations"), path("audio_labels"), path("visual_labels"));
    let flags = [
        "eval",
        "--annotations",
        &annotations,
        "--split",
        "test",
        "--format",
        "json",
    ];
    let of_folders = run(flags
        .iter()
        .chain(&["--audio-labels", &audio, "--visual-labels", &visual]));
    assert_status(&of_folders, 0);
    assert_eq!(scores(&of_store), scores(&of_folders));
    assert_ne!(scores(&of_store)[0]["audio"], 0.0, "something is found");

    let of_both = eval(&sample, &["--format", "json", "--annotations", &annotations]);
    assert_eq!(
        of_both.stdout, of_store.stdout,
        "the truth in the store is that of the folder"
    );
}

#[test]
fn each_version_has_its_own_scores() {
    let sample = Sample::new(40);
    assert_status(&sample.label("store", &[]), 0);
    let first = eval(&sample, &["--format", "json"]);
    assert_status(&sample.label("store", &["--visual-threshold", "1.1"]), 0);
    let second = eval(&sample, &["--format", "json"]);
    assert_ne!(scores(&first)[0]["visual"], scores(&second)[0]["visual"]);
    assert_eq!(
        eval(&sample, &["--format", "json", "--version", "1"]).stdout,
        first.stdout
    );
    assert_eq!(
        eval(&sample, &["--format", "json", "--version", "2"]).stdout,
        second.stdout
    );
    let output = eval(&sample, &["--version", "3"]);
    assert_status(&output, 2);
    assert!(
        stderr(&output).starts_with("vaplan: ") && stderr(&output).contains('3'),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_video_without_features_of_a_modality_is_missing() {
    let sample = Sample::new(40);
    fs::remove_file(sample.features("audio", 39)).unwrap();
    assert_status(&sample.label("store", &[]), 1);
    let output = eval(&sample, &["--format", "json"]);
    assert_status(&output, 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["missing"], json!({ "audio": [name(39)], "visual": [] }));
    assert_eq!(report["videos"], 10);
}

#[test]
fn what_cannot_be_scored_is_told() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    let run_split = |split: &str| {
        let store = sample.path("store").display().to_string();
        run(["eval", "--store", &store, "--split", split])
    };
    for (split, said) in [
        (
            "train",
            "vaplan: split `train` has no dense truth: none of its 6 videos has an annotated event\n",
        ),
        ("val", "vaplan: split `val` has no videos\n"),
    ] {
        let output = run_split(split);
        assert_status(&output, 2);
        assert_eq!(stderr(&output), said);
    }
    let output = run_split("tset");
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("expected `train`, `val` or `test`"),
        "{}",
        stderr(&output)
    );
    let output = eval(&sample, &["--audio-labels", "x"]);
    assert_status(&output, 2);
    assert!(stderr(&output).contains("--visual-labels"), "{}", stderr(&output));

    let nowhere = Path::new("nowhere").display().to_string();
    let output = run(["eval", "--store", &nowhere, "--split", "test"]);
    assert_status(&output, 2);
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
}
