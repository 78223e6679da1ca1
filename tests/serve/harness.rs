//! A server that runs, and an HTTP client that sends whatever a test wants: also headers that no library would send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use vaplan_schemas::store::{Snapshot, Store};

use crate::sample::Sample;
use crate::support::{assert_status, vaplan};

/// Longer than any answer takes, be the machine as busy as it may.
const DEADLINE: Duration = Duration::from_secs(120);

/// A labelled sample that is served.
pub(super) struct ServedStore {
    pub(super) sample: Sample,
    pub(super) server: Server,
}

/// A process that serves. It is killed when it is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
    pub(super) port: u16,
    pub(super) token: String,
}

/// An answer of the server.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl ServedStore {
    /// So many videos, labelled and served.
    pub(super) fn new(videos: usize, more: &[&str]) -> ServedStore {
        let sample = Sample::new(videos);
        assert_status(&sample.label("store", &[]), 0);
        let server = Server::start(&sample.path("store"), more);
        ServedStore { sample, server }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.sample.path("store")
    }

    pub(super) fn latest(&self) -> Snapshot {
        Store::open(&self.store())
            .unwrap()
            .latest()
            .unwrap()
            .expect("a version")
    }
}

impl Server {
    /// Serves a store on a free port, and waits for the printed URL.
    pub(super) fn start(store: &Path, more: &[&str]) -> Server {
        let mut command: Command = vaplan();
        command.arg("serve").arg("--store").arg(store).args(more);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the built program starts");
        let mut url = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("standard output is piped"));
        out.read_line(&mut url).expect("the server prints its URL");
        let url = url.trim().to_owned();
        let rest = url.strip_prefix("http://127.0.0.1:").expect("a loopback URL");
        let (port, token) = rest.split_once("/?token=").expect("a URL with a token");
        Server {
            child,
            port: port.parse().expect("a port"),
            token: token.to_owned(),
            url,
        }
    }

    /// Kills the process, as a crash would.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end, and gives its exit status.
    pub(super) fn end(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Number of descriptors that the process has open.
    pub(super) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    /// Sends a request as it is. `head` has the request line and the headers, without the empty line.
    pub(super) fn raw(&self, head: &str, body: &[u8]) -> HttpAnswer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "{}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            head.replace('\n', "\r\n"),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a long body may close the connection before all of it is sent.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        HttpAnswer {
            status: head.split(' ').nth(1).expect("a status").parse().unwrap(),
            body: answer[end + 4..].to_vec(),
            head,
        }
    }

    /// A request with the token and a proper Host; `headers` are further lines.
    pub(super) fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> HttpAnswer {
        let headers = if headers.is_empty() {
            String::new()
        } else {
            format!("\n{headers}")
        };
        let (port, token) = (self.port, &self.token);
        let head = format!(
            "{method} {path} HTTP/1.1\nHost: 127.0.0.1:{port}\nAuthorization: Bearer {token}{headers}"
        );
        self.raw(&head, body)
    }

    pub(super) fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path, "", b"")
    }

    /// The JSON of a page that must be there.
    #[track_caller]
    pub(super) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(super) fn save(&self, request: &Value) -> HttpAnswer {
        let body = serde_json::to_vec(request).unwrap();
        self.ask("POST", "/api/save", "Content-Type: application/json", &body)
    }

    /// Saves edits that must be saved, and gives the answer.
    #[track_caller]
    pub(super) fn saved(&self, version: u64, edits: Value) -> Value {
        let answer = self.save(&json!({"version": version, "edits": edits}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HttpAnswer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// An edit of a save.
pub(super) fn edit(video: &str, modality: &str, class: &str, span: (u32, u32), label: Option<bool>) -> Value {
    json!({"video": video, "modality": modality, "class": class, "start": span.0, "end": span.1, "label": label})
}

/// Text as a part of a URL.
pub(super) fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
