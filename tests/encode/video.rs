//! One real video through the whole graph.

use std::fs;
use std::process::Command;

use vaplan_schemas::Modality;

use super::Studio;
use crate::open_outside::python;
use crate::support::{assert_status, run, stdout};

/// LLP's sample: its mp4 and its frames, and its weak label.
fn sample(test: &str) -> Option<Studio> {
    let studio = Studio::new(test)?;
    studio.annotate("BjCEufrlXm4_20_30\tSpeech,Dog\n");
    Some(studio)
}

fn encode(studio: &Studio, out: &str, more: &[&str]) -> std::process::Output {
    let (mp4, frames) = (studio.shared("llp/sample"), studio.shared("llp/sample/frames"));
    let annotations = studio.path("annotations");
    let mut arguments = vec![
        "--media",
        mp4.to_str().unwrap(),
        "--media",
        frames.to_str().unwrap(),
    ];
    arguments.extend(["--annotations", annotations.to_str().unwrap()]);
    arguments.extend(more);
    studio.encode(out, &arguments)
}

#[test]
fn a_real_video_goes_from_media_to_labels_answers_and_timeline() {
    let Some(studio) = sample("a_real_video_goes_from_media_to_labels_answers_and_timeline") else {
        return;
    };
    let encoded = encode(&studio, "out", &[]);
    assert_status(&encoded, 0);
    assert_eq!(
        stdout(&encoded),
        "visual  10 segments of 1 videos, width 64\naudio   10 segments of 1 videos, width 64\n\
         encoded 20 segments and 50 prompts; 0 segments were in the cache\nleft out 0\n"
    );
    for modality in Modality::ALL {
        let features = studio.features("out", modality);
        assert_eq!((&*features[0].0, features[0].1), ("BjCEufrlXm4_20_30", 10));
        for row in features[0].2.chunks(64) {
            let length: f32 = row.iter().map(|value| value * value).sum();
            assert!(
                (length - 1.0).abs() < 2e-3,
                "{modality}: an embedding of unit length, rounded to f16"
            );
        }
        let rows: Vec<&[f32]> = features[0].2.chunks(64).collect();
        assert!(
            rows.windows(2).all(|pair| pair[0] != pair[1]),
            "{modality}: each segment has its own"
        );
    }

    let path = |name: &str| studio.path(name).display().to_string();
    let labelled = studio.label("out", "parquet", &[]);
    assert_status(&labelled, 0);
    assert!(
        stdout(&labelled).starts_with("version 1: 1 videos, 2 records labelled"),
        "{}",
        stdout(&labelled)
    );
    let asked = run([
        "query",
        "--store",
        &path("store"),
        "--format",
        "csv",
        "SELECT modality, class, count(*) AS n FROM scores GROUP BY modality, class ORDER BY modality, class",
    ]);
    assert_status(&asked, 0);
    assert_eq!(
        stdout(&asked),
        "modality,class,n\naudio,Dog,10\naudio,Speech,10\nvisual,Dog,10\nvisual,Speech,10\n"
    );
    let prompts = run([
        "query",
        "--store",
        &path("store"),
        "--format",
        "csv",
        "SELECT prompt FROM classes WHERE class = 'Frying_(food)' ORDER BY modality",
    ]);
    assert_eq!(
        stdout(&prompts),
        "prompt\nThis is a sound of frying food.\nA photo of frying food.\n"
    );
    let shown = run(["show", "--store", &path("store"), "BjCEufrlXm4_20_30"]);
    assert_status(&shown, 0);
    assert!(
        stdout(&shown).contains("Speech") && stdout(&shown).contains("Dog"),
        "{}",
        stdout(&shown)
    );
}

#[test]
fn a_second_run_and_a_changed_prompt_encode_no_media_again() {
    let Some(studio) = sample("a_second_run_and_a_changed_prompt_encode_no_media_again") else {
        return;
    };
    assert_status(&encode(&studio, "out", &[]), 0);
    let before = super::files(&studio.path("out/visual"));
    let time = |name: &str| fs::metadata(studio.path(name)).unwrap().modified().unwrap();
    let written = time("out/audio/audio-00000-of-00001.parquet");
    let second = encode(&studio, "out", &[]);
    assert!(
        stdout(&second).contains("encoded 0 segments and 0 prompts; 20 segments were in the cache"),
        "{}",
        stdout(&second)
    );
    assert_eq!(
        time("out/audio/audio-00000-of-00001.parquet"),
        written,
        "equal features keep their time"
    );
    fs::write(
        studio.path("prompts.toml"),
        "[visual.classes]\nDog = [\"a barking dog\", \"a dog\"]\n",
    )
    .unwrap();
    let prompts = studio.path("prompts.toml").display().to_string();
    let third = encode(&studio, "out", &["--prompts", &prompts]);
    assert!(
        stdout(&third).contains("encoded 0 segments and 2 prompts"),
        "{}",
        stdout(&third)
    );
    assert_eq!(super::files(&studio.path("out/visual")), before);
    // Another model is another matter, and so is another way to cut.
    let other = encode(
        &studio,
        "other",
        &[
            "--cache",
            studio.path("out/cache").to_str().unwrap(),
            "--resize",
            "squash",
        ],
    );
    assert!(
        stdout(&other).contains("encoded 10 segments and 0 prompts"),
        "{}",
        stdout(&other)
    );
}

#[test]
fn npy_files_in_the_public_layout_hold_the_same_and_are_labelled() {
    let Some(studio) = sample("npy_files_in_the_public_layout_hold_the_same_and_are_labelled") else {
        return;
    };
    assert_status(&encode(&studio, "out", &["--dtype", "f32"]), 0);
    assert_status(&encode(&studio, "npy", &["--npy", "--dtype", "f32"]), 0);
    let matrix = vaplan::ingest::npy::read_floats(&studio.path("npy/visual/BjCEufrlXm4.npy")).unwrap();
    assert_eq!(matrix.data, studio.features("out", Modality::Visual)[0].2);
    let labelled = studio.label("npy", "npy", &[]);
    assert_status(&labelled, 0);
    let mixed = encode(&studio, "npy", &[]);
    assert_status(&mixed, 2);
    assert!(crate::support::stderr(&mixed).contains("holds 1 .npy files, expected none"));
}

/// The ffmpeg program of `VAPLAN_FFMPEG`, of PATH, or of .venv; none where `test` was skipped.
pub(crate) fn ffmpeg(test: &str) -> Option<String> {
    let program = std::env::var("VAPLAN_FFMPEG").unwrap_or_else(|_| "ffmpeg".to_owned());
    let version = Command::new(&program).arg("-version").output();
    if version.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    let ask = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    let output = Command::new(python(test)?).args(["-c", ask]).output().unwrap();
    assert_status(&output, 0);
    Some(stdout(&output).trim().to_owned())
}

#[test]
fn an_mp4_gives_what_its_frames_and_its_sound_by_ffmpeg_give() {
    let test = "an_mp4_gives_what_its_frames_and_its_sound_by_ffmpeg_give";
    let Some((studio, ffmpeg)) = sample(test).zip(ffmpeg(test)) else {
        return;
    };
    let mp4 = studio.shared("llp/sample/BjCEufrlXm4.mp4");
    let run_ffmpeg = |arguments: &[&str], to: &std::path::Path| {
        let mut command = Command::new(&ffmpeg);
        command
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&mp4)
            .args(arguments)
            .arg(to);
        assert!(command.status().unwrap().success(), "{command:?}");
    };
    fs::create_dir_all(studio.path("media/BjCEufrlXm4")).unwrap();
    run_ffmpeg(
        &["-map", "0:v:0", "-vf", "fps=8"],
        &studio.path("media/BjCEufrlXm4/%06d.ppm"),
    );
    let frames = studio.encode("frames", &[]);
    // Frames only: sound is missed.
    assert_status(&frames, 1);
    let sample = studio.shared("llp/sample");
    fs::remove_dir_all(studio.path("media/BjCEufrlXm4")).unwrap();
    let video = studio.encode(
        "video",
        &["--media", sample.to_str().unwrap(), "--ffmpeg", &ffmpeg],
    );
    assert_status(&video, 0);
    assert!(
        stdout(&video).contains("encoded 20 segments"),
        "{}",
        stdout(&video)
    );
    assert_eq!(
        studio.features("video", Modality::Visual),
        studio.features("frames", Modality::Visual)
    );

    let sound = [
        "-map",
        "0:a:0",
        "-af",
        "pan=mono|c0=0.5*c0+0.5*c1",
        "-f",
        "f32le",
        "-ar",
        "44100",
    ];
    run_ffmpeg(&sound, &studio.path("sound.f32"));
    let theirs: Vec<f32> = fs::read(studio.path("sound.f32"))
        .unwrap()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let ours = vaplan::encode::sound::Wave::read(&mp4, 44_100, ffmpeg.as_ref()).unwrap();
    assert!(
        ours.len().abs_diff(theirs.len()) <= 1_024,
        "{} and {} samples",
        ours.len(),
        theirs.len()
    );
    let worst = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    eprintln!("sound is off ffmpeg's by {worst}");
    assert!(worst < 1e-3, "{worst}");
}
