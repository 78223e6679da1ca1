//! `vaplan show` on a store.

use std::process::Output;

use vaplan_schemas::bucket_of;
use vaplan_schemas::store::{CommitInfo, Store};
use vaplan_schemas::tables::{Classes, Labels, Scores, Truth, Videos};

use super::looks::{VideoRows, dog, video};
use crate::sample::Sample;
use crate::support::{assert_golden, assert_status, run, scratch, stderr, stdout, vaplan};

/// A store of these videos; the truth of all of them.
fn store(videos: &[VideoRows]) -> tempfile::TempDir {
    let folder = scratch();
    let store = Store::create(&folder.path().join("store")).unwrap();
    let lock = store.lock(&mut |_| {}).unwrap();
    let info = CommitInfo {
        videos: videos.len(),
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    commit.replace_all::<Classes>(&videos[0].classes).unwrap();
    let truth: Vec<_> = videos.iter().flat_map(|video| video.truth.clone()).collect();
    commit.replace_all::<Truth>(&truth).unwrap();
    for bucket in 0..commit.buckets() {
        let own = videos
            .iter()
            .filter(|video| bucket_of(&video.row.video, commit.buckets()) == bucket);
        let mut own: Vec<&VideoRows> = own.collect();
        own.sort_by_key(|video| video.row.video.clone());
        let rows: Vec<_> = own.iter().map(|video| video.row.clone()).collect();
        let labels: Vec<_> = own.iter().flat_map(|video| video.labels.clone()).collect();
        let scores: Vec<_> = own.iter().flat_map(|video| video.scores.clone()).collect();
        commit.replace_bucket::<Videos>(bucket, &rows).unwrap();
        commit.replace_bucket::<Labels>(bucket, &labels).unwrap();
        commit.replace_bucket::<Scores>(bucket, &scores).unwrap();
    }
    commit.finish().unwrap();
    folder
}

/// The dog's video, and two quiet ones of one id.
fn fixture() -> tempfile::TempDir {
    store(&[
        dog(),
        video("AAAAAAAAAAA_0_10", 10, &["Dog"]),
        video("AAAAAAAAAAA_20_30", 10, &["Dog"]),
    ])
}

fn show(folder: &tempfile::TempDir, more: &[&str]) -> Output {
    let store = folder.path().join("store").display().to_string();
    run(["show", "--store", &store].iter().chain(more))
}

#[test]
fn a_video_of_a_store_is_shown_in_plain_ascii_to_a_pipe() {
    let fixture = fixture();
    let full = show(&fixture, &["--", "-rf_AAAAAAA_20_30"]);
    assert_status(&full, 0);
    assert!(full.stdout.is_ascii());
    assert_golden("show/ten_segments.txt", &full.stdout);
    let short = show(&fixture, &["--", "-rf_AAAAAAA"]);
    assert_eq!(short.stdout, full.stdout, "the first 11 characters do");
}

/// A quiet video of an annotated split has truth: nothing happens.
#[test]
fn a_quiet_video_is_annotated_where_its_split_is() {
    let output = show(&fixture(), &["AAAAAAAAAAA_0_10"]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains("truth  ...."), "{}", stdout(&output));
}

#[test]
fn an_unknown_or_ambiguous_video_is_an_error_with_names() {
    let fixture = fixture();
    let output = show(&fixture, &["AAAAAAAAAAA_0_11"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: no video `AAAAAAAAAAA_0_11` (nearest: `AAAAAAAAAAA_0_10`, `AAAAAAAAAAA_20_30`, \
         `-rf_AAAAAAA_20_30`)\n"
    );
    let output = show(&fixture, &["AAAAAAAAAAA"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: `AAAAAAAAAAA` means `AAAAAAAAAAA_0_10`, `AAAAAAAAAAA_20_30`, expected a full name\n"
    );
}

#[test]
fn colour_is_forced_and_forbidden_by_the_environment() {
    let fixture = fixture();
    let store = fixture.path().join("store");
    let coloured = |name: &str| {
        let mut command = vaplan();
        command
            .arg("show")
            .arg("AAAAAAAAAAA_0_10")
            .arg("--store")
            .arg(&store)
            .env(name, "1");
        command.output().unwrap().stdout.contains(&0x1b)
    };
    assert!(coloured("CLICOLOR_FORCE"));
    assert!(!coloured("NO_COLOR"));
}

#[test]
fn each_version_is_shown_as_it_was() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let show = |more: &[&str]| run(["show", "vid00000007", "--store", &store].iter().chain(more));
    let first = show(&[]);
    assert_status(&first, 0);
    assert!(stdout(&first).starts_with("vid00000007_0_10  test, 10 segments of 1 s, weak label: "));
    assert_status(
        &sample.label(
            "store",
            &["--visual-threshold", "1.2", "--audio-threshold", "1.2"],
        ),
        0,
    );
    let second = show(&[]);
    assert_ne!(first.stdout, second.stdout);
    assert_eq!(show(&["--version", "1"]).stdout, first.stdout);
    let annotations = sample.path("annotations").display().to_string();
    assert_eq!(show(&["--annotations", &annotations]).stdout, second.stdout);
}
