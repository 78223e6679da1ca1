//! A thread that panics, and a standard error that is gone.

use std::fs;
use std::process::{Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::Studio;
use crate::support::{assert_status, stderr, stdout, vaplan};

/// A test fails after this time instead of never ending.
const HANG: Duration = Duration::from_secs(180);

/// Runs `vaplan encode` with a panic injected; none if it hangs.
fn faulty(studio: &Studio, workers: &str, place: &str) -> Option<Output> {
    let mut child = vaplan()
        .args(studio.arguments(&format!("out-{workers}-{place}"), &["clip"]))
        .args(["--workers", workers, "--readers", workers, "--batch", "8"])
        .env("VAPLAN_FAULT", format!("panic-{place}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The output is a few lines, which the pipes hold.
    let (to, ended) = channel();
    let id = child.id();
    std::thread::spawn(move || {
        let status = child.wait();
        let _ = to.send((child, status));
    });
    let Ok((child, _)) = ended.recv_timeout(HANG) else {
        let _ = std::process::Command::new("kill").arg(id.to_string()).status();
        return None;
    };
    Some(child.wait_with_output().unwrap())
}

#[test]
fn a_panic_in_any_operator_or_thread_ends_encode_with_an_error() {
    let Some(studio) = Studio::new("a_panic_in_any_operator_or_thread_ends_encode_with_an_error") else {
        return;
    };
    for video in 0..40 {
        studio.frames(&format!("video{video:02}"), 8);
    }
    for workers in [2, 3] {
        for operator in ["media", "encode", "count"] {
            let last = workers - 1;
            let output = faulty(&studio, &workers.to_string(), &format!("{operator}-{last}"));
            let output = output.unwrap_or_else(|| panic!("{operator} hangs with {workers} workers"));
            assert_status(&output, 2);
            let wanted =
                format!("dataflow worker {last} panicked: injected into {operator} of worker {last}");
            assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
        }
        for thread in ["reader", "session"] {
            let output = faulty(&studio, &workers.to_string(), &format!("{thread}-0"));
            let output = output.unwrap_or_else(|| panic!("a {thread} hangs with {workers} workers"));
            assert_status(&output, 2);
            assert!(
                stderr(&output).contains(&format!("injected into {thread} of worker 0")),
                "{}",
                stderr(&output)
            );
        }
    }
    // Nothing of that is left behind: the next run does the work.
    let whole = studio.encode("out-2-media-1", &[]);
    assert!(
        stdout(&whole).contains("visual  40 segments of 40 videos"),
        "{}",
        stdout(&whole)
    );
}

#[test]
fn standard_error_that_cannot_be_written_does_not_end_a_run() {
    let Some(studio) = Studio::new("standard_error_that_cannot_be_written_does_not_end_a_run") else {
        return;
    };
    studio.frames("video", 8);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = vaplan()
        .args(studio.arguments("out", &["clip", "clap"]))
        .stderr(full)
        .output()
        .unwrap();
    // No sound: left out, and told to standard error.
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("visual  1 segments of 1 videos"),
        "{}",
        stdout(&output)
    );
}
