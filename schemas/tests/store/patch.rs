//! Patches: what a small change writes, when buckets and patch files are written anew, and what readers see.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use vaplan_schemas::store::{CommitInfo, Filter, Snapshot, Store};
use vaplan_schemas::tables::{Labels, Scores, Truth, Videos};
use vaplan_schemas::{StoreVersion, bucket_of};

use crate::support::{
    ScoredTracks, assert_holds, commit, create, labels, open, patch, places, problems_of, scored, scores,
    truth, videos,
};

/// A store of one version.
fn store(scored: &ScoredTracks) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    commit(&store, &ScoredTracks::new(), scored).unwrap();
    (folder, store)
}

/// The scored with other scores of the videos that `wanted` says, by their number.
fn changed(scored: &ScoredTracks, wanted: impl Fn(usize) -> bool) -> ScoredTracks {
    let names: BTreeSet<Arc<str>> = scored.keys().map(|(video, ..)| video.clone()).collect();
    let wanted: BTreeSet<&Arc<str>> = names
        .iter()
        .enumerate()
        .filter(|(number, _)| wanted(*number))
        .map(|(_, name)| name)
        .collect();
    let mut after = scored.clone();
    for ((video, ..), scores) in &mut after {
        if wanted.contains(video) {
            scores.iter_mut().for_each(|score| *score = 1.0 - *score);
        }
    }
    after
}

fn names(snapshot: &Snapshot, table: &str) -> BTreeSet<String> {
    let files = snapshot.files(table).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| name(&file.path)).collect()
}

fn patches(snapshot: &Snapshot, table: &str) -> usize {
    let files = snapshot.files(table).unwrap();
    files.iter().filter(|file| file.is_patch()).count()
}

/// Actions of one kind in the log of a table, first to last.
fn actions(store: &Store, table: &str, kind: &str) -> Vec<Value> {
    let log = store.root().join(table).join("_delta_log");
    let mut entries: Vec<_> = std::fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    entries.sort();
    let lines: Vec<String> = entries
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    lines
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|mut action| action.as_object_mut()?.remove(kind))
        .collect()
}

#[test]
fn a_patch_adds_one_file_a_table_and_takes_no_file_away() {
    let before = scored(40, 1);
    let (_folder, store) = store(&before);
    let first = store.latest().unwrap().unwrap();
    let after = changed(&before, |number| number % 10 == 3);
    assert_eq!(patch(&store, &before, &after).unwrap().version, 2);
    let second = store.latest().unwrap().unwrap();
    assert_holds(&second, &after);
    assert_eq!(problems_of(&second), []);
    assert_holds(&first, &before);
    for table in ["videos", "scores", "labels"] {
        let (old, new) = (names(&first, table), names(&second, table));
        assert!(old.is_subset(&new), "{table}: {old:?}, {new:?}");
        let added: Vec<_> = new.difference(&old).collect();
        assert_eq!(added.len(), 1);
        assert!(added[0].starts_with("p00000002-"), "{added:?}");
        let files = second.files(table).unwrap();
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let gone: u64 = files
            .iter()
            .filter_map(|file| file.deleted.as_ref())
            .map(|gone| gone.len())
            .sum();
        let patched = files.iter().find(|file| file.is_patch()).unwrap().rows;
        assert_eq!(gone, patched, "{table}");
        let rows_before: u64 = first.files(table).unwrap().iter().map(|file| file.rows).sum();
        assert_eq!(rows, rows_before, "{table}");
    }
    // The only row of `rejects` was replaced: nothing is left to mark in its file.
    assert_eq!(names(&second, "rejects").len(), 1);
}

#[test]
fn only_a_table_with_deleted_rows_asks_readers_for_more() {
    let before = scored(40, 1);
    let (_folder, store) = store(&before);
    patch(&store, &before, &changed(&before, |number| number == 7)).unwrap();
    let versions = |table: &str| -> Vec<i64> {
        let protocols = actions(&store, table, "protocol");
        protocols
            .iter()
            .map(|protocol| protocol["minReaderVersion"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(versions("scores"), [1, 3]);
    assert_eq!(versions("classes"), [1]);
    assert_eq!(versions("label_changes"), [1]);
    let after = changed(&before, |number| number < 9);
    patch(&store, &changed(&before, |number| number == 7), &after).unwrap();
    assert_eq!(versions("scores"), [1, 3], "it is said once");
    let metadata = actions(&store, "scores", "metaData");
    assert_eq!(metadata.len(), 2);
    assert_eq!(metadata[0]["id"], metadata[1]["id"]);
    assert_eq!(metadata[0]["schemaString"], metadata[1]["schemaString"]);
    assert_eq!(
        metadata[1]["configuration"]["delta.enableDeletionVectors"],
        "true"
    );
    // What a vector's file counts: all its rows, and bounds that may be too wide.
    let adds = actions(&store, "scores", "add");
    let with: Vec<&Value> = adds
        .iter()
        .filter(|add| !add["deletionVector"].is_null())
        .collect();
    assert!(!with.is_empty());
    for add in with {
        assert_eq!(add["deletionVector"]["storageType"], "i");
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        assert_eq!(stats["tightBounds"], false);
        let first = adds.iter().find(|other| other["path"] == add["path"]).unwrap();
        let all: Value = serde_json::from_str(first["stats"].as_str().unwrap()).unwrap();
        assert_eq!(stats["numRecords"], all["numRecords"]);
        assert_eq!(stats["minValues"], all["minValues"]);
    }
}

#[test]
fn many_patches_become_one_and_every_version_reads() {
    let mut versions = vec![scored(40, 1)];
    let (_folder, store) = store(&versions[0]);
    let mut most = 0;
    for step in 0..40 {
        let before = versions.last().unwrap();
        let after = changed(before, |number| number == (step * 7) % 40);
        patch(&store, before, &after).unwrap();
        most = most.max(patches(&store.latest().unwrap().unwrap(), "labels"));
        versions.push(after);
    }
    assert!((25..=32).contains(&most), "{most} patch files at most");
    for (version, scored) in versions.iter().enumerate().step_by(5) {
        let version = Some(StoreVersion(version as u64 + 1));
        let snapshot = store.at_version(version).unwrap();
        assert_holds(&snapshot, scored);
        assert_eq!(problems_of(&snapshot), []);
    }
}

#[test]
fn a_bucket_of_which_a_quarter_is_gone_is_written_anew_with_its_patched_rows() {
    let mut versions = vec![scored(900, 1)];
    let (_folder, store) = store(&versions[0]);
    // A tenth each time: 900 videos, 225 a bucket, 1,350 rows of scores.
    for step in 0..5 {
        let before = versions.last().unwrap();
        let after = changed(before, |number| number % 10 == step);
        patch(&store, before, &after).unwrap();
        versions.push(after);
    }
    let first = names(&store.at_version(Some(StoreVersion(1))).unwrap(), "scores");
    let buckets = |version| {
        let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
        names(&snapshot, "scores").intersection(&first).count()
    };
    assert_eq!((buckets(2), buckets(3)), (4, 4));
    assert!(buckets(6) < 4, "none was written anew");
    let latest = store.latest().unwrap().unwrap();
    for file in latest.files("scores").unwrap() {
        let gone = file.deleted.as_ref().map_or(0, |gone| gone.len());
        assert!(file.is_patch() || gone * 2 <= file.rows, "{file:?}");
    }
    for (version, scored) in versions.iter().enumerate() {
        let version = Some(StoreVersion(version as u64 + 1));
        let snapshot = store.at_version(version).unwrap();
        assert_holds(&snapshot, scored);
        assert_eq!(problems_of(&snapshot), []);
    }
}

#[test]
fn a_change_of_everything_leaves_buckets_and_no_patches() {
    let before = scored(300, 1);
    let (_folder, store) = store(&before);
    let after = changed(&before, |_| true);
    patch(&store, &before, &after).unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &after);
    assert_eq!(problems_of(&latest), []);
    for table in ["videos", "scores", "labels"] {
        assert_eq!(patches(&latest, table), 0, "{table}");
        assert_eq!(names(&latest, table).len(), 4, "{table}");
    }
    patch(&store, &after, &ScoredTracks::new()).unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &ScoredTracks::new());
    assert_eq!(names(&latest, "scores").len(), 0);
}

#[test]
fn patches_that_outgrow_half_the_buckets_are_folded_into_them() {
    let before = scored(400, 1);
    let (_folder, store) = store(&before);
    // New videos alone: nothing of a bucket is gone.
    let mut after = before.clone();
    for ((video, modality, class), scores) in scored(1_200, 2) {
        let video = format!("new {video}").into();
        after.insert((video, modality, class), scores);
    }
    patch(&store, &before, &after).unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &after);
    assert_eq!(patches(&latest, "scores"), 0);
    assert_eq!(patches(&latest, "videos"), 1, "1,200 rows are few");
    assert_eq!(problems_of(&latest), []);
}

#[test]
fn a_bucket_that_is_replaced_loses_its_patched_rows_too() {
    let before = scored(40, 1);
    let (_folder, store) = store(&before);
    let after = changed(&before, |number| number % 4 == 1);
    patch(&store, &before, &after).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    let own = |bucket| move |video: &Arc<str>| bucket_of(video, 4) == bucket;
    // Bucket 1 from before the change; bucket 2 becomes empty, after it was patched in the same commit.
    let old: Vec<_> = labels(&before)
        .into_iter()
        .filter(|row| own(1)(&row.video))
        .collect();
    let snapshot = store.latest().unwrap().unwrap();
    let two: Vec<_> = labels(&scored(40, 3))
        .into_iter()
        .filter(|row| own(2)(&row.video))
        .collect();
    let filter = Filter::videos(two.iter().map(|row| row.video.clone()));
    let gone = places::<Labels>(Some(&snapshot), &filter).unwrap();
    commit.patch::<Labels>(&gone, &two).unwrap();
    commit.replace_bucket::<Labels>(1, &old).unwrap();
    commit.replace_bucket::<Labels>(2, &[]).unwrap();
    commit.finish().unwrap();
    let expected: Vec<_> = labels(&after)
        .into_iter()
        .filter(|row| !own(1)(&row.video) && !own(2)(&row.video))
        .chain(old)
        .map(|row| format!("{row:?}"))
        .collect();
    let held = store.latest().unwrap().unwrap().read::<Labels>().unwrap();
    let held: BTreeSet<String> = held.iter().map(|row| format!("{row:?}")).collect();
    assert_eq!(held, expected.into_iter().collect());
}

#[test]
fn a_table_without_buckets_is_patched_too() {
    let before = scored(5, 1);
    let (_folder, store) = store(&before);
    let event = |onset| {
        let mut event = truth().remove(0);
        (event.onset, event.offset) = (onset, 9);
        event
    };
    let step = |gone: Option<u32>, new: &[u32]| {
        let lock = store.lock(&mut |_| {}).unwrap();
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        let snapshot = store.latest().unwrap().unwrap();
        let found = snapshot.scan::<Truth>(&Filter::all()).unwrap();
        let gone: Vec<_> = found
            .iter()
            .filter(|found| Some(found.row.onset) == gone)
            .map(|found| found.place)
            .collect();
        let new: Vec<_> = new.iter().map(|&onset| event(onset)).collect();
        commit.patch::<Truth>(&gone, &new).unwrap();
        commit.finish().unwrap();
        let rows = store.latest().unwrap().unwrap().read::<Truth>().unwrap();
        rows.iter().map(|row| row.onset).collect::<Vec<_>>()
    };
    assert_eq!(step(None, &[5, 3, 4]), [0, 3, 4, 5]);
    assert_eq!(step(Some(4), &[1]), [0, 1, 3, 5]);
    assert_eq!(step(Some(0), &[]), [1, 3, 5]);
    assert_eq!(step(Some(3), &[]), [1, 5]);
    assert_eq!(problems_of(&store.latest().unwrap().unwrap()), []);
}

#[test]
fn a_key_that_a_patch_adds_twice_is_found() {
    let before = scored(20, 1);
    let (_folder, store) = store(&before);
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    // What was there is not taken away.
    commit.patch::<Scores>(&[], &scores(&before)[..1]).unwrap();
    commit.finish().unwrap();
    let problems = problems_of(&store.latest().unwrap().unwrap());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains("is also in"), "{problems:?}");
    assert_eq!(problems[0].table, "scores");
}

#[test]
fn the_same_patch_done_again_is_the_same_files() {
    let before = scored(40, 1);
    let after = changed(&before, |number| number % 9 == 2);
    let (_folder, one) = store(&before);
    let (_other, two) = store(&before);
    for store in [&one, &two] {
        // The first of two was given up.
        let lock = store.lock(&mut |_| {}).unwrap();
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        commit.patch::<Videos>(&[], &videos(&scored(3, 9))[..1]).unwrap();
        drop(commit);
        drop(lock);
        patch(store, &before, &after).unwrap();
    }
    let (one, two) = (one.latest().unwrap().unwrap(), two.latest().unwrap().unwrap());
    for table in ["videos", "scores", "labels", "rejects"] {
        assert_eq!(names(&one, table), names(&two, table));
        let gone = |snapshot: &Snapshot| -> Vec<_> {
            let files = snapshot.files(table).unwrap();
            files.into_iter().map(|file| file.deleted).collect()
        };
        assert_eq!(gone(&one), gone(&two));
    }
}

#[test]
fn a_long_log_is_read_from_its_checkpoint_on() {
    let mut scored = scored(8, 1);
    let (folder, store) = store(&scored);
    for step in 0..70 {
        let after = changed(&scored, |number| number == step % 8);
        patch(&store, &scored, &after).unwrap();
        scored = after;
    }
    for table in ["scores", "labels", "versions"] {
        let log = folder.path().join(table).join("_delta_log");
        let entries: BTreeSet<String> = std::fs::read_dir(&log)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let checkpoints: Vec<&String> = entries
            .iter()
            .filter(|name| name.ends_with(".checkpoint.parquet"))
            .collect();
        assert_eq!(checkpoints.len(), 1, "{table}: {entries:?}");
        // What lies before it is not read.
        for entry in entries.range::<String, _>(..checkpoints[0]) {
            std::fs::remove_file(log.join(entry)).unwrap();
        }
    }
    let latest = open(folder.path()).unwrap().latest().unwrap().unwrap();
    assert_eq!(latest.version().version, 71);
    assert_holds(&latest, &scored);
    assert_eq!(problems_of(&latest), []);
    let after = changed(&scored, |number| number == 3);
    patch(&open(folder.path()).unwrap(), &scored, &after).unwrap();
    assert_holds(&store.latest().unwrap().unwrap(), &after);
}
