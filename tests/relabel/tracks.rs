//! A change of the tracks of all videos: labels come from the tables, bucket by bucket.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use vaplan::{Changes, Listener, Session};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Scores, Table};

use super::copied;
use crate::sample::{Sample, Tables, name};
use crate::support::{assert_status, run, stdout};

fn files<T: Table>(store: &str) -> BTreeSet<PathBuf> {
    let snapshot = Store::open(std::path::Path::new(store))
        .unwrap()
        .latest()
        .unwrap()
        .unwrap();
    snapshot
        .files(T::NAME)
        .unwrap()
        .into_iter()
        .map(|file| file.path)
        .collect()
}

#[test]
fn thresholds_of_all_classes_need_no_features_and_keep_the_files_of_scores() {
    let sample = Sample::new(40);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    // A user label hides a score from table `labels`, so that the score must come from table `scores`.
    let user = sample.path("user.csv");
    std::fs::write(
        &user,
        format!(
            "video,modality,class,label,segment\n{},visual,Bark,1,0\n",
            name(0)
        ),
    )
    .unwrap();
    run([
        "relabel",
        "--store",
        &store,
        "--user",
        &user.display().to_string(),
    ]);
    let in_graph = copied(&sample.path("store"), &sample.path("graph"));
    for modality in ["audio", "visual"] {
        std::fs::remove_dir_all(sample.path(modality)).unwrap();
    }
    let scores = files::<Scores>(&store);
    let labels = files::<Labels>(&store);
    let output = run([
        "relabel",
        "--store",
        &store,
        "--visual-threshold",
        "1.1",
        "--audio-threshold",
        "0.9",
    ]);
    assert_status(&output, 0);
    assert!(
        stdout(&output).contains("; 0 videos looked at, and tracks of 40 others"),
        "{}",
        stdout(&output)
    );
    assert_eq!(files::<Scores>(&store), scores, "scores stay in their files");
    assert!(files::<Labels>(&store).is_disjoint(&labels));

    // A session labels the same change in its graph.
    let mut session = Session::open(&in_graph, 2, Listener::silent()).unwrap();
    let mut changes = Changes::default();
    changes.settings.visual_threshold = Some(1.1);
    changes.settings.audio_threshold = Some(0.9);
    session.apply(changes, "the same").unwrap();
    session.close().unwrap();
    let [found, wanted] = [sample.path("store"), in_graph].map(|store| Tables::read(&store));
    assert!(!found.changes.is_empty());
    assert_eq!(found.labels, wanted.labels);
    assert_eq!(found.changes, wanted.changes);
    assert_eq!(found.scores, wanted.scores);
    assert_status(&run(["check", "--store", &store]), 0);
}

#[test]
fn thresholds_of_all_classes_write_the_files_that_label_writes() {
    let sample = Sample::new(40);
    let thresholds = ["--visual-threshold", "1.1", "--audio-threshold", "0.9"];
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let before = files::<Labels>(&store);
    assert_status(
        &run(["relabel", "--store", &store].into_iter().chain(thresholds)),
        0,
    );
    assert_status(&sample.label("anew", &thresholds), 0);
    let names = |store: &str| -> BTreeSet<OsString> {
        let files = files::<Labels>(store).into_iter();
        files.map(|file| file.file_name().unwrap().to_owned()).collect()
    };
    let anew = sample.path("anew").display().to_string();
    // The name of a file tells its content.
    assert_eq!(names(&store), names(&anew));
    assert!(files::<Labels>(&store).is_disjoint(&before));
    assert_eq!(
        Tables::read(&sample.path("store")).labels,
        Tables::read(&sample.path("anew")).labels
    );
}
