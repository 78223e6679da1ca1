//! A store of two videos, written by the store's own hand: what tests of `query`, `log` and `check` read.
//!
//! `AAAAAAAAAAA_0_6` has six segments of a second, `-rf_BBBBBBB_30_36` three of two seconds. Version 2 is a person's
//! correction of one label of version 1. Every score is exact in binary.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::rows::{
    ClassRow, LabelChangeRow, LabelChangeTrack, LabelRule, LabelTrack, ScoreTrack, Split, VideoRow,
};
use vaplan_schemas::store::{Commit, CommitInfo, Store};
use vaplan_schemas::tables::{Classes, LabelChanges, Labels, Scores, Videos};
use vaplan_schemas::{Modality, bucket_of};

pub(crate) const LONG: &str = "AAAAAAAAAAA_0_6";
pub(crate) const SHORT: &str = "-rf_BBBBBBB_30_36";
/// What every score is compared with.
const THRESHOLD: f64 = 0.1875;

/// Scores by video, modality and class, sorted by the key of the tables.
const SCORES: [(&str, Modality, &str, &[f64]); 4] = [
    (SHORT, Modality::Audio, "Speech", &[0.125, 0.125, 0.125]),
    (SHORT, Modality::Visual, "Speech", &[0.25, 0.25, 0.5]),
    (
        LONG,
        Modality::Audio,
        "Dog",
        &[0.125, 0.25, 0.5, 0.125, 0.75, 1.0],
    ),
    (
        LONG,
        Modality::Visual,
        "Dog",
        &[0.125, 0.125, 0.25, 0.5, 0.75, 0.125],
    ),
];

/// Makes the store `name` below `folder`.
pub(crate) fn small_store(folder: &Path, name: &str) -> PathBuf {
    let root = folder.join(name);
    let store = Store::create(&root).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let info = |command: &str| CommitInfo {
        command: command.to_owned(),
        inputs: command.to_owned(),
        program: "0.1.0".to_owned(),
        // As many as make four buckets: each video is in a file of its own.
        videos: 4096,
        ..CommitInfo::default()
    };

    let mut first = store.begin(&lock, info("vaplan label --store S")).unwrap();
    let classes: Vec<ClassRow> = [("Dog", 0), ("Speech", 1)]
        .into_iter()
        .flat_map(|(class, position)| Modality::ALL.map(|modality| class_row(class, position, modality)))
        .collect();
    first.replace_all::<Classes>(&classes).unwrap();
    let videos = [video_row(SHORT, 3, 2.0, "Speech"), video_row(LONG, 6, 1.0, "Dog")];
    for video in &videos {
        let bucket = bucket_of(&video.video, first.buckets());
        first
            .replace_bucket::<Videos>(bucket, std::slice::from_ref(video))
            .unwrap();
        let scores: Vec<ScoreTrack> = SCORES
            .iter()
            .filter(|track| *track.0 == *video.video)
            .map(|&(video, modality, class, score)| ScoreTrack {
                video: video.into(),
                modality,
                class: class.into(),
                cosine: score.iter().map(|&score| score as f32).collect(),
                score: score.to_vec(),
            })
            .collect();
        first.replace_bucket::<Scores>(bucket, &scores).unwrap();
    }
    let before = labels(&[(SHORT, Modality::Audio, 1)]);
    write_labels(&mut first, &before);
    let changes = changes(1, &[], &before);
    first.append::<LabelChanges>(&changes).unwrap();
    first.finish().unwrap();

    let mut second = store.begin(&lock, info("vaplan relabel --store S")).unwrap();
    let after = labels(&[(SHORT, Modality::Audio, 1), (LONG, Modality::Visual, 5)]);
    write_labels(&mut second, &after);
    let changes = self::changes(2, &before, &after);
    assert_eq!(changes.len(), 1);
    second.append::<LabelChanges>(&changes).unwrap();
    second.finish().unwrap();
    root
}

/// The label tracks, with the labels of these segments set by a person.
fn labels(by_hand: &[(&str, Modality, usize)]) -> Vec<LabelTrack> {
    let track = |&(video, modality, class, scores): &(&str, Modality, &str, &[f64])| {
        let mut track = LabelTrack::plg(video.into(), modality, class.into(), scores.to_vec(), THRESHOLD);
        for segment in 0..scores.len() {
            if by_hand.contains(&(video, modality, segment)) {
                track.set(segment, true, LabelRule::User, None);
            }
        }
        track
    };
    SCORES.iter().map(track).collect()
}

fn write_labels(commit: &mut Commit<'_>, tracks: &[LabelTrack]) {
    for tracks in tracks.chunk_by(|a, b| a.video == b.video) {
        let bucket = bucket_of(&tracks[0].video, commit.buckets());
        commit.replace_bucket::<Labels>(bucket, tracks).unwrap();
    }
}

fn changes(version: u64, before: &[LabelTrack], after: &[LabelTrack]) -> Vec<LabelChangeTrack> {
    let mut rows = Vec::new();
    for (nth, track) in after.iter().enumerate() {
        for (segment, cell) in track.iter().enumerate() {
            let from = before.get(nth).is_some_and(|track| track.labels[segment]);
            if from != cell.label {
                rows.push(LabelChangeRow {
                    version,
                    video: track.video.clone(),
                    modality: track.modality,
                    class: track.class.clone(),
                    segment: segment as u32,
                    from,
                    to: cell.label,
                    rule: cell.rule,
                    why: None,
                });
            }
        }
    }
    LabelChangeTrack::group(rows)
}

fn class_row(class: &str, position: u32, modality: Modality) -> ClassRow {
    ClassRow {
        class: class.into(),
        position,
        modality,
        prompt: None,
        rule: "softmax".into(),
        scale: 1.0,
        threshold: 2.0 * THRESHOLD,
        score_threshold: THRESHOLD,
    }
}

fn video_row(video: &str, segments: u32, segment_seconds: f64, class: &str) -> VideoRow {
    let file: Arc<str> = "features.parquet".into();
    VideoRow {
        video: video.into(),
        split: Split::Train,
        segments,
        segment_seconds,
        weak_labels: vec![class.into()],
        guessed: false,
        source: "train.csv".into(),
        audio_source: Some(file.clone()),
        visual_source: Some(file),
    }
}
