//! Models that take more than embeddings: clip features, and the scores of a classifier. And pictures out of an mp4.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vaplan::ingest::npy;

use super::{ParseStudio, VIDEOS, events};
use crate::encode::tagger::yamnet;
use crate::support::{assert_status, run, stderr, stdout};

/// Width of the clip features.
const CLIPS: usize = 6;

impl ParseStudio {
    /// Clip features of the nth video: two rows per segment.
    fn clip_features(&self, nth: usize) {
        let segments = 4 + nth % 3;
        let values: Vec<f32> = (0..2 * segments * CLIPS)
            .map(|cell| ((cell * 7 + nth * 3) % 11) as f32 / 5.0)
            .collect();
        let file = self.studio.path("clips").join(format!("{}.npy", VIDEOS[nth]));
        npy::write_f32(&file, &[2 * segments, CLIPS], &values).unwrap();
    }

    /// Trains on features of these folders, and gives the folder of the model.
    pub(super) fn train(&self, more: &[&str]) -> String {
        let features = |modality: &str| self.path(&format!("store/_vaplan/encoded/{modality}"));
        let (store, config, out) = (self.path("store"), self.path("train.toml"), self.path("trained"));
        let (visual, audio) = (features("visual"), features("audio"));
        let train = [
            "train",
            "--quiet",
            "--store",
            &store,
            "--config",
            &config,
            "--epochs",
            "20",
            "--threads",
            "1",
            "--visual",
            &visual,
            "--out",
            &out,
        ];
        let own_audio = more.contains(&"--audio");
        let audio = if own_audio {
            vec![]
        } else {
            vec!["--audio", &audio]
        };
        assert_status(&run([&train[..], &audio, more].concat()), 0);
        format!("{out}/model")
    }
}

#[test]
fn a_network_with_clip_features_takes_them_from_a_folder_or_says_what_it_needs() {
    let test = "a_network_with_clip_features_takes_them_from_a_folder_or_says_what_it_needs";
    let Some(parse) = ParseStudio::new(test) else {
        return;
    };
    let clips = parse.path("clips");
    fs::create_dir(&clips).unwrap();
    (0..VIDEOS.len()).for_each(|nth| parse.clip_features(nth));
    let model = parse.train(&["--clips", &clips]);
    let media = parse.path("media");
    let with = |more: &[&str]| {
        let words = [
            "parse",
            "--threads",
            "1",
            "--model",
            &model,
            &media,
            "--protocol",
            "segment",
        ];
        run([&words[..], more].concat())
    };
    let without = with(&[]);
    assert_status(&without, 2);
    let told = stderr(&without);
    assert!(
        told.contains("takes clip features of width 6 beside its embeddings")
            && told.contains("<video>.npy of shape (T, 6)")
            && told.contains("--clips DIR"),
        "{told}"
    );
    let out = parse.path("out");
    assert_status(&with(&["--clips", &clips, "--out", &out]), 0);
    // The same network on the same features by `predict`.
    let npy = parse.path("npy");
    let features = |modality: &str| parse.path(&format!("store/_vaplan/encoded/{modality}"));
    let predict = [
        "predict",
        "--quiet",
        "--threads",
        "1",
        "--checkpoint",
        &parse.path("trained/best.safetensors"),
        "--npy",
        &npy,
        "--visual",
        &features("visual"),
        "--audio",
        &features("audio"),
        "--clips",
        &clips,
    ];
    assert_status(&run(predict), 0);
    let mut set = 0;
    for video in VIDEOS {
        let found = events(&parse.json("out", video));
        let seconds: f64 = found
            .iter()
            .map(|own| own.3.parse::<f64>().unwrap() - own.2.parse::<f64>().unwrap())
            .sum();
        let expected: usize = ["audio", "visual"]
            .iter()
            .map(|modality| {
                let file = Path::new(&npy).join(modality).join(format!("{video}_0_10.npy"));
                let values = npy::read_floats(&file).unwrap().data;
                values.iter().filter(|value| **value >= 0.5).count()
            })
            .sum();
        assert_eq!(seconds, expected as f64, "{video}");
        set += expected;
    }
    assert!(set > 0, "the network sets labels");
    // One video without clip features is left out, and named; a changed file is parsed again.
    fs::remove_file(format!("{clips}/{}.npy", VIDEOS[2])).unwrap();
    parse.clip_features(0);
    let again = with(&["--clips", &clips, "--out", &out]);
    assert_status(&again, 1);
    assert!(
        stderr(&again).contains(&format!(
            "{}: has no clip features in `{clips}`, expected {}.npy of shape (6, 6)",
            VIDEOS[2], VIDEOS[2]
        )),
        "{}",
        stderr(&again)
    );
    assert!(
        stdout(&again).starts_with("5 videos parsed, 0 done before, 1 left out"),
        "{}",
        stdout(&again)
    );
    // Seven rows are no multiple of four segments.
    npy::write_f32(
        Path::new(&format!("{clips}/{}.npy", VIDEOS[0])),
        &[7, CLIPS],
        &[0.5; 7 * CLIPS],
    )
    .unwrap();
    let odd = with(&["--clips", &clips, "--format", "csv"]);
    assert_status(&odd, 1);
    assert!(
        stderr(&odd).contains("its clip features cannot be used"),
        "{}",
        stderr(&odd)
    );
    // A sound alone has zeros for all of its visual features.
    let alone = run([
        "parse",
        "--threads",
        "1",
        "--model",
        &model,
        &format!("{media}/{}.wav", VIDEOS[2]),
        "--clips",
        &clips,
        "--format",
        "json",
    ]);
    assert_status(&alone, 0);
    let refused = parse.parse(&[&media, "--clips", &clips]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("takes no clip features, expected no --clips"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_network_on_the_scores_of_a_classifier_parses_with_the_classifier() {
    let test = "a_network_on_the_scores_of_a_classifier_parses_with_the_classifier";
    let Some(parse) = ParseStudio::new(test) else {
        return;
    };
    let Some(folder) = yamnet(&parse.studio, test) else {
        return;
    };
    let (folder, media, scored) = (
        folder.to_str().unwrap().to_owned(),
        parse.path("media"),
        parse.path("scored"),
    );
    let encode = [
        "encode",
        "--quiet",
        "--media",
        &media,
        "--out",
        &scored,
        "--annotations",
        &parse.path("annotations"),
        "--clap",
        &folder,
        "--external-data",
    ];
    assert_status(&run(encode), 0);
    let model = parse.train(&["--audio", &format!("{scored}/audio")]);
    let with = |more: &[&str]| {
        let words = [
            "parse",
            "--threads",
            "1",
            "--model",
            &model,
            "--external-data",
            "--protocol",
            "segment",
        ];
        run([&words[..], more].concat())
    };
    let out = parse.path("out");
    assert_status(&with(&[&media, "--out", &out]), 0);
    let npy = parse.path("npy");
    let predict = [
        "predict",
        "--quiet",
        "--threads",
        "1",
        "--checkpoint",
        &parse.path("trained/best.safetensors"),
        "--npy",
        &npy,
        "--visual",
        &parse.path("store/_vaplan/encoded/visual"),
        "--audio",
        &format!("{scored}/audio"),
    ];
    assert_status(&run(predict), 0);
    for video in VIDEOS {
        let found = events(&parse.json("out", video));
        for modality in ["audio", "visual"] {
            let own = found.iter().filter(|own| own.0 == modality);
            let seconds: f64 = own
                .map(|own| own.3.parse::<f64>().unwrap() - own.2.parse::<f64>().unwrap())
                .sum();
            let file = Path::new(&npy).join(modality).join(format!("{video}_0_10.npy"));
            let values = npy::read_floats(&file).unwrap().data;
            let expected = values.iter().filter(|value| **value >= 0.5).count();
            assert_eq!(seconds, expected as f64, "{video} {modality}");
        }
    }
    // A model of a program before does not say which score belongs to which class.
    let file = format!("{model}/model.json");
    let mut description: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let audio = description["audio"].as_object_mut().unwrap();
    assert!(audio.remove("columns").is_some(), "{audio:?}");
    fs::write(&file, description.to_string()).unwrap();
    let refused = with(&[&media]);
    assert_status(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains("was trained on the scores of a classifier")
            && told.contains("run `vaplan encode` again"),
        "{told}"
    );
}

#[test]
fn pictures_and_sound_of_an_mp4_are_read_by_ffmpeg() {
    let test = "pictures_and_sound_of_an_mp4_are_read_by_ffmpeg";
    let Some(parse) = ParseStudio::new(test) else {
        return;
    };
    let Some(ffmpeg) = crate::encode::video::ffmpeg(test) else {
        return;
    };
    // A video of the frames and the sound of the first training video, without loss.
    let first = VIDEOS[0];
    let (frames, sound, video) = (
        parse.path(&format!("media/{first}")),
        parse.path(&format!("media/{first}.wav")),
        parse.path("film/film0000001.mp4"),
    );
    fs::create_dir(parse.path("film")).unwrap();
    let made = Command::new(&ffmpeg)
        .args(["-v", "error", "-framerate", "8", "-i"])
        .arg(format!("{frames}/%06d.ppm"))
        .args([
            "-i",
            &sound,
            "-c:v",
            "libx264rgb",
            "-crf",
            "0",
            "-c:a",
            "alac",
            &video,
        ])
        .status()
        .unwrap();
    assert!(made.success());
    let json = |words: &[&str]| -> Value {
        let output = parse.parse(
            &[
                words,
                &["--format", "json", "--protocol", "segment", "--ffmpeg", &ffmpeg],
            ]
            .concat(),
        );
        assert_status(&output, 0);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let film = json(&[&video]);
    assert!(film["media"].as_str().unwrap().ends_with("film0000001.mp4"));
    assert_eq!(film["duration"], 4.0);
    let apart = json(&[&frames, &sound]);
    assert_eq!(
        events(&film),
        events(&apart),
        "the same pictures and sound as files of their own"
    );
    assert!(events(&film).iter().any(|own| own.0 == "visual"), "{film}");
    // Without ffmpeg the file is named, and the others would be parsed.
    let without = parse.parse(&[&video, &sound, "--ffmpeg", "/nowhere/ffmpeg", "--format", "csv"]);
    assert_status(&without, 1);
    assert!(
        stderr(&without).contains("film0000001: visual: ") || stderr(&without).contains("/nowhere/ffmpeg"),
        "{}",
        stderr(&without)
    );
}
