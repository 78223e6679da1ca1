//! A small store stays plain: its changes write files anew, so that readers without deletion vectors open every table.

use std::path::Path;

use serde_json::Value;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{PredictionTrack, UserLabelRow};
use vaplan_schemas::store::{CommitInfo, Filter, Snapshot, Store};
use vaplan_schemas::tables::{Labels, Predictions, Table, UserLabels, all};

use crate::support::{ScoredTracks, assert_holds, commit, create, open, patch, places, scored};

/// The reader versions that the log of a table asks for, one per protocol action.
fn readers(root: &Path, table: &str) -> Vec<u64> {
    let mut entries: Vec<_> = std::fs::read_dir(root.join(table).join("_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    entries.sort();
    let mut readers = Vec::new();
    for entry in entries {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            readers.extend(
                action
                    .get("protocol")
                    .and_then(|protocol| protocol["minReaderVersion"].as_u64()),
            );
        }
    }
    readers
}

fn is_plain(snapshot: &Snapshot, table: &str) -> bool {
    let files = snapshot.files(table).unwrap();
    files
        .iter()
        .all(|file| file.deleted.is_none() && !file.is_patch())
}

/// `before` with other scores in every fifth video from `first`, without the video after it, and with one new video.
fn changed(before: &ScoredTracks, first: usize) -> ScoredTracks {
    let videos: Vec<_> = before.keys().map(|(video, ..)| video.clone()).collect();
    let mut names = videos.clone();
    names.dedup();
    let mut after = before.clone();
    for ((video, ..), scores) in &mut after {
        let place = names.iter().position(|name| name == video).unwrap();
        if place % 5 == first {
            scores.iter_mut().for_each(|score| *score = 1.0 - *score);
        }
    }
    let gone = &names[first + 1];
    after.retain(|(video, ..), _| video != gone);
    after.insert(
        (format!("new {first}").into(), Modality::Audio, "Dog".into()),
        vec![0.75; 3],
    );
    after
}

/// A store of one version that patches every change, and its rows.
fn always_patched() -> (tempfile::TempDir, Store, ScoredTracks) {
    let folder = tempfile::tempdir().unwrap();
    let first = scored(20, 1);
    let store = create(folder.path()).unwrap();
    commit(&store, &ScoredTracks::new(), &first).unwrap();
    (folder, store, first)
}

#[test]
fn changes_of_a_small_store_leave_tables_that_every_reader_opens() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let mut versions = vec![scored(200, 1)];
    commit(&store, &ScoredTracks::new(), &versions[0]).unwrap();
    for first in 0..4 {
        let before = versions.last().unwrap();
        let after = changed(before, first);
        patch(&store, before, &after).unwrap();
        versions.push(after);
    }
    for (nth, scored) in versions.iter().enumerate() {
        let version = vaplan_schemas::StoreVersion(nth as u64 + 1);
        let snapshot = store.at_version(Some(version)).unwrap();
        assert_holds(&snapshot, scored);
        assert_eq!(snapshot.check().unwrap(), []);
        for (table, _) in all() {
            assert!(is_plain(&snapshot, table), "{table} at version {version:?}");
        }
    }
    for table in ["videos", "scores", "labels", "label_changes", "rejects"] {
        assert_eq!(readers(folder.path(), table), [1], "{table}");
    }
}

#[test]
fn only_the_buckets_of_a_change_are_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let before = scored(200, 1);
    commit(&store, &ScoredTracks::new(), &before).unwrap();
    let mut after = before.clone();
    after.values_mut().next().unwrap()[0] = 0.123;
    let names = |snapshot: &Snapshot| -> Vec<_> {
        let files = snapshot.files("scores").unwrap();
        files.into_iter().map(|file| file.path).collect()
    };
    let first = names(&store.latest().unwrap().unwrap());
    patch(&store, &before, &after).unwrap();
    let second = names(&store.latest().unwrap().unwrap());
    let same = second.iter().filter(|path| first.contains(path)).count();
    assert_eq!((first.len(), second.len(), same), (4, 4, 3));
}

#[test]
fn a_large_change_is_a_patch_and_a_small_store_that_was_patched_becomes_plain_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let first = scored(200, 1);
    commit(&store, &ScoredTracks::new(), &first).unwrap();
    let second = changed(&first, 0);
    // The files of the change have more than 100 bytes.
    patch(&store.clone().with_plain_bytes(100), &first, &second).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert!(!is_plain(&snapshot, "scores") && !is_plain(&snapshot, "labels"));
    let third = changed(&second, 1);
    patch(&store, &second, &third).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert_holds(&snapshot, &third);
    assert!(is_plain(&snapshot, "scores") && is_plain(&snapshot, "labels"));
}

#[test]
fn few_rows_in_many_buckets_are_one_file_and_not_one_for_each_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let rows: Vec<UserLabelRow> = (0..900)
        .map(|video| UserLabelRow {
            video: format!("{video}").into(),
            modality: Modality::Visual,
            class: "Dog".into(),
            segment: 0,
            label: true,
            source: "a.csv".into(),
        })
        .collect();
    let info = |videos| CommitInfo {
        videos,
        ..CommitInfo::default()
    };
    // A store of 300,000 videos has 512 buckets, so that the rows are in most of them.
    let mut commit = store.begin(&lock, info(300_000)).unwrap();
    assert_eq!(commit.buckets(), 512);
    commit.patch::<UserLabels>(&[], &rows[..600]).unwrap();
    commit.finish().unwrap();
    let mut commit = store.begin(&lock, info(300_000)).unwrap();
    commit.patch::<UserLabels>(&[], &rows[600..]).unwrap();
    commit.finish().unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert_eq!(snapshot.files(UserLabels::NAME).unwrap().len(), 2);
    let mut found = snapshot.read::<UserLabels>().unwrap();
    found.sort_by_key(|row| row.video.parse::<u32>().unwrap());
    assert_eq!(found, rows);
    assert_eq!(
        readers(folder.path(), UserLabels::NAME),
        [1],
        "no row was deleted"
    );
}

#[test]
fn rows_are_taken_out_of_the_files_of_a_table_that_is_only_added_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let track = |epoch, video: &str, probability: f32| PredictionTrack {
        epoch,
        video: video.into(),
        modality: Modality::Visual,
        classes: 1,
        probability: vec![probability; 2],
    };
    let lock = store.lock(&mut |_| {}).unwrap();
    for epoch in 1..3 {
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        commit
            .append::<Predictions>(&[track(epoch, "a", 0.5), track(epoch, "b", 0.5)])
            .unwrap();
        commit.finish().unwrap();
    }
    let before = store.latest().unwrap().unwrap();
    let gone = places::<Predictions>(Some(&before), &Filter::videos(["a".into()])).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit
        .patch::<Predictions>(&gone[..1], &[track(1, "a", 0.25)])
        .unwrap();
    commit.finish().unwrap();
    let after = store.latest().unwrap().unwrap();
    let mut rows = after.read::<Predictions>().unwrap();
    rows.sort_by(|a, b| (a.epoch, &a.video).cmp(&(b.epoch, &b.video)));
    let expected = [
        track(1, "a", 0.25),
        track(1, "b", 0.5),
        track(2, "a", 0.5),
        track(2, "b", 0.5),
    ];
    assert_eq!(rows, expected);
    assert!(is_plain(&after, "predictions"));
    assert_eq!(before.read::<Predictions>().unwrap().len(), 4);
    assert_eq!(readers(folder.path(), "predictions"), [1]);
}

#[test]
fn optimize_makes_a_patched_store_one_that_every_reader_opens() {
    let (folder, store, first) = always_patched();
    let second = changed(&first, 0);
    patch(&store, &first, &second).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    assert_eq!(readers(folder.path(), "labels"), [1, 3]);
    for times in 0..2 {
        let done = store
            .optimize_for_every_reader(&lock, "vaplan optimize --reader 1", "0.1.0")
            .unwrap();
        assert_eq!(
            done.version.is_some(),
            times == 0,
            "nothing is left to do after the first time"
        );
        let snapshot = open(folder.path()).unwrap().latest().unwrap().unwrap();
        assert_holds(&snapshot, &second);
        assert_eq!(snapshot.check().unwrap(), []);
        for table in ["videos", "scores", "labels"] {
            assert_eq!(readers(folder.path(), table), [1, 3, 1], "{table}");
        }
    }
    drop(lock);
    // The store can be patched again.
    patch(&store, &second, &changed(&second, 1)).unwrap();
    assert_eq!(readers(folder.path(), "labels"), [1, 3, 1, 3]);
    assert_holds(&store.latest().unwrap().unwrap(), &changed(&second, 1));
}

#[test]
fn with_plain_bytes_of_0_every_change_is_a_patch() {
    let (_folder, store, first) = always_patched();
    patch(&store, &first, &changed(&first, 0)).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert!(!is_plain(&snapshot, "labels"));
    assert!(snapshot.read::<Labels>().is_ok());
}
