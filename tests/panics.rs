//! A panic in a thread of a run ends the run with an error. Without the guard, the other workers wait for ever.

use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use vaplan::ingest::npy;
use vaplan_schemas::store::Store;

use crate::sample::{CLASSES, Sample, name};
use crate::support::{assert_status, run, stderr, vaplan};

/// How long a run of a few seconds may take before it counts as hanging.
const HANGS: Duration = Duration::from_secs(120);

/// Waits for the end of a process, and kills one that hangs.
#[track_caller]
fn ended(child: Child) -> Output {
    let id = child.id();
    let (send, receive) = channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(HANGS) {
        Ok(output) => output.unwrap(),
        Err(RecvTimeoutError::Timeout) => {
            let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            panic!("the run hangs: it was killed after {HANGS:?}");
        }
        Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
    }
}

/// Runs the program with an injected panic.
fn faulty(place: &str, arguments: &[String]) -> Output {
    let child = vaplan()
        .args(arguments)
        .env("VAPLAN_FAULT", format!("panic-{place}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ended(child)
}

#[test]
fn a_panic_in_any_part_of_label_ends_it_without_a_version_and_a_rerun_completes() {
    let sample = Sample::new(24);
    let places = [
        "reader",
        "read",
        "similarity",
        "stage",
        "load",
        "admit",
        "threshold",
        "decide",
        "difference",
        "admitted",
        "labels",
        "changes",
    ];
    for place in places {
        for workers in ["2", "3"] {
            let store = format!("{place}-{workers}");
            let mut arguments = sample.arguments(&store);
            arguments.extend(["--workers", workers].map(str::to_owned));
            let failed = faulty(place, &arguments);
            assert_status(&failed, 2);
            let told = stderr(&failed);
            let last = told.lines().last().unwrap();
            assert!(
                last.starts_with("vaplan: ") && last.contains("panicked") && last.contains(place),
                "{place}, {workers} workers: {told}"
            );
            let opened = Store::open(&sample.path(&store)).unwrap();
            assert!(opened.latest().unwrap().is_none(), "{place}, {workers} workers");
            assert_status(&run(&arguments), 0);
        }
    }
}

#[test]
fn a_panic_while_relabel_reads_features_ends_it_and_leaves_the_version() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    for place in ["reader", "read", "stage"] {
        let mut arguments = vec!["relabel".to_owned(), "--store".to_owned(), store.clone()];
        let visual = sample.path("visual").display().to_string();
        arguments.extend([
            "--visual".to_owned(),
            visual,
            "--workers".to_owned(),
            "2".to_owned(),
        ]);
        let failed = faulty(place, &arguments);
        assert_status(&failed, 2);
        assert!(stderr(&failed).contains("panicked"), "{}", stderr(&failed));
        let opened = Store::open(&sample.path("store")).unwrap();
        assert_eq!(opened.latest().unwrap().unwrap().version().version, 1);
        // The files are as they were, so that the change changes nothing.
        assert_status(&run(&arguments), 0);
    }
}

#[test]
fn a_panic_in_an_operator_of_denoising_ends_relabel_and_leaves_the_version() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let folder = sample.path("predictions/visual");
    std::fs::create_dir_all(&folder).unwrap();
    for nth in 0..24 {
        // Segment 0 of every class is near 1 and the others near 0, so that some labels flip.
        let values: Vec<f32> = (0..10 * CLASSES.len())
            .map(|at| if at < CLASSES.len() { 0.99 } else { 0.01 })
            .collect();
        let file = folder.join(format!("{}.npy", name(nth)));
        npy::write_f32(&file, &[10, CLASSES.len()], &values).unwrap();
    }
    let store = sample.path("store").display().to_string();
    let predictions = sample.path("predictions").display().to_string();
    let epoch = [
        "relabel",
        "--store",
        &store,
        "--predictions",
        &predictions,
        "--epoch",
        "1",
    ];
    assert_status(&run(epoch.map(str::to_owned)), 0);
    // A user label touches a whole video, so the graph denoises the video again.
    let user = sample.path("user.csv");
    let row = format!("{},visual,{},1,1", name(0), CLASSES[0]);
    std::fs::write(&user, format!("video,modality,class,segment,label\n{row}\n")).unwrap();
    let user = user.display().to_string();
    for place in ["threshold", "denoise", "decide", "difference"] {
        for workers in ["2", "3"] {
            let arguments = [
                "relabel",
                "--store",
                &store,
                "--user",
                &user,
                "--workers",
                workers,
            ];
            let failed = faulty(place, &arguments.map(str::to_owned));
            assert_eq!(failed.status.code(), Some(2), "{place}, {workers} workers");
            let told = stderr(&failed);
            assert!(told.contains(place), "{place}, {workers} workers: {told}");
            let opened = Store::open(&sample.path("store")).unwrap();
            assert_eq!(opened.latest().unwrap().unwrap().version().version, 2, "{place}");
        }
    }
}

#[test]
fn standard_error_that_cannot_be_written_does_not_end_label() {
    let sample = Sample::new(24);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = vaplan()
        .args(sample.arguments("store"))
        .stderr(full())
        .output()
        .unwrap();
    assert_status(&output, 0);
    let opened = Store::open(&sample.path("store")).unwrap();
    assert_eq!(opened.latest().unwrap().unwrap().version().version, 1);
}
