//! `vaplan synth`: simulated features for annotation folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vaplan::ingest::annotations::Annotations;
use vaplan::ingest::features::{ColumnNames, FeatureEvent, FeatureInput};
use vaplan_schemas::Modality;

use crate::support::{assert_status, run, scratch, stderr, stdout};

/// Forty training videos, and one test video with a dog to be heard in its first three seconds.
fn annotate(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut train = String::from("filename\tevent_labels\n");
    for number in 0..40 {
        train.push_str(&format!("train{number:06}_0_10\tDog,Speech\n"));
    }
    fs::write(folder.join("AVVP_train.csv"), train).unwrap();
    fs::write(
        folder.join("AVVP_test_pd.csv"),
        "filename\tevent_labels\n-test_00001_5_15\tDog\n",
    )
    .unwrap();
    let dense = "filename\tonset\toffset\tevent_labels\n";
    fs::write(
        folder.join("AVVP_eval_audio.csv"),
        format!("{dense}-test_00001_5_15\t0\t3\tDog\n"),
    )
    .unwrap();
    fs::write(folder.join("AVVP_eval_visual.csv"), dense).unwrap();
}

/// Every file below `folder`, with its content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Features by video, read as `label` reads them.
fn features(path: &Path, modality: Modality) -> BTreeMap<String, Vec<f32>> {
    let mut found = BTreeMap::new();
    for shard in FeatureInput::open(path, modality, &ColumnNames::default(), &|_| true)
        .unwrap()
        .shards
    {
        shard.read(1000, &mut |event| {
            match event {
                FeatureEvent::Batch(batch) => {
                    let mut row = 0;
                    for span in &batch.videos {
                        let values = span.segments as usize * batch.width;
                        found.insert(span.key.to_string(), batch.data[row..row + values].to_vec());
                        row += values;
                    }
                }
                FeatureEvent::Reject(reject) => panic!("{reject:?}"),
            }
            std::ops::ControlFlow::Continue(())
        });
    }
    found
}

fn synth(folder: &Path, out: &str, more: &[&str]) -> std::process::Output {
    let annotations = folder.join("annotations");
    if !annotations.exists() {
        annotate(&annotations);
    }
    let (annotations, out) = (
        annotations.display().to_string(),
        folder.join(out).display().to_string(),
    );
    let mut arguments = vec![
        "synth",
        "--annotations",
        &annotations,
        "--out",
        &out,
        "--dim",
        "32",
    ];
    arguments.extend(more);
    run(arguments)
}

#[test]
fn files_are_the_same_for_any_number_of_threads_and_differ_by_seed() {
    let folder = scratch();
    for (out, more) in [
        ("one", ["--threads", "1", "--seed", "5"]),
        ("four", ["--threads", "4", "--seed", "5"]),
        ("other", ["--threads", "4", "--seed", "6"]),
    ] {
        assert_status(&synth(folder.path(), out, &more), 0);
    }
    let one = files(&folder.path().join("one"));
    assert_eq!(
        one.len(),
        41 * 5 + 2 + 1 + 5,
        "features of five encoders, texts, synth.json, truth"
    );
    assert!(
        one == files(&folder.path().join("four")),
        "threads change nothing"
    );
    let other = files(&folder.path().join("other"));
    for folder in ["visual", "audio", "parser/audio", "parser/frames", "parser/clips"] {
        let file = format!("{folder}/train000007.npy");
        assert_ne!(one[&file], other[&file]);
    }
}

#[test]
fn shards_hold_what_npy_files_hold() {
    let folder = scratch();
    assert_status(&synth(folder.path(), "npy", &["--dtype", "f16"]), 0);
    let shards = ["--parquet", "--shard-videos", "15"];
    assert_status(&synth(folder.path(), "packed", &shards), 0);
    assert_status(
        &synth(
            folder.path(),
            "list",
            &[&shards[..], &["--column", "list"]].concat(),
        ),
        0,
    );
    for (kind, modality) in [
        ("visual", Modality::Visual),
        ("audio", Modality::Audio),
        ("parser/audio", Modality::Audio),
        ("parser/frames", Modality::Visual),
        ("parser/clips", Modality::Visual),
    ] {
        let read = |out: &str| features(&folder.path().join(out).join(kind), modality);
        let packed = read("packed");
        assert_eq!(packed.len(), 41);
        assert_eq!(packed["-test_00001_5_15"].len(), 10 * 32);
        assert!(packed == read("list"), "the form of the column changes nothing");
        let npy = read("npy");
        assert!(packed.iter().all(|(name, values)| npy[&name[..11]] == *values));
        let files = fs::read_dir(folder.path().join("packed").join(kind)).unwrap();
        assert_eq!(files.count(), 3, "15, 15 and 11 videos");
    }
}

#[test]
fn options_of_the_generator_are_recorded_and_change_the_features() {
    let folder = scratch();
    assert_status(&synth(folder.path(), "llp", &[]), 0);
    assert_status(&synth(folder.path(), "hard", &["--preset", "hard"]), 0);
    assert_status(&synth(folder.path(), "label", &["--label-only"]), 0);
    let read = |out: &str| files(&folder.path().join(out));
    let (llp, hard, label) = (read("llp"), read("hard"), read("label"));
    let options = |files: &BTreeMap<String, Vec<u8>>| -> serde_json::Value {
        serde_json::from_slice(&files["synth.json"]).unwrap()
    };
    assert_eq!(options(&llp)["generator"], 3);
    assert_eq!(options(&llp)["preset"], "llp");
    assert_eq!(options(&hard)["preset"], "hard");
    for kind in ["audio", "parser/frames"] {
        let file = format!("{kind}/train000007.npy");
        assert_ne!(llp[&file], hard[&file], "{kind}");
    }
    assert_eq!(
        llp["truth/AVVP_eval_audio.csv"],
        hard["truth/AVVP_eval_audio.csv"]
    );
    assert!(!label.keys().any(|name| name.starts_with("parser/")));
    assert_eq!(label["audio/train000007.npy"], llp["audio/train000007.npy"]);
}

#[test]
fn copies_come_with_annotations_of_their_own() {
    let folder = scratch();
    let output = synth(
        folder.path(),
        "copies",
        &["--videos", "20", "--repeat", "3", "--parquet"],
    );
    assert_status(&output, 0);
    assert!(
        stdout(&output).contains("simulated 60 videos x 10 segments x 32"),
        "{}",
        stdout(&output)
    );
    let written = Annotations::read(&folder.path().join("copies/annotations")).unwrap();
    assert_eq!(written.rejects, []);
    assert_eq!(written.videos.len(), 60);
    let features = features(&folder.path().join("copies/audio"), Modality::Audio);
    assert!(
        written
            .videos
            .iter()
            .all(|video| features.contains_key(video.name))
    );
    assert_eq!(written.classes.len(), 25, "classes keep their order");
    let values: Vec<_> = features.values().collect();
    assert!(
        values
            .iter()
            .all(|one| values.iter().filter(|other| other == &one).count() == 1)
    );
}

#[test]
fn truth_has_dense_events_and_those_drawn_for_training_videos() {
    let folder = scratch();
    assert_status(&synth(folder.path(), "out", &[]), 0);
    let truth = Annotations::read(&folder.path().join("out/truth")).unwrap();
    let of = |name: &str| truth.videos.iter().position(|video| video.name == name).unwrap();
    let test: Vec<_> = truth
        .events
        .iter()
        .filter(|event| event.video == of("-test_00001_5_15"))
        .collect();
    assert_eq!(test.len(), 1);
    assert_eq!(
        (test[0].modality, test[0].onset, test[0].offset),
        (Modality::Audio, 0, 3)
    );
    for number in 0..40 {
        let video = of(&format!("train{number:06}_0_10"));
        for class in truth.videos.get(video).weak.iter() {
            let happens = truth
                .events
                .iter()
                .any(|event| event.video == video && event.class == *class);
            assert!(happens, "a weak label is heard or seen");
        }
    }
}

#[test]
fn folders_of_others_are_left_alone_and_own_ones_overwritten() {
    let folder = scratch();
    fs::create_dir(folder.path().join("mine")).unwrap();
    fs::write(folder.path().join("mine/notes.txt"), "keep").unwrap();
    let output = synth(folder.path(), "mine", &[]);
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("is not empty and holds no `synth.json`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(files(&folder.path().join("mine")).len(), 1);

    assert_status(
        &synth(folder.path(), "out", &["--parquet", "--shard-videos", "10"]),
        0,
    );
    assert_status(&synth(folder.path(), "out", &["--videos", "3"]), 0);
    let left = files(&folder.path().join("out"));
    let visual: Vec<_> = left.keys().filter(|name| name.starts_with("visual/")).collect();
    assert_eq!(visual.len(), 3, "no shard of the earlier run stays: {visual:?}");
}

#[test]
fn a_name_that_makes_no_file_is_left_out_and_told() {
    let folder = scratch();
    annotate(&folder.path().join("annotations"));
    let train =
        "filename\tevent_labels\n../../evil_0_10\tDog\ntrain000001_0_10\tDog\ntrain000001_20_30\tDog\n";
    fs::write(folder.path().join("annotations/AVVP_train.csv"), train).unwrap();
    let output = synth(folder.path(), "out", &[]);
    assert_status(&output, 1);
    assert!(
        stderr(&output).contains("`../../evil_0_10` left out"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("key `train000001` is that of an earlier video too"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_dir(folder.path().join("out/visual")).unwrap().count(), 2);
    assert_status(&synth(folder.path(), "shards", &["--parquet"]), 0);
    assert_eq!(
        features(&folder.path().join("shards/visual"), Modality::Visual).len(),
        4
    );
}

#[test]
fn help_says_that_results_are_simulated() {
    let output = run(["synth", "--help"]);
    assert!(
        stdout(&output).contains("results on them say nothing about real data"),
        "{}",
        stdout(&output)
    );
}
