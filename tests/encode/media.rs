//! Lengths, orders, threads: what media become, however they come.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use vaplan_schemas::Modality;
use vaplan_schemas::store::WriteLock;

use super::{Studio, files, killed_after};
use crate::support::{assert_status, run, stderr, stdout};

#[test]
fn sound_has_as_many_segments_as_pictures_be_it_shorter_or_longer() {
    let Some(studio) = Studio::new("sound_has_as_many_segments_as_pictures") else {
        return;
    };
    studio.frames("short", 40);
    studio.sound("short", 16_000, 16_000 * 3 + 4_000);
    studio.frames("long", 24);
    studio.sound("long", 48_000, 48_000 * 7);
    let encoded = studio.encode("out", &[]);
    assert_status(&encoded, 0);
    for modality in Modality::ALL {
        let features = studio.features("out", modality);
        let lengths: Vec<(&str, u32)> = features
            .iter()
            .map(|(video, segments, _)| (&**video, *segments))
            .collect();
        assert_eq!(lengths, [("long", 3), ("short", 5)], "{modality}");
    }
    let rejects = studio.rejects("out");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!(
        rejects[0]["reason"],
        "audio: sound ends before segment 4: the last 1 are silence"
    );
    // Alone, sound tells its own length: 3.25 s are 3 segments.
    let alone = run(studio
        .arguments("alone", &["clap"])
        .iter()
        .chain(&["--frame-rate".to_owned(), "8".to_owned()]));
    assert_status(&alone, 0);
    fs::remove_dir_all(studio.path("media/short")).unwrap();
    let alone = run(studio.arguments("alone", &["clap"]));
    assert_status(&alone, 0);
    let features = studio.features("alone", Modality::Audio);
    assert_eq!((&*features[1].0, features[1].1), ("short", 3));
}

#[test]
fn segments_of_any_length_and_number_can_be_asked_for() {
    let Some(studio) = Studio::new("segments_of_any_length_and_number_can_be_asked_for") else {
        return;
    };
    studio.frames("clip", 40);
    studio.sound("clip", 48_000, 48_000 * 5);
    let lengths = |out: &str, more: &[&str]| {
        assert_status(&studio.encode(out, more), 0);
        Modality::ALL.map(|modality| studio.features(out, modality)[0].1)
    };
    assert_eq!(lengths("halves", &["--segment-seconds", "0.5"]), [10, 10]);
    assert_eq!(lengths("longer", &["--segment-seconds", "2.5"]), [2, 2]);
    assert_eq!(lengths("ten", &["--segments", "10"]), [10, 10]);
    assert_eq!(
        lengths("valor", &["--segments", "7", "--frame", "linspace"]),
        [7, 7]
    );
    let refused = studio.encode("out", &["--segment-seconds", "0"]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--segment-seconds is 0, expected 0.001"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn features_are_the_same_for_any_number_of_threads() {
    let Some(studio) = Studio::new("features_are_the_same_for_any_number_of_threads") else {
        return;
    };
    for video in 0..20 {
        studio.frames(&format!("video{video:02}"), 20 + video);
    }
    studio.sound("video03", 44_100, 44_100 * 3);
    let run = |out: &str, more: &[&str]| {
        let arguments = studio.arguments(out, &["clip"]);
        let done = run(arguments
            .iter()
            .map(String::as_str)
            .chain(["--batch", "8"])
            .chain(more.iter().copied()));
        assert_status(&done, 0);
        assert!(stdout(&done).contains("encoded 76 segments"), "{}", stdout(&done));
        files(&studio.path(out).join("visual"))
    };
    let one = run("one", &["--threads", "1"]);
    assert_eq!(one.len(), 1);
    assert_eq!(
        run(
            "two",
            &[
                "--threads",
                "1",
                "--workers",
                "3",
                "--readers",
                "3",
                "--sessions",
                "2"
            ]
        ),
        one
    );
}

#[test]
fn a_killed_run_goes_on_and_gives_the_same_features() {
    let Some(studio) = Studio::new("a_killed_run_goes_on_and_gives_the_same_features") else {
        return;
    };
    for video in 0..48 {
        studio.frames(&format!("video{video:02}"), 80);
    }
    let arguments = |out: &str| {
        let mut arguments = studio.arguments(out, &["clip"]);
        arguments.extend(["--batch", "12", "--threads", "1"].map(str::to_owned));
        arguments
    };
    assert_status(&run(arguments("whole")), 0);
    let cache = studio.path("killed/cache");
    let before = killed_after(&arguments("killed"), &cache, 3);
    // Of 160 segments a group, 13 batches of 12 and one of 4.
    let kept = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "batch"));
    let cached: u64 = kept
        .map(|path| {
            if fs::metadata(path).unwrap().len() > 2_000 {
                12
            } else {
                4
            }
        })
        .sum();
    assert!(
        (12..480).contains(&cached),
        "killed in the middle: {cached} of 480 segments were kept"
    );
    let done = run(arguments("killed"));
    assert_status(&done, 0);
    let again = 480 - cached;
    assert!(
        before + again <= 480 + 12,
        "{before} segments before the kill and {again} after: no more than a batch twice"
    );
    let wanted = format!("encoded {again} segments and 0 prompts; {cached} segments were in the cache");
    assert!(
        stdout(&done).contains(&wanted),
        "{}, expected {wanted}",
        stdout(&done)
    );
    assert_eq!(
        files(&studio.path("killed/visual")),
        files(&studio.path("whole/visual"))
    );
}

#[test]
fn a_second_run_into_a_folder_waits_for_the_first() {
    let Some(studio) = Studio::new("a_second_run_into_a_folder_waits_for_the_first") else {
        return;
    };
    studio.frames("video", 16);
    fs::create_dir(studio.path("out")).unwrap();
    let mut waited = String::new();
    let held = WriteLock::take(&studio.path("out/.lock"), &mut |holder| {
        waited = holder.to_owned()
    })
    .unwrap();
    assert_eq!(waited, "", "nobody has it");
    let mut child = crate::support::vaplan()
        .args(studio.arguments("out", &["clip"]))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    lines.read_line(&mut said).unwrap();
    let wanted = format!(
        "waiting: the folder is being written by process {}",
        std::process::id()
    );
    assert!(said.contains(&wanted), "{said}");
    assert_eq!(files(&studio.path("out")), [], "it has not begun");
    assert!(!studio.path("out/cache").exists());
    drop(held);
    assert!(child.wait().unwrap().success());
    assert_eq!(files(&studio.path("out/visual")).len(), 1);
}
