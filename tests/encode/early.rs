//! `vaplan label --media --commit-every`: labels of finished videos before all media are encoded.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Videos};

use super::Studio;
use super::straight::{answers, arguments, studio};
use crate::support::{assert_status, run, stderr, stdout, vaplan};

/// Passes of one video, so that a store of few videos has many buckets and feature files.
fn command(arguments: &[String]) -> Command {
    let mut command = vaplan();
    command.args(arguments).env("VAPLAN_PASS_VIDEOS", "1");
    command
}

fn label(studio: &Studio, store: &str, more: &[&str]) -> Output {
    command(&arguments(studio, store, more)).output().unwrap()
}

fn versions(studio: &Studio, store: &str) -> u64 {
    let store = Store::open(&studio.path(store)).unwrap();
    store.latest().unwrap().unwrap().version().version
}

/// Asserts that every version is sound, and has only rows that the last version has.
#[track_caller]
fn assert_early_rows(studio: &Studio, store: &str) {
    let store = Store::open(&studio.path(store)).unwrap();
    let last = store.latest().unwrap().unwrap();
    let (videos, labels) = (last.read::<Videos>().unwrap(), last.read::<Labels>().unwrap());
    let mut before = 0;
    for version in 1..=last.version().version {
        let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
        assert_eq!(snapshot.check().unwrap(), [], "version {version}");
        let own = snapshot.read::<Videos>().unwrap();
        assert!(own.iter().all(|row| videos.contains(row)), "version {version}");
        let rows = snapshot.read::<Labels>().unwrap();
        assert!(rows.iter().all(|row| labels.contains(row)), "version {version}");
        assert!(own.len() >= before, "version {version} lost videos");
        before = own.len();
    }
}

#[test]
fn finished_videos_are_committed_early_and_the_last_version_is_that_of_one_commit() {
    let Some(studio) =
        studio("finished_videos_are_committed_early_and_the_last_version_is_that_of_one_commit")
    else {
        return;
    };
    assert_status(&label(&studio, "whole", &["--batch", "3"]), 0);
    assert_eq!(versions(&studio, "whole"), 1);
    let early = label(&studio, "early", &["--batch", "3", "--commit-every", "1"]);
    assert_status(&early, 0);
    let told = stderr(&early);
    assert!(told.contains("version 1: the labels of "), "{told}");
    assert!(told.contains(" videos; encoding goes on"), "{told}");
    assert!(versions(&studio, "early") > 2, "{told}");
    assert!(
        stdout(&early).contains(": 6 videos, 12 records labelled"),
        "{}",
        stdout(&early)
    );
    assert_eq!(answers(&studio, "early"), answers(&studio, "whole"));
    assert_early_rows(&studio, "early");

    // The same run again does nothing, and other settings are one commit: early labels would contradict the settings.
    let last = versions(&studio, "early");
    let again = label(&studio, "early", &["--batch", "3", "--commit-every", "1"]);
    assert_eq!(
        stdout(&again),
        format!("nothing to do: version {last} holds these labels\n")
    );
    let changed = label(
        &studio,
        "early",
        &["--batch", "3", "--commit-every", "1", "--visual-threshold", "1.1"],
    );
    assert_status(&changed, 0);
    assert_eq!(versions(&studio, "early"), last + 1);
}

#[test]
fn a_modality_that_comes_from_features_is_in_the_early_versions_too() {
    let Some(studio) = studio("a_modality_that_comes_from_features_is_in_the_early_versions_too") else {
        return;
    };
    let path = |name: &str| studio.path(name).display().to_string();
    let encoded = studio.encode("out", &["--annotations", &path("annotations")]);
    assert_status(&encoded, 0);
    let label = |store: &str, more: &[&str]| {
        let mut words = vec!["label".to_owned(), "--batch".to_owned(), "3".to_owned()];
        for (flag, name) in [
            ("--store", store),
            ("--annotations", "annotations"),
            ("--media", "media"),
            ("--clip", "clip"),
            ("--audio", "out/audio"),
            ("--audio-text", "out/audio_text.parquet"),
        ] {
            words.extend([flag.to_owned(), path(name)]);
        }
        words.extend(more.iter().map(|&word| word.to_owned()));
        assert_status(&command(&words).output().unwrap(), 0);
    };
    label("whole", &[]);
    label("early", &["--commit-every", "1"]);
    assert!(versions(&studio, "early") > 1);
    assert_eq!(answers(&studio, "early"), answers(&studio, "whole"));
    assert_early_rows(&studio, "early");
}

#[test]
fn a_run_killed_after_an_early_version_goes_on_and_ends_with_the_same_tables() {
    let Some(studio) = studio("a_run_killed_after_an_early_version_goes_on_and_ends_with_the_same_tables")
    else {
        return;
    };
    let slow = ["--batch", "3", "--threads", "1", "--commit-every", "1"];
    assert_status(&label(&studio, "whole", &slow[..4]), 0);
    let mut child = command(&arguments(&studio, "killed", &slow))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let early = lines
        .map_while(Result::ok)
        .find(|line| line.contains("version 1: the labels of "));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "killed before it was done");
    assert!(early.is_some());
    let left = versions(&studio, "killed");
    let done = label(&studio, "killed", &slow);
    assert_status(&done, 0);
    assert!(versions(&studio, "killed") > left);
    assert_eq!(answers(&studio, "killed"), answers(&studio, "whole"));
    assert_early_rows(&studio, "killed");
}

#[test]
fn a_wrong_interval_is_refused_and_features_alone_need_none() {
    let Some(studio) = studio("a_wrong_interval_is_refused_and_features_alone_need_none") else {
        return;
    };
    let wrong = run(arguments(&studio, "store", &["--commit-every", "often"]));
    assert_status(&wrong, 2);
    assert!(
        stderr(&wrong).contains("expected a number of videos, such as `5000`, or a time"),
        "{}",
        stderr(&wrong)
    );
    let path = |name: &str| studio.path(name).display().to_string();
    let mut features = vec![
        "label".to_owned(),
        "--store".to_owned(),
        path("store"),
        "--annotations".to_owned(),
    ];
    features.extend([path("annotations"), "--commit-every".to_owned(), "10m".to_owned()]);
    for modality in ["visual", "audio"] {
        features.extend([
            format!("--{modality}"),
            path("f"),
            format!("--{modality}-text"),
            path("t"),
        ]);
    }
    let refused = run(features);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--commit-every without media"),
        "{}",
        stderr(&refused)
    );
}
