//! A run that goes on where it stopped.

use std::collections::BTreeMap;
use std::fs;

use super::{ParseStudio, VIDEOS};
use crate::encode::{files, killed_after};
use crate::support::{assert_status, copy_over_all, run, stdout};

/// The files of an output folder without the time at which they were made.
fn outputs(parse: &ParseStudio, out: &str) -> BTreeMap<String, Vec<u8>> {
    files(&parse.studio.path(out)).into_iter().collect()
}

#[test]
fn what_is_done_is_not_done_again_and_a_changed_file_is() {
    let Some(parse) = ParseStudio::new("what_is_done_is_not_done_again_and_a_changed_file_is") else {
        return;
    };
    let (media, out) = (parse.path("media"), parse.path("out"));
    let go = |more: &[&str]| {
        let done = parse.parse(&[&[&*media, "--out", &out][..], more].concat());
        assert_status(&done, 0);
        stdout(&done).split(',').take(2).collect::<Vec<_>>().join(",")
    };
    assert_eq!(go(&[]), "6 videos parsed, 0 done before");
    assert_eq!(go(&[]), "0 videos parsed, 6 done before");
    copy_over_all(&parse.studio.path("media"));
    assert_eq!(
        go(&[]),
        "0 videos parsed, 6 done before",
        "media with the same content"
    );
    parse.studio.sound(VIDEOS[0], 16_000, 60_000);
    assert_eq!(go(&[]), "1 videos parsed, 5 done before");
    fs::remove_file(parse.path("out/parse000002.json")).unwrap();
    assert_eq!(go(&[]), "1 videos parsed, 5 done before");
    assert_eq!(
        go(&["--protocol", "segment"]),
        "6 videos parsed, 0 done before",
        "another protocol"
    );
    assert_eq!(
        go(&["--protocol", "segment", "--format", "json,webvtt"]),
        "6 videos parsed, 0 done before"
    );
    // The ledger has the lines of the last run only, and the last of them is half written, as after a kill.
    let ledger = parse.path("out/.vaplan-parse/done.jsonl");
    let text = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len() - VIDEOS.len()..].join("\n");
    fs::write(&ledger, &last[..last.len() - 20]).unwrap();
    assert_eq!(
        go(&["--protocol", "segment", "--format", "json,webvtt"]),
        "1 videos parsed, 5 done before"
    );
}

#[test]
fn a_killed_run_ends_in_the_same_files_and_encodes_no_batch_twice() {
    let Some(parse) = ParseStudio::new("a_killed_run_ends_in_the_same_files_and_encodes_no_batch_twice")
    else {
        return;
    };
    let words = |out: &str| {
        let (media, model, out) = (parse.path("media"), parse.path("model"), parse.path(out));
        let words = [
            "parse",
            &media,
            "--model",
            &model,
            "--out",
            &out,
            "--threads",
            "1",
            "--batch",
            "4",
        ];
        words.map(str::to_owned).to_vec()
    };
    assert_status(&run(words("whole")), 0);
    let cache = parse.studio.path("killed/.vaplan-parse/cache");
    let before = killed_after(&words("killed"), &cache, 3);
    assert!(before >= 8, "{before} segments were encoded");
    assert!(outputs(&parse, "killed").len() < VIDEOS.len());
    assert_status(&run(words("killed")), 0);
    assert_eq!(outputs(&parse, "killed"), outputs(&parse, "whole"));
    assert!(
        !cache.exists(),
        "the embeddings of a group that is done are removed"
    );
}
