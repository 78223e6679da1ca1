//! Variants of the loss: settings of a training, and lines of the ablation.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::{assert_status, run, stderr, stdout};
use crate::train::TrainingSample;

/// The runs of an ablation of the sample by these lines and further settings.
fn ablate(sample: &TrainingSample, lines: &str, settings: &str) -> Vec<Value> {
    let settings = format!("epochs = 3\nlearning_rate = 0.01\n{settings}");
    sample.ablated("store", &settings, &["--seeds", "1", "--lines", lines])
}

#[test]
fn every_variant_trains_another_network_and_names_its_line() {
    let sample = TrainingSample::new("1");
    let variants = ["segments", "soft", "balance", "mixup", "borders", "modalities"];
    let lines: Vec<String> = variants
        .iter()
        .map(|name| format!("pseudo+richness+{name}"))
        .chain(["pseudo+richness".to_owned()])
        .collect();
    let runs = ablate(&sample, &lines.join(","), "");
    let named: Vec<&str> = runs.iter().map(|run| run["line"].as_str().unwrap()).collect();
    assert_eq!(named, lines);
    let losses: BTreeSet<String> = runs.iter().map(|run| run["loss"].to_string()).collect();
    assert_eq!(
        losses.len(),
        lines.len(),
        "no two lines have the same loss: {runs:?}"
    );
    // The key of a setting trains what its line trains.
    let keys = "soft_labels = 20.0\n";
    let by_key = ablate(&sample, "pseudo+richness", keys);
    assert_eq!(by_key[0]["loss"], runs[1]["loss"]);
}

#[test]
fn lines_that_go_on_share_their_first_half_and_no_line_has_more_epochs() {
    let sample = TrainingSample::new("1");
    let runs = ablate(
        &sample,
        "pseudo+richness,pseudo+richness-on,pseudo+richness+pld-on",
        "",
    );
    assert_eq!(runs.len(), 3);
    for run in &runs {
        assert!((1..=3).contains(&run["epoch"].as_u64().unwrap()), "{run}");
    }
    // Without a gain on val, denoising leaves the labels, and both lines that go on are the same training.
    if runs[2]["labels"].is_null() {
        assert_eq!(runs[1]["scores"], runs[2]["scores"]);
    }
}

#[test]
fn a_variant_outside_its_range_is_refused() {
    let sample = TrainingSample::new("1");
    for (line, expected) in [
        ("mixup = 1.5", "mixup is 1.5, expected a number from 0 to 1"),
        (
            "border_smoothing = 0.5",
            "border_smoothing is 0.5, expected a number from 0 to below 0.5",
        ),
        (
            "class_balance = 1.0",
            "class_balance is 1, expected a number from 0 to below 1",
        ),
        (
            "soft_labels = -1.0",
            "soft_labels is -1, expected a number from 0",
        ),
    ] {
        let file = sample.path("bad.toml");
        fs::write(&file, line).unwrap();
        let store = sample.path("store");
        let refused = run(sample.features(vec!["train", "--store", &store, "--config", &file]));
        assert_status(&refused, 2);
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
    }
}

#[test]
fn an_ablation_of_a_denoised_store_begins_with_the_labels_before_denoising() {
    let sample = TrainingSample::new("1");
    let store = sample.path("store");
    assert_status(&sample.train("store", "", "1"), 0);
    let flip_all_unsure = [
        &[
            "denoise",
            "--store",
            &store,
            "--modality",
            "both",
            "--denoise-rule",
            "bounds",
        ][..],
        &["--parameter", "clear=0.5", "--parameter", "set=0.5"],
    ];
    assert_status(&run(flip_all_unsure.concat()), 0);
    let flips = run([
        "query",
        "--store",
        &store,
        "--format",
        "csv",
        "SELECT count(*) FROM label_changes WHERE rule = 'pld'",
    ]);
    assert_ne!(stdout(&flips).lines().last(), Some("0"), "{}", stdout(&flips));
    let runs = |version: &[&str]| {
        let words = ["--seeds", "1", "--epochs", "1", "--lines", "pseudo"];
        sample.ablated("store", "", &[&words[..], version].concat())
    };
    let before = runs(&["--version", "1"]);
    // The scores of a network are kept by a hash of its labels, so equal labels train nothing.
    let kept = || {
        fs::read_dir(sample.path("store/_vaplan/train/ablate"))
            .unwrap()
            .count()
    };
    let count = kept();
    assert_eq!(runs(&[]), before);
    assert_eq!(kept(), count);
}
