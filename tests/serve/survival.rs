//! A server that is killed, that shares its store, or that is asked to end.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use vaplan_schemas::tables::UserLabels;

use super::harness::{ServedStore, Server, edit};
use crate::sample::name;
use crate::support::{assert_status, run};

#[test]
fn a_server_that_is_killed_during_saves_leaves_a_whole_store() {
    let served = ServedStore::new(8, &[]);
    let store = served.store();
    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    let class = shown["tracks"][0]["class"].as_str().unwrap().to_owned();
    let modality = shown["tracks"][0]["modality"].as_str().unwrap().to_owned();
    let mut server = served.server;
    let mut version = 1;
    for round in 0..8_u32 {
        let own = |turn: u32| {
            json!([edit(
                &name(0),
                &modality,
                &class,
                (turn, turn + 1),
                Some((round + turn).is_multiple_of(2))
            )])
        };
        for turn in 0..round % 3 {
            version = server.saved(version, own(turn))["version"].as_u64().unwrap();
        }
        // The last saves are sent and not answered: the kill comes before, during or after their commits.
        let streams: Vec<TcpStream> = (3..6)
            .map(|turn| {
                let body = json!({"version": version, "edits": own(turn)}).to_string();
                let (port, token, length) = (server.port, &server.token, body.len());
                let head = format!(
                    "POST /api/save HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                stream
            })
            .collect();
        if round % 2 == 1 {
            // The first of them is answered, so that the kill falls into a later one.
            (&streams[0]).read_exact(&mut [0; 8]).unwrap();
        }
        server.kill();
        assert_status(&run(["check", "--store", store.to_str().unwrap()]), 0);
        server = Server::start(&store, &[]);
        let latest = server.json("/api/info")["version"].as_u64().unwrap();
        assert!(
            latest >= version,
            "version {version} was acknowledged, and the store has {latest}"
        );
        version = latest;
    }
}

#[test]
fn a_server_and_relabel_write_in_turn() {
    let served = ServedStore::new(8, &[]);
    let store = served.store();
    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    let class = shown["tracks"][0]["class"].as_str().unwrap();
    let modality = shown["tracks"][0]["modality"].as_str().unwrap();
    let mut version = 1;
    for (turn, threshold) in ["1.1", "0.9", "1.2"].into_iter().enumerate() {
        let turn = turn as u32;
        let flags = [
            "relabel",
            "--store",
            store.to_str().unwrap(),
            "--visual-threshold",
            threshold,
        ];
        assert_status(&run(flags), 0);
        version += 1;
        let saved = served.server.saved(
            version,
            json!([edit(&name(0), modality, class, (turn, turn + 1), Some(true))]),
        );
        version += 1;
        assert_eq!(saved["version"], version);
        let list = served.server.json(&format!("/api/videos?at_least={version}"));
        assert_eq!(list["version"], version);
        assert_eq!(list["list"][0]["user"], turn + 1);
    }
    assert_eq!(served.latest().read::<UserLabels>().unwrap().len(), 3);
    // What the list says after many small steps is what a new server reads from the tables.
    let again = Server::start(&store, &["--read-only"]);
    let path = format!("/api/videos?at_least={version}");
    assert_eq!(again.json(&path)["list"], served.server.json(&path)["list"]);
    assert_status(&run(["check", "--store", store.to_str().unwrap()]), 0);
}

#[test]
fn a_server_ends_when_it_is_asked_to() {
    let served = ServedStore::new(4, &[]);
    assert_eq!(served.server.json("/api/info")["version"], 1);
    assert!(served.server.url.starts_with("http://127.0.0.1:"));
    assert_eq!(served.server.end(), Some(0));
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let output = run(["serve", "--store", "/nowhere/store"]);
    assert_status(&output, 2);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/nowhere/store"), "{text}");
}
