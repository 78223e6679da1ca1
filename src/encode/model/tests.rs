use std::fs;
use std::path::{Path, PathBuf};

use ort::ep::ExecutionProvider as _;

use super::*;
use crate::encode::image::decode;
use crate::encode::model::encoder::Preparation;
use crate::encode::sound::mel::MelScale;
use crate::encode::sound::{SoundFeatures, Wave};
use crate::ingest::{npy, shared};

/// Makes a model folder in a temporary folder: the files under the names that users have, and a `vaplan.toml`.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(settings: &str) -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vaplan.toml"), settings).unwrap();
        Scratch(folder)
    }

    fn with(self, from: PathBuf, name: &str) -> Scratch {
        let to = self.0.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        self
    }

    fn find(&self) -> Result<ModelFolder, ModelError> {
        ModelFolder::find(self.0.path())
    }
}

fn clip(golden: &Path) -> Scratch {
    Scratch::new("[image]\nsize = 64\n")
        .with(golden.join("clip/vision_model.onnx"), "onnx/vision_model.onnx")
        .with(golden.join("clip/text_model.onnx"), "onnx/text_model.onnx")
        .with(
            golden.join("tokenizers/clip_tiny_tokenizer.json"),
            "tokenizer.json",
        )
}

fn clap(golden: &Path, text: &str) -> Scratch {
    Scratch::new("")
        .with(golden.join("clap/audio_model.onnx"), "audio_model.onnx")
        .with(golden.join("clap").join(text), text)
        .with(
            golden.join("tokenizers/roberta_tiny_tokenizer.json"),
            "tokenizer.json",
        )
}

fn combined(golden: &Path, kind: &str, tokenizer: &str) -> Scratch {
    Scratch::new(&format!("kind = \"{kind}\"\n[image]\nsize = 64\n"))
        .with(golden.join(kind).join("model.onnx"), "model.onnx")
        .with(
            golden.join(format!("tokenizers/{tokenizer}_tiny_tokenizer.json")),
            "tokenizer.json",
        )
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn strings(json: &serde_json::Value) -> Vec<String> {
    json.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// Asserts that every row has the direction of the golden row: `1 - cosine` must be below a limit.
fn assert_directions(found: &[Vec<f32>], golden: &Path, most: f64) {
    let golden = npy::read_floats(golden).unwrap();
    assert_eq!(golden.data.len(), found.len() * 64);
    for (row, (found, golden)) in found.iter().zip(golden.data.chunks(64)).enumerate() {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        assert!(
            (dot(found, found) - 1.0).abs() < 1e-6,
            "row {row} is of unit length"
        );
        let off = 1.0 - dot(found, golden) / dot(golden, golden).sqrt();
        assert!(
            off < most,
            "row {row}: 1 - cosine is {off}, expected below {most}"
        );
    }
}

/// Returns the golden pictures in order, as Pillow decodes them.
fn pictures(golden: &Path) -> Vec<crate::encode::image::Rgb> {
    let names = strings(&json(&golden.join("clip/clip.json"))["images_in_order"]);
    let file = |name: &String| match name.strip_suffix(".jpg") {
        Some(stem) => format!("{stem}__pil_decoded.png"),
        None => name.clone(),
    };
    names
        .iter()
        .map(|name| decode(&fs::read(golden.join("images").join(file(name))).unwrap()).unwrap())
        .collect()
}

fn images(encoder: &mut Encoder, golden: &Path, batch: usize) -> Vec<Vec<f32>> {
    let encoder::Preparation::Image(settings) = encoder.preparation().clone() else {
        panic!("a vision model wants pictures");
    };
    let mut rows = Vec::new();
    for pictures in pictures(golden).chunks(batch) {
        let mut prepared = Vec::new();
        pictures
            .iter()
            .for_each(|picture| settings.normalise(&settings.square(picture), &mut prepared));
        let embeddings = encoder.encode(&prepared, "pictures").unwrap();
        rows.extend(embeddings.chunks(encoder.width()).map(<[f32]>::to_vec));
    }
    rows
}

#[test]
fn clip_gives_the_golden_embeddings_from_split_and_from_combined_files() {
    let Some(shared) = shared("clip_gives_the_golden_embeddings") else {
        return;
    };
    let golden = shared.join("golden");
    let prompts = strings(&json(&golden.join("clip/clip.json"))["prompts"]);
    for scratch in [clip(&golden), combined(&golden, "clip", "clip")] {
        let folder = scratch.find().unwrap();
        assert_eq!((folder.kind, folder.logit_scale), (ModelKind::Clip, 100.0));
        let options = SessionOptions::default();
        let mut encoder = Encoder::open(&folder, &options).unwrap();
        assert_eq!((encoder.width(), encoder.values()), (64, 3 * 64 * 64));
        assert_eq!(encoder.sha256(), session::sha256(&folder.media, false).unwrap());
        for batch in [11, 4] {
            assert_directions(
                &images(&mut encoder, &golden, batch),
                &golden.join("clip/image_embeds.npy"),
                1e-6,
            );
        }
        let mut texts = TextEncoder::open(&folder, &options).unwrap();
        let rows: Vec<Vec<f32>> = prompts.iter().map(|text| texts.encode(text).unwrap()).collect();
        assert_directions(&rows, &golden.join("clip/text_embeds.npy"), 1e-6);
        if folder.media != folder.text {
            assert_logits(
                &images(&mut encoder, &golden, 11),
                &rows,
                100.0,
                &golden.join("clip/logits_per_image.npy"),
            );
        }
    }
}

#[test]
fn models_of_f16_give_the_golden_embeddings_within_their_precision() {
    let Some(shared) = shared("models_of_f16_give_the_golden_embeddings") else {
        return;
    };
    let golden = shared.join("golden");
    let prompts = strings(&json(&golden.join("clip/clip.json"))["prompts"]);
    let fp16 = |name: &str| {
        let file = format!("tests/golden/onnx/clip_{name}_fp16.onnx");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
    };
    let scratch = clip(&golden)
        .with(fp16("vision_model"), "onnx/vision_model.onnx")
        .with(fp16("text_model"), "onnx/text_model.onnx");
    let folder = scratch.find().unwrap();
    let options = SessionOptions::default();
    let mut encoder = Encoder::open(&folder, &options).unwrap();
    // f16 has 11 bits of precision; an input that was read as f32 bits would have no direction in common.
    let found = images(&mut encoder, &golden, 4);
    assert_directions(&found, &golden.join("clip/image_embeds.npy"), 1e-4);
    let mut texts = TextEncoder::open(&folder, &options).unwrap();
    let rows: Vec<Vec<f32>> = prompts.iter().map(|text| texts.encode(text).unwrap()).collect();
    assert_directions(&rows, &golden.join("clip/text_embeds.npy"), 1e-4);
}

/// Asserts that scaled cosines equal the golden logits.
fn assert_logits(media: &[Vec<f32>], texts: &[Vec<f32>], scale: f64, golden: &Path) {
    let golden = npy::read_floats(golden).unwrap().data;
    let found = media.iter().flat_map(|media| {
        texts
            .iter()
            .map(move |text| scale * media.iter().zip(text).map(|(a, b)| f64::from(a * b)).sum::<f64>())
    });
    let found: Vec<f64> = found.collect();
    assert_eq!(found.len(), golden.len());
    for (at, (found, golden)) in found.iter().zip(&golden).enumerate() {
        assert!(
            (found - f64::from(*golden)).abs() < 2e-3,
            "logit {at}: {found} against {golden}"
        );
    }
}

#[test]
fn clap_gives_the_golden_embeddings_from_wav_and_text() {
    let Some(shared) = shared("clap_gives_the_golden_embeddings") else {
        return;
    };
    let golden = shared.join("golden");
    let golden_value = json(&golden.join("clap/clap.json"));
    let (prompts, clips) = (
        strings(&golden_value["prompts"]),
        strings(&golden_value["clips_in_order"]),
    );
    let scratches = [
        clap(&golden, "text_model.onnx"),
        clap(&golden, "text_model_with_mask.onnx"),
        combined(&golden, "clap", "roberta"),
    ];
    for scratch in scratches {
        let folder = scratch.find().unwrap();
        let options = SessionOptions::default();
        let mut encoder = Encoder::open(&folder, &options).unwrap();
        let encoder::Preparation::Sound(settings) = encoder.preparation().clone() else {
            panic!("an audio model wants sound");
        };
        assert_eq!((encoder.width(), encoder.values()), (64, 1001 * 64));
        let mut features = SoundFeatures::new(&settings);
        let mut prepared = Vec::new();
        for clip in &clips {
            let sound = Wave::read(
                &golden.join(format!("audio/{clip}.wav")),
                settings.rate,
                "ffmpeg".as_ref(),
            )
            .unwrap();
            features.append(&sound, &mut prepared);
        }
        let embeddings = encoder.encode(&prepared, "clips").unwrap();
        let rows: Vec<Vec<f32>> = embeddings.chunks(64).map(<[f32]>::to_vec).collect();
        // The last clip was resampled from 16 kHz.
        assert_directions(&rows, &golden.join("clap/audio_embeds.npy"), 2e-5);
        let mut texts = TextEncoder::open(&folder, &options).unwrap();
        let rows: Vec<Vec<f32>> = prompts.iter().map(|text| texts.encode(text).unwrap()).collect();
        assert_directions(&rows, &golden.join("clap/text_embeds.npy"), 1e-6);
    }
}

#[test]
fn a_folder_without_a_file_says_what_is_there_and_what_is_needed() {
    let empty = Scratch::new("").find().unwrap_err().to_string();
    assert!(
        empty.contains("neither vision_model.onnx nor audio_model.onnx (files found: vaplan.toml)"),
        "{empty}"
    );
    let Some(shared) = shared("a_folder_without_a_file") else {
        return;
    };
    let vision = shared.join("golden/clip/vision_model.onnx");
    let no_text = Scratch::new("")
        .with(vision.clone(), "vision_model.onnx")
        .find()
        .unwrap_err()
        .to_string();
    assert!(
        no_text.contains("has no text model, expected text_model_with_mask.onnx or"),
        "{no_text}"
    );
    let no_tokenizer = Scratch::new("")
        .with(vision.clone(), "vision_model.onnx")
        .with(shared.join("golden/clip/text_model.onnx"), "text_model.onnx")
        .find()
        .unwrap_err()
        .to_string();
    assert!(
        no_tokenizer.contains("has no tokenizer, expected tokenizer.json"),
        "{no_tokenizer}"
    );
    let unknown = Scratch::new("logit_scal = 1.0\n").find().unwrap_err().to_string();
    assert!(
        unknown.contains("unknown field `logit_scal`") && unknown.contains("logit_scale"),
        "{unknown}"
    );
    let zero = clip(&shared.join("golden"));
    fs::write(zero.0.path().join("vaplan.toml"), "logit_scale = 0\n").unwrap();
    assert!(
        zero.find()
            .unwrap_err()
            .to_string()
            .contains("expected a number above 0")
    );
}

#[test]
fn a_model_of_another_kind_is_refused_with_its_inputs_and_outputs() {
    let Some(shared) = shared("a_model_of_another_kind_is_refused") else {
        return;
    };
    let golden = shared.join("golden");
    let open = |scratch: &Scratch| Encoder::open(&scratch.find().unwrap(), &SessionOptions::default());
    let swapped = clip(&golden).with(golden.join("clip/text_model.onnx"), "onnx/vision_model.onnx");
    let refused = open(&swapped).err().unwrap().to_string();
    assert!(
        refused.contains("no input for pixel_values (f32 or f16, rank 4), expected one (inputs: input_ids)"),
        "{refused}"
    );
    let other = clip(&golden).with(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx/add_one.onnx"),
        "onnx/vision_model.onnx",
    );
    let refused = open(&other).err().unwrap().to_string();
    assert!(refused.contains("takes `x`"), "{refused}");
    let broken = clip(&golden);
    fs::write(broken.0.path().join("onnx/vision_model.onnx"), "no model").unwrap();
    let refused = open(&broken).err().unwrap().to_string();
    assert!(
        refused.contains("vision_model.onnx`: cannot be loaded"),
        "{refused}"
    );
    // The real size does not fit the number of positions of the tiny model. The trial at opening finds this.
    let sized = clip(&golden);
    fs::write(sized.0.path().join("vaplan.toml"), "").unwrap();
    let refused = open(&sized).err().unwrap().to_string();
    assert!(refused.contains("failed on a trial of zeros"), "{refused}");
}

#[test]
fn a_fused_model_is_given_four_times_the_clip_by_its_own_filters() {
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx/fused.onnx");
    let folder = Scratch::new("")
        .with(onnx.clone(), "audio_model.onnx")
        .with(onnx.clone(), "text_model.onnx")
        .with(onnx, "tokenizer.json");
    let mut encoder = Encoder::open(&folder.find().unwrap(), &SessionOptions::default()).unwrap();
    let Preparation::Sound(settings) = encoder.preparation().clone() else {
        panic!("an audio model wants sound")
    };
    assert_eq!(settings.mel, MelScale::Htk);
    let mut features = SoundFeatures::new(&settings);
    let clip = |from: usize| -> Vec<f32> {
        (from..from + 48_000)
            .map(|at| (at * at % 1009) as f32 / 1009.0 - 0.5)
            .collect()
    };
    let mut prepared = Vec::new();
    features.append(&clip(0), &mut prepared);
    features.append(&clip(7), &mut prepared);
    assert_eq!(prepared.len(), 2 * encoder.values());
    let found = encoder.encode(&prepared, "two clips").unwrap();
    assert_eq!((encoder.width(), found.len()), (257, 2 * 257));
    for (found, clip) in found.chunks(257).zip(prepared.chunks(1001 * 64)) {
        let mut wanted: Vec<f64> = (0..256)
            .map(|at| {
                clip.iter()
                    .skip(at % 64)
                    .step_by(64)
                    .map(|&db| f64::from(db))
                    .sum::<f64>()
                    / 1001.0
            })
            .collect();
        // Every clip is marked as longer, as transformers marks a short clip that is alone in its batch.
        wanted.push(1.0);
        let length = wanted.iter().map(|value| value * value).sum::<f64>().sqrt();
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!(
                (f64::from(*found) - wanted / length).abs() < 1e-5,
                "{at}: {found}, {wanted}"
            );
        }
    }
}

#[test]
fn without_cuda_auto_runs_on_the_processor_and_cuda_is_refused() {
    let onnx = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx/fused.onnx");
    let folder = Scratch::new("")
        .with(onnx.clone(), "audio_model.onnx")
        .with(onnx.clone(), "text_model.onnx")
        .with(onnx, "tokenizer.json");
    let open = |device| {
        let options = SessionOptions {
            device,
            ..SessionOptions::default()
        };
        Encoder::open(&folder.find().unwrap(), &options).map(|encoder| encoder.width())
    };
    assert_eq!(open(Device::Auto).unwrap(), open(Device::Cpu).unwrap());
    if !ort::ep::CUDA::is_available().unwrap_or(false) {
        let refused = open(Device::Cuda).unwrap_err().to_string();
        assert!(
            refused.contains("audio_model.onnx`: cannot run on CUDA: this ONNX Runtime has no CUDA"),
            "{refused}"
        );
    }
}
