//! `file` URLs, and endpoints that cannot be used. These tests need no server.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::SECRET;
use crate::cluster::processes::files;
use crate::sample::{Sample, Tables};
use crate::support::{assert_status, run, scratch, stderr, stdout, vaplan};
use crate::watch::harness::Watch;

/// A command in a folder, so that a folder that is named like a URL would be made there.
fn within(folder: &Path, words: &[&str]) -> Command {
    let mut command = vaplan();
    command.args(words).current_dir(folder);
    command
}

/// A path of a sample as a `file` URL.
fn url(sample: &Sample, name: &str) -> String {
    format!("file://{}", sample.path(name).display())
}

#[test]
fn inputs_outputs_and_inboxes_at_file_urls_are_those_of_the_local_disk() {
    let sample = Sample::new(20);
    let done = |words: &[&str]| {
        let output = within(&sample.path(""), words).output().unwrap();
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    assert_status(&sample.label("one", &[]), 0);
    let store = url(&sample, "two");
    let as_urls: Vec<String> = sample
        .arguments("two")
        .iter()
        .map(|word| match word.starts_with('/') {
            true => format!("file://{word}"),
            false => word.clone(),
        })
        .chain(["--classes".to_owned(), url(&sample, "annotations/classes.txt")])
        .collect();
    let as_urls: Vec<&str> = as_urls.iter().map(String::as_str).collect();
    done(&as_urls);
    assert_eq!(files(&sample.path("two")), files(&sample.path("one")));

    let track = &Tables::read(&sample.path("one")).labels[0];
    let user = |segment: usize| {
        let (video, modality, class) = (&track.video, track.modality, &track.class);
        let label = u8::from(!track.labels[segment]);
        format!("video,modality,class,segment,label\n{video},{modality},{class},{segment},{label}\n")
    };
    fs::write(sample.path("user.csv"), user(0)).unwrap();
    let text = url(&sample, "visual_text.npy");
    done(&[
        "relabel",
        "--store",
        &store,
        "--user",
        &url(&sample, "user.csv"),
        "--visual-text",
        &text,
    ]);
    done(&[
        "export",
        "--store",
        &store,
        "--format",
        "csv",
        "--out",
        &url(&sample, "exported"),
    ]);
    assert!(fs::read_dir(sample.path("exported")).unwrap().count() > 0);
    done(&["report", "--store", &store, "--out", &url(&sample, "report.html")]);
    assert!(sample.path("report.html").is_file());
    done(&["store", "--store", &store, "--copy-to", &url(&sample, "copy")]);
    done(&["check", "--store", &sample.path("copy").display().to_string()]);
    done(&["demo", "--annotations-only", "--dir", &url(&sample, "demo")]);
    let (annotations, made) = (url(&sample, "demo/annotations"), url(&sample, "made"));
    let small = ["--dim", "8", "--parquet"];
    done(
        &[
            &["synth", "--annotations", &annotations, "--out", &made][..],
            &small,
        ]
        .concat(),
    );
    assert!(sample.path("made/synth.json").is_file());

    fs::create_dir(sample.path("inbox")).unwrap();
    let (inbox, status) = (url(&sample, "inbox"), url(&sample, "status.json"));
    let words = ["watch", "--store", &store, "--inbox", &inbox, "--status", &status];
    let watch = Watch::start(within(&sample.path(""), &words), sample.path("status.json")).ready();
    fs::write(sample.path("inbox/.unfinished"), user(1)).unwrap();
    fs::rename(sample.path("inbox/.unfinished"), sample.path("inbox/a.user.csv")).unwrap();
    watch.line("version 3:");
    assert!(watch.status().is_object());
    watch.stop();

    let entries = fs::read_dir(sample.path("")).unwrap();
    let names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().all(|name| !name.contains(':')), "{names:?}");
}

#[test]
fn a_url_where_a_command_writes_a_local_file_is_refused_and_makes_no_folder() {
    let sample = Sample::new(4);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let cases: [&[&str]; 6] = [
        &["export", "--store", &store, "--format", "csv", "--out"],
        &["report", "--store", &store, "--out"],
        &["watch", "--store", &store, "--inbox"],
        &["synth", "--out"],
        &["demo", "--annotations-only", "--dir"],
        &["serve", "--store", &store, "--media"],
    ];
    for words in cases {
        for (url, told) in [
            ("s3://bucket/a", "`s3://bucket/a` is a URL, but --"),
            (
                "file://host/a",
                "URL `file://host/a`: no path of this machine, expected file:///FOLDER",
            ),
            (
                "s3://me:hunter2@bucket/a",
                "a URL must not hold a user, a password",
            ),
        ] {
            let words = [words, &[url]].concat();
            let output = within(&sample.path(""), &words).output().unwrap();
            assert_status(&output, 2);
            let said = stderr(&output);
            assert!(
                said.contains(told) && !said.contains("hunter2") && said.ends_with('\n'),
                "{words:?}: {said}"
            );
        }
    }
    // Messages about arguments repeat them, but no password.
    for words in [
        &["relabel", "--rebase", "/a=s3://me:hunter2@bucket/a"][..],
        &["relabel", "--prompt", "visual/Bark=s3://me:hunter2@bucket/a"],
        &["relabel", "--hosts", "s3://me:hunter2@bucket/a", "--process", "0"],
        &["log", "s3://me:hunter2@bucket/a"],
        &["show", "--version", "s3://me:hunter2@bucket/a"],
    ] {
        let output = within(&sample.path(""), &[words, &["--store", &store]].concat())
            .output()
            .unwrap();
        assert_status(&output, 2);
        let said = stderr(&output);
        assert!(
            said.contains("bucket/a") && !said.contains("hunter2"),
            "{words:?}: {said}"
        );
    }
    let entries = fs::read_dir(sample.path("")).unwrap();
    let made = entries.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(':')
    });
    assert_eq!(made.count(), 0);
}

#[test]
fn a_password_in_an_endpoint_is_refused_and_one_of_a_proxy_is_in_no_log_line() {
    let folder = scratch();
    let said = |variable: &str, format: &str| {
        let output = vaplan()
            .args(["log", "--store", "s3://bucket/store", "--log-format", format])
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .env(variable, format!("http://me:{SECRET}@127.0.0.1:9"))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("VAPLAN_OBJECT_ATTEMPTS", "1")
            .env("VAPLAN_LOG", "trace")
            .env("VAPLAN_SCRATCH", folder.path().join("scratch"))
            .output()
            .unwrap();
        assert_status(&output, 2);
        let said = [stdout(&output), stderr(&output)].concat();
        assert!(!said.contains(SECRET), "{variable}: {said}");
        said
    };
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"] {
        let told = format!(
            "environment variable {variable} holds a user or a password, expected a URL without them"
        );
        let said = said(variable, "text");
        assert!(said.contains(&told), "{said}");
    }
    for format in ["text", "json"] {
        let said = said("http_proxy", format);
        assert!(
            said.contains("127.0.0.1:9"),
            "the log names the connection: {said}"
        );
        if format == "json" {
            let lines = said.lines().filter(|line| line.starts_with('{'));
            for line in lines {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
        }
    }
}

#[test]
fn a_file_url_is_a_local_folder_and_a_dead_endpoint_is_reported_with_attempts() {
    let folder = scratch();
    let place = crate::small_store::small_store(folder.path(), "store");
    let url = format!("file://{}", place.display());
    let log = |store: &str| run(["log", "--store", store]);
    assert_eq!(stdout(&log(&url)), stdout(&log(&place.display().to_string())));
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let output = vaplan()
        .args(["log", "--store", "s3://bucket/store"])
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{free}"))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1")
        .env("VAPLAN_OBJECT_ATTEMPTS", "2")
        .env("VAPLAN_SCRATCH", folder.path().join("scratch"))
        .output()
        .unwrap();
    assert_status(&output, 2);
    let said = stderr(&output);
    for part in [
        "s3://bucket/store/",
        "failed after 2 attempts",
        "check the network",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains(SECRET) && !Path::new("s3:").exists());
}
