//! A delivery by which most videos would lose their labels.

use std::fs;

use vaplan_schemas::Modality;

use super::harness::WatchedStore;
use crate::sample::{Tables, name, write_shard};

/// Labels of a modality, as text for messages.
fn visual(place: &WatchedStore) -> Vec<(String, Vec<bool>)> {
    let tables = Tables::read(&place.store());
    let own = tables
        .labels
        .iter()
        .filter(|track| track.modality == Modality::Visual);
    own.map(|track| (format!("{} {}", track.video, track.class), track.labels.clone()))
        .collect()
}

#[test]
fn features_of_another_width_fail_and_the_watch_goes_on_from_the_labels_of_before() {
    let place = WatchedStore::new(3);
    let watch = place.watch(&[], None).ready();
    let new: Vec<usize> = (50..62).collect();
    let weak: String = new.iter().map(|&nth| format!("{},Bell\n", name(nth))).collect();
    place.deliver("a.weak.csv", format!("filename,event_labels\n{weak}"));
    watch.line("version 2: ");
    let values: Vec<(usize, f32)> = new.iter().map(|&nth| (nth, 0.3)).collect();
    place.deliver_shard("x.visual.parquet", Modality::Visual, &values);
    watch.line("version 3: ");
    let before = visual(&place);
    assert!(before.len() > new.len());

    // The same name, so that they replace what was delivered before, but by a model of another width.
    let beside = place.inbox(".unfinished.parquet");
    write_shard(&beside, 5, new.iter().map(|&nth| (name(nth), vec![0.5; 50])));
    fs::rename(&beside, place.inbox("x.visual.parquet")).unwrap();
    watch.line("x.visual.parquet");
    place.deliver(
        "b.user.csv",
        format!(
            "video,modality,class,label,segment\n{},audio,Bell,1,0\n",
            name(50)
        ),
    );
    watch.line("version 4: ");
    let status = watch.stop();
    assert_eq!(status["failed"], 1, "{status}");
    let reason = fs::read_to_string(place.inbox("failed/x.visual.parquet.reason")).unwrap();
    assert!(
        reason.contains("12 of 15 videos with visual labels would lose all of them"),
        "{reason}"
    );
    assert_eq!(visual(&place), before);
}
