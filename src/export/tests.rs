//! Exports of the sample, read again.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::engine::Listener;
use crate::eval::predictions::of_folders;
use crate::eval::{DenseTruth, store};
use crate::ingest::annotations::Annotations;

struct Sample {
    folder: tempfile::TempDir,
    request: crate::LabelRequest,
}

fn sample() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let request = crate::sample(folder.path()).unwrap();
    crate::label(&request, &Listener::silent()).unwrap();
    Sample { folder, request }
}

impl Sample {
    fn export(&self, format: ExportFormat, splits: &[Split]) -> (PathBuf, ExportSummary) {
        let out = self.folder.path().join(format.name());
        let request = ExportRequest {
            splits: splits.to_vec(),
            ..ExportRequest::new(self.request.store.clone(), format, out.clone())
        };
        let summary = run(&request).unwrap();
        assert_eq!(summary.version, 1);
        (out, summary)
    }

    fn snapshot(&self) -> Snapshot {
        Store::open(&self.request.store)
            .unwrap()
            .at_version(None)
            .unwrap()
    }
}

#[test]
fn valor_folders_score_like_the_store_and_have_every_video() {
    let sample = sample();
    let (out, summary) = sample.export(ExportFormat::Valor, &Split::ALL);
    assert_eq!((summary.videos, summary.left_out.len()), (80, 0));
    assert_eq!(std::fs::read_dir(out.join("visual")).unwrap().count(), 80);
    let annotations = Annotations::read(&sample.request.annotations).unwrap();
    let truth = DenseTruth::of_annotations(&annotations, Split::Test).unwrap();
    let (labels, rejects) =
        of_folders(&truth, &annotations, &out.join("audio"), &out.join("visual")).unwrap();
    assert!(rejects.is_empty());
    let (truth_of_store, labels_of_store) =
        store::of_snapshot(&sample.snapshot(), Split::Test, None).unwrap();
    let score = |truth, labels| crate::eval::evaluate(truth, labels, false).unwrap().scores;
    assert_eq!(score(&truth, &labels), score(&truth_of_store, &labels_of_store));
}

#[test]
fn llp_files_are_annotations_with_the_labels_as_truth() {
    let sample = sample();
    let (out, _) = sample.export(ExportFormat::LlpCsv, &[Split::Test]);
    let again = Annotations::read(&out).unwrap();
    assert_eq!(again.videos.len(), 24);
    let truth = DenseTruth::of_annotations(&again, Split::Test).unwrap();
    let (_, labels) = store::of_snapshot(&sample.snapshot(), Split::Test, Some(&again)).unwrap();
    let scores = crate::eval::evaluate(&truth, &labels, false).unwrap().scores;
    for (name, score) in scores.named() {
        assert_eq!(score, 100.0, "{name}");
    }
}

#[test]
fn activitynet_and_parquet_hold_every_set_label() {
    let sample = sample();
    let rows = sample
        .snapshot()
        .read::<vaplan_schemas::tables::Labels>()
        .unwrap();
    // Every set label: video, modality, class and segment.
    let mut expected = BTreeSet::new();
    for row in &rows {
        let set = row.labels.iter().enumerate().filter(|(_, label)| **label);
        let place = (
            row.video.to_string(),
            row.modality.as_str().to_owned(),
            row.class.to_string(),
        );
        expected.extend(set.map(|(segment, _)| (place.clone(), segment)));
    }
    let (out, _) = sample.export(ExportFormat::ActivityNet, &Split::ALL);
    let text = std::fs::read_to_string(out.join("labels.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let videos: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(document["database"].clone()).unwrap();
    let mut found = BTreeSet::new();
    for (video, entry) in &videos {
        for event in entry["annotations"].as_array().unwrap() {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            let second = |at: usize| event["segment"][at].as_f64().unwrap() as usize;
            let place = (video.clone(), text("modality"), text("label"));
            found.extend((second(0)..second(1)).map(|segment| (place.clone(), segment)));
        }
    }
    assert_eq!(found, expected);
    assert_eq!(videos.len(), 80);

    let (out, _) = sample.export(ExportFormat::HuggingFace, &[Split::Val, Split::Test]);
    assert!(!out.join("data/train-00000-of-00001.parquet").exists());
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("  - split: validation\n    path: data/validation-00000-of-00001.parquet\n"));
}

#[test]
fn a_folder_with_files_is_refused_and_kept() {
    let sample = sample();
    let (out, _) = sample.export(ExportFormat::LlpCsv, &[Split::Test]);
    let store = sample.request.store.clone();
    let mut request = ExportRequest {
        splits: vec![Split::Test],
        ..ExportRequest::new(store, ExportFormat::Valor, out.clone())
    };
    let error = run(&request).unwrap_err();
    assert!(matches!(error, ExportError::NotEmpty { .. }), "{error}");
    assert!(out.join("AVVP_eval_audio.csv").exists());
    // A file is no folder, whatever it holds.
    request.out = sample.folder.path().join("file");
    std::fs::write(&request.out, "").unwrap();
    let error = run(&request).unwrap_err();
    let expected = format!(
        "`{}` is no folder, expected a folder that is new or empty",
        request.out.display()
    );
    assert_eq!(error.to_string(), expected);
    request.out = sample.folder.path().join("none");
    request.splits.clear();
    assert!(matches!(run(&request).unwrap_err(), ExportError::NoVideos { .. }));
    assert!(!request.out.exists());
}

#[test]
fn media_without_the_name_of_the_video_is_refused_for_several_videos() {
    let sample = sample();
    let request = |format, media: &str| {
        let out = sample.folder.path().join("out");
        let mut request = ExportRequest::new(sample.request.store.clone(), format, out);
        request.media = media.to_owned();
        request
    };
    for format in [
        ExportFormat::Elan,
        ExportFormat::FiftyOne,
        ExportFormat::LabelStudio,
    ] {
        let refused = request(format, "{vid}.mp4");
        assert_eq!(
            run(&refused).unwrap_err().to_string(),
            "--media is `{vid}.mp4`, and `{vid}` is unknown, so that 80 videos have the same media: expected `{video}` or `{id}` \
             in it"
        );
        assert!(!refused.out.exists());
    }
    // This format does not name the media.
    run(&request(ExportFormat::Csv, "nothing")).unwrap();
}

#[test]
fn events_have_the_mean_of_their_scores() {
    let sample = sample();
    let (out, _) = sample.export(ExportFormat::Csv, &Split::ALL);
    let rows = sample
        .snapshot()
        .read::<vaplan_schemas::tables::Scores>()
        .unwrap();
    let scores: BTreeMap<_, _> = rows
        .iter()
        .map(|row| ((&*row.video, row.modality.as_str(), &*row.class), &row.score))
        .collect();
    let mut reader = csv::Reader::from_path(out.join("events.csv")).unwrap();
    let mut events: BTreeMap<(String, String, String), Vec<f64>> = BTreeMap::new();
    for record in reader.records() {
        let record = record.unwrap();
        let own = scores[&(&record[0], &record[1], &record[2])];
        let [start, end, score] = [3, 4, 6].map(|at| record[at].parse::<f64>().unwrap());
        let span = &own[start as usize..end as usize];
        let mean = span.iter().sum::<f64>() / span.len() as f64;
        assert!((score - mean).abs() < 1e-5, "{record:?}: the mean is {mean}");
        let key = [0, 1, 2].map(|at| record[at].to_owned());
        events.entry(key.into()).or_default().push(score);
    }
    assert!(events.len() > 80);
    let (out, _) = sample.export(ExportFormat::LabelStudio, &Split::ALL);
    let text = std::fs::read_to_string(out.join("tasks.json")).unwrap();
    let tasks: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let regions = tasks
        .iter()
        .flat_map(|task| task["predictions"][0]["result"].as_array().unwrap());
    let all: f64 = events.values().flatten().sum();
    let of_regions: f64 = regions.map(|region| region["score"].as_f64().unwrap()).sum();
    assert!((all - of_regions).abs() < 1e-2, "{all} and {of_regions}");
    assert!(
        tasks
            .iter()
            .all(|task| task["predictions"][0]["result"] == serde_json::json!([])
                || task["predictions"][0]["score"].is_f64())
    );
}
