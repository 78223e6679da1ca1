//! Kills, signals, and other writers.

use std::fs;

use rustix::process::Signal;
use vaplan_schemas::store::Store;

use super::harness::WatchedStore;
use crate::sample::{Tables, name};
use crate::support::{assert_status, run};

/// A mark in a class that the video is labelled with.
fn mark(place: &WatchedStore, nth: usize) -> String {
    let videos = Tables::read(&place.store()).videos;
    let video = videos
        .iter()
        .find(|row| *row.video == *name(nth))
        .expect("the video");
    let class = &video.weak_labels[0];
    format!(
        "video,modality,class,label,onset,offset\n{},audio,{class},1,2,5\n",
        name(nth)
    )
}

#[test]
fn killed_between_commit_and_acknowledgement_a_delivery_counts_once() {
    let place = WatchedStore::new(12);
    let mut watch = place.watch(&[], Some("after-versions"));
    place.deliver("a.user.csv", mark(&place, 0));
    assert_eq!(watch.end().code(), None, "killed");
    let after = Tables::read(&place.store());
    assert_eq!(after.version, 2, "it was committed");
    assert!(place.inbox("a.user.csv").exists(), "it was not acknowledged");
    let watch = place.watch(&[], None);
    watch.line("nothing to do: 1 deliveries were done before");
    watch.stop();
    assert_eq!(Tables::read(&place.store()), after);
    assert!(place.inbox("done/a.user.csv").exists() && !place.inbox("a.user.csv").exists());
}

#[test]
fn killed_in_the_middle_of_a_commit_the_version_before_stands_and_the_next_run_makes_it() {
    let place = WatchedStore::new(12);
    let whole = WatchedStore::new(12);
    let watch = whole.watch(&[], None).ready();
    whole.deliver("a.user.csv", mark(&whole, 0));
    watch.line("version 2: ");
    watch.stop();
    let wanted = Tables::read(&whole.store());
    let before = Tables::read(&place.store());
    place.deliver("a.user.csv", mark(&place, 0));
    let points = [
        "before-file",
        "after-files",
        "after-user_labels",
        "before-labels",
        "after-labels",
        "before-versions",
    ];
    for point in points {
        let mut watch = place.watch(&[], Some(point));
        assert_eq!(watch.end().code(), None, "{point}: killed");
        assert_eq!(Tables::read(&place.store()), before, "{point}");
        assert!(place.inbox("a.user.csv").exists(), "{point}");
    }
    let watch = place.watch(&[], None);
    watch.line("version 2: ");
    watch.stop();
    let made = Tables::read(&place.store());
    assert_eq!(
        (made.version, made.labels.len(), made.changes.len()),
        (2, wanted.labels.len(), wanted.changes.len())
    );
    assert_eq!(made.labels, wanted.labels);
    assert_eq!(
        Store::open(&place.store())
            .unwrap()
            .latest()
            .unwrap()
            .unwrap()
            .check()
            .unwrap(),
        []
    );
    eprintln!("{} points of a commit", points.len());
}

#[test]
fn a_signal_while_it_waits_for_the_store_stops_it_and_leaves_the_delivery() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let store = Store::open(&place.store()).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    place.deliver("a.user.csv", mark(&place, 0));
    watch.line("waiting: the store is being written by process");
    let status = watch.stop();
    assert_eq!((&status["version"], &status["done"]), (&1.into(), &0.into()));
    assert!(place.inbox("a.user.csv").exists());
    drop(lock);
    let watch = place.watch(&[], None);
    watch.line("version 2: ");
    watch.stop();
}

#[test]
fn a_signal_while_it_works_leaves_a_batch_done_or_as_it_was() {
    let place = WatchedStore::new(60);
    for nth in 0..6 {
        let mut watch = place.watch(&[], None).ready();
        let name = format!("{nth}.user.csv");
        place.deliver(&name, mark(&place, nth));
        // Every other time not before it works.
        while nth % 2 == 1 && watch.status()["state"] == "watching" && watch.status()["done"] == 0 {
            std::thread::yield_now();
        }
        watch.signal(if nth % 3 == 0 { Signal::INT } else { Signal::TERM });
        assert_eq!(watch.end().code(), Some(0));
        let status = watch.status();
        assert_eq!(status["state"], "stopped");
        let made = place.inbox("done").join(&name).exists();
        assert_ne!(made, place.inbox(&name).exists(), "one or the other");
        assert_eq!(status["version"], Tables::read(&place.store()).version);
    }
    let watch = place.watch(&[], None).ready();
    place.deliver("last.user.csv", mark(&place, 50));
    watch.line("last.user.csv");
    watch.stop();
    let left = fs::read_dir(place.sample.path("inbox")).unwrap().count();
    assert_eq!(left, 2, "only done and failed");
    assert_eq!(fs::read_dir(place.inbox("done")).unwrap().count(), 7);
    let store = Store::open(&place.store()).unwrap();
    assert_eq!(store.latest().unwrap().unwrap().check().unwrap(), []);
}

#[test]
fn what_another_process_relabels_meanwhile_is_seen_and_kept() {
    let place = WatchedStore::new(24);
    let alone = place.copy("alone");
    let watch = place.watch(&[], None).ready();
    place.deliver("a.user.csv", mark(&place, 0));
    watch.line("version 2: ");
    let relabel = |store: &std::path::Path, flags: &[&str]| {
        let store = store.display().to_string();
        let own = ["relabel", "--store", &store];
        assert_status(&run(own.iter().chain(flags)), 0);
    };
    relabel(&place.store(), &["--audio-threshold", "1.05"]);
    place.deliver("b.user.csv", mark(&place, 3));
    watch.line("loaded anew: another process made version 3");
    watch.line("version 4: ");
    let status = watch.stop();
    assert_eq!(status["loads"], 2);
    for (name, flags) in [
        ("a.user.csv", None),
        ("b.user.csv", Some(["--audio-threshold", "1.05"])),
    ] {
        if let Some(flags) = flags {
            relabel(&alone, &flags);
        }
        fs::copy(place.inbox("done").join(name), place.inbox(name)).unwrap();
        relabel(&alone, &["--user", place.inbox(name).to_str().unwrap()]);
    }
    assert_eq!(Tables::read(&place.store()), Tables::read(&alone));
    // A copy that is put into the inbox is a change of its own; the label is as it was.
    fs::remove_file(place.inbox("b.user.csv")).unwrap();
    relabel(&place.store(), &["--audio-threshold", "0.99"]);
    let watch = place.watch(&[], None);
    watch.line("version 6: 0 labels set, 0 unset; a.user.csv");
    watch.stop();
}
