//! `vaplan label --media`: from media to labels in one command, and no medium encoded twice.

use std::fs;
use std::process::Output;

use super::{Studio, killed_after};
use crate::sample::Tables;
use crate::support::{assert_status, run, stderr, stdout};

/// Six videos of frames and sound, of two splits.
pub(super) fn studio(test: &str) -> Option<Studio> {
    let studio = Studio::new(test)?;
    let mut rows = String::new();
    for (nth, weak) in ["Speech,Dog", "Dog", "Speech", "Cheering", "Dog,Cat", "Car"]
        .iter()
        .enumerate()
    {
        let name = format!("video{nth:06}_0_10");
        studio.frames(&name, 40);
        studio.sound(&name, 16_000, 80_000 + nth * 16);
        rows += &format!("{name}\t{weak}\n");
    }
    studio.annotate(&rows);
    Some(studio)
}

pub(super) fn arguments(studio: &Studio, store: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["label".to_owned()];
    for (flag, name) in [
        ("--store", store),
        ("--annotations", "annotations"),
        ("--media", "media"),
        ("--clip", "clip"),
        ("--clap", "clap"),
    ] {
        arguments.extend([flag.to_owned(), studio.path(name).display().to_string()]);
    }
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    arguments
}

fn label(studio: &Studio, store: &str, more: &[&str]) -> Output {
    run(arguments(studio, store, more))
}

/// What labels are, without the versions they came in and the places of what they are made of.
pub(super) fn answers(studio: &Studio, store: &str) -> Tables {
    let mut tables = Tables::read(&studio.path(store));
    for video in &mut tables.videos {
        (video.audio_source, video.visual_source) = (None, None);
    }
    Tables {
        version: 0,
        changes: Vec::new(),
        ..tables
    }
}

#[test]
fn labels_from_media_are_those_of_encode_and_label() {
    let Some(studio) = studio("labels_from_media_are_those_of_encode_and_label") else {
        return;
    };
    let straight = label(&studio, "straight", &[]);
    assert_status(&straight, 0);
    assert!(
        stderr(&straight).contains("encoded 60 segments and 50 prompts; 0 segments were in the cache"),
        "{}",
        stderr(&straight)
    );
    let path = |name: &str| studio.path(name).display().to_string();
    assert_status(&studio.encode("out", &["--annotations", &path("annotations")]), 0);
    let by_hand = |store: &str, more: &[&str]| {
        let (visual, visual_text) = (path("out/visual"), path("out/visual_text.parquet"));
        let (audio, audio_text) = (path("out/audio"), path("out/audio_text.parquet"));
        let annotations = path("annotations");
        let mut words = vec!["label", "--annotations", &annotations, "--store", store];
        words.extend(["--visual", &visual, "--visual-text", &visual_text]);
        words.extend(["--audio", &audio, "--audio-text", &audio_text]);
        words.extend(more);
        assert_status(&run(words), 0);
    };
    by_hand(&path("two"), &[]);
    assert_eq!(answers(&studio, "straight"), answers(&studio, "two"));
    // The rule `logit` takes the scales that the models have.
    let logit = [
        "--rule",
        "logit",
        "--visual-threshold",
        "0",
        "--audio-threshold",
        "0",
    ];
    assert_status(&label(&studio, "straight", &logit), 0);
    by_hand(
        &path("two"),
        &[&logit[..], &["--visual-scale", "100", "--audio-scale", "18.66"]].concat(),
    );
    assert_eq!(answers(&studio, "straight"), answers(&studio, "two"));
}

#[test]
fn a_second_run_a_prompt_and_a_change_encode_no_media_again() {
    let Some(studio) = studio("a_second_run_a_prompt_and_a_change_encode_no_media_again") else {
        return;
    };
    assert_status(&label(&studio, "store", &[]), 0);
    let again = label(&studio, "store", &[]);
    assert_status(&again, 0);
    assert_eq!(stdout(&again), "nothing to do: version 1 holds these labels\n");
    let none = |output: &Output, prompts: usize| {
        assert_status(output, 0);
        let wanted = format!("encoded 0 segments and {prompts} prompts; 60 segments were in the cache");
        assert!(stderr(output).contains(&wanted), "{}", stderr(output));
    };
    none(&again, 0);
    fs::write(
        studio.path("prompts.toml"),
        "[visual.classes]\nDog = \"A photo of a puppy.\"\n",
    )
    .unwrap();
    let prompts = studio.path("prompts.toml").display().to_string();
    let changed = label(&studio, "store", &["--prompts", &prompts]);
    none(&changed, 1);
    assert!(
        stdout(&changed).starts_with("version 2: "),
        "{}",
        stdout(&changed)
    );
    // What a change reads again are the features in the store, not the media.
    fs::rename(studio.path("media"), studio.path("gone")).unwrap();
    let store = studio.path("store").display().to_string();
    assert_status(&run(["relabel", "--store", &store, "--visual-scale", "3"]), 0);
    fs::rename(studio.path("gone"), studio.path("media")).unwrap();
    let scaled = label(&studio, "other", &["--prompts", &prompts, "--visual-scale", "3"]);
    assert_status(&scaled, 0);
    assert_eq!(answers(&studio, "store").labels, answers(&studio, "other").labels);
}

#[test]
fn what_cannot_be_encoded_is_a_reject_of_the_store() {
    let Some(studio) = studio("what_cannot_be_encoded_is_a_reject_of_the_store") else {
        return;
    };
    fs::write(studio.path("media/video000002_0_10/000020.ppm"), "no picture").unwrap();
    let labelled = label(&studio, "store", &[]);
    assert_status(&labelled, 1);
    let rejects = answers(&studio, "store").rejects;
    let own = rejects.iter().find(|row| row.reason.contains("000020.ppm"));
    assert_eq!(own.unwrap().video.as_deref(), Some("video000002_0_10"));
    // Mended, it is labelled, and only it is encoded.
    fs::copy(
        studio.path("media/video000003_0_10/000020.ppm"),
        studio.path("media/video000002_0_10/000020.ppm"),
    )
    .unwrap();
    let mended = label(&studio, "store", &[]);
    assert_status(&mended, 0);
    assert!(
        stderr(&mended).contains("encoded 5 segments"),
        "{}",
        stderr(&mended)
    );
    assert_eq!(answers(&studio, "store").rejects, []);
}

#[test]
fn a_run_killed_while_it_encodes_ends_with_the_same_tables() {
    let Some(studio) = studio("a_run_killed_while_it_encodes_ends_with_the_same_tables") else {
        return;
    };
    let one = ["--batch", "3", "--threads", "1"];
    assert_status(&label(&studio, "whole", &one), 0);
    let before = killed_after(
        &arguments(&studio, "killed", &one),
        &studio.path("killed/_vaplan/encoded/cache"),
        3,
    );
    let done = label(&studio, "killed", &one);
    assert_status(&done, 0);
    let after: u64 = stderr(&done)
        .split_once("encoded ")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map(|(number, _)| number.parse().unwrap())
        .unwrap();
    assert!(
        after > 0 && before + after <= 60 + 2 * 3,
        "{before} and {after} of 60"
    );
    assert_eq!(answers(&studio, "killed"), answers(&studio, "whole"));
}

#[test]
fn features_come_from_one_place_each() {
    let Some(studio) = studio("features_come_from_one_place_each") else {
        return;
    };
    let told = |words: &[String]| {
        let output = run(words);
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    let mut none = arguments(&studio, "store", &[]);
    none.truncate(none.len() - 2);
    let none = told(&none);
    assert!(
        none.contains(
            "no audio features are given, expected --audio and --audio-text, or --media and --clap"
        ),
        "{none}"
    );
    let twice = told(&arguments(
        &studio,
        "store",
        &["--visual", "v", "--visual-text", "t"],
    ));
    assert!(twice.contains("visual features are given twice"), "{twice}");
    let hosts = told(&arguments(&studio, "store", &["--hosts", "h", "--process", "0"]));
    assert!(hosts.contains("`vaplan encode` first"), "{hosts}");
    assert!(!studio.path("store").exists());
}
