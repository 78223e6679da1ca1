//! Hostile text embeddings and label folders, by what a user would see of them: file, class, value.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use parquet::arrow::ArrowWriter;
use vaplan::ingest::label_folder::LabelFolder;
use vaplan::ingest::npy;
use vaplan::ingest::text::TextEmbeddings;
use vaplan_schemas::Modality;

use crate::sample::{Sample, WIDTH, key, write_shard};
use crate::support::{assert_status, run, scratch, stderr, vaplan};

fn classes() -> Vec<Arc<str>> {
    ["Speech", "Dog", "Car"].map(Arc::from).to_vec()
}

fn refusal(path: &Path) -> String {
    let message = TextEmbeddings::read(path, &classes()).unwrap_err().chain();
    message.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn npy_text_embeddings_are_in_the_order_of_the_classes() {
    let folder = scratch();
    let path = folder.path().join("t.npy");
    npy::write_f16(&path, &[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.5, 0.5]).unwrap();
    let text = TextEmbeddings::read(&path, &classes()).unwrap();
    assert_eq!((text.width, text.row(2)), (2, &[0.5, 0.5][..]));
    assert_eq!(text.prompts, [None, None, None]);
    // printf '...' | sha256sum of the same file changes with any byte of it.
    let before = text.sha256;
    npy::write_f16(&path, &[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.5, 0.25]).unwrap();
    let after = TextEmbeddings::read(&path, &classes()).unwrap().sha256;
    assert_eq!((before.len(), after.len()), (64, 64));
    assert_ne!(before, after);
}

#[test]
fn npy_text_embeddings_of_another_shape_or_with_bad_values_are_refused_by_class() {
    let folder = scratch();
    let path = folder.path().join("t.npy");
    let written = |shape: &[usize], values: &[f32]| {
        npy::write_f32(&path, shape, values).unwrap();
        refusal(&path)
    };
    assert_eq!(
        written(&[2, 2], &[1.0; 4]),
        "text embeddings `t.npy`, shape: has 2 rows, expected one for each of 3 classes"
    );
    assert_eq!(
        written(&[6], &[1.0; 6]),
        "npy file `t.npy`: shape is (6,), expected two axes, neither empty, beside axes of length 1"
    );
    assert_eq!(
        written(&[3, 2], &[1.0, 1.0, 1.0, f32::NAN, 1.0, 1.0]),
        "text embeddings `t.npy`, class `Dog`, row 1: value 1 is NaN, expected a finite number"
    );
    assert_eq!(
        written(&[3, 2], &[1.0, 1.0, 1.0, 1.0, f32::NEG_INFINITY, 1.0]),
        "text embeddings `t.npy`, class `Car`, row 2: value 0 is -inf, expected a finite number"
    );
    assert_eq!(
        written(&[3, 2], &[0.0, -0.0, 1.0, 1.0, 1.0, 1.0]),
        "text embeddings `t.npy`, class `Speech`, row 0: all values are 0, expected a direction"
    );
}

/// A Parquet file of these classes, with vectors (row, 1) and prompts.
fn parquet(path: &Path, names: &[&str], widths: &[usize]) {
    let vectors = widths.iter().enumerate().map(|(row, &width)| {
        let values = (0..width).map(|at| Some(if at == 0 { row as f32 + 1.0 } else { 1.0 }));
        Some(values.collect::<Vec<_>>())
    });
    let vectors: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vectors));
    let prompts: ArrayRef = Arc::new(StringArray::from_iter_values(
        names.iter().map(|name| format!("a {name}")),
    ));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    table(
        path,
        vec![("prompt", prompts), ("feature", vectors), ("class", names)],
    );
}

fn table(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_text_embeddings_are_put_in_the_order_of_the_classes() {
    let folder = scratch();
    let path = folder.path().join("t.parquet");
    parquet(&path, &["Car", "Speech", "Dog"], &[2, 2, 2]);
    let text = TextEmbeddings::read(&path, &classes()).unwrap();
    assert_eq!(text.data, [2.0, 1.0, 3.0, 1.0, 1.0, 1.0]);
    let prompts: Vec<_> = text
        .prompts
        .iter()
        .map(|prompt| prompt.as_deref().unwrap())
        .collect();
    assert_eq!(prompts, ["a Speech", "a Dog", "a Car"]);
}

#[test]
fn parquet_text_embeddings_with_other_classes_or_widths_are_refused_by_row() {
    let folder = scratch();
    let path = folder.path().join("t.parquet");
    let written = |names: &[&str], widths: &[usize]| {
        parquet(&path, names, widths);
        refusal(&path)
    };
    assert_eq!(
        written(&["Speech", "Dgo", "Car"], &[2, 2, 2]),
        "text embeddings `t.parquet`, class `Dgo`, row 1: class `Dgo` is unknown, expected one of 3 (nearest: `Dog`)"
    );
    assert_eq!(
        written(&["Speech", "Car"], &[2, 2]),
        "text embeddings `t.parquet`, class `Dog`: is missing, expected a row of it"
    );
    assert_eq!(
        written(&["Speech", "Speech", "Car"], &[2, 2, 2]),
        "text embeddings `t.parquet`, class `Speech`, row 1: class is there twice, expected once"
    );
    assert_eq!(
        written(&["Speech", "Dog", "Car"], &[2, 3, 2]),
        "text embeddings `t.parquet`, class `Dog`, row 1: feature has 3 values, expected 2 as in row 0"
    );
    let plain: ArrayRef = Arc::new(Float32Array::from(vec![1.0]));
    table(&path, vec![("feature", plain)]);
    assert_eq!(
        refusal(&path),
        "parquet file `t.parquet`: no column `class` (columns found: feature)"
    );
    std::fs::write(&path, b"").unwrap();
    assert_eq!(
        refusal(&path),
        "parquet file `t.parquet`: is empty, expected a Parquet file"
    );
}

#[test]
fn label_files_of_anything_but_zeros_and_ones_are_rejected_by_cell() {
    let folder = scratch();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    npy::write_i64(&at("-good_video.npy"), &[2, 3], &[0, 1, 0, 1, 0, 1]).unwrap();
    npy::write_i64(&at("bad_value.npy"), &[2, 3], &[0, 1, 0, 1, 0, 2]).unwrap();
    npy::write_i64(&at("negative.npy"), &[1, 3], &[0, -1, 0]).unwrap();
    npy::write_i64(&at("wide.npy"), &[1, 4], &[0, 1, 0, 1]).unwrap();
    npy::write_f32(&at("float.npy"), &[1, 3], &[0.0, 0.9, 0.0]).unwrap();
    npy::write_f32(&at("unwanted.npy"), &[1, 3], &[0.0, 1.0, 0.0]).unwrap();
    let read = LabelFolder::read(folder.path(), Modality::Audio, 3, &|key| key != "unwanted").unwrap();
    assert_eq!(read.videos.len(), 1);
    assert_eq!(
        (read.videos[0].key.as_str(), read.videos[0].segments),
        ("-good_video", 2)
    );
    assert_eq!(read.videos[0].labels, [false, true, false, true, false, true]);
    assert_eq!(read.unwanted, [at("unwanted.npy")]);
    let complaint = |reject: &vaplan_schemas::rows::RejectRow| {
        let start = format!("{}/", folder.path().display());
        format!(
            "{} {}",
            reject.video.as_deref().unwrap(),
            reject.reason.replace(&start, "")
        )
    };
    let complaints: Vec<String> = read.rejects.iter().map(complaint).collect();
    assert_eq!(
        complaints,
        [
            "bad_value label file `bad_value.npy`, row 1, column 2: label is 2, expected 0 or 1",
            "float label file `float.npy`, row 0, column 1: label is 0.8999999761581421, expected 0 or 1",
            "negative label file `negative.npy`, row 0, column 1: label is -1, expected 0 or 1",
            "wide npy file `wide.npy`: shape is (1, 4), expected (T, 3)",
        ]
    );
    let empty = scratch();
    let error = LabelFolder::read(empty.path(), Modality::Audio, 3, &|_| true)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "`{}`: holds no .npy file, expected `<video>.npy`",
            empty.path().display()
        )
    );
}

#[test]
fn rows_that_end_in_tabs_are_read_and_annotations_without_a_usable_row_say_why() {
    let sample = Sample::new(12);
    let path = sample.path("annotations/small_train.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let tabs: String = rows.lines().map(|row| format!("{row}\t\t\n")).collect();
    std::fs::write(&path, format!("{header}\n{tabs}")).unwrap();
    assert_status(&sample.label("store", &[]), 0);
    let fields: String = rows.lines().map(|row| format!("{row}\tmore\n")).collect();
    std::fs::write(&path, format!("{header}\n{fields}")).unwrap();
    for other in [
        "small_test_pd.csv",
        "small_eval_audio.csv",
        "small_eval_visual.csv",
    ] {
        std::fs::remove_file(sample.path("annotations").join(other)).unwrap();
    }
    let refused = sample.label("other", &[]);
    assert_status(&refused, 2);
    let said = stderr(&refused);
    assert!(
        said.contains("9 of their rows were rejected")
            && said.contains("small_train.csv`, row 2: line has 3 fields, expected 2"),
        "{said}"
    );
}

const UNUSED: &str = "features that match no annotated video are not used";

#[test]
fn features_of_no_annotated_video_are_counted_with_an_example() {
    let sample = Sample::new(12);
    for nth in 0..2 {
        std::fs::rename(
            sample.features("visual", nth),
            sample.path(&format!("visual/clip{nth}.mp4.npy")),
        )
        .unwrap();
    }
    let labelled = sample.label("store", &[]);
    assert_status(&labelled, 1);
    let said = stderr(&labelled);
    assert_eq!(said.matches(UNUSED).count(), 1, "{said}");
    let path = format!(
        "features=2 example=clip0.mp4 path={}",
        sample.path("visual").display()
    );
    assert!(said.contains(&path), "{said}");
}

#[test]
fn features_of_no_annotated_video_in_a_shard_are_counted_once_also_after_a_kill() {
    let sample = Sample::new(12);
    std::fs::remove_dir_all(sample.path("visual")).unwrap();
    std::fs::create_dir(sample.path("visual")).unwrap();
    let shard = sample.path("visual/all.parquet");
    let unknown = (0..2).map(|nth| format!("clip{nth}.mp4"));
    let values = |nth: usize| (0..10 * WIDTH).map(|at| ((nth + at) % 5) as f32 + 0.5).collect();
    let videos = unknown.chain((2..12).map(key)).enumerate();
    write_shard(&shard, WIDTH, videos.map(|(nth, video)| (video, values(nth))));
    let mut killed = vaplan();
    killed.args(sample.arguments("store"));
    let killed = killed.env("VAPLAN_FAULT", "before-versions").output().unwrap();
    assert_eq!(killed.status.code(), None, "{}", stderr(&killed));
    assert!(!stderr(&killed).contains(UNUSED), "{}", stderr(&killed));
    let labelled = sample.label("store", &[]);
    assert_status(&labelled, 1);
    let said = stderr(&labelled);
    assert!(said.contains("going on: "), "{said}");
    assert_eq!(said.matches(UNUSED).count(), 1, "{said}");
    let path = format!("features=2 example=clip0.mp4 path={}", shard.display());
    assert!(said.contains(&path), "{said}");
    // A change that reads the shard again does not repeat what `label` said.
    let (store, visual) = (sample.path("store"), sample.path("visual"));
    let features = ["--visual", visual.to_str().unwrap()];
    let relabelled = run(["relabel", "--store", store.to_str().unwrap()]
        .into_iter()
        .chain(features));
    assert!(
        matches!(relabelled.status.code(), Some(0 | 1)),
        "{}",
        stderr(&relabelled)
    );
    assert!(!stderr(&relabelled).contains(UNUSED), "{}", stderr(&relabelled));
}
