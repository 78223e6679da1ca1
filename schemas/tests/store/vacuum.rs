//! `vacuum` removes what no kept version needs, nothing else, and old versions say that they are gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vaplan_schemas::rows::SettingRow;
use vaplan_schemas::store::{CommitInfo, Store, Vacuumed};
use vaplan_schemas::tables::{Labels, Settings, Truth};
use vaplan_schemas::{StoreError, StoreVersion};

use crate::support::{ScoredTracks, assert_holds, commit, create, labels, open, patch, scored, truth};

const PLACE: &str = "VAPLAN_TEST_LEASE";

/// Seven versions: patches, and a bucket-wise commit between.
fn worn(folder: &Path) -> (Store, Vec<ScoredTracks>) {
    let store = create(folder).unwrap();
    let mut versions = vec![ScoredTracks::new()];
    for salt in 1..8 {
        let next = scored(20 + salt as usize, 1 + salt / 3);
        let commit = if salt % 3 == 1 { commit } else { patch };
        commit(&store, versions.last().unwrap(), &next).unwrap();
        versions.push(next);
    }
    (store, versions)
}

fn data_files(folder: &Path) -> BTreeSet<PathBuf> {
    let tables = std::fs::read_dir(folder).unwrap();
    let tables = tables
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("_vaplan"));
    tables
        .flat_map(|table| std::fs::read_dir(table).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect()
}

fn opened(store: &Store, versions: u64) -> Vec<u64> {
    let opens = |version: &u64| store.at_version(Some(StoreVersion(*version))).is_ok();
    (1..=versions).filter(opens).collect()
}

#[test]
fn kept_versions_read_as_before_and_all_else_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, versions) = worn(folder.path());
    let stray = folder.path().join("labels/p00000099-0123456789abcdef.parquet");
    std::fs::write(&stray, b"of a killed commit").unwrap();
    let before = data_files(folder.path());
    let lock = store.lock(&mut |_| {}).unwrap();
    let dry = store.vacuum(&lock, 3, true).unwrap();
    assert_eq!(data_files(folder.path()), before);
    assert_eq!(opened(&store, 7), [1, 2, 3, 4, 5, 6, 7]);
    let done = store.vacuum(&lock, 3, false).unwrap();
    assert_eq!((done.files, &done.kept), (dry.files, &dry.kept));
    assert_eq!(done.kept, [5, 6, 7].map(StoreVersion));
    assert!(!stray.exists());
    let after = data_files(folder.path());
    assert!(after.is_subset(&before));
    assert_eq!(before.len() - after.len(), done.files as usize);
    assert!(done.files > 5 && done.entries > 5 && done.bytes > 0, "{done:?}");
    for store in [store.clone(), open(folder.path()).unwrap()] {
        assert_eq!(opened(&store, 7), [5, 6, 7]);
        for version in 5..=7 {
            let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
            assert_holds(&snapshot, &versions[version as usize]);
            assert_eq!(snapshot.check().unwrap(), []);
            let rows: u64 = snapshot
                .version_files()
                .unwrap()
                .iter()
                .map(|file| file.rows)
                .sum();
            assert!(rows >= version);
        }
        let refused = store.at_version(Some(StoreVersion(2))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "version 2 was vacuumed: its rows are gone; versions from 5 on are kept"
        );
        let all: Vec<u64> = store.versions().unwrap().iter().map(|row| row.version).collect();
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7]);
    }
    // Each file that is left is named by a kept version.
    let mut named: BTreeSet<PathBuf> = BTreeSet::new();
    for version in 5..=7 {
        let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
        for (table, _) in vaplan_schemas::tables::all() {
            named.extend(snapshot.files(table).unwrap().into_iter().map(|file| file.path));
        }
        named.extend(
            snapshot
                .version_files()
                .unwrap()
                .into_iter()
                .map(|file| file.path),
        );
    }
    assert_eq!(after, named);
    drop(lock);
    let next = scored(12, 9);
    patch(&store, &versions[7], &next).unwrap();
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &next);
    assert_eq!(latest.check().unwrap(), []);
    let lock = store.lock(&mut |_| {}).unwrap();
    // Fewer are kept than before; what was gone stays so.
    store.vacuum(&lock, 1, false).unwrap();
    assert_eq!(opened(&store, 8), [8]);
    store.vacuum(&lock, 100, false).unwrap();
    assert_eq!(opened(&store, 8), [8]);
    assert_holds(&store.latest().unwrap().unwrap(), &next);
}

#[test]
fn a_version_that_is_read_stays_until_its_reader_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (store, versions) = worn(folder.path());
    let reader = open(folder.path()).unwrap();
    let reader = reader.at_version(Some(StoreVersion(2))).unwrap();
    let other = reader.clone();
    let lock = store.lock(&mut |_| {}).unwrap();
    for _ in 0..2 {
        let done = store.vacuum(&lock, 1, false).unwrap();
        assert_eq!(done.read, [StoreVersion(2)]);
        assert_eq!(opened(&store, 7), [2, 7]);
        assert_holds(&other, &versions[2]);
    }
    drop(reader);
    assert_eq!(store.vacuum(&lock, 1, false).unwrap().read, [StoreVersion(2)]);
    drop(other);
    assert_eq!(store.vacuum(&lock, 1, false).unwrap().read, []);
    assert_eq!(opened(&store, 7), [7]);
    let leases = folder.path().join("_vaplan/leases");
    assert_eq!(
        std::fs::read_dir(leases).unwrap().count(),
        0,
        "leases that no one holds"
    );
}

/// Reads version 1: of the store that the environment names until its standard input ends, as the process that another
/// test kills; of one of its own at once.
#[test]
fn child() {
    let own = tempfile::tempdir().unwrap();
    let named = std::env::var(PLACE);
    let store = match &named {
        Ok(place) => open(Path::new(place)).unwrap(),
        Err(_) => two_versions(own.path()),
    };
    let snapshot = store.at_version(Some(StoreVersion(1))).unwrap();
    if named.is_ok() {
        println!("reading");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    }
    assert_eq!(
        snapshot.read::<Labels>().unwrap().len(),
        labels(&scored(20, 1)).len()
    );
}

fn two_versions(folder: &Path) -> Store {
    let store = create(folder).unwrap();
    commit(&store, &ScoredTracks::new(), &scored(20, 1)).unwrap();
    commit(&store, &scored(20, 1), &scored(20, 2)).unwrap();
    store
}

#[test]
fn a_version_that_another_process_reads_stays_until_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let store = two_versions(folder.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "vacuum::child", "--nocapture"])
        .env(PLACE, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("reading")));
    let lock = store.lock(&mut |_| {}).unwrap();
    assert_eq!(store.vacuum(&lock, 1, false).unwrap().read, [StoreVersion(1)]);
    assert_holds(&store.at_version(Some(StoreVersion(1))).unwrap(), &scored(20, 1));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.vacuum(&lock, 1, false).unwrap().read, []);
    assert_eq!(opened(&store, 2), [2]);
}

#[test]
fn a_mark_that_does_not_read_is_an_error_and_one_that_is_ahead_says_vacuumed() {
    let folder = tempfile::tempdir().unwrap();
    let store = two_versions(folder.path());
    let mark = folder.path().join("_vaplan/vacuumed");
    std::fs::write(&mark, b"").unwrap();
    let error = store.latest().unwrap_err().to_string();
    assert!(error.contains("_vaplan/vacuumed"), "{error}");
    // As where `versions` is of an older backup than the mark.
    std::fs::write(&mark, br#"{"from":99,"read":[]}"#).unwrap();
    let error = store.latest().unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Vacuumed {
                wanted: StoreVersion(2),
                from: StoreVersion(99)
            }
        ),
        "{error}"
    );
}

#[test]
fn the_log_that_a_killed_run_moved_stays_readable_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let (store, versions) = worn(folder.path());
    // As if a run had been killed after its entry of `truth`.
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Truth>(&[]).unwrap();
    commit.finish().unwrap();
    let log = folder
        .path()
        .join("versions/_delta_log/00000000000000000007.json");
    std::fs::remove_file(log).unwrap();
    let store = open(folder.path()).unwrap();
    assert_eq!(store.latest().unwrap().unwrap().version().version, 7);
    store.vacuum(&lock, 1, false).unwrap();
    assert_holds(&store.latest().unwrap().unwrap(), &versions[7]);
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Truth>(&truth()).unwrap();
    commit.finish().unwrap();
    assert_eq!(store.latest().unwrap().unwrap().check().unwrap(), []);
}

#[test]
fn delivered_features_stay_as_long_as_a_kept_version_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let (store, versions) = worn(folder.path());
    let shards = folder.path().join("_vaplan/shards");
    let place = |hash: &str| shards.join("audio").join(format!("{hash}.parquet"));
    let name = |hashes: &[&str]| {
        let lock = store.lock(&mut |_| {}).unwrap();
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        let row = |(position, hash): (usize, &&str)| SettingRow {
            name: "features.audio".into(),
            position: position as u32,
            // As a store says it that was moved since.
            value: format!("/elsewhere/_vaplan/shards/audio/{hash}.parquet").into(),
        };
        let rows: Vec<SettingRow> = hashes.iter().enumerate().map(row).collect();
        commit.replace_all::<Settings>(&rows).unwrap();
        commit.finish().unwrap();
    };
    std::fs::create_dir_all(shards.join("audio")).unwrap();
    for hash in ["0000", "1111", "2222"] {
        std::fs::write(place(hash), hash).unwrap();
    }
    name(&["0000"]);
    name(&["0000", "1111"]);
    name(&["1111"]);
    let lock = store.lock(&mut |_| {}).unwrap();
    let there = || ["0000", "1111", "2222"].map(|hash| place(hash).exists());
    let dry = store.vacuum(&lock, 1, true).unwrap();
    assert_eq!(there(), [true; 3]);
    let done = store.vacuum(&lock, 2, false).unwrap();
    assert_eq!(there(), [true, true, false]);
    let shards = |done: &Vacuumed| {
        done.folders
            .iter()
            .find(|own| own.folder.ends_with("shards"))
            .cloned()
    };
    assert_eq!(shards(&done).unwrap().removed, (1, 4));
    assert_eq!(shards(&done).unwrap().kept, (2, 8));
    assert_eq!(shards(&dry).unwrap().removed, (2, 8));
    store.vacuum(&lock, 1, false).unwrap();
    assert_eq!(there(), [false, true, false]);
    assert_holds(&store.latest().unwrap().unwrap(), &versions[7]);
}
