//! `vaplan denoise` chooses its rule on videos with dense truth, and leaves the labels alone if no rule gains there.

use std::fs;
use std::path::Path;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{PredictionTrack, Split, TruthRow};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Labels, Truth, Videos};

use crate::sample::{CLASSES, Sample, commit_epoch};
use crate::support::{assert_status, run, stdout};

/// 60 videos of split train, and 20 of val with dense truth.
fn labelled() -> (Sample, String) {
    let sample = Sample::new(80);
    let file = |name: &str| sample.path("annotations").join(name);
    fs::rename(file("small_test_pd.csv"), file("small_val_pd.csv")).unwrap();
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    (sample, store)
}

fn latest(store: &str) -> Snapshot {
    Store::open(Path::new(store)).unwrap().at_version(None).unwrap()
}

/// Commits an epoch. It predicts the dense truth for videos of val if `right`, and otherwise its opposite; for other videos,
/// no event anywhere.
fn commit(store: &str, epoch: u64, right: bool) {
    let snapshot = latest(store);
    let truth = snapshot.read::<Truth>().unwrap();
    let tracks = snapshot.read::<Videos>().unwrap().into_iter().flat_map(|video| {
        Modality::ALL.map(|modality| {
            let occurs = |segment: usize, class: &str| {
                let covers = |row: &&TruthRow| {
                    (&row.video, row.modality, &*row.class) == (&video.video, modality, class)
                        && (row.onset..row.offset).contains(&(segment as u32))
                };
                truth.iter().any(|row| covers(&row))
            };
            let cells = (0..10).flat_map(|segment| CLASSES.map(|class| occurs(segment, class)));
            let wrong = video.split == Split::Val && !right;
            PredictionTrack {
                epoch,
                video: video.video.clone(),
                modality,
                classes: CLASSES.len() as u32,
                probability: cells
                    .map(|event| if event != wrong { 0.97 } else { 0.03 })
                    .collect(),
            }
        })
    });
    let tracks: Vec<_> = tracks.collect();
    commit_epoch(&snapshot, ("one", epoch), Some(50.0), &tracks);
}

#[test]
fn an_epoch_that_improves_labels_of_val_denoises_by_the_rule_that_gains_most() {
    let (_sample, store) = labelled();
    commit(&store, 1, true);
    let denoised = run(["denoise", "--store", &store]);
    assert_status(&denoised, 0);
    let told = stdout(&denoised);
    assert!(told.starts_with("rule chosen on 20 videos of val: "), "{told}");
    assert!(told.lines().next().unwrap().ends_with(": taken"), "{told}");
    let scores = |when: &str| -> f64 {
        let line = told
            .lines()
            .find(|line| line.starts_with(&format!("val      {when}")));
        line.unwrap().split_whitespace().nth(3).unwrap().parse().unwrap()
    };
    assert!(scores("after") > scores("before") + 20.0, "{told}");
    assert_eq!(latest(&store).check().unwrap(), []);
}

#[test]
fn an_epoch_that_harms_labels_of_val_changes_nothing_unless_a_rule_is_given() {
    let (_sample, store) = labelled();
    commit(&store, 1, false);
    let before = latest(&store);
    let labels = before.read::<Labels>().unwrap();
    for more in [&[][..], &["--dry-run"], &["--modality", "both"]] {
        let refused = run(["denoise", "--store", &store].iter().chain(more));
        assert_status(&refused, 0);
        let told = stdout(&refused);
        assert!(
            told.contains("no gain by more than two standard errors: no label is changed"),
            "{told}"
        );
    }
    assert_eq!(latest(&store).version().version, before.version().version);
    assert_eq!(latest(&store).read::<Labels>().unwrap(), labels);

    let json = run(["denoise", "--store", &store, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(
        (&json["version"], &json["calibration"]["videos"]),
        (&serde_json::Value::Null, &20.into())
    );
    assert!(json["calibration"]["held_out"].as_f64().unwrap() <= 0.0, "{json}");

    for rule in [
        &["--no-calibration"][..],
        &["--denoise-rule", "bounds"],
        &["--alpha", "3"],
    ] {
        let dry = run(["denoise", "--store", &store, "--dry-run"].iter().chain(rule));
        assert_status(&dry, 0);
        assert!(!stdout(&dry).contains("rule chosen"), "{}", stdout(&dry));
        assert!(
            stdout(&dry).lines().any(|line| line.starts_with('-')),
            "a rule that was given denoises"
        );
    }
}

#[test]
fn rule_bounds_says_its_parameters_and_has_no_base() {
    let (_sample, store) = labelled();
    commit(&store, 1, true);
    let words = [
        "--denoise-rule",
        "bounds",
        "--parameter",
        "clear=0.3",
        "--parameter",
        "set=0.9",
    ];
    let denoised = run(["denoise", "--store", &store].iter().chain(&words));
    assert_status(&denoised, 0);
    let told = stdout(&denoised);
    assert!(
        told.starts_with("epoch 1, visual: bounds clear=0.3 set=0.9\n"),
        "{told}"
    );
    let snapshot = latest(&store);
    assert_eq!(snapshot.check().unwrap(), []);
    let labels = snapshot.read::<Labels>().unwrap();
    let reasons: Vec<_> = labels
        .iter()
        .flat_map(|track| track.iter().filter_map(|cell| cell.why))
        .collect();
    assert!(!reasons.is_empty());
    assert!(
        reasons
            .iter()
            .all(|why| why.limit.is_none() && why.loss.is_some() && why.epoch == 1)
    );

    for (flags, expected) in [
        (
            ["--parameter", "set=2"],
            "set is 2, expected a probability from 0 to 1",
        ),
        (
            ["--alpha", "3"],
            "`alpha` is not a parameter of the denoising rule `bounds`, expected one of: clear, set",
        ),
    ] {
        let words = ["denoise", "--store", &store, "--denoise-rule", "bounds"];
        let refused = run(words.iter().chain(&flags));
        assert_status(&refused, 2);
        let told = crate::support::stderr(&refused);
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn rule_margin_adds_up_scores_and_predictions() {
    let (_sample, store) = labelled();
    commit(&store, 1, true);
    let rule = |scale: &str| {
        let scale = format!("scale={scale}");
        let words = [
            "--denoise-rule",
            "margin",
            "--parameter",
            &scale,
            "--parameter",
            "bias=0.5",
        ]
        .map(str::to_owned);
        run(["denoise", "--store", &store]
            .map(str::to_owned)
            .iter()
            .chain(&words))
    };
    let denoised = rule("0.002");
    assert_status(&denoised, 0);
    let told = stdout(&denoised);
    assert!(
        told.starts_with("epoch 1, visual: margin bias=0.5 scale=0.002\n"),
        "{told}"
    );
    let snapshot = latest(&store);
    assert_eq!(snapshot.check().unwrap(), []);
    // The epoch predicts 0.97 for the events of val, and 0.03 for all other labels.
    let truth = snapshot.read::<Truth>().unwrap();
    let of_val: Vec<_> = snapshot
        .read::<Videos>()
        .unwrap()
        .into_iter()
        .filter(|video| video.split == Split::Val)
        .collect();
    let (mut by_score, mut by_parser) = (0, 0);
    for track in snapshot.read::<Labels>().unwrap() {
        let val = of_val.iter().any(|video| video.video == track.video);
        for (segment, cell) in track.iter().enumerate() {
            let event = val
                && truth.iter().any(|row| {
                    (&row.video, row.modality, &row.class) == (&track.video, track.modality, &track.class)
                        && (row.onset..row.offset).contains(&(segment as u32))
                });
            let margin = cell.score.unwrap() - track.threshold.unwrap();
            let p = f64::from(if event { 0.97_f32 } else { 0.03 });
            let label = match track.modality {
                Modality::Audio => margin > 0.0,
                Modality::Visual => margin / 0.002 + (p / (1.0 - p)).ln() > 0.5,
            };
            assert_eq!(cell.label, label, "{} {} {}", track.video, track.class, segment);
            if track.modality == Modality::Visual {
                *(if label == event {
                    &mut by_parser
                } else {
                    &mut by_score
                }) += 1;
            }
        }
    }
    assert!(
        by_score > 0 && by_parser > 0,
        "each decides somewhere: {by_score}, {by_parser}"
    );

    let refused = rule("0");
    assert_status(&refused, 2);
    let told = crate::support::stderr(&refused);
    assert!(
        told.contains("scale is 0, expected a finite number above 0"),
        "{told}"
    );
}
