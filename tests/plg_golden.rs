//! PLG against numbers from outside this project: labels equal in every cell.

use vaplan::ingest::npy;
use vaplan_dataflows::Score;
use vaplan_dataflows::decide::plg;
use vaplan_dataflows::rule::Rule;

use crate::support::golden_path;

const SHAPE: (usize, usize, usize) = (64, 10, 25);

fn floats(name: &str) -> Vec<f32> {
    npy::read_floats(&golden_path(&format!("labels/{name}.npy")))
        .unwrap()
        .data
}

fn ints(name: &str) -> Vec<i64> {
    npy::read_ints(&golden_path(&format!("labels/{name}.npy")))
        .unwrap()
        .data
}

/// Labels (N, T, C) of the rule where the video label allows them.
fn labels(rule: Rule, score_threshold: impl Fn(usize) -> f64) -> Vec<i64> {
    let (videos, segments, classes) = SHAPE;
    let (cosines, allowed) = (floats("plg_cosine"), ints("video_label"));
    assert_eq!(cosines.len(), videos * segments * classes);
    let mut labels = Vec::new();
    let mut scores = vec![0.0; classes];
    for (row, cosines) in cosines.chunks(classes).enumerate() {
        rule.score(cosines, &mut scores);
        let video = row / segments;
        let score = |value: f64| Score::new(value).unwrap();
        let set = |class: usize| plg(&[score(scores[class])], score(score_threshold(class))).get(0);
        let cell = |class: usize| allowed[video * classes + class] == 1 && set(class);
        labels.extend((0..classes).map(|class| i64::from(cell(class))));
    }
    labels
}

fn assert_labels(name: &str, labels: &[i64]) {
    let golden = ints(name);
    let wrong = golden.iter().zip(labels).filter(|(a, b)| a != b).count();
    assert_eq!((golden.len(), wrong), (labels.len(), 0), "{name}");
    assert!(golden.contains(&1), "{name} sets something");
}

#[test]
fn softmax_labels_equal_the_golden_ones_in_every_cell() {
    let softmax = Rule::Softmax { scale: 1.0 };
    assert_labels(
        "plg_softmax_0_041",
        &labels(softmax, |_| softmax.score_threshold(1.025, 25)),
    );
    assert_labels(
        "plg_softmax_0_038",
        &labels(softmax, |_| softmax.score_threshold(0.95, 25)),
    );
    let sharp = Rule::Softmax { scale: 100.0 };
    assert_labels(
        "plg_scaled100_0_05",
        &labels(sharp, |_| sharp.score_threshold(1.25, 25)),
    );
}

#[test]
fn logit_labels_equal_the_golden_ones_in_every_cell() {
    let thresholds = floats("plg_per_class_threshold");
    assert_labels(
        "plg_logit100_per_class",
        &labels(Rule::Logit { scale: 100.0 }, |class| f64::from(thresholds[class])),
    );
}
