//! All ten golden predictions on the real LLP val and test videos, against the public evaluator's scores.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vaplan::eval::{BitMatrix, DenseTruth, EvalReport, PredictedLabels, evaluate};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{Split, TruthRow};

use crate::support::shared;

/// Names of the predictions of each split in `golden/eval/`.
pub(super) const PREDICTIONS: [&str; 5] = [
    "video_label_repeated",
    "nothing",
    "truth_in_label",
    "noisy",
    "noisy_unfiltered",
];

pub(super) fn lines(path: &Path) -> Vec<Arc<str>> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(Arc::from)
        .collect()
}

/// u8 (N, 2, 10, 4): bits packed big-endian along the classes; audio, then visual.
pub(super) fn predictions(path: &Path, classes: usize) -> Vec<PredictedLabels> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let matrix = |bytes: &[u8]| {
        let mut matrix = BitMatrix::new(classes, 10);
        for class in 0..classes {
            for segment in (0..10).filter(|t| bytes[4 * t + class / 8] >> (7 - class % 8) & 1 == 1) {
                matrix.set(class, segment);
            }
        }
        matrix
    };
    bytes[10 + header..]
        .chunks_exact(80)
        .map(|video| PredictedLabels {
            audio: Some(matrix(&video[..40])),
            visual: Some(matrix(&video[40..])),
        })
        .collect()
}

/// Reads a dense file in the plainest way: what it says of videos of no split is dropped by [`DenseTruth::of_rows`].
fn dense(path: &Path, modality: Modality) -> Vec<TruthRow> {
    let row = |line: &Arc<str>| {
        let fields: Vec<&str> = line.trim().split('\t').collect();
        let (onset, offset) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
        TruthRow {
            video: fields[0].into(),
            modality,
            class: fields[3].into(),
            onset,
            offset,
        }
    };
    lines(path).iter().skip(1).map(row).collect()
}

/// The report of one golden prediction, its videos in the order of `<split>_videos.txt`.
fn report(shared: &Path, split: Split, name: &str) -> EvalReport {
    let folder = shared.join("golden/eval");
    let classes = lines(&folder.join("classes.txt"));
    let videos = lines(&folder.join(format!("{split}_videos.txt")));
    let mut rows = dense(&shared.join("llp/AVVP_eval_audio.csv"), Modality::Audio);
    rows.extend(dense(&shared.join("llp/AVVP_eval_visual.csv"), Modality::Visual));
    let truth = DenseTruth::of_rows(classes, split, videos.iter().cloned(), rows).unwrap();

    let unsorted = predictions(&folder.join(format!("{split}_{name}.npy")), truth.classes.len());
    assert_eq!(unsorted.len(), videos.len());
    let mut named: Vec<_> = videos.into_iter().zip(unsorted).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let sorted: Vec<PredictedLabels> = named.into_iter().map(|(_, prediction)| prediction).collect();
    evaluate(&truth, &sorted, false).unwrap()
}

/// Asserts that `report` has the scores of `expected`, key by key, within 1e-9.
#[track_caller]
pub(super) fn assert_scores(name: &str, report: &Value, expected: &Value) {
    for (level, scores) in expected.as_object().unwrap() {
        let scores = scores.as_object().unwrap();
        assert_eq!(scores.len(), 5, "{name}, {level}");
        for (key, expected) in scores {
            let (actual, expected) = (report[level][key].as_f64().unwrap(), expected.as_f64().unwrap());
            assert!(
                (actual - expected).abs() < 1e-9,
                "{name}, {level}, {key}: {actual} is not {expected}"
            );
        }
    }
}

/// `metric` of `golden/expected.json`.
pub(super) fn expected(shared: &Path) -> Value {
    let json = std::fs::read(shared.join("golden/expected.json")).unwrap();
    serde_json::from_slice::<Value>(&json).unwrap()["metric"].take()
}

#[test]
fn golden_predictions_have_the_public_evaluators_scores() {
    let Some(shared) = shared("golden_predictions_have_the_public_evaluators_scores") else {
        return;
    };
    let expected = expected(&shared);
    let mut checked = 0;
    for split in [Split::Val, Split::Test] {
        for prediction in PREDICTIONS {
            let name = format!("{split}_{prediction}");
            let report = serde_json::to_value(report(&shared, split, prediction)).unwrap();
            assert_scores(&name, &report, &expected[&name]);
            checked += 1;
        }
    }
    assert_eq!(
        checked,
        expected.as_object().unwrap().len(),
        "every golden entry is checked"
    );
}
