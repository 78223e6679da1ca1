//! `check` finds what tables say against each other.

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    FlipLimit, FlipReason, LabelChangeTrack, LabelRule, LabelTrack, PredictionTrack, ScoreTrack,
    VideoPredictionRow,
};
use vaplan_schemas::store::{CommitInfo, Problem};
use vaplan_schemas::tables::{LabelChanges, Labels, Predictions, Scores, VideoPredictions, Videos};

use crate::support::{ScoredTracks, changes, create, labels, scored, scores, videos};

/// Problems of a store in one bucket whose tables were tampered with before they were written.
fn problems(
    tamper: impl FnOnce(&mut Vec<ScoreTrack>, &mut Vec<LabelTrack>, &mut Vec<LabelChangeTrack>),
) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let scored = scored(6, 1);
    let (mut score_rows, mut label_rows) = (scores(&scored), labels(&scored));
    let mut change_rows = changes(1, &ScoredTracks::new(), &scored);
    tamper(&mut score_rows, &mut label_rows, &mut change_rows);
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_bucket::<Videos>(0, &videos(&scored)).unwrap();
    commit.replace_bucket::<Scores>(0, &score_rows).unwrap();
    commit.replace_bucket::<Labels>(0, &label_rows).unwrap();
    commit.append::<LabelChanges>(&change_rows).unwrap();
    commit.finish().unwrap();
    let latest = store.latest().unwrap().unwrap();
    let problems = latest.check().unwrap();
    // The group of a video does not matter.
    assert_eq!(latest.check_in_groups(1).unwrap(), problems);
    problems
}

fn said(problems: &[Problem], table: &str, what: &str) -> bool {
    problems
        .iter()
        .any(|problem| problem.table == table && problem.what.contains(what))
}

#[test]
fn tables_that_agree_have_no_problems() {
    assert_eq!(problems(|_, _, _| {}), []);
}

#[test]
fn a_track_that_only_one_of_scores_and_labels_has_is_found() {
    assert!(said(
        &problems(|_, labels, _| {
            labels.pop();
        }),
        "labels",
        "has scores, but no labels"
    ));
    assert!(said(
        &problems(|scores, _, _| {
            scores.pop();
        }),
        "labels",
        "has labels, but no scores"
    ));
}

#[test]
fn a_label_that_is_not_what_its_score_says_is_found() {
    let found = problems(|_, labels, _| {
        labels[0].labels[0] = !labels[0].labels[0];
    });
    assert!(said(&found, "labels", "segment 0: label is"), "{found:?}");
    assert!(
        said(&found, "label_changes", "the changes add up to"),
        "{found:?}"
    );
}

#[test]
fn a_score_that_labels_do_not_repeat_is_found() {
    let found = problems(|scores, _, _| scores[0].score[1] += 1e-9);
    assert!(said(&found, "labels", "segment 1"), "{found:?}");
}

#[test]
fn a_class_outside_the_weak_label_is_found() {
    let found = problems(|scores, labels, changes| {
        scores[0].class = "Cat".into();
        labels[0].class = "Cat".into();
        let key = (labels[0].video.clone(), labels[0].modality);
        for change in changes
            .iter_mut()
            .filter(|change| (change.video.clone(), change.modality) == key)
        {
            change.class = "Cat".into();
        }
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(said(&found, "scores", "no class of the weak label"), "{found:?}");
}

#[test]
fn a_change_that_is_missing_or_too_many_is_found() {
    assert!(said(
        &problems(|_, _, changes| {
            changes.pop();
        }),
        "label_changes",
        "the changes add up to false"
    ));
    let found = problems(|_, _, changes| changes[0].segments = vec![99]);
    assert!(
        said(
            &found,
            "label_changes",
            "segment 99: the changes set it, no label does"
        ),
        "{found:?}"
    );
}

fn why(loss: f64) -> FlipReason {
    let (base, alpha, k) = (0.125, 10.0, 5);
    FlipReason {
        epoch: 3,
        loss: Some(loss),
        limit: Some(FlipLimit { base, alpha, k }),
    }
}

/// Segment 1 of the first track flipped by PLD, with base 0.125, alpha 10 and K 5; and the changes that go with it.
fn flipped(loss: f64, labels: &mut [LabelTrack], changes: &mut Vec<LabelChangeTrack>) {
    let track = &mut labels[0];
    let label = !track.labels[1];
    track.set(1, label, LabelRule::Pld, Some(why(loss)));
    if label {
        changes.push(LabelChangeTrack {
            video: track.video.clone(),
            modality: track.modality,
            class: track.class.clone(),
            segments: vec![1],
            ..changes[0].clone()
        });
    } else {
        let own = (&track.video, track.modality, &track.class);
        for row in changes.iter_mut() {
            if (&row.video, row.modality, &row.class) == own {
                row.segments.retain(|segment| *segment != 1);
            }
        }
        changes.retain(|row| !row.segments.is_empty());
    }
}

#[test]
fn a_flip_that_its_loss_or_score_does_not_tell_is_found() {
    let told = |loss| problems(|_, labels, changes| flipped(loss, labels, changes));
    assert_eq!(told(1.5), []);
    let found = told(1.25);
    assert!(
        said(
            &found,
            "labels",
            "segment 1: flipped with loss Some(1.25), expected one above 10 times the base 0.125"
        ),
        "{found:?}"
    );
    let found = problems(|_, labels, _| {
        labels[0].rules[0] = LabelRule::Pld;
        labels[0].flips = vec![(1, why(1.5))];
    });
    assert!(said(&found, "labels", "segment 0: label is"), "{found:?}");
    assert!(
        said(
            &found,
            "labels",
            "segment 1: why is a flip after epoch 3, expected null for rule `plg`"
        ),
        "{found:?}"
    );
}

#[test]
fn an_epoch_of_which_one_table_lacks_a_video_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    let track = |epoch, video: &str| PredictionTrack {
        epoch,
        video: video.into(),
        modality: Modality::Visual,
        classes: 1,
        probability: vec![0.5],
    };
    let row = |epoch, video: &str| VideoPredictionRow {
        epoch,
        video: video.into(),
        probability: vec![0.5],
        audio: vec![0.5],
        visual: vec![0.5],
    };
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    // Epoch 1 came from outside, without predictions of whole videos.
    commit
        .append::<Predictions>(&[track(1, "a"), track(2, "a"), track(2, "b")])
        .unwrap();
    commit
        .append::<VideoPredictions>(&[row(2, "b"), row(2, "c")])
        .unwrap();
    commit.finish().unwrap();
    let found = store.latest().unwrap().unwrap().check().unwrap();
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "predictions: epoch 2 has no video `c`, which `video_predictions` has",
            "video_predictions: epoch 2 has no video `a`, which `predictions` has"
        ]
    );
}
