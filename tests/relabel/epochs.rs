//! Probabilities of an epoch, in files that contradict themselves.

use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Predictions, Rejects};

use super::law::files::{FeatureRows, write_parquet};
use crate::sample::{CLASSES, Sample, name};
use crate::support::{assert_status, run};

#[test]
fn of_a_video_that_a_file_has_once_well_and_once_badly_none_counts() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    let (store, file) = (sample.path("store"), sample.path("epoch.parquet"));
    let rows = |nth: usize, values: usize| FeatureRows {
        key: name(nth),
        modality: Modality::Audio,
        width: CLASSES.len(),
        values: vec![0.5; values],
    };
    // The last segment of the third is short.
    write_parquet(&file, "probability", &[rows(1, 30), rows(2, 30), rows(1, 29)]);
    let [at, from] = [&store, &file].map(|path| path.display().to_string());
    let output = run(["relabel", "--store", &at, "--predictions", &from, "--epoch", "1"]);
    assert_status(&output, 1);
    let latest = Store::open(&store).unwrap().at_version(None).unwrap();
    let predicted = latest.read::<Predictions>().unwrap();
    let videos: Vec<&str> = predicted.iter().map(|track| &*track.video).collect();
    assert_eq!(videos, [name(2)]);
    let rejects = latest.read::<Rejects>().unwrap();
    let own = rejects
        .iter()
        .find(|row| row.file == from && row.video.as_deref() == Some(&*name(1)));
    assert_eq!(
        own.unwrap().reason,
        "feature has 2 values, expected 3 as segment 0 has"
    );
}
