//! What cannot be asked, and how that is said; and bad rows beside good ones.

use std::fs;
use std::path::{Path, PathBuf};

use vaplan::engine::Listener;
use vaplan::ingest::npy;
use vaplan::relabel::{self, RelabelRequest, estimate};
use vaplan::world::changes::{ChangeRows, Changes, DenoiseRequest, EpochPredictions, WeakEdit};
use vaplan::world::settings::{ClassThreshold, RuleName, SettingsRequest};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Labels, Rejects, UserLabels, Videos};

use crate::sample::{CLASSES, Sample, WIDTH, name};
use crate::support::{assert_status, run, stderr, stdout};

fn latest(sample: &Sample) -> Snapshot {
    let store = Store::open(&sample.path("store")).unwrap();
    store.latest().unwrap().unwrap()
}

pub(super) fn request(sample: &Sample, changes: Changes) -> RelabelRequest {
    RelabelRequest {
        store: sample.path("store"),
        changes,
        workers: 1,
        dry_run: false,
        command: "vaplan relabel".to_owned(),
    }
}

fn done(sample: &Sample, changes: Changes) -> relabel::RelabelSummary {
    relabel::run(&request(sample, changes), &Listener::silent()).unwrap()
}

/// Refused with this, by `plan` too, and nothing of it is in the store.
#[track_caller]
fn assert_refused(sample: &Sample, changes: Changes, expected: &str) {
    let before = latest(sample).version().clone();
    let said = estimate::estimate(&sample.path("store"), &changes)
        .unwrap_err()
        .to_string();
    let refused = relabel::run(&request(sample, changes), &Listener::silent()).unwrap_err();
    let place = sample.path("").display().to_string();
    let place = place.trim_end_matches('/');
    assert_eq!(refused.to_string().replace(place, "DIR"), expected);
    assert_eq!(said, refused.to_string(), "plan says the same");
    assert_eq!(latest(sample).version(), &before);
}

pub(super) fn file(sample: &Sample, place: &str, text: &str) -> PathBuf {
    fs::write(sample.path(place), text).unwrap();
    sample.path(place)
}

pub(super) fn array(sample: &Sample, place: &str, shape: &[usize], values: &[f32]) -> PathBuf {
    npy::write_f32(&sample.path(place), shape, values).unwrap();
    sample.path(place)
}

/// A change of these rows alone.
pub(super) fn rows(read: impl FnOnce(&mut ChangeRows)) -> Changes {
    let mut rows = ChangeRows::default();
    read(&mut rows);
    Changes {
        rows,
        ..Changes::default()
    }
}

pub(super) fn labelled() -> Sample {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    sample
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let sample = labelled();
    let threshold = |class: &str, threshold| Changes {
        thresholds: vec![ClassThreshold {
            modality: Modality::Audio,
            class: class.into(),
            threshold,
        }],
        ..Changes::default()
    };
    assert_refused(
        &sample,
        threshold("Bork", 1.0),
        "threshold of audio: class `Bork` is unknown, expected one of 3 (nearest: `Bark`)",
    );
    assert_refused(
        &sample,
        threshold("Bark", f64::NAN),
        "audio threshold of class `Bark` is NaN, expected a finite number",
    );
    let settings = |settings| Changes {
        settings,
        ..Changes::default()
    };
    assert_refused(
        &sample,
        settings(SettingsRequest {
            rule: Some(RuleName::Logit),
            ..SettingsRequest::default()
        }),
        "rule `logit` has no audio threshold for class `Bark`, expected --audio-threshold or a thresholds file",
    );
    assert_refused(
        &sample,
        settings(SettingsRequest {
            visual_scale: Some(0.0),
            ..SettingsRequest::default()
        }),
        "visual scale is 0, expected a number above 0",
    );
    for (denoising, expected) in [
        (
            DenoiseRequest {
                parameters: [("k".to_owned(), 0.0)].into(),
                ..DenoiseRequest::default()
            },
            "denoising: k is 0, expected a whole number from 1 to 2147483647",
        ),
        (
            DenoiseRequest {
                parameters: [("guard".to_owned(), 1.5)].into(),
                ..DenoiseRequest::default()
            },
            "denoising: guard is 1.5, expected a number from 0 to 1",
        ),
    ] {
        let changes = Changes {
            denoising,
            ..Changes::default()
        };
        assert_refused(&sample, changes, expected);
    }
}

#[test]
fn prompts_and_classes_that_do_not_fit_are_refused() {
    let sample = labelled();
    let prompt =
        |class: &str, path: PathBuf| rows(|rows| rows.read_prompt(Modality::Visual, class, &path).unwrap());
    let narrow = array(&sample, "narrow.npy", &[3], &[1.0; 3]);
    let zero = array(&sample, "zero.npy", &[1, WIDTH], &[0.0; WIDTH]);
    let mut values = [1.0; WIDTH];
    values[2] = f32::NAN;
    let nan = array(&sample, "nan.npy", &[WIDTH], &values);
    for (class, path, expected) in [
        (
            "Bork",
            &narrow,
            "visual prompt: class `Bork` is unknown, expected one of 3 (nearest: `Bark`)",
        ),
        (
            "Bark",
            &narrow,
            "visual prompt of `Bark`, `DIR/narrow.npy`: holds 3 values, expected 8 as the other classes",
        ),
        (
            "Bark",
            &zero,
            "visual prompt of `Bark`, `DIR/zero.npy`: all values are 0, expected a direction",
        ),
        (
            "Bark",
            &nan,
            "visual prompt of `Bark`, `DIR/nan.npy`: value 2 is NaN, expected a finite number",
        ),
    ] {
        assert_refused(&sample, prompt(class, path.clone()), expected);
    }
    let list = file(&sample, "classes.txt", "Bark\nHorn\nSong\n");
    let classes = rows(|rows| rows.read_classes(&list).unwrap());
    assert_refused(
        &sample,
        classes.clone(),
        "class `Horn` is new and has no audio text embedding: give all with --audio-text, or this one with --prompt \
         'audio/Horn=FILE.npy'",
    );
    // With them it is done, and the version before cannot be gone back to.
    let horn = array(&sample, "horn.npy", &[1, WIDTH], &[0.5; WIDTH]);
    let mut with_prompts = classes;
    for modality in Modality::ALL {
        with_prompts.rows.read_prompt(modality, "Horn", &horn).unwrap();
    }
    done(&sample, with_prompts);
    let back = |version| Changes {
        to_version: Some(version),
        ..Changes::default()
    };
    assert_refused(
        &sample,
        back(1),
        "the classes of that version are others than now, expected the same: change the classes first",
    );
    assert_refused(&sample, back(9), "store has no version 9, expected 1 to 2");
}

#[test]
fn features_that_are_not_there_or_no_input_are_refused() {
    let sample = labelled();
    let features = |path: PathBuf| Changes {
        features: [vec![path], Vec::new()],
        ..Changes::default()
    };
    let removed = |path: PathBuf| Changes {
        removed: [vec![path], Vec::new()],
        ..Changes::default()
    };
    assert_refused(
        &sample,
        features(sample.path("nowhere")),
        "audio features `DIR/nowhere` are not there, and were not before",
    );
    let stray = array(&sample, "stray.npy", &[1, WIDTH], &[0.5; WIDTH]);
    assert_refused(
        &sample,
        features(stray),
        "audio features `DIR/stray.npy` are one npy file in none of the inputs, expected a folder of npy or Parquet \
         files, or a Parquet file",
    );
    assert_refused(
        &sample,
        removed(sample.path("visual")),
        "`DIR/visual` is none of the audio inputs, expected one of `DIR/audio`; a file of a folder is removed by \
         removing the file",
    );
    assert_refused(
        &sample,
        removed(sample.features("audio", 1)),
        "`DIR/audio/vid00000001.npy` is none of the audio inputs, expected one of `DIR/audio`; a file of a folder is \
         removed by removing the file",
    );
}

#[test]
fn epochs_of_other_classes_and_predictions_of_no_modality_are_refused() {
    let sample = labelled();
    let epoch =
        |folder: &str, epoch| rows(|rows| rows.read_predictions(&sample.path(folder), epoch).unwrap());
    fs::create_dir_all(sample.path("bare")).unwrap();
    array(&sample, &format!("bare/{}.npy", name(1)), &[10, 3], &[0.5; 30]);
    let refused = ChangeRows::default()
        .read_predictions(&sample.path("bare"), 1)
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "predictions `{}` do not say of which modality they are, expected Parquet with a column `modality`, or a \
             folder with `audio` and `visual` in it",
            sample.path(&format!("bare/{}.npy", name(1))).display()
        ),
    );
    for (folder, classes) in [("three", 3), ("two", 2)] {
        fs::create_dir_all(sample.path(folder).join("audio")).unwrap();
        let place = format!("{folder}/audio/{}.npy", name(1));
        array(&sample, &place, &[10, classes], &vec![0.5; 10 * classes]);
    }
    done(&sample, epoch("three", 5));
    let list = file(&sample, "classes.txt", "Bark\nBell\n");
    done(&sample, rows(|rows| rows.read_classes(&list).unwrap()));
    assert_refused(
        &sample,
        epoch("two", 5),
        "epoch 5 is in the store with other classes, expected an epoch that is not",
    );
    done(&sample, epoch("two", 7));
    // Whatever lies after it, one that no store has is as good as any.
    assert!(done(&sample, epoch("two", 4)).version.is_some());
}

#[test]
fn files_without_their_columns_and_stores_that_are_none_are_refused() {
    let sample = labelled();
    let weak = file(&sample, "weak.csv", "video,labels\nx,Bark\n");
    let refused = ChangeRows::default().read_weak(WeakEdit::Set, &weak).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "`{}`, row 1: no column `filename`, expected a line that names `filename`, `event_labels`, `split` (found: \
             `video, labels`)",
            weak.display()
        )
    );
    let store = sample.path("store").display().to_string();
    let relabel = |store: &str, flags: &[&str]| run(["relabel", "--store", store].iter().chain(flags));
    let nothing = relabel(&store, &[]);
    assert_status(&nothing, 2);
    assert!(
        stderr(&nothing).contains("no change is named, expected at least one: see --help"),
        "{}",
        stderr(&nothing)
    );
    let odd = relabel(&store, &["--threshold", "Bark=1"]);
    assert_status(&odd, 2);
    assert!(
        stderr(&odd).contains("expected MODALITY/CLASS=VALUE, such as `visual/Dog=1.1`"),
        "{}",
        stderr(&odd)
    );
    let alone = relabel(&store, &["--epoch", "1"]);
    assert_status(&alone, 2);
    let none = relabel(
        sample.path("annotations").to_str().unwrap(),
        &["--audio-threshold", "1"],
    );
    assert_status(&none, 2);
    assert!(
        !sample.path("annotations/_vaplan").exists() && stderr(&none).contains("annotations"),
        "{}",
        stderr(&none)
    );
    let plan = run(["plan", "--store", &store]);
    assert_status(&plan, 2);
}

#[test]
fn bad_rows_cost_no_other_and_are_told_until_their_file_is_mended() {
    let sample = labelled();
    let store = sample.path("store").display().to_string();
    let weak = file(
        &sample,
        "weak.csv",
        &format!(
            "filename,event_labels\n{},\"Bark,Bell\"\n{},Bork\n,Bark\n",
            name(1),
            name(2)
        ),
    );
    let user = file(
        &sample,
        "user.csv",
        &format!(
            "video,modality,class,label,segment\n{},audio,Bark,1,3\n{},audio,Bark,maybe,3\nnobody,audio,Bark,1,3\n\
             {},audio,Bark,0,99\n",
            name(1),
            name(1),
            name(1)
        ),
    );
    let flags = [weak.to_str().unwrap(), user.to_str().unwrap()];
    let relabel = || {
        run([
            "relabel", "--store", &store, "--weak", flags[0], "--user", flags[1],
        ])
    };
    let output = relabel();
    assert_status(&output, 1);
    assert!(stdout(&output).starts_with("version 2: "), "{}", stdout(&output));
    let told = |snapshot: &Snapshot| -> Vec<(String, Option<u64>, String)> {
        let rows = snapshot.read::<Rejects>().unwrap();
        let file = |row: &RejectRow| {
            Path::new(&row.file)
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        rows.iter()
            .map(|row| (file(row), row.row, row.reason.clone()))
            .collect()
    };
    let snapshot = latest(&sample);
    let mut wanted: Vec<(String, Option<u64>, String)> = [
        ("user.csv", Some(3), "label is `maybe`, expected 0, 1 or `withdraw`".to_owned()),
        ("user.csv", Some(4), "video is not in the store, expected one that is".to_owned()),
        (
            "user_labels",
            None,
            format!(
                "video `{}` a person set audio label of class `Bark`, segment 99, expected a segment below 10: it waits",
                name(1)
            ),
        ),
        (
            "weak.csv",
            Some(3),
            "class `Bork` is unknown, expected one of 3 (nearest: `Bark`)".to_owned(),
        ),
        ("weak.csv", Some(4), "filename is empty, expected the name of a video".to_owned()),
    ]
    .map(|(file, row, reason)| (file.to_owned(), row, reason))
    .to_vec();
    let mut found = told(&snapshot);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let videos = snapshot.read::<Videos>().unwrap();
    let first = videos.iter().find(|row| *row.video == *name(1)).unwrap();
    assert_eq!(first.weak_labels.len(), 2, "the good row counts");
    let labels = snapshot.read::<Labels>().unwrap();
    let marked = labels.iter().find(|track| {
        *track.video == *name(1) && track.modality == Modality::Audio && &*track.class == "Bark"
    });
    assert!(marked.unwrap().labels[3]);
    assert_eq!(snapshot.read::<UserLabels>().unwrap().len(), 2);

    fs::write(&weak, format!("filename,event_labels\n{},Bell\n", name(2))).unwrap();
    fs::write(
        &user,
        format!(
            "video,modality,class,label,segment\n{},audio,Bark,withdraw,99\n",
            name(1)
        ),
    )
    .unwrap();
    assert_status(&relabel(), 0);
    assert_eq!(told(&latest(&sample)), []);
    assert_eq!(latest(&sample).check().unwrap(), []);
}

#[test]
fn numbers_that_the_tables_cannot_hold_are_refused_and_the_store_stays_whole() {
    let sample = Sample::new(12);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let folder = sample.path("predictions/visual");
    std::fs::create_dir_all(&folder).unwrap();
    let values = vec![0.5; 10 * CLASSES.len()];
    npy::write_f32(
        &folder.join(format!("{}.npy", name(0))),
        &[10, CLASSES.len()],
        &values,
    )
    .unwrap();
    let predictions = sample.path("predictions").display().to_string();
    let relabel = |more: &[&str]| {
        let first = ["relabel", "--store", &store];
        run(first.iter().chain(more))
    };
    for (change, said) in [
        (
            &["--predictions", &predictions, "--epoch", "18446744073709551615"][..],
            "18446744073709551615 is not in 1..=9007199254740992",
        ),
        (
            &["--predictions", &predictions, "--epoch", "1", "--k", "2147483648"],
            "k is 2147483648, expected a whole number from 1 to 2147483647",
        ),
        (&["--alpha", "4"], "no modality is denoised"),
        (
            &["--denoise", "none", "--parameter", "k=3"],
            "no modality is denoised",
        ),
        (
            &["--denoise", "visual", "--k", "4", "--parameter", "k=3"],
            "`k` is given twice, as 4 and 3",
        ),
        (&["--denoise", "visual,none"], "expected `none` alone"),
        (
            &["--denoise", "both", "--alpha", "-1"],
            "alpha is -1, expected a finite number above 0",
        ),
    ] {
        let refused = relabel(change);
        assert_status(&refused, 2);
        assert!(
            stderr(&refused).contains(said),
            "{change:?}: {}",
            stderr(&refused)
        );
    }
    let changes = Changes {
        rows: ChangeRows {
            predictions: Some(EpochPredictions {
                epoch: u64::MAX,
                rows: Vec::new(),
            }),
            ..ChangeRows::default()
        },
        ..Changes::default()
    };
    assert_refused(
        &sample,
        changes,
        "the epoch is 18446744073709551615, expected a number from 1 to 9007199254740992",
    );
    assert_status(&run(["check", "--store", &store]), 0);
    assert_status(&relabel(&["--denoise", "both", "--alpha", "4"]), 0);
    assert_status(&relabel(&["--denoise", "none"]), 0);
}
