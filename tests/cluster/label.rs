//! `vaplan label --hosts`: several processes on loopback against one.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use vaplan_schemas::store::Store;

use super::processes::{
    Cluster, SECRET, alone, assert_all_succeed, assert_no_garbage, check, files, hosts, label, program,
    sample, staged, together,
};
use crate::sample::{Sample, Tables};
use crate::support::{assert_status, label_changes, stderr, stdout};

#[test]
fn two_and_three_processes_write_the_files_of_one_byte_for_byte() {
    let sample = sample(400);
    let thresholds = ["--audio-threshold", "1.1"];
    assert_status(&alone(&sample, "one", &[]), 1);
    assert_status(&alone(&sample, "one", &thresholds), 1);
    let one = files(&sample.path("one"));
    for (processes, store) in [(2, "two"), (3, "three")] {
        for (version, more) in [(1, &[][..]), (2, &thresholds)] {
            let outputs = label(&sample, store, processes, more);
            outputs.iter().for_each(|output| assert_status(output, 1));
            assert!(
                stdout(&outputs[0]).starts_with(&format!("version {version}: 400 videos, ")),
                "{}",
                stdout(&outputs[0])
            );
            for output in &outputs[1..] {
                let told = format!("version {version}: committed by process 0, which has the counts\n");
                assert_eq!(stdout(output), told);
            }
        }
        let found = files(&sample.path(store));
        assert_eq!(found.keys().collect::<Vec<_>>(), one.keys().collect::<Vec<_>>());
        let differ: Vec<&PathBuf> = one.keys().filter(|path| found[*path] != one[*path]).collect();
        assert!(differ.is_empty(), "{differ:?}");
        assert_eq!(
            Tables::read(&sample.path(store)),
            Tables::read(&sample.path("one"))
        );
        let changes = |store: &str| {
            label_changes(
                &Store::open(&sample.path(store))
                    .unwrap()
                    .latest()
                    .unwrap()
                    .unwrap(),
            )
        };
        assert_eq!(changes(store), changes("one"));
        assert!(
            check(&sample, store),
            "the store is whole by the rules of `vaplan check`"
        );
        assert_eq!(staged(&sample.path(store)), 0);
        let again = label(&sample, store, processes, &thresholds);
        for output in &again {
            assert_status(output, 0);
            assert_eq!(stdout(output), "nothing to do: version 2 holds these labels\n");
        }
        println!(
            "{processes} processes: 2 versions, {} files equal to those of one process",
            one.len()
        );
    }
}

/// The number before a text in each line of a log that has the text after `before`.
fn logged(output: &Output, before: &str, after: &str) -> u64 {
    let said = stderr(output);
    let number = said
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after)?.0.parse().ok());
    number.unwrap_or_else(|| panic!("no `{before}N{after}`: {said}"))
}

#[test]
fn processes_send_fewer_bytes_than_the_tables_have_and_need_about_the_same_memory() {
    let sample = Sample::new(1500);
    let outputs = together(3, |command| {
        command
            .args(sample.arguments("store"))
            .args(["--workers", "1"])
            .env("VAPLAN_LOG", "warn,vaplan=info");
    });
    assert_all_succeed(&outputs, "label");
    let sent: u64 = outputs
        .iter()
        .map(|output| logged(output, "sent ", " bytes of rows and progress"))
        .sum();
    let tables: u64 = files(&sample.path("store"))
        .iter()
        .filter(|(path, _)| {
            let tables = ["videos", "candidates", "scores", "labels"];
            tables.iter().any(|table| path.starts_with(table))
        })
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    let peaks: Vec<u64> = outputs
        .iter()
        .map(|output| logged(output, "had at most ", " KiB of memory"))
        .collect();
    let (least, most) = (peaks.iter().min().unwrap(), peaks.iter().max().unwrap());
    println!("3 processes sent {sent} bytes, tables {tables} bytes; peak memory {peaks:?} KiB");
    assert!(
        sent > 0 && sent * 10 <= tables * 12,
        "{sent} bytes sent, {tables} bytes of tables"
    );
    assert!(most * 10 <= least * 13, "{peaks:?} KiB of memory");
}

#[test]
fn a_killed_process_ends_all_others_and_the_next_run_of_any_size_goes_on() {
    let sample = sample(600);
    assert_status(&alone(&sample, "one", &[]), 1);
    assert_status(&alone(&sample, "one", &["--audio-threshold", "1.1"]), 1);
    let wanted = Tables::read(&sample.path("one"));
    let one = files(&sample.path("one"));
    // After the first staged shard of one process, and in the commit of process 0.
    let cases = [
        (2, 1, "after-shard", 3),
        (2, 0, "after-shard", 2),
        (3, 2, "after-shard", 1),
        (3, 0, "after-shard", 2),
        (3, 0, "after-file", 2),
        (2, 0, "before-versions", 2),
        // While another process writes, syncs and names its part.
        (3, 1, "before-file", 3),
        (2, 1, "after-file", 1),
        (3, 2, "before-part", 2),
        (2, 1, "name", 2),
        (3, 1, "after-part", 3),
    ];
    let mut went_on = 0;
    for (nth, (processes, killed, fault, then)) in cases.into_iter().enumerate() {
        let path = sample.path("store");
        assert_status(&alone(&sample, "store", &[]), 1);
        let before = Tables::read(&path);
        let more = ["--audio-threshold", "1.1"];
        let mut cluster = Cluster::start(&sample, processes, |process| {
            ("store", more.to_vec(), (process == killed).then_some(fault))
        });
        let lost = cluster.name(killed);
        let outputs = cluster.end();
        for (process, output) in outputs.iter().enumerate() {
            if process == killed {
                assert_eq!(
                    output.status.code(),
                    None,
                    "case {nth}: it was to be killed at {fault}"
                );
                continue;
            }
            assert_status(output, 2);
            let told = format!("vaplan: {lost} was lost: its ");
            assert!(
                stderr(output).contains(&told),
                "case {nth}, process {process}: {}",
                stderr(output)
            );
        }
        assert_eq!(
            Tables::read(&path),
            before,
            "case {nth}: the last version is as it was"
        );
        let left = staged(&path);
        assert!(left >= 1, "case {nth}: {left} staged shards");
        assert!(check(&sample, "store"), "case {nth}");
        let outputs = match then {
            1 => vec![alone(&sample, "store", &more)],
            then => label(&sample, "store", then, &more),
        };
        for output in &outputs {
            assert_status(output, 1);
            went_on += usize::from(stderr(output).contains("going on: "));
        }
        assert_eq!(Tables::read(&path), wanted, "case {nth}");
        assert_eq!(files(&path), one, "case {nth}");
        assert_no_garbage(&path);
        fs::remove_dir_all(&path).unwrap();
    }
    println!(
        "{} kills, each told by all others; {went_on} processes went on from staged shards",
        cases.len()
    );
    assert!(went_on >= cases.len(), "{went_on} went on");
}

#[test]
fn a_stopped_process_is_lost_when_it_is_silent() {
    let sample = sample(40);
    // Process 0 waits for the lock, so that nothing else can end the run.
    let store = vaplan_schemas::store::Store::create(&sample.path("store")).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut cluster = Cluster::start(&sample, 3, |_| ("store", vec!["--cluster-timeout", "10"], None));
    // All are there when process 1 hears that process 0 waits for the lock.
    let mut told = cluster.children[1].stderr.take().unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("waiting: the store is being written by") {
        let mut byte = [0];
        assert_eq!(std::io::Read::read(&mut told, &mut byte).unwrap(), 1, "{heard:?}");
        heard.push(byte[0]);
    }
    let id = cluster.children[1].id().to_string();
    assert!(
        Command::new("kill")
            .args(["-STOP", &id])
            .status()
            .unwrap()
            .success()
    );
    let lost = format!("vaplan: {} was lost: no sign of life for 10 s", cluster.name(1));
    let stopped = cluster.children.remove(1);
    for output in cluster.end() {
        assert_status(&output, 2);
        assert!(stderr(&output).contains(&lost), "{}", stderr(&output));
    }
    cluster.children.push(stopped);
    drop(lock);
    assert!(store.latest().unwrap().is_none());
}

#[test]
fn processes_that_were_asked_different_things_all_say_in_what() {
    let sample = Sample::new(12);
    let mut cluster = Cluster::start(&sample, 3, |process| {
        let more = if process == 1 {
            vec!["--audio-threshold", "1.1", "--split", "train"]
        } else {
            vec![]
        };
        ("store", more, None)
    });
    let who = cluster.name(1);
    for output in cluster.end() {
        assert_status(&output, 2);
        let mut told = stderr(&output).lines();
        let told =
            told.find(|line| line.starts_with("vaplan: expected all processes to be asked the same: "));
        let told = told.unwrap_or_else(|| panic!("{}", stderr(&output)));
        assert!(
            told.contains(&format!("{who} differs in annotations and splits (")),
            "{told}"
        );
        assert!(told.contains("rule, scales and thresholds ("), "{told}");
        assert!(!told.contains("workers") && !told.contains("process 2"), "{told}");
    }
    assert!(
        !sample.path("store").exists(),
        "nothing is made where nothing can be done"
    );
}

#[test]
fn a_process_with_another_store_is_named_by_all() {
    let sample = Sample::new(12);
    let mut cluster = Cluster::start(&sample, 3, |process| {
        (if process == 1 { "another" } else { "store" }, vec![], None)
    });
    let (leader, who) = (cluster.name(0), cluster.name(1));
    let own = format!(
        "store `{}` is not that of {leader}, expected one folder that all processes see",
        sample.path("another").display()
    );
    for (process, output) in cluster.end().iter().enumerate() {
        assert_status(output, 2);
        let told = match process {
            1 => format!("vaplan: {own}"),
            _ => format!("vaplan: {who} failed: {own}"),
        };
        assert!(
            stderr(output).contains(&told),
            "process {process}: {}",
            stderr(output)
        );
    }
}

#[test]
fn what_cannot_be_a_cluster_is_refused_by_name() {
    let sample = Sample::new(4);
    let (two, lines) = hosts(&sample, "two", 2);
    let file = |name: &str, text: &str| {
        fs::write(sample.path(name), text).unwrap();
        sample.path(name).display().to_string()
    };
    let two = two.display().to_string();
    let refused = |hosts: &str, process: &str| {
        let arguments = ["--hosts", hosts, "--process", process, "--cluster-timeout", "1"];
        let mut command = program();
        command.args(sample.arguments("store")).args(arguments);
        let output = command.env("VAPLAN_SECRET", SECRET).output().unwrap();
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    let missing = sample.path("missing").display().to_string();
    let cases = [
        (&*two, "2", "process 2, expected 0 to 1: ".to_owned()),
        (
            &missing,
            "0",
            format!("cannot read hosts file `{missing}`: No such file"),
        ),
        (
            &file("empty", "\n"),
            "0",
            "names no host, expected one host:port per line".to_owned(),
        ),
        ("", "0", "hosts list `` names no host".to_owned()),
        (
            &file("odd", "a:1\nb\n"),
            "0",
            "line 2: `b`, expected host:port".to_owned(),
        ),
        (
            &file("same", "a:1\na:1\n"),
            "0",
            "line 2: `a:1` is line 1 already".to_owned(),
        ),
        (
            &two,
            "0",
            format!("process 1 ({}) did not come within 1 s", lines[1]),
        ),
        (
            &two,
            "1",
            format!("process 0 ({}) did not come within 1 s: ", lines[0]),
        ),
    ];
    for (hosts, process, told) in &cases {
        let said = refused(hosts, process);
        assert!(said.contains(told), "{said}");
    }
    let held = TcpListener::bind(&lines[0]).unwrap();
    let said = refused(&two, "0");
    let told = format!(
        "process 0 ({}) cannot listen at its address: another program or process of a cluster listens there",
        lines[0]
    );
    assert!(said.contains(&told) && said.contains("in use"), "{said}");
    // Another program has the port of process 0, and says nothing.
    let silent = refused(&two, "1");
    let told = format!(
        "process 0 ({}) did not come within 1 s: nothing at this address answers",
        lines[0]
    );
    assert!(silent.contains(&told), "{silent}");
    let elsewhere = refused("192.0.2.1:2101,192.0.2.2:2101", "0");
    let told = "process 0 (192.0.2.1:2101) cannot listen at its address: this host has no such address: check --process";
    assert!(elsewhere.contains(told), "{elsewhere}");
    let bind = ["--hosts", &two, "--process", "0", "--bind", "nonsense"];
    let output = program()
        .args(sample.arguments("store"))
        .args(bind)
        .output()
        .unwrap();
    assert_status(&output, 2);
    let told = "invalid value 'nonsense' for '--bind <ADDRESS:PORT>': `nonsense`, expected ADDRESS:PORT";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    drop(held);
    assert!(!sample.path("store").exists());
    // One host is one process.
    let single = file("alone", &format!("{}\n", lines[0]));
    assert_status(&sample.label("store", &["--hosts", &single, "--process", "0"]), 0);
    assert_status(&sample.label("store", &["--process", "0"]), 2);
    println!("{} refusals", cases.len() + 5);
}
