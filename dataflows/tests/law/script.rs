//! Random worlds and what happens to them.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vaplan_dataflows::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use vaplan_dataflows::{DenoisingRule, Prediction, Probability};
use vaplan_schemas::{ClassId, Modality};

use crate::world::{Step, World};

const CLASSES: u32 = 4;
const VIDEOS: u64 = 5;

/// What happens, version by version.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    versions: Vec<Vec<Step>>,
}

impl Script {
    /// The world after each version; before the first there are all classes and nothing else.
    pub(crate) fn worlds(&self) -> Vec<World> {
        let mut world = (0..CLASSES).fold(World::default(), |world, class| {
            world.after(Step::Introduce(ClassId(class), quarter(0)))
        });
        let mut worlds = Vec::new();
        for steps in &self.versions {
            world = steps.iter().cloned().fold(world, World::after);
            worlds.push(world.clone());
        }
        worlds
    }
}

/// A first version where most is well, and later ones of any steps.
pub(crate) fn script() -> impl Strategy<Value = Script> {
    let start: Vec<_> = (0..VIDEOS)
        .map(|nth| option::weighted(0.7, good_video(nth)))
        .collect();
    let settings = vec(setting(), 0..8);
    let versions = vec(vec(step(), 1..8), 1..6);
    (start, settings, versions).prop_map(|(start, settings, versions)| {
        let mut first = start.into_iter().flatten().collect::<Vec<_>>().concat();
        first.extend(settings);
        Script {
            versions: [vec![first], versions].concat(),
        }
    })
}

/// A video with a weak label, features of both modalities and, mostly, predictions that fit them.
fn good_video(nth: u64) -> impl Strategy<Value = Vec<Step>> {
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
                Step::Weak(video, Some(weak)),
                Step::Replace(video, heard),
                Step::Replace(video, seen),
            ];
            for (modality, prediction) in Modality::ALL.into_iter().zip([audio, visual]) {
                steps.extend(prediction.map(|prediction| Step::Predict(video, modality, prediction)));
            }
            steps
        })
    })
}

fn setting() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => score_threshold(),
        2 => denoise(),
        2 => user_label(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (video(), classes()).prop_map(|(video, classes)| Step::Weak(video, Some(classes))),
        1 => video().prop_map(|video| Step::Weak(video, None)),
        2 => (video(), candidate()).prop_map(|(video, candidate)| Step::Add(video, candidate)),
        3 => (video(), candidate()).prop_map(|(video, candidate)| Step::Replace(video, candidate)),
        2 => (0..20usize).prop_map(Step::Remove),
        5 => score_threshold(),
        1 => (-1..3i8, -2..3i8).prop_map(|(scale, shift)| Step::Rule(scale, shift)),
        8 => user_label(),
        2 => (video(), modality()).prop_map(|(video, modality)| Step::Withdraw(video, modality)),
        5 => (video(), modality(), segments().prop_flat_map(prediction))
            .prop_map(|(video, modality, prediction)| Step::Predict(video, modality, prediction)),
        1 => (video(), modality()).prop_map(|(video, modality)| Step::Unpredict(video, modality)),
        4 => denoise(),
        1 => class().prop_map(Step::Retire),
        2 => (class(), score()).prop_map(|(class, score)| Step::Introduce(class, score)),
    ]
}

fn score_threshold() -> impl Strategy<Value = Step> {
    (
        option::weighted(0.8, modality()),
        option::weighted(0.8, class()),
        score(),
    )
        .prop_map(|(modality, class, score)| Step::Cutoff(modality, class, score))
}

fn denoise() -> impl Strategy<Value = Step> {
    let settings = (
        1..6u32,
        prop_oneof![Just(1.0), Just(1.5), Just(3.0), Just(10.0)],
        prop_oneof![Just(0.0), Just(0.5), Just(0.9)],
    )
        .prop_map(|(k, alpha, guard)| DenoisingRule::pld(k, alpha, guard).expect("valid"));
    (modality(), option::weighted(0.8, settings))
        .prop_map(|(modality, settings)| Step::Denoise(modality, settings))
}

fn user_label() -> impl Strategy<Value = Step> {
    let range = prop_oneof![8 => (0..4usize, 1..3usize), 1 => (60..72usize, 1..5usize)];
    (video(), modality(), class(), range, any::<bool>()).prop_map(
        |(video, modality, class, (from, count), label)| Step::UserLabelTrack {
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
