//! Random changes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use vaplan::CandidateRule;
use vaplan::world::changes::WeakEdit;
use vaplan_dataflows::DenoisingRule;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::files::{Content, Flaw};

/// Names that there may be; the first is always in the store.
pub(crate) const VIDEOS: usize = 14;
/// Classes that there may be.
pub(crate) const CLASSES: usize = 5;
/// Parquet shards that there may be.
pub(crate) const SHARDS: usize = 3;

/// One change of one run.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Threshold(Modality, usize, u8),
    AllThresholds(Modality, u8),
    Rule {
        logit: bool,
        level: u8,
    },
    Scale(Modality, u8),
    /// Which classes a video without a weak label can have.
    Candidates(CandidateRule),
    Weak(WeakEdit, Vec<(usize, Vec<usize>, Option<Split>)>),
    Prompt(Modality, usize, u8),
    Texts(Modality, u8, bool),
    Classes(Vec<usize>, u8),
    /// A file of the audio folder; none: it goes. `folder`: the folder is named, not the file.
    Npy {
        video: usize,
        full: bool,
        file: Option<Option<Content>>,
        folder: bool,
    },
    /// A shard of the visual folder; none: it goes.
    Shard {
        shard: usize,
        rows: Option<Vec<(usize, bool, Content)>>,
        folder: bool,
    },
    /// A file beside the folders, with both modalities in it, as features of one or both; none: it goes.
    Both {
        rows: Option<Vec<(usize, Modality, Content)>>,
        of: Vec<Modality>,
    },
    /// That file does not count any more.
    Unname,
    Mark {
        video: usize,
        modality: Modality,
        class: usize,
        from: u8,
        count: u8,
        label: Option<bool>,
    },
    Epoch {
        later: u8,
        tracks: Vec<(usize, bool, Modality, u8, u8)>,
        parquet: bool,
    },
    Denoise {
        modalities: Option<Vec<Modality>>,
        rule: DenoisingRule,
    },
    /// Of the epochs that the store has, this one counts.
    Choose(usize),
    Back(usize),
}

/// What is asked at once.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) steps: Vec<Step>,
    pub(crate) workers: usize,
    /// First as a dry run.
    pub(crate) dry: bool,
    /// Then once more.
    pub(crate) again: bool,
}

pub(crate) fn script() -> impl Strategy<Value = Vec<Request>> {
    vec(run(), 1..6)
}

fn run() -> impl Strategy<Value = Request> {
    let flags = (1..4usize, any::<bool>(), proptest::bool::weighted(0.3));
    (vec(step(), 1..4), flags).prop_map(|(steps, (workers, dry, again))| Request {
        steps,
        workers,
        dry,
        again,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        settings(),
        settings(),
        weak(),
        weak(),
        features(),
        features(),
        features(),
        marks_and_epochs(),
        marks_and_epochs(),
        marks_and_epochs(),
        classes(),
    ]
}

fn settings() -> impl Strategy<Value = Step> {
    let level = 0..6u8;
    prop_oneof![
        4 => (modality(), 0..CLASSES, level.clone())
            .prop_map(|(modality, class, level)| Step::Threshold(modality, class, level)),
        2 => (modality(), level.clone()).prop_map(|(modality, level)| Step::AllThresholds(modality, level)),
        2 => (any::<bool>(), level.clone()).prop_map(|(logit, level)| Step::Rule { logit, level }),
        1 => (modality(), level).prop_map(|(modality, level)| Step::Scale(modality, level)),
        2 => candidates().prop_map(Step::Candidates),
        1 => (0..8usize).prop_map(Step::Back),
    ]
}

fn candidates() -> impl Strategy<Value = CandidateRule> {
    prop_oneof![
        1 => Just(CandidateRule::Weak),
        1 => Just(CandidateRule::All),
        3 => (1..4u32).prop_map(CandidateRule::Top),
    ]
}

fn weak() -> impl Strategy<Value = Step> {
    let row = || (0..VIDEOS, some_classes(0), option::weighted(0.2, split())).boxed();
    let rows = move |row| vec(row, 1..4);
    let gone = (1..VIDEOS, Just(Vec::new()), Just(None));
    prop_oneof![
        3 => rows(row()).prop_map(|rows| Step::Weak(WeakEdit::Set, rows)),
        2 => rows(row()).prop_map(|rows| Step::Weak(WeakEdit::Add, rows)),
        1 => rows((1..VIDEOS, some_classes(1), Just(None)).boxed())
            .prop_map(|rows| Step::Weak(WeakEdit::Remove, rows)),
        2 => rows(gone.boxed()).prop_map(|rows| Step::Weak(WeakEdit::Remove, rows)),
    ]
}

fn features() -> impl Strategy<Value = Step> {
    let npy = option::weighted(0.8, option::weighted(0.9, content()));
    let shard = option::weighted(0.8, vec((0..VIDEOS, any::<bool>(), content()), 1..4));
    let both = option::weighted(0.8, vec((0..VIDEOS, modality(), content()), 1..4));
    prop_oneof![
        4 => (0..VIDEOS, any::<bool>(), npy, proptest::bool::weighted(0.3)).prop_map(
            |(video, full, file, folder)| Step::Npy { video, full, file, folder }
        ),
        4 => (0..SHARDS, shard, proptest::bool::weighted(0.3))
            .prop_map(|(shard, rows, folder)| Step::Shard { shard, rows, folder }),
        2 => (both, subsequence(Modality::ALL.to_vec(), 1..=2)).prop_map(|(rows, of)| Step::Both { rows, of }),
        1 => Just(Step::Unname),
    ]
}

fn marks_and_epochs() -> impl Strategy<Value = Step> {
    let label = option::weighted(0.8, any::<bool>());
    // Mostly where there is a label to set: of a class that the video had at first, and not far beyond its end.
    let class = (proptest::bool::weighted(0.7), 0..CLASSES);
    let mark = (0..VIDEOS, modality(), class, 0..6u8, 1..4u8, label);
    let track = (0..VIDEOS, any::<bool>(), modality(), segments(), 0..8u8);
    let alpha = prop_oneof![Just(1.0), Just(1.5), Just(3.0), Just(10.0)];
    let pld = (1..6u32, alpha, prop_oneof![Just(0.0), Just(0.5), Just(0.9)])
        .prop_map(|(k, alpha, guard)| DenoisingRule::pld(k, alpha, guard).unwrap());
    // Scores differ from their thresholds by about a hundredth.
    let scale = prop_oneof![Just(0.001), Just(0.01), Just(0.1)];
    let margin = (scale, prop_oneof![Just(-1.0), Just(0.0), Just(1.0)])
        .prop_map(|(scale, bias)| DenoisingRule::margin(scale, bias).unwrap());
    let rule = prop_oneof![pld, margin];
    prop_oneof![
        4 => mark.prop_map(|(video, modality, (first, other), from, count, label)| Step::Mark {
            video, modality, class: if first { video % 4 } else { other }, from, count, label,
        }),
        3 => (0..3u8, vec(track, 1..8), any::<bool>())
            .prop_map(|(later, tracks, parquet)| Step::Epoch { later, tracks, parquet }),
        2 => (0..8usize).prop_map(Step::Choose),
        2 => (option::weighted(0.6, subsequence(Modality::ALL.to_vec(), 0..=2)), rule)
            .prop_map(|(modalities, rule)| Step::Denoise { modalities, rule }),
    ]
}

fn classes() -> impl Strategy<Value = Step> {
    let all: Vec<usize> = (0..CLASSES).collect();
    let order = subsequence(all, 2..=CLASSES).prop_shuffle();
    prop_oneof![
        2 => (modality(), 0..CLASSES, any::<u8>())
            .prop_map(|(modality, class, seed)| Step::Prompt(modality, class, seed)),
        1 => (modality(), any::<u8>(), proptest::bool::weighted(0.3))
            .prop_map(|(modality, seed, wide)| Step::Texts(modality, seed, wide)),
        2 => (order, any::<u8>()).prop_map(|(order, seed)| Step::Classes(order, seed)),
    ]
}

fn modality() -> impl Strategy<Value = Modality> {
    prop_oneof![Just(Modality::Audio), Just(Modality::Visual)]
}

fn split() -> impl Strategy<Value = Split> {
    prop_oneof![Just(Split::Train), Just(Split::Val), Just(Split::Test)]
}

fn some_classes(least: usize) -> impl Strategy<Value = Vec<usize>> {
    let all: Vec<usize> = (0..CLASSES).collect();
    subsequence(all, least..=3)
}

/// Mostly equal, so that both modalities fit.
fn segments() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(4u8), 1 => 3..13u8]
}

/// Few seeds, so that there are equal copies.
fn content() -> impl Strategy<Value = Content> {
    let flaw = prop_oneof![Just(Flaw::Nan), Just(Flaw::Zero), Just(Flaw::Wide)];
    prop_oneof![
        6 => (0..3u8, segments()).prop_map(|(seed, segments)| Content::Good { seed, segments }),
        1 => (flaw, segments()).prop_map(|(flaw, segments)| Content::Bad(flaw, segments)),
    ]
}
