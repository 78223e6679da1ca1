//! Labels and truth as tables of a store have them.

use std::sync::Arc;

use vaplan::eval::{DenseTruth, EvalError, PredictedLabels, evaluate, predictions};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelTrack, Split, TruthRow, VideoRow};

fn classes() -> Vec<Arc<str>> {
    vec!["Speech".into(), "Dog".into()]
}

fn video(name: &str, segments: u32, audio: bool, visual: bool) -> VideoRow {
    VideoRow {
        video: name.into(),
        split: Split::Test,
        segments,
        segment_seconds: 1.0,
        weak_labels: vec!["Dog".into()],
        guessed: false,
        source: "test.csv".into(),
        audio_source: audio.then(|| "audio".into()),
        visual_source: visual.then(|| "visual".into()),
    }
}

/// A track of `#` and `.`.
fn track(video: &str, modality: Modality, class: &str, cells: &str) -> LabelTrack {
    let scores = cells
        .chars()
        .map(|cell| if cell == '#' { 0.5 } else { 0.3 })
        .collect();
    LabelTrack::plg(video.into(), modality, class.into(), scores, 0.4)
}

fn event(video: &str, modality: Modality, class: &str, onset: u32, offset: u32) -> TruthRow {
    TruthRow {
        video: video.into(),
        modality,
        class: class.into(),
        onset,
        offset,
    }
}

/// Videos `a` (a dog is heard in 0..4) and `b` (quiet).
fn truth() -> DenseTruth {
    let rows = [
        event("a", Modality::Audio, "Dog", 0, 4),
        event("of another split", Modality::Audio, "Dog", 0, 4),
    ];
    DenseTruth::of_rows(classes(), Split::Test, ["b".into(), "a".into()], rows).unwrap()
}

#[test]
fn videos_are_sorted_and_rows_of_other_splits_passed_over() {
    let truth = truth();
    let names: Vec<&str> = truth.videos.iter().map(|video| &*video.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        (truth.videos[0].events.len(), truth.videos[1].events.len()),
        (1, 0)
    );
}

#[test]
fn tracks_become_matrices_of_their_videos() {
    let videos = [video("a", 4, true, true), video("b", 70, true, false)];
    let tracks = [
        track("a", Modality::Audio, "Dog", "##.#"),
        track("of another split", Modality::Audio, "Dog", "#"),
        track("b", Modality::Audio, "Speech", &format!("{}#", ".".repeat(69))),
    ];
    let [a, b]: [PredictedLabels; 2] = predictions::of_tables(&truth(), &videos, &tracks)
        .unwrap()
        .try_into()
        .unwrap();
    let audio = a.audio.unwrap();
    assert_eq!(audio.runs(1).collect::<Vec<_>>(), [(0, 2), (3, 4)]);
    assert_eq!((audio.segments(), audio.runs(0).count()), (4, 0));
    assert_eq!(
        a.visual.map(|visual| visual.runs(1).count()),
        Some(0),
        "features, but no label"
    );
    assert_eq!(b.audio.unwrap().runs(0).collect::<Vec<_>>(), [(69, 70)]);
    assert_eq!(b.visual, None, "no features");
}

#[test]
fn videos_without_features_are_missing_and_scored_as_nothing() {
    let videos = [video("a", 4, true, true), video("b", 0, false, false)];
    let tracks = [track("a", Modality::Audio, "Dog", "####")];
    let truth = truth();
    let report = evaluate(
        &truth,
        &predictions::of_tables(&truth, &videos, &tracks).unwrap(),
        false,
    )
    .unwrap();
    let names: Vec<Arc<str>> = vec!["b".into()];
    assert_eq!((&report.missing.audio, &report.missing.visual), (&names, &names));
    assert_eq!(report.scores.segment.audio, 100.0);
    assert!(matches!(
        evaluate(
            &truth,
            &[PredictedLabels::default(), PredictedLabels::default()],
            false
        ),
        Err(EvalError::NoPredictions {
            split: Split::Test,
            videos: 2
        })
    ));
}

#[test]
fn a_track_of_another_length_is_an_error() {
    let videos = [video("a", 4, true, true)];
    let tracks = [track("a", Modality::Visual, "Dog", "###")];
    let error = predictions::of_tables(&truth(), &videos, &tracks).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `labels`, video `a`, visual, class `Dog`: 3 segments, expected 4"
    );
}

#[test]
fn an_unknown_class_is_an_error_with_the_nearest() {
    let videos = [video("a", 4, true, true)];
    let tracks = [track("a", Modality::Visual, "Dgo", "####")];
    let error = predictions::of_tables(&truth(), &videos, &tracks).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `labels` has class `Dgo`, which the truth does not know (nearest: `Dog`)"
    );
    let rows = [event("a", Modality::Audio, "Speach", 0, 4)];
    let error = DenseTruth::of_rows(classes(), Split::Test, ["a".into()], rows).unwrap_err();
    assert_eq!(
        error.to_string(),
        "table `truth` has class `Speach`, which the truth does not know (nearest: `Speech`)"
    );
}
