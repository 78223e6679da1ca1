//! AVE's task from end to end: annotations in its format, labels, a training, segment accuracy.

use std::fmt::Write as _;
use std::process::Output;

use serde_json::Value;

use crate::support::{assert_status, run, scratch, stderr, stdout};
use crate::train::{TrainingSample, metric};

const CATEGORIES: [&str; 5] = [
    "Bark",
    "Church bell",
    "Male speech, man speaking",
    "Rats",
    "Train horn",
];

/// 300 train, 240 val and 240 test videos of 10 s, each with one event of 2 to 10 s. With 60 videos, the accuracy of one training changes
/// by several points from epoch to epoch.
pub(crate) fn annotations() -> tempfile::TempDir {
    let folder = scratch();
    let dir = folder.path().join("annotations");
    std::fs::create_dir(&dir).unwrap();
    let mut number = 0_u64;
    for (name, videos) in [("trainSet", 300), ("valSet", 240), ("testSet", 240)] {
        let mut text = String::new();
        for _ in 0..videos {
            number += 1;
            let (start, length) = (number * 7 % 9, 2 + number * 5 % 9);
            let (class, end) = (CATEGORIES[number as usize % 5], (start + length).min(10));
            writeln!(text, "{class}&{number:011}&good&{start}&{end}").unwrap();
        }
        std::fs::write(dir.join(format!("{name}.txt")), text).unwrap();
    }
    folder
}

fn accuracy(sample: &TrainingSample, more: &[&str]) -> Value {
    let store = sample.path("store");
    let words = ["eval", "--store", &store, "--task", "ave", "--split", "test"];
    let output = run([&words[..], &["--format", "json"], more].concat());
    assert_status(&output, 0);
    serde_json::from_str(stdout(&output)).unwrap()
}

#[test]
fn a_video_of_ave_is_labelled_learnt_and_localized() {
    let sample = TrainingSample::of(annotations(), "1");
    let labels = accuracy(&sample, &[]);
    assert_eq!(
        (&labels["protocol"], &labels["split"], &labels["segments"]),
        (&"labels".into(), &"test".into(), &2400.into())
    );
    // Background throughout is right in the segments without an event.
    let dir = std::fs::read_to_string(sample.path("annotations/testSet.txt")).unwrap();
    let seconds = dir.lines().map(|line| {
        let mut fields = line.rsplit('&').map(|field| field.parse::<f64>().unwrap_or(0.0));
        fields.next().unwrap() - fields.next().unwrap()
    });
    let background = 100.0 - seconds.sum::<f64>() / 24.0;
    let labels = labels["accuracy"].as_f64().unwrap();
    assert!(labels > background, "labels {labels}, background {background}");

    let config = "task = \"ave\"\nlearning_rate = 0.005\n";
    let output = sample.train("store", config, "12");
    assert_status(&output, 0);
    assert!(
        stdout(&output).contains("segment.accuracy "),
        "{}",
        stdout(&output)
    );
    let rows = sample.epochs("store");
    let best = rows
        .iter()
        .max_by(|a, b| {
            let of = |row| metric(row, "val.fused.segment.accuracy");
            of(a).total_cmp(&of(b))
        })
        .unwrap();
    let best = best.epoch.to_string();
    let told = accuracy(&sample, &["--epoch", &best]);
    assert_eq!(told["protocol"], "fused");
    let learnt = told["accuracy"].as_f64().unwrap();
    assert!(
        learnt > background + 6.0,
        "epoch {best}: {learnt}, background {background}, labels {labels}"
    );
    // The table says the same, rounded.
    let store = sample.path("store");
    let words = ["eval", "--store", &store, "--task", "ave", "--split", "test"];
    let table = run([&words[..], &["--epoch", &best, "--protocol", "own"]].concat());
    assert_status(&table, 0);
    let head = "task ave, protocol own, split test, 240 videos, 2400 segments, percent\nsegment accuracy ";
    assert!(stdout(&table).starts_with(head), "{}", stdout(&table));
}

#[test]
fn what_is_of_the_other_task_is_refused() {
    let refused = |output: Output, text: &str| {
        assert_status(&output, 2);
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    };
    let words = [
        "eval",
        "--store",
        "none",
        "--task",
        "ave",
        "--split",
        "test",
        "--per-class",
    ];
    refused(run(words), "expected --per-class only with --task avvp");
}

#[test]
fn synthetic_ave_is_in_its_format_and_labels_and_both_parsers_are_scored() {
    let folder = scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let out = path("ave");
    let words = [
        "synth", "--preset", "ave", "--videos", "700", "--dim", "64", "--out", &out,
    ];
    assert_status(&run(words), 0);
    let read = |name: &str| std::fs::read_to_string(path(&format!("ave/annotations/{name}"))).unwrap();
    let all = read("Annotations.txt");
    let mut lines = all.lines();
    assert_eq!(lines.next(), Some("Category&VideoID&Quality&StartTime&EndTime"));
    let all: Vec<&str> = lines.collect();
    let lists = ["trainSet.txt", "valSet.txt", "testSet.txt"].map(read);
    assert_eq!(lists.each_ref().map(|list| list.lines().count()), [564, 68, 68]);
    assert_eq!(lists.concat().lines().collect::<Vec<_>>(), all);
    let categories: std::collections::BTreeSet<&str> =
        all.iter().map(|line| line.split('&').next().unwrap()).collect();
    assert_eq!(categories.len(), 28);
    assert!(all.iter().all(|line| line.split('&').nth(1).unwrap().len() == 11));

    let store = path("store");
    let features = |parser: bool| -> Vec<String> {
        let folder = if parser { "ave/parser" } else { "ave" };
        let visual = if parser { "frames" } else { "visual" };
        vec![
            "--visual".into(),
            path(&format!("{folder}/{visual}")),
            "--audio".into(),
            path(&format!("{folder}/audio")),
        ]
    };
    let annotations = path("ave/annotations");
    let texts = [path("ave/visual_text.npy"), path("ave/audio_text.npy")];
    let mut label = vec!["label", "--store", &store, "--annotations", &annotations];
    label.extend([
        "--visual-text",
        &texts[0],
        "--audio-text",
        &texts[1],
        "--fit-thresholds",
    ]);
    let label: Vec<String> = label
        .into_iter()
        .map(str::to_owned)
        .chain(features(false))
        .collect();
    assert_status(&run(label), 0);
    let config = path("train.toml");
    std::fs::write(
        &config,
        "task = \"ave\"\nhidden = 64\nfeedforward = 64\nlearning_rate = 0.003\nbest_predictions = [\"test\"]\n\
         weight_average = 0\nfeature_dropout = 0\n",
    )
    .unwrap();
    let eval = |more: &[&str]| -> Value {
        let words = [
            "eval", "--store", &store, "--task", "ave", "--split", "test", "--format", "json",
        ];
        let output = run([&words[..], more].concat());
        assert_status(&output, 0);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let labels = eval(&[]);
    assert_eq!(
        (&labels["videos"], &labels["segments"]),
        (&68.into(), &680.into())
    );
    let mut accuracies = Vec::new();
    for supervision in ["weak", "pseudo"] {
        let out = path(&format!("train-{supervision}"));
        let mut train = vec!["train", "--store", &store, "--config", &config, "--epochs", "12"];
        train.extend(["--threads", "1", "--supervision", supervision, "--out", &out]);
        let train = train.into_iter().map(str::to_owned).chain(features(true));
        assert_status(&run(train), 0);
        let epoch = {
            let snapshot = vaplan::Store::open(store.as_ref())
                .unwrap()
                .at_version(None)
                .unwrap();
            snapshot.version().epoch.unwrap().to_string()
        };
        accuracies.push(eval(&["--epoch", &epoch])["accuracy"].as_f64().unwrap());
    }
    let labels = labels["accuracy"].as_f64().unwrap();
    // 29 classes with background; one class by chance is right in less than 4 % of the segments. A run of this size does not
    // tell weak and pseudo labels apart: docs/results.md has a larger one.
    assert!(
        labels > 60.0 && accuracies.iter().all(|accuracy| *accuracy > 25.0),
        "labels {labels}, weak and pseudo {accuracies:?}"
    );

    let refused = run(["synth", "--preset", "ave", "--repeat", "2", "--out", &out]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--preset ave is given with --repeat"),
        "{}",
        stderr(&refused)
    );
    let refused = run(["synth", "--preset", "hard", "--out", &out]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--annotations is missing"),
        "{}",
        stderr(&refused)
    );
}
