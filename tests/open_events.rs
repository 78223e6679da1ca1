//! Exports of events, opened by each format's own package, and corrections that come back from ELAN and Label Studio.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::open_outside::python;
use crate::sample::Sample;
use crate::support::{assert_status, run, sample_annotations, scratch, stderr, stdout};

/// A class whose name is hard to write, in every format.
const HARD: &str = "<b> & \"q\" 'ü' 犬";

/// Video, modality, class, onset and offset, in milliseconds.
type Events = BTreeSet<(String, String, String, i64, i64)>;

/// A labelled sample whose class `Dog` has a hard name.
fn labelled() -> (tempfile::TempDir, PathBuf) {
    let folder = scratch();
    let dir = folder.path().to_str().unwrap().to_owned();
    sample_annotations(&dir);
    let annotations = folder.path().join("annotations");
    for entry in fs::read_dir(&annotations).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // The names are fields of lines and lists: only whole names are replaced.
        let lines = text.lines().map(|line| {
            let fields = line.split('\t').map(|field| {
                let names = field
                    .split(',')
                    .map(|name| if name == "Dog" { HARD } else { name });
                names.collect::<Vec<_>>().join(",")
            });
            fields.collect::<Vec<_>>().join("\t") + "\n"
        });
        fs::write(&path, lines.collect::<String>()).unwrap();
    }
    let classes = annotations.join("classes.txt");
    if !classes.exists() {
        let llp: Vec<&str> = vaplan::ingest::annotations::LLP_CLASSES
            .iter()
            .map(|name| if *name == "Dog" { HARD } else { name })
            .collect();
        fs::write(&classes, llp.join("\n") + "\n").unwrap();
    }
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let synth = [
        "synth",
        "--annotations",
        &path("annotations"),
        "--out",
        &path("features"),
        "--dim",
        "24",
        "--label-only",
    ];
    assert_status(&run(synth), 0);
    let label = [
        "label",
        "--quiet",
        "--store",
        &path("store"),
        "--annotations",
        &path("annotations"),
        "--visual",
        &path("features/visual"),
        "--visual-text",
        &path("features/visual_text.npy"),
        "--audio",
        &path("features/audio"),
        "--audio-text",
        &path("features/audio_text.npy"),
    ];
    assert_status(&run(label), 0);
    let store = folder.path().join("store");
    (folder, store)
}

/// The answer of the store to SQL, as JSON.
fn query(store: &Path, sql: &str) -> Value {
    let store = store.to_str().unwrap();
    let output = run(["query", "--store", store, "--format", "json", sql]);
    assert_status(&output, 0);
    serde_json::from_str(stdout(&output)).unwrap()
}

/// The events of the store, as its view `events` has them.
fn of_store(store: &Path) -> Events {
    let sql = "SELECT video, modality, class, onset, \"offset\" FROM events WHERE modality <> 'audio_visual'";
    let rows = query(store, sql);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let ms = |value: &Value| (value.as_f64().unwrap() * 1000.0).round() as i64;
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| {
        (
            text(&row["video"]),
            text(&row["modality"]),
            text(&row["class"]),
            ms(&row["onset"]),
            ms(&row["offset"]),
        )
    })
    .collect()
}

fn export(store: &Path, format: &str) -> PathBuf {
    let out = store.with_file_name(format);
    let (from, to) = (store.to_str().unwrap(), out.to_str().unwrap());
    let output = run(["export", "--store", from, "--format", format, "--out", to]);
    assert_status(&output, 0);
    out
}

/// The events that a package reads from files, without their videos.
fn open(python: &Path, format: &str, files: &[PathBuf]) -> Vec<BTreeSet<(String, String, i64, i64)>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/open_events.py");
    let output = Command::new(python)
        .arg(script)
        .arg(format)
        .args(files)
        .output()
        .unwrap();
    assert_status(&output, 0);
    let read: Value = serde_json::from_str(stdout(&output)).unwrap();
    let ms = |value: &Value| (value.as_f64().unwrap() * 1000.0).round() as i64;
    let events = |file: &Value| {
        let events = file["events"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        events
            .map(|event| (text(&event[0]), text(&event[1]), ms(&event[2]), ms(&event[3])))
            .collect()
    };
    read.as_array().unwrap().iter().map(events).collect()
}

#[test]
fn every_format_of_events_is_opened_by_its_package_with_all_events() {
    let Some(python) = python("every_format_of_events_is_opened_by_its_package_with_all_events") else {
        return;
    };
    let (_folder, store) = labelled();
    let expected = of_store(&store);
    assert!(
        expected.iter().any(|event| event.2 == HARD),
        "the hard name has events"
    );
    let videos: BTreeSet<&String> = expected.iter().map(|event| &event.0).collect();
    for (format, extension) in [
        ("elan", "eaf"),
        ("webvtt", "vtt"),
        ("textgrid", "TextGrid"),
        ("audacity", "txt"),
    ] {
        let out = export(&store, format);
        assert_eq!(
            fs::read_dir(&out).unwrap().count(),
            80,
            "{format}: a file for each video"
        );
        let files: Vec<PathBuf> = videos
            .iter()
            .map(|video| out.join(format!("{video}.{extension}")))
            .collect();
        let read = open(&python, format, &files);
        let read: Events = (videos.iter().zip(read))
            .flat_map(|(video, events)| {
                events
                    .into_iter()
                    .map(|(a, b, c, d)| ((*video).clone(), a, b, c, d))
            })
            .collect();
        assert_eq!(read, expected, "{format}");
    }
    let without_videos: BTreeSet<_> = expected
        .iter()
        .cloned()
        .map(|(_, modality, class, onset, offset)| (modality, class, onset, offset))
        .collect();
    for (format, file) in [
        ("csv", "events.csv"),
        ("label-studio", "tasks.json"),
        ("fiftyone", "samples.json"),
    ] {
        let out = export(&store, format);
        let text = fs::read_to_string(out.join(file)).unwrap();
        assert!(
            videos.iter().all(|video| text.contains(video.as_str())),
            "{format}"
        );
        assert_eq!(
            open(&python, format, &[out.join(file)]),
            std::slice::from_ref(&without_videos),
            "{format}"
        );
    }
    let load = fs::read_to_string(store.with_file_name("fiftyone").join("load.py")).unwrap();
    assert_eq!(load.lines().count(), 3);
}

/// The labels of a track, and the rules that set them, one digit and letter per segment.
fn track(store: &Path, video: &str, modality: &str, class: &str) -> String {
    let sql = format!(
        "SELECT label, rule FROM labels WHERE video = '{video}' AND modality = '{modality}' AND class = '{class}' ORDER BY \
         segment"
    );
    let output = run([
        "query",
        "--store",
        store.to_str().unwrap(),
        "--format",
        "csv",
        &sql,
    ]);
    assert_status(&output, 0);
    let rows = stdout(&output).lines().skip(1);
    rows.map(|row| {
        format!(
            "{}{}",
            u8::from(row.starts_with("true")),
            if row.ends_with("user") { "u" } else { "." }
        )
    })
    .collect()
}

#[test]
fn an_elan_file_that_a_person_edited_with_pympi_comes_back_as_corrections() {
    let Some(python) = python("an_elan_file_that_a_person_edited_with_pympi_comes_back_as_corrections")
    else {
        return;
    };
    let sample = Sample::new(8);
    let store = sample.path("store");
    assert_status(&sample.label("store", &[]), 0);
    let out = export(&store, "elan");
    let events = of_store(&store);
    let (video, modality, class, ..) = events.iter().next().expect("a label is set").clone();
    let file = out.join(format!("{video}.eaf"));
    let relabel = |more: &[&str]| {
        let words = [
            "relabel",
            "--store",
            store.to_str().unwrap(),
            "--user",
            file.to_str().unwrap(),
        ];
        run([&words[..], more].concat())
    };
    let before = track(&store, &video, &modality, &class);
    let untouched = relabel(&[]);
    assert_status(&untouched, 0);
    assert_eq!(
        track(&store, &video, &modality, &class),
        before,
        "a file that nobody edited changes nothing"
    );
    // A person removes all events of the tier, and sets one from 1 to 3 s.
    let edit = "import sys, pympi\n\
                path, tier, value = sys.argv[1:]\n\
                document = pympi.Elan.Eaf(path)\n\
                for onset, offset, _ in list(document.get_annotation_data_for_tier(tier)):\n    \
                    document.remove_annotation(tier, (onset + offset) // 2)\n\
                document.add_annotation(tier, 1000, 3000, value)\n\
                document.to_file(path)\n";
    let tier = format!("{modality}/{class}");
    let edited = Command::new(python)
        .args(["-c", edit])
        .arg(&file)
        .args([&tier, &class])
        .output()
        .unwrap();
    assert_status(&edited, 0);
    assert_status(&relabel(&[]), 0);
    let after = track(&store, &video, &modality, &class);
    let expected: String = (0..before.len() / 2)
        .map(|segment| if (1..3).contains(&segment) { "1u" } else { "0u" })
        .collect();
    assert_eq!(after, expected, "the whole tier is the person's");
    let rules = [
        "query",
        "--store",
        store.to_str().unwrap(),
        "--format",
        "csv",
        "SELECT count(*) FROM user_labels",
    ];
    assert_eq!(
        stdout(&run(rules)).lines().nth(1),
        Some(&*(before.len() / 2).to_string()),
        "and no other tier"
    );
}

#[test]
fn an_annotation_of_label_studio_comes_back_and_its_predictions_do_not() {
    let sample = Sample::new(8);
    let store = sample.path("store");
    assert_status(&sample.label("store", &[]), 0);
    let out = export(&store, "label-studio");
    let file = out.join("tasks.json");
    let mut tasks: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let relabel = || {
        run([
            "relabel",
            "--store",
            store.to_str().unwrap(),
            "--user",
            file.to_str().unwrap(),
        ])
    };
    assert_status(&relabel(), 0);
    let count = || {
        let sql = "SELECT count(*) AS labels FROM user_labels";
        query(store.as_ref(), sql)[0]["labels"].as_u64().unwrap()
    };
    assert_eq!(count(), 0, "predictions are not a person's");
    // A person accepts the prediction of the first task as it is, and submits the second with no region.
    let accepted = tasks[0]["predictions"][0]["result"].clone();
    tasks[0]["annotations"] = serde_json::json!([{ "id": 1, "result": accepted }]);
    tasks[1]["annotations"] = serde_json::json!([{ "id": 2, "result": [] }]);
    fs::write(&file, tasks.to_string()).unwrap();
    let tracks = |task: usize| tasks[task]["data"]["tracks"].as_array().unwrap().len();
    let segments = |task: usize| tasks[task]["data"]["duration"].as_f64().unwrap() as usize;
    let before: Vec<String> = each_track(&store, &tasks[0]);
    assert_status(&relabel(), 0);
    assert_eq!(
        count(),
        (tracks(0) * segments(0) + tracks(1) * segments(1)) as u64
    );
    let after = each_track(&store, &tasks[0]);
    let user: Vec<String> = before.iter().map(|labels| labels.replace('.', "u")).collect();
    assert_eq!(after, user, "the same labels, now a person's");
    for labels in each_track(&store, &tasks[1]) {
        assert!(!labels.contains('1') && !labels.contains('.'), "{labels}");
    }
    // A bad region is named.
    tasks[0]["annotations"][0]["result"] = serde_json::json!([
        { "id": "zap", "type": "labels", "value": { "start": "soon", "end": 2, "labels": ["Dog"] } }
    ]);
    fs::write(&file, tasks.to_string()).unwrap();
    let bad = relabel();
    assert_status(&bad, 1);
    assert!(
        stderr(&bad).contains("region `zap`: `start` is \"soon\", expected a number; the task is left out"),
        "{}",
        stderr(&bad)
    );
}

#[test]
fn files_that_nobody_edited_make_no_version_and_say_why() {
    let sample = Sample::new(8);
    let store = sample.path("store");
    assert_status(&sample.label("store", &[]), 0);
    let elan = export(&store, "elan");
    let events = of_store(&store);
    let (video, modality, class, ..) = events.iter().next().expect("a label is set");
    let elan = elan.join(format!("{video}.eaf"));
    let tasks = export(&store, "label-studio").join("tasks.json");
    let relabel = |files: &[&Path], more: &[&str]| {
        let files = files.iter().flat_map(|file| ["--user", file.to_str().unwrap()]);
        let words = ["relabel", "--store", store.to_str().unwrap()];
        run(words.into_iter().chain(files).chain(more.iter().copied()))
    };
    let versions = || query(&store, "SELECT max(version) AS n FROM versions")[0]["n"].clone();
    let nothing = "nothing changed, and no version was made: the files have no correction that can be used\n";
    for (file, why) in [
        (&elan, "as the program wrote"),
        (&tasks, "without a submitted annotation"),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            let output = relabel(&[file], more);
            assert_status(&output, 0);
            assert_eq!(stdout(&output), nothing);
            let notes = stderr(&output);
            assert!(notes.contains("note: ") && notes.contains(why), "{notes}");
        }
    }
    assert_status(&relabel(&[&elan, &tasks], &[]), 0);
    assert_eq!(versions(), 1);

    // Beside a correction, the notes of the other file are rows of the new version.
    let csv = store.with_file_name("corrections.csv");
    let row = format!("video,modality,class,segment,label\n{video},{modality},{class},0,1\n");
    fs::write(&csv, row).unwrap();
    let output = relabel(&[&csv, &elan], &[]);
    assert_status(&output, 0);
    assert!(stdout(&output).starts_with("version 2: "), "{}", stdout(&output));
    let notes = "SELECT count(*) AS n FROM rejects WHERE severity = 'note' AND file LIKE '%.eaf'";
    assert_eq!(query(&store, notes)[0]["n"], 1);
    // The same correction again, with another file that has notes only, is no version either.
    let output = relabel(&[&csv, &tasks], &[]);
    assert_status(&output, 0);
    assert_eq!(
        stdout(&output),
        "nothing to do: the store holds what the change asks for\n"
    );
    assert_eq!(versions(), 2);

    // A rejected row is no note: the table `rejects` of a new version lists it.
    fs::write(&csv, "video,modality,class,segment,label\nnobody,audio,Dog,0,1\n").unwrap();
    assert_status(&relabel(&[&csv], &[]), 1);
    assert_eq!(versions(), 3);
}

fn each_track(store: &Path, task: &Value) -> Vec<String> {
    let video = task["data"]["name"].as_str().unwrap();
    let tracks = task["data"]["tracks"].as_array().unwrap().iter();
    tracks
        .map(|name| {
            let (modality, class) = name.as_str().unwrap().split_once('/').unwrap();
            track(store, video, modality, class)
        })
        .collect()
}
