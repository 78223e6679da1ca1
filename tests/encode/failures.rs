//! What is bad is left out by name, and takes nothing along.

use std::fs;

use vaplan_schemas::Modality;

use super::Studio;
use crate::support::{assert_status, run, stderr, stdout};

#[test]
fn bad_media_are_rejected_and_the_rest_is_encoded() {
    let Some(studio) = Studio::new("bad_media_are_rejected_and_the_rest_is_encoded") else {
        return;
    };
    for video in ["bad_frame", "bad_sound", "good", "no_channels", "no_sound"] {
        studio.frames(video, 16);
        studio.sound(video, 48_000, 96_000);
    }
    fs::write(studio.path("media/bad_frame/000012.ppm"), "no picture").unwrap();
    fs::write(
        studio.path("media/bad_sound.wav"),
        "no sound, but text that is long enough to be read",
    )
    .unwrap();
    let no_channels = studio.path("media/no_channels.wav");
    let mut wave = fs::read(&no_channels).unwrap();
    wave[22] = 0;
    fs::write(no_channels, wave).unwrap();
    fs::remove_file(studio.path("media/no_sound.wav")).unwrap();
    studio.sound("no_pictures", 48_000, 96_000);
    fs::write(studio.path("media/no_ffmpeg.mp4"), "no video").unwrap();
    fs::write(
        studio.path("media/no_index.m4a"),
        b"\0\0\0\x10ftypisom\0\0\0\0\0\0\x40\0mdat..",
    )
    .unwrap();
    let encoded = studio.encode("out", &["--ffmpeg", "/nowhere/ffmpeg"]);
    assert_status(&encoded, 1);
    assert!(stdout(&encoded).ends_with("left out 9\n"), "{}", stdout(&encoded));
    let videos = |modality| -> Vec<String> {
        studio
            .features("out", modality)
            .into_iter()
            .map(|(video, _, _)| video)
            .collect()
    };
    assert_eq!(
        videos(Modality::Visual),
        ["bad_sound", "good", "no_channels", "no_sound"]
    );
    assert_eq!(videos(Modality::Audio), ["bad_frame", "good", "no_pictures"]);
    let rejects = studio.rejects("out");
    let reason = |video: &str, modality: &str| {
        let mut own = rejects
            .iter()
            .filter(|row| row["video"] == video)
            .map(|row| row["reason"].as_str().unwrap());
        own.find(|reason| reason.starts_with(modality))
            .unwrap_or_else(|| panic!("{video}: {rejects:?}"))
            .to_owned()
    };
    assert!(reason("bad_frame", "visual").contains("000012.ppm` begins with `no pictu`"));
    assert!(reason("bad_sound", "audio").contains("bad_sound.wav` is no sound that can be read"));
    assert!(reason("no_index", "audio").contains("is an MP4 file without an index (`moov`)"));
    assert!(
        reason("no_channels", "audio").contains("is a WAV file of 0 channels and 48000 samples a second")
    );
    assert!(reason("no_sound", "audio").ends_with("no_sound` has no sound track"));
    assert_eq!(
        reason("no_pictures", "visual"),
        format!(
            "visual: video `no_pictures` has no video file and no folder of frames `no_pictures`, only the sound file \
             `{}`: add the pictures, or encode only the sound",
            studio.path("media/no_pictures.wav").display()
        )
    );
    assert!(reason("no_ffmpeg", "visual").contains("install ffmpeg, or give folders of frames"));
    assert!(reason("no_ffmpeg", "audio").contains("no_ffmpeg.mp4"));
}

#[test]
fn models_and_folders_that_cannot_be_used_are_told_at_once() {
    let Some(studio) = Studio::new("models_and_folders_that_cannot_be_used_are_told_at_once") else {
        return;
    };
    let told = |arguments: &[&str]| {
        let output = run(arguments);
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    let path = |name: &str| studio.path(name).display().to_string();
    let (media, out, clip, clap) = (path("media"), path("out"), path("clip"), path("clap"));
    let none = told(&["encode", "--media", &media, "--out", &out]);
    assert!(none.contains("--clip"), "{none}");
    let empty = told(&["encode", "--media", &media, "--out", &out, "--clip", &clip]);
    assert!(empty.contains("holds no media, expected <video>.mp4"), "{empty}");
    studio.frames("video", 8);
    let swapped = told(&["encode", "--media", &media, "--out", &out, "--clip", &clap]);
    assert!(swapped.contains("is a clap model, expected clip"), "{swapped}");
    fs::remove_file(studio.path("clap/tokenizer.json")).unwrap();
    let tokenizer = told(&["encode", "--media", &media, "--out", &out, "--clap", &clap]);
    assert!(
        tokenizer.contains("has no tokenizer, expected tokenizer.json"),
        "{tokenizer}"
    );
    // The file says another size of pictures than the model takes.
    let settings = fs::read(studio.path("clip/vaplan.toml")).unwrap();
    fs::write(studio.path("clip/vaplan.toml"), "[image]\nsize = 224\n").unwrap();
    let size = told(&["encode", "--media", &media, "--out", &out, "--clip", &clip]);
    assert!(
        size.contains("a picture of 224 by 224 pixels")
            && size.contains("set `size` below `[image]` in vaplan.toml"),
        "{size}"
    );
    fs::write(studio.path("clip/vaplan.toml"), settings).unwrap();
    let models = run(["models", &clip, &clap]);
    assert_status(&models, 1);
    assert!(
        stdout(&models).contains("kind         clip\n  width        64\n"),
        "{}",
        stdout(&models)
    );
    assert!(
        stderr(&models).contains("clap`: has no tokenizer"),
        "{}",
        stderr(&models)
    );
}

#[test]
fn without_cuda_auto_warns_and_goes_on_and_cuda_is_refused() {
    let Some(studio) = Studio::new("without_cuda_auto_warns_and_goes_on_and_cuda_is_refused") else {
        return;
    };
    studio.frames("video", 8);
    let encode = |device: &str| {
        let arguments = studio.arguments(device, &["clip"]);
        run(arguments.iter().map(String::as_str).chain(["--device", device]))
    };
    let auto = encode("auto");
    assert_status(&auto, 0);
    let cuda = encode("cuda");
    // Where the library has CUDA and the machine a GPU, neither has anything to say.
    if cuda.status.success() {
        assert!(!stderr(&auto).contains("running on the processor"));
        return;
    }
    assert_status(&cuda, 2);
    assert!(stderr(&cuda).contains("cannot run on CUDA"), "{}", stderr(&cuda));
    assert!(
        stderr(&auto).contains("vision_model.onnx") && stderr(&auto).contains("running on the processor"),
        "{}",
        stderr(&auto)
    );
    assert_status(&encode("cpu"), 0);
    assert_eq!(
        studio.features("auto", Modality::Visual),
        studio.features("cpu", Modality::Visual)
    );
}

#[test]
fn a_segment_that_the_model_fails_on_costs_its_video_only() {
    let Some(studio) = Studio::new("a_segment_that_the_model_fails_on_costs_its_video_only") else {
        return;
    };
    studio.frames("good", 8);
    studio.frames("odd", 8);
    // The picky model gives zeros for black.
    let mut black = b"P6 64 64 255\n".to_vec();
    black.resize(black.len() + 64 * 64 * 3, 0);
    for frame in 0..8 {
        fs::write(studio.path(&format!("media/odd/{frame:06}.ppm")), &black).unwrap();
    }
    let picky = crate::support::golden_path("onnx/picky.onnx");
    fs::copy(picky, studio.path("clip/vision_model.onnx")).unwrap();
    let settings = "[image]\nsize = 64\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n";
    fs::write(studio.path("clip/vaplan.toml"), settings).unwrap();
    let encoded = run(studio
        .arguments("out", &["clip"])
        .iter()
        .map(String::as_str)
        .chain(["--batch", "1"]));
    assert_status(&encoded, 1);
    let features = studio.features("out", Modality::Visual);
    assert_eq!(features.len(), 1, "{features:?}");
    assert_eq!(features[0].0, "good");
    let rejects = studio.rejects("out");
    assert!(
        rejects.iter().any(|row| row["video"] == "odd"
            && row["reason"]
                .as_str()
                .unwrap()
                .contains("is all zeros, expected a direction")),
        "{rejects:?}"
    );
}
