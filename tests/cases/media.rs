//! Cases of `encode`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vaplan_schemas::Modality;

use super::input;
use crate::encode::Studio;
use crate::encode::video::ffmpeg;
use crate::open_outside::python;
use crate::support::{assert_status, golden_path, run, stderr, stdout};

/// `vaplan encode --media media --clip|--clap MODEL --out OUT --npy`, with more options.
fn encode(studio: &Studio, model: &str, out: &str, more: &[&str]) -> Output {
    let mut words = studio.arguments(out, &[model]);
    words.push("--npy".to_owned());
    words.extend(more.iter().map(|word| (*word).to_owned()));
    run(words)
}

/// Runs `make.py` of a case, which writes the media.
fn make(python: &Path, case: &str, studio: &Studio) {
    let mut script = Command::new(python);
    script
        .arg("-B")
        .arg(input(case).join("make.py"))
        .arg(studio.path("media"));
    assert_status(&script.output().unwrap(), 0);
}

/// Copies golden media into the media folder.
fn media(studio: &Studio, names: &[&str]) {
    for name in names {
        let to = studio.path("media").join(name);
        fs::copy(golden_path("media").join(name), to).unwrap();
    }
}

/// Names and segments of the videos of a modality.
fn lengths(studio: &Studio, out: &str, modality: Modality) -> Vec<(String, u32)> {
    let features = studio.features(out, modality).into_iter();
    features.map(|(name, segments, _)| (name, segments)).collect()
}

#[test]
fn f01_files_of_equal_content_are_all_encoded() {
    let test = "f01_files_of_equal_content_are_all_encoded";
    let Some((studio, python)) = Studio::new(test).zip(python(test)) else {
        return;
    };
    make(&python, "f01", &studio);
    let three: &[&str] = &["--readers", "3"];
    for (out, readers) in [("one", &[][..]), ("two", three)] {
        let encoded = encode(&studio, "clap", out, readers);
        assert_status(&encoded, 0);
        assert!(stdout(&encoded).ends_with("left out 0\n"), "{}", stdout(&encoded));
        let features = studio.features(out, Modality::Audio);
        assert_eq!(features.len(), 48);
        for pair in features.chunks(2) {
            assert_eq!(pair[0].1, pair[1].1, "{} and {}", pair[0].0, pair[1].0);
            assert_eq!(pair[0].2, pair[1].2, "{} and {}", pair[0].0, pair[1].0);
        }
    }
}

#[test]
fn f02_a_video_of_ten_bits_has_the_pictures_of_one_of_eight() {
    let test = "f02_a_video_of_ten_bits_has_the_pictures_of_one_of_eight";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    media(&studio, &["eightbit001.mp4", "tenbit00001.mp4"]);
    assert_status(
        &encode(&studio, "clip", "out", &["--dtype", "f32", "--ffmpeg", &ffmpeg]),
        0,
    );
    let features = studio.features("out", Modality::Visual);
    assert_eq!((features.len(), features[0].1, features[1].1), (2, 3, 3));
    let width = features[0].2.len() / 3;
    for (eight, ten) in features[0].2.chunks(width).zip(features[1].2.chunks(width)) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(eight, ten) / (dot(eight, eight) * dot(ten, ten)).sqrt();
        assert!(cosine > 0.99, "{cosine}");
    }
}

#[test]
fn f04_frames_that_are_named_by_time_are_in_the_order_of_time() {
    let test = "f04_frames_that_are_named_by_time_are_in_the_order_of_time";
    let Some((studio, python)) = Studio::new(test).zip(python(test)) else {
        return;
    };
    make(&python, "f04", &studio);
    assert_status(&encode(&studio, "clip", "out", &["--dtype", "f32"]), 0);
    let features = studio.features("out", Modality::Visual);
    let [first, second, third] = &features[..] else {
        panic!("{} videos", features.len());
    };
    assert_eq!(first.1, 10);
    assert!(first.2 == second.2 && second.2 == third.2);
}

#[test]
fn f05_the_sound_of_an_mpeg_program_stream_is_read() {
    let test = "f05_the_sound_of_an_mpeg_program_stream_is_read";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    media(&studio, &["program0001.mpg"]);
    assert_status(&encode(&studio, "clap", "out", &["--ffmpeg", &ffmpeg]), 0);
    assert_eq!(studio.rejects("out").len(), 0);
    assert_eq!(
        lengths(&studio, "out", Modality::Audio),
        [("program0001".to_owned(), 3)]
    );
}

#[test]
fn f07_ac3_and_aac_of_6_channels_are_read_and_no_decoder_logs() {
    let test = "f07_ac3_and_aac_of_6_channels_are_read_and_no_decoder_logs";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    media(&studio, &["aac51sound1.mp4", "ac3sound001.mp4"]);
    let encoded = encode(&studio, "clap", "out", &["--ffmpeg", &ffmpeg]);
    assert_status(&encoded, 0);
    let wanted = ["aac51sound1", "ac3sound001"].map(|name| (name.to_owned(), 1));
    assert_eq!(lengths(&studio, "out", Modality::Audio), wanted);
    let said = stderr(&encoded);
    assert!(!said.contains("atom") && !said.contains('\u{1b}'), "{said}");
}
