//! What holds while it stays up: its memory, its figures.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::harness::Place;
use crate::sample::name;
use crate::support::{assert_status, run, stderr};

#[test]
fn memory_does_not_grow_with_versions() {
    let place = Place::new(60);
    let watch = place.watch(&["--quiet"], None);
    let mut held = Vec::new();
    let batches = 150;
    for nth in 0..batches {
        let threshold = if nth % 2 == 0 { 1.1 } else { 0.95 };
        place.deliver(
            &format!("{nth}.thresholds.toml"),
            format!("[visual.classes]\nBell = {threshold}\n"),
        );
        watch.line(&format!("version {}: ", nth + 2));
        held.push(watch.status()["held"].as_u64().unwrap());
    }
    let most = |part: &[u64]| *part.iter().max().unwrap();
    let (early, late) = (most(&held[10..60]), most(&held[batches - 50..]));
    eprintln!("{batches} batches: at most {early} updates held early, {late} late");
    assert!(
        early > 0 && late <= early + early / 20,
        "{early} updates held early, {late} late"
    );
    let status = watch.stop();
    assert_eq!(status["batches"], batches);
    assert_eq!(status["rename_to_commit_ms"]["count"], batches);
}

#[test]
fn figures_are_served_on_loopback_and_nowhere_else() {
    let place = Place::new(12);
    let watch = place.watch(&["--metrics", "127.0.0.1:0"], None).ready();
    place.deliver(
        "a.user.csv",
        format!("video,modality,class,label,segment\n{},audio,Bark,1,2\n", name(0)),
    );
    watch.line("version 2: ");
    let address = watch.status()["metrics"].as_str().unwrap().to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "vaplan_store_version 2",
        "vaplan_batches_total 1",
        "vaplan_deliveries_done_total 1",
        "vaplan_videos_held 12",
        "vaplan_rename_to_commit_seconds_count 1",
    ] {
        assert!(
            metrics.lines().any(|own| own.trim() == line),
            "{line}:\n{metrics}"
        );
    }
    assert!(get("/").starts_with("HTTP/1.1 404"));
    watch.stop();
    let store = place.store().display().to_string();
    let inbox = place.inbox("").display().to_string();
    let refused = run([
        "watch",
        "--store",
        &store,
        "--inbox",
        &inbox,
        "--metrics",
        "0.0.0.0:9464",
    ]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("expected a loopback address"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn without_a_version_there_is_nothing_to_watch() {
    let place = Place::new(4);
    let (none, inbox) = (place.sample.path("none"), place.inbox(""));
    let refused = run([
        "watch",
        "--store",
        none.to_str().unwrap(),
        "--inbox",
        inbox.to_str().unwrap(),
    ]);
    assert_status(&refused, 2);
    assert!(stderr(&refused).contains("none"), "{}", stderr(&refused));
}
