//! `vaplan calibrate`: against trying everything, and against `relabel`, `denoise` and `eval`.

use std::path::Path;

use proptest::prelude::*;
use vaplan::calibrate::pld::level;
use vaplan::calibrate::sample::CalibrationVideo;
use vaplan::calibrate::sweep::{sweep, threshold};
use vaplan::calibrate::{self, CalibrationGoal, CalibrationMetric, search};
use vaplan::eval::{Evaluator, VideoParse};
use vaplan::world::World;
use vaplan::world::settings::{LabelSettings, ModalitySettings};
use vaplan_dataflows::rule::Rule;
use vaplan_dataflows::{CandidateRule, VideoId};
use vaplan_schemas::rows::{PredictionTrack, Split};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Truth, Videos};
use vaplan_schemas::{ClassId, Modality};

use crate::sample::{CLASSES, Sample, commit_epoch};
use crate::support::{assert_status, run, stderr, stdout};

const METRICS: [CalibrationMetric; 4] = [
    CalibrationMetric::Own,
    CalibrationMetric::AudioVisual,
    CalibrationMetric::TypeAv,
    CalibrationMetric::EventAv,
];

/// Three classes; few values, so that many scores are equal.
fn a_video() -> impl Strategy<Value = CalibrationVideo> {
    let track = || proptest::option::weighted(0.7, proptest::collection::vec(1..8u8, 12));
    let truth = || proptest::collection::vec(proptest::bool::weighted(0.4), 3 * 12);
    let tracks = || proptest::collection::vec(track(), 3);
    (1..12usize, tracks(), tracks(), truth(), truth()).prop_map(|(segments, audio, visual, heard, seen)| {
        let tracks = |all: Vec<Option<Vec<u8>>>| {
            let numbers = |track: Vec<u8>| {
                track[..segments]
                    .iter()
                    .map(|value| f64::from(*value) / 10.0)
                    .collect()
            };
            let named = all
                .into_iter()
                .zip(0..)
                .filter_map(|(track, class)| Some((ClassId(class), numbers(track?))));
            named.collect()
        };
        let mut truth = VideoParse::new(3, segments);
        for class in 0..3 {
            for segment in 0..segments {
                truth.audio.put(class, segment, heard[class * 12 + segment]);
                truth
                    .visual
                    .put(class, segment, seen[class * 12 + segment] && class != 2);
            }
        }
        CalibrationVideo {
            id: VideoId(0),
            segments,
            tracks: [tracks(audio), tracks(visual)],
            truth,
            predictions: [None, None],
        }
    })
}

fn settings(rule: Rule, thresholds: [f64; 3]) -> LabelSettings {
    let own = ModalitySettings {
        rule,
        thresholds: thresholds.to_vec(),
    };
    LabelSettings {
        audio: own.clone(),
        visual: own,
        candidates: CandidateRule::Weak,
    }
}

fn set(settings: &mut LabelSettings, modality: Modality, class: Option<ClassId>, threshold: f64) {
    let own = match modality {
        Modality::Audio => &mut settings.audio,
        Modality::Visual => &mut settings.visual,
    };
    match class {
        Some(class) => own.thresholds[class.index()] = threshold,
        None => own.thresholds.fill(threshold),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_sweep_finds_the_best_of_all_thresholds(
        videos in proptest::collection::vec(a_video(), 1..6),
        softmax in any::<bool>(),
    ) {
        let videos: Vec<&CalibrationVideo> = videos.iter().collect();
        let rule = if softmax { Rule::Softmax { scale: 1.0 } } else { Rule::Logit { scale: 1.0 } };
        let unit = if softmax { 3.0 } else { 1.0 };
        let start = settings(rule, [0.35, 0.45, 0.25].map(|score_threshold| score_threshold * unit));
        for modality in Modality::ALL {
            for class in [None, Some(ClassId(0)), Some(ClassId(2))] {
                for metric in METRICS {
                    let value = |threshold: f64| {
                        let mut settings = start.clone();
                        set(&mut settings, modality, class, threshold);
                        metric.of(&level(&videos, &settings, &[None, None]), modality)
                    };
                    // Every cut between two of the values 0.1 to 0.7, and beyond them.
                    let best = (0..8).map(|cut| value((0.05 + 0.1 * f64::from(cut)) * unit));
                    let best = best.fold(f64::NEG_INFINITY, f64::max);
                    let found = sweep(&videos, &start, modality, class, metric);
                    let threshold = threshold(rule, 3, &found).expect("scores are far apart");
                    let got = value(threshold);
                    prop_assert!((got - best).abs() < 1e-9, "{:?} {:?} {:?}: {} of {}", modality, class, metric, got, best);
                }
            }
        }
    }

    #[test]
    fn no_other_value_of_a_single_threshold_betters_what_a_search_finds(
        videos in proptest::collection::vec(a_video(), 2..6),
        per_class in any::<bool>(),
    ) {
        let videos: Vec<&CalibrationVideo> = videos.iter().collect();
        let start = settings(Rule::Logit { scale: 1.0 }, [0.35; 3]);
        for metric in METRICS {
            let how = CalibrationGoal { modalities: Modality::ALL.to_vec(), per_class, metric };
            let found = search::search(&videos, &start, &how);
            for modality in Modality::ALL {
                let value = |settings: &LabelSettings| metric.of(&level(&videos, settings, &[None, None]), modality);
                let classes = (0..3).map(|class| Some(ClassId(class)));
                let classes: Vec<_> = if per_class { classes.collect() } else { vec![None] };
                for class in classes {
                    for cut in 0..8 {
                        let mut other = found.clone();
                        set(&mut other, modality, class, 0.05 + 0.1 * f64::from(cut));
                        prop_assert!(value(&other) < value(&found) + 1e-9, "{:?} {:?} {}", modality, class, cut);
                    }
                }
            }
        }
    }
}

#[test]
fn a_threshold_has_as_few_digits_as_part_its_two_scores() {
    let best = |lower, upper| vaplan::calibrate::sweep::BestCutoff {
        lower,
        upper,
        value: 0,
    };
    let logit = Rule::Logit { scale: 100.0 };
    let softmax = Rule::Softmax { scale: 1.0 };
    assert_eq!(threshold(logit, 25, &best(20.0, 22.5)), Some(21.2));
    assert_eq!(threshold(softmax, 25, &best(0.0405, 0.0406)), Some(1.014));
    // Between two neighbours there is the lower one itself: what equals it is not set.
    let close = 1.0_f64.next_up();
    assert_eq!(threshold(logit, 25, &best(1.0, close)), Some(1.0));
    let above = threshold(logit, 25, &best(3.0, f64::INFINITY)).unwrap();
    assert!((3.0..3.1).contains(&above), "{above}");
}

/// A labelled store of 24 videos, 6 of them of split test with truth.
fn labelled() -> (Sample, String) {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    (sample, store)
}

/// The numbers of a line that begins so.
fn row(text: &str, begin: &str) -> Vec<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(begin))
        .unwrap_or_else(|| panic!("no {begin} in\n{text}"));
    line[begin.len()..]
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Segment-level scores of the labels of split test, as a row of `calibrate` has them.
fn eval(store: &str) -> Vec<f64> {
    let output = run(["eval", "--store", store, "--split", "test", "--format", "json"]);
    assert_status(&output, 0);
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    let of = |name: &str| report["segment"][name].as_f64().unwrap();
    ["audio", "visual", "audio_visual", "type_av", "event_av"]
        .map(of)
        .to_vec()
}

fn assert_close(told: &[f64], scores: &[f64]) {
    assert_eq!(told.len(), scores.len());
    for (told, score) in told.iter().zip(scores) {
        assert!(
            (told - score).abs() <= 0.005 + 1e-9,
            "{told}, as `eval` says {score}"
        );
    }
}

#[test]
fn relabel_and_denoise_by_what_was_chosen_score_as_was_told() {
    let (sample, store) = labelled();
    predicted_as_true(&store);
    let toml = sample.path("chosen.toml").display().to_string();
    let mut in_sample = Vec::new();
    for per_class in [&[][..], &["--per-class"]] {
        let flags = [
            "calibrate",
            "--store",
            &store,
            "--split",
            "test",
            "--folds",
            "3",
            "--out",
            &toml,
        ];
        let output = run(flags.iter().chain(per_class));
        assert_status(&output, 0);
        let text = stdout(&output).to_owned();
        assert_close(&row(&text, "thresholds now"), &eval(&store));
        assert_close(
            &row(&text, "chosen, held out"),
            &held_out(&store, 3, !per_class.is_empty()),
        );
        let classes = std::fs::read_to_string(&toml)
            .unwrap()
            .contains("[visual.classes]");
        assert_eq!(classes, !per_class.is_empty());
        assert_status(&run(["relabel", "--store", &store, "--thresholds", &toml]), 0);
        let chosen = row(&text, "chosen, in sample");
        assert_close(&chosen, &eval(&store));
        in_sample.push(chosen[0] + chosen[1]);

        let line = text
            .lines()
            .find(|line| line.starts_with("vaplan denoise"))
            .unwrap();
        assert!(
            std::fs::read_to_string(&toml)
                .unwrap()
                .contains(&format!("# {line}\n"))
        );
        let flags = line.split_whitespace().skip(1).chain(["--store", &store]);
        assert_status(&run(flags), 0);
        let with_pld = row(&text, "with PLD, in sample");
        assert_close(&with_pld, &eval(&store));
        assert!(with_pld[1] > chosen[1], "the truth is a good parser\n{text}");
        // Back to labels without flips, for the next.
        assert_status(&run(["relabel", "--store", &store, "--denoise", "none"]), 0);
    }
    assert!(
        in_sample[1] >= in_sample[0],
        "one for each is at least as good as one for all"
    );
}

/// Scores of the labels of each video by thresholds that the videos of the other folds choose.
fn held_out(store: &str, folds: usize, per_class: bool) -> Vec<f64> {
    let snapshot = Store::open(Path::new(store)).unwrap().at_version(None).unwrap();
    let world = World::read(&snapshot).unwrap();
    let sample = calibrate::sample::CalibrationSample::read(&snapshot, &world, Split::Test, None).unwrap();
    let how = CalibrationGoal {
        modalities: Modality::ALL.to_vec(),
        per_class,
        metric: CalibrationMetric::Own,
    };
    let mut scores = Evaluator::new(world.classes.len());
    for (nth, video) in sample.videos.iter().enumerate() {
        let others = sample.videos.iter().zip(0..);
        let others: Vec<&CalibrationVideo> = others
            .filter(|(_, other)| other % folds != nth % folds)
            .map(|(video, _)| video)
            .collect();
        let chosen = search::search(&others, &world.settings, &how);
        scores.add(&video.labels(&chosen, &[None, None]), &video.truth);
    }
    let of = scores.scores().unwrap().segment;
    vec![of.audio, of.visual, of.audio_visual, of.type_av, of.event_av]
}

/// An epoch that says what is true, of all videos with truth.
fn predicted_as_true(store: &str) {
    let store = Store::open(Path::new(store)).unwrap();
    let snapshot = store.at_version(None).unwrap();
    let truth = snapshot.read::<Truth>().unwrap();
    let mut tracks = Vec::new();
    let mut videos = snapshot.read::<Videos>().unwrap();
    videos.retain(|video| video.split == Split::Test);
    for video in &videos {
        for modality in Modality::ALL {
            let happens = |cell: usize| {
                let (segment, class) = ((cell / CLASSES.len()) as u32, CLASSES[cell % CLASSES.len()]);
                truth.iter().any(|row| {
                    let spans = (row.onset..row.offset).contains(&segment);
                    row.video == video.video && row.modality == modality && *row.class == *class && spans
                })
            };
            let probability = |cell| if happens(cell) { 0.99 } else { 0.01 };
            tracks.push(PredictionTrack {
                epoch: 1,
                video: video.video.clone(),
                modality,
                classes: CLASSES.len() as u32,
                probability: (0..10 * CLASSES.len()).map(probability).collect(),
            });
        }
    }
    tracks.sort_by(|a, b| (&a.video, a.modality).cmp(&(&b.video, b.modality)));
    commit_epoch(&snapshot, ("true", 1), None, &tracks);
}

#[test]
fn without_predictions_thresholds_alone_are_chosen_and_other_modalities_stay() {
    let (sample, store) = labelled();
    let toml = sample.path("chosen.toml").display().to_string();
    let flags = [
        "--split",
        "test",
        "--folds",
        "6",
        "--modality",
        "visual",
        "--out",
        &toml,
    ];
    let output = run(["calibrate", "--store", &store].iter().chain(&flags));
    assert_status(&output, 0);
    let text = stdout(&output);
    assert!(
        text.ends_with("no epoch has predictions of test videos: K, alpha and guard are as they are\n"),
        "{text}"
    );
    assert!(!text.contains("with PLD"), "{text}");
    let (now, chosen) = (row(text, "thresholds now"), row(text, "chosen, in sample"));
    assert!(chosen[0] == now[0] && chosen[1] >= now[1], "{text}");
    let file: toml::Value = toml::from_str(&std::fs::read_to_string(&toml).unwrap()).unwrap();
    assert_eq!(file["audio"]["default"].as_float(), Some(0.95));
}

#[test]
fn what_cannot_be_chosen_by_is_refused() {
    let (_sample, store) = labelled();
    let refused = |flags: &[&str]| {
        let output = run(["calibrate", "--store", &store].iter().chain(flags));
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    assert_eq!(
        refused(&["--split", "train"]),
        "vaplan: split `train` has no dense truth: none of its 18 videos has an annotated event\n"
    );
    assert_eq!(
        refused(&["--split", "val"]),
        "vaplan: split `val` has no videos\n"
    );
    assert_eq!(
        refused(&["--split", "test", "--folds", "7"]),
        "vaplan: 7 folds, expected 2 to 6, the number of videos of the split\n"
    );
    assert!(refused(&["--split", "test", "--epoch", "4"]).contains("has no predictions of epoch 4"));
}
