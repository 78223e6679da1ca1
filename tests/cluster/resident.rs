//! `vaplan watch --hosts` and `vaplan run --hosts`: graphs that stay in memory, with workers in several processes.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;

#[cfg(feature = "train")]
use super::processes::{assert_all_succeed, cluster_of};
use super::processes::{free_addresses, place};
use crate::sample::{Tables, name};
use crate::support::{assert_status, label_changes, vaplan};
use crate::watch::harness::{Watch, WatchedStore, copy};

/// The processes of a watch other than process 0. They end with the value.
pub(super) struct Others(pub(super) Vec<Child>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A watch of so many processes on this host.
fn watch(of: &WatchedStore, processes: usize) -> (Watch, Others) {
    watch_of(of, &free_addresses(processes).join(","), |_| vaplan())
}

/// A watch of the processes of these hosts. `program` starts the program for a process.
pub(super) fn watch_of(
    of: &WatchedStore,
    hosts: &str,
    program: impl Fn(usize) -> Command,
) -> (Watch, Others) {
    let arguments = |process: usize| {
        let mut command = program(process);
        command
            .args(["watch", "--workers", "2", "--store"])
            .arg(of.store())
            .arg("--inbox")
            .arg(of.sample.path("inbox"));
        place(&mut command, hosts, process);
        command
    };
    let others = (1..hosts.split(',').count()).map(|process| {
        let mut command = arguments(process);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    });
    let others = Others(others.collect());
    let status = of.sample.path("status.json");
    let mut first = arguments(0);
    first.arg("--status").arg(&status);
    (Watch::start(first, status).ready(), others)
}

/// Waits for the end of a child, for at most a minute.
pub(super) fn ended(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a process does not end"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Deliveries of every kind that a graph takes: user labels, thresholds, features and weak labels.
pub(super) fn deliver(to: &WatchedStore, watch: &Watch) {
    let (seventh, ninth) = (name(7), name(9));
    to.deliver(
        "a.user.csv",
        format!("video,modality,class,segment,label\n{seventh},audio,Bark,2,1\n{ninth},visual,Bell,0,1\n"),
    );
    watch.line("version 2:");
    to.deliver("b.thresholds.toml", "[visual.classes]\nBell = 1.15\n");
    watch.line("version 3:");
    let videos: Vec<(usize, f32)> = (0..40).map(|nth| (nth * 3, 0.25)).collect();
    to.deliver_shard("c.visual.parquet", Modality::Visual, &videos);
    watch.line("version 4:");
    to.deliver("d.weak-remove.csv", format!("filename\n{seventh}\n"));
    watch.line("version 5:");
    // Every score changes: process 0 labels all videos, and the graph is loaded anew in all processes.
    to.deliver("e.thresholds.toml", "rule = \"softmax\"\n[visual]\nscale = 3.0\n");
    watch.line("version 6:");
    to.deliver(
        "f.user.csv",
        format!("video,modality,class,segment,label\n{ninth},visual,Bell,1,1\n"),
    );
    watch.line("version 7:");
}

#[test]
fn deliveries_to_a_watch_of_several_processes_give_the_tables_of_one() {
    // All watches use the same paths, because the tables name the copies of delivered features.
    let own = WatchedStore::new(150);
    let begun = own.copy("begun");
    let first = own.watch(&[], None).ready();
    deliver(&own, &first);
    first.stop();
    let read = || {
        let latest = Store::open(&own.store()).unwrap().at_version(None).unwrap();
        (Tables::read(&own.store()), label_changes(&latest))
    };
    let (tables, changes) = read();
    assert!(
        changes.iter().any(|change| change.version == 4),
        "features change labels"
    );
    for processes in [2, 3] {
        fs::remove_dir_all(own.store()).unwrap();
        fs::remove_dir_all(own.sample.path("inbox")).unwrap();
        copy(&begun, &own.store());
        fs::create_dir(own.sample.path("inbox")).unwrap();
        let (watch, mut others) = watch(&own, processes);
        deliver(&own, &watch);
        watch.stop();
        for child in &mut others.0 {
            assert_eq!(ended(child), Some(0), "a process ends with process 0");
        }
        let found = read();
        assert!(found.0 == tables, "{processes} processes: the tables of one");
        assert!(found.1 == changes, "{processes} processes: the changes of one");
    }
    println!("watch: 6 deliveries to 2 and 3 processes give the tables of one");
}

#[test]
fn a_watch_whose_process_is_killed_ends_with_its_name_and_a_new_one_goes_on() {
    let own = WatchedStore::new(30);
    let (mut first, mut others) = watch(&own, 3);
    others.0[1].kill().unwrap();
    let line = first.line("process 2 (");
    assert!(line.contains("its connection closed"), "{line}");
    assert_eq!(first.end().code(), Some(2));
    assert_eq!(ended(&mut others.0[0]), Some(2), "the other process ends, too");
    // A delivery of the time between is committed by the next watch.
    own.deliver(
        "a.user.csv",
        format!("video,modality,class,segment,label\n{},audio,Bark,2,1\n", name(3)),
    );
    let (again, mut others) = watch(&own, 2);
    again.line("version 2:");
    // A version of another process makes the graph anew.
    let relabel = vaplan()
        .args(["relabel", "--threshold", "visual/Bell=1.3", "--store"])
        .arg(own.store())
        .output()
        .unwrap();
    assert_status(&relabel, 0);
    own.deliver(
        "b.user.csv",
        format!("video,modality,class,segment,label\n{},audio,Bark,3,1\n", name(3)),
    );
    again.line("loaded anew");
    again.line("version 4:");
    again.signal(Signal::TERM);
    assert_eq!(ended(&mut others.0[0]), Some(0));
    let latest = Store::open(&own.store()).unwrap().at_version(None).unwrap();
    assert_eq!(latest.check().unwrap(), []);
}

#[cfg(feature = "train")]
#[test]
fn a_run_of_several_processes_gives_the_tables_of_one() {
    use crate::run::{config, tables};
    use crate::train::TrainingSample;

    const SMALL: &str = "[train]\nepochs = 2\nhidden = 16\nfeedforward = 16\nlearning_rate = 0.01\n\
                         [denoise]\nschedule = \"every\"\nevery = 1\nwarmup = 1\nalpha = 1.05\nguard = 0.3\n";
    let sample = TrainingSample::new("2");
    let mut expected = None;
    for (processes, store) in [(1, "one"), (2, "two"), (3, "three")] {
        let file = config(&sample, store, SMALL);
        let outputs = cluster_of(processes, |_| {
            let mut command = vaplan();
            command.args(["run", &file, "--workers", "2", "--threads", "1"]);
            command
        });
        assert_all_succeed(&outputs, &format!("{processes} processes"));
        let found = tables(&sample.path(store));
        assert!(!found.changes.is_empty());
        match &expected {
            None => expected = Some(found),
            Some(expected) => assert_eq!(&found, expected, "{processes} processes"),
        }
    }
    println!("run: 2 and 3 processes give the tables of one");
}

/// The answer to a request for a page.
fn get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_process_that_helps_a_watch_serves_its_health_and_the_updates_of_its_workers() {
    let own = WatchedStore::new(30);
    let hosts = free_addresses(2).join(",");
    let [first, second] = [0, 1].map(|process| {
        let mut command = vaplan();
        command
            .args(["watch", "--workers", "2", "--metrics", "127.0.0.1:0", "--store"])
            .arg(own.store())
            .arg("--inbox")
            .arg(own.sample.path("inbox"));
        place(&mut command, &hosts, process);
        Watch::start(command, own.sample.path("status.json"))
    });
    let line = second.line("metrics at http://");
    let address = line
        .split("http://")
        .nth(1)
        .unwrap()
        .trim_end_matches("/metrics")
        .to_owned();
    let first = first.ready();
    assert!(get(&address, "/healthz").ends_with("ok watch, process 1\n"));
    let metrics = get(&address, "/metrics");
    // Workers 0 and 1 are those of process 0.
    for worker in [2, 3] {
        let start =
            format!("vaplan_worker_updates_held{{process=\"1\",command=\"watch\",worker=\"{worker}\"}} ");
        let held = metrics.lines().find_map(|line| line.trim().strip_prefix(&start));
        let held: i64 = held.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
        assert!(held > 0, "the arrangements are divided: {metrics}");
    }
    first.signal(Signal::TERM);
    second.line("committed by process 0");
}
