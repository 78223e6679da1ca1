//! `kill -9` between any two steps of a commit, then a run of the same, or of something else.

use std::path::Path;
use std::process::{Command, Stdio};

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;

use crate::support::{ScoredTracks, assert_holds, commit, create, open, scored};

const PLACE: &str = "VAPLAN_TEST_STORE";

fn before() -> ScoredTracks {
    scored(23, 1)
}

fn after() -> ScoredTracks {
    scored(23, 2)
}

/// Commits [`after`] over [`before`]: in the store that the environment names it is the process that the other tests
/// kill, in one of its own it is what they compare with, the same commit undisturbed.
#[test]
fn child() {
    let own = tempfile::tempdir().unwrap();
    let named = std::env::var(PLACE);
    let place = named.as_ref().map_or(own.path(), Path::new);
    let store = create(place).unwrap();
    if named.is_err() {
        commit(&store, &ScoredTracks::new(), &before()).unwrap();
    }
    let row = commit(&store, &before(), &after()).unwrap();
    assert_eq!(row.version, 2);
    assert_holds(&store.latest().unwrap().unwrap(), &after());
}

fn crash(place: &Path, point: &str) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--test-threads=1"])
        .env(PLACE, place)
        .env("VAPLAN_FAULT", point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "it was to crash at {point}");
}

fn points() -> Vec<String> {
    let mut points: Vec<String> = ["before-file", "after-file", "after-files", "before-versions"]
        .map(String::from)
        .into();
    for table in [
        "classes",
        "videos",
        "scores",
        "labels",
        "label_changes",
        "rejects",
    ] {
        points.extend([format!("before-{table}"), format!("after-{table}")]);
    }
    points
}

fn crashed(point: &str) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    commit(&store, &ScoredTracks::new(), &before()).unwrap();
    crash(folder.path(), point);
    (folder, store)
}

#[test]
fn a_crash_anywhere_leaves_the_version_before_and_the_same_run_ends_well() {
    for point in points() {
        let (_folder, store) = crashed(&point);
        let snapshot = store.latest().unwrap().unwrap();
        assert_eq!(snapshot.version().version, 1, "{point}");
        assert_holds(&snapshot, &before());
        assert_eq!(snapshot.check().unwrap(), [], "{point}");
        assert_eq!(commit(&store, &before(), &after()).unwrap().version, 2);
        let snapshot = store.latest().unwrap().unwrap();
        assert_holds(&snapshot, &after());
        assert_eq!(snapshot.check().unwrap(), [], "{point}");
        assert_holds(&store.at_version(Some(StoreVersion(1))).unwrap(), &before());
    }
}

#[test]
fn a_crash_anywhere_leaves_nothing_of_its_own_in_a_run_of_something_else() {
    for point in points() {
        let (folder, store) = crashed(&point);
        let other = scored(7, 3);
        assert_eq!(commit(&store, &before(), &other).unwrap().version, 2);
        let snapshot = store.latest().unwrap().unwrap();
        assert_holds(&snapshot, &other);
        assert_eq!(snapshot.check().unwrap(), [], "{point}");
        assert_holds(&store.at_version(Some(StoreVersion(1))).unwrap(), &before());
        assert_eq!(
            std::fs::read_dir(folder.path().join("_vaplan/scratch"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn tables_that_a_killed_run_moved_are_moved_back_for_readers_from_outside() {
    let (folder, store) = crashed("before-versions");
    let lock = store.lock(&mut |_| {}).unwrap();
    let entries = |table: &str| {
        std::fs::read_dir(folder.path().join(table).join("_delta_log"))
            .unwrap()
            .count()
    };
    let (labels, classes) = (entries("labels"), entries("classes"));
    let info = vaplan_schemas::store::CommitInfo::default();
    let row = store.begin(&lock, info).unwrap().finish().unwrap();
    assert_eq!(row.version, 2);
    // The killed run changed labels, but not classes.
    assert_eq!((entries("labels"), entries("classes")), (labels + 1, classes));
    let delta = row.tables.iter().find(|(name, _)| name == "labels").unwrap().1;
    assert_eq!(delta as usize, labels);
    let snapshot = store.latest().unwrap().unwrap();
    assert_holds(&snapshot, &before());
    // The log's numbers of rows, too.
    assert_eq!(snapshot.check().unwrap(), []);
}

#[test]
fn a_crash_after_the_last_commit_leaves_the_new_version() {
    let (_folder, store) = crashed("after-versions");
    let snapshot = store.latest().unwrap().unwrap();
    assert_eq!(snapshot.version().version, 2);
    assert_holds(&snapshot, &after());
}

#[test]
fn a_crash_in_the_first_commit_leaves_a_store_without_versions_that_can_be_filled() {
    let folder = tempfile::tempdir().unwrap();
    crash(folder.path(), "after-labels");
    let store = open(folder.path()).unwrap();
    assert!(store.latest().unwrap().is_none());
    let other = scored(7, 3);
    commit(&store, &ScoredTracks::new(), &other).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert_holds(&snapshot, &other);
    assert_eq!(snapshot.check().unwrap(), []);
}
