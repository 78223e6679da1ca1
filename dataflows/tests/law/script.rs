//! Random versions and what happens to them.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vaplan_dataflows::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use vaplan_dataflows::{DenoisingRule, Prediction, Probability};
use vaplan_schemas::{ClassId, Modality};

use crate::inputs::{GraphChange, GraphInputs};

const CLASSES: u32 = 4;
const VIDEOS: u64 = 5;

/// What happens, version by version.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    changes: Vec<Vec<GraphChange>>,
}

impl Script {
    /// The inputs after each version; before the first there are all classes and nothing else.
    pub(crate) fn versions(&self) -> Vec<GraphInputs> {
        let mut inputs = (0..CLASSES).fold(GraphInputs::default(), |inputs, class| {
            inputs.after(GraphChange::Introduce(ClassId(class), quarter(0)))
        });
        let mut versions = Vec::new();
        for steps in &self.changes {
            inputs = steps.iter().cloned().fold(inputs, GraphInputs::after);
            versions.push(inputs.clone());
        }
        versions
    }
}

/// A first version where most is well, and later ones of any steps.
pub(crate) fn script() -> impl Strategy<Value = Script> {
    let start: Vec<_> = (0..VIDEOS)
        .map(|nth| option::weighted(0.7, good_video(nth)))
        .collect();
    let settings = vec(setting(), 0..8);
    let changes = vec(vec(step(), 1..8), 1..6);
    (start, settings, changes).prop_map(|(start, settings, changes)| {
        let mut first = start.into_iter().flatten().collect::<Vec<_>>().concat();
        first.extend(settings);
        Script {
            changes: [vec![first], changes].concat(),
        }
    })
}

/// A video with a weak label, features of both modalities and, mostly, predictions that fit them.
fn good_video(nth: u64) -> impl Strategy<Value = Vec<GraphChange>> {
    let video = video_of(nth);
    segments().prop_flat_map(move |segments| {
        let candidates = (
            candidate_of(Modality::Audio, segments),
            candidate_of(Modality::Visual, segments),
        );
        let predictions = (
            option::weighted(0.7, prediction(segments)),
            option::weighted(0.7, prediction(segments)),
        );
        let weak = prop_oneof![2 => Just(all_classes()), 1 => classes()];
        (weak, candidates, predictions).prop_map(move |(weak, (heard, seen), (audio, visual))| {
            let mut steps = vec![
                GraphChange::Weak(video, Some(weak)),
                GraphChange::Replace(video, heard),
                GraphChange::Replace(video, seen),
            ];
            for (modality, prediction) in Modality::ALL.into_iter().zip([audio, visual]) {
                steps.extend(prediction.map(|prediction| GraphChange::Predict(video, modality, prediction)));
            }
            steps
        })
    })
}

fn setting() -> impl Strategy<Value = GraphChange> {
    prop_oneof![
        2 => score_threshold(),
        2 => denoise(),
        2 => user_label(),
    ]
}

fn step() -> impl Strategy<Value = GraphChange> {
    prop_oneof![
        3 => (video(), classes()).prop_map(|(video, classes)| GraphChange::Weak(video, Some(classes))),
        1 => video().prop_map(|video| GraphChange::Weak(video, None)),
        2 => (video(), candidate()).prop_map(|(video, candidate)| GraphChange::Add(video, candidate)),
        3 => (video(), candidate()).prop_map(|(video, candidate)| GraphChange::Replace(video, candidate)),
        2 => (0..20usize).prop_map(GraphChange::Remove),
        5 => score_threshold(),
        1 => (-1..3i8, -2..3i8).prop_map(|(scale, shift)| GraphChange::Rule(scale, shift)),
        8 => user_label(),
        2 => (video(), modality()).prop_map(|(video, modality)| GraphChange::Withdraw(video, modality)),
        5 => (video(), modality(), segments().prop_flat_map(prediction))
            .prop_map(|(video, modality, prediction)| GraphChange::Predict(video, modality, prediction)),
        1 => (video(), modality()).prop_map(|(video, modality)| GraphChange::Unpredict(video, modality)),
        4 => denoise(),
        1 => class().prop_map(GraphChange::Retire),
        2 => (class(), score()).prop_map(|(class, score)| GraphChange::Introduce(class, score)),
    ]
}

fn score_threshold() -> impl Strategy<Value = GraphChange> {
    (
        option::weighted(0.8, modality()),
        option::weighted(0.8, class()),
        score(),
    )
        .prop_map(|(modality, class, score)| GraphChange::Cutoff(modality, class, score))
}

fn denoise() -> impl Strategy<Value = GraphChange> {
    let settings = (
        1..6u32,
        prop_oneof![Just(1.0), Just(1.5), Just(3.0), Just(10.0)],
        prop_oneof![Just(0.0), Just(0.5), Just(0.9)],
    )
        .prop_map(|(k, alpha, guard)| DenoisingRule::pld(k, alpha, guard).expect("valid"));
    let bounds = (
        prop_oneof![Just(0.0), Just(0.3), Just(0.5)],
        prop_oneof![Just(0.5), Just(0.7), Just(1.0)],
    )
        .prop_map(|(clear, set)| DenoisingRule::bounds(clear, set).expect("valid"));
    let margin = (
        prop_oneof![Just(0.05), Just(0.25), Just(4.0)],
        prop_oneof![Just(-1.0), Just(0.0), Just(0.5)],
    )
        .prop_map(|(scale, bias)| DenoisingRule::margin(scale, bias).expect("valid"));
    let settings = prop_oneof![2 => settings, 1 => bounds, 2 => margin];
    (modality(), option::weighted(0.8, settings))
        .prop_map(|(modality, settings)| GraphChange::Denoise(modality, settings))
}

fn user_label() -> impl Strategy<Value = GraphChange> {
    let range = prop_oneof![8 => (0..4usize, 1..3usize), 1 => (60..72usize, 1..5usize)];
    (video(), modality(), class(), range, any::<bool>()).prop_map(
        |(video, modality, class, (from, count), label)| GraphChange::UserLabelTrack {
            video,
            modality,
            class,
            from,
            to: from + count,
            label,
        },
    )
}

fn video() -> impl Strategy<Value = VideoId> {
    (0..VIDEOS).prop_map(video_of)
}

/// Hashes of names are anywhere, so these are too.
fn video_of(nth: u64) -> VideoId {
    VideoId(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn modality() -> impl Strategy<Value = Modality> {
    prop_oneof![Just(Modality::Audio), Just(Modality::Visual)]
}

fn class() -> impl Strategy<Value = ClassId> {
    (0..CLASSES).prop_map(ClassId)
}

/// Mostly short and mostly equal, so that things fit; sometimes more than one word of bits.
fn segments() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(3u32), 3 => 1u32..6, 1 => Just(70u32)]
}

/// Few values, so that equal scores, equal copies and scores on the threshold happen.
fn score() -> impl Strategy<Value = Score> {
    (-2i32..=2).prop_map(quarter)
}

fn quarter(value: i32) -> Score {
    Score::new(f64::from(value) / 4.0).expect("finite")
}

fn all_classes() -> Vec<ClassId> {
    (0..CLASSES).map(ClassId).collect()
}

fn classes() -> impl Strategy<Value = Vec<ClassId>> {
    proptest::sample::subsequence(all_classes(), 0..=CLASSES as usize)
}

/// Sure and unsure, right and wrong, the clamped ends, and what is no probability.
fn probability() -> impl Strategy<Value = Probability> {
    prop_oneof![
        3 => Just(0.001f32),
        3 => Just(0.02f32),
        2 => Just(0.3f32),
        1 => Just(0.5f32),
        2 => Just(0.8f32),
        3 => Just(0.999f32),
        1 => prop_oneof![Just(0.0f32), Just(1.0f32)],
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(-0.5f32)],
    ]
    .prop_map(Probability::new)
}

fn prediction(segments: u32) -> impl Strategy<Value = Prediction> {
    let classes = prop_oneof![4 => Just(all_classes()), 1 => classes()];
    (0..3u64, classes, vec(probability(), 1..7)).prop_map(move |(epoch, classes, pattern)| {
        let cells = segments as usize * classes.len();
        let probability = pattern.into_iter().cycle().take(cells).collect();
        Prediction::new(epoch, segments, classes, probability)
    })
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (modality(), segments()).prop_flat_map(|(modality, segments)| candidate_of(modality, segments))
}

fn candidate_of(modality: Modality, segments: u32) -> impl Strategy<Value = Candidate> {
    let classes = prop_oneof![8 => Just(all_classes()), 1 => classes()];
    (classes, 0..3u8, vec(score(), 1..6)).prop_map(move |(classes, source, pattern)| {
        let cells = segments as usize * classes.len();
        let score: Vec<Score> = pattern.into_iter().cycle().take(cells).collect();
        // Of features, only the segments and the pattern of the scores: candidates of other classes can be copies.
        let features: Vec<f32> = score.iter().map(|score| score.get() as f32).collect();
        let cosine = features.iter().map(|value| Cosine::new(*value)).collect();
        Candidate {
            modality,
            source: format!("shard-{source}").into(),
            record: Arc::new(ScoreRecord::new(segments, classes, cosine, score)),
            features: FeatureHash::of(&features),
        }
    })
}
