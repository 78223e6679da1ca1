//! What the issue must show, on all LLP videos: a threshold changed, and changed back.

use std::path::Path;
use std::time::Instant;

use vaplan_schemas::rows::{LabelChangeRow, LabelRule};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{
    Candidates, Classes, Labels, Prompts, Rejects, Scores, Settings, Table, Truth, Videos,
};
use vaplan_schemas::{Modality, StoreVersion};

use crate::support::{assert_status, run, scratch, shared, sorted, stdout};

fn version(store: &Path, version: u64) -> Snapshot {
    let store = Store::open(store).unwrap();
    store.at_version(Some(StoreVersion(version))).unwrap()
}

#[track_caller]
fn assert_same<T: Table>(first: &Snapshot, last: &Snapshot)
where
    T::Row: PartialEq,
{
    let (first, last) = (sorted::<T>(first), sorted::<T>(last));
    assert!(
        first == last,
        "{} is as it was: {} rows, {}",
        T::NAME,
        first.len(),
        last.len()
    );
}

#[test]
fn a_threshold_changed_and_changed_back_leaves_all_llp_videos_as_they_were() {
    let Some(shared) = shared("a_threshold_changed_and_changed_back_leaves_all_llp_videos_as_they_were")
    else {
        return;
    };
    let folder = scratch();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let llp = shared.join("llp").display().to_string();
    let out = path("synth");
    let flags = ["--annotations", &llp, "--out", &out, "--dim", "16", "--parquet"];
    run(["synth"].iter().chain(&flags));
    let store = path("store");
    let began = Instant::now();
    let labelled = run([
        "label",
        "--store",
        &store,
        "--annotations",
        &llp,
        "--visual",
        &path("synth/visual"),
        "--visual-text",
        &path("synth/visual_text.npy"),
        "--audio",
        &path("synth/audio"),
        "--audio-text",
        &path("synth/audio_text.npy"),
    ]);
    let full = began.elapsed();
    assert!(
        stdout(&labelled).starts_with("version 1: 11849 videos"),
        "{labelled:?}"
    );
    let began = Instant::now();
    for threshold in ["visual/Speech=1.1", "visual/Speech=1.025"] {
        assert_status(&run(["relabel", "--store", &store, "--threshold", threshold]), 0);
    }
    println!("label {full:?}, two thresholds {:?}", began.elapsed());

    let place = folder.path().join("store");
    let (first, last) = (version(&place, 1), version(&place, 3));
    assert_same::<Videos>(&first, &last);
    assert_same::<Candidates>(&first, &last);
    assert_same::<Scores>(&first, &last);
    assert_same::<Labels>(&first, &last);
    assert_same::<Classes>(&first, &last);
    assert_same::<Prompts>(&first, &last);
    assert_same::<Settings>(&first, &last);
    assert_same::<Truth>(&first, &last);
    assert_same::<Rejects>(&first, &last);

    let changes = crate::support::label_changes(&last);
    let of = |version: u64| -> Vec<LabelChangeRow> {
        let own = changes.iter().filter(|row| row.version == version);
        own.cloned().collect()
    };
    let (there, back) = (of(2), of(3));
    assert!(there.len() > 1000, "{} cells", there.len());
    for row in &there {
        let key = (row.modality, &*row.class, row.rule);
        assert_eq!(key, (Modality::Visual, "Speech", LabelRule::Plg));
        assert!(
            row.from && !row.to,
            "a higher threshold only takes labels away: {row:?}"
        );
    }
    let undone = there.iter().map(|row| LabelChangeRow {
        version: 3,
        from: row.to,
        to: row.from,
        ..row.clone()
    });
    assert!(
        undone.eq(back),
        "version 3 takes back what version 2 did, cell by cell"
    );
    assert_eq!(last.check().unwrap(), []);
}
