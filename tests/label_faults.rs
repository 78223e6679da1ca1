//! `vaplan label` where things go wrong: copies, odd names, odd files, a full disk, two writers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;

use crate::sample::{Sample, Tables, WIDTH, name};
use crate::support::{assert_status, copy_over, stderr, stdout, vaplan};

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
fn a_video_whose_rows_go_on_elsewhere_in_a_shard_is_read_as_a_whole() {
    let sample = Sample::new(3);
    // Written by hand: the writer of shards does not write such a file.
    visual_shards(&sample, &[("a.parquet", &[(0, 0.1), (1, 0.2), (2, 0.3)])]);
    assert_status(&sample.label("together", &[]), 0);
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
    assert_status(&sample.label("store", &[]), 0);
    let [together, torn] = ["together", "store"].map(|store| Tables::read(&sample.path(store)));
    assert_eq!(torn.scores, together.scores);
    assert_eq!(torn.labels, together.labels);
}

/// Writes visual features of this width for all videos.
fn visual_of_width(sample: &Sample, videos: usize, width: usize) {
    for nth in 0..videos {
        sample.write_features("visual", nth, 10, &vec![0.5; 10 * width]);
    }
}

#[test]
fn features_of_a_wrong_width_do_not_replace_good_labels_by_none() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let good = Tables::read(&sample.path("store"));
    visual_of_width(&sample, 8, WIDTH + 1);
    let visual = sample.path("visual").display().to_string();
    let relabel = ["relabel", "--store", &store, "--visual", &visual];
    for refused in [sample.label("store", &[]), crate::support::run(relabel)] {
        assert_status(&refused, 2);
        let said = stderr(&refused);
        assert!(
            said.contains("8 of 8 videos with visual labels would lose all of them")
                && said.contains("has width 9, expected 8")
                && said.contains("`--allow-missing`"),
            "{said}"
        );
        assert_eq!(Tables::read(&sample.path("store")), good, "nothing is committed");
    }
    // Half of the videos are rejected rows beside good ones.
    visual_of_width(&sample, 4, WIDTH);
    assert_status(&sample.label("store", &[]), 1);
    visual_of_width(&sample, 8, WIDTH + 1);
    assert_status(
        &crate::support::run(relabel.iter().chain(&["--allow-missing"])),
        1,
    );
    let labels = Tables::read(&sample.path("store")).labels;
    assert!(labels.iter().all(|track| track.modality == Modality::Audio));
}

#[test]
fn files_replaced_by_others_of_the_same_size_and_time_are_read_again() {
    let sample = Sample::new(4);
    assert_status(&sample.label("store", &[]), 0);
    let before = Tables::read(&sample.path("store"));
    let path = sample.features("visual", 0);
    let time = path.metadata().unwrap().modified().unwrap();
    sample.write_features("visual", 0, 10, &[0.25; 10 * WIDTH]);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let again = sample.label("store", &[]);
    assert_status(&again, 0);
    assert!(!stdout(&again).starts_with("nothing to do"), "{}", stdout(&again));
    assert_ne!(Tables::read(&sample.path("store")).scores, before.scores);
    assert!(stdout(&sample.label("store", &[])).starts_with("nothing to do"));
}

#[test]
fn features_that_were_touched_copied_or_restored_are_not_labelled_anew() {
    let sample = Sample::new(4);
    let label = || {
        let output = sample.label("store", &[]);
        assert_status(&output, 0);
        stdout(&output).starts_with("nothing to do")
    };
    assert!(!label());
    let memory = sample.path("store/_vaplan/inputs.seen");
    assert!(memory.is_file());
    let files = ["visual", "audio"].map(|modality| sample.features(modality, 0));
    for again in 0..2 {
        files.iter().for_each(|file| copy_over(file));
        assert!(label(), "copy {again}");
    }
    fs::File::options()
        .write(true)
        .open(&files[0])
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(label(), "touched");
    assert_eq!(
        Store::open(&sample.path("store"))
            .unwrap()
            .versions()
            .unwrap()
            .len(),
        1
    );
    // One file is another, and a second one is a copy of itself.
    sample.write_features("visual", 0, 10, &[0.25; 10 * WIDTH]);
    copy_over(&files[1]);
    assert!(!label());
    assert!(label());
    // A store of an older program has no memory. Inputs that nobody touched are the same, and are then remembered.
    fs::remove_file(&memory).unwrap();
    assert!(
        !label(),
        "a file was touched since the version, and no memory tells its content"
    );
    fs::remove_file(&memory).unwrap();
    assert!(label());
    copy_over(&files[1]);
    assert!(label());
}

#[test]
fn shares_are_of_the_modality_that_is_there() {
    let sample = Sample::new(4);
    for video in 0..3 {
        fs::remove_file(sample.features("visual", video)).unwrap();
    }
    let low = [
        "--visual-threshold",
        "0.001",
        "--audio-threshold",
        "0.001",
        "--allow-missing",
    ];
    let output = sample.label("store", &low);
    assert_status(&output, 1);
    let shares = stdout(&output)
        .lines()
        .filter_map(|line| line.split_once(" segment labels set (")?.1.strip_suffix(" %)"));
    assert_eq!(shares.collect::<Vec<_>>(), ["100.0"; 3], "{}", stdout(&output));
}

#[test]
fn thresholds_that_set_every_label_or_none_are_told() {
    let sample = Sample::new(4);
    let told = |threshold: &str| {
        let output = sample.label("store", &["--visual-threshold", threshold]);
        assert_status(&output, 0);
        stderr(&output).to_owned()
    };
    let every = told("0.041");
    assert!(
        every.contains("the thresholds set every label of the "),
        "{every}"
    );
    assert!(
        every.contains(" visual labels, whose rule is `softmax`"),
        "{every}"
    );
    assert!(told("100").contains("the thresholds set no label of the "));
    assert!(!told("1.0").contains("the thresholds set"));
}

#[test]
fn columns_of_other_names_are_recorded_for_later_changes() {
    use arrow::array::{ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array};
    let sample = Sample::new(2);
    let folder = sample.path("visual");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let write = |value: f32| {
        let videos = StringArray::from_iter_values((0..20).map(|row| name(row / 10)));
        let numbers = UInt32Array::from_iter_values((0..20).map(|row| row % 10));
        let feature = |row: usize| Some((0..WIDTH).map(move |at| Some(value + ((row + at) % 5) as f32)));
        let features =
            ListArray::from_iter_primitive::<arrow::datatypes::Float32Type, _, _>((0..20).map(feature));
        let columns: [(&str, ArrayRef); 3] = [
            ("id", std::sync::Arc::new(videos)),
            ("second", std::sync::Arc::new(numbers)),
            ("embedding", std::sync::Arc::new(features)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = fs::File::create(folder.join("a.parquet")).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    write(0.5);
    let columns = ["--columns", "video=id,segment=second,feature=embedding"];
    assert_status(&sample.label("store", &columns), 0);
    let before = Tables::read(&sample.path("store")).scores;
    write(3.5);
    let (store, visual) = (sample.path("store"), folder.display().to_string());
    let relabel = ["relabel", "--store", store.to_str().unwrap(), "--visual", &visual];
    assert_status(&crate::support::run(relabel), 0);
    assert_ne!(Tables::read(&store).scores, before);
}

#[test]
fn show_says_which_modality_is_missing_and_why() {
    let sample = Sample::new(2);
    fs::remove_file(sample.features("visual", 0)).unwrap();
    assert_status(&sample.label("store", &[]), 1);
    let store = sample.path("store").display().to_string();
    let show = |nth: usize| crate::support::run(["show", "--store", &store, &name(nth)]);
    let (missing, whole) = (show(0), show(1));
    assert_status(&missing, 0);
    let said = format!("`{}` has no visual labels: ", name(0));
    assert!(
        stderr(&missing).contains(&said) && !stderr(&missing).contains("no audio labels"),
        "{}",
        stderr(&missing)
    );
    assert_eq!(stderr(&whole), "");
}

#[test]
fn eval_scores_several_splits_each_by_itself() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    let eval = |split: &str| {
        let output = crate::support::run(["eval", "--store", &store, "--split", split]);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    let one = eval("test");
    assert_eq!(eval("test,test"), format!("split test\n{one}\nsplit test\n{one}"));
}
