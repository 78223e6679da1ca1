//! The laws of the store in an object store in memory: with faults, with a network that is cut at every write, and with two
//! writers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use vaplan_schemas::StoreError;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::storage::faulty::{Faults, FaultyMemory, SharedFaultyMemory};
use vaplan_schemas::storage::register;
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::Rejects;

use crate::support::{
    ScoredTracks, assert_holds, commit, create, every_row, open, patch, patch_ahead, problems_of, rejects,
    scored,
};

/// The process that the network is cut from ends like one that was killed: its lease is not given back. Removing the lease
/// saves the time until it ends.
const LEASES: &str = "_vaplan/writer/";

static BUCKETS: AtomicU64 = AtomicU64::new(0);

/// The size of parts with which most data files of these stores are written in parts.
pub(crate) const PART_BYTES: usize = 1000;

/// A store of its own in memory.
pub(crate) struct InMemory {
    pub(crate) memory: Arc<FaultyMemory>,
    pub(crate) url: PathBuf,
    part_bytes: Option<usize>,
}

impl InMemory {
    pub(crate) fn new(memory: Arc<FaultyMemory>) -> InMemory {
        InMemory::with_parts(memory, None)
    }

    /// A store whose objects of more than two parts of this size are written in parts.
    pub(crate) fn with_parts(memory: Arc<FaultyMemory>, part_bytes: Option<usize>) -> InMemory {
        let bucket = format!("memory://test-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        register(
            &bucket,
            Arc::new(SharedFaultyMemory(memory.clone())),
            Duration::from_secs(5),
            part_bytes,
        );
        InMemory {
            memory,
            url: format!("{bucket}/a/store").into(),
            part_bytes,
        }
    }

    pub(crate) fn open(&self) -> Store {
        open(&self.url).unwrap()
    }

    fn fork(&self, faults: Faults) -> InMemory {
        InMemory::with_parts(self.memory.fork(faults), self.part_bytes)
    }
}

/// The third version of [`prepared`].
pub(crate) fn held() -> ScoredTracks {
    let mut held = scored(10, 1);
    let first = held.len() / 2;
    held.values_mut().nth(first).unwrap()[1] = 0.75;
    held
}

pub(crate) fn after() -> ScoredTracks {
    let mut after = held();
    after.pop_first();
    after.values_mut().nth(4).unwrap()[2] = 0.625;
    after
}

/// Three versions, two of them patches.
pub(crate) fn prepared(faults: Faults) -> InMemory {
    prepared_in(InMemory::new(FaultyMemory::new(faults)))
}

fn prepared_in(place: InMemory) -> InMemory {
    let store = create(&place.url).unwrap();
    let versions = [ScoredTracks::new(), scored(10, 1), scored(10, 3), held()];
    commit(&store, &versions[0], &versions[1]).unwrap();
    patch(&store, &versions[1], &versions[2]).unwrap();
    patch(&store, &versions[2], &versions[3]).unwrap();
    place
}

pub(crate) fn assert_whole(snapshot: &Snapshot, expected: &ScoredTracks) {
    assert_holds(snapshot, expected);
    assert_eq!(problems_of(snapshot), []);
}

#[test]
fn every_version_in_an_object_store_reads_as_it_was_committed_and_leaves_nothing_on_the_local_disk() {
    let place = prepared(Faults::default());
    let store = place.open();
    for (version, expected) in [(1, scored(10, 1)), (2, scored(10, 3)), (3, held())] {
        assert_holds(&store.at_version(Some(StoreVersion(version))).unwrap(), &expected);
    }
    assert_whole(&store.latest().unwrap().unwrap(), &held());
    assert!(store.is_remote() && !store.own_dir().exists());
    assert!(!place.url.exists() && !PathBuf::from("memory:").exists());
    let missing = open(&place.url.join("elsewhere")).unwrap_err();
    assert!(matches!(missing, StoreError::NoStore { .. }), "{missing}");
}

#[test]
fn requests_that_fail_or_whose_response_is_lost_are_repeated_and_change_no_row() {
    let whole = Faults {
        unavailable: 0.1,
        lost: 0.15,
        partial: 0.1,
        conflict: 0.1,
        ..Faults::default()
    };
    // An upload in parts begins again if one of its requests fails, so it needs fewer faults to end.
    let in_parts = Faults {
        unavailable: 0.03,
        lost: 0.05,
        ..whole
    };
    let mut uploads = 0;
    for seed in 0..8 {
        for (faults, part_bytes) in [(whole, None), (in_parts, Some(PART_BYTES))] {
            let memory = FaultyMemory::new(Faults { seed, ..faults });
            let place = prepared_in(InMemory::with_parts(memory, part_bytes));
            let store = place.open();
            patch(&store, &held(), &after()).unwrap();
            assert_whole(&store.latest().unwrap().unwrap(), &after());
            assert!(store.requests().repeated > 0);
            assert_eq!(store.versions().unwrap().len(), 4);
            uploads += place.memory.uploads();
        }
    }
    println!("16 stores with requests that fail: {uploads} uploads in parts");
    assert!(uploads > 100, "{uploads} uploads in parts");
}

#[test]
fn a_put_that_is_refused_although_there_is_no_such_object_is_repeated_and_is_no_conflict() {
    for seed in 0..8 {
        let place = prepared(Faults {
            seed,
            conflict: 0.3,
            ..Faults::default()
        });
        patch(&place.open(), &held(), &after()).unwrap();
        assert_whole(&place.open().latest().unwrap().unwrap(), &after());
    }
    let place = prepared(Faults::default());
    let store = place.open();
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Rejects>(&rejects(&scored(3, 1))).unwrap();
    place.memory.set(Faults {
        conflict: 1.0,
        ..Faults::default()
    });
    let error = commit.finish().unwrap_err();
    assert!(matches!(error, StoreError::Object(_)), "{error}");
    for part in ["PUT `", "8 attempts, last status 409", "run the command again"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    place.memory.set(Faults::default());
    assert_whole(&place.open().latest().unwrap().unwrap(), &held());
}

#[test]
fn a_network_that_is_cut_at_any_write_leaves_the_last_version_whole_and_a_rerun_completes() {
    type Action = fn(&Store) -> Result<(), StoreError>;
    let actions: [(&str, Action, ScoredTracks); 4] = [
        (
            "patch of a store that was opened to write",
            |store| patch_ahead(store.root(), &held(), &after()).map(drop),
            after(),
        ),
        (
            "patch",
            |store| patch(store, &held(), &after()).map(drop),
            after(),
        ),
        (
            "optimize",
            |store| {
                let lock = store.lock(&mut |_| {})?;
                store.optimize(&lock, "vaplan optimize", "0.1.0").map(drop)
            },
            held(),
        ),
        (
            "vacuum",
            |store| {
                let lock = store.lock(&mut |_| {})?;
                let store = store.clone().with_grace(Duration::ZERO);
                store.vacuum(&lock, 1, false).map(drop)
            },
            held(),
        ),
    ];
    let memory = FaultyMemory::new(Faults::default());
    let first = prepared_in(InMemory::with_parts(memory, Some(PART_BYTES)));
    for (name, action, leaves) in actions {
        let undisturbed = first.fork(Faults::default());
        action(&undisturbed.open()).unwrap();
        let writes = undisturbed.memory.writes();
        let uploads = undisturbed.memory.uploads();
        let mut failed = 0;
        for cut in 0..writes {
            let place = first.fork(Faults {
                cut_after: Some(cut),
                ..Faults::default()
            });
            failed += u64::from(action(&place.open()).is_err());
            let healed = place.fork(Faults::default());
            healed.memory.remove_all(LEASES);
            let store = healed.open();
            let latest = store.latest().unwrap().unwrap();
            let expected = match latest.version().version {
                3 => held(),
                _ => leaves.clone(),
            };
            assert_whole(&latest, &expected);
            if latest.version().version == 3 {
                action(&store).unwrap_or_else(|error| panic!("{name} after {cut} writes: {error}"));
                assert_whole(&store.latest().unwrap().unwrap(), &leaves);
            }
        }
        println!(
            "{name}: cut after each of {writes} writes, {uploads} uploads in parts among them, {failed} commands failed"
        );
        assert!(failed > 0, "{name}: no cut was noticed");
        assert!(uploads > 0 || name == "vacuum", "{name}: no upload in parts");
    }
}

#[test]
fn of_two_writers_that_commit_the_same_version_one_wins_and_the_other_gets_the_conflict() {
    let place = prepared(Faults::default());
    // Each writer has a lease of its own, as if each thought that the lease of the other had ended.
    let other = InMemory::new(FaultyMemory::new(Faults::default()));
    commit(&create(&other.url).unwrap(), &ScoredTracks::new(), &scored(2, 1)).unwrap();
    let foreign = other.open();
    let (one, two) = (place.open(), place.open());
    let (lock_one, lock_two) = (one.lock(&mut |_| {}).unwrap(), foreign.lock(&mut |_| {}).unwrap());
    let info = || CommitInfo {
        command: "vaplan relabel".into(),
        ..CommitInfo::default()
    };
    let mut first = one.begin(&lock_one, info()).unwrap();
    let mut second = two.begin(&lock_two, info()).unwrap();
    first.replace_all::<Rejects>(&rejects(&scored(3, 1))).unwrap();
    second.replace_all::<Rejects>(&rejects(&scored(4, 1))).unwrap();
    second.finish().unwrap();
    let lost = first.finish().unwrap_err();
    assert!(matches!(lost, StoreError::Conflict { .. }), "{lost}");
    assert!(lost.to_string().contains("run it again"), "{lost}");
    let store = place.open();
    assert_eq!(store.versions().unwrap().len(), 4);
    let latest = store.latest().unwrap().unwrap();
    assert_eq!(latest.read::<Rejects>().unwrap(), rejects(&scored(4, 1)));
}

#[test]
fn writers_that_read_the_store_while_they_take_the_lease_follow_one_another_without_a_conflict() {
    const WRITERS: u64 = 3;
    const COMMITS: u64 = 4;
    let place = prepared(Faults::default());
    place.memory.set(Faults {
        latency: Duration::from_millis(5),
        ..Faults::default()
    });
    let write = |writer: u64| {
        for number in 0..COMMITS {
            let (store, lock, snapshot) =
                Store::open_to_write(&place.url, &every_row(), &mut |_| {}).unwrap();
            let info = CommitInfo {
                command: format!("writer {writer}, commit {number}"),
                ..CommitInfo::default()
            };
            let mut commit = store.begin_after(&lock, &snapshot, info).unwrap();
            commit
                .replace_all::<Rejects>(&rejects(&scored(writer as usize + 1, number)))
                .unwrap();
            commit.finish().unwrap();
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(writer));
        }
    });
    let versions = place.open().versions().unwrap();
    let numbers: Vec<u64> = versions.iter().map(|row| row.version).collect();
    assert_eq!(numbers, (1..=3 + WRITERS * COMMITS).collect::<Vec<_>>());
    let commands: std::collections::BTreeSet<&str> = versions.iter().map(|row| &*row.command).collect();
    assert_eq!(commands.len() as u64, 2 + WRITERS * COMMITS, "no commit is lost");
    assert_eq!(problems_of(&place.open().latest().unwrap().unwrap()), []);
}

#[test]
fn a_copy_of_a_log_that_is_missing_damaged_or_old_is_read_from_the_log() {
    let first = prepared(Faults::default());
    let old = first.fork(Faults::default());
    patch(&first.open(), &held(), &after()).unwrap();
    let logs = |place: &InMemory| -> Vec<(object_store::path::Path, bytes::Bytes)> {
        let objects = SharedFaultyMemory(place.memory.clone());
        block_on(async {
            let listed = objects
                .list_with_delimiter(Some(&"a/store/_vaplan/logs".into()))
                .await
                .unwrap();
            let mut logs = Vec::new();
            for object in listed.objects {
                let found = objects
                    .get_opts(&object.location, Default::default())
                    .await
                    .unwrap();
                logs.push((object.location, found.bytes().await.unwrap()));
            }
            logs
        })
    };
    let before = logs(&old);
    assert!(before.len() > 5, "{} copies", before.len());
    let mut tried = 0;
    for (location, bytes) in &before {
        for text in [bytes.clone(), "damaged".into()] {
            let place = first.fork(Faults::default());
            let objects = SharedFaultyMemory(place.memory.clone());
            block_on(objects.put_opts(location, text.into(), Default::default())).unwrap();
            patch_ahead(&place.url, &after(), &held()).unwrap();
            assert_whole(&place.open().latest().unwrap().unwrap(), &held());
            tried += 1;
        }
    }
    let none = first.fork(Faults::default());
    none.memory.remove_all("_vaplan/logs");
    patch_ahead(&none.url, &after(), &held()).unwrap();
    assert_whole(&none.open().latest().unwrap().unwrap(), &held());
    println!("{tried} old and damaged copies");
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(work)
}

#[test]
fn a_second_writer_waits_for_the_first_and_takes_over_if_the_first_is_silent() {
    let place = prepared(Faults::default());
    let (one, two) = (place.open(), place.open());
    let lock = one.lock(&mut |_| {}).unwrap();
    let waited = std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let mut waited = None;
            let _lock = two.lock(&mut |holder| waited = Some(holder.to_owned())).unwrap();
            waited
        });
        std::thread::sleep(Duration::from_millis(300));
        drop(lock);
        second.join().unwrap()
    });
    let own = format!("process {}", std::process::id());
    assert!(waited.unwrap().contains(&own));

    // The first writer can no longer renew its lease.
    let lock = one.lock(&mut |_| {}).unwrap();
    let begun = Instant::now();
    let elsewhere = place.fork(Faults::default()).open();
    let _taken = elsewhere.lock(&mut |_| {}).unwrap();
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(lock);
}

#[test]
fn vacuum_keeps_versions_that_were_the_latest_within_the_time_of_grace() {
    let place = prepared(Faults::default());
    let store = place.open();
    let lock = store.lock(&mut |_| {}).unwrap();
    let done = store.vacuum(&lock, 1, false).unwrap();
    assert_eq!((done.kept.len(), done.files), (3, 0));
    assert_holds(&store.at_version(Some(StoreVersion(1))).unwrap(), &scored(10, 1));
    let done = store
        .clone()
        .with_grace(Duration::ZERO)
        .vacuum(&lock, 1, false)
        .unwrap();
    assert_eq!(done.kept.len(), 1);
    assert!(done.files > 0);
    let gone = store.at_version(Some(StoreVersion(1))).unwrap_err();
    assert!(matches!(gone, StoreError::Vacuumed { .. }), "{gone}");
    assert_whole(&store.latest().unwrap().unwrap(), &held());
}

fn copied(from: &Store, to: &Store, versions: Option<usize>) -> Result<(u64, u64), StoreError> {
    let (own, other) = (from.lock(&mut |_| {})?, to.lock(&mut |_| {})?);
    let done = from.copy_to(&own, to, &other, versions, &|_| {})?;
    Ok((done.written.0, done.present.0))
}

#[test]
fn a_store_is_copied_to_a_url_and_back_goes_on_there_and_a_second_copy_writes_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let local = create(&folder.path().join("local")).unwrap();
    commit(&local, &ScoredTracks::new(), &scored(10, 1)).unwrap();
    patch(&local, &scored(10, 1), &scored(10, 3)).unwrap();
    let place = InMemory::new(FaultyMemory::new(Faults::default()));
    let remote = create(&place.url).unwrap();
    assert!(copied(&local, &remote, None).unwrap().0 > 0);
    let remote = place.open();
    assert_whole(&remote.latest().unwrap().unwrap(), &scored(10, 3));
    assert_holds(&remote.at_version(Some(StoreVersion(1))).unwrap(), &scored(10, 1));
    assert_eq!(
        copied(&local, &remote, None).unwrap().0,
        0,
        "everything was there"
    );
    patch(&local, &scored(10, 3), &held()).unwrap();
    let (written, present) = copied(&local, &remote, None).unwrap();
    assert!(written > 0 && written < present, "{written} of {present}");
    let remote = place.open();
    assert_whole(&remote.latest().unwrap().unwrap(), &held());
    patch(&remote, &held(), &after()).unwrap();

    let back = create(&folder.path().join("back")).unwrap();
    copied(&remote, &back, Some(1)).unwrap();
    let back = open(&folder.path().join("back")).unwrap();
    assert_whole(&back.latest().unwrap().unwrap(), &after());
    let gone = back.at_version(Some(StoreVersion(3))).unwrap_err();
    assert!(matches!(gone, StoreError::Vacuumed { .. }), "{gone}");
    patch(&back, &after(), &held()).unwrap();
    assert_whole(&back.latest().unwrap().unwrap(), &held());

    let other = copied(&local, &back, None).unwrap_err();
    assert!(matches!(other, StoreError::OtherStore { .. }), "{other}");
}

#[test]
fn a_copy_that_is_cut_at_any_write_has_whole_versions_only_and_goes_on() {
    let from = prepared(Faults::default());
    let new = |memory| InMemory::with_parts(memory, Some(PART_BYTES));
    let whole = new(FaultyMemory::new(Faults::default()));
    copied(&from.open(), &create(&whole.url).unwrap(), Some(2)).unwrap();
    let (writes, uploads) = (whole.memory.writes(), whole.memory.uploads());
    assert!(uploads > 0, "no upload in parts");
    for cut in 0..writes {
        let place = new(FaultyMemory::new(Faults {
            cut_after: Some(cut),
            ..Faults::default()
        }));
        let _ = copied(&from.open(), &create(&place.url).unwrap(), Some(2));
        let healed = place.fork(Faults::default());
        healed.memory.remove_all(LEASES);
        if let Ok(store) = open(&healed.url)
            && let Ok(Some(latest)) = store.latest()
        {
            let expected = [scored(10, 3), held()];
            assert_holds(&latest, &expected[latest.version().version as usize - 2]);
        }
        copied(&from.open(), &create(&healed.url).unwrap(), Some(2)).unwrap();
        assert_whole(&healed.open().latest().unwrap().unwrap(), &held());
    }
    println!("copy: cut after each of {writes} writes, {uploads} uploads in parts among them");
}

#[test]
fn a_request_that_fails_for_good_names_url_operation_attempts_status_and_what_to_do() {
    let place = prepared(Faults::default());
    let store = place.open();
    place.memory.set(Faults {
        unavailable: 1.0,
        ..Faults::default()
    });
    let error = store.versions().unwrap_err().to_string();
    let url = place.url.display().to_string();
    assert!(error.contains(&url), "{error}");
    assert!(
        error.starts_with("LIST `") || error.starts_with("GET `"),
        "{error}"
    );
    for part in ["attempts, last status 503", "run the command again later"] {
        assert!(error.contains(part), "{error}");
    }
}
