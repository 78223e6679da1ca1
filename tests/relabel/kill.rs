//! `kill -9` at every step of a relabelling's commit: the version before is there, and once more ends well.

use std::path::{Path, PathBuf};

use vaplan_schemas::rows::{LabelTrack, RejectRow, ScoreTrack, UserLabelRow, VideoRow};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Rejects, Scores, UserLabels, Videos};

use super::copied;
use crate::sample::{Sample, name};
use crate::support::{assert_status, vaplan};

type KilledTables = (
    Vec<VideoRow>,
    Vec<ScoreTrack>,
    Vec<LabelTrack>,
    Vec<UserLabelRow>,
    Vec<RejectRow>,
    usize,
);

/// Version, tables, and how many changes there were; the version is whole.
fn read(store: &Path) -> (u64, KilledTables) {
    let snapshot = Store::open(store).unwrap().latest().unwrap().unwrap();
    assert_eq!(snapshot.check().unwrap(), []);
    let tables = (
        snapshot.read::<Videos>().unwrap(),
        snapshot.read::<Scores>().unwrap(),
        snapshot.read::<Labels>().unwrap(),
        snapshot.read::<UserLabels>().unwrap(),
        snapshot.read::<Rejects>().unwrap(),
        crate::support::label_changes(&snapshot).len(),
    );
    (snapshot.version().version, tables)
}

/// Some of everything: a weak label, a video that goes, one whose features went, marks, a threshold.
fn part(sample: &Sample) -> Vec<String> {
    let file = |place: &str, text: String| {
        std::fs::write(sample.path(place), text).unwrap();
        sample.path(place).display().to_string()
    };
    std::fs::remove_file(sample.features("audio", 4)).unwrap();
    let weak = format!("filename,event_labels\n{},\"Bark,Bell,Song\"\nx,Barrk\n", name(1));
    let user = format!(
        "video,modality,class,label,onset,offset\n{},visual,Bell,1,0,9\n",
        name(1)
    );
    let gone = sample.features("audio", 4).display().to_string();
    vec![
        "--threshold".to_owned(),
        "visual/Bark=1.1".to_owned(),
        "--weak".to_owned(),
        file("weak.csv", weak),
        "--weak-remove".to_owned(),
        file("gone.csv", format!("filename\n{}\n", name(2))),
        "--user".to_owned(),
        file("user.csv", user),
        "--audio".to_owned(),
        gone,
    ]
}

fn relabel(store: &Path, flags: &[String], fault: Option<&str>) -> std::process::Output {
    let mut command = vaplan();
    command.arg("relabel").arg("--store").arg(store).args(flags);
    command.args(["--workers", "1"]);
    if let Some(fault) = fault {
        command.env("VAPLAN_FAULT", fault);
    }
    command.output().unwrap()
}

fn survives(sample: &Sample, flags: &[String], status: i32, points: &[String]) -> usize {
    let base = sample.path("store");
    let before = read(&base);
    let store = |name: &str| -> PathBuf { copied(&base, &sample.path(name)) };
    let whole = store("whole");
    assert_status(&relabel(&whole, flags, None), status);
    let wanted = read(&whole);
    assert_eq!(wanted.0, 2);
    let mut killed = 0;
    for point in points {
        let place = store("killed");
        let output = relabel(&place, flags, Some(point));
        if output.status.code().is_some() {
            continue;
        }
        killed += 1;
        let left = read(&place);
        // The last point is after the end: the version is there, only nobody was told.
        let held = if point == "after-versions" {
            &wanted
        } else {
            &before
        };
        assert!(left == *held, "{point}: version {}, {} changes", left.0, left.1.5);
        let again = relabel(&place, flags, None);
        let settled = read(&place);
        if point == "after-versions" {
            // The video that went is not there to go: its row is rejected now, and nothing else is otherwise.
            assert!(settled.1.2 == wanted.1.2 && settled.1.5 == wanted.1.5, "{point}");
        } else {
            assert_status(&again, status);
            assert!(settled == wanted, "{point}: version {}", settled.0);
        }
    }
    killed
}

fn points() -> Vec<String> {
    let mut points: Vec<String> = [
        "before-file",
        "after-file",
        "after-files",
        "before-versions",
        "after-versions",
    ]
    .map(String::from)
    .into();
    for table in [
        "classes",
        "videos",
        "user_labels",
        "scores",
        "labels",
        "label_changes",
        "rejects",
    ] {
        points.extend([format!("before-{table}"), format!("after-{table}")]);
    }
    points
}

#[test]
fn killed_anywhere_a_relabelling_leaves_the_version_before_and_once_more_ends_well() {
    let sample = Sample::new(12);
    assert_status(&sample.label("store", &[]), 0);
    let flags = part(&sample);
    let of_part = survives(&sample, &flags, 1, &points());
    assert_eq!(of_part, points().len(), "each of the points is on the way");

    // One that labels everything anew keeps what it scored, too.
    let sample = Sample::new(12);
    assert_status(&sample.label("store", &[]), 0);
    let flags = ["--audio-scale", "3"].map(str::to_owned);
    let some: Vec<String> = points()
        .into_iter()
        .filter(|point| !point.contains("user"))
        .collect();
    let of_all = survives(&sample, &flags, 0, &some);
    assert_eq!(of_all, some.len());

    // One that labels all tracks anew from the stored scores, and writes all buckets.
    let sample = Sample::new(12);
    assert_status(
        &sample.label(
            "store",
            &[
                "--rule",
                "logit",
                "--visual-threshold",
                "0.5",
                "--audio-threshold",
                "0.5",
            ],
        ),
        0,
    );
    let flags = [
        "--visual-threshold",
        "0.6",
        "--audio-threshold",
        "0.4",
        "--audio-scale",
        "3",
    ]
    .map(str::to_owned);
    let touched = |point: &&String| {
        ["videos", "user", "rejects"]
            .iter()
            .all(|table| !point.contains(table))
    };
    let some: Vec<String> = points().iter().filter(touched).cloned().collect();
    let of_tracks = survives(&sample, &flags, 0, &some);
    assert_eq!(of_tracks, some.len());
    println!("relabel killed at {} points", of_part + of_all + of_tracks);
}
