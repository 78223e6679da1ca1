//! Rows that are read together with the logs when a store at a URL is opened to be changed.

use vaplan_schemas::storage::faulty::Faults;
use vaplan_schemas::store::{Filter, RowsAhead, Snapshot, Store};
use vaplan_schemas::tables::{Labels, Scores, Videos};

use crate::objects::{after, held, prepared};
use crate::support::{assert_holds, every_row, patch_with};

/// Reads all rows, and returns the number of requests for them.
fn requests_to_read(store: &Store, snapshot: &Snapshot) -> u64 {
    let before = store.requests().all();
    snapshot.scan::<Labels>(&Filter::all()).unwrap();
    snapshot.scan::<Scores>(&Filter::all()).unwrap();
    snapshot.scan::<Videos>(&Filter::all()).unwrap();
    store.requests().all() - before
}

#[test]
fn rows_that_were_read_ahead_are_not_requested_again_and_are_those_of_the_last_version() {
    let place = prepared(Faults::default());
    let open = |rows: &RowsAhead| Store::open_to_write(&place.url, rows, &mut |_| {}).unwrap();
    let files = {
        let (store, _lock, snapshot) = open(&RowsAhead::default());
        requests_to_read(&store, &snapshot)
    };
    assert!(files > 3, "{files} files");
    let (store, lock, snapshot) = open(&every_row());
    assert_eq!(
        requests_to_read(&store, &snapshot),
        0,
        "the files were read ahead"
    );
    assert_holds(&snapshot, &held());
    drop(lock);

    // Rows of one video are in the files of its bucket, so that the other files are requested.
    let video = snapshot.read::<Videos>().unwrap()[0].video.clone();
    let some = RowsAhead::default().and::<Labels>(Filter::videos([video.clone()]));
    let (store, lock, snapshot) = open(&some);
    let before = store.requests().all();
    snapshot.scan::<Labels>(&Filter::videos([video])).unwrap();
    assert_eq!(
        store.requests().all(),
        before,
        "the files of the video were read ahead"
    );
    assert!(
        requests_to_read(&store, &snapshot) > 0,
        "no other file was read ahead"
    );
    drop(lock);
    println!("{files} files are read ahead");
}

#[test]
fn while_another_process_writes_no_rows_are_read_ahead_and_its_version_is_opened() {
    let place = prepared(Faults::default());
    let writer = place.open();
    let lock = writer.lock(&mut |_| {}).unwrap();
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let wait = &mut |_: &str| ready.send(()).unwrap();
            let (store, _lock, snapshot) = Store::open_to_write(&place.url, &every_row(), wait).unwrap();
            (snapshot.version().version, requests_to_read(&store, &snapshot))
        });
        waits.recv().unwrap();
        patch_with(&writer, &lock, &held(), &after()).unwrap();
        drop(lock);
        let (version, requests) = second.join().unwrap();
        assert_eq!(version, 4, "the version of the first writer");
        assert!(requests > 0, "no file was read ahead");
    });
}
