//! Which track of a file is read, and sound that only ffmpeg finds or decodes: covers, several tracks, unknown starts, HE-AAC.

use std::fs;

use vaplan::encode::sound::Wave;
use vaplan_schemas::Modality;

use super::Studio;
use super::real_files::{encode, make, reason, worst_cosine};
use super::video::ffmpeg;
use crate::support::{assert_status, golden_path};

#[test]
fn a_video_of_one_picture_has_one_segment_at_any_rate() {
    let test = "a_video_of_one_picture_has_one_segment_at_any_rate";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    let film = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=24:d=0.2", "-c:v", "mpeg4"];
    for (name, frames) in [("one.mp4", "1"), ("four.mkv", "4")] {
        let file = studio.path("media").join(name);
        make(&ffmpeg, &file, &[&film[..], &["-frames:v", frames]].concat());
    }
    for (out, more) in [
        ("centre", &["--frame-rate", "2"][..]),
        ("linspace", &["--frame-rate", "2", "--frame", "linspace"]),
        ("fixed", &["--segments", "3"]),
    ] {
        let more = [more, &["--ffmpeg", &ffmpeg]].concat();
        assert_status(&encode(&studio, out, "clip", &more), 0);
        let segments: Vec<u32> = studio
            .features(out, Modality::Visual)
            .iter()
            .map(|(_, segments, _)| *segments)
            .collect();
        assert_eq!(segments, if out == "fixed" { [3, 3] } else { [1, 1] }, "{out}");
    }
}

#[test]
fn the_default_video_track_is_taken_and_a_cover_is_no_video() {
    let test = "the_default_video_track_is_taken_and_a_cover_is_no_video";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        "color=red:s=64x48:r=8:d=2",
        "-f",
        "lavfi",
        "-i",
        "color=blue:s=64x48:r=8:d=2",
    ];
    let sound = ["-f", "lavfi", "-i", "sine=d=2", "-c:a", "aac"];
    let media = |name: &str| studio.path("media").join(name);
    let second = [
        "-map",
        "0:v",
        "-map",
        "1:v",
        "-c:v",
        "mpeg4",
        "-disposition:v:0",
        "0",
        "-disposition:v:1",
        "default",
    ];
    make(&ffmpeg, &media("second.mkv"), &[&inputs[..], &second].concat());
    make(
        &ffmpeg,
        &media("wanted.mkv"),
        &[&inputs[4..], &["-c:v", "mpeg4"]].concat(),
    );
    make(&ffmpeg, &media("sound.mp4"), &sound);
    let cover = [
        "-f",
        "lavfi",
        "-i",
        "sine=d=2",
        "-f",
        "lavfi",
        "-i",
        "color=red:s=64x48:d=0.04",
        "-map",
        "0:a",
        "-map",
        "1:v",
        "-c:a",
        "aac",
        "-c:v",
        "png",
        "-disposition:v:0",
        "attached_pic",
    ];
    make(&ffmpeg, &media("cover.mp4"), &cover);
    assert_status(&encode(&studio, "out", "clip", &["--ffmpeg", &ffmpeg]), 1);
    let features = studio.features("out", Modality::Visual);
    let names: Vec<&str> = features.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, ["second", "wanted"]);
    let cosine = worst_cosine(&features[0].2, &features[1].2);
    assert!(cosine > 0.999, "{cosine}");
    for video in ["sound", "cover"] {
        let reason = reason(&studio, "out", video);
        assert!(
            reason.ends_with("has no pictures: add them, or encode only the sound"),
            "{reason}"
        );
    }
}

#[test]
fn sound_with_an_unknown_start_goes_through_ffmpeg_unless_it_is_text() {
    let test = "sound_with_an_unknown_start_goes_through_ffmpeg_unless_it_is_text";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    // Frames of a pure tone have bytes that look like the start of a frame; the noise prevents that.
    let tone = "aevalsrc='0.5*sin(2*PI*1000*t)+0.01*random(0)':d=2:s=48000";
    let tone = ["-f", "lavfi", "-i", tone];
    make(&ffmpeg, &studio.path("a.voc"), &tone);
    make(&ffmpeg, &studio.path("a.mp3"), &tone);
    let whole = fs::read(studio.path("a.mp3")).unwrap();
    fs::write(studio.path("cut.mp3"), &whole[1_000..]).unwrap();
    fs::write(studio.path("playlist.mp3"), "#EXTM3U\nfile:///etc/hostname\n").unwrap();
    fs::write(studio.path("noise.mp3"), [3, 200, 77, 1, 90].repeat(900)).unwrap();
    for name in ["a.voc", "cut.mp3"] {
        let sound = Wave::read(&studio.path(name), 48_000, ffmpeg.as_ref()).unwrap();
        assert!(
            (90_000..=100_000).contains(&sound.len()),
            "{name}: {}",
            sound.len()
        );
        let middle = &sound[24_000..72_000];
        let crossings = middle
            .windows(2)
            .filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0)
            .count();
        assert!(crossings.abs_diff(1_000) < 5, "{name}: {crossings}");
    }
    for name in ["playlist.mp3", "noise.mp3"] {
        let refused = Wave::read(&studio.path(name), 48_000, ffmpeg.as_ref()).unwrap_err();
        assert!(refused.to_string().contains("it begins with `"), "{refused}");
    }
}

/// The files have a tone of 500 Hz, and a quieter one of 13 kHz, which only the extension of HE-AAC has: the core has 22,050 samples
/// a second. `README.md` beside the files says how they were made.
#[test]
fn he_aac_has_its_full_rate_and_length_and_the_upper_half_of_its_frequencies() {
    let test = "he_aac_has_its_full_rate_and_length_and_the_upper_half_of_its_frequencies";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    const RATE: u32 = 44_100;
    let golden = |name: &str| golden_path(&format!("media/he_aac/{name}"));
    // The same sound as a plain stream of AAC, and in other containers.
    for (name, other) in [
        ("v1.m4a", "v1.aac"),
        ("v1_explicit.m4a", "v1.mkv"),
        ("v2.m4a", "v2.aac"),
        ("v2_explicit.m4a", "v2.ts"),
    ] {
        let input = golden(name).display().to_string();
        make(&ffmpeg, &studio.path(other), &["-i", &input, "-c", "copy"]);
    }
    let m4a = [
        "v1.m4a",
        "v1_compatible.m4a",
        "v1_explicit.m4a",
        "v2.m4a",
        "v2_explicit.m4a",
    ];
    let others = ["v1.aac", "v1.mkv", "v2.aac", "v2.ts"];
    for file in m4a
        .map(golden)
        .into_iter()
        .chain(others.map(|name| studio.path(name)))
    {
        let name = file.display();
        let sound = Wave::read(&file, RATE, ffmpeg.as_ref()).unwrap();
        // 1.2 s; the encoder puts 5,058 or 7,106 samples before the sound, and fills the last packet.
        let seconds = sound.len() as f64 / f64::from(RATE);
        assert!((1.3..1.5).contains(&seconds), "{name}: {seconds} s");
        // The amplitude of a frequency in 4,410 samples. Frequencies that are 10 Hz apart do not disturb each other.
        let window = &sound[22_050..26_460];
        let amplitude = |hertz: u32| {
            let (mut re, mut im) = (0.0, 0.0);
            for (at, &sample) in window.iter().enumerate() {
                let turn = std::f64::consts::TAU * f64::from(hertz) * at as f64 / f64::from(RATE);
                re += f64::from(sample) * turn.cos();
                im += f64::from(sample) * turn.sin();
            }
            re.hypot(im) * 2.0 / window.len() as f64
        };
        let band = |from: u32, to: u32| {
            (from..to)
                .step_by(10)
                .map(|hertz| amplitude(hertz).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let tone = amplitude(500);
        assert!((0.2..0.5).contains(&tone), "{name}: a tone of {tone}");
        assert!(
            amplitude(250) < 0.01 && amplitude(1_000) < 0.01,
            "{name}: the tone has another frequency"
        );
        let (upper, beside) = (band(13_000, 13_500), band(15_000, 15_500));
        let least = if name.to_string().contains("v1") {
            0.05
        } else {
            0.003
        };
        assert!(
            upper > least && upper > 5.0 * beside,
            "{name}: {upper} at 13 kHz, {beside} at 15 kHz"
        );
    }
    // HE-AAC goes through ffmpeg, and without ffmpeg its name is told.
    for name in m4a {
        let refused = Wave::read(&golden(name), RATE, "/nowhere/ffmpeg".as_ref())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("HE-AAC") && refused.contains("install ffmpeg"),
            "{refused}"
        );
    }
}
