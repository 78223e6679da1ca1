//! Lists, the overview, and names that look like HTML.

use std::fs;

use serde_json::{Value, json};

use super::harness::{ServedStore, Server, edit, quoted};
use crate::sample::{CLASSES, Sample, name};
use crate::support::{assert_status, run, stdout};

fn names(page: &Value) -> Vec<&str> {
    let list = page["list"].as_array().unwrap();
    list.iter().map(|row| row["video"].as_str().unwrap()).collect()
}

#[test]
fn pages_hold_every_video_once_and_name_their_version() {
    let served = ServedStore::new(23, &[]);
    let mut found = Vec::new();
    for page in 0..5 {
        let page = served.server.json(&format!("/api/videos?rows=5&page={page}"));
        assert_eq!((&page["version"], &page["total"]), (&json!(1), &json!(23)));
        found.extend(names(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(found, (0..23).map(name).collect::<Vec<_>>());
    let test = served.server.json("/api/videos?split=test");
    assert_eq!(test["total"], 5);
    let one = served
        .server
        .json(&format!("/api/videos?q={}", &name(7).to_uppercase()));
    assert_eq!(names(&one), [name(7)]);
}

#[test]
fn filters_and_queues_are_those_of_the_tables() {
    let served = ServedStore::new(40, &[]);
    for class in CLASSES {
        let page = served.server.json(&format!("/api/videos?class={class}&rows=200"));
        assert!(page["total"].as_u64().unwrap() > 0);
        for video in names(&page) {
            let shown = served.server.json(&format!("/api/video?name={video}"));
            assert!(
                shown["weak_labels"].as_array().unwrap().contains(&json!(class)),
                "{video}"
            );
        }
    }
    let near = served.server.json("/api/videos?order=near&rows=200");
    let distances: Vec<f64> = near["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["near"].as_f64().unwrap())
        .collect();
    assert!(distances.is_sorted() && distances.len() == 40);
    // The distance of the first is that of its nearest score.
    let shown = served
        .server
        .json(&format!("/api/video?name={}", names(&near)[0]));
    let of_track = |track: &Value| {
        let threshold = track["threshold"].as_f64().unwrap();
        let scores = track["scores"].as_array().unwrap().iter();
        scores
            .map(|score| (score.as_f64().unwrap() / threshold - 1.0).abs())
            .fold(f64::INFINITY, f64::min)
    };
    let nearest = shown["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .map(of_track)
        .fold(f64::INFINITY, f64::min);
    assert!(
        (nearest - distances[0]).abs() < 1e-4,
        "{nearest} {}",
        distances[0]
    );
    // No epoch, so nothing is flipped, and no parser disagrees.
    for order in ["pld", "parser", "loss"] {
        assert_eq!(
            served.server.json(&format!("/api/videos?order={order}"))["total"],
            0,
            "{order}"
        );
    }
    // "No predictions" is not "loss 0".
    let rows = served.server.json("/api/videos");
    assert_eq!(
        (&rows["list"][0]["loss"], &rows["list"][0]["parser"]),
        (&Value::Null, &Value::Null)
    );
    let av = served.server.json("/api/videos?order=av&rows=200");
    let counts: Vec<u64> = av["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["av"].as_u64().unwrap())
        .collect();
    assert!(!counts.is_empty() && counts.is_sorted_by(|a, b| a >= b));
}

#[test]
fn the_list_follows_a_save_and_puts_the_unreviewed_first() {
    let served = ServedStore::new(6, &[]);
    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    let class = shown["tracks"][0]["class"].as_str().unwrap();
    let modality = shown["tracks"][0]["modality"].as_str().unwrap();
    served
        .server
        .saved(1, json!([edit(&name(0), modality, class, (0, 10), Some(true))]));
    let page = served.server.json("/api/videos?unreviewed_first=true&at_least=2");
    assert_eq!(page["version"], 2);
    assert_eq!(
        names(&page),
        [name(1), name(2), name(3), name(4), name(5), name(0)]
    );
    assert_eq!(page["list"][5]["user"], 10);
    // A list that was made anew says the same.
    let again = Server::start(&served.store(), &["--read-only"]);
    assert_eq!(
        again.json("/api/videos?unreviewed_first=true")["list"],
        page["list"]
    );
}

#[test]
fn the_overview_counts_what_the_tables_hold() {
    let served = ServedStore::new(24, &[]);
    let overview = served.server.json("/api/overview");
    assert_eq!(
        (&overview["version"], &overview["latest"]),
        (&json!(1), &json!(1))
    );
    let splits = overview["splits"].as_array().unwrap();
    assert_eq!(
        splits
            .iter()
            .map(|split| split["videos"].as_u64().unwrap())
            .sum::<u64>(),
        24
    );
    let labels = served.latest().read::<vaplan_schemas::tables::Labels>().unwrap();
    let set: usize = labels
        .iter()
        .map(|track| track.labels.iter().filter(|label| **label).count())
        .sum();
    let classes = overview["classes"].as_array().unwrap();
    assert_eq!(
        classes
            .iter()
            .map(|row| row["set"].as_u64().unwrap())
            .sum::<u64>(),
        set as u64
    );
    let quality = &overview["quality"][0];
    assert_eq!(
        (&quality["split"], &quality["videos"]),
        (&json!("test"), &json!(6))
    );
    assert_eq!(
        quality["stages"][0]["scores"], quality["stages"][1]["scores"],
        "without flips and user labels, the labels are those of PLG"
    );
    let store = served.store();
    let words = [
        "eval",
        "--store",
        store.to_str().unwrap(),
        "--split",
        "test",
        "--format",
        "json",
    ];
    let output = run(words);
    assert_status(&output, 0);
    let scores: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert!(scores["segment"]["type_av"].as_f64().unwrap() > 0.0, "{scores}");
    for level in ["segment", "event"] {
        for (name, value) in scores[level].as_object().unwrap() {
            let shown = quality["stages"][1]["scores"][level][name].as_f64().unwrap();
            let value = value.as_f64().unwrap();
            assert!(
                (shown - value).abs() < 1e-9,
                "{level} {name}: {shown} on the page, {value} by eval"
            );
        }
    }
    let sweep = &overview["sweeps"][0];
    assert_eq!(
        (&sweep["split"], sweep["steps"].as_array().unwrap().len()),
        (&json!("test"), 41)
    );
}

#[test]
fn markup_in_names_stays_data() {
    let (class, video) = ("<img src=x onerror=alert(1)>", "<script>ale_0_10");
    let sample = Sample::new(4);
    let folder = sample.path("annotations");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("Bark", class).replace(&name(0), video)).unwrap();
    }
    for modality in ["audio", "visual"] {
        let to = sample.path(modality).join(format!("{}.npy", &video[..11]));
        fs::rename(sample.features(modality, 0), to).unwrap();
    }
    assert_status(&sample.label("store", &[]), 0);
    let server = Server::start(&sample.path("store"), &["--author", "<b>Ana</b>"]);
    let list = server.get("/api/videos");
    assert!(
        list.header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    assert!(names(&list.json()).contains(&video));
    let page = server.json(&format!("/api/videos?class={}", quoted(class)));
    assert!(page["total"].as_u64().unwrap() > 0);
    let shown = server.json(&format!("/api/video?name={}", quoted(video)));
    let tracks = shown["tracks"].as_array().unwrap();
    let own = &tracks[0];
    let edits = json!([edit(
        video,
        own["modality"].as_str().unwrap(),
        own["class"].as_str().unwrap(),
        (0, 2),
        Some(true)
    )]);
    let saved =
        server.save(&json!({"version": 1, "edits": edits, "note": "</script><script>alert(1)</script>"}));
    assert_eq!(saved.status, 200, "{}", saved.text());
    // An error that repeats a name is JSON, too, so that no browser reads it as HTML.
    let missing = server.get(&format!(
        "/api/video?name={}",
        quoted("<script>alert(1)</script>")
    ));
    assert_eq!(missing.status, 404);
    assert!(
        missing
            .header("content-type")
            .unwrap()
            .starts_with("application/json")
    );
}
