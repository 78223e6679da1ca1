//! `optimize` leaves every row as it was, and files as a store without patches has them.

use std::collections::BTreeSet;
use std::path::Path;

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{LabelChanges, Truth};

use crate::support::{ScoredTracks, assert_holds, commit, create, open, patch, scored, truth};

fn names(snapshot: &Snapshot, table: &str) -> BTreeSet<String> {
    let files = snapshot.files(table).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| name(&file.path)).collect()
}

/// A store that was patched some times.
fn worn(folder: &Path) -> (Store, Vec<ScoredTracks>) {
    let store = create(folder).unwrap();
    let mut versions = vec![ScoredTracks::new()];
    for salt in 1..8 {
        let mut next = versions.last().unwrap().clone();
        let fresh = scored(40, salt);
        let changed = fresh
            .into_iter()
            .enumerate()
            .filter(|(nth, _)| salt == 1 || (nth / 2) % 7 == salt as usize % 7);
        next.extend(changed.map(|(_, entry)| entry));
        let commit = if salt == 1 { commit } else { patch };
        commit(&store, versions.last().unwrap(), &next).unwrap();
        versions.push(next);
    }
    (store, versions)
}

#[test]
fn optimize_changes_no_row_and_leaves_plain_files_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let (store, versions) = worn(folder.path());
    let last = versions.last().unwrap();
    let before = store.latest().unwrap().unwrap();
    let (changes, rows) = (
        before.read::<LabelChanges>().unwrap(),
        before.changes_by_version().unwrap(),
    );
    assert!(before.files("label_changes").unwrap().len() > 5);
    let lock = store.lock(&mut |_| {}).unwrap();
    let done = store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    assert_eq!(done.version, Some(StoreVersion(8)));
    assert!(done.files.1 < done.files.0, "{done:?}");
    let after = open(folder.path()).unwrap().latest().unwrap().unwrap();
    assert_eq!(after.version().inputs, before.version().inputs);
    assert_eq!(after.version().command, "vaplan optimize");
    assert_holds(&after, last);
    assert_eq!(after.check().unwrap(), []);
    assert_eq!(after.read::<LabelChanges>().unwrap(), changes);
    assert_eq!(after.changes_by_version().unwrap(), rows);
    for (table, files) in [("videos", 4), ("scores", 4), ("labels", 4), ("label_changes", 1)] {
        let names = names(&after, table);
        assert_eq!(names.len(), files, "{table}: {names:?}");
        let held = after.files(table).unwrap();
        assert!(held.iter().all(|file| file.deleted.is_none() && !file.is_patch()));
        let log = folder.path().join(table).join("_delta_log");
        assert!(log.join("_last_checkpoint").exists(), "{table}");
    }
    // The files are those of a store that never was patched.
    let plain = tempfile::tempdir().unwrap();
    let other = create(plain.path()).unwrap();
    commit(&other, &ScoredTracks::new(), last).unwrap();
    let other = other.latest().unwrap().unwrap();
    for table in ["videos", "scores", "labels"] {
        assert_eq!(names(&after, table), names(&other, table), "{table}");
    }
    // Older versions are as they were; there is nothing to do a second time.
    for (version, scored) in versions.iter().enumerate().skip(1) {
        let version = Some(StoreVersion(version as u64));
        assert_holds(&store.at_version(version).unwrap(), scored);
    }
    let again = store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    assert_eq!((again.version, again.checkpoints), (None, 0));
    assert_eq!(store.latest().unwrap().unwrap().version().version, 8);
    drop(lock);
    let next = scored(33, 20);
    patch(&store, last, &next).unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &next);
    assert_eq!(latest.check().unwrap(), []);
    assert_eq!(latest.changes_by_version().unwrap().len(), rows.len() + 1);
}

#[test]
fn optimize_puts_a_table_without_buckets_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut expected = Vec::new();
    for onset in 0..5 {
        let mut event = truth().remove(0);
        (event.onset, event.offset) = (onset, 9);
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        commit.patch::<Truth>(&[], std::slice::from_ref(&event)).unwrap();
        commit.finish().unwrap();
        expected.push(event);
    }
    assert_eq!(names(&store.latest().unwrap().unwrap(), "truth").len(), 5);
    store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_eq!(latest.read::<Truth>().unwrap(), expected);
    let names = names(&latest, "truth");
    assert!(
        names.len() == 1 && names.first().unwrap().starts_with("all-"),
        "{names:?}"
    );
}
