//! Copies of the logs of tables: they spare the reading of logs, and never say anything else than the logs.

use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;
use vaplan_schemas::store::Store;

use crate::support::{ScoredTracks, assert_holds, commit, create, open, scored};

/// A store of two versions, and what the second one holds.
fn store() -> (tempfile::TempDir, ScoredTracks) {
    store_of(1)
}

/// The same with other scores for each `salt`.
fn store_of(salt: u64) -> (tempfile::TempDir, ScoredTracks) {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let (first, second) = (scored(23, salt), scored(23, salt + 1));
    commit(&store, &ScoredTracks::new(), &first).unwrap();
    commit(&store, &first, &second).unwrap();
    (folder, second)
}

fn copy(store: &Path, table: &str) -> PathBuf {
    store.join("_vaplan/logs").join(format!("{table}.json"))
}

fn entry(store: &Path, table: &str, version: u64) -> PathBuf {
    store.join(table).join(format!("_delta_log/{version:020}.json"))
}

/// Opens the store as a new process does, and asserts what its last version holds.
fn assert_reads(store: &Path, expected: &ScoredTracks) {
    let store: Store = open(store).unwrap();
    assert_holds(&store.latest().unwrap().unwrap(), expected);
}

#[test]
fn a_table_is_read_by_its_copy_and_not_by_the_entries_before_the_last() {
    let (folder, expected) = store();
    let first = entry(folder.path(), "labels", 0);
    let kept = std::fs::read(&first).unwrap();
    std::fs::write(&first, "no JSON").unwrap();
    assert_reads(folder.path(), &expected);
    // Without the copy, the log itself is read.
    std::fs::remove_file(copy(folder.path(), "labels")).unwrap();
    let store = open(folder.path()).unwrap();
    assert!(store.latest().unwrap().unwrap().files("labels").is_err());
    // A check reads the log, whatever the copy says.
    std::fs::write(&first, &kept).unwrap();
    assert_reads(folder.path(), &expected);
    assert!(copy(folder.path(), "labels").exists(), "a reader left a copy");
    std::fs::write(&first, "no JSON").unwrap();
    let store = open(folder.path()).unwrap();
    assert!(store.latest().unwrap().unwrap().check().is_err());
}

#[test]
fn a_damaged_copy_and_a_copy_of_another_history_do_not_count() {
    let (folder, expected) = store();
    let path = copy(folder.path(), "labels");
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 7, 8, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_reads(folder.path(), &expected);
    }
    for length in [0, 7, 8, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_reads(folder.path(), &expected);
    }
    // The same version of another store, as after a restore from a backup.
    let (other, others) = store_of(7);
    std::fs::copy(copy(other.path(), "labels"), &path).unwrap();
    assert_reads(folder.path(), &expected);
    assert_reads(other.path(), &others);
}

#[test]
fn a_check_names_a_copy_that_says_something_else() {
    let (folder, expected) = store();
    let path = copy(folder.path(), "labels");
    let whole = std::fs::read(&path).unwrap();
    let text = String::from_utf8(whole[8..].to_vec()).unwrap();
    let wrong = text.replacen("\"rows\":", "\"rows\":1", 1);
    assert_ne!(text, wrong);
    let sum = XxHash3_64::oneshot(wrong.as_bytes()).to_le_bytes();
    std::fs::write(&path, [&sum[..], wrong.as_bytes()].concat()).unwrap();
    let store = open(folder.path()).unwrap();
    let problems = store.latest().unwrap().unwrap().check().unwrap();
    let of_copy = problems
        .iter()
        .find(|problem| problem.file.as_deref() == Some(&path));
    assert!(
        of_copy.unwrap().what.contains("differs from the log"),
        "{problems:?}"
    );
    std::fs::remove_file(&path).unwrap();
    assert_reads(folder.path(), &expected);
}

#[test]
fn an_older_version_does_not_replace_the_copy_of_the_last_one() {
    let (folder, expected) = store();
    let before = std::fs::read(copy(folder.path(), "labels")).unwrap();
    let store = open(folder.path()).unwrap();
    let older = store.at_version(Some(vaplan_schemas::StoreVersion(1))).unwrap();
    assert_holds(&older, &scored(23, 1));
    assert_eq!(std::fs::read(copy(folder.path(), "labels")).unwrap(), before);
    assert_reads(folder.path(), &expected);
}
