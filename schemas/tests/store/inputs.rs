//! Inputs at URLs: a failed request lets no commit follow, and the copies of inputs stay within a limit.

use std::path::PathBuf;

use object_store::ObjectStore;
use vaplan_schemas::StoreError;
use vaplan_schemas::storage::faulty::{Faults, SharedFaultyMemory};
use vaplan_schemas::storage::{inputs, requests_of_process};

use crate::objects::{after, assert_whole, block_on, held, prepared};
use crate::support::patch;

/// The process that [`a_failed_request_for_an_input_lets_no_commit_follow`] starts: the failure counts for a whole process.
#[test]
fn child_with_a_failed_input() {
    if std::env::var_os("VAPLAN_TEST_FAILED_INPUT").is_none() {
        return;
    }
    let place = prepared(Faults::default());
    let store = place.open();
    let input = place.url.join("rows.csv");
    place.memory.set(Faults {
        unavailable: 1.0,
        ..Faults::default()
    });
    assert!(matches!(inputs::open_latest(&input), Err(StoreError::Object(_))));
    place.memory.set(Faults::default());
    let absent = inputs::open_latest(&input).unwrap_err();
    assert!(matches!(absent, StoreError::Io { .. }), "{absent}");
    let refused = patch(&store, &held(), &after()).unwrap_err();
    assert!(refused.to_string().contains("rows.csv"), "{refused}");
    patch(&store, &held(), &after()).unwrap();
    assert_whole(&place.open().latest().unwrap().unwrap(), &after());
}

#[test]
fn a_failed_request_for_an_input_lets_no_commit_follow() {
    assert_child_succeeds(
        "inputs::child_with_a_failed_input",
        &[("VAPLAN_TEST_FAILED_INPUT", "1")],
    );
}

/// Runs a test of this file in a process of its own, which the variables tell apart.
fn assert_child_succeeds(test: &str, variables: &[(&str, &str)]) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test, "--nocapture"])
        .envs(variables.iter().copied());
    let child = child.output().unwrap();
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

const SMALL_CACHE: u64 = 350;

/// The process that [`inputs_that_are_larger_than_the_cache_are_read_whole_and_the_cache_stays_within_its_limit`] starts: the
/// limit counts for a whole process.
#[test]
fn child_with_a_small_cache() {
    let Ok(scratch) = std::env::var("VAPLAN_TEST_SMALL_CACHE") else {
        return;
    };
    let place = prepared(Faults::default());
    let write = |number: u8, byte: u8| {
        let objects = SharedFaultyMemory(place.memory.clone());
        let at = object_store::path::Path::from(format!("a/store/in/{number}"));
        block_on(objects.put_opts(&at, vec![byte; 100].into(), Default::default())).unwrap();
    };
    let url = |number: u8| place.url.join("in").join(number.to_string());
    let read = |mut file: std::fs::File| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    };
    let on_disk = || -> u64 {
        let listed = std::fs::read_dir(PathBuf::from(&scratch).join("inputs")).unwrap();
        let sizes = listed
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != ".used");
        sizes.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    (0..10).for_each(|number| write(number, number));
    let ahead = inputs::FetchAhead::default();
    (0..10).for_each(|number| ahead.fetch(&url(number)).unwrap());
    assert_eq!(
        on_disk(),
        200,
        "half of the cache, and the object that exceeds it"
    );
    for _ in 0..2 {
        for number in 0..10 {
            assert_eq!(read(inputs::open_fetched(&url(number)).unwrap()), [number; 100]);
            assert!(on_disk() <= SMALL_CACHE, "{} bytes", on_disk());
        }
    }
    // The copies of the last objects are still there, and make no request.
    let before = requests_of_process();
    inputs::open_fetched(&url(9)).unwrap();
    assert_eq!(requests_of_process(), before);
    // All objects below a URL, as a folder that this process uses until it ends.
    let folder = inputs::folder(&place.url.join("in")).unwrap();
    assert_eq!(std::fs::read(folder.join("7")).unwrap(), [7; 100]);
    (0..10).for_each(|number| drop(inputs::open_latest(&url(number)).unwrap()));
    assert_eq!(std::fs::read(folder.join("3")).unwrap(), [3; 100]);
    // The copy of the first object is gone, and the object is another one now: this is no bad file, and no commit follows.
    write(0, 77);
    let changed = inputs::open_fetched(&url(0)).unwrap_err();
    assert!(
        changed.to_string().contains("changed while the command read it"),
        "{changed}"
    );
    let refused = patch(&place.open(), &held(), &after()).unwrap_err();
    assert!(refused.to_string().contains("in/0"), "{refused}");
    assert_eq!(read(inputs::open_latest(&url(0)).unwrap()), [77; 100]);
    // A scratch folder that cannot be written is no bad file either.
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::write(&scratch, "").unwrap();
    let closed = inputs::open_latest(&url(1)).unwrap_err();
    assert!(
        closed.to_string().contains("rights of the scratch folder"),
        "{closed}"
    );
    let refused = patch(&place.open(), &held(), &after()).unwrap_err();
    assert!(refused.to_string().contains("in/1"), "{refused}");
}

#[test]
fn inputs_that_are_larger_than_the_cache_are_read_whole_and_the_cache_stays_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch").display().to_string();
    assert_child_succeeds(
        "inputs::child_with_a_small_cache",
        &[
            ("VAPLAN_TEST_SMALL_CACHE", &scratch),
            ("VAPLAN_SCRATCH", &scratch),
            ("VAPLAN_CACHE_BYTES", &SMALL_CACHE.to_string()),
        ],
    );
}
