//! Tables of a training: rows → store → rows, and what is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use vaplan_schemas::rows::{EpochRow, VideoPredictionRow};
use vaplan_schemas::store::CommitInfo;
use vaplan_schemas::tables::{Epochs, Table, VideoPredictions};

use crate::support::{create, with};

fn epochs() -> Vec<EpochRow> {
    let row = |epoch: u64, flips, metrics: &[(&str, f64)]| EpochRow {
        epoch,
        run: "a1b2".into(),
        run_epoch: epoch - 3,
        labels: 7,
        videos: 10_000,
        flips,
        learning_rate: 3e-4,
        seconds: 0.5,
        losses: vec![("total".into(), 2.25), ("video".into(), 0.1 + 0.2)],
        metrics: metrics
            .iter()
            .map(|&(name, value)| (name.into(), value))
            .collect(),
    };
    vec![
        row(4, None, &[]),
        row(5, Some(12), &[("val.fused.segment.type_av", 61.2)]),
    ]
}

fn predictions() -> Vec<VideoPredictionRow> {
    let row = |video: &str| VideoPredictionRow {
        epoch: 4,
        video: video.into(),
        probability: vec![0.1, 0.9],
        audio: vec![0.0, 1.0],
        visual: vec![f32::MIN_POSITIVE, 0.5],
    };
    vec![row("-rf_AAAAAAA_0_10"), row("BBBBBBBBBBB_0_10")]
}

fn again<T: Table>(rows: &[T::Row]) -> Vec<T::Row> {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store")).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.append::<T>(rows).unwrap();
    commit.finish().unwrap();
    store.at_version(None).unwrap().read::<T>().unwrap()
}

#[test]
fn rows_of_a_training_read_back_as_they_were_written() {
    assert_eq!(again::<Epochs>(&epochs()), epochs());
    assert_eq!(again::<VideoPredictions>(&predictions()), predictions());
}

#[test]
fn a_value_that_cannot_be_is_named_by_row_and_column() {
    let batch = Epochs::encode(&epochs());
    let refused = |column: &str, array: ArrayRef| {
        let batch = with(&batch, column, array);
        Epochs::decode(&batch).unwrap_err().to_string()
    };
    let counts = |second: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![4, second])) };
    assert_eq!(
        refused("epoch", counts(-5)),
        "table `epochs`, row 1: epoch is -5, expected a number from 0"
    );
    assert_eq!(
        refused("metrics", counts(1)),
        "table `epochs`: column `metrics` is Int64, expected Map(Utf8, Float64)"
    );
    let mut uneven = predictions();
    uneven[1].visual.push(0.0);
    let refused = VideoPredictions::decode(&VideoPredictions::encode(&uneven)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "table `video_predictions`, row 1: visual is 3 values, expected as many as probability"
    );
}
