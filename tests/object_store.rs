//! Stores in an object store: a real S3 server (moto), which the test starts.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::open_outside::python;
use crate::support::{assert_status, run, scratch, stderr, stdout, vaplan};

mod azure;
mod commands;
mod conflict;
mod files;
mod keys;
#[cfg(feature = "encode")]
mod media;
mod rounds;
#[cfg(feature = "train")]
mod trained;

const SECRET: &str = "hunter2-is-a-secret";

/// A server with one bucket, which ends with the value.
struct S3 {
    server: Child,
    endpoint: String,
    python: PathBuf,
    folder: tempfile::TempDir,
}

/// Runs commands at once, and asserts that all succeed.
fn assert_at_once(commands: impl Iterator<Item = Command>) {
    let quiet = |mut command: Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let running: Vec<Child> = commands.map(quiet).collect();
    for mut process in running {
        assert!(process.wait().unwrap().success());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Makes annotations and features as Parquet shards in a folder.
fn make_inputs(folder: &str) {
    assert_status(&run(["demo", "--annotations-only", "--dir", folder]), 0);
    let [annotations, features] = ["annotations", "features"].map(|name| format!("{folder}/{name}"));
    let synth = [
        "synth",
        "--annotations",
        &annotations,
        "--out",
        &features,
        "--parquet",
    ];
    assert_status(&run(synth), 0);
}

/// The words of `label` on such inputs.
fn label_words(store: &str, inputs: &str) -> Vec<String> {
    let at = |name: &str| format!("{inputs}/{name}");
    let words = [
        ("--store", store.to_owned()),
        ("--annotations", at("annotations")),
        ("--visual", at("features/visual")),
        ("--visual-text", at("features/visual_text.npy")),
        ("--audio", at("features/audio")),
        ("--audio-text", at("features/audio_text.npy")),
    ];
    let words = words
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value]);
    std::iter::once("label".to_owned()).chain(words).collect()
}

/// Waits until a server answers on a port of this machine.
fn wait_for(port: u16) {
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the server does not start"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl S3 {
    fn start(test: &str) -> Option<S3> {
        let python = python(test)?;
        let has_moto = Command::new(&python)
            .args(["-c", "import moto.server, boto3"])
            .output()
            .unwrap();
        if !has_moto.status.success() {
            eprintln!("SKIPPED: {test} needs moto in .venv (scripts/test-venv.sh installs it)");
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new(&python)
            .args([
                "-m",
                "moto.server",
                "--host",
                "127.0.0.1",
                "--port",
                &free.to_string(),
            ])
            // The server would refuse small parts, as Amazon S3 does.
            .env("S3_UPLOAD_PART_MIN_SIZE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let s3 = S3 {
            server,
            endpoint: format!("http://127.0.0.1:{free}"),
            python,
            folder: scratch(),
        };
        wait_for(free);
        s3.python(
            "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')",
            &[],
        );
        Some(s3)
    }

    fn env(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("VAPLAN_SCRATCH", self.folder.path().join("scratch"))
            .current_dir(self.folder.path());
    }

    fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.python);
        command.arg("-c").arg(script).args(arguments);
        self.env(&mut command);
        let output = command.output().unwrap();
        assert_status(&output, 0);
        stdout(&output).to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = vaplan();
        command.args(words);
        self.env(&mut command);
        command
    }

    fn vaplan(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.vaplan(words);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Annotations and features as Parquet shards, in the folder.
    fn inputs(&self) {
        make_inputs(&self.path(""));
    }

    /// All rows of the tables that hold results, but paths.
    fn rows(&self, store: &str) -> Vec<String> {
        let tables = [
            "SELECT * FROM labels ORDER BY video, modality, class, segment",
            "SELECT * FROM scores ORDER BY video, modality, class, segment",
            "SELECT * FROM label_changes ORDER BY version, video, modality, class, segment",
            "SELECT version, epoch, changed_labels FROM versions ORDER BY version",
        ];
        let ask = |sql: &&str| self.done(&["query", "--store", store, "--format", "csv", sql]);
        tables.iter().map(ask).collect()
    }

    /// The name of a video.
    fn video(&self, store: &str) -> String {
        let sql = "SELECT max(video) FROM videos";
        let answer = self.done(&["query", "--store", store, "--format", "csv", sql]);
        answer.lines().nth(1).unwrap().to_owned()
    }

    /// A file of user labels of the first videos.
    fn user_labels(&self, store: &str, name: &str, from: usize) -> String {
        let sql = "SELECT DISTINCT video, class FROM labels WHERE modality = 'audio' ORDER BY video, class";
        let listed = self.done(&["query", "--store", store, "--format", "csv", sql]);
        let mut text = "video,modality,class,segment,label\n".to_owned();
        for line in listed.lines().skip(1 + from).take(3) {
            let (video, class) = line.split_once(',').unwrap();
            text.push_str(&format!("{video},audio,{class},0,1\n{video},audio,{class},1,0\n"));
        }
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

const UPLOAD: &str = "
import boto3, os, sys
s3 = boto3.client('s3')
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(folder, name)
        s3.upload_file(path, 'bucket', sys.argv[2] + '/' + os.path.relpath(path, sys.argv[1]))
";

#[test]
fn commands_on_s3_give_the_rows_of_a_local_store_and_leave_no_folder_and_no_secret() {
    let Some(s3) =
        S3::start("commands_on_s3_give_the_rows_of_a_local_store_and_leave_no_folder_and_no_secret")
    else {
        return;
    };
    s3.inputs();
    let (local, remote) = (s3.path("store"), "s3://bucket/a/store");
    let here = s3.path("");
    let here = here.trim_end_matches('/');
    s3.done(&words(&label_words(&local, here)));
    s3.done(&words(&label_words(remote, here)));
    assert_eq!(s3.rows(remote), s3.rows(&local));
    // Nothing to do.
    s3.done(&words(&label_words(remote, here)));

    let user = s3.user_labels(&local, "user.csv", 0);
    for store in [local.as_str(), remote] {
        s3.done(&["relabel", "--store", store, "--user", &user]);
        s3.done(&["relabel", "--store", store, "--threshold", "visual/Speech=1.05"]);
    }
    assert_eq!(s3.rows(remote), s3.rows(&local));
    let video = s3.video(remote);
    for command in [
        &["check"][..],
        &["eval", "--split", "val", "--format", "json"],
        &["log", "--format", "json"],
        &["show", &video],
        &["export", "--format", "csv", "--out", "export"],
    ] {
        let mut words = command.to_vec();
        words.extend(["--store", remote]);
        let output = s3.vaplan(&words);
        assert!(
            output.status.code() != Some(2),
            "{command:?}: {}",
            stderr(&output)
        );
        if command[0] == "eval" {
            words.pop();
            words.push(&local);
            assert_eq!(stdout(&output), s3.done(&words), "evaluated alike");
        }
    }
    s3.done(&["optimize", "--store", remote]);
    let kept = s3.done(&["vacuum", "--store", remote, "--keep", "1"]);
    assert!(kept.contains("4 versions can be opened"), "{kept}");
    let done = s3.done(&["vacuum", "--store", remote, "--keep", "1", "--grace-hours", "0"]);
    assert!(done.contains("1 versions can be opened"), "{done}");
    assert!(
        s3.done(&["check", "--store", remote])
            .contains("version 4 is whole")
    );

    // Options and commands that need the local disk say what to do.
    for (command, says) in [
        (
            vec![
                "export",
                "--store",
                remote,
                "--format",
                "csv",
                "--out",
                "s3://bucket/x",
            ],
            "takes a path of the local disk",
        ),
        (
            vec!["watch", "--store", remote, "--inbox", "s3://bucket/inbox"],
            "takes a path of the local disk",
        ),
        (
            vec!["log", "--store", "s3://me:hunter2-is-a-secret@bucket/a"],
            "must not hold a user, a password",
        ),
        (vec!["log", "--store", "s3://bucket/nothing"], "is no store"),
        (
            vec!["log", "--store", "s3://nowhere/a"],
            "check the name of the bucket",
        ),
    ] {
        let output = s3.vaplan(&command);
        assert_status(&output, 2);
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
        assert!(!stderr(&output).contains(SECRET));
    }
    let names = std::fs::read_dir(s3.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(
        names
            .into_iter()
            .all(|name| !name.to_string_lossy().contains(':'))
    );
    let found = s3.python(
        "import boto3, sys
s3 = boto3.client('s3')
keys = [o['Key'] for p in s3.get_paginator('list_objects_v2').paginate(Bucket='bucket') for o in p['Contents']]
print([k for k in keys if sys.argv[1].encode() in s3.get_object(Bucket='bucket', Key=k)['Body'].read()])",
        &[SECRET],
    );
    assert_eq!(found.trim(), "[]");
}

#[test]
fn annotations_features_and_texts_are_read_from_urls_and_recorded_as_urls() {
    let Some(s3) = S3::start("annotations_features_and_texts_are_read_from_urls_and_recorded_as_urls") else {
        return;
    };
    s3.inputs();
    let here = s3.path("");
    let here = here.trim_end_matches('/');
    for folder in ["annotations", "features"] {
        s3.python(UPLOAD, &[&s3.path(folder), &format!("in/{folder}")]);
    }
    let (one, two) = (s3.path("one"), s3.path("two"));
    s3.done(&words(&label_words(&one, here)));
    s3.done(&words(&label_words(&two, "s3://bucket/in")));
    assert_eq!(s3.rows(&two), s3.rows(&one));
    let sql = "SELECT DISTINCT visual_source FROM videos WHERE visual_source NOT LIKE 's3://bucket/in/features/visual/%'";
    assert_eq!(
        s3.done(&["query", "--store", &two, "--format", "csv", sql])
            .lines()
            .count(),
        1
    );
    // The same inputs: nothing is read again. Features that changed are found.
    let again = s3.done(&words(&label_words(&two, "s3://bucket/in")));
    assert!(!again.contains("version 2"), "{again}");
    let change = [
        "relabel",
        "--store",
        &two,
        "--visual",
        "s3://bucket/in/features/visual",
        "--dry-run",
    ];
    s3.done(&change);
    let gone = s3.vaplan(&words(&label_words(&s3.path("three"), "s3://bucket/missing")));
    assert_status(&gone, 2);
    assert!(stderr(&gone).contains("s3://bucket/missing"), "{}", stderr(&gone));
}

#[test]
fn a_store_is_copied_to_s3_and_back() {
    let Some(s3) = S3::start("a_store_is_copied_to_s3_and_back") else {
        return;
    };
    s3.inputs();
    let (local, remote, back) = (s3.path("store"), "s3://bucket/copy", s3.path("back"));
    let here = s3.path("");
    s3.done(&words(&label_words(&local, here.trim_end_matches('/'))));
    let user = s3.user_labels(&local, "user.csv", 0);
    s3.done(&["relabel", "--store", &local, "--user", &user]);
    let copied = s3.done(&["store", "--store", &local, "--copy-to", remote]);
    assert!(
        copied.starts_with("versions 1 to 2 are in `s3://bucket/copy`"),
        "{copied}"
    );
    assert_eq!(s3.rows(remote), s3.rows(&local));
    let again = s3.done(&["store", "--store", &local, "--copy-to", remote]);
    assert!(again.contains(": 0 files copied, 0 bytes"), "{again}");
    s3.done(&["relabel", "--store", remote, "--threshold", "visual/Speech=1.05"]);
    s3.done(&["store", "--store", remote, "--copy-to", &back, "--versions", "1"]);
    assert_eq!(s3.rows(&back), s3.rows(remote));
    s3.done(&["check", "--store", &back]);
    let old = s3.vaplan(&["show", "--store", &back, "--version", "1", &s3.video(&back)]);
    assert!(stderr(&old).contains("was vacuumed"), "{}", stderr(&old));
    let other = s3.vaplan(&["store", "--store", &local, "--copy-to", &back]);
    assert!(
        stderr(&other).contains("is no copy of this store"),
        "{}",
        stderr(&other)
    );
}

#[test]
fn a_process_that_is_killed_before_any_write_to_s3_leaves_a_whole_version_and_a_rerun_commits() {
    let Some(s3) = S3::start(
        "a_process_that_is_killed_before_any_write_to_s3_leaves_a_whole_version_and_a_rerun_commits",
    ) else {
        return;
    };
    s3.inputs();
    let (local, here) = (s3.path("store"), s3.path(""));
    s3.done(&words(&label_words(&local, here.trim_end_matches('/'))));
    let user = s3.user_labels(&local, "user.csv", 0);
    s3.done(&["store", "--store", &local, "--copy-to", "s3://bucket/0"]);
    s3.done(&["relabel", "--store", "s3://bucket/0", "--user", &user]);
    let expected = s3.rows("s3://bucket/0");
    let before = s3.rows(&local);
    let mut killed = 0;
    // Every third point: the sweep in memory (schemas) tries each.
    for point in (1..).step_by(3) {
        let remote = format!("s3://bucket/{point}");
        s3.done(&["store", "--store", &local, "--copy-to", &remote]);
        let mut command = s3.command(&["relabel", "--store", &remote, "--user", &user]);
        let output = command.env("VAPLAN_FAULT", point.to_string()).output().unwrap();
        let rows = s3.rows(&remote);
        if output.status.success() {
            assert_eq!(rows, expected);
            break;
        }
        killed += 1;
        assert!(rows == before || rows == expected, "killed before write {point}");
        s3.done(&["check", "--store", &remote]);
        s3.done(&["relabel", "--store", &remote, "--user", &user]);
        assert_eq!(s3.rows(&remote), expected, "killed before write {point}");
    }
    eprintln!("killed before {killed} writes");
    assert!(killed > 5);
}

#[test]
fn two_processes_that_relabel_on_s3_at_once_both_commit_one_after_the_other() {
    let Some(s3) = S3::start("two_processes_that_relabel_on_s3_at_once_both_commit_one_after_the_other")
    else {
        return;
    };
    s3.inputs();
    let (remote, here) = ("s3://bucket/store", s3.path(""));
    s3.done(&words(&label_words(remote, here.trim_end_matches('/'))));
    let files = [
        s3.user_labels(remote, "one.csv", 0),
        s3.user_labels(remote, "two.csv", 5),
    ];
    assert_at_once(
        files
            .iter()
            .map(|user| s3.command(&["relabel", "--store", remote, "--user", user])),
    );
    let log: Value = serde_json::from_str(&s3.done(&["log", "--store", remote, "--format", "json"])).unwrap();
    assert_eq!(log.as_array().unwrap().len(), 3);
    s3.done(&["check", "--store", remote]);
}

const READERS: &str = include_str!("object_store/readers.py");

#[test]
fn duckdb_polars_and_deltalake_read_the_store_on_s3_as_query_does() {
    let Some(s3) = S3::start("duckdb_polars_and_deltalake_read_the_store_on_s3_as_query_does") else {
        return;
    };
    s3.inputs();
    let (remote, here) = ("s3://bucket/store", s3.path(""));
    s3.done(&words(&label_words(remote, here.trim_end_matches('/'))));
    let user = s3.user_labels(remote, "user.csv", 0);
    s3.done(&["relabel", "--store", remote, "--user", &user]);
    let own = s3.done(&[
        "query",
        "--store",
        remote,
        "--format",
        "csv",
        "SELECT count(*) FROM labels WHERE label",
    ]);
    let own: u64 = own.lines().nth(1).unwrap().parse().unwrap();
    let seen: Value = serde_json::from_str(&s3.python(READERS, &[remote])).unwrap();
    for (reader, set) in seen.as_object().unwrap() {
        assert_eq!(set.as_u64(), Some(own), "{reader}");
    }
    assert_eq!(seen.as_object().unwrap().len(), 3, "every reader");
}
