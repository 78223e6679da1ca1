//! `vaplan label --pseudo-labels`: labels of another program in a store.

use std::fs;

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, RejectKind};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Rejects, Videos};

use crate::sample::{CLASSES, Sample, key, name};
use crate::support::{assert_status, run, stderr, stdout};

/// Label of a segment and class in the folder of another program.
fn label(modality: Modality, video: usize, segment: usize, class: usize) -> bool {
    (segment + 3 * class + video + modality.index()).is_multiple_of(4)
}

#[test]
fn labels_of_another_program_are_set_within_the_weak_label_and_can_be_changed() {
    let sample = Sample::new(8);
    for modality in Modality::ALL {
        let folder = sample.path(&format!("other_{modality}"));
        fs::create_dir(&folder).unwrap();
        for video in 0..8 {
            let cells =
                (0..10).flat_map(|segment| (0..3).map(move |class| label(modality, video, segment, class)));
            let values: Vec<i64> = cells.map(i64::from).collect();
            write_ints(&folder.join(format!("{}.npy", key(video))), &values);
        }
    }
    let path = |name: &str| sample.path(name).to_str().unwrap().to_owned();
    let (store, visual, audio) = (path("store"), path("other_visual"), path("other_audio"));
    let annotations = path("annotations");
    let import = || {
        run([
            "label",
            "--store",
            &store,
            "--annotations",
            &annotations,
            "--pseudo-labels",
            &visual,
            &audio,
        ])
    };
    let first = import();
    assert_status(&first, 0);
    assert!(
        stdout(&first).starts_with("version 1: 8 videos"),
        "{}",
        stdout(&first)
    );
    let latest = || {
        Store::open(&sample.path("store"))
            .unwrap()
            .at_version(None)
            .unwrap()
    };
    let check = |expected_tracks: usize| {
        let tracks = latest().read::<Labels>().unwrap();
        assert_eq!(tracks.len(), expected_tracks);
        for track in tracks {
            let video = (0..8).find(|nth| name(*nth) == *track.video).unwrap();
            let class = CLASSES.iter().position(|class| **class == *track.class).unwrap();
            let expected: Vec<bool> = (0..10)
                .map(|segment| label(track.modality, video, segment, class))
                .collect();
            assert_eq!(
                track.labels, expected,
                "{} {} {}",
                track.video, track.modality, track.class
            );
            assert!(track.rules.iter().all(|rule| *rule == LabelRule::Import));
        }
    };
    let classes: usize = latest()
        .read::<Videos>()
        .unwrap()
        .iter()
        .map(|row| row.weak_labels.len())
        .sum();
    check(2 * classes);
    // What the weak label does not allow is told, once per video and modality.
    let notes = latest().read::<Rejects>().unwrap();
    assert_eq!(notes.len(), 16, "{notes:?}");
    assert!(notes.iter().all(|row| {
        row.kind == RejectKind::OutsideWeakLabel
            && row
                .reason
                .contains("labels are of classes that the weak label lacks")
    }));
    let again = import();
    assert_status(&again, 0);
    assert!(stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
    assert_status(&run(["vacuum", "--store", &store, "--keep", "1"]), 0);
    // A class that is added later has the imported labels, too.
    let row = latest().read_video::<Videos>(&name(1)).unwrap().pop().unwrap();
    let lacking = CLASSES
        .iter()
        .find(|class| !row.weak_labels.iter().any(|own| **own == ***class))
        .unwrap();
    fs::write(
        sample.path("add.csv"),
        format!("filename,event_labels\n{},{lacking}\n", name(1)),
    )
    .unwrap();
    assert_status(
        &run(["relabel", "--store", &store, "--weak-add", &path("add.csv")]),
        0,
    );
    check(2 * classes + 2);
    assert_status(&run(["check", "--store", &store]), 0);
    // A file that is no label matrix is a rejected row.
    write_ints(
        &sample.path("other_audio").join(format!("{}.npy", key(2))),
        &[7; 30],
    );
    let bad = import();
    assert_status(&bad, 1);
    assert!(stderr(&bad).contains("expected 0 or 1"), "{}", stderr(&bad));
    let both = run([
        "label",
        "--store",
        &store,
        "--annotations",
        &annotations,
        "--pseudo-labels",
        &visual,
        &audio,
        "--rule",
        "softmax",
    ]);
    assert_status(&both, 2);
    assert!(stderr(&both).contains("cannot be used with"), "{}", stderr(&both));
}

fn write_ints(path: &std::path::Path, values: &[i64]) {
    npy::write_i64(path, &[10, 3], values).unwrap();
}
