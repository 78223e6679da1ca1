//! `vaplan parse`: trained models on new media, with tiny encoders.

mod features;
mod networks;
mod refusals;
mod resume;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::encode::Studio;
use crate::open_outside::python;
use crate::support::{assert_status, run, stderr, stdout};

/// Videos with a model that was trained on them. The model is in the folder `model`, copied out of the store.
pub(crate) struct ParseStudio {
    pub(crate) studio: Studio,
}

pub(crate) const VIDEOS: [&str; 6] = [
    "parse000001",
    "parse000002",
    "parse000003",
    "parse000004",
    "parse000005",
    "parse000006",
];

impl ParseStudio {
    pub(crate) fn new(test: &str) -> Option<ParseStudio> {
        let studio = Studio::new(test)?;
        let mut rows = String::new();
        for (nth, video) in VIDEOS.iter().enumerate() {
            studio.frames(video, 32 + 8 * (nth % 3));
            studio.sound(video, 16_000, 16_000 * (4 + nth % 3) + nth);
            let weak = ["Speech,Dog", "Dog", "Speech", "Car,Dog", "Speech,Car", "Car"][nth];
            rows += &format!("{video}_0_10\t{weak}\n");
        }
        studio.annotate(&rows);
        let parse = ParseStudio { studio };
        let path = |name: &str| parse.path(name);
        let words = [
            "label",
            "--quiet",
            "--store",
            &path("store"),
            "--annotations",
            &path("annotations"),
        ];
        let media = [
            "--media",
            &path("media"),
            "--clip",
            &path("clip"),
            "--clap",
            &path("clap"),
        ];
        assert_status(&run([&words[..], &media].concat()), 0);
        // Thresholds so low that most segments are labelled: the network then learns to set labels.
        let easy = [
            "relabel",
            "--quiet",
            "--store",
            &path("store"),
            "--visual-threshold",
            "0.5",
            "--audio-threshold",
            "0.5",
        ];
        assert_status(&run(easy), 0);
        fs::write(
            parse.path("train.toml"),
            // The richness of weak classes raises their probabilities fast, so that a few steps set labels.
            "hidden = 16\nfeedforward = 16\nlearning_rate = 0.02\nrichness_classes = \"weak\"\n",
        )
        .unwrap();
        let features = |modality: &str| path(&format!("store/_vaplan/encoded/{modality}"));
        let train = [
            "train",
            "--quiet",
            "--store",
            &path("store"),
            "--config",
            &path("train.toml"),
            "--epochs",
            "40",
            "--threads",
            "1",
            "--visual",
            &features("visual"),
            "--audio",
            &features("audio"),
        ];
        let trained = run(train);
        assert_status(&trained, 0);
        let model = path("store/_vaplan/train/model");
        assert!(
            stdout(&trained).ends_with(&format!("model {model}\n")),
            "{}",
            stdout(&trained)
        );
        fs::create_dir(parse.path("model")).unwrap();
        for entry in fs::read_dir(model).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), Path::new(&path("model")).join(entry.file_name())).unwrap();
        }
        Some(parse)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.studio.path(name).to_str().unwrap().to_owned()
    }

    /// Runs `parse` with the copied model.
    pub(crate) fn parse(&self, words: &[&str]) -> Output {
        let model = self.path("model");
        run([&["parse", "--threads", "1", "--model", &model][..], words].concat())
    }

    /// The JSON file of a video.
    pub(crate) fn json(&self, out: &str, video: &str) -> Value {
        let text = fs::read_to_string(self.studio.path(out).join(format!("{video}.json"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Modality, class, onset and offset of each event.
pub(crate) fn events(video: &Value) -> BTreeSet<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = video["events"].as_array().unwrap().iter();
    let event = |event: &Value| {
        (
            text(&event["modality"]),
            text(&event["class"]),
            event["onset"].to_string(),
            event["offset"].to_string(),
        )
    };
    events.map(event).collect()
}

/// The file `model.json` of a model folder.
fn description(model: &str) -> Value {
    let text = fs::read_to_string(Path::new(model).join("model.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn classes(model: &Value) -> Vec<&str> {
    let names = model["classes"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap()).collect()
}

/// The events of the probabilities from 0.5 on that `predict --npy` wrote, for segments of 1 s.
fn predicted_events(npy: &Path, video: &str, classes: &[&str]) -> BTreeSet<(String, String, String, String)> {
    let mut found = BTreeSet::new();
    for modality in ["audio", "visual"] {
        let file = npy.join(modality).join(format!("{video}.npy"));
        let matrix = vaplan::ingest::npy::read_floats(&file)
            .unwrap()
            .into_matrix(&file)
            .unwrap();
        let set = |segment: usize, class: usize| {
            segment < matrix.rows && matrix.data[segment * matrix.cols + class] >= 0.5
        };
        for (class, name) in classes.iter().enumerate() {
            let mut onset = 0;
            for segment in 0..=matrix.rows {
                if set(segment, class) && (segment == 0 || !set(segment - 1, class)) {
                    onset = segment;
                }
                if segment > 0 && set(segment - 1, class) && !set(segment, class) {
                    let event = (
                        modality.to_owned(),
                        (*name).to_owned(),
                        format!("{onset}.0"),
                        format!("{segment}.0"),
                    );
                    found.insert(event);
                }
            }
        }
    }
    found
}

#[test]
fn parse_gives_the_events_of_encode_and_predict() {
    let Some(parse) = ParseStudio::new("parse_gives_the_events_of_encode_and_predict") else {
        return;
    };
    let done = parse.parse(&[
        &parse.path("media"),
        "--out",
        &parse.path("out"),
        "--protocol",
        "segment",
    ]);
    assert_status(&done, 0);
    assert_eq!(
        stdout(&done),
        format!(
            "6 videos parsed, 0 done before, 0 left out: {}\n",
            parse.path("out")
        )
    );
    // By hand: features of the same media, and the checkpoint on them.
    assert_status(&parse.studio.encode("features", &["--quiet"]), 0);
    let (checkpoint, npy) = (
        parse.path("store/_vaplan/train/best.safetensors"),
        parse.path("npy"),
    );
    let (visual, audio) = (parse.path("features/visual"), parse.path("features/audio"));
    let predict = [
        "predict",
        "--quiet",
        "--threads",
        "1",
        "--checkpoint",
        &checkpoint,
        "--npy",
        &npy,
    ];
    assert_status(
        &run([&predict[..], &["--visual", &visual, "--audio", &audio]].concat()),
        0,
    );
    let model = description(&parse.path("model"));
    let classes = classes(&model);
    let mut all = 0;
    for video in VIDEOS {
        let expected = predicted_events(&parse.studio.path("npy"), video, &classes);
        all += expected.len();
        assert_eq!(events(&parse.json("out", video)), expected, "{video}");
    }
    assert!(all >= VIDEOS.len(), "the network sets labels: {all} events");
}

#[test]
fn the_timeline_is_printed_and_one_modality_alone_is_parsed_with_a_note() {
    let Some(parse) =
        ParseStudio::new("the_timeline_is_printed_and_one_modality_alone_is_parsed_with_a_note")
    else {
        return;
    };
    let one = parse.path("media/parse000001");
    let both = parse.parse(&[&one, &format!("{one}.wav")]);
    assert_status(&both, 0);
    let text = stdout(&both);
    assert!(
        text.starts_with("parse000001  4 segments of 1 s, predicted classes: "),
        "{text}"
    );
    assert!(
        text.contains("\naudio ") && text.contains("> 0.5000 score"),
        "{text}"
    );
    let alone = parse.parse(&[&format!("{one}.wav"), "--format", "json"]);
    assert_status(&alone, 0);
    assert!(
        stderr(&alone)
            .contains("parse000001: has no visual features, so that they are zeros for the network"),
        "{}",
        stderr(&alone)
    );
    let video: Value = serde_json::from_str(stdout(&alone)).unwrap();
    assert!(
        events(&video).iter().all(|(modality, ..)| modality == "audio"),
        "{video}"
    );
    let several = parse.parse(&[&parse.path("media"), "--format", "elan"]);
    assert_status(&several, 2);
    assert!(
        stderr(&several).contains("format elan has one file per video, expected --out DIR"),
        "{}",
        stderr(&several)
    );
    let csv = parse.parse(&[&parse.path("media"), "--format", "csv", "--quiet"]);
    assert_status(&csv, 0);
    let header = "video,modality,class,start_seconds,end_seconds,label,score";
    let lines: Vec<&str> = stdout(&csv).lines().collect();
    assert_eq!(
        (lines[0], lines.iter().filter(|line| **line == header).count()),
        (header, 1)
    );
}

#[test]
fn the_sample_video_of_llp_is_parsed_and_its_files_open_in_their_packages() {
    let test = "the_sample_video_of_llp_is_parsed_and_its_files_open_in_their_packages";
    let Some((parse, python)) = ParseStudio::new(test).zip(python(test)) else {
        return;
    };
    let (sample, out) = (parse.studio.shared("llp/sample"), parse.path("out"));
    let frames = sample.join("frames");
    let done = parse.parse(&[
        sample.to_str().unwrap(),
        frames.to_str().unwrap(),
        "--out",
        &out,
        "--format",
        "json,csv,elan,webvtt,audacity,textgrid",
        "--protocol",
        "segment",
    ]);
    assert_status(&done, 0);
    let json = parse.json("out", "BjCEufrlXm4");
    assert_eq!(json["duration"], 10.0);
    let expected = events(&json);
    assert!(!expected.is_empty(), "the network sets labels");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/open_events.py");
    for (format, extension) in [
        ("elan", "eaf"),
        ("webvtt", "vtt"),
        ("textgrid", "TextGrid"),
        ("audacity", "txt"),
        ("csv", "csv"),
    ] {
        let file = parse.studio.path(&format!("out/BjCEufrlXm4.{extension}"));
        let output = Command::new(&python)
            .arg(&script)
            .arg(format)
            .arg(file)
            .output()
            .unwrap();
        assert_status(&output, 0);
        let read: Value = serde_json::from_str(stdout(&output)).unwrap();
        let read = read[0]["events"].as_array().unwrap().iter().map(|event| {
            let text = |at: usize| event[at].as_str().unwrap().to_owned();
            let number = |at: usize| format!("{:?}", event[at].as_f64().unwrap());
            (text(0), text(1), number(2), number(3))
        });
        assert_eq!(read.collect::<BTreeSet<_>>(), expected, "{format}");
    }
}

#[test]
fn the_model_of_a_run_is_in_its_table_and_is_parsed_with() {
    let Some(studio) = Studio::new("the_model_of_a_run_is_in_its_table_and_is_parsed_with") else {
        return;
    };
    let mut rows = String::new();
    for nth in 0..4 {
        let video = format!("ran0000000{nth}");
        studio.frames(&video, 24);
        studio.sound(&video, 16_000, 48_000 + nth);
        rows += &format!("{video}_0_10\tSpeech\n");
    }
    studio.annotate(&rows);
    let path = |name: &str| studio.path(name).to_str().unwrap().to_owned();
    let job = "store = 'store'\nbaselines = []\n[data]\nannotations = 'annotations'\n[media]\npaths = ['media']\n\
               clip = 'clip'\nclap = 'clap'\n[train]\nepochs = 1\nhidden = 16\nfeedforward = 16\n";
    fs::write(path("job.toml"), job).unwrap();
    let ran = run([
        "run",
        &path("job.toml"),
        "--threads",
        "1",
        "--quiet",
        "--format",
        "json",
    ]);
    assert_status(&ran, 0);
    let table: Value = serde_json::from_str(stdout(&ran)).unwrap();
    let parsers = table["parsers"].as_array().unwrap();
    assert!(!parsers.is_empty(), "{table}");
    let plan = run(["plan", &path("job.toml"), "--format", "json"]);
    assert_status(&plan, 0);
    let plan: Value = serde_json::from_str(stdout(&plan)).unwrap();
    assert_eq!(
        plan["stages"][0],
        serde_json::json!({ "name": "label", "done": true })
    );
    for parser in parsers {
        let model = parser["model"].as_str().unwrap();
        assert!(Path::new(model).join("model.json").is_file(), "{parser}");
        let parsed = run([
            "parse",
            &path("media/ran00000001.wav"),
            "--model",
            model,
            "--threads",
            "1",
            "--format",
            "json",
        ]);
        assert_status(&parsed, 0);
    }
    let models = run(["models", &path("clip"), "--format", "json"]);
    assert_status(&models, 0);
    let models: Value = serde_json::from_str(stdout(&models)).unwrap();
    assert_eq!(
        (&models[0]["kind"], &models[0]["width"]),
        (&"clip".into(), &64.into())
    );
}
