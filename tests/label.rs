//! `vaplan label`, end to end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use vaplan_schemas::Modality;

use crate::sample::{CLASSES, Numbers, Sample, Tables, WIDTH, key, name};
use crate::support::{assert_status, stderr, stdout, vaplan};

#[test]
fn labels_are_scores_above_the_threshold_of_weak_classes_only() {
    let sample = Sample::new(40);
    let output = sample.label("store", &["--visual-threshold", "1.1"]);
    assert_status(&output, 0);
    assert!(
        stdout(&output).starts_with("version 1: 40 videos, 80 records labelled"),
        "{}",
        stdout(&output)
    );
    let tables = Tables::read(&sample.path("store"));
    assert_eq!(tables.videos.len(), 40);
    let weak: BTreeSet<_> = tables
        .videos
        .iter()
        .flat_map(|row| {
            row.weak_labels
                .iter()
                .map(|class| (row.video.clone(), class.clone()))
        })
        .collect();
    assert_eq!(tables.labels.len(), weak.len() * 2);
    for track in &tables.labels {
        assert!(
            weak.contains(&(track.video.clone(), track.class.clone())),
            "{} {}",
            track.video,
            track.class
        );
        let score_threshold = if track.modality == Modality::Visual {
            1.1 / 3.0
        } else {
            0.95 / 3.0
        };
        assert_eq!(track.segments(), 10);
        for cell in track.iter() {
            assert_eq!(cell.threshold, Some(score_threshold));
            assert_eq!(cell.label, cell.score.unwrap() > score_threshold);
        }
    }
    let set = tables
        .labels
        .iter()
        .flat_map(|track| track.iter())
        .filter(|cell| cell.label)
        .count();
    assert!(
        set > 0 && tables.changes.len() == set,
        "{set} set, {} changes",
        tables.changes.len()
    );
}

#[test]
fn a_second_identical_run_does_nothing_and_says_so() {
    let sample = Sample::new(20);
    assert_status(&sample.label("store", &[]), 0);
    let before = listing(&sample.path("store"));
    let again = sample.label("store", &["--workers", "1"]);
    assert_status(&again, 0);
    assert_eq!(stdout(&again), "nothing to do: version 1 holds these labels\n");
    assert_eq!(listing(&sample.path("store")), before);
}

#[test]
fn another_threshold_is_a_new_version_whose_changes_lead_from_the_old_labels_to_the_new() {
    let sample = Sample::new(30);
    assert_status(&sample.label("store", &[]), 0);
    let first = Tables::read(&sample.path("store"));
    assert_status(&sample.label("store", &["--audio-threshold", "1.2"]), 0);
    let second = Tables::read(&sample.path("store"));
    assert_eq!((first.version, second.version), (1, 2));
    let ones = |tables: &Tables| -> BTreeSet<_> {
        let tracks = tables.labels.iter();
        let cells = tracks.flat_map(|track| {
            let set = track.iter().enumerate().filter(|(_, cell)| cell.label);
            set.map(|(segment, _)| {
                (
                    track.video.clone(),
                    track.modality,
                    track.class.clone(),
                    segment as u32,
                )
            })
        });
        cells.collect()
    };
    let mut replayed = ones(&first);
    let of_second: Vec<_> = second.changes.iter().filter(|row| row.version == 2).collect();
    assert!(
        of_second.iter().any(|row| !row.to),
        "a higher threshold takes labels away"
    );
    for row in of_second {
        let cell = (row.video.clone(), row.modality, row.class.clone(), row.segment);
        assert_eq!(replayed.contains(&cell), row.from);
        if row.to {
            replayed.insert(cell)
        } else {
            replayed.remove(&cell)
        };
    }
    assert_eq!(replayed, ones(&second));
}

#[test]
fn tables_are_the_same_for_1_2_and_3_workers() {
    // More than one shard per modality.
    let sample = Sample::new(300);
    for workers in ["1", "2", "3"] {
        assert_status(
            &sample.label(&format!("store{workers}"), &["--workers", workers]),
            0,
        );
    }
    let one = Tables::read(&sample.path("store1"));
    assert_eq!(one, Tables::read(&sample.path("store2")));
    assert_eq!(one, Tables::read(&sample.path("store3")));
}

#[test]
fn rule_logit_compares_the_scaled_cosine() {
    let sample = Sample::new(12);
    let flags = [
        "--rule",
        "logit",
        "--visual-threshold",
        "60",
        "--audio-threshold",
        "11",
    ];
    assert_status(&sample.label("store", &flags), 0);
    for (scores, labels) in Tables::read(&sample.path("store"))
        .scores
        .iter()
        .zip(Tables::read(&sample.path("store")).labels)
    {
        let (scale, score_threshold) = if scores.modality == Modality::Visual {
            (100.0, 60.0)
        } else {
            (18.66, 11.0)
        };
        for ((cosine, score), cell) in scores.cosine.iter().zip(&scores.score).zip(labels.iter()) {
            assert_eq!(*score, scale * f64::from(*cosine));
            assert_eq!(cell.label, *score > score_threshold);
        }
    }
}

#[test]
fn a_bad_file_costs_its_video_and_modality_only_and_is_named() {
    let sample = Sample::new(20);
    assert_status(&sample.label("clean", &[]), 0);
    let mut values = vec![0.5; 10 * WIDTH];
    values[3 * WIDTH + 2] = f32::NAN;
    sample.write_features("visual", 1, 10, &values);
    sample.write_features("audio", 2, 10, &[0.0; 10 * WIDTH]);
    sample.write_features("audio", 3, 8, &[0.5; 8 * WIDTH]);
    sample.write_features("visual", 4, 10, &[0.5; 10 * 5]);
    fs::remove_file(sample.features("audio", 5)).unwrap();
    fs::write(sample.features("visual", 6), b"no npy at all").unwrap();
    let output = sample.label("store", &[]);
    assert_status(&output, 1);
    let tables = Tables::read(&sample.path("store"));
    let reason = |nth: usize| -> Vec<&str> {
        let own = tables
            .rejects
            .iter()
            .filter(|row| row.video.as_deref() == Some(&*name(nth)));
        own.map(|row| row.reason.as_str()).collect()
    };
    assert!(
        reason(1).contains(&"visual feature[2] is NaN, expected a finite number"),
        "{:?}",
        reason(1)
    );
    let nan = tables
        .rejects
        .iter()
        .find(|row| row.reason.contains("NaN"))
        .unwrap();
    assert_eq!(nan.row, Some(3));
    assert!(nan.file.ends_with(&format!("{}.npy", key(1))), "{}", nan.file);
    assert!(reason(2).contains(&"audio feature is all zero, expected a vector with a direction"));
    let lengths = format!(
        "video `{}` has 8 audio and 10 visual segments, expected equally many: none is used",
        name(3)
    );
    assert!(reason(3).contains(&lengths.as_str()), "{:?}", reason(3));
    let width = "visual feature has width 5, expected 8 as the visual text embeddings";
    assert!(reason(4).contains(&width), "{:?}", reason(4));
    assert!(
        reason(5).contains(&format!("video `{}` has no audio features that can be used", name(5)).as_str())
    );
    assert!(
        tables
            .rejects
            .iter()
            .any(|row| row.file.ends_with(&format!("{}.npy", key(6))) && row.row.is_none()),
        "{:?}",
        tables.rejects
    );
    // What was right beside it is as in a clean run.
    let bad = |video: &str, modality| match () {
        () if video == name(1) || video == name(4) || video == name(6) => modality == Modality::Visual,
        () if video == name(2) || video == name(5) => modality == Modality::Audio,
        () => video == name(3),
    };
    let mut clean = Tables::read(&sample.path("clean")).labels;
    clean.retain(|track| !bad(&track.video, track.modality));
    assert_eq!(tables.labels, clean);
}

#[test]
fn thresholds_of_a_file_and_what_is_wrong_with_one() {
    let sample = Sample::new(12);
    let file = sample.path("thresholds.toml");
    fs::write(&file, "[visual.classes]\nBark = 100.0\n").unwrap();
    let flag = ["--thresholds", file.to_str().unwrap()];
    assert_status(&sample.label("store", &flag), 0);
    let tables = Tables::read(&sample.path("store"));
    let barks = tables.labels.iter().filter(|track| &*track.class == "Bark");
    for track in barks.filter(|track| track.modality == Modality::Visual) {
        assert!(
            track.iter().all(|cell| !cell.label),
            "no probability is 100 times uniform of 3"
        );
    }
    fs::write(&file, "[visual.classes]\nBrak = 100.0\n").unwrap();
    let refused = sample.label("store", &flag);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("`Brak`, no class of the annotations (nearest: `Bark`)"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn a_store_without_the_features_folder_says_which() {
    let sample = Sample::new(4);
    fs::rename(sample.path("visual"), sample.path("elsewhere")).unwrap();
    let refused = sample.label("store", &[]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains(sample.path("visual").to_str().unwrap()),
        "{}",
        stderr(&refused)
    );
    assert!(
        !sample.path("store").exists(),
        "nothing is made where nothing can be done"
    );
    assert_eq!(CLASSES.len(), 3);
}

/// kill -9 when so many files are there: 20 random moments from the first file to the last.
#[test]
fn killed_at_20_random_moments_and_run_again_gives_the_tables_of_an_undisturbed_run() {
    let sample = Sample::new(300);
    assert_status(&sample.label("undisturbed", &[]), 0);
    let wanted = Tables::read(&sample.path("undisturbed"));
    let mut numbers = Numbers::new(20);
    // Staged shards and temporary files come and go, so more are seen on the way than at the end.
    let last = listing(&sample.path("undisturbed")).len() as u64 + 8;
    let (mut killed, mut partial) = (0, 0);
    for round in 0..20 {
        let store = format!("killed{round}");
        let path = sample.path(&store);
        let moment = numbers.below(last) as usize;
        let mut child = vaplan()
            .args(sample.arguments(&store))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while listing(&path).len() < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // SIGKILL on Unix; fails only where it has ended.
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let left = listing(&path).len();
        partial += usize::from(left > 0 && left + 1 < last as usize);
        assert_status(&sample.label(&store, &[]), 0);
        assert_eq!(Tables::read(&path), wanted, "killed at {moment} files");
        fs::remove_dir_all(&path).unwrap();
    }
    println!("20 moments: {killed} killed before the end, {partial} of them with files left");
    assert!(
        killed >= 10 && partial >= 5,
        "{killed} killed, {partial} with files left"
    );
}

/// Every file below a folder, sorted; an empty list where there is none.
fn listing(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => files.push(entry.path().display().to_string()),
                Err(_) => {}
            }
        }
    }
    files.sort();
    files
}

#[test]
fn logs_are_json_where_asked_and_nothing_where_quiet() {
    let sample = Sample::new(8);
    std::fs::remove_file(sample.features("audio", 1)).unwrap();
    let json = sample.label("json", &["--log-format", "json"]);
    assert_status(&json, 1);
    let lines: Vec<serde_json::Value> = stderr(&json)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |line: &serde_json::Value| line["fields"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(
        lines
            .iter()
            .any(|line| told(line).contains("has no audio features")),
        "{lines:?}"
    );
    let quiet = sample.label("quiet", &["--quiet"]);
    assert_status(&quiet, 1);
    assert_eq!(stderr(&quiet), "");
}

/// A folder cannot be removed from a folder without permission to write. Root needs no permission, so root runs the
/// program as nobody, if the system allows that.
#[test]
fn staging_that_cannot_be_removed_is_a_warning_because_the_version_exists() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const NOBODY: u32 = 65_534;
    let sample = Sample::new(6);
    let staging = sample.path("store/_vaplan/staging");
    fs::create_dir_all(staging.join("label")).unwrap();
    let mut command = vaplan();
    if fs::metadata(sample.path("store")).unwrap().uid() == 0 {
        let mut wrapped = std::process::Command::new("setpriv");
        wrapped
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(command.get_program());
        if !wrapped
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            eprintln!("LEFT OUT: staging_that_cannot_be_removed needs to run the program as nobody");
            return;
        }
        own(&sample.path(""), NOBODY);
        command = std::process::Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(vaplan().get_program());
    }
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o555)).unwrap();
    let output = command.args(sample.arguments("store")).output().unwrap();
    fs::set_permissions(&staging, fs::Permissions::from_mode(0o755)).unwrap();
    assert_status(&output, 0);
    assert!(
        stdout(&output).starts_with("version 1: 6 videos"),
        "{}",
        stdout(&output)
    );
    let told = stderr(&output);
    assert!(
        told.contains("staged shards could not be removed") && told.contains("_vaplan/staging/label"),
        "{told}"
    );
    assert_eq!(Tables::read(&sample.path("store")).version, 1);
}

fn own(path: &Path, user: u32) {
    std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| own(&entry.unwrap().path(), user));
    }
}
