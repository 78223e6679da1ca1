//! `vaplan watch --clip --clap`: a video, a sound file or a folder of frames in the inbox is a delivery like any other.

use std::fs;

use crate::sample::Tables;
use crate::support::{assert_status, run, vaplan};
use crate::watch::harness::Watch;

use super::Studio;
use super::straight::{arguments, studio};

/// A name of a video that the store does not have at first.
const NEW: &str = "video000009_0_10";

fn watch(studio: &Studio, more: &[&str]) -> Watch {
    let status = studio.path("status.json");
    let mut command = vaplan();
    command
        .args(["watch", "--workers", "1", "--store"])
        .arg(studio.path("store"));
    command
        .arg("--inbox")
        .arg(studio.path("inbox"))
        .arg("--status")
        .arg(&status)
        .args(more);
    Watch::start(command, status).ready()
}

fn deliver(studio: &Studio, from: &str, name: &str) {
    fs::rename(studio.path(from), studio.path("inbox").join(name)).unwrap();
}

#[test]
fn delivered_media_are_labelled_as_those_of_a_folder_and_bad_ones_fail_with_their_reason() {
    let Some(studio) =
        studio("delivered_media_are_labelled_as_those_of_a_folder_and_bad_ones_fail_with_their_reason")
    else {
        return;
    };
    assert_status(&run(arguments(&studio, "store", &[])), 0);
    studio.frames(NEW, 40);
    studio.sound(NEW, 16_000, 80_000);
    let annotations = fs::read_to_string(studio.path("annotations/own_train.csv")).unwrap();
    fs::write(
        studio.path("annotations/own_train.csv"),
        format!("{annotations}{NEW}\tDog\n"),
    )
    .unwrap();
    assert_status(&run(arguments(&studio, "fresh", &[])), 0);

    fs::create_dir(studio.path("inbox")).unwrap();
    let none = watch(&studio, &[]);
    fs::write(studio.path("early.wav"), "RIFF").unwrap();
    deliver(&studio, "early.wav", "early.wav");
    let told = none.line("early.wav: ");
    assert!(
        told.contains("start `vaplan watch` with --clip or --clap"),
        "{told}"
    );
    drop(none);

    let (clip, clap) = (
        studio.path("clip").display().to_string(),
        studio.path("clap").display().to_string(),
    );
    let watching = watch(&studio, &["--clip", &clip, "--clap", &clap]);
    fs::write(
        studio.path("a.csv"),
        format!("filename,event_labels\n{NEW},Dog\n"),
    )
    .unwrap();
    deliver(&studio, "a.csv", "a.weak-add.csv");
    watching.line("a.weak-add.csv");
    deliver(&studio, &format!("media/{NEW}"), &format!("{NEW}.frames"));
    watching.line(&format!("{NEW}.frames"));
    deliver(&studio, &format!("media/{NEW}.wav"), &format!("{NEW}.wav"));
    watching.line(&format!("{NEW}.wav"));
    for (name, reason) in [
        (format!("{NEW}.flac"), "flac"),
        (format!("{NEW}b.frames"), "b.frames"),
    ] {
        match name.ends_with("frames") {
            true => fs::create_dir(studio.path("bad")).unwrap(),
            false => fs::write(studio.path("bad"), "no medium").unwrap(),
        }
        deliver(&studio, "bad", &name);
        let told = watching.line(&format!("{name}: "));
        assert!(told.contains(reason), "{told}");
        assert!(
            studio
                .path("inbox/failed")
                .join(format!("{name}.reason"))
                .exists()
        );
    }
    let status = watching.stop();
    assert_eq!(
        (&status["failed"], &status["state"]),
        (&2.into(), &"stopped".into()),
        "{status}"
    );

    // The batches of the encoder differ, so the last bits of scores do.
    let [found, wanted] = ["store", "fresh"].map(|store| Tables::read(&studio.path(store)));
    assert_eq!(found.rejects, wanted.rejects);
    let near =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert_eq!(found.scores.len(), wanted.scores.len());
    for (own, other) in found.scores.iter().zip(&wanted.scores) {
        assert_eq!(
            (&own.video, own.modality, &own.class),
            (&other.video, other.modality, &other.class)
        );
        assert!(near(&own.score, &other.score), "{own:?} and {other:?}");
    }
    assert!(found.scores.iter().any(|track| &*track.video == NEW));

    // `vacuum` keeps the features, and a later change reads them again.
    let store = studio.path("store").display().to_string();
    assert_status(&run(["vacuum", "--store", &store, "--keep", "1"]), 0);
    assert_status(&run(["relabel", "--store", &store, "--visual-scale", "2"]), 0);
    assert_eq!(Tables::read(&studio.path("store")).rejects, []);
    assert_status(&run(["check", "--store", &store]), 0);
}

#[test]
fn a_model_of_another_width_or_hash_than_the_features_of_the_store_is_refused() {
    let Some(studio) = studio("a_model_of_another_width_or_hash_than_the_features_of_the_store_is_refused")
    else {
        return;
    };
    assert_status(&run(arguments(&studio, "store", &[])), 0);
    let model = studio.path("clip/vision_model.onnx");
    let mut bytes = fs::read(&model).unwrap();
    // A field that ONNX does not know changes the hash and nothing else.
    bytes.extend([0xfa, 0x3f, 0x01, 0x00]);
    fs::write(&model, bytes).unwrap();
    let path = |name: &str| studio.path(name).display().to_string();
    let output = run([
        "watch",
        "--store",
        &path("store"),
        "--inbox",
        &path("inbox"),
        "--clip",
        &path("clip"),
    ]);
    assert_status(&output, 2);
    let told = crate::support::stderr(&output);
    assert!(
        told.contains("but the visual features of the store were made by"),
        "{told}"
    );
}
