//! Tests of pooled features, label matrices and device names, of network `transformer`, and of a network that exists in
//! tests only.

pub(super) mod linear_network;
mod second_network;
mod transformer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::Device;
use vaplan_schemas::Modality;

use super::features::{FeaturePlace, FeatureTable, Lengths, is_pooled_copy};
use super::probabilities::VideoProbabilities;
use super::settings::Gate;
use crate::ingest::features::ColumnNames;
use crate::ingest::npy;

fn names() -> Vec<Arc<str>> {
    ["AAAAAAAAAAA_0_2", "BBBBBBBBBBB_0_2", "CCCCCCCCCCC_0_3"]
        .map(Arc::from)
        .to_vec()
}

fn lengths() -> Lengths {
    names().into_iter().zip([2, 2, 3]).collect()
}

fn open(path: &Path, cache: &Path, lengths: &Lengths) -> (FeatureTable, u64) {
    let mut read = 0;
    let table = FeatureTable::open(
        (&[path.to_owned()], &ColumnNames::default()),
        Modality::Visual,
        (&names(), lengths),
        cache,
        &mut |videos| {
            read += videos;
        },
    );
    (table.unwrap(), read)
}

/// A folder with three videos: A has four frames, which is two per segment; B has one frame per segment; the number
/// of frames of C is not a multiple of its number of segments.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: usize, values: &[f32]| {
        npy::write_f32(&folder.path().join(name), &[rows, 2], values).unwrap();
    };
    write("AAAAAAAAAAA.npy", 4, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]);
    write("BBBBBBBBBBB.npy", 2, &[0.5, 0.25, -1.0, 8.0]);
    write("CCCCCCCCCCC.npy", 4, &[0.0; 8]);
    folder
}

#[test]
fn features_are_pooled_to_a_row_a_segment_and_what_does_not_fit_is_rejected() {
    let (folder, cache) = (folder(), tempfile::tempdir().unwrap());
    let (table, read) = open(folder.path(), cache.path(), &lengths());
    assert_eq!((table.width(), read), (2, 3));
    let place = |row, segments| Some(FeaturePlace { row, segments });
    assert_eq!(table.place("AAAAAAAAAAA_0_2"), place(0, 2));
    assert_eq!(table.place("BBBBBBBBBBB_0_2"), place(2, 2));
    assert_eq!(table.place("CCCCCCCCCCC_0_3"), None);
    assert_eq!(table.rejects().len(), 1);
    let reason = &table.rejects()[0].reason;
    assert_eq!(
        reason,
        "features of `CCCCCCCCCCC_0_3`: has 4 rows, expected 3 or a multiple, as the video has segments"
    );
    let places = ["BBBBBBBBBBB_0_2", "AAAAAAAAAAA_0_2"].map(|name| table.place(name).unwrap());
    let rows = Vec::<f32>::try_from(table.gather(&places, 2).flatten(0, -1)).unwrap();
    assert_eq!(rows, [0.5, 0.25, -1.0, 8.0, 2.0, 3.0, 6.0, 7.5]);
}

#[test]
fn a_second_reading_maps_the_copy_until_a_file_or_a_length_changes() {
    let (folder, cache) = (folder(), tempfile::tempdir().unwrap());
    let (first, _) = open(folder.path(), cache.path(), &lengths());
    let (second, read) = open(folder.path(), cache.path(), &lengths());
    assert_eq!(read, 0, "nothing was read again");
    assert_eq!(second.place("BBBBBBBBBBB_0_2"), first.place("BBBBBBBBBBB_0_2"));
    assert_eq!(second.rejects(), first.rejects());
    let file = folder.path().join("BBBBBBBBBBB.npy");
    let again = std::fs::read(&file).unwrap();
    std::fs::write(&file, again).unwrap();
    let (_, read) = open(folder.path(), cache.path(), &lengths());
    assert_eq!(read, 0, "a file was written again with its content");
    let longer: Lengths = names().into_iter().zip([4, 2, 4]).collect();
    let (third, read) = open(folder.path(), cache.path(), &longer);
    assert_eq!((read, third.rejects().len()), (3, 0));
    npy::write_f32(&folder.path().join("BBBBBBBBBBB.npy"), &[4, 2], &[1.0; 8]).unwrap();
    let (_, read) = open(folder.path(), cache.path(), &lengths());
    assert_eq!(read, 3);
    // A copy that was truncated is made again.
    for file in std::fs::read_dir(cache.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "f32") {
            std::fs::write(path, [0; 4]).unwrap();
        }
    }
    let (_, read) = open(folder.path(), cache.path(), &lengths());
    assert_eq!(read, 3);
}

#[test]
fn a_feature_that_is_no_number_and_another_width_are_rejected_by_name() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |name: &str, shape: [usize; 2], values: &[f32]| {
        npy::write_f32(&folder.path().join(name), &shape, values).unwrap();
    };
    write("AAAAAAAAAAA.npy", [2, 2], &[1.0, f32::NAN, 1.0, 1.0]);
    write("BBBBBBBBBBB.npy", [2, 2], &[1.0; 4]);
    write("CCCCCCCCCCC.npy", [3, 3], &[1.0; 9]);
    let (table, _) = open(folder.path(), cache.path(), &lengths());
    let reasons: BTreeMap<&str, &str> = table
        .rejects()
        .iter()
        .map(|row| {
            (
                row.video.as_deref().unwrap(),
                row.reason.split(": ").last().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        reasons["AAAAAAAAAAA_0_2"],
        "row 0, value 1 is NaN, expected a number"
    );
    assert_eq!(
        reasons["CCCCCCCCCCC_0_3"],
        "width is 3, expected 2 as the first video's"
    );
    assert!(table.place("BBBBBBBBBBB_0_2").is_some());
}

#[test]
fn a_device_is_named_or_refused_with_what_would_do() {
    assert_eq!(super::device("cpu"), Ok(Device::Cpu));
    let refused = super::device("gpu").unwrap_err();
    assert_eq!(refused, "device is `gpu`, expected cpu, cuda or cuda:N");
    if !tch::Cuda::is_available() {
        let refused = super::available(Device::Cuda(0)).unwrap_err();
        assert!(refused.contains("expected LIBTORCH at a CUDA build"), "{refused}");
    }
}

#[test]
fn of_several_classes_seen_and_heard_the_one_that_both_hold_more_probable_is_kept() {
    let video = VideoProbabilities {
        video: "AAAAAAAAAAA".into(),
        classes: 3,
        // Segment 0: class 0 has the higher audio probability, class 1 the higher minimum over both modalities.
        // Segment 1: class 2 is set in audio and not in visual.
        segments: [
            vec![0.9, 0.7, 0.1, 0.2, 0.1, 0.8],
            vec![0.6, 0.8, 0.1, 0.2, 0.1, 0.4],
        ],
        modalities: [vec![0.9, 0.9, 0.9], vec![0.9, 0.2, 0.9]],
        all: vec![0.9; 3],
    };
    let kept = |gate| {
        let single = video.single(gate);
        assert_eq!(single.audio, single.visual);
        let bits = single.audio.unwrap();
        let of = |segment| {
            (0..3)
                .filter(|&class| bits.get(class, segment))
                .collect::<Vec<_>>()
        };
        [of(0), of(1)]
    };
    assert_eq!(kept(Gate::Fused), [vec![1], vec![]]);
    assert_eq!(
        kept(Gate::Own),
        [vec![0], vec![]],
        "class 1 is not seen in the video"
    );
}

#[test]
fn pooled_copies_of_other_features_are_removed_and_foreign_files_stay() {
    let cache = tempfile::tempdir().unwrap();
    let (own, other) = ("a".repeat(64), "b".repeat(64));
    let names = |end: &str| [format!("{own}.{end}"), format!("{other}.{end}")];
    let [own_rows, other_rows] = names("f32");
    let [own_index, other_index] = names("json");
    let scratch = ".vaplan-pooled-x1y2".to_owned();
    let notes = "notes.json".to_owned();
    for name in [&own_rows, &other_rows, &own_index, &other_index, &scratch, &notes] {
        let path = cache.path().join(name);
        let expected = [&other_rows, &other_index, &scratch].contains(&name);
        assert_eq!(is_pooled_copy(&path, &[&own]), expected, "{name}");
    }
}

#[test]
fn a_bad_copy_in_another_file_takes_nothing_along() {
    let (folder, cache) = (folder(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("AAAAAAAAAAA_0_2.npy"), "no features").unwrap();
    let (table, _) = open(folder.path(), cache.path(), &lengths());
    assert!(table.place("AAAAAAAAAAA_0_2").is_some());
    let bad = |file: &str| file.ends_with("AAAAAAAAAAA_0_2.npy");
    assert_eq!(table.rejects().iter().filter(|row| bad(&row.file)).count(), 1);
}

#[test]
fn many_that_find_the_cache_cold_at_once_all_read_the_same() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names: Vec<Arc<str>> = (0..40).map(|video| format!("{video:011}").into()).collect();
    for (video, name) in names.iter().enumerate() {
        let path = folder.path().join(format!("{name}.npy"));
        npy::write_f32(&path, &[2, 500], &[video as f32 + 1.0; 1000]).unwrap();
    }
    let start = std::sync::Barrier::new(6);
    let sum = || {
        let names = (&*names, &Lengths::new());
        start.wait();
        let table = FeatureTable::open(
            (&[folder.path().to_owned()], &ColumnNames::default()),
            Modality::Visual,
            names,
            cache.path(),
            &mut |_| (),
        )
        .unwrap();
        let places: Vec<FeaturePlace> = names.0.iter().map(|name| table.place(name).unwrap()).collect();
        f64::try_from(table.gather(&places, 2).sum(tch::Kind::Double)).unwrap()
    };
    let sums: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(sum)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(sums, [1000.0 * 820.0; 6]);
    let left = std::fs::read_dir(cache.path()).unwrap().count();
    assert_eq!(
        left, 4,
        "rows, index, memory of the inputs and its lock, nothing half written"
    );
}
