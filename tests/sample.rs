//! A small data set of three classes, in files as users have them: what tests of `label` and after start from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use vaplan::ingest::npy;
use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    EpochRow, LabelChangeRow, LabelTrack, PredictionTrack, RejectRow, ScoreTrack, VideoPredictionRow,
    VideoRow,
};
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Labels, Predictions, Rejects, Scores, VideoPredictions, Videos};

use crate::support;

/// Width of every embedding.
pub(crate) const WIDTH: usize = 8;
/// Names of the classes, in order.
pub(crate) const CLASSES: [&str; 3] = ["Bark", "Bell", "Song"];

/// The data set, in a folder that goes when it is dropped.
pub(crate) struct Sample {
    folder: tempfile::TempDir,
}

/// Numbers without a pattern; the same for the same seed.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 20) as f32
    }
}

/// Full name of the nth video.
pub(crate) fn name(nth: usize) -> String {
    format!("vid{nth:08}_0_10")
}

/// Key of its feature files.
pub(crate) fn key(nth: usize) -> String {
    format!("vid{nth:08}")
}

impl Sample {
    /// So many videos of 10 segments: the last quarter is `test`, with dense truth, the rest `train`.
    pub(crate) fn new(videos: usize) -> Sample {
        let sample = Sample {
            folder: support::scratch(),
        };
        let annotations = sample.path("annotations");
        fs::create_dir(&annotations).unwrap();
        fs::write(annotations.join("classes.txt"), CLASSES.join("\n") + "\n").unwrap();
        let mut numbers = Numbers::new(7);
        let (mut train, mut test) = (String::new(), String::new());
        let mut dense = [String::new(), String::new()];
        for nth in 0..videos {
            let first = numbers.below(3) as usize;
            let weak: Vec<&str> = if nth % 3 == 0 {
                vec![CLASSES[first], CLASSES[(first + 1) % 3]]
            } else {
                vec![CLASSES[first]]
            };
            let rows = if nth < videos - videos / 4 {
                &mut train
            } else {
                &mut test
            };
            writeln!(rows, "{}\t{}", name(nth), weak.join(",")).unwrap();
            if nth >= videos - videos / 4 {
                for rows in &mut dense {
                    let onset = numbers.below(9);
                    writeln!(rows, "{}\t{onset}\t{}\t{}", name(nth), onset + 1, weak[0]).unwrap();
                }
            }
        }
        let weak = "filename\tevent_labels\n";
        let events = "filename\tonset\toffset\tevent_labels\n";
        fs::write(annotations.join("small_train.csv"), format!("{weak}{train}")).unwrap();
        fs::write(annotations.join("small_test_pd.csv"), format!("{weak}{test}")).unwrap();
        fs::write(
            annotations.join("small_eval_audio.csv"),
            format!("{events}{}", dense[0]),
        )
        .unwrap();
        fs::write(
            annotations.join("small_eval_visual.csv"),
            format!("{events}{}", dense[1]),
        )
        .unwrap();
        for modality in ["audio", "visual"] {
            fs::create_dir(sample.path(modality)).unwrap();
            let text: Vec<f32> = (0..3 * WIDTH)
                .map(|cell| if cell % WIDTH == cell / WIDTH { 1.0 } else { 0.05 })
                .collect();
            npy::write_f32(&sample.path(&format!("{modality}_text.npy")), &[3, WIDTH], &text).unwrap();
            for nth in 0..videos {
                let values: Vec<f32> = (0..10 * WIDTH).map(|_| numbers.unit()).collect();
                sample.write_features(modality, nth, 10, &values);
            }
        }
        sample
    }

    /// A place in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Path of the features of the nth video.
    pub(crate) fn features(&self, modality: &str, nth: usize) -> PathBuf {
        self.path(modality).join(format!("{}.npy", key(nth)))
    }

    /// Replaces the features of the nth video.
    pub(crate) fn write_features(&self, modality: &str, nth: usize, segments: usize, values: &[f32]) {
        npy::write_f32(
            &self.features(modality, nth),
            &[segments, values.len() / segments],
            values,
        )
        .unwrap();
    }

    /// The arguments of `vaplan label` into a store of this name.
    pub(crate) fn arguments(&self, store: &str) -> Vec<String> {
        let mut arguments = vec!["label".to_owned()];
        for (flag, name) in [
            ("--store", store),
            ("--annotations", "annotations"),
            ("--visual", "visual"),
            ("--visual-text", "visual_text.npy"),
            ("--audio", "audio"),
            ("--audio-text", "audio_text.npy"),
        ] {
            arguments.extend([flag.to_owned(), self.path(name).display().to_string()]);
        }
        arguments
    }

    /// Runs `vaplan label` with more arguments.
    pub(crate) fn label(&self, store: &str, more: &[&str]) -> Output {
        support::run(
            self.arguments(store)
                .iter()
                .map(String::as_str)
                .chain(more.iter().copied()),
        )
    }
}

/// All that labelling decides, of the latest version of a store.
#[derive(Debug, PartialEq)]
pub(crate) struct Tables {
    pub(crate) version: u64,
    pub(crate) videos: Vec<VideoRow>,
    pub(crate) scores: Vec<ScoreTrack>,
    pub(crate) labels: Vec<LabelTrack>,
    pub(crate) changes: Vec<LabelChangeRow>,
    pub(crate) rejects: Vec<RejectRow>,
}

impl Tables {
    /// Reads a store.
    pub(crate) fn read(store: &Path) -> Tables {
        let snapshot = Store::open(store).unwrap().latest().unwrap().expect("a version");
        Tables {
            version: snapshot.version().version,
            videos: snapshot.read::<Videos>().unwrap(),
            scores: snapshot.read::<Scores>().unwrap(),
            labels: snapshot.read::<Labels>().unwrap(),
            changes: crate::support::label_changes(&snapshot),
            rejects: snapshot.read::<Rejects>().unwrap(),
        }
    }
}

/// Writes a Parquet shard of visual features, each video with rows of this width.
pub(crate) fn write_shard(
    path: &Path,
    width: usize,
    videos: impl IntoIterator<Item = (impl AsRef<str>, Vec<f32>)>,
) {
    let format = ShardFormat {
        modality: Modality::Visual,
        width,
        float: FloatType::F32,
        layout: FeatureLayout::Packed,
        model: None,
    };
    let mut writer = ShardWriter::create(path, format).unwrap();
    for (video, values) in videos {
        writer.append(video.as_ref(), &values).unwrap();
    }
    writer.finish().unwrap();
}

/// An epoch of the training `run`, as `train` leaves it: its row, these predictions, and none of videos as a whole.
pub(crate) fn commit_epoch(
    snapshot: &Snapshot,
    (run, epoch): (&str, u64),
    score: Option<f64>,
    tracks: &[PredictionTrack],
) {
    let lock = snapshot.store().lock(&mut |_| ()).unwrap();
    let info = CommitInfo {
        epoch: Some(epoch),
        models: snapshot.version().models.clone(),
        ..CommitInfo::default()
    };
    let videos: BTreeSet<&Arc<str>> = tracks.iter().map(|track| &track.video).collect();
    let mut commit = snapshot.store().begin(&lock, info).unwrap();
    let metric = |score| ("val.fused.segment.type_av".into(), score);
    commit
        .append::<Epochs>(&[EpochRow {
            epoch,
            run: run.into(),
            run_epoch: epoch,
            labels: 1,
            videos: videos.len() as u64,
            flips: None,
            learning_rate: 0.1,
            seconds: 1.0,
            losses: Vec::new(),
            metrics: score.into_iter().map(metric).collect(),
        }])
        .unwrap();
    commit.append::<Predictions>(tracks).unwrap();
    let of_videos = videos.into_iter().map(|video| VideoPredictionRow {
        epoch,
        video: video.clone(),
        probability: vec![0.5; CLASSES.len()],
        audio: vec![0.5; CLASSES.len()],
        visual: vec![0.5; CLASSES.len()],
    });
    let of_videos: Vec<_> = of_videos.collect();
    commit.append::<VideoPredictions>(&of_videos).unwrap();
    commit.finish().unwrap();
}
