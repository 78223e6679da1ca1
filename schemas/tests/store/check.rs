//! `check` finds what tables say against each other.

use vaplan_schemas::rows::{LabelChangeRow, LabelTrack, ScoreTrack};
use vaplan_schemas::store::{CommitInfo, Problem, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Videos};

use crate::support::{World, changes, labels, scores, videos, world};

/// Problems of a store in one bucket whose tables were tampered with before they were written.
fn problems(
    tamper: impl FnOnce(&mut Vec<ScoreTrack>, &mut Vec<LabelTrack>, &mut Vec<LabelChangeRow>),
) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let world = world(6, 1);
    let (mut score_rows, mut label_rows) = (scores(&world), labels(&world));
    let mut change_rows = changes(1, &World::new(), &world);
    tamper(&mut score_rows, &mut label_rows, &mut change_rows);
    let lock = store.lock(&mut |_| {}).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_bucket::<Videos>(0, &videos(&world)).unwrap();
    commit.replace_bucket::<Scores>(0, &score_rows).unwrap();
    commit.replace_bucket::<Labels>(0, &label_rows).unwrap();
    commit.append::<LabelChanges>(&change_rows).unwrap();
    commit.finish().unwrap();
    store.latest().unwrap().unwrap().check().unwrap()
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
        let cell = &mut labels[0].cells[0];
        cell.label = !cell.label;
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
    let found = problems(|_, _, changes| changes[0].segment = 99);
    assert!(
        said(
            &found,
            "label_changes",
            "segment 99: the changes set it, no label does"
        ),
        "{found:?}"
    );
}
