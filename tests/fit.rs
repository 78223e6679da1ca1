//! `vaplan label --fit-thresholds`: thresholds from features and weak labels.

use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Rejects, Settings};

use crate::sample::Sample;
use crate::support::{assert_status, run, sample_annotations, scratch, stdout};

/// Simulated features of the built-in sample, five times.
struct Simulated {
    folder: tempfile::TempDir,
}

impl Simulated {
    fn new() -> Simulated {
        let folder = scratch();
        let dir = folder.path().to_str().unwrap();
        sample_annotations(dir);
        let own = Simulated { folder };
        let (given, features) = (own.path("annotations"), own.path("features"));
        let words = [
            "synth",
            "--annotations",
            &given,
            "--out",
            &features,
            "--dim",
            "64",
            "--repeat",
            "5",
        ];
        assert_status(&run([&words[..], &["--parquet"]].concat()), 0);
        own
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn label(&self, store: &str, more: &[&str]) -> String {
        let mut words = vec!["label".to_owned()];
        for (flag, name) in [
            ("--store", store),
            ("--annotations", "features/annotations"),
            ("--visual", "features/visual"),
            ("--audio", "features/audio"),
            ("--visual-text", "features/visual_text.npy"),
            ("--audio-text", "features/audio_text.npy"),
        ] {
            words.extend([flag.to_owned(), self.path(name)]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let output = run(words);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    }

    fn latest(&self, store: &str) -> Snapshot {
        let store = Store::open(Path::new(&self.path(store))).unwrap();
        store.at_version(None).unwrap()
    }

    /// Type@AV of the labels of test.
    fn score(&self, store: &str) -> f64 {
        let output = run([
            "eval",
            "--store",
            &self.path(store),
            "--split",
            "test",
            "--format",
            "json",
        ]);
        let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        let found = report.to_string();
        let segment = report
            .pointer("/scores/segment/type_av")
            .or(report.pointer("/segment/type_av"));
        segment
            .and_then(serde_json::Value::as_f64)
            .unwrap_or_else(|| panic!("{found}"))
    }
}

#[test]
fn fitted_thresholds_differ_by_class_improve_labels_and_do_not_depend_on_workers() {
    let own = Simulated::new();
    own.label("plain", &[]);
    own.label("fitted", &["--fit-thresholds", "--workers", "1"]);
    own.label("other", &["--fit-thresholds", "--workers", "3"]);
    let (plain, fitted) = (own.score("plain"), own.score("fitted"));
    assert!(fitted > plain + 1.0, "{fitted}, with default thresholds {plain}");

    let open = |name: &str| {
        Store::open(Path::new(&own.path(name)))
            .unwrap()
            .at_version(None)
            .unwrap()
    };
    let classes = open("fitted").read::<Classes>().unwrap();
    let distinct: std::collections::BTreeSet<String> =
        classes.iter().map(|row| row.threshold.to_string()).collect();
    assert!(distinct.len() > 20, "{distinct:?}");
    assert_eq!(open("other").read::<Classes>().unwrap(), classes);
    assert_eq!(
        open("other").read::<Labels>().unwrap(),
        open("fitted").read::<Labels>().unwrap()
    );
    let again = own.label("fitted", &["--fit-thresholds"]);
    assert!(again.contains("nothing to do"), "{again}");
}

#[test]
fn classes_whose_scores_tell_nothing_keep_their_threshold_and_a_note_says_so() {
    // The features of this sample are random numbers, and 12 videos are too few for any class.
    let sample = Sample::new(12);
    assert_status(
        &sample.label("store", &["--fit-thresholds", "--visual-threshold", "1.1"]),
        0,
    );
    let snapshot = Store::open(&sample.path("store"))
        .unwrap()
        .at_version(None)
        .unwrap();
    for row in snapshot.read::<Classes>().unwrap() {
        let expected = if row.modality == vaplan_schemas::Modality::Visual {
            1.1
        } else {
            0.95
        };
        assert_eq!(row.threshold, expected, "{row:?}");
    }
    let notes = snapshot.read::<Rejects>().unwrap();
    let told: Vec<&str> = notes
        .iter()
        .filter(|row| row.kind.as_str() == "fitted_threshold")
        .map(|row| row.reason.as_str())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("no audio threshold of 3 of 3 classes"),
        "{told:?}"
    );
    assert!(told[0].contains("expected at least 20"), "{told:?}");
}

/// Writes another threshold of the first class into the fit that the store keeps.
fn change_kept_fit(latest: &Snapshot, threshold: f64) {
    let mut rows = latest.read::<Settings>().unwrap();
    let row = rows.iter_mut().find(|row| &*row.name == "fit.result").unwrap();
    let mut result: serde_json::Value = serde_json::from_str(&row.value).unwrap();
    result["thresholds"][0][0] = threshold.into();
    row.value = result.to_string().into();
    let lock = latest.store().lock(&mut |_| ()).unwrap();
    let mut commit = latest.store().begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Settings>(&rows).unwrap();
    commit.finish().unwrap();
}

#[test]
fn a_store_keeps_the_fit_of_its_inputs_and_fits_again_only_for_others() {
    let own = Simulated::new();
    own.label("store", &["--fit-thresholds"]);
    let first = own.latest("store").read::<Classes>().unwrap();
    // Only a fit that is not made again has this threshold.
    change_kept_fit(&own.latest("store"), 1.2345);
    own.label("store", &["--fit-thresholds"]);
    let kept = own.latest("store").read::<Classes>().unwrap();
    let changed: Vec<f64> = kept
        .iter()
        .zip(&first)
        .filter(|(kept, first)| kept != first)
        .map(|(kept, _)| kept.threshold)
        .collect();
    assert_eq!(changed, [1.2345]);
    // Labels with given thresholds do not lose the fit.
    own.label("store", &["--visual-threshold", "1.01"]);
    own.label("store", &["--fit-thresholds"]);
    assert_eq!(own.latest("store").read::<Classes>().unwrap(), kept);
    // A feature file with other bytes is another input, although it has the same values.
    let shard = std::fs::read_dir(own.path("features/audio"))
        .unwrap()
        .next()
        .unwrap();
    let shard = shard.unwrap().path();
    let bytes = std::fs::read(&shard).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    let properties = WriterProperties::builder()
        .set_created_by("another writer".to_owned())
        .set_key_value_metadata(metadata)
        .build();
    let file = std::fs::File::create(&shard).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.close().unwrap();
    own.label("store", &["--fit-thresholds"]);
    assert_eq!(own.latest("store").read::<Classes>().unwrap(), first);
}

#[test]
fn shares_of_events_set_the_share_of_labels() {
    let own = Simulated::new();
    let shares = ["--audio-event-share", "0.3", "--visual-event-share", "0.8"];
    own.label("store", &[&["--fit-thresholds"][..], &shares].concat());
    let rows = own.latest("store").read::<Labels>().unwrap();
    let videos = own
        .latest("store")
        .read::<vaplan_schemas::tables::Videos>()
        .unwrap();
    let share = |modality: vaplan_schemas::Modality| {
        let (mut set, mut all) = (0, 0);
        // Classes of fewer than 20 videos keep their threshold.
        for track in rows.iter().filter(|track| track.modality == modality) {
            let known = videos
                .iter()
                .filter(|video| video.weak_labels.contains(&track.class))
                .count();
            if known >= 20 {
                set += track.labels.iter().filter(|label| **label).count();
                all += track.labels.len();
            }
        }
        set as f64 / all as f64
    };
    let found = vaplan_schemas::Modality::ALL.map(share);
    assert!(
        (found[0] - 0.3).abs() < 0.01 && (found[1] - 0.8).abs() < 0.01,
        "{found:?}"
    );
    for words in [&shares[..2], &["--fit-thresholds", "--audio-event-share", "1"]] {
        let refused = run([&["label", "--store", "x", "--annotations", "x"][..], words].concat());
        assert_status(&refused, 2);
    }
}
