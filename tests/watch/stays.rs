//! What holds while it stays up: its memory, its figures.

use std::io::{Read, Write};
use std::net::TcpStream;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::PredictionTrack;
use vaplan_schemas::store::{CommitInfo, Store};
use vaplan_schemas::tables::Predictions;

use super::harness::WatchedStore;
use crate::sample::{CLASSES, key, name};
use crate::support::{assert_status, run, stderr};

#[test]
fn memory_does_not_grow_with_versions() {
    let place = WatchedStore::new(60);
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

/// Another process writes predictions of an epoch, as `vaplan train` does.
fn train(place: &WatchedStore, epoch: u64) {
    let store = Store::open(&place.store()).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let before = store.at_version(None).unwrap().version().clone();
    let info = CommitInfo {
        command: "vaplan train".to_owned(),
        epoch: Some(epoch),
        settings: before.settings,
        models: before.models,
        inputs: "train".to_owned(),
        program: before.program,
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    let track = PredictionTrack {
        epoch,
        video: name(1).into(),
        modality: Modality::Visual,
        classes: CLASSES.len() as u32,
        probability: vec![0.5; 10 * CLASSES.len()],
    };
    commit.append::<Predictions>(&[track]).unwrap();
    commit.finish().unwrap();
}

#[test]
fn what_another_process_wrote_is_loaded_only_where_the_graph_is_made_of_it() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&[], None).ready();
    let mark = |segment| {
        let name = name(0);
        format!("video,modality,class,label,segment\n{name},audio,Bark,1,{segment}\n")
    };
    train(&place, 1);
    place.deliver("a.user.csv", mark(1));
    watch.line("version 3: ");
    assert_eq!(watch.status()["loads"], 1, "no epoch counts");
    let beside = place.inbox(".epoch");
    std::fs::create_dir_all(beside.join("visual")).unwrap();
    let file = beside.join("visual").join(format!("{}.npy", key(0)));
    vaplan::ingest::npy::write_f32(&file, &[10, 3], &[0.5; 30]).unwrap();
    std::fs::rename(&beside, place.inbox("epoch-0002")).unwrap();
    watch.line("version 4: ");
    train(&place, 3);
    place.deliver("b.user.csv", mark(2));
    watch.line("version 6: ");
    assert_eq!(watch.status()["loads"], 1, "epoch 3 does not count");
    train(&place, 2);
    train(&place, 4);
    place.deliver("c.user.csv", mark(3));
    watch.line("loaded anew: another process made version 8");
    watch.line("version 9: ");
    assert_eq!(watch.stop()["loads"], 2);
}

#[test]
fn figures_are_served_on_loopback_and_nowhere_else() {
    let place = WatchedStore::new(12);
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
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "vaplan_store_version{process=\"0\"} 2",
        "vaplan_batches_total{process=\"0\"} 1",
        "vaplan_deliveries_done_total{process=\"0\"} 1",
        "vaplan_videos_held{process=\"0\"} 12",
        "vaplan_rename_to_commit_seconds_count{process=\"0\"} 1",
    ] {
        assert!(
            metrics.lines().any(|own| own.trim() == line),
            "{line}:\n{metrics}"
        );
    }
    assert!(
        metrics.contains("vaplan_worker_updates_held{process=\"0\",worker=\"0\"} "),
        "{metrics}"
    );
    let health = get("/healthz");
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("ok version 2\n"),
        "{health}"
    );
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
    let place = WatchedStore::new(4);
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

/// Sends bytes to an address, and returns the first line of the answer; an empty line if the server closes the connection.
fn first_line(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The server may close the connection while bytes of the request are unread.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn no_request_ends_a_watch_or_costs_it_a_thread_for_each_connection() {
    let place = WatchedStore::new(12);
    let watch = place.watch(&["--metrics", "127.0.0.1:0"], None).ready();
    let address = watch.status()["metrics"].as_str().unwrap().to_owned();
    let own = "Host: 127.0.0.1\r\n";
    let huge = "Content-Length: 99999999999\r\n";
    for (request, wanted) in [
        (
            format!("GET /metrics HTTP/1.1\r\n{own}{huge}\r\n"),
            "HTTP/1.1 200 OK",
        ),
        (
            format!("POST /metrics HTTP/1.1\r\n{own}{huge}\r\nbody"),
            "HTTP/1.1 405 Method Not Allowed",
        ),
        (
            format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{huge}\r\n"),
            "HTTP/1.1 403 Forbidden",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: example.org\r\n\r\n".to_owned(),
            "HTTP/1.1 403 Forbidden",
        ),
        (
            format!("GET /metrics HTTP/1.1\r\n{own}X: {}\r\n\r\n", "x".repeat(1 << 20)),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request"),
    ] {
        let answer = first_line(&address, &request);
        let short: String = request.chars().take(60).collect();
        // The answer to a header that is too long can be lost, because the client is still sending.
        assert!(
            answer == wanted || (answer.is_empty() && request.len() > 1 << 16),
            "{short}: {answer}"
        );
    }
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let process = format!("/proc/{}", watch.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let threads: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let open = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
    assert!(
        threads < 40 && open < 120,
        "{threads} threads, {open} descriptors"
    );
    drop(idle);
    assert_eq!(
        first_line(&address, &format!("GET /metrics HTTP/1.1\r\n{own}\r\n")),
        "HTTP/1.1 200 OK"
    );
    watch.stop();
}
