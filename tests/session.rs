//! The library's own session: the same versions as `relabel`, whatever else happens to the store in between.

use std::path::Path;

use vaplan::{
    CancelToken, Changes, ClassThreshold, LabelError, LabelRequest, Listener, Modality, Progress,
    RelabelRequest, Session,
};

use crate::sample::Tables;
use crate::support::scratch;

fn labelled(folder: &Path, store: &str) -> LabelRequest {
    let mut request = vaplan::sample(folder).unwrap();
    request.store = folder.join(store);
    request.workers = 1;
    vaplan::label(&request, &Listener::silent()).unwrap();
    request
}

fn threshold(modality: Modality, class: &str, threshold: f64) -> Changes {
    Changes {
        thresholds: vec![ClassThreshold {
            modality,
            class: class.into(),
            threshold,
        }],
        ..Changes::default()
    }
}

fn relabel(store: &Path, changes: Changes) {
    let request = RelabelRequest {
        store: store.to_owned(),
        changes,
        workers: 1,
        dry_run: false,
        command: "relabel".to_owned(),
    };
    vaplan::relabel(&request, &Listener::silent()).unwrap();
}

/// A change of one track, one of everything (a softmax scale), and one that changes no row.
fn script() -> Vec<Changes> {
    let mut scale = Changes::default();
    scale.settings.audio_scale = Some(2.0);
    vec![
        threshold(Modality::Visual, "Dog", 1.2),
        scale,
        threshold(Modality::Visual, "Dog", 1.2),
        threshold(Modality::Audio, "Speech", 1.1),
    ]
}

#[test]
fn a_session_makes_the_versions_that_relabel_makes() {
    let folder = scratch();
    let one = labelled(folder.path(), "one").store;
    let other = labelled(folder.path(), "other").store;
    for workers in [1, 2, 3] {
        let mut session = Session::open(&one, workers, Listener::silent()).unwrap();
        for changes in script() {
            let before = session.version();
            let summary = session.apply(changes.clone(), "session").unwrap();
            assert_eq!(session.version(), before + u64::from(summary.version.is_some()));
            relabel(&other, changes);
        }
        session.close().unwrap();
        assert_eq!(Tables::read(&one), Tables::read(&other), "{workers} workers");
        for store in [&one, &other] {
            relabel(store, threshold(Modality::Visual, "Dog", 0.9));
            relabel(store, threshold(Modality::Audio, "Speech", 1.0));
        }
    }
}

#[test]
fn a_session_goes_on_after_another_writer_and_after_a_refused_change() {
    let folder = scratch();
    let store = labelled(folder.path(), "store").store;
    let twin = labelled(folder.path(), "twin").store;
    let mut session = Session::open(&store, 2, Listener::silent()).unwrap();
    for store in [&store, &twin] {
        relabel(store, threshold(Modality::Visual, "Dog", 1.3));
    }
    let refused = session
        .apply(threshold(Modality::Visual, "Dgo", 1.0), "a slip")
        .unwrap_err();
    assert!(refused.to_string().contains("Dgo"), "{refused}");
    session
        .apply(threshold(Modality::Audio, "Dog", 1.3), "session")
        .unwrap();
    assert_eq!(session.version(), 3);
    relabel(&twin, threshold(Modality::Audio, "Dog", 1.3));
    assert_eq!(Tables::read(&store), Tables::read(&twin));
    session.close().unwrap();
}

#[test]
fn a_cancelled_run_commits_nothing_and_the_next_one_completes() {
    let folder = scratch();
    let request = vaplan::sample(folder.path()).unwrap();
    let cancel = CancelToken::default();
    let on_first_shard = cancel.clone();
    let listener = Listener::new(move |progress| {
        if let Progress::Shard { .. } = progress {
            on_first_shard.cancel();
        }
    })
    .with_cancel(cancel);
    let cancelled = vaplan::label(&request, &listener).unwrap_err();
    assert!(matches!(cancelled, LabelError::Cancelled), "{cancelled}");
    let store = vaplan::Store::open(&request.store).unwrap();
    assert!(store.latest().unwrap().is_none());
    vaplan::label(&request, &Listener::silent()).unwrap();

    let mut session = Session::open(&request.store, 1, listener).unwrap();
    let cancelled = session
        .apply(threshold(Modality::Visual, "Dog", 1.2), "session")
        .unwrap_err();
    assert!(matches!(cancelled, LabelError::Cancelled), "{cancelled}");
    assert_eq!(store.versions().unwrap().len(), 1);
}
