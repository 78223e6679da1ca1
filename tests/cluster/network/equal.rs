//! Three hosts give the tables of one process, row for row, also over a slow link and beside a second cluster.

use vaplan_schemas::store::Store;

use super::{HOSTS, Network, Run, changing, labelling, reset, tables};
use crate::cluster::processes::{alone, assert_no_garbage, check, commit_predicted, program, read, sample};
use crate::cluster::resident::{deliver, ended, watch_of};
use crate::support::{assert_status, stderr, vaplan};
use crate::watch::harness::WatchedStore;

#[test]
fn three_hosts_give_the_tables_of_one_process_also_over_a_slow_link() {
    let sample = sample(240);
    let network = Network::new("s");
    let place = network.slow();
    let hosts = network.addresses(&sample, 2101);
    let steps: [(&str, &[&str]); 4] = [
        ("label", &[]),
        ("relabel", &["--visual-scale", "3"]),
        ("relabel", &["--threshold", "audio/Bark=1.02"]),
        ("denoise", &["--modality", "both"]),
    ];
    for (nth, (command, more)) in steps.into_iter().enumerate() {
        if command == "denoise" {
            for store in ["one", "many"] {
                commit_predicted(&sample.path(store));
            }
        }
        let words = |store: &str| match command {
            "label" => labelling(&sample, store, more),
            _ => changing(command, &sample, store, more),
        };
        let one = program().args(words("one")).output().unwrap();
        assert!(matches!(one.status.code(), Some(0 | 1)), "{}", stderr(&one));
        for output in Run::start(&network, &words("many"), &hosts, None).end() {
            assert_eq!(output.status.code(), one.status.code(), "{}", stderr(&output));
        }
        let found = read(&sample, "many");
        assert!(
            found == read(&sample, "one"),
            "step {nth}, {command}: the tables of one process"
        );
        let flips = found.1.iter().filter(|change| change.version == found.0.version);
        assert!(
            command != "denoise" || flips.count() > 0,
            "the epoch contradicts no label"
        );
    }
    assert!(check(&sample, "many"));
    println!("{HOSTS} processes {place}: label, 2 relabels and denoise equal those of one, row for row");
}

#[test]
fn a_watch_on_three_hosts_gives_the_tables_of_one_process_also_over_a_slow_link() {
    let own = WatchedStore::new(150);
    let begun = own.copy("begun");
    let alone = own.watch(&[], None).ready();
    deliver(&own, &alone);
    alone.stop();
    let wanted = tables(&own);
    reset(&own, &begun);
    let network = Network::new("w");
    let place = network.slow();
    let hosts = network.addresses(&own.sample, 2108);
    let (watch, mut others) = watch_of(&own, &hosts, |host| network.on(host, vaplan()));
    deliver(&own, &watch);
    watch.stop();
    for child in &mut others.0 {
        assert_eq!(ended(child), Some(0), "a process ends with process 0");
    }
    let found = tables(&own);
    assert!(found.0 == wanted.0, "the tables of one process");
    assert!(found.1 == wanted.1, "the changes of one process");
    println!("{HOSTS} processes {place}: 6 deliveries to watch give the tables of one, row for row");
}

#[test]
fn a_second_cluster_on_the_same_store_waits_for_the_first() {
    let sample = sample(120);
    let network = Network::new("t");
    let (first, second) = (network.addresses(&sample, 2104), network.addresses(&sample, 2105));
    let runs = [
        Run::start(&network, &labelling(&sample, "store", &[]), &first, None),
        Run::start(
            &network,
            &labelling(&sample, "store", &["--audio-threshold", "1.1"]),
            &second,
            None,
        ),
    ];
    for run in runs {
        for output in run.end() {
            assert_status(&output, 1);
        }
    }
    let versions = Store::open(&sample.path("store")).unwrap().versions().unwrap();
    assert_eq!(versions.len(), 2);
    for version in &versions {
        let more = if version.command.contains("1.1") {
            &["--audio-threshold", "1.1"][..]
        } else {
            &[]
        };
        assert_status(&alone(&sample, "one", more), 1);
    }
    assert!(
        read(&sample, "store") == read(&sample, "one"),
        "one process in the same order gives the same tables"
    );
    assert!(check(&sample, "store"));
    assert_no_garbage(&sample.path("store"));
    println!("two clusters of {HOSTS} processes on one store: 2 versions");
}
