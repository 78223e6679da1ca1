use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int8Array, Int64Array, LargeListArray, LargeStringArray,
    ListArray, RecordBatch, StringArray, StringViewArray, UInt8Array,
};
use arrow::datatypes::{Float32Type, Float64Type, Int8Type};
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;
use vaplan_schemas::rows::Severity;

use super::*;
use crate::ingest::npy;
use crate::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};

/// The result of reading a shard: key, segments, first row and values of each video; batch sizes; and rejected rows.
#[derive(Debug, Default, PartialEq)]
struct Given {
    videos: Vec<(String, u32, u64, Vec<f32>)>,
    batches: Vec<usize>,
    rejects: Vec<String>,
    notes: Vec<String>,
}

fn read(shard: &Shard, batch_rows: usize) -> Given {
    let mut given = Given::default();
    shard.read(batch_rows, &mut |event| {
        match event {
            FeatureEvent::Batch(batch) => {
                let rows: u32 = batch.videos.iter().map(|video| video.segments).sum();
                assert_eq!(batch.data.len(), rows as usize * batch.width);
                assert_eq!(batch.modality, shard.modality());
                given.batches.push(rows as usize);
                let mut at = 0;
                for video in batch.videos {
                    let to = at + video.segments as usize * batch.width;
                    given.videos.push((
                        video.key.to_string(),
                        video.segments,
                        video.row,
                        batch.data[at..to].to_vec(),
                    ));
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
    read(&open(path)[0], 1000)
}

fn names(given: &Given) -> Vec<(&str, u32)> {
    given
        .videos
        .iter()
        .map(|(key, segments, ..)| (key.as_str(), *segments))
        .collect()
}

fn format(float: FloatType, layout: FeatureLayout) -> ShardFormat {
    ShardFormat {
        modality: Modality::Visual,
        width: 3,
        float,
        layout,
        model: None,
    }
}

/// Values of video `v`, which f16 represents exactly.
fn values(v: usize, segments: usize) -> Vec<f32> {
    (0..segments * 3)
        .map(|at| ((v * 64 + at) % 2048) as f32 / 8.0)
        .collect()
}

/// Writes `count` videos of 1 to 4 segments.
fn shard(path: &Path, format: ShardFormat, count: usize) {
    let mut writer = ShardWriter::create(path, format).unwrap();
    for v in 0..count {
        writer
            .append(&format!("video_{v:05}"), &values(v, v % 4 + 1))
            .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn every_form_a_shard_is_written_in_reads_back_in_whole_videos() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for float in [FloatType::F16, FloatType::F32] {
        for layout in [FeatureLayout::Packed, FeatureLayout::List] {
            shard(&path, format(float, layout), 1000);
            for batch_rows in [1, 7, 10_000] {
                let given = read(&open(&path)[0], batch_rows);
                assert_eq!(given.rejects, Vec::<String>::new());
                assert_eq!(given.videos.len(), 1000);
                let mut row = 0;
                for (v, video) in given.videos.iter().enumerate() {
                    let segments = v % 4 + 1;
                    assert_eq!(
                        *video,
                        (format!("video_{v:05}"), segments as u32, row, values(v, segments))
                    );
                    row += segments as u64;
                }
                assert!(
                    given.batches.iter().all(|&rows| rows < batch_rows + 4),
                    "{:?}",
                    given.batches
                );
                assert_eq!(given.batches.len() == 1, batch_rows == 10_000);
            }
        }
    }
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

const ONE: Option<&[Option<f32>]> = Some(&[Some(1.0), Some(2.0)]);

#[test]
fn other_peoples_column_types_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let wanted = vec![
        ("A".to_owned(), 2, 0, vec![1.0, 2.0, 3.0, 4.0]),
        ("B".to_owned(), 1, 2, vec![5.0, 6.0]),
    ];
    let numbers = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
    let rows = || numbers.map(|row| Some(row.map(Some)));
    let large: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(rows()));
    let text = ["A", "A", "B"];
    let videos: [ArrayRef; 4] = [
        texts(&text),
        Arc::new(LargeStringArray::from_iter_values(text)),
        Arc::new(StringViewArray::from_iter_values(text)),
        Arc::new(DictionaryArray::<Int8Type>::from_iter(text)),
    ];
    let counts: [ArrayRef; 2] = [
        Arc::new(Int8Array::from(vec![0, 1, 0])),
        Arc::new(Int64Array::from(vec![0, 1, 0])),
    ];
    for video in videos {
        for count in &counts {
            let columns = vec![
                ("feature", large.clone()),
                ("segment", count.clone()),
                ("more", large.clone()),
                ("video", video.clone()),
            ];
            table(&path, columns);
            let given = read_file(&path);
            assert_eq!((given.videos, given.rejects), (wanted.clone(), vec![]));
        }
    }
}

#[test]
fn rows_of_the_other_modality_are_passed_over_and_an_unknown_one_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let modality = texts(&["audio", "visual", "audio", "visual", "visual", "Visual"]);
    let columns = vec![
        ("video", texts(&["A", "A", "A", "A", "B", "C"])),
        ("modality", modality),
        ("segment", segments(&[0, 0, 1, 1, 0, 0])),
        ("feature", lists(&[ONE; 6])),
    ];
    table(&path, columns);
    let given = read_file(&path);
    assert_eq!(names(&given), [("A", 2), ("B", 1)]);
    assert_eq!(
        given.rejects,
        ["a.parquet:5 -: modality is `Visual`, expected `audio` or `visual`"]
    );
}

#[test]
fn a_bad_row_takes_its_video_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let video: ArrayRef = Arc::new(StringArray::from(vec![
        Some("A"),
        Some("B"),
        Some("B"),
        Some("C"),
        Some("D"),
        Some("D"),
        Some("E"),
        None,
        Some("F\0"),
        Some("G"),
        Some("H"),
        Some("H"),
        Some("../I"),
        Some("-J_"),
        Some("-J_"),
    ]));
    let three: Option<&[Option<f32>]> = Some(&[Some(1.0), Some(2.0), Some(3.0)]);
    let hole: Option<&[Option<f32>]> = Some(&[Some(1.0), None]);
    let columns = vec![
        ("video", video),
        (
            "segment",
            segments(&[0, 0, 2, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
        ),
        (
            "feature",
            lists(&[
                ONE, ONE, ONE, None, ONE, three, hole, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE,
            ]),
        ),
    ];
    table(&path, columns);
    let given = read_file(&path);
    assert_eq!(
        names(&given),
        [("A", 1), ("H", 1), ("H", 1), ("../I", 1), ("-J_", 2)]
    );
    // The rows are not in order, so the rows without a name are reported before the others.
    let mut rejects = given.rejects;
    rejects.sort();
    assert_eq!(
        rejects,
        [
            "a.parquet:2 B: segment is 2, expected 1: a video has each segment once, from 0 on",
            "a.parquet:3 C: feature is null, expected floats",
            "a.parquet:5 D: feature has 3 values, expected 2 as segment 0 has",
            "a.parquet:6 E: feature value 1 is null, expected a float",
            "a.parquet:7 -: video is null, empty or not UTF-8, expected a name",
            "a.parquet:8 -: video is `F\\u{0}`, expected no NUL",
            "a.parquet:9 G: segment is 1, expected 0: a video has each segment once, from 0 on",
        ]
    );
}

#[test]
fn a_schema_that_is_not_that_of_a_shard_is_told_by_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let refusal = |columns: Vec<(&str, ArrayRef)>| {
        table(&path, columns);
        let given = read_file(&path);
        assert_eq!(given.videos, []);
        let text = given.rejects[0].strip_prefix("a.parquet:-").unwrap().to_owned();
        text.replace(&format!(" -: parquet file `{}`: ", path.display()), "")
    };
    let (video, segment, feature) = (texts(&["A"]), segments(&[0]), lists(&[ONE]));
    assert_eq!(
        refusal(vec![
            ("name", video.clone()),
            ("segment", segment.clone()),
            ("feature", feature.clone())
        ]),
        "no column `video` (columns found: name, segment, feature)"
    );
    assert_eq!(
        refusal(vec![
            ("video", segment.clone()),
            ("segment", segment.clone()),
            ("feature", feature.clone())
        ]),
        "column `video` is UInt8, expected text"
    );
    assert_eq!(
        refusal(vec![
            ("video", video.clone()),
            ("segment", video.clone()),
            ("feature", feature)
        ]),
        "column `segment` is Utf8, expected integers"
    );
    assert_eq!(
        refusal(vec![("video", video.clone()), ("segment", segment.clone())]),
        "no column `feature` (columns found: video, segment)"
    );
    let single: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    assert_eq!(
        refusal(vec![
            ("video", video.clone()),
            ("segment", segment.clone()),
            ("feature", single)
        ]),
        "column `feature` is Float64, expected fixed-size binary, or a list of integers or of 16, 32 or 64 bit floats"
    );
    let bytes: ArrayRef =
        Arc::new(arrow::array::FixedSizeBinaryArray::try_from_iter(std::iter::once([0_u8; 6])).unwrap());
    assert_eq!(
        refusal(vec![
            ("video", video.clone()),
            ("segment", segment),
            ("feature", bytes)
        ]),
        "column `feature` is 6 bytes a row of unknown type, expected metadata `vaplan.dtype` = `f16` or `f32` of the \
         column or the file"
    );
}

#[test]
fn npy_files_are_videos_and_only_wanted_ones_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for v in 0..300 {
        npy::write_f16(
            &at(&format!("-v_{v:04}.npy")),
            &[v % 3 + 1, 3],
            &values(v, v % 3 + 1),
        )
        .unwrap();
    }
    npy::write_f32(&at("wide.npy"), &[2, 4], &[1.0; 8]).unwrap();
    std::fs::write(at("bad.npy"), b"no npy").unwrap();
    std::fs::write(at("unwanted.npy"), b"no npy").unwrap();
    std::fs::write(at("readme.txt"), b"hello").unwrap();
    let input = FeatureInput::open(folder.path(), Modality::Audio, &ColumnNames::default(), &|key| {
        key != "unwanted"
    })
    .unwrap();
    assert_eq!(input.shards.len(), 3);
    let given: Vec<Given> = input.shards.iter().map(|shard| read(shard, 100)).collect();
    assert_eq!(given.iter().map(|given| given.videos.len()).sum::<usize>(), 301);
    assert_eq!(given[1].videos[0], ("-v_0128".to_owned(), 3, 0, values(128, 3)));
    let last = &given[2];
    assert_eq!(last.videos.last().unwrap().3, [1.0; 8]);
    assert_eq!(last.rejects.len(), 1);
    let reason = format!(
        "npy file `{}`: begins with `no npy`, expected `\\x93NUMPY`",
        at("bad.npy").display()
    );
    assert_eq!(last.rejects[0], format!("bad.npy:- bad: {reason}"));
}

#[test]
fn a_single_file_that_is_not_of_parquet_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let opened = FeatureInput::open(&path, Modality::Audio, &ColumnNames::default(), &|_| true);
        let message = opened.map_err(|error| error.chain().replace(&path.display().to_string(), "FILE"));
        message.map(|input| input.shards.len())
    };
    let expected = "expected a folder of npy or Parquet files, or one Parquet file";
    for (name, found) in [("all.npy", "npy"), ("all.NPZ", "npz")] {
        let reason = format!("`FILE`: is one {found} file, expected a folder of them");
        assert_eq!(message(name, b""), Err(reason));
    }
    let hint = ": HDF5 files are not read; `python -m vaplan.h5` makes npy files of the features of AVE";
    let reason = format!("`FILE`: is no file of features, {expected}{hint}");
    assert_eq!(message("visual.h5", b"\x89HDF"), Err(reason));
    let reason = format!("`FILE`: is no file of features, {expected}");
    assert_eq!(message("notes.txt", b"PAR"), Err(reason));
    // The name or the first bytes tell that the file is of Parquet. Reading it tells whether it is damaged.
    assert_eq!(message("bad.parquet", b""), Ok(1));
    assert_eq!(message("shard", b"PAR1"), Ok(1));
}

#[test]
fn a_folder_of_neither_or_both_kinds_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let message = || {
        let error = FeatureInput::open(folder.path(), Modality::Audio, &ColumnNames::default(), &|_| true)
            .unwrap_err()
            .chain();
        error.replace(&folder.path().display().to_string(), "DIR")
    };
    std::fs::write(folder.path().join("_metadata.parquet"), b"").unwrap();
    let expected = "expected `<video>.npy` or `<video>.npz` with one array of shape (T, D) for each video, or Parquet files \
                    with the columns `video`, `segment` and `feature`";
    assert_eq!(
        message(),
        format!(
            "`DIR`: holds no .npy, .npz or .parquet file (1 others, such as `_metadata.parquet`), {expected}"
        )
    );
    std::fs::remove_file(folder.path().join("_metadata.parquet")).unwrap();
    assert_eq!(
        message(),
        format!("`DIR`: holds no .npy, .npz or .parquet file (it is empty), {expected}")
    );
    // The example does not depend on the order in which the system lists the folder.
    for name in ["c.pt", "a.pt", "b.pt"] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    assert_eq!(
        message(),
        format!("`DIR`: holds no .npy, .npz or .parquet file (3 others, such as `a.pt`), {expected}")
    );
    std::fs::write(folder.path().join("d.h5"), b"").unwrap();
    let hint = ": HDF5 files are not read; `python -m vaplan.h5` makes npy files of the features of AVE";
    assert!(message().ends_with(hint), "{}", message());
    std::fs::remove_file(folder.path().join("d.h5")).unwrap();
    for name in ["c.pt", "a.pt", "b.pt"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("a.parquet"), b"").unwrap();
    std::fs::write(folder.path().join("b.npy"), b"").unwrap();
    assert_eq!(
        message(),
        "`DIR`: holds 1 npy and 1 parquet files, expected one kind"
    );
    let gone = FeatureInput::open(
        &folder.path().join("gone"),
        Modality::Audio,
        &ColumnNames::default(),
        &|_| true,
    )
    .unwrap_err()
    .chain();
    assert!(
        gone.starts_with("cannot read `") && gone.contains("No such file"),
        "{gone}"
    );
}

#[test]
fn reading_stops_when_the_taker_says_so_and_what_was_rewritten_has_another_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    shard(&path, format(FloatType::F16, FeatureLayout::Packed), 100);
    let opened = &open(&path)[0];
    let mut events = 0;
    opened.read(1, &mut |_| {
        events += 1;
        if events == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(events, 3);
    let before = opened.fingerprint();
    assert_eq!(before, opened.fingerprint());
    shard(&path, format(FloatType::F16, FeatureLayout::Packed), 101);
    assert_ne!(before, opened.fingerprint());
    std::fs::remove_file(&path).unwrap();
    assert_ne!(before, opened.fingerprint());
}

#[test]
fn a_bad_page_loses_the_rows_after_it_and_not_those_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let wide = ShardFormat {
        width: 4096,
        ..format(FloatType::F32, FeatureLayout::Packed)
    };
    let mut writer = ShardWriter::create(&path, wide).unwrap();
    for v in 0..300 {
        writer
            .append(&format!("v{v:03}"), &vec![v as f32; 4 * 4096])
            .unwrap();
    }
    writer.finish().unwrap();
    // Damage the first page of the second row group. The first row group has 1,024 rows of 16 KiB.
    let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let page = usize::try_from(reader.metadata().row_group(1).column(3).data_page_offset()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[page..page + 20].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let given = read_file(&path);
    assert_eq!(names(&given).first(), Some(&("v000", 4)));
    // The last video before the damage is left out, because it may have more rows.
    assert_eq!(given.videos.len(), 255);
    assert!(
        given
            .videos
            .iter()
            .enumerate()
            .all(|(v, video)| video.3 == vec![v as f32; 4 * 4096])
    );
    assert_eq!(given.rejects.len(), 1);
    assert!(
        given.rejects[0].starts_with("a.parquet:1024 v255: "),
        "{}",
        given.rejects[0]
    );
    assert!(
        given.rejects[0].ends_with("; rows from here on are not read"),
        "{}",
        given.rejects[0]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Random changes of a good shard cause no panic, every batch has one shape, and a cut file is reported.
    #[test]
    fn damaged_shards_never_panic_and_cut_ones_are_told(
        packed in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let layout = if packed { FeatureLayout::Packed } else { FeatureLayout::List };
        shard(&path, format(FloatType::F16, layout), 40);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let length = cut.map(|cut| cut.index(bytes.len()));
        bytes.truncate(length.unwrap_or(bytes.len()));
        std::fs::write(&path, bytes).unwrap();
        let given = read_file(&path);
        if length.is_some() {
            prop_assert_eq!(given.videos, vec![]);
            prop_assert_eq!(given.rejects.len(), 1);
            prop_assert!(given.rejects[0].starts_with("a.parquet:- -: parquet file `"), "{}", given.rejects[0]);
        }
    }
}
