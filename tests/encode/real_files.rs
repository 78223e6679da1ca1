//! Files as they are found in the wild: equal copies, odd containers and codecs, sizes and times that headers tell wrongly.

use std::fs;
use std::path::Path;
use std::process::Command;

use vaplan::encode::sound::Wave;
use vaplan_schemas::Modality;

use super::Studio;
use super::video::ffmpeg;
use crate::support::{assert_status, golden_path, run, stderr};

/// Runs `vaplan encode` with one model, f32 features and more arguments.
pub(super) fn encode(studio: &Studio, out: &str, model: &str, more: &[&str]) -> std::process::Output {
    let arguments = studio.arguments(out, &[model]);
    let more = ["--dtype", "f32"].iter().chain(more);
    run(arguments.iter().map(String::as_str).chain(more.copied()))
}

/// Smallest cosine of the rows of two videos, which are of unit length.
pub(super) fn worst_cosine(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let rows = a.chunks(64).zip(b.chunks(64));
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
        .fold(1.0, f32::min)
}

/// The only reject of a video, which is in the file of this name.
pub(super) fn reason(studio: &Studio, out: &str, video: &str) -> String {
    let rejects = studio.rejects(out);
    let own: Vec<_> = rejects.iter().filter(|row| row["video"] == video).collect();
    assert_eq!(own.len(), 1, "{video}: {rejects:?}");
    own[0]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_video_of_ten_bits_has_the_pictures_of_one_of_eight() {
    let test = "a_video_of_ten_bits_has_the_pictures_of_one_of_eight";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    for name in ["tenbit00001.mp4", "eightbit001.mp4"] {
        fs::copy(
            golden_path(&format!("media/{name}")),
            studio.path(&format!("media/{name}")),
        )
        .unwrap();
    }
    assert_status(&encode(&studio, "out", "clip", &["--ffmpeg", &ffmpeg]), 0);
    let features = studio.features("out", Modality::Visual);
    assert_eq!(
        features
            .iter()
            .map(|(_, segments, _)| *segments)
            .collect::<Vec<_>>(),
        [3, 3]
    );
    let cosine = worst_cosine(&features[0].2, &features[1].2);
    assert!(cosine > 0.99, "{cosine}");
}

/// The name of a frame, by its number.
type FrameName = fn(u32) -> String;

#[test]
fn frames_named_by_time_are_the_frames_named_by_number() {
    let Some(studio) = Studio::new("frames_named_by_time_are_the_frames_named_by_number") else {
        return;
    };
    let names: [(&str, FrameName); 3] = [
        ("bynumber001", |at| format!("{at:06}")),
        ("bytime00001", |at| format!("{:.3}", f64::from(at) / 8.0)),
        ("byclock0001", |at| {
            format!("00-00-{:02}.{:03}", at / 8, at % 8 * 125)
        }),
    ];
    for (video, name) in names {
        let folder = studio.path("media").join(video);
        fs::create_dir_all(&folder).unwrap();
        for at in 0..80 {
            let c = at / 8;
            let colour = [c * 25, 255 - c * 25, c * 77 % 256].map(|value| value as u8);
            let picture = [&b"P6 8 8 255\n"[..], &colour.repeat(64)].concat();
            fs::write(folder.join(format!("{}.ppm", name(at))), picture).unwrap();
        }
    }
    assert_status(&encode(&studio, "out", "clip", &[]), 0);
    assert_eq!(studio.rejects("out").len(), 0);
    let features = studio.features("out", Modality::Visual);
    assert_eq!(features.len(), 3);
    assert_eq!(features[0].2, features[1].2);
    assert_eq!(features[1].2, features[2].2);
}

#[test]
fn sound_that_symphonia_does_not_read_is_read_by_ffmpeg_or_named() {
    let test = "sound_that_symphonia_does_not_read_is_read_by_ffmpeg_or_named";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    for name in ["ac3sound001.mp4", "aac51sound1.mp4", "program0001.mpg"] {
        fs::copy(
            golden_path(&format!("media/{name}")),
            studio.path(&format!("media/{name}")),
        )
        .unwrap();
    }
    let encoded = encode(&studio, "out", "clap", &["--ffmpeg", &ffmpeg]);
    assert_status(&encoded, 0);
    let features = studio.features("out", Modality::Audio);
    let lengths: Vec<(&str, u32)> = features
        .iter()
        .map(|(name, segments, _)| (&**name, *segments))
        .collect();
    assert_eq!(
        lengths,
        [("aac51sound1", 1), ("ac3sound001", 1), ("program0001", 3)]
    );
    for name in ["ac3sound001.mp4", "aac51sound1.mp4", "program0001.mpg"] {
        let file = studio.path(&format!("media/{name}"));
        let ours = Wave::read(&file, 48_000, ffmpeg.as_ref()).unwrap();
        let loud = ours.iter().map(|sample| sample.abs()).fold(0.0, f32::max);
        assert!((0.01..=1.1).contains(&loud), "{name}: {loud}");
    }
    // No line of a decoder's own log, and no colours.
    let said = stderr(&encoded);
    assert!(
        !said.contains("symphonia") && !said.contains("stss") && !said.contains('\u{1b}'),
        "{said}"
    );

    let without = encode(&studio, "without", "clap", &["--ffmpeg", "/nowhere/ffmpeg"]);
    assert_status(&without, 1);
    for (video, what) in [
        (
            "ac3sound001",
            "is AC-3 in MP4, which the program `/nowhere/ffmpeg` reads",
        ),
        ("aac51sound1", "is AAC of 6 channels in MP4, which the program"),
        ("program0001", "is an MPEG program stream, which the program"),
    ] {
        let reason = reason(&studio, "without", video);
        assert!(
            reason.contains(what) && reason.contains("install ffmpeg"),
            "{reason}"
        );
    }
}

/// Makes a file by ffmpeg: a picture of four seconds, and a tone of three that goes up each second.
pub(super) fn make(ffmpeg: &str, to: &Path, arguments: &[&str]) {
    let mut command = Command::new(ffmpeg);
    command
        .args(["-nostdin", "-v", "error", "-y"])
        .args(arguments)
        .arg(to);
    assert!(command.status().unwrap().success(), "{command:?}");
}

const PICTURES: &str = "testsrc=s=64x48:r=24:d=4";
const TONE: &str = "aevalsrc=0.5*sin(2*PI*(300+200*floor(t))*t):d=3:s=44100";

#[test]
fn sound_begins_when_ffmpeg_begins_it() {
    let test = "sound_begins_when_ffmpeg_begins_it";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    let late_sound = [
        "-f",
        "lavfi",
        "-i",
        PICTURES,
        "-itsoffset",
        "1.25",
        "-f",
        "lavfi",
        "-i",
        TONE,
    ];
    let late_pictures = [
        "-itsoffset",
        "1.25",
        "-f",
        "lavfi",
        "-i",
        PICTURES,
        "-f",
        "lavfi",
        "-i",
        TONE,
    ];
    let both_late = [
        "-itsoffset",
        "1.5",
        "-f",
        "lavfi",
        "-i",
        PICTURES,
        "-itsoffset",
        "1.5",
        "-f",
        "lavfi",
        "-i",
        TONE,
    ];
    let gap = [
        "-f",
        "lavfi",
        "-i",
        PICTURES,
        "-f",
        "lavfi",
        "-i",
        "aevalsrc=0.5*sin(2*PI*(300+200*floor(t))*t):d=3:s=44100,asetpts='if(gt(T,1),PTS+1.5/TB,PTS)'",
    ];
    for (name, inputs, codecs) in [
        (
            "late_sound.mp4",
            &late_sound[..],
            &["-c:v", "mpeg4", "-c:a", "aac"][..],
        ),
        ("late_sound.mkv", &late_sound, &["-c:v", "mpeg4", "-c:a", "aac"]),
        (
            "late_sound.ts",
            &late_sound,
            &["-c:v", "mpeg2video", "-c:a", "aac"],
        ),
        (
            "late_sound.webm",
            &late_sound,
            &["-c:v", "libvpx", "-c:a", "libopus"],
        ),
        (
            "late_sound.ogv",
            &late_sound,
            &["-c:v", "libtheora", "-c:a", "libvorbis"],
        ),
        (
            "late_pictures.mp4",
            &late_pictures,
            &["-c:v", "mpeg4", "-c:a", "aac"],
        ),
        (
            "late_pictures.ts",
            &late_pictures,
            &["-c:v", "mpeg2video", "-c:a", "aac"],
        ),
        ("both_late.mp4", &both_late, &["-c:v", "mpeg4", "-c:a", "aac"]),
        // Live recordings and streams for browsers are in fragments, and each fragment has its own time.
        (
            "late_sound_in_fragments.mp4",
            &late_sound,
            &[
                "-c:v",
                "mpeg4",
                "-c:a",
                "aac",
                "-movflags",
                "frag_keyframe+empty_moov",
            ],
        ),
        // A recording that was cut without encoding it again has a packet that lasts over the gap.
        ("gap.mp4", &gap, &["-c:v", "mpeg4", "-c:a", "aac"]),
    ] {
        let file = studio.path(name);
        let arguments = [inputs, &["-map", "0:v", "-map", "1:a"], codecs].concat();
        make(&ffmpeg, &file, &arguments);
        let ours = Wave::read(&file, 44_100, ffmpeg.as_ref()).unwrap();
        let begin = |samples: &[f32]| samples.iter().position(|sample| sample.abs() > 0.1).unwrap();
        // The start of a file in which both tracks are late depends on the version of ffmpeg that made it: 5.1 writes an
        // edit list of 1.5 s, 9.0 none. Both are read as the reference below reads them.
        let wanted: &[f64] = match name {
            "both_late.mp4" => &[0.0, 1.5],
            _ if name.starts_with("late_sound") => &[1.25],
            _ => &[0.0],
        };
        let found = begin(&ours) as f64 / 44_100.0;
        // Containers without edit lists keep the 1024 samples that the encoder puts before the sound.
        let near = |wanted: &f64| (found - wanted).abs() < 0.03;
        assert!(wanted.iter().any(near), "{name}: sound begins at {found} s");
        // The reference: ffmpeg with its gaps filled, on the clock of the whole file.
        let raw = studio.path("reference.f32");
        let input = file.to_str().unwrap();
        let mut reference = vec![
            "-i",
            input,
            "-map",
            "0:a:0",
            "-af",
            "aresample=async=1:first_pts=0",
        ];
        reference.extend(["-ac", "1", "-ar", "44100", "-f", "f32le"]);
        if !name.ends_with(".ts") {
            make(&ffmpeg, &raw, &reference);
            let theirs: Vec<f32> = fs::read(&raw)
                .unwrap()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert!(begin(&ours).abs_diff(begin(&theirs)) < 100, "{name}");
            assert!(
                ours.len().abs_diff(theirs.len()) < 2_200,
                "{name}: {} {}",
                ours.len(),
                theirs.len()
            );
        }
    }
    // Pictures that begin later: the first one stands for the time before, so that both have the same seconds.
    for name in ["late_pictures.mp4", "late_pictures.ts"] {
        fs::rename(studio.path(name), studio.path("media").join(name)).unwrap();
        assert_status(&encode(&studio, name, "clip", &["--ffmpeg", &ffmpeg]), 0);
        let features = studio.features(name, Modality::Visual);
        assert_eq!(features[0].1, 5, "{name}: 1.25 s and 4 s");
        fs::remove_file(studio.path("media").join(name)).unwrap();
    }
}

#[test]
fn of_several_sound_tracks_the_default_one_is_taken() {
    let test = "of_several_sound_tracks_the_default_one_is_taken";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    // A low and a high tone; crossings of zero tell which one is there.
    let inputs = [
        "-f",
        "lavfi",
        "-i",
        "sine=f=300:d=1:r=48000",
        "-f",
        "lavfi",
        "-i",
        "sine=f=3000:d=1:r=48000",
    ];
    for name in ["two.mp4", "two.mkv"] {
        for (default, wanted) in [(0, 300), (1, 3000)] {
            let file = studio.path(name);
            let set = ["default", "0"];
            let (first, second) = (set[default], set[1 - default]);
            let flags = ["-map", "0:a", "-map", "1:a", "-c:a", "aac"];
            let disposition = ["-disposition:a:0", first, "-disposition:a:1", second];
            make(&ffmpeg, &file, &[&inputs[..], &flags, &disposition].concat());
            let sound = Wave::read(&file, 48_000, ffmpeg.as_ref()).unwrap();
            let middle = &sound[12_000..36_000];
            let crossings = middle
                .windows(2)
                .filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0)
                .count();
            assert!(
                crossings.abs_diff(wanted / 2) < 5,
                "{name}, default {default}: {crossings}"
            );
        }
    }
}

#[test]
fn sound_of_other_containers_and_codecs_comes_at_its_own_rate() {
    let test = "sound_of_other_containers_and_codecs_comes_at_its_own_rate";
    let Some((studio, ffmpeg)) = Studio::new(test).zip(ffmpeg(test)) else {
        return;
    };
    for (name, codec) in [
        ("a.webm", "libopus"),
        ("a.mkv", "aac"),
        ("a.avi", "pcm_s16le"),
        ("a.ts", "aac"),
        ("a.opus", "libopus"),
        ("a.mov", "alac"),
        ("a.m4a", "alac"),
        ("a.ac3", "ac3"),
        ("a.aiff", "pcm_s16be"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame"),
        ("a.aac", "aac"),
        ("a.ogg", "libvorbis"),
    ] {
        let file = studio.path(name);
        make(
            &ffmpeg,
            &file,
            &["-f", "lavfi", "-i", "sine=f=1000:d=2:r=48000", "-c:a", codec],
        );
        let sound = Wave::read(&file, 48_000, ffmpeg.as_ref()).unwrap();
        assert!(
            sound.len().abs_diff(96_000) < 5_000,
            "{name}: {} samples",
            sound.len()
        );
        let middle = &sound[24_000..72_000];
        let crossings = middle
            .windows(2)
            .filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0)
            .count();
        assert!(
            crossings.abs_diff(1_000) < 5,
            "{name}: a tone of {crossings} Hz, expected 1000"
        );
    }
}

#[test]
fn a_video_in_two_files_is_told_once_with_their_names() {
    let Some(studio) = Studio::new("a_video_in_two_files_is_told_once_with_their_names") else {
        return;
    };
    studio.frames("good", 8);
    for name in ["e1.mp4", "e1.mov"] {
        fs::write(studio.path("media").join(name), b"").unwrap();
    }
    let encoded = studio.encode("out", &[]);
    assert_status(&encoded, 1);
    let reason = reason(&studio, "out", "e1");
    assert!(
        reason.contains("video `e1` is also in") && reason.contains("e1.mp4"),
        "{reason}"
    );
    let rejects = studio.rejects("out");
    assert!(rejects.iter().all(|row| row["file"] != ""), "{rejects:?}");
}
