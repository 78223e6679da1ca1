//! A run that labels and learns videos without a weak label.

use std::collections::BTreeSet;
use std::path::Path;

use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Settings, Videos};

use super::{SMALL, config, plan, run, tables};
use crate::candidates::OpenSample;
use crate::support::{assert_status, run as vaplan, sorted, stderr, stdout};
use crate::train::TrainingSample;

/// Full names of the videos whose candidates were guessed.
fn guessed(store: &str) -> BTreeSet<String> {
    let snapshot = Store::open(Path::new(store)).unwrap().at_version(None).unwrap();
    let rows = sorted::<Videos>(&snapshot).into_iter();
    rows.filter(|row| row.guessed)
        .map(|row| row.video.to_string())
        .collect()
}

#[test]
fn a_run_labels_and_learns_videos_without_a_weak_label() {
    let OpenSample { folder, hidden } = OpenSample::new();
    let sample = TrainingSample { folder };
    let hidden: BTreeSet<String> = hidden.into_keys().collect();
    let label = "[label]\ncandidates = 'top:3'\n";
    let file = config(&sample, "own", &format!("{label}{SMALL}"));
    assert_status(&run(&file), 0);
    let store = sample.path("own");
    assert_eq!(guessed(&store), hidden);
    let held = tables(&store);
    assert!(held.labels.iter().any(|track| hidden.contains(&*track.video)));
    let predicted = |name: &str| held.predictions.iter().any(|track| &*track.video == name);
    assert!(
        hidden.iter().all(|name| predicted(name)),
        "guessed videos are parsed, too"
    );
    assert!(stdout(&run(&file)).starts_with("nothing to do"));

    // The same as a store that is labelled anew from what the run led to.
    sample.label_anew_with("own", &["--quiet", "--fit-thresholds", "--candidates", "top:3"]);
    assert_eq!(tables(&store).labels, held.labels);

    // Another rule between two runs is taken back only by force.
    assert_status(
        &vaplan(["relabel", "--store", &store, "--candidates", "top:1"]),
        0,
    );
    let refused = run(&file);
    assert_status(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains("the candidates are `top:1`, and the file asks for `top:3`"),
        "{told}"
    );
    assert_status(&super::command(&file, "2").arg("--force").output().unwrap(), 0);
    assert_eq!(tables(&store).labels, held.labels);

    // Without the key the videos have no labels, and every training is another one.
    config(&sample, "own", SMALL);
    assert!(
        plan(&file).iter().all(|line| line.ends_with(" to be done")),
        "{:?}",
        plan(&file)
    );
    assert_status(&run(&file), 0);
    assert_eq!(guessed(&store), BTreeSet::new());
    assert!(
        !tables(&store)
            .labels
            .iter()
            .any(|track| hidden.contains(&*track.video))
    );
    let snapshot = Store::open(Path::new(&store)).unwrap().at_version(None).unwrap();
    assert!(
        !sorted::<Settings>(&snapshot)
            .iter()
            .any(|row| &*row.name == "candidates")
    );
}
