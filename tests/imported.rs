//! `vaplan label --pseudo-labels`: labels of another program in a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, RejectKind, RejectRow, Severity};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Epochs, Labels, Rejects, UserLabels, Videos};

use crate::sample::{CLASSES, Sample, key, name};
use crate::support::{assert_status, run, stderr, stdout};
use crate::train::TrainingSample;

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

fn write_ints(path: &Path, values: &[i64]) {
    npy::write_i64(path, &[10, 3], values).unwrap();
}

/// Eight videos, and two folders of labels of another program for them.
struct Imported {
    sample: Sample,
}

impl Imported {
    fn new() -> Imported {
        let sample = Sample::new(8);
        for modality in Modality::ALL {
            fs::create_dir(sample.path(&format!("other_{modality}"))).unwrap();
        }
        let own = Imported { sample };
        for video in 0..8 {
            for modality in Modality::ALL {
                let values: Vec<i64> = own.cells(modality, video).map(i64::from).collect();
                write_ints(&own.file(modality, &key(video)), &values);
            }
        }
        own
    }

    fn cells(&self, modality: Modality, video: usize) -> impl Iterator<Item = bool> {
        (0..10).flat_map(move |segment| (0..3).map(move |class| label(modality, video, segment, class)))
    }

    fn file(&self, modality: Modality, stem: &str) -> PathBuf {
        self.sample
            .path(&format!("other_{modality}"))
            .join(format!("{stem}.npy"))
    }

    fn import(&self, store: &str, more: &[&str]) -> Output {
        let path = |name: &str| self.sample.path(name).to_str().unwrap().to_owned();
        let (store, annotations) = (path(store), path("annotations"));
        let words = ["label", "--store", &store, "--annotations", &annotations];
        let folders = ["--pseudo-labels", &path("other_visual"), &path("other_audio")];
        run([&words[..], &folders, more].concat())
    }

    fn rejects(&self, store: &str, severity: Severity) -> Vec<RejectRow> {
        let store = Store::open(&self.sample.path(store)).unwrap();
        let mut rows = store.at_version(None).unwrap().read::<Rejects>().unwrap();
        rows.retain(|row| row.severity == severity);
        rows
    }

    fn labels(&self, store: &str) -> Vec<(String, Modality, String, Vec<bool>)> {
        let store = Store::open(&self.sample.path(store)).unwrap();
        let tracks = store.at_version(None).unwrap().read::<Labels>().unwrap();
        let row = |track: vaplan_schemas::rows::LabelTrack| {
            (
                track.video.to_string(),
                track.modality,
                track.class.to_string(),
                track.labels,
            )
        };
        tracks.into_iter().map(row).collect()
    }
}

#[test]
fn labels_may_be_floats_and_lie_in_folders_below() {
    let own = Imported::new();
    assert_status(&own.import("ints", &[]), 0);
    let folder = own.sample.path("other_visual");
    fs::create_dir(folder.join("val")).unwrap();
    for video in 0..8 {
        let values: Vec<f32> = own
            .cells(Modality::Visual, video)
            .map(|cell| f32::from(u8::from(cell)))
            .collect();
        fs::remove_file(own.file(Modality::Visual, &key(video))).unwrap();
        npy::write_f32(&folder.join(format!("val/{}.npy", key(video))), &[10, 3], &values).unwrap();
    }
    assert_status(&own.import("floats", &[]), 0);
    assert_eq!(own.labels("floats"), own.labels("ints"));
}

#[test]
fn a_bad_label_file_counts_once_and_is_named() {
    let own = Imported::new();
    let bad = own.file(Modality::Visual, &key(2));
    let mut values = [0.0; 30];
    values[4] = 0.5;
    npy::write_f32(&bad, &[10, 3], &values).unwrap();
    // A copy under the full name that differs: neither counts.
    let copy = own.file(Modality::Audio, &name(3));
    write_ints(&copy, &[1; 30]);
    fs::remove_file(own.file(Modality::Audio, &key(4))).unwrap();
    assert_status(&own.import("store", &[]), 1);
    let found = |store: &str| {
        let mut found: Vec<(String, String)> = Vec::new();
        for row in own.rejects(store, Severity::Reject) {
            assert!(
                !row.file.contains("_vaplan") && !row.reason.contains("_vaplan"),
                "{row:?}"
            );
            assert!(!row.reason.contains("features"), "{row:?}");
            found.push((row.video.unwrap(), row.reason));
        }
        found.sort();
        found
    };
    let expected = [
        (
            name(2),
            format!(
                "label file `{}`, row 1, column 1: label is 0.5, expected 0 or 1",
                bad.display()
            ),
        ),
        (
            name(3),
            format!(
                "labels of video `{}` differ from those of `{}`: neither file is used",
                name(3),
                own.file(Modality::Audio, &key(3)).display()
            ),
        ),
        (
            name(4),
            format!("video `{}` has no audio labels that can be used", name(4)),
        ),
    ];
    assert_eq!(found("store"), expected);
    let missing = &own.rejects("store", Severity::Reject);
    let missing = missing
        .iter()
        .find(|row| row.kind == RejectKind::MissingFeatures)
        .unwrap();
    assert_eq!(missing.file, own.sample.path("other_audio").display().to_string());
    // A change of such a video adds no second row.
    let weak = own.sample.path("weak.csv");
    let rows = [2, 3].map(|video| format!("{},\"{}\"\n", name(video), CLASSES.join(",")));
    fs::write(&weak, format!("filename,event_labels\n{}", rows.concat())).unwrap();
    let store = own.sample.path("store");
    let words = [
        "relabel",
        "--store",
        store.to_str().unwrap(),
        "--weak-add",
        weak.to_str().unwrap(),
    ];
    assert!(stdout(&run(words)).contains("version 2"));
    assert_eq!(found("store"), expected);
    assert_status(&run(["check", "--store", store.to_str().unwrap()]), 0);
    // If most labels would be lost, the message names a label file, too.
    assert_status(&own.import("second", &["--allow-missing"]), 1);
    for video in 0..8 {
        npy::write_f32(&own.file(Modality::Visual, &key(video)), &[10, 3], &values).unwrap();
    }
    let lost = own.import("second", &[]);
    assert_status(&lost, 2);
    let (told, named) = (
        stderr(&lost),
        own.file(Modality::Visual, &key(0)).display().to_string(),
    );
    assert!(
        told.contains("because their visual labels are missing or cannot be used"),
        "{told}"
    );
    assert!(told.contains(&named) && !told.contains("_vaplan"), "{told}");
}

#[test]
fn label_files_that_match_no_video_are_a_note() {
    let own = Imported::new();
    for stem in ["zzzzzzzzzzz", "zzzzzzzzzzy"] {
        write_ints(&own.file(Modality::Audio, stem), &[0; 30]);
    }
    assert_status(&own.import("store", &[]), 0);
    let notes = own.rejects("store", Severity::Note);
    let notes: Vec<_> = notes
        .iter()
        .filter(|row| row.kind == RejectKind::UnknownVideo)
        .collect();
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert_eq!(note.file, own.sample.path("other_audio").display().to_string());
    assert_eq!(note.modality, Some(Modality::Audio));
    assert!(
        note.reason.starts_with(
            "2 label files match no annotated video and are not used, for example `zzzzzzzzzzy.npy`"
        ),
        "{}",
        note.reason
    );
}

#[test]
fn an_import_that_fails_leaves_no_store_and_takes_no_column_names() {
    let own = Imported::new();
    let columns = own.import("columns", &["--columns", "video=id"]);
    assert_status(&columns, 2);
    assert!(stderr(&columns).contains("--columns"), "{}", stderr(&columns));
    let visual = own.sample.path("other_visual");
    fs::remove_dir_all(&visual).unwrap();
    fs::write(&visual, "").unwrap();
    assert_status(&own.import("failed", &[]), 2);
    for store in ["columns", "failed"] {
        assert!(!own.sample.path(store).exists(), "{store}");
    }
}

#[test]
fn thresholds_that_set_no_label_are_told_by_label_and_relabel() {
    let own = Imported::new();
    let imported = own.import("store", &[]);
    assert!(
        !stderr(&imported).contains("set no label"),
        "{}",
        stderr(&imported)
    );
    let store = own.sample.path("store");
    let relabel = |flags: &[&str]| {
        let output = run([&["relabel", "--store", store.to_str().unwrap()][..], flags].concat());
        assert_status(&output, 0);
        stderr(&output).to_owned()
    };
    let high = relabel(&["--visual-threshold", "30"]);
    assert!(high.contains("the thresholds set no label of the "), "{high}");
    assert!(high.contains("visual labels, whose rule is `logit`"), "{high}");
    assert!(!high.contains(" audio labels"), "{high}");
    let dry = relabel(&["--visual-threshold", "-1", "--dry-run"]);
    assert!(dry.contains("the thresholds set every label of the "), "{dry}");
    let one = relabel(&["--threshold", "audio/Bark=30"]);
    assert!(!one.contains("the thresholds set"), "{one}");
    // Label files without any label are told as such: the user gave no thresholds.
    for video in 0..8 {
        write_ints(&own.file(Modality::Audio, &key(video)), &[0; 30]);
    }
    let none = own.import("none", &[]);
    assert!(
        stderr(&none).contains("the label files set no label of the "),
        "{}",
        stderr(&none)
    );
    assert!(!stderr(&none).contains("threshold"), "{}", stderr(&none));
}

#[test]
fn imported_labels_are_trained_on_denoised_corrected_and_scored() {
    let sample = TrainingSample::new("1");
    let (made, store) = (sample.path("store"), sample.path("imported"));
    let (valor, annotations) = (sample.path("valor"), sample.path("annotations"));
    let (visual, audio) = (format!("{valor}/visual"), format!("{valor}/audio"));
    let export = ["export", "--store", &made, "--format", "valor", "--out", &valor];
    assert_status(&run(export), 0);
    let words = ["label", "--store", &store, "--annotations", &annotations];
    assert_status(
        &run([&words[..], &["--pseudo-labels", &visual, &audio]].concat()),
        0,
    );
    // The scores of the labels are those of the store that they come from.
    let eval = |store: &str| {
        let output = run(["eval", "--store", store, "--split", "test"]);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    let scores = |text: String| {
        text.lines()
            .skip_while(|line| !line.contains("segment"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(scores(eval(&store)), scores(eval(&made)));
    assert!(!scores(eval(&store)).is_empty());
    let snapshot = || Store::open(Path::new(&store)).unwrap().at_version(None).unwrap();
    let first = snapshot().read::<Labels>().unwrap().remove(0);
    let shown = run(["show", "--store", &store, "--", &first.video]);
    assert!(
        stdout(&shown).contains("labels of another program, weak label: "),
        "{}",
        stdout(&shown)
    );
    // Training, and denoising by what was trained.
    assert_status(&sample.train("imported", "", "2"), 0);
    assert_eq!(snapshot().read::<Epochs>().unwrap().len(), 2);
    let denoised = run([
        "denoise",
        "--store",
        &store,
        "--epoch",
        "2",
        "--alpha",
        "1",
        "--guard",
        "0",
        "--modality",
        "both",
    ]);
    assert_status(&denoised, 0);
    let rules = |rule: LabelRule| {
        let tracks = snapshot().read::<Labels>().unwrap();
        tracks.iter().any(|track| track.rules.contains(&rule))
    };
    assert!(rules(LabelRule::Pld) && rules(LabelRule::Import));
    // A user label.
    let user = sample.path("user.csv");
    let row = format!(
        "{},{},{},0,{}",
        first.video,
        first.modality,
        first.class,
        u8::from(!first.labels[0])
    );
    fs::write(&user, format!("video,modality,class,segment,label\n{row}\n")).unwrap();
    assert_status(&run(["relabel", "--store", &store, "--user", &user]), 0);
    assert!(rules(LabelRule::User));
    assert_eq!(snapshot().read::<UserLabels>().unwrap().len(), 1);
    assert_status(&run(["check", "--store", &store]), 0);
}
