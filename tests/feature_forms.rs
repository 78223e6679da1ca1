//! Features in the forms that people have: rows in any order, other names of columns, nested folders, npz, integers.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::Float32Type;
use parquet::arrow::ArrowWriter;
use vaplan::ingest::features::{ColumnNames, FeatureEvent, FeatureInput, Shard};
use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Severity;

/// The result of reading a shard: key, segments, first row and values of each video; rejected rows; and notes.
#[derive(Debug, Default)]
struct Given {
    videos: Vec<(String, u32, u64, Vec<f32>)>,
    rejects: Vec<String>,
    notes: Vec<String>,
}

fn read(shard: &Shard) -> Given {
    let mut given = Given::default();
    shard.read(100, &mut |event| {
        match event {
            FeatureEvent::Batch(batch) => {
                let mut at = 0;
                for video in batch.videos {
                    let to = at + video.segments as usize * batch.width;
                    let values = batch.data[at..to].to_vec();
                    given
                        .videos
                        .push((video.key.to_string(), video.segments, video.row, values));
                    at = to;
                }
            }
            FeatureEvent::Reject(reject) => {
                let row = reject.row.map_or_else(|| "-".to_owned(), |row| row.to_string());
                let file = reject.file.rsplit('/').next().unwrap_or_default().to_owned();
                let video = reject.video.as_deref().unwrap_or("-");
                let text = format!("{file}:{row} {video}: {}", reject.reason);
                match reject.severity {
                    Severity::Reject => given.rejects.push(text),
                    Severity::Note => given.notes.push(text),
                }
            }
        }
        ControlFlow::Continue(())
    });
    given
}

fn open(path: &Path) -> Vec<Shard> {
    FeatureInput::open(path, Modality::Visual, &ColumnNames::default(), &|_| true)
        .unwrap()
        .shards
}

fn read_file(path: &Path) -> Given {
    read(&open(path)[0])
}

fn names(given: &Given) -> Vec<(&str, u32)> {
    given
        .videos
        .iter()
        .map(|(key, segments, ..)| (key.as_str(), *segments))
        .collect()
}

/// Writes these columns with the default settings of the arrow writer.
fn table(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn lists(rows: &[Option<&[Option<f32>]>]) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(
        rows.iter().map(|row| row.map(<[_]>::to_vec)),
    ))
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn segments(numbers: &[u8]) -> ArrayRef {
    Arc::new(UInt8Array::from(numbers.to_vec()))
}

/// Values of video `v`.
fn values(v: usize, segments: usize) -> Vec<f32> {
    (0..segments * 3)
        .map(|at| ((v * 64 + at) % 2048) as f32 / 8.0)
        .collect()
}

/// Writes rows `(video, segment)`; the features of a row are its number in the file of ordered rows.
fn rows(path: &Path, rows: &[(&str, u8)], numbers: &[f32]) {
    let lists: Vec<Vec<Option<f32>>> = numbers
        .iter()
        .map(|&number| vec![Some(number), Some(0.5)])
        .collect();
    let lists: Vec<Option<&[Option<f32>]>> = lists.iter().map(|list| Some(list.as_slice())).collect();
    let (videos, numbers): (Vec<&str>, Vec<u8>) = rows.iter().copied().unzip();
    let columns = vec![
        ("video", texts(&videos)),
        ("segment", segments(&numbers)),
        ("feature", self::lists(&lists)),
    ];
    table(path, columns);
}

#[test]
fn rows_in_any_order_are_the_same_videos_and_segments_may_count_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let firsts = |given: &Given| -> Vec<(String, Vec<f32>)> {
        let first = |values: &[f32]| values.iter().step_by(2).copied().collect();
        given
            .videos
            .iter()
            .map(|(key, _, _, values)| (key.clone(), first(values)))
            .collect()
    };
    let wanted = vec![
        ("A".to_owned(), vec![1.0, 2.0, 3.0]),
        ("B".to_owned(), vec![4.0, 5.0]),
    ];
    for first in [0, 1] {
        let note = first as usize;
        rows(
            &path,
            &[
                ("A", first),
                ("A", first + 1),
                ("A", first + 2),
                ("B", first),
                ("B", first + 1),
            ],
            &[1.0, 2.0, 3.0, 4.0, 5.0],
        );
        let ordered = read_file(&path);
        rows(
            &path,
            &[
                ("A", first + 2),
                ("B", first + 1),
                ("A", first),
                ("B", first),
                ("A", first + 1),
            ],
            &[3.0, 5.0, 1.0, 4.0, 2.0],
        );
        for given in [ordered, read_file(&path)] {
            assert_eq!(firsts(&given), wanted, "from {first}");
            assert_eq!(
                (given.rejects.len(), given.notes.len()),
                (0, note),
                "from {first}"
            );
        }
    }
    // A gap, and a segment that is there twice, take their video only.
    rows(
        &path,
        &[
            ("A", 1),
            ("B", 0),
            ("C", 0),
            ("A", 0),
            ("B", 2),
            ("C", 1),
            ("C", 1),
        ],
        &[2.0, 0.0, 6.0, 1.0, 0.0, 7.0, 8.0],
    );
    let given = read_file(&path);
    assert_eq!(names(&given), [("A", 2)]);
    assert_eq!(
        given.rejects,
        [
            "a.parquet:4 B: segment is 2, expected 1: a video has each segment once, from 0 on",
            "a.parquet:6 C: segment is 1, expected 2: a video has each segment once, from 0 on",
        ]
    );
}

#[test]
fn columns_of_other_names_and_hive_folders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split=test/id=A%20B/0.parquet");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::create_dir_all(folder.path().join("modality=audio")).unwrap();
    std::fs::write(folder.path().join("modality=audio/0.parquet"), b"not read").unwrap();
    let integers: ArrayRef = Arc::new(
        ListArray::from_iter_primitive::<arrow::datatypes::UInt8Type, _, _>([
            Some([Some(7_u8), Some(255)]),
            Some([Some(0), Some(1)]),
        ]),
    );
    table(&path, vec![("t", segments(&[0, 1])), ("embedding", integers)]);
    let columns: ColumnNames = "video=id,segment=t,feature=embedding".parse().unwrap();
    let [plain] = open(folder.path()).try_into().unwrap();
    let input = FeatureInput::open(folder.path(), Modality::Visual, &columns, &|_| true).unwrap();
    let [shard] = input.shards.try_into().unwrap();
    assert_ne!(plain.fingerprint(), shard.fingerprint());
    assert_eq!(shard.keys(), ["A B".to_owned()].into());
    let given = read(&shard);
    assert_eq!(
        given.videos,
        [("A B".to_owned(), 2, 0, vec![7.0, 255.0, 0.0, 1.0])]
    );
    assert_eq!(given.rejects, [""; 0]);
}

/// Writes an npz archive as `numpy.savez` does.
fn npz(path: &Path, arrays: &[&str], method: zip::CompressionMethod) {
    use std::io::Write as _;
    let array = path.with_extension("array");
    npy::write_f32(&array, &[1, 2, 3], &values(5, 2)).unwrap();
    let bytes = std::fs::read(&array).unwrap();
    std::fs::remove_file(array).unwrap();
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for name in arrays {
        let options = zip::write::FileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn npy_files_of_every_common_form_are_read_in_folders_below() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("train/deep");
    std::fs::create_dir_all(&below).unwrap();
    let at = |name: &str| below.join(name);
    npy::write_f32(&at("batch.NPY"), &[1, 2, 3], &values(5, 2)).unwrap();
    npy::write_f32(&at("middle.npy"), &[2, 1, 3], &values(5, 2)).unwrap();
    npy::write_f32(&at("one.npy"), &[1, 1, 3], &values(5, 1)).unwrap();
    npy::write_f32(&at("pooled.npy"), &[2, 3, 1, 1], &values(5, 2)).unwrap();
    npy::write_f32(&at("pooled_one.npy"), &[1, 3, 1, 1], &values(5, 1)).unwrap();
    npy::write_f32(&at("pooled_batch.npy"), &[1, 2, 3, 1, 1], &values(5, 2)).unwrap();
    npy::write_f32(&at("tail.npy"), &[2, 3, 1], &values(5, 2)).unwrap();
    npy::write_i64(&at("vggish.npy"), &[2, 3], &[0, 255, 7, 1, 2, 3]).unwrap();
    npz(&at("stored.npz"), &["arr_0"], zip::CompressionMethod::Stored);
    npz(
        &at("deflated.npz"),
        &["features"],
        zip::CompressionMethod::Deflated,
    );
    npz(&at("two.npz"), &["a", "b"], zip::CompressionMethod::Stored);
    npy::write_f32(&at("cube.npy"), &[2, 2, 3], &values(5, 4)).unwrap();
    let given = read(&open(folder.path())[0]);
    let whole = values(5, 2);
    let found: Vec<(&str, &[f32])> = given.videos.iter().map(|video| (&*video.0, &*video.3)).collect();
    assert_eq!(
        found,
        [
            ("batch", &*whole),
            ("deflated", &whole),
            ("middle", &whole),
            ("one", &values(5, 1)),
            ("pooled", &whole),
            ("pooled_batch", &whole),
            ("pooled_one", &values(5, 1)),
            ("stored", &whole),
            ("tail", &whole),
            ("vggish", &[0.0, 255.0, 7.0, 1.0, 2.0, 3.0]),
        ]
    );
    assert_eq!(given.rejects.len(), 2, "{:?}", given.rejects);
    assert!(
        given.rejects[0].contains("shape is (2, 2, 3), expected two axes"),
        "{:?}",
        given.rejects
    );
    assert!(
        given.rejects[1].contains("is an npz archive that holds 2 arrays (`a`, `b`), expected one array"),
        "{:?}",
        given.rejects
    );
}
