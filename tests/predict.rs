//! `vaplan predict --npy`: which files it writes, and which it leaves alone.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use parquet::arrow::ArrowWriter;
use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;

use crate::support::{assert_status, run, stderr, stdout};
use crate::train::TrainingSample;

/// A checkpoint trained for one epoch on features of width 32.
pub(crate) fn trained() -> TrainingSample {
    let sample = TrainingSample::new("1");
    assert_status(&sample.train("store", "", "1"), 0);
    sample
}

/// Predicts videos of these names, whose features have this width, into the folder `npy`.
pub(crate) fn predict(sample: &TrainingSample, videos: &[&str], width: usize) -> Output {
    let shard = |modality: Modality| {
        let path = sample.path(&format!("{modality}.parquet"));
        let format = ShardFormat {
            modality,
            width,
            float: FloatType::F32,
            layout: FeatureLayout::Packed,
            model: None,
        };
        let mut writer = ShardWriter::create(Path::new(&path), format).unwrap();
        for video in videos {
            writer.append(video, &vec![0.25; 5 * width]).unwrap();
        }
        writer.finish().unwrap();
        path
    };
    let (audio, visual) = (shard(Modality::Audio), shard(Modality::Visual));
    let checkpoint = sample.path("store/_vaplan/train/best.safetensors");
    let words = [
        "predict",
        "--checkpoint",
        &checkpoint,
        "--npy",
        &sample.path("npy"),
    ];
    let features = ["--audio", &audio, "--visual", &visual, "--threads", "1"];
    run([&words[..], &features].concat())
}

/// Sorted names in a folder.
pub(crate) fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_name_that_is_no_file_name_is_left_out_and_the_others_are_predicted() {
    let sample = trained();
    let output = predict(&sample, &["../../evil", "good one"], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("1 videos predicted"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("video name `../../evil` cannot be a file name"),
        "{}",
        stderr(&output)
    );
    assert_eq!(names(&sample.path("npy/visual")), ["good one.npy"]);
    assert!(!sample.folder.path().join("evil.npy").exists());
}

#[test]
fn a_name_too_long_for_a_file_is_left_out_and_the_others_are_predicted() {
    let sample = trained();
    let (long, longest) = ("x".repeat(300), "y".repeat(251));
    let output = predict(&sample, &["good one", &longest, &long], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("2 videos predicted"),
        "{}",
        stdout(&output)
    );
    assert!(
        stderr(&output).contains("has 300 bytes, expected at most 251"),
        "{}",
        stderr(&output)
    );
    let expected = ["good one.npy".to_owned(), format!("{longest}.npy")];
    assert_eq!(names(&sample.path("npy/audio")), expected);
    assert_eq!(names(&sample.path("npy")), ["audio", "visual"]);
}

#[test]
fn a_name_with_a_control_character_makes_no_file_and_the_others_are_predicted() {
    let sample = trained();
    let output = predict(&sample, &["good one", "line\nbreak", "bell\u{7}"], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("1 videos predicted"),
        "{}",
        stdout(&output)
    );
    let expected = "video name `bell\\u{7}` cannot be a file name: it contains a control character";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    assert!(
        !stderr(&output).contains('\u{7}'),
        "no control character reaches the terminal"
    );
    assert_eq!(names(&sample.path("npy/visual")), ["good one.npy"]);
}

#[test]
fn a_folder_that_was_there_before_stays_and_scratch_folders_go_even_after_an_error() {
    let sample = trained();
    let foreign = sample.path("npy/features.part");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(format!("{foreign}/thesis.txt"), "precious").unwrap();
    assert_status(&predict(&sample, &["good one"], 32), 0);
    assert_eq!(
        fs::read_to_string(format!("{foreign}/thesis.txt")).unwrap(),
        "precious"
    );
    assert_eq!(names(&sample.path("npy")), ["audio", "features.part", "visual"]);

    // The features do not fit the checkpoint: this is known only after they were pooled into the scratch folder.
    let output = predict(&sample, &["good one"], 16);
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("features have width 16, expected 32"),
        "{}",
        stderr(&output)
    );
    assert_eq!(names(&sample.path("npy")), ["audio", "features.part", "visual"]);
}

/// The columns of [`renamed`], as `--columns` names them.
pub(crate) const COLUMNS: &str = "video=id,segment=t,feature=embedding";

/// Writes the npy files of a folder as one Parquet file with columns `id`, `t` and `embedding`.
pub(crate) fn renamed(folder: &str, path: &str) {
    let (mut ids, mut segments, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for name in names(folder) {
        let array = vaplan::ingest::npy::read_floats(Path::new(&format!("{folder}/{name}"))).unwrap();
        let width = array.shape[1];
        for (segment, row) in array.data.chunks(width).enumerate() {
            ids.push(name.trim_end_matches(".npy").to_owned());
            segments.push(segment as i64);
            values.push(Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
        }
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(StringArray::from(ids))),
        ("t", Arc::new(Int64Array::from(segments))),
        (
            "embedding",
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(values)),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn columns_of_other_names_are_learnt_from_and_predicted_as_the_same_features() {
    let sample = trained();
    let [audio, visual] = ["audio", "visual"].map(|modality| {
        let path = sample.path(&format!("{modality}-renamed.parquet"));
        renamed(&sample.path(&format!("features/{modality}")), &path);
        path
    });
    let checkpoint = sample.path("store/_vaplan/train/best.safetensors");
    let predict = |audio: &str, visual: &str, npy: &str, more: &[&str]| {
        let words = [
            "predict",
            "--checkpoint",
            &checkpoint,
            "--threads",
            "1",
            "--npy",
            npy,
        ];
        run([&words[..], &["--audio", audio, "--visual", visual], more].concat())
    };
    let (own, other) = (sample.path("own"), sample.path("other"));
    let features = ["audio", "visual"].map(|modality| sample.path(&format!("features/{modality}")));
    assert_status(&predict(&features[0], &features[1], &own, &[]), 0);
    assert_status(&predict(&audio, &visual, &other, &["--columns", COLUMNS]), 0);
    let files = names(&format!("{own}/visual"));
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let read = |folder: &str| fs::read(format!("{folder}/visual/{file}")).unwrap();
        assert_eq!(read(&own), read(&other), "{file}");
    }
    let refused = predict(&audio, &visual, &other, &[]);
    assert_status(&refused, 2);

    // A run labels and learns from the same columns, and says so to the store.
    let settings = format!("columns = '{COLUMNS}'\n[train]\nepochs = 1\nhidden = 16\nfeedforward = 16\n");
    let config = crate::run::config(&sample, "named", &settings);
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("'features/visual'", &format!("'{visual}'"));
    fs::write(&config, text.replace("'features/audio'", &format!("'{audio}'"))).unwrap();
    let own = crate::run::config(&sample, "plain", &settings.replace(COLUMNS, ""));
    let rows = [config, own].map(|config| {
        let output = run(["run", &config, "--threads", "1", "--workers", "2"]);
        assert_status(&output, 0);
        crate::run::scores(&output)
    });
    assert_eq!(rows[0], rows[1]);
}
