//! What epochs of a parser add: queues by disagreement, flips and losses.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vaplan_schemas::rows::{LabelRule, Split};
use vaplan_schemas::tables::{Labels, Predictions, Table};

use super::harness::{Server, edit};
use crate::denoise::labelled;
use crate::support::{assert_status, label_changes, run, stdout};

/// Number of segments in which the parser contradicts the scores of the visual tracks of a video, by its page.
fn contradicted(server: &Server, video: &str) -> u64 {
    let shown = server.json(&format!("/api/video?name={video}"));
    let visual = shown["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|track| track["modality"] == "visual");
    let of_track = |track: &Value| {
        let threshold = track["threshold"].as_f64().unwrap();
        let predicted = track["probabilities"].as_array().unwrap().iter();
        let scores = track["scores"].as_array().unwrap().iter();
        let differ = |(probability, score): &(&Value, &Value)| {
            (probability.as_f64().unwrap() >= 0.5) != (score.as_f64().unwrap() > threshold)
        };
        predicted.zip(scores).filter(differ).count() as u64
    };
    visual.map(of_track).sum()
}

#[test]
fn an_epoch_fills_the_queues_and_a_correction_empties_them() {
    let case = labelled();
    let server = Server::start(Path::new(&case.store), &[]);
    assert_eq!(server.json("/api/videos?order=parser")["total"], 0);
    case.epoch(1, &Split::ALL, None);

    let queue = server.json("/api/videos?order=parser&modality=visual&rows=200&at_least=2");
    assert_eq!(queue["version"], 2);
    let list = queue["list"].as_array().unwrap();
    let counts: Vec<u64> = list
        .iter()
        .map(|row| contradicted(&server, row["video"].as_str().unwrap()))
        .collect();
    assert!(
        !counts.is_empty() && counts[0] > 0 && counts.is_sorted_by(|a, b| a >= b),
        "{counts:?}"
    );
    let losses = server.json("/api/videos?order=loss&rows=200");
    let losses: Vec<f64> = losses["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(
        losses.len() == 24 && losses.is_sorted_by(|a, b| a >= b),
        "{losses:?}"
    );

    assert_status(&case.denoise(&["--epoch", "1"]), 0);
    let snapshot = case.latest();
    let version = snapshot.version().version;
    let labels = snapshot.read::<Labels>().unwrap();
    let flipped: BTreeSet<&str> = labels
        .iter()
        .filter(|track| track.rules.contains(&LabelRule::Pld))
        .map(|track| &*track.video)
        .collect();
    let queue = server.json(&format!("/api/videos?order=pld&rows=200&at_least={version}"));
    let found: BTreeSet<&str> = queue["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["video"].as_str().unwrap())
        .collect();
    assert!(!flipped.is_empty());
    assert_eq!(found, flipped);

    let again = Server::start(Path::new(&case.store), &["--read-only"]);
    let overview = again.json("/api/overview");
    assert_eq!(
        (&overview["epoch"], &overview["epochs"][0]["epoch"]),
        (&json!(1), &json!(1))
    );
    let changes = label_changes(&snapshot)
        .into_iter()
        .filter(|change| change.rule == LabelRule::Pld)
        .count();
    let flips = &overview["flips"];
    let sum = |counts: &Value| -> u64 {
        let counts = counts.as_array().unwrap().iter();
        counts.map(|count| count.as_u64().unwrap()).sum()
    };
    assert_eq!(flips["epochs"].as_array().unwrap().len(), 1);
    let epoch = &flips["epochs"][0];
    assert_eq!(
        (&epoch["epoch"], sum(&epoch["flips"])),
        (&json!(1), changes as u64)
    );
    let tracks = flips["tracks"].as_array().unwrap().iter();
    let of_tracks = tracks.map(|track| sum(&track["set"]) + sum(&track["unset"]));
    assert_eq!(of_tracks.sum::<u64>(), changes as u64);

    // The queue of gain begins with a video of the class that the overview puts first.
    let classes = overview["classes"].as_array().unwrap();
    let gain = |row: &&Value| row["gain"].as_f64().unwrap();
    let most = classes.iter().max_by(|a, b| gain(a).total_cmp(&gain(b))).unwrap();
    assert!(gain(&most) > 0.0, "{most}");
    let queue = again.json("/api/videos?order=gain&rows=200");
    let first = &queue["list"][0];
    assert!(
        first["classes"].as_array().unwrap().contains(&most["class"]),
        "{first} {most}"
    );
    assert!(first["parser"].as_u64().unwrap() + first["pld"].as_u64().unwrap() > 0);

    // A person decides about every flipped label of one track, which then is no flip any more.
    let track = labels
        .iter()
        .find(|track| track.rules.contains(&LabelRule::Pld))
        .unwrap();
    let modality = track.modality.as_str();
    let whole = (0, track.segments() as u32);
    let saved = server.saved(
        version,
        json!([edit(&track.video, modality, &track.class, whole, Some(true))]),
    );
    let path = format!(
        "/api/videos?rule=pld&modality={modality}&class={}&rows=200&at_least={}",
        track.class, saved["version"]
    );
    let left = server.json(&path);
    let left = left["list"].as_array().unwrap();
    assert!(left.iter().all(|row| row["video"] != *track.video), "{left:?}");
    // Its undo gives the flips back: labels are a function of the tables.
    server.saved(saved["version"].as_u64().unwrap(), saved["undo"].clone());
    assert_eq!(case.latest().read::<Labels>().unwrap(), labels);
}

/// The epochs of the predictions that the overview scores on split test, each with its visual F-scores by class.
fn scored(overview: &Value) -> Vec<(u64, Value)> {
    let stages = overview["quality"][0]["stages"].as_array().unwrap().iter();
    let parsers = stages.filter(|stage| stage["stage"] == "parser");
    parsers
        .map(|stage| (stage["epoch"].as_u64().unwrap(), stage["visual"].clone()))
        .collect()
}

#[test]
fn each_epoch_is_scored_by_class_and_its_files_are_read_once() {
    let case = labelled();
    for epoch in [1, 2] {
        case.epoch(epoch, &Split::ALL, None);
    }
    // This epoch has no predictions of the split with truth.
    case.epoch(3, &[Split::Train], None);
    case.epoch(4, &Split::ALL, None);
    let server = Server::start(Path::new(&case.store), &[]);
    let overview = server.json("/api/overview");
    let before = scored(&overview);
    let epochs: Vec<u64> = before.iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs, [1, 2, 4]);
    let quality = &overview["quality"][0];
    let classes: Vec<&Value> = overview["classes"]
        .as_array()
        .unwrap()
        .iter()
        .step_by(2)
        .map(|row| &row["class"])
        .collect();
    for stage in quality["stages"].as_array().unwrap() {
        let scores = stage["visual"].as_array().unwrap();
        assert_eq!((scores.len(), &stage["videos"]), (classes.len(), &json!(6)));
        let known = scores.iter().filter_map(Value::as_f64);
        assert!(known.clone().count() > 1 && known.clone().all(|score| score <= 100.0));
    }

    // The scores are those of `eval`. Predictions with rows of the whole video are scored by protocol `fused`.
    let words = ["eval", "--store", &case.store, "--split", "test", "--epoch", "2"];
    let output = run(words.iter().chain(&["--per-class", "--format", "json"]));
    assert_status(&output, 0);
    let evaluated: Value = serde_json::from_str(stdout(&output)).unwrap();
    let shown = quality["stages"].as_array().unwrap();
    let shown = shown.iter().find(|stage| stage["epoch"] == 2).unwrap();
    assert_eq!(shown["protocol"], evaluated["protocol"]);
    assert_eq!(shown["scores"]["segment"], evaluated["segment"]);
    let per_class = evaluated["per_class"].as_array().unwrap();
    assert_eq!(per_class.len(), classes.len());
    for (at, own) in per_class.iter().enumerate() {
        assert_eq!(own["class"], *classes[at]);
        for modality in ["audio", "visual"] {
            let (found, expected) = (shown[modality][at].as_f64(), own[modality].as_f64());
            let equal = match found.zip(expected) {
                Some((found, expected)) => (found - expected).abs() <= 0.005 + 1e-9,
                None => found == expected,
            };
            assert!(
                equal,
                "{modality} {}: {found:?} on the page, {expected:?} by eval",
                own["class"]
            );
        }
    }

    // The files of epoch 1 are taken away. The scores of an epoch are kept, so that the overview of a later version does not
    // miss the files. The page of a video needs the last epoch only.
    let snapshot = case.latest();
    let files = snapshot.files(Predictions::NAME).unwrap();
    let of_first = files.iter().find(|file| file.version() == Some(2)).unwrap();
    std::fs::rename(&of_first.path, of_first.path.with_extension("away")).unwrap();
    let track = &snapshot.read::<Labels>().unwrap()[0];
    let (modality, version) = (track.modality.as_str(), snapshot.version().version);
    let edits = json!([edit(&track.video, modality, &track.class, (0, 3), Some(true))]);
    let version = server.saved(version, edits)["version"].as_u64().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let later = loop {
        let overview = server.json("/api/overview");
        if overview["version"] == version {
            break overview;
        }
        assert!(Instant::now() < deadline, "version {version} has an overview");
        // The list of the version is awaited by the server.
        server.json(&format!("/api/videos?at_least={version}"));
    };
    assert_eq!(scored(&later), before);
}
