//! Processes of a cluster that are named by environment variables, and the commands that such an environment must not start
//! several times.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::processes::{SECRET, alone, files, free_addresses, program};
use crate::sample::Sample;
use crate::support::{assert_status, stderr, stdout};

/// `vaplan label` of a process whose place is in its environment.
fn label(sample: &Sample, store: &str, hosts: &str, process: &str) -> Command {
    let mut command = program();
    command
        .args(sample.arguments(store))
        .env("VAPLAN_HOSTS", hosts)
        .env("VAPLAN_PROCESS", process)
        .env("VAPLAN_SECRET", SECRET)
        .env("VAPLAN_CLUSTER_TIMEOUT", "20")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn variables_name_the_processes_and_their_addresses_without_an_option() {
    let sample = Sample::new(200);
    assert_status(&alone(&sample, "one", &[]), 0);
    let own = free_addresses(3);
    let hosts = own.join(",");
    let port = |process: usize| own[process].rsplit_once(':').unwrap().1;
    let mut processes = [
        label(&sample, "store", &hosts, "0"),
        label(&sample, "store", &hosts, "slurm"),
        label(&sample, "store", &hosts, "mpi"),
    ];
    processes[0].env("VAPLAN_BIND", format!("0.0.0.0:{}", port(0)));
    processes[1].env("SLURM_PROCID", "1");
    processes[1].args(["--bind", &format!("0.0.0.0:{}", port(1))]);
    processes[2].env("PMI_RANK", "2");
    let children = processes.map(|mut process| process.spawn().unwrap());
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    outputs.iter().for_each(|output| assert_status(output, 0));
    assert!(stdout(&outputs[0]).starts_with("version 1: 200 videos, "));
    for output in &outputs[1..] {
        assert_eq!(
            stdout(output),
            "version 1: committed by process 0, which has the counts\n"
        );
    }
    assert_eq!(files(&sample.path("store")), files(&sample.path("one")));

    // The option goes before the variable.
    let alone = label(&sample, "alone", &hosts, "0")
        .args(["--hosts", &own[0]])
        .output()
        .unwrap();
    assert_status(&alone, 0);

    // A process listens at the address that was asked for, and nowhere else.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = held.local_addr().unwrap().to_string();
    for option in [false, true] {
        let mut command = label(&sample, "none", &hosts, "0");
        match option {
            true => command.args(["--bind", &bind]),
            false => command.env("VAPLAN_BIND", &bind),
        };
        let output = command.output().unwrap();
        assert_status(&output, 2);
        let told = format!("process 0 ({}) cannot listen at `{bind}`: ", own[0]);
        assert!(stderr(&output).contains(&told), "{}", stderr(&output));
    }
    for (process, told) in [
        ("3", "process 3, expected 0 to 2"),
        (
            "first",
            "--process first: expected a number from 0, `slurm`, `mpi` or `hostname`",
        ),
    ] {
        let output = label(&sample, "none", &hosts, process).output().unwrap();
        assert_status(&output, 2);
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    println!("3 processes named by variables write the files of one");
}

#[test]
fn a_command_of_one_process_that_writes_is_refused_if_variables_name_several_processes() {
    let sample = Sample::new(20);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let out = sample.path("out").display().to_string();
    let asked = |words: &[&str], hosts: &str| {
        let mut command = program();
        command
            .args(words)
            .env("VAPLAN_HOSTS", hosts)
            .env("VAPLAN_PROCESS", "0")
            .current_dir(sample.path(""));
        command.output().unwrap()
    };
    let before = files(&sample.path("store"));
    let refused: &[&[&str]] = &[
        &["optimize", "--store", &store],
        &["vacuum", "--store", &store, "--keep", "1"],
        &["store", "--store", &store, "--copy-to", &out],
        &["export", "--store", &store, "--format", "csv", "--out", &out],
        &["report", "--store", &store, "--out", &out],
        &["serve", "--store", &store],
        &["synth", "--preset", "ave", "--out", &out],
        &["demo", "--annotations-only", "--dir", &out],
        #[cfg(feature = "train")]
        &["train", "--store", &store, "--visual", "v", "--audio", "a"],
        #[cfg(feature = "train")]
        &["ablate", "--store", &store, "--visual", "v", "--audio", "a"],
        #[cfg(feature = "query")]
        &["query", "--store", &store, "--out", &out, "SELECT 1"],
    ];
    for words in refused {
        let output = asked(words, "a:1,b:1,c:1");
        assert_status(&output, 2);
        let told = format!("`{}", words[0]);
        let why = "runs in one process and writes, but variable VAPLAN_HOSTS names 3 processes: start it once, without VAPLAN_HOSTS";
        let said = stderr(&output);
        assert!(said.contains(&told) && said.contains(why), "{words:?}: {said}");
    }
    assert!(!sample.path("out").exists());
    assert_eq!(files(&sample.path("store")), before);

    // Commands that read run in each process, alone.
    let video = crate::sample::name(0);
    let reads: &[&[&str]] = &[
        &["log", "--store", &store],
        &["check", "--store", &store],
        &["eval", "--store", &store, "--split", "val"],
        &["show", "--store", &store, &video],
        #[cfg(feature = "query")]
        &["query", "--store", &store, "SELECT count(*) FROM labels"],
    ];
    for words in reads {
        let (with, without) = (asked(words, "a:1,b:1"), asked(words, ""));
        assert_eq!(with.status.code(), without.status.code(), "{}", stderr(&with));
        assert_eq!(stdout(&with), stdout(&without), "{words:?}");
        assert!(!stderr(&with).contains("VAPLAN_HOSTS"), "{}", stderr(&with));
    }
    // One host is one process.
    assert_status(&asked(&["optimize", "--store", &store], "a:1"), 0);
    println!(
        "{} commands of one process refuse several processes",
        refused.len()
    );
}
