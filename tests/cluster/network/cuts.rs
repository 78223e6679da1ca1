//! A network that is cut for 5 s, which every run survives, and for 60 s, which is longer than any process waits.

use std::time::{Duration, Instant};

use vaplan_schemas::store::Store;

use super::{HOSTS, Network, Run, labelling, reset, tables, user_label};
use crate::cluster::processes::{alone, assert_no_garbage, read, sample};
use crate::cluster::resident::{ended, watch_of};
use crate::support::{assert_status, stderr, vaplan};
use crate::watch::harness::WatchedStore;

/// A cut that is shorter than the 15 s after which a silent process counts as lost.
const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_cut_of_5_s_is_survived_and_with_a_patience_of_5_s_a_cut_ends_all_processes() {
    let sample = sample(120);
    let network = Network::new("c");
    assert_status(&alone(&sample, "one", &[]), 1);
    let hosts = network.addresses(&sample, 2103);
    let store = Store::create(&sample.path("store")).unwrap();

    // Process 0 waits for the lock, so that the cluster is at rest while the link is down.
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut run = Run::start(&network, &labelling(&sample, "store", &[]), &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    let before = network.sent_again(0);
    run.cut(&network, 1);
    std::thread::sleep(SHORT);
    let again = network.sent_again(0) - before;
    run.join(&network, 1);
    assert!(again > 0 || !network.is_made(), "the link was cut");
    drop(lock);
    for output in run.end() {
        assert_status(&output, 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the tables of one process"
    );

    let lock = store.lock(&mut |_| ()).unwrap();
    let arguments = labelling(
        &sample,
        "store",
        &["--audio-threshold", "1.1", "--cluster-timeout", "5"],
    );
    let mut run = Run::start(&network, &arguments, &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    run.cut(&network, 1);
    assert_all_lose_one(&network, run, (&hosts, 5));
    drop(lock);
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the last version is whole"
    );
    network.restore(1);
    for output in Run::start(&network, &arguments, &hosts, None).end() {
        assert_status(&output, 1);
    }
    assert_no_garbage(&sample.path("store"));
    println!(
        "{HOSTS} processes on {}: a cut of {} s with {again} lost segments was survived; with a patience of 5 s a cut ended all, \
         and the rerun completed",
        network.place(),
        SHORT.as_secs()
    );
}

/// Process 1 is cut off: all processes end, and name a process of which they heard nothing for so many seconds.
fn assert_all_lose_one(network: &Network, mut run: Run, (hosts, seconds): (&str, u64)) {
    run.all_end_but(1);
    if !network.is_made() {
        // A stopped process finds the others gone when it goes on.
        run.join(network, 1);
    }
    for (process, output) in run.end().iter().enumerate() {
        assert_status(output, 2);
        let peer = if process == 1 { 0 } else { 1 };
        let host = hosts.split(',').nth(peer).unwrap();
        let told = format!("process {peer} ({host}) was lost: no sign of life for {seconds} s");
        assert!(
            stderr(output).contains(&told) || (process == 1 && !network.is_made()),
            "process {process}: {}",
            stderr(output)
        );
    }
}

/// The patience is 15 s, so every process has ended long before the cut of 60 s is over. The next run begins during the cut, and
/// waits for its end.
#[test]
fn a_cut_of_60_s_ends_all_processes_and_a_run_that_begins_before_its_end_completes() {
    let sample = sample(120);
    let network = Network::new("l");
    assert_status(&alone(&sample, "one", &[]), 1);
    let hosts = network.addresses(&sample, 2107);
    let store = Store::create(&sample.path("store")).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut run = Run::start(&network, &labelling(&sample, "store", &[]), &hosts, None);
    run.hear(1, "waiting: the store is being written by");
    let begun = Instant::now();
    run.cut(&network, 1);
    assert_all_lose_one(&network, run, (&hosts, 15));
    let ended = begun.elapsed();
    drop(lock);
    let patience = ["--cluster-timeout", "120"];
    let mut run = Run::start(&network, &labelling(&sample, "store", &patience), &hosts, None);
    run.hear(0, "starting");
    run.cut(&network, 1);
    std::thread::sleep(LONG.saturating_sub(begun.elapsed()));
    run.join(&network, 1);
    for output in run.end() {
        assert_status(&output, 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "the tables of one process"
    );
    assert_no_garbage(&sample.path("store"));
    println!(
        "{HOSTS} processes on {}: a cut of {} s ended all after {} s; a run that began before its end completed",
        network.place(),
        LONG.as_secs(),
        ended.as_secs()
    );
}

#[test]
fn a_watch_survives_a_cut_of_5_s_and_after_a_long_one_a_new_watch_goes_on() {
    let own = WatchedStore::new(30);
    let begun = own.copy("begun");
    let deliveries = [("a.user.csv", user_label(3, 2)), ("b.user.csv", user_label(4, 5))];
    let alone = own.watch(&[], None).ready();
    for (version, (name, text)) in (2..).zip(&deliveries) {
        own.deliver(name, text);
        alone.line(&format!("version {version}:"));
    }
    alone.stop();
    let wanted = tables(&own);
    reset(&own, &begun);

    let network = Network::new("v");
    let hosts = network.addresses(&own.sample, 2109);
    let start = || watch_of(&own, &hosts, |host| network.on(host, vaplan()));
    let (mut watch, mut others) = start();
    network.cut(1, &others.0[0]);
    own.deliver(deliveries[0].0, &deliveries[0].1);
    std::thread::sleep(SHORT);
    network.join(1, &others.0[0]);
    watch.line("version 2:");

    network.cut(1, &others.0[0]);
    let line = watch.line("was lost: no sign of life for 15 s");
    assert!(line.contains("process 1 ("), "{line}");
    own.deliver(deliveries[1].0, &deliveries[1].1);
    assert_eq!(watch.end().code(), Some(2));
    if !network.is_made() {
        // A stopped process finds the others gone when it goes on.
        network.join(1, &others.0[0]);
    }
    for child in &mut others.0 {
        assert_eq!(ended(child), Some(2), "every process ends");
    }
    network.restore(1);
    let (watch, mut others) = start();
    watch.line("version 3:");
    watch.stop();
    for child in &mut others.0 {
        assert_eq!(ended(child), Some(0));
    }
    assert!(tables(&own) == wanted, "the tables of one process");
    println!(
        "watch by {HOSTS} processes on {}: a cut of {} s was survived, a long one ended all, and a new watch went on",
        network.place(),
        SHORT.as_secs()
    );
}
