//! Delivered features whose columns have the names that the store records.

use std::fs;

use super::harness::WatchedStore;
use crate::predict::{COLUMNS, renamed};
use crate::sample::{Sample, Tables, WIDTH, key, name};
use crate::support::{assert_status, run};

#[test]
fn delivered_features_have_the_columns_of_the_store() {
    let sample = Sample::new(6);
    let text = |name: &str| sample.path(name).display().to_string();
    renamed(&text("visual"), &text("visual.parquet"));
    let mut arguments = sample.arguments("store");
    let visual = arguments.iter().position(|word| word == "--visual").unwrap();
    arguments[visual + 1] = text("visual.parquet");
    arguments.extend(["--columns", COLUMNS].map(str::to_owned));
    assert_status(&run(&arguments), 0);
    fs::create_dir(sample.path("inbox")).unwrap();

    let new = sample.path("new");
    fs::create_dir(&new).unwrap();
    let values: Vec<f32> = (0..10 * WIDTH).map(|cell| (cell % 7) as f32 / 7.0).collect();
    let file = new.join(format!("{}.npy", key(50)));
    vaplan::ingest::npy::write_f32(&file, &[10, WIDTH], &values).unwrap();
    renamed(&text("new"), &text("inbox/.unfinished.parquet"));

    let place = WatchedStore { sample };
    let watch = place.watch(&[], None).ready();
    place.deliver(
        "a.weak.csv",
        format!("filename,event_labels\n{},Bell\n", name(50)),
    );
    watch.line("version 2: ");
    fs::rename(
        place.inbox(".unfinished.parquet"),
        place.inbox("x.visual.parquet"),
    )
    .unwrap();
    watch.line("version 3: ");
    let status = watch.stop();
    assert_eq!(status["failed"], 0, "{status}");
    let tables = Tables::read(&place.store());
    let scored = tables.scores.iter().filter(|track| *track.video == *name(50));
    assert_eq!(scored.count(), 1);
}
