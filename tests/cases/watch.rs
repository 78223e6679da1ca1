//! Cases of `watch`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::LabelRule;
use vaplan_schemas::tables::{Labels, UserLabels};

use super::{input, labelled, latest};
use crate::support::{assert_status, run, stdout, vaplan};
use crate::watch::harness::Watch;

/// A watch of `store` in a folder, with the inbox `inbox`.
fn watch(folder: &Path, more: &[&str]) -> Watch {
    fs::create_dir_all(folder.join("inbox")).unwrap();
    let mut command = vaplan();
    command
        .current_dir(folder)
        .args([
            "watch",
            "--workers",
            "2",
            "--store",
            "store",
            "--inbox",
            "inbox",
            "--status",
            "status.json",
        ])
        .args(more);
    Watch::start(command, folder.join("status.json")).ready()
}

/// Puts a file into the inbox of [`watch`] by renaming it.
fn deliver(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let unfinished = folder.join("inbox/.unfinished");
    fs::write(&unfinished, content).unwrap();
    fs::rename(&unfinished, folder.join("inbox").join(name)).unwrap();
}

#[test]
fn a05_a_correction_that_is_set_withdrawn_and_set_again_holds() {
    let folder = labelled();
    let watch = watch(folder.path(), &[]);
    for (name, version) in [("fix.user.csv", 2), ("undo.user.csv", 3), ("fix.user.csv", 4)] {
        deliver(folder.path(), name, fs::read(input("a05").join(name)).unwrap());
        watch.line(&format!("version {version}: "));
    }
    watch.stop();
    let labels = latest(&folder.path().join("store")).read::<Labels>().unwrap();
    let track = labels.iter().find(|row| {
        *row.video == *"demo0000001_30_40" && row.modality == Modality::Visual && *row.class == *"Accordion"
    });
    let first = track.unwrap().get(0);
    assert_eq!((first.label, first.rule), (false, LabelRule::User));
    let mut done: Vec<String> = fs::read_dir(folder.path().join("inbox/done"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    done.sort();
    assert_eq!(done, ["fix.user.csv", "fix.user.csv~2", "undo.user.csv"]);
}

/// Sends a request, and returns the answer.
fn answer(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // The server may close the connection before it reads all of the request.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a10_a_request_with_a_large_content_length_does_not_end_a_watch() {
    let folder = labelled();
    let watch = watch(folder.path(), &["--metrics", "127.0.0.1:0"]);
    let address = watch.status()["metrics"].as_str().unwrap().to_owned();
    for method in ["GET", "POST"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
        let told = answer(&address, request.as_bytes());
        assert!(told.starts_with("HTTP/1.1 4"), "{method}: {told}");
    }
    // Connections that send nothing do not keep others out.
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address).unwrap()).collect();
    drop(idle);
    let own = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let told = answer(&address, own.as_bytes());
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    watch.stop();
}

#[test]
fn a12_a_store_does_not_grow_with_the_number_of_deliveries() {
    const DELIVERIES: u64 = 185;
    let folder = labelled();
    let watch = watch(folder.path(), &[]);
    for nth in 0..DELIVERIES {
        let (segment, label) = (nth % 10, u8::from(nth / 10 % 2 == 0));
        let row = format!("demo0000001_30_40\tvisual\tAccordion\t{label}\t{segment}");
        let content = format!("video\tmodality\tclass\tlabel\tsegment\n{row}\n");
        deliver(folder.path(), &format!("{nth:04}.user.csv"), content);
        watch.line(&format!("version {}: ", nth + 2));
    }
    watch.stop();
    let store = folder.path().join("store");
    assert_eq!(latest(&store).read::<UserLabels>().unwrap().len(), 10);
    // Every commit writes its transaction under one name, of which a checkpoint keeps the last.
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(store.join("labels/_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(path).unwrap();
            let actions = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            names.extend(actions.filter_map(|action| Some(action["txn"]["appId"].as_str()?.to_owned())));
        }
    }
    let commits = names.len();
    names.dedup();
    assert!(commits > 8 && names.len() == 1, "{commits} commits: {names:?}");
    let place = store.to_str().unwrap();
    assert_status(&run(["optimize", "--store", place]), 0);
    assert_status(&run(["vacuum", "--store", place, "--keep", "1"]), 0);
    let versions = fs::read_dir(store.join("versions")).unwrap();
    let files = versions
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    assert!(files.count() < 10, "versions has a file for each version");
    assert_status(&run(["check", "--store", place]), 0);
    let log = run(["log", "--store", place]);
    assert!(
        stdout(&log).lines().count() as u64 > DELIVERIES,
        "{}",
        stdout(&log)
    );
}
