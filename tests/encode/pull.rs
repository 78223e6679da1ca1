//! `vaplan models pull`, against a server of our own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use sha2::{Digest, Sha256};

use super::Studio;
use crate::support::{assert_status, run, scratch, stderr, stdout};

/// An answer: status line, headers, body.
type Reply = (&'static str, Vec<String>, Vec<u8>);

/// Serves these paths until the test's process ends; gives the address.
fn serve(answers: BTreeMap<String, Reply>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let path = first.split(' ').nth(1).unwrap();
            let missing = ("404 Not Found", Vec::new(), Vec::new());
            let (status, headers, body) = answers.get(path).unwrap_or(&missing);
            let mut answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
            if !headers.iter().any(|header| header.starts_with("Content-Length")) {
                answer.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            headers
                .iter()
                .for_each(|header| answer.push_str(&format!("{header}\r\n")));
            answer.push_str("\r\n");
            // A client that has heard enough may be gone.
            let _ = stream
                .write_all(answer.as_bytes())
                .and_then(|()| stream.write_all(body));
        }
    });
    address
}

/// The tiny CLIP as the hub has it: models by a redirection that tells their hash, the tokenizer at once.
fn hub(studio: &Studio) -> BTreeMap<String, Reply> {
    let at = |file: &str| format!("/own/tiny-clip/resolve/main/{file}");
    let mut answers = BTreeMap::new();
    for (file, from) in [
        ("onnx/vision_model.onnx", "clip/vision_model.onnx"),
        ("onnx/text_model.onnx", "clip/text_model.onnx"),
    ] {
        let body = fs::read(studio.path(from)).unwrap();
        let sum: String = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let headers = vec![
            format!("Location: /store/{sum}"),
            format!("X-Linked-ETag: \"{sum}\""),
            format!("X-Linked-Size: {}", body.len()),
        ];
        answers.insert(at(file), ("302 Found", headers, Vec::new()));
        answers.insert(format!("/store/{sum}"), ("200 OK", Vec::new(), body));
    }
    let tokenizer = fs::read(studio.path("clip/tokenizer.json")).unwrap();
    answers.insert(at("tokenizer.json"), ("200 OK", Vec::new(), tokenizer));
    answers
}

fn pull(endpoint: &str, to: &std::path::Path) -> std::process::Output {
    run([
        "models",
        "pull",
        "own/tiny-clip",
        "--endpoint",
        endpoint,
        "--to",
        to.to_str().unwrap(),
    ])
}

#[test]
fn a_pulled_model_is_whole_and_can_be_used() {
    let Some(studio) = Studio::new("a_pulled_model_is_whole_and_can_be_used") else {
        return;
    };
    let endpoint = serve(hub(&studio));
    let to = studio.path("pulled");
    let pulled = pull(&endpoint, &to);
    assert_status(&pulled, 0);
    assert_eq!(stdout(&pulled), format!("{}\n", to.display()));
    assert_eq!(
        fs::read(to.join("onnx/text_model.onnx")).unwrap(),
        fs::read(studio.path("clip/text_model.onnx")).unwrap()
    );
    fs::write(to.join("vaplan.toml"), "[image]\nsize = 64\n").unwrap();
    let models = run(["models", to.to_str().unwrap()]);
    assert_status(&models, 0);
    // All is there: no server is asked again.
    let again = pull("http://127.0.0.1:1", &to);
    assert_status(&again, 0);
    assert_eq!(stderr(&again), "");
}

#[test]
fn what_came_damaged_or_cut_is_not_kept() {
    let Some(studio) = Studio::new("what_came_damaged_or_cut_is_not_kept") else {
        return;
    };
    let mut answers = hub(&studio);
    for (name, change) in [("damaged", 0), ("cut", 1)] {
        for (path, answer) in &mut answers {
            if path.starts_with("/store/") {
                match change {
                    0 => answer.2[100] ^= 1,
                    _ => answer.2.truncate(1_000),
                }
            }
        }
        let to = studio.path(name);
        let refused = pull(&serve(answers.clone()), &to);
        assert_status(&refused, 2);
        let said = stderr(&refused);
        assert!(
            said.contains("nothing of it is kept") && said.contains("vision_model.onnx"),
            "{name}: {said}"
        );
        let kept: Vec<_> = fs::read_dir(to.join("onnx")).unwrap().collect();
        assert!(kept.is_empty(), "{name}: {kept:?}");
    }
}

#[test]
fn no_network_no_file_and_no_name_are_told() {
    let folder = scratch();
    let to = folder.path().join("model");
    let network = pull("http://127.0.0.1:1", &to);
    assert_status(&network, 2);
    assert!(stderr(&network).contains("cannot reach `http://127.0.0.1:1/own/tiny-clip/resolve/main/onnx/vision_model.onnx`: is there a network?"), "{}", stderr(&network));
    let missing = pull(&serve(BTreeMap::new()), &to);
    assert_status(&missing, 2);
    assert!(
        stderr(&missing).contains("answers 404 Not Found, expected a file"),
        "{}",
        stderr(&missing)
    );
    for name in ["../../etc", "clip", "a/../b", "a/b/c"] {
        let unknown = run([
            "models",
            "pull",
            name,
            "--to",
            to.to_str().unwrap(),
            "--endpoint",
            "http://127.0.0.1:1",
        ]);
        assert_status(&unknown, 2);
        assert!(
            stderr(&unknown).contains("is no model known here, expected <owner>/<repository>"),
            "{}",
            stderr(&unknown)
        );
    }
}
