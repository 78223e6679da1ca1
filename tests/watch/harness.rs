//! A watch that runs, and what it says: tests wait for its lines, with a deadline.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;

use crate::sample::{Sample, WIDTH, name};
use crate::support::{assert_status, vaplan};

/// Longer than anything here takes, be the machine as busy as it may.
const DEADLINE: Duration = Duration::from_secs(120);

/// A labelled sample with an inbox.
pub(crate) struct WatchedStore {
    pub(crate) sample: Sample,
}

/// A process that watches.
pub(crate) struct Watch {
    child: Child,
    lines: Receiver<String>,
    status: PathBuf,
}

impl WatchedStore {
    /// So many videos, labelled into `store`.
    pub(crate) fn new(videos: usize) -> WatchedStore {
        let sample = Sample::new(videos);
        assert_status(&sample.label("store", &[]), 0);
        fs::create_dir(sample.path("inbox")).unwrap();
        WatchedStore { sample }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.sample.path("store")
    }

    pub(crate) fn inbox(&self, name: &str) -> PathBuf {
        self.sample.path("inbox").join(name)
    }

    /// A copy of the store.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        copy(&self.store(), &self.sample.path(name));
        self.sample.path(name)
    }

    /// Puts a file into the inbox, as one should: by renaming it.
    pub(crate) fn deliver(&self, name: &str, content: impl AsRef<[u8]>) {
        let beside = self.inbox(".unfinished");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, self.inbox(name)).unwrap();
    }

    /// Puts a Parquet shard of these videos into the inbox: each cell about its value.
    pub(crate) fn deliver_shard(&self, name: &str, modality: Modality, videos: &[(usize, f32)]) {
        let beside = self.inbox(".unfinished.parquet");
        write_shard(&beside, modality, videos);
        fs::rename(&beside, self.inbox(name)).unwrap();
    }

    /// Starts the program.
    pub(crate) fn watch(&self, more: &[&str], fault: Option<&str>) -> Watch {
        let status = self.sample.path("status.json");
        drop(fs::remove_file(&status));
        let mut command = vaplan();
        command
            .args(["watch", "--workers", "2", "--store"])
            .arg(self.store())
            .arg("--inbox")
            .arg(self.sample.path("inbox"))
            .arg("--status")
            .arg(&status)
            .args(more);
        if let Some(place) = fault {
            command.env("VAPLAN_FAULT", place);
        }
        Watch::start(command, status)
    }
}

impl Watch {
    pub(crate) fn start(mut command: Command, status: PathBuf) -> Watch {
        let (tell, lines) = channel();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built program starts");
        pass_on(child.stdout.take().unwrap(), tell.clone());
        pass_on(child.stderr.take().unwrap(), tell);
        Watch { child, lines, status }
    }

    /// Number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that holds this.
    #[track_caller]
    pub(crate) fn line(&self, wanted: &str) -> String {
        let until = Instant::now() + DEADLINE;
        let mut others = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.contains(wanted) => return line,
                Ok(line) => others.push(line),
                Err(error) => panic!("no line with `{wanted}` ({error}), but:\n{}", others.join("\n")),
            }
        }
    }

    /// The next line that holds this; none: it ended first.
    #[cfg(feature = "train")]
    #[track_caller]
    pub(crate) fn line_or_end(&self, wanted: &str) -> Option<String> {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(wanted) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("neither a line with `{wanted}` nor an end"),
            }
        }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(self) -> Watch {
        self.line("watching: version");
        self
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.status).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// A variable of its environment.
    #[cfg(feature = "train")]
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let all = fs::read(format!("/proc/{}/environ", self.child.id())).unwrap();
        let own = all.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        own.into_iter()
            .find_map(|own| Some(own.strip_prefix(&format!("{name}="))?.to_owned()))
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        // Its lines end when it does.
        let until = Instant::now() + DEADLINE;
        while self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .is_ok()
        {}
        assert!(Instant::now() < until, "it did not end");
        self.child.wait().unwrap()
    }

    /// Stops it as an operator does, and gives its last status.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Value {
        self.signal(Signal::TERM);
        assert_eq!(self.end().code(), Some(0));
        let status = self.status();
        assert_eq!(status["state"], "stopped");
        status
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass_on(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

pub(crate) fn write_shard(path: &Path, modality: Modality, videos: &[(usize, f32)]) {
    let format = ShardFormat {
        modality,
        width: WIDTH,
        float: FloatType::F32,
        layout: FeatureLayout::Packed,
        model: None,
    };
    let mut writer = ShardWriter::create(path, format).unwrap();
    for &(nth, value) in videos {
        let cell = |cell: usize| value + ((cell * 7 + nth) % 11) as f32 / 10.0;
        let values: Vec<f32> = (0..10 * WIDTH).map(cell).collect();
        writer.append(&name(nth), &values).unwrap();
    }
    writer.finish().unwrap();
}
