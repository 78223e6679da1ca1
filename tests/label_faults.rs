//! `vaplan label` where things go wrong: copies, odd names, odd files, a full disk, two writers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;

use crate::sample::{Sample, Tables, WIDTH, name};
use crate::support::{assert_status, stderr, stdout, vaplan};

/// Replaces the visual npy folder by Parquet shards of these videos.
fn visual_shards(sample: &Sample, shards: &[(&str, &[(usize, f32)])]) {
    let folder = sample.path("visual");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    for (shard, videos) in shards {
        let format = ShardFormat {
            modality: Modality::Visual,
            width: WIDTH,
            float: FloatType::F32,
            layout: FeatureLayout::Packed,
            model: None,
        };
        let mut writer = ShardWriter::create(&folder.join(shard), format).unwrap();
        for &(nth, value) in *videos {
            let values: Vec<f32> = (0..10 * WIDTH)
                .map(|cell| value + (cell % 7) as f32 / 10.0)
                .collect();
            writer.append(&name(nth), &values).unwrap();
        }
        writer.finish().unwrap();
    }
}

#[test]
fn an_equal_copy_counts_once_and_an_unequal_one_not_at_all() {
    let sample = Sample::new(4);
    visual_shards(
        &sample,
        &[
            ("a.parquet", &[(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)]),
            ("b.parquet", &[(1, 0.2), (2, 0.9)]),
        ],
    );
    assert_status(&sample.label("store", &["--workers", "2"]), 1);
    let tables = Tables::read(&sample.path("store"));
    let visual = |nth: usize| {
        let own = tables.labels.iter().filter(|track| *track.video == *name(nth));
        own.filter(|track| track.modality == Modality::Visual).count()
    };
    assert!(visual(0) > 0 && visual(1) > 0 && visual(3) > 0);
    assert_eq!(visual(2), 0, "copies that differ are not used");
    let files: Vec<&str> = tables.rejects.iter().map(|row| row.file.as_str()).collect();
    assert_eq!(files.len(), 2, "both are named: {:?}", tables.rejects);
    assert!(
        files[0].ends_with("a.parquet") && files[1].ends_with("b.parquet"),
        "{files:?}"
    );
    let told = format!("video `{}` has visual features that differ in ", name(2));
    assert!(
        tables.rejects[0].reason.starts_with(&told),
        "{}",
        tables.rejects[0].reason
    );
}

#[test]
fn a_damaged_shard_is_named_and_costs_no_other() {
    let sample = Sample::new(6);
    visual_shards(
        &sample,
        &[
            ("a.parquet", &[(0, 0.1), (1, 0.2), (2, 0.3)]),
            ("b.parquet", &[(3, 0.2), (4, 0.9)]),
        ],
    );
    let bad = sample.path("visual/b.parquet");
    let bytes = fs::read(&bad).unwrap();
    fs::write(&bad, &bytes[..bytes.len() - 20]).unwrap();
    let output = sample.label("store", &[]);
    assert_status(&output, 1);
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    let tables = Tables::read(&sample.path("store"));
    assert!(
        tables.rejects.iter().any(|row| row.file.ends_with("b.parquet")),
        "{:?}",
        tables.rejects
    );
    let labelled = |nth: usize| {
        tables
            .labels
            .iter()
            .any(|track| *track.video == *name(nth) && track.modality == Modality::Visual)
    };
    assert!(labelled(0) && labelled(1) && labelled(2) && !labelled(3));
    // Mended, the shard is read and its rejects are gone.
    fs::write(&bad, &bytes).unwrap();
    sample.label("store", &[]);
    let mended = Tables::read(&sample.path("store"));
    assert!(
        !mended.rejects.iter().any(|row| row.file.ends_with("b.parquet")),
        "{:?}",
        mended.rejects
    );
}

#[test]
fn ids_that_look_like_flags_or_paths_are_data() {
    let sample = Sample::new(3);
    let odd = ["-rf_ab_cdef_0_10", "../../etc_x_0_10", "a b;c'd\"e__0_10"];
    let mut rows = String::from("filename\tevent_labels\n");
    odd.iter()
        .for_each(|name| rows.push_str(&format!("{name}\tBark\n")));
    fs::write(sample.path("annotations/small_train.csv"), rows).unwrap();
    for modality in ["audio", "visual"] {
        let folder = sample.path(modality);
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        let format = ShardFormat {
            modality: modality.parse().unwrap(),
            width: WIDTH,
            float: FloatType::F16,
            layout: FeatureLayout::List,
            model: None,
        };
        let mut writer = ShardWriter::create(&folder.join("odd.parquet"), format).unwrap();
        for name in odd {
            writer.append(name, &[0.5; 3 * WIDTH]).unwrap();
        }
        writer.finish().unwrap();
    }
    sample.label("store", &["--split", "train"]);
    let tables = Tables::read(&sample.path("store"));
    let mut videos: Vec<&str> = tables.videos.iter().map(|row| &*row.video).collect();
    videos.sort_unstable();
    let mut wanted = odd.to_vec();
    wanted.sort_unstable();
    assert_eq!(videos, wanted);
    assert_eq!(tables.labels.len(), 6, "{:?}", tables.rejects);
    let checked = crate::support::run(["check", "--store", sample.path("store").to_str().unwrap()]);
    assert_status(&checked, 0);
}

#[test]
fn a_fifo_and_a_dangling_link_in_a_shard_folder_are_rejects_and_block_nothing() {
    let sample = Sample::new(4);
    visual_shards(
        &sample,
        &[("a.parquet", &[(0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)])],
    );
    let fifo = sample.path("visual/b.parquet");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink("nowhere.parquet", sample.path("visual/c.parquet")).unwrap();
    let output = sample.label("store", &[]);
    assert_status(&output, 1);
    let tables = Tables::read(&sample.path("store"));
    for file in ["b.parquet", "c.parquet"] {
        assert!(
            tables.rejects.iter().any(|row| row.file.ends_with(file)),
            "{file}: {:?}",
            tables.rejects
        );
    }
    assert_eq!(
        tables
            .labels
            .iter()
            .filter(|track| track.modality == Modality::Visual)
            .count()
            * 2,
        tables.labels.len()
    );
}

#[test]
fn of_two_writers_one_waits_and_none_is_lost() {
    let sample = Sample::new(300);
    let start = |threshold: &str| {
        vaplan()
            .args(sample.arguments("store"))
            .args(["--audio-threshold", threshold])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children = [start("0.8"), start("0.9"), start("1.1")];
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    outputs.iter().for_each(|output| assert_status(output, 0));
    assert_eq!(Tables::read(&sample.path("store")).version, 3, "one version each");
    let log = crate::support::run(["log", "--store", sample.path("store").to_str().unwrap()]);
    for threshold in ["0.8", "0.9", "1.1"] {
        assert!(
            stdout(&log).contains(&format!("--audio-threshold {threshold}")),
            "{}",
            stdout(&log)
        );
    }
    let checked = crate::support::run(["check", "--store", sample.path("store").to_str().unwrap()]);
    assert_status(&checked, 0);
}

/// A file system of so many bytes at a folder, until it is dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// None where this user may not mount.
    fn mount(folder: &'a Path, bytes: &str) -> Option<SmallDisk<'a>> {
        fs::create_dir_all(folder).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(folder))
    }

    fn resize(&self, bytes: &str) {
        let options = format!("remount,size={bytes}");
        assert!(
            Command::new("mount")
                .args(["-o", &options])
                .arg(self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_clean_error_and_a_run_with_room_completes() {
    let sample = Sample::new(300);
    assert_status(&sample.label("roomy", &["--audio-threshold", "1.1"]), 0);
    let wanted = Tables::read(&sample.path("roomy"));
    let folder = sample.path("disk");
    let Some(disk) = SmallDisk::mount(&folder, "64m") else {
        eprintln!("not run: a_full_disk needs the right to mount a tmpfs");
        return;
    };
    assert_status(&sample.label("disk/store", &[]), 0);
    let first = Tables::read(&sample.path("disk/store"));
    let used: u64 = size(&folder);
    let mut failed = 0;
    for more in [8, 40, 90, 150, 220] {
        disk.resize(&format!("{}k", used / 1024 + more));
        let full = sample.label("disk/store", &["--audio-threshold", "1.1"]);
        if full.status.code() == Some(0) {
            break;
        }
        failed += 1;
        assert_status(&full, 2);
        assert!(
            stderr(&full).contains("No space left on device"),
            "{}",
            stderr(&full)
        );
        assert!(
            stderr(&full).contains(folder.to_str().unwrap()),
            "{}",
            stderr(&full)
        );
        assert!(!stderr(&full).contains("panicked"), "{}", stderr(&full));
        assert_eq!(
            Tables::read(&sample.path("disk/store")),
            first,
            "the last version is as it was"
        );
    }
    assert!(failed >= 2, "the disk was full {failed} times");
    disk.resize("64m");
    assert_status(&sample.label("disk/store", &["--audio-threshold", "1.1"]), 0);
    let mended = Tables::read(&sample.path("disk/store"));
    assert_eq!(
        (mended.version, &mended.labels, &mended.scores),
        (2, &wanted.labels, &wanted.scores)
    );
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        found if found.is_dir() => size(&entry.path()),
        // What a tmpfs takes for it.
        found => found.len().div_ceil(4096) * 4096,
    };
    entries.map(of).sum()
}

#[test]
fn a_store_that_cannot_be_made_says_where() {
    let sample = Sample::new(4);
    fs::write(sample.path("store"), "a file").unwrap();
    let refused = sample.label("store", &[]);
    assert_status(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains(sample.path("store").to_str().unwrap()) && !told.contains("panicked"),
        "{told}"
    );
}

#[test]
fn a_video_whose_rows_go_on_elsewhere_in_a_shard_is_left_out_as_a_whole() {
    let sample = Sample::new(3);
    // Written by hand: the writer of shards does not write such a file.
    visual_shards(&sample, &[("a.parquet", &[(0, 0.1), (1, 0.2), (2, 0.3)])]);
    let path = sample.path("visual/a.parquet");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        fs::File::open(&path).unwrap(),
    );
    let reader = reader.unwrap();
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    // Segments 6 to 9 of the first video come last.
    let order: Vec<u64> = (0..6).chain(10..30).chain(6..10).collect();
    let columns = batch.columns().iter().map(|column| {
        arrow::compute::take(column, &arrow::array::UInt64Array::from(order.clone()), None).unwrap()
    });
    let torn = arrow::array::RecordBatch::try_new(batch.schema(), columns.collect()).unwrap();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_key_value_metadata(metadata)
        .build();
    let file = fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, torn.schema(), Some(properties)).unwrap();
    writer.write(&torn).unwrap();
    writer.close().unwrap();
    assert_status(&sample.label("store", &[]), 1);
    let tables = Tables::read(&sample.path("store"));
    let visual = |nth: usize| {
        tables
            .labels
            .iter()
            .any(|track| *track.video == *name(nth) && track.modality == Modality::Visual)
    };
    assert!(!visual(0) && visual(1) && visual(2), "{:?}", tables.rejects);
    let told = tables
        .rejects
        .iter()
        .find(|row| row.video.as_deref() == Some(&*name(0)) && row.row.is_some());
    assert!(
        told.is_some_and(|row| row.reason.contains("segment")),
        "{:?}",
        tables.rejects
    );
}
