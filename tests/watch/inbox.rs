//! What lies in the inbox when: names that are used again, names that are long, and the order of a queue.

use std::fs;

use vaplan_schemas::rows::UserLabelRow;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::UserLabels;

use super::harness::WatchedStore;
use crate::sample::{Tables, key, name};
use crate::support::run;

/// A label of the second class there is, in one segment of a video.
fn mark(nth: usize, segment: usize) -> String {
    format!(
        "video,modality,class,label,segment\n{},audio,Bell,1,{segment}\n",
        name(nth)
    )
}

fn marks(place: &WatchedStore) -> Vec<UserLabelRow> {
    let latest = Store::open(&place.store()).unwrap().at_version(None).unwrap();
    latest.read::<UserLabels>().unwrap()
}

fn segments(place: &WatchedStore) -> Vec<u32> {
    marks(place).iter().map(|row| row.segment).collect()
}

#[test]
fn what_comes_by_the_name_of_one_that_waits_is_read_as_itself() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let store = Store::open(&place.store()).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    place.deliver("a.user.csv", mark(0, 1));
    // By now it is hashed.
    watch.line("waiting: the store is being written by process");
    place.deliver("a.user.csv", mark(0, 2));
    drop(lock);
    watch.line("version 2: ");
    assert_eq!(segments(&place), [2], "the first was never read");
    place.deliver("a.user.csv", mark(0, 1));
    watch.line("version 3: ");
    let status = watch.stop();
    assert_eq!((&status["done"], &status["again"]), (&2.into(), &0.into()));
    assert_eq!(segments(&place), [1, 2]);
}

#[test]
fn an_input_of_the_store_that_is_away_ends_the_watch_and_fails_no_delivery() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let (features, away) = (place.sample.path("audio"), place.sample.path("away"));
    fs::rename(&features, &away).unwrap();
    // Features of a new video may be anywhere.
    for nth in [50, 51, 52] {
        let text = format!("filename,event_labels\n{},Bell\n", name(nth));
        place.deliver(&format!("{nth}.weak.csv"), text);
    }
    let mut watch = watch;
    assert_eq!(watch.end().code(), Some(2));
    let status = watch.status();
    assert_eq!(status["state"], "failed");
    assert!(status["error"].as_str().unwrap().contains("audio"), "{status}");
    assert_eq!(fs::read_dir(place.inbox("failed")).unwrap().count(), 0);
    assert!(place.inbox("50.weak.csv").exists());
    fs::rename(&away, &features).unwrap();
    let watch = place.watch(&[], None);
    watch.line("52.weak.csv");
    watch.stop();
    assert_eq!(Tables::read(&place.store()).videos.len(), 15);
}

#[test]
fn a_video_that_is_removed_and_comes_back_comes_without_its_marks_as_if_apart() {
    let place = WatchedStore::new(12);
    let other = place.copy("other");
    place.deliver("a.user.csv", mark(3, 1));
    place.deliver("b.weak-remove.csv", format!("filename\n{}\n", name(3)));
    place.deliver("c.weak.csv", format!("filename,event_labels\n{},Bell\n", name(3)));
    place.deliver("d.user.csv", mark(3, 2));
    let watch = place.watch(&[], None);
    for (version, names) in [
        (2, "a.user.csv"),
        (3, "b.weak-remove.csv"),
        (4, "c.weak.csv, d.user.csv"),
    ] {
        let line = watch.line(&format!("version {version}: "));
        assert!(line.ends_with(names), "{line}");
    }
    watch.stop();
    assert_eq!(segments(&place), [2]);
    for (flag, name) in [
        ("--user", "a.user.csv"),
        ("--weak-remove", "b.weak-remove.csv"),
        ("--weak", "c.weak.csv"),
        ("--user", "d.user.csv"),
    ] {
        fs::copy(place.inbox("done").join(name), place.inbox(name)).unwrap();
        let (store, file) = (other.display().to_string(), place.inbox(name));
        let output = run(["relabel", "--store", &store, flag, file.to_str().unwrap()]);
        // A mark that fits no label waits, and is told.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    }
    let (watched, apart) = (Tables::read(&place.store()), Tables::read(&other));
    assert_eq!(watched.labels, apart.labels);
    assert_eq!(watched.videos, apart.videos);
}

#[test]
fn of_many_epochs_only_the_next_is_read() {
    let place = WatchedStore::new(12);
    let values = vec![0.5_f32; 30];
    for epoch in ["epoch-0001", "epoch-0002"] {
        let beside = place.inbox(".epoch");
        fs::create_dir_all(beside.join("audio")).unwrap();
        let file = beside.join("audio").join(format!("{}.npy", key(0)));
        vaplan::ingest::npy::write_f32(&file, &[10, 3], &values).unwrap();
        fs::rename(&beside, place.inbox(epoch)).unwrap();
    }
    // Whoever reads it fails it.
    fs::create_dir_all(place.inbox("epoch-0002/audio/too/deep")).unwrap();
    let mut watch = place.watch(&[], Some("after-versions"));
    assert_eq!(watch.end().code(), None, "killed");
    assert_eq!(Tables::read(&place.store()).version, 2);
    assert_eq!(fs::read_dir(place.inbox("failed")).unwrap().count(), 0);
    let watch = place.watch(&[], None);
    watch.line("epoch-0002: ");
    watch.stop();
    let reason = fs::read_to_string(place.inbox("failed/epoch-0002.reason")).unwrap();
    assert!(reason.contains("lies too deep"), "{reason}");
}

#[test]
fn a_name_as_long_as_can_be_fails_as_any_other() {
    let place = WatchedStore::new(12);
    let long = format!("{}.json", "x".repeat(250));
    place.deliver(&long, "{}");
    place.deliver("a.user.csv", mark(0, 1));
    let watch = place.watch(&[], None);
    watch.line("version 2: ");
    let status = watch.stop();
    assert_eq!((&status["failed"], &status["done"]), (&1.into(), &1.into()));
    let reason = format!("failed/{}.reason", "x".repeat(200));
    let reason = fs::read_to_string(place.inbox(&reason)).unwrap();
    assert!(
        reason.starts_with("its name says no kind of delivery"),
        "{reason}"
    );
}
