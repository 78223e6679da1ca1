//! `vaplan encode`: from media to features, and with them through the whole graph.

mod delivered;
mod early;
mod failures;
mod media;
mod panics;
mod pull;
mod real_files;
mod straight;
pub(crate) mod tagger;
mod tracks;
pub(crate) mod video;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support;

/// Tiny models, media and annotations in a scratch folder.
pub(crate) struct Studio {
    folder: tempfile::TempDir,
    shared: PathBuf,
}

impl Studio {
    /// With both models; none where the goldens are not there.
    pub(crate) fn new(test: &str) -> Option<Studio> {
        let studio = Studio {
            shared: support::shared(test)?,
            folder: support::scratch(),
        };
        let golden = studio.shared.join("golden");
        for folder in ["clip", "clap", "media"] {
            fs::create_dir(studio.path(folder)).unwrap();
        }
        for (from, to) in [
            ("clip/vision_model.onnx", "clip/vision_model.onnx"),
            ("clip/text_model.onnx", "clip/text_model.onnx"),
            ("tokenizers/clip_tiny_tokenizer.json", "clip/tokenizer.json"),
            ("clap/audio_model.onnx", "clap/audio_model.onnx"),
            ("clap/text_model.onnx", "clap/text_model.onnx"),
            ("tokenizers/roberta_tiny_tokenizer.json", "clap/tokenizer.json"),
        ] {
            fs::copy(golden.join(from), studio.path(to)).unwrap();
        }
        fs::write(studio.path("clip/vaplan.toml"), "[image]\nsize = 64\n").unwrap();
        Some(studio)
    }

    /// A place in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A place in the shared data.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.shared.join(name)
    }

    /// LLP's classes, and these videos as `train`.
    pub(crate) fn annotate(&self, rows: &str) {
        fs::create_dir_all(self.path("annotations")).unwrap();
        fs::write(
            self.path("annotations/own_train.csv"),
            format!("filename\tevent_labels\n{rows}"),
        )
        .unwrap();
    }

    /// A folder of frames, each of a colour of its own.
    pub(crate) fn frames(&self, video: &str, frames: usize) {
        let folder = self.path("media").join(video);
        fs::create_dir_all(&folder).unwrap();
        let seed = video.bytes().fold(7_u32, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
        for frame in 0..frames {
            let mut picture = b"P6 72 64 255\n".to_vec();
            picture.extend((0..72 * 64 * 3_u32).map(|at| {
                (seed
                    .wrapping_add(frame as u32 * 977)
                    .wrapping_add(at)
                    .wrapping_mul(2_654_435_761)
                    >> 24) as u8
            }));
            fs::write(folder.join(format!("{frame:06}.ppm")), picture).unwrap();
        }
    }

    /// A mono 16-bit wav of noise.
    pub(crate) fn sound(&self, video: &str, rate: u32, samples: usize) {
        let bytes = samples as u32 * 2;
        let mut file = b"RIFF".to_vec();
        file.extend_from_slice(&(36 + bytes).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend_from_slice(&rate.to_le_bytes());
        file.extend_from_slice(&(rate * 2).to_le_bytes());
        file.extend_from_slice(b"\x02\0\x10\0data");
        file.extend_from_slice(&bytes.to_le_bytes());
        let seed = video.len() as u32;
        file.extend((0..samples as u32).flat_map(|at| {
            ((at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 18) as i16 - 8_192).to_le_bytes()
        }));
        fs::write(self.path("media").join(format!("{video}.wav")), file).unwrap();
    }

    /// The arguments of `vaplan encode` of some modalities into a folder.
    pub(crate) fn arguments(&self, out: &str, models: &[&str]) -> Vec<String> {
        let mut arguments = vec![
            "encode".to_owned(),
            "--out".to_owned(),
            self.path(out).display().to_string(),
        ];
        arguments.extend(["--media".to_owned(), self.path("media").display().to_string()]);
        for model in models {
            arguments.extend([format!("--{model}"), self.path(model).display().to_string()]);
        }
        arguments
    }

    /// Runs `vaplan encode` with both models and more arguments.
    pub(crate) fn encode(&self, out: &str, more: &[&str]) -> Output {
        let arguments = self.arguments(out, &["clip", "clap"]);
        support::run(arguments.iter().map(String::as_str).chain(more.iter().copied()))
    }

    /// Runs `vaplan label` of split `train` on the features of a folder, texts with this extension, into the store `store`.
    pub(crate) fn label(&self, from: &str, texts: &str, more: &[&str]) -> Output {
        let path = |name: &str| self.path(name).display().to_string();
        let mut words = vec!["label".to_owned(), "--split".to_owned(), "train".to_owned()];
        for (flag, name) in [
            ("--store", "store".to_owned()),
            ("--annotations", "annotations".to_owned()),
            ("--visual", format!("{from}/visual")),
            ("--visual-text", format!("{from}/visual_text.{texts}")),
            ("--audio", format!("{from}/audio")),
            ("--audio-text", format!("{from}/audio_text.{texts}")),
        ] {
            words.extend([flag.to_owned(), path(&name)]);
        }
        support::run(words.iter().map(String::as_str).chain(more.iter().copied()))
    }

    /// All features that were written of a modality: video, segments and values, in order.
    pub(crate) fn features(
        &self,
        out: &str,
        modality: vaplan_schemas::Modality,
    ) -> Vec<(String, u32, Vec<f32>)> {
        use vaplan::ingest::features::{ColumnNames, FeatureEvent, FeatureInput};
        let input = FeatureInput::open(
            &self.path(out).join(modality.as_str()),
            modality,
            &ColumnNames::default(),
            &|_| true,
        )
        .unwrap();
        let mut videos = Vec::new();
        for shard in input.shards {
            shard.read(1, &mut |event| {
                let FeatureEvent::Batch(batch) = event else {
                    panic!("{event:?}")
                };
                let mut values = batch.data.as_slice();
                for video in batch.videos {
                    let (own, rest) = values.split_at(video.segments as usize * batch.width);
                    values = rest;
                    videos.push((video.key.to_string(), video.segments, own.to_vec()));
                }
                std::ops::ControlFlow::Continue(())
            });
        }
        videos
    }

    /// Rows of `rejects.jsonl`.
    pub(crate) fn rejects(&self, out: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(out).join("rejects.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Starts the program, kills it once the cache holds so many batches, and gives the segments that it encoded.
pub(crate) fn killed_after(arguments: &[String], cache: &Path, batches: usize) -> u64 {
    let folder = support::scratch();
    let log = folder.path().join("log");
    let mut child = support::vaplan()
        .args(arguments)
        .args(["--log-format", "json"])
        .env("VAPLAN_LOG", "vaplan=debug")
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let kept = || {
        let entries = fs::read_dir(cache).into_iter().flatten().flatten();
        let kept = entries.filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "batch")
        });
        kept.count()
    };
    while kept() < batches && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "killed before it was done");
    let log = fs::read_to_string(log).unwrap();
    // The last line may be half written.
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line["fields"]["message"] == "batch encoded")
        .map(|line| line["fields"]["segments"].as_u64().unwrap())
        .sum()
}

/// Names and bytes of the files of a folder that are not hidden.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read(path).unwrap(),
            )
        })
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    files.sort();
    files
}
