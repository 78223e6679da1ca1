//! What epochs of a parser add: queues by disagreement, flips and losses.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use vaplan_schemas::rows::{LabelRule, Split};
use vaplan_schemas::tables::Labels;

use super::harness::{Server, edit};
use crate::denoise::labelled;
use crate::support::{assert_status, label_changes};

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
    let flips = &overview["flips"][0];
    let sum: u64 = flips["flips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!((&flips["epoch"], sum), (&json!(1), changes as u64));

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
