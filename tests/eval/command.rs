//! `vaplan eval` on label folders.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use vaplan::eval::BitMatrix;

use super::golden::{self, PREDICTIONS};
use crate::support::{assert_golden, assert_status, run, scratch, shared, stderr, stdout};

/// Three test videos of classes Speech and Dog, and a train video. In the first a dog barks throughout and is seen in
/// the last two of four segments, and someone speaks in segment 0; in the second someone speaks; in the third nothing
/// happens. One event starts where it ends, one is of a video of no split.
fn annotations(folder: &Path) {
    let files = [
        ("classes.txt", "Speech\nDog\n"),
        ("X_train.csv", "filename\tevent_labels\ntrain_video_0_4\tDog\n"),
        (
            "X_test_pd.csv",
            "filename\tevent_labels\nAAAAAAAAAAA_0_4\tSpeech,Dog\n-_BBBBBBBBB_5_9\tSpeech\nCCCCCCCCCCC_0_4\tDog\n",
        ),
        (
            "X_eval_audio.csv",
            "filename\tonset\toffset\tevent_labels\nAAAAAAAAAAA_0_4\t0\t4\tDog\nAAAAAAAAAAA_0_4\t0\t1\tSpeech\n\
             -_BBBBBBBBB_5_9\t1\t3\tSpeech\nCCCCCCCCCCC_0_4\t2\t2\tDog\nof_no_split_0_4\t0\t4\tDog\n",
        ),
        (
            "X_eval_visual.csv",
            "filename\tonset\toffset\tevent_labels\nAAAAAAAAAAA_0_4\t2\t9\tDog\n",
        ),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// An npy file of int64, (T, C), C order.
pub(super) fn write_labels(path: &Path, matrix: &BitMatrix) {
    let (classes, segments) = (matrix.classes(), matrix.segments());
    let mut header =
        format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({segments}, {classes}), }}");
    header.push_str(&" ".repeat(127 - 10 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.bytes());
    for segment in 0..segments {
        for class in 0..classes {
            bytes.extend(i64::from(matrix.get(class, segment)).to_le_bytes());
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A matrix of rows of text, one per class, `#` for 1.
fn labels(rows: [&str; 2]) -> BitMatrix {
    let mut matrix = BitMatrix::new(2, rows[0].len());
    for (class, row) in rows.into_iter().enumerate() {
        for (segment, _) in row.bytes().enumerate().filter(|(_, cell)| *cell == b'#') {
            matrix.set(class, segment);
        }
    }
    matrix
}

/// A scratch folder with the annotations above and labels that hit the dog, miss the speech of the first video, and
/// see a dog in the third.
fn fixture() -> tempfile::TempDir {
    let scratch = scratch();
    for folder in ["annotations", "audio", "visual"] {
        std::fs::create_dir(scratch.path().join(folder)).unwrap();
    }
    annotations(&scratch.path().join("annotations"));
    let audio = |name: &str, rows| write_labels(&scratch.path().join("audio").join(name), &labels(rows));
    audio("AAAAAAAAAAA.npy", ["....", "###."]);
    audio("-_BBBBBBBBB.npy", [".##.", "...."]);
    audio("CCCCCCCCCCC.npy", ["....", "...."]);
    let visual = |name: &str, rows| write_labels(&scratch.path().join("visual").join(name), &labels(rows));
    visual("AAAAAAAAAAA.npy", ["....", "..##"]);
    visual("-_BBBBBBBBB.npy", ["....", "...."]);
    visual("CCCCCCCCCCC.npy", ["....", "#..."]);
    scratch
}

fn eval(folder: &Path, more: &[&str]) -> Output {
    let path = |name: &str| folder.join(name).into_os_string().into_string().unwrap();
    let (annotations, audio, visual) = (path("annotations"), path("audio"), path("visual"));
    let mut arguments = vec!["eval", "--annotations", &annotations, "--audio-labels", &audio];
    arguments.extend(["--visual-labels", &visual]);
    arguments.extend(more);
    run(arguments)
}

#[test]
fn a_small_split_has_the_scores_of_a_hand_calculation() {
    let fixture = fixture();
    let output = eval(
        fixture.path(),
        &["--split", "test", "--format", "json", "--per-class"],
    );
    assert_status(&output, 0);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let close = |path: &str, expected: f64| {
        let actual = report.pointer(path).and_then(Value::as_f64).unwrap();
        assert!(
            (actual - expected).abs() < 1e-9,
            "{path}: {actual} is not {expected}"
        );
    };
    // Audio, F per video: (Speech 0 + Dog 6/7) / 2, 1, 1.
    close("/segment/audio", 100.0 * (3.0 / 7.0 + 2.0) / 3.0);
    // Visual: Dog 1; nothing and nothing: 1; Dog in vain: 0.
    close("/segment/visual", 100.0 * 2.0 / 3.0);
    // Both: Dog predicted in segment 2, true in 2 and 3: 2/3; 1; 1.
    close("/segment/audio_visual", 100.0 * (2.0 / 3.0 + 2.0) / 3.0);
    // Together: Speech 0, Dog 10/11; 1; 0.
    close("/segment/event_av", 100.0 * (5.0 / 11.0 + 1.0) / 3.0);
    // Events: Dog is heard for three of four segments, a match; both: one of two, a match.
    close("/event/audio", 100.0 * 2.5 / 3.0);
    close("/event/audio_visual", 100.0);
    // Dog over all videos: A 3 hits, 1 miss; V 2 hits, 1 false alarm.
    close("/per_class/1/audio", 600.0 / 7.0);
    close("/per_class/1/visual", 80.0);
    assert_eq!(report["per_class"][0]["class"], "Speech");
    assert_eq!(
        report["per_class"][0]["visual"],
        Value::Null,
        "neither predicted nor true"
    );
    assert_eq!(
        json!([
            report["protocol"],
            report["split"],
            report["videos"],
            report["missing"]
        ]),
        json!(["labels", "test", 3, { "audio": [], "visual": [] }])
    );
}

#[test]
fn the_table_has_one_decimal() {
    let fixture = fixture();
    let output = eval(fixture.path(), &["--split", "test", "--per-class"]);
    assert_status(&output, 0);
    assert_golden("eval/table.txt", &output.stdout);
}

#[test]
fn quirks_of_the_annotations_are_noted_and_harmless() {
    let fixture = fixture();
    let output = eval(fixture.path(), &["--split", "test"]);
    assert_status(&output, 0);
    let said = stderr(&output);
    assert!(
        said.contains("X_eval_audio.csv`, row 5") && said.contains("of_no_split_0_4"),
        "{said}"
    );
    assert!(
        said.lines().all(|line| line.starts_with("vaplan: note: ")),
        "{said}"
    );
    assert_eq!(stderr(&eval(fixture.path(), &["--split", "test", "--quiet"])), "");
}

#[test]
fn a_video_without_labels_counts_as_nothing_predicted() {
    let fixture = fixture();
    let full = eval(fixture.path(), &["--split", "test", "--format", "json"]);
    // Its labels said nothing before, too.
    std::fs::remove_file(fixture.path().join("audio/CCCCCCCCCCC.npy")).unwrap();
    let output = eval(fixture.path(), &["--split", "test", "--format", "json"]);
    assert_status(&output, 1);
    let (full, report): (Value, Value) = (
        serde_json::from_slice(&full.stdout).unwrap(),
        serde_json::from_slice(&output.stdout).unwrap(),
    );
    assert_eq!(
        (&report["segment"], &report["event"]),
        (&full["segment"], &full["event"])
    );
    assert_eq!(
        report["missing"],
        json!({ "audio": ["CCCCCCCCCCC_0_4"], "visual": [] })
    );
    let said =
        "vaplan: 1 of 3 videos has no audio labels, scored as nothing predicted; first `CCCCCCCCCCC_0_4`";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
}

#[test]
fn a_split_without_truth_is_an_error() {
    let fixture = fixture();
    let output = eval(fixture.path(), &["--split", "train"]);
    assert_status(&output, 2);
    let said = "vaplan: split `train` has no dense truth: none of its 1 videos has an annotated event\n";
    assert!(stderr(&output).ends_with(said), "{}", stderr(&output));
    let output = eval(fixture.path(), &["--split", "val"]);
    assert_status(&output, 2);
    assert!(
        stderr(&output).ends_with("vaplan: split `val` has no videos\n"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_split_without_any_labels_is_an_error() {
    let fixture = fixture();
    for folder in ["audio", "visual"] {
        for file in std::fs::read_dir(fixture.path().join(folder)).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let output = eval(fixture.path(), &["--split", "test"]);
    assert_status(&output, 2);
    assert_eq!(stdout(&output), "");
}

/// One bad file takes its video along and nothing else.
#[track_caller]
fn assert_rejected(fixture: &tempfile::TempDir, reason: &str, missing: &Value) {
    let output = eval(
        fixture.path(),
        &["--split", "test", "--format", "json", "--quiet"],
    );
    assert_status(&output, 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["missing"], *missing);
    let said = stderr(&output).replace(fixture.path().to_str().unwrap(), "DIR");
    assert!(said.contains(reason), "{reason} in\n{said}");
}

#[test]
fn labels_of_two_lengths_are_rejected() {
    let fixture = fixture();
    let longer = labels([".....", "....."]);
    write_labels(&fixture.path().join("visual/-_BBBBBBBBB.npy"), &longer);
    assert_rejected(
        &fixture,
        "rejected: `DIR/visual/-_BBBBBBBBB.npy`, video `-_BBBBBBBBB_5_9`: 5 segments, expected the 4 of \
         `DIR/audio/-_BBBBBBBBB.npy`: both rejected",
        &json!({ "audio": ["-_BBBBBBBBB_5_9"], "visual": ["-_BBBBBBBBB_5_9"] }),
    );
}

#[test]
fn two_files_for_one_video_must_agree() {
    let fixture = fixture();
    let audio = fixture.path().join("audio");
    std::fs::copy(audio.join("AAAAAAAAAAA.npy"), audio.join("AAAAAAAAAAA_0_4.npy")).unwrap();
    assert_status(&eval(fixture.path(), &["--split", "test"]), 0);
    write_labels(&audio.join("AAAAAAAAAAA_0_4.npy"), &labels(["....", "...#"]));
    assert_rejected(
        &fixture,
        "rejected: `DIR/audio/AAAAAAAAAAA_0_4.npy`, video `AAAAAAAAAAA_0_4`: labels differ from those of \
         `DIR/audio/AAAAAAAAAAA.npy`: both rejected",
        &json!({ "audio": ["AAAAAAAAAAA_0_4"], "visual": [] }),
    );
}

#[test]
fn a_bad_label_file_loses_nothing_beside_it() {
    let fixture = fixture();
    let file = fixture.path().join("audio/CCCCCCCCCCC.npy");
    let whole = std::fs::read(&file).unwrap();
    let missing = json!({ "audio": ["CCCCCCCCCCC_0_4"], "visual": [] });
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert_rejected(
        &fixture,
        "rejected: npy file `DIR/audio/CCCCCCCCCCC.npy`: ",
        &missing,
    );
    // Segment 3, class 1 is the last number.
    let mut two = whole.clone();
    two[whole.len() - 8] = 2;
    std::fs::write(&file, two).unwrap();
    let reason = "label file `DIR/audio/CCCCCCCCCCC.npy`, row 3, column 1: label is 2, expected 0 or 1";
    assert_rejected(&fixture, reason, &missing);
}

/// What the project must show, by the numbers of the papers' table.
#[test]
fn the_repeated_video_label_prints_the_known_scores() {
    let Some(shared) = shared("the_repeated_video_label_prints_the_known_scores") else {
        return;
    };
    let folders = golden_folders(&shared, "test_video_label_repeated");
    let output = golden_eval(&shared, folders.path(), &["--split", "test"]);
    assert_status(&output, 0);
    let rows: Vec<String> = stdout(&output)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for row in [
        "segment 76.1 60.3 52.6 63.0 71.7",
        "event 63.0 55.8 44.7 54.5 61.6",
    ] {
        assert!(
            rows.iter().any(|printed| printed == row),
            "{row} in\n{}",
            stdout(&output)
        );
    }
    assert!(stderr(&output).lines().count() < 12, "{}", stderr(&output));
}

#[test]
fn golden_predictions_as_label_folders_have_the_golden_scores() {
    let Some(shared) = shared("golden_predictions_as_label_folders_have_the_golden_scores") else {
        return;
    };
    let expected = golden::expected(&shared);
    for split in ["val", "test"] {
        for prediction in PREDICTIONS {
            let name = format!("{split}_{prediction}");
            let folders = golden_folders(&shared, &name);
            let output = golden_eval(&shared, folders.path(), &["--split", split, "--format", "json"]);
            assert_status(&output, 0);
            let report = serde_json::from_slice(&output.stdout).unwrap();
            golden::assert_scores(&name, &report, &expected[&name]);
        }
    }
}

/// The golden predictions `name` as folders `audio` and `visual`, one file per video.
fn golden_folders(shared: &Path, name: &str) -> tempfile::TempDir {
    let scratch = scratch();
    let folder = shared.join("golden/eval");
    let split = name.split('_').next().unwrap();
    let videos = golden::lines(&folder.join(format!("{split}_videos.txt")));
    for kind in ["audio", "visual"] {
        std::fs::create_dir(scratch.path().join(kind)).unwrap();
    }
    let predictions = golden::predictions(&folder.join(format!("{name}.npy")), 25);
    for (video, prediction) in videos.iter().zip(predictions) {
        for (kind, matrix) in [("audio", prediction.audio), ("visual", prediction.visual)] {
            let file = scratch.path().join(kind).join(format!("{}.npy", &video[..11]));
            write_labels(&file, &matrix.unwrap());
        }
    }
    scratch
}

fn golden_eval(shared: &Path, folders: &Path, more: &[&str]) -> Output {
    std::os::unix::fs::symlink(shared.join("llp"), folders.join("annotations")).unwrap();
    eval(folders, more)
}
