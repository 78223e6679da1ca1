//! Round trips, time travel, writers and readers beside each other, and any script of commits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use vaplan_schemas::storage::faulty::{Faults, FaultyMemory};
use vaplan_schemas::store::CommitInfo;
use vaplan_schemas::tables::{Labels, Scores, Truth, Videos};
use vaplan_schemas::{Modality, StoreError, StoreVersion, TableError, bucket_of};

use crate::objects::{InMemory, PART_BYTES};
use crate::support::{
    ScoredTracks, VIDEOS, assert_holds, commit, create, labels, open, patch, problems_of, scored, truth,
};

#[test]
fn what_is_committed_is_read_back_by_any_store_opened_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a store, with % in its name");
    let after = scored(23, 1);
    let row = commit(&create(&place).unwrap(), &ScoredTracks::new(), &after).unwrap();
    assert_eq!(row.version, 1);
    let snapshot = open(&place).unwrap().latest().unwrap().unwrap();
    assert_eq!(snapshot.version(), &row);
    assert_eq!(snapshot.buckets().unwrap(), Some(4));
    assert_holds(&snapshot, &after);
    assert_eq!(snapshot.check().unwrap(), []);
}

#[test]
fn a_video_is_read_from_its_bucket_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let after = scored(23, 1);
    commit(&store, &ScoredTracks::new(), &after).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    let video = "../1/..";
    for file in snapshot.files("labels").unwrap() {
        if file.bucket().unwrap().0 != bucket_of(video, 4) {
            std::fs::remove_file(file.path).unwrap();
        }
    }
    let expected: Vec<_> = labels(&after)
        .into_iter()
        .filter(|track| &*track.video == video)
        .collect();
    assert_eq!(expected.len(), 2);
    assert_eq!(snapshot.read_video::<Labels>(video).unwrap(), expected);
    assert_eq!(snapshot.read_video::<Truth>(video).unwrap(), truth());
    assert_eq!(
        snapshot.read_video::<Labels>("no such video").unwrap_or_default(),
        []
    );
}

#[test]
fn every_version_stays_readable_after_three() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let versions = [ScoredTracks::new(), scored(23, 1), scored(23, 2), scored(11, 2)];
    for pair in versions.windows(2) {
        commit(&store, &pair[0], &pair[1]).unwrap();
    }
    for version in 1..=3 {
        let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
        assert_holds(&snapshot, &versions[version as usize]);
        assert_eq!(snapshot.check().unwrap(), []);
    }
    let versions: Vec<u64> = store.versions().unwrap().iter().map(|row| row.version).collect();
    assert_eq!(versions, [1, 2, 3]);
    let unknown = store.at_version(Some(StoreVersion(4))).unwrap_err();
    assert_eq!(unknown.to_string(), "store has no version 4, expected 1 to 3");
}

#[test]
fn a_change_of_one_video_rewrites_one_bucket_of_each_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let before = scored(40, 1);
    commit(&store, &ScoredTracks::new(), &before).unwrap();
    let first = store.latest().unwrap().unwrap();
    let mut after = before.clone();
    let (_, scores) = after.iter_mut().next().unwrap();
    scores[0] = 1.0 - scores[0];
    commit(&store, &before, &after).unwrap();
    let second = store.latest().unwrap().unwrap();
    for table in ["scores", "labels"] {
        let (old, new) = (first.files(table).unwrap(), second.files(table).unwrap());
        assert_eq!(old.len(), 4);
        assert_eq!(
            new.iter().filter(|file| !old.contains(file)).count(),
            1,
            "{table}"
        );
    }
    assert_eq!(first.files("videos").unwrap(), second.files("videos").unwrap());
}

#[test]
fn many_versions_are_put_together_and_all_listed() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    for number in 1..=70 {
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        assert_eq!(commit.version(), StoreVersion(number));
        commit.replace_all::<Truth>(&truth()).unwrap();
        commit.finish().unwrap();
    }
    let versions: Vec<u64> = store.versions().unwrap().iter().map(|row| row.version).collect();
    assert_eq!(versions, (1..=70).collect::<Vec<u64>>());
    let latest = store.latest().unwrap().unwrap();
    assert_eq!(latest.version().version, 70);
    assert!(latest.version_files().unwrap().len() < 64);
    for version in [1, 10, 63, 64, 65, 66, 70] {
        let files = store
            .at_version(Some(StoreVersion(version)))
            .unwrap()
            .version_files()
            .unwrap();
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        assert_eq!(rows, version);
    }
    // Unchanged rows are the same file, and the same Delta version.
    assert_eq!(
        latest.version().tables,
        [("truth".to_owned(), store.versions().unwrap()[0].tables[0].1)]
    );
}

#[test]
fn a_reader_sees_the_version_before_until_the_next_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let (before, after) = (scored(23, 1), scored(23, 2));
    commit(&store, &ScoredTracks::new(), &before).unwrap();
    let reader = store.latest().unwrap().unwrap();
    commit(&store, &before, &after).unwrap();
    // Its logs and files are read only now.
    assert_holds(&reader, &before);
    assert_holds(&store.latest().unwrap().unwrap(), &after);
}

#[test]
fn stores_opened_side_by_side_see_each_others_versions() {
    let folder = tempfile::tempdir().unwrap();
    let one = create(folder.path()).unwrap();
    let two = create(folder.path()).unwrap();
    let mut held = ScoredTracks::new();
    for step in 0..6 {
        let after = scored(20, step);
        let (store, other) = if step % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let commit = if step % 3 == 0 { commit } else { patch };
        assert_eq!(commit(store, &held, &after).unwrap().version, step + 1);
        held = after;
        for store in [store, other] {
            assert_holds(&store.latest().unwrap().unwrap(), &held);
        }
    }
}

#[test]
fn a_commit_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let before = scored(23, 1);
    commit(&store, &ScoredTracks::new(), &before).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut dropped = store.begin(&lock, CommitInfo::default()).unwrap();
    dropped.replace_all::<Truth>(&[]).unwrap();
    dropped.replace_bucket::<Labels>(0, &[]).unwrap();
    drop(dropped);
    let snapshot = store.latest().unwrap().unwrap();
    assert_holds(&snapshot, &before);
    assert_eq!(
        std::fs::read_dir(folder.path().join("_vaplan/scratch"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn the_second_writer_waits_for_the_first_and_neither_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| panic!("no one else writes")).unwrap();
    let (told, waiting) = mpsc::channel();
    let second = std::thread::spawn({
        let store = store.clone();
        move || {
            let lock = store
                .lock(&mut |holder| told.send(holder.to_owned()).unwrap())
                .unwrap();
            let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
            commit.replace_all::<Truth>(&truth()).unwrap();
            commit.finish().unwrap().version
        }
    });
    let holder = waiting.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(holder, format!("process {}", std::process::id()));
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Truth>(&[]).unwrap();
    assert_eq!(commit.finish().unwrap().version, 1);
    drop(lock);
    assert_eq!(second.join().unwrap(), 2);
    assert_eq!(store.latest().unwrap().unwrap().read::<Truth>().unwrap(), truth());
}

#[test]
fn rows_in_any_order_are_sorted_and_rows_of_one_key_or_another_bucket_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let info = CommitInfo {
        videos: VIDEOS,
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    let event = |onset| {
        let mut event = truth().remove(0);
        (event.onset, event.offset) = (onset, 9);
        event
    };
    let refused = commit
        .replace_all::<Truth>(&[event(1), event(0), event(1)])
        .unwrap_err();
    let StoreError::Unwritable(TableError::Duplicate { table, row, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((table, row), ("truth", 2));
    let tracks = labels(&scored(5, 1));
    let bucket = bucket_of(&tracks[0].video, 4);
    let refused = commit
        .replace_bucket::<Labels>((bucket + 1) % 4, &tracks[..1])
        .unwrap_err();
    let StoreError::Unwritable(source) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        source.to_string(),
        format!(
            "table `labels`: video `{}` was put into bucket {}, expected {bucket}",
            tracks[0].video,
            (bucket + 1) % 4
        )
    );
    let refused = commit
        .replace_buckets::<Labels>(|_| tracks[..1].to_vec())
        .unwrap_err();
    assert!(
        matches!(refused, StoreError::Unwritable(TableError::Bucket { .. })),
        "{refused:?}"
    );
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Truth>(&[event(1), event(0)]).unwrap();
    commit.finish().unwrap();
    assert_eq!(
        store.latest().unwrap().unwrap().read::<Truth>().unwrap(),
        [event(0), event(1)]
    );
}

#[test]
fn a_folder_that_is_no_store_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let message = open(&none).unwrap_err().to_string();
    assert!(
        message.contains("none") && message.contains("vaplan label --store"),
        "{message}"
    );
    assert!(!none.exists());
    let store = create(&none).unwrap();
    assert!(store.latest().unwrap().is_none());
    let message = store.at_version(None).unwrap_err().to_string();
    assert!(message.contains("has no version yet"), "{message}");
}

/// One commit, as a patch or bucket by bucket: these videos go, those come or change.
type Step = (bool, BTreeMap<u8, Option<Vec<bool>>>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let track = proptest::option::of(proptest::collection::vec(any::<bool>(), 1..4));
    let step = (
        any::<bool>(),
        proptest::collection::btree_map(0u8..12, track, 0..6),
    );
    proptest::collection::vec(step, 1..6)
}

/// Commits a script to a new store, and asserts that every version reads as its model.
fn assert_reads_as_its_model(place: &Path, script: &[Step]) {
    let store = create(place).unwrap();
    let mut versions = vec![ScoredTracks::new()];
    for (as_patch, step) in script {
        let mut scored = versions.last().unwrap().clone();
        for (video, track) in step {
            let key = (format!("v{video}_0_10").into(), Modality::Visual, "Dog".into());
            match track {
                Some(bits) => {
                    let scores = bits.iter().map(|&bit| if bit { 0.75 } else { 0.25 });
                    scored.insert(key, scores.collect());
                }
                None => {
                    scored.remove(&key);
                }
            }
        }
        let commit = if *as_patch { patch } else { commit };
        commit(&store, versions.last().unwrap(), &scored).unwrap();
        versions.push(scored);
    }
    for (version, scored) in versions.iter().enumerate().skip(1) {
        let snapshot = store.at_version(Some(StoreVersion(version as u64))).unwrap();
        assert_holds(&snapshot, scored);
        assert_eq!(problems_of(&snapshot), []);
    }
    let latest = store.latest().unwrap().unwrap();
    let count = versions.last().unwrap().len();
    assert_eq!(latest.read::<Videos>().unwrap().len(), count);
    assert_eq!(latest.read::<Scores>().unwrap().len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_script_of_commits_reads_as_its_model_at_every_version(script in steps()) {
        let folder = tempfile::tempdir().unwrap();
        assert_reads_as_its_model(folder.path(), &script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_script_of_commits_to_an_object_store_that_fails_reads_as_its_model(
        script in steps(),
        seed in any::<u64>(),
        in_parts in any::<bool>(),
    ) {
        let memory = FaultyMemory::new(Faults {
            seed,
            unavailable: 0.03,
            lost: 0.05,
            partial: 0.05,
            conflict: 0.1,
            ..Faults::default()
        });
        let place = InMemory::with_parts(memory, in_parts.then_some(PART_BYTES));
        assert_reads_as_its_model(&place.url, &script);
    }
}
