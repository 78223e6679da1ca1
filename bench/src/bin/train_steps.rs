//! Runs the first steps of a training, for `bench/compare/train.py`. Prints one JSON object to standard output.
//!
//!     train_steps STORE VISUAL AUDIO CLIPS BATCH STEPS THREADS DROPOUT OUT
//!
//! The program writes to the folder OUT what another program needs to run the same steps: `initial.safetensors`, the
//! weights before the first step; `targets.safetensors`, the labels of the videos in the order of the steps; and
//! `order.txt`, the names of these videos.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use vaplan::cli::libtorch::set_threads;
use vaplan::ingest::features::ColumnNames;
use vaplan::parser::{Dataset, FeaturePaths, TrainSettings, Trainer};
use vaplan::parser::{Han, HanSettings, NetworkSettings, Noise, Weights};
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;

type Problem = Box<dyn std::error::Error>;

fn main() -> Result<(), Problem> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, visual, audio, clips, batch, steps, threads, dropout, out] = &args[..] else {
        return Err("expected STORE VISUAL AUDIO CLIPS BATCH STEPS THREADS DROPOUT OUT".into());
    };
    set_threads(threads.parse()?);
    let out = Path::new(out);
    std::fs::create_dir_all(out)?;
    let settings = TrainSettings {
        batch: batch.parse()?,
        network: NetworkSettings::of::<Han>(&HanSettings {
            dropout: dropout.parse()?,
            ..HanSettings::default()
        }),
        ..TrainSettings::default()
    };
    let paths = FeaturePaths {
        audio: vec![PathBuf::from(audio)],
        visual: vec![PathBuf::from(visual)],
        clips: vec![PathBuf::from(clips)],
        columns: ColumnNames::default(),
        cache: Path::new(store).join("_vaplan/train/features"),
    };
    let began = Instant::now();
    let snapshot = Store::open(Path::new(store))?.at_version(None)?;
    let dataset = Dataset::read(&snapshot, &paths, &mut |_| ())?;
    let read = began.elapsed().as_secs_f64();
    let mut examples = dataset.of_split(Split::Train, true);
    examples.truncate(settings.batch * steps.parse::<usize>()?);

    // The trainer draws the same order from a stream with the same seed.
    let mut order = examples.clone();
    Noise::new(settings.seed, 1).shuffle(&mut order);
    let names: Vec<&str> = order.iter().map(|&at| &*dataset.examples[at].name).collect();
    std::fs::write(out.join("order.txt"), names.join("\n"))?;
    let targets = dataset.targets(&order, vaplan::parser::device("cpu")?);
    let named = [
        ("audio", targets.audio),
        ("visual", targets.visual),
        ("weak", targets.weak),
    ];
    let tensors = named.map(|(name, tensor)| (name.to_owned(), tensor)).into();
    let metadata = BTreeMap::new();
    Weights { tensors, metadata }.write(&out.join("targets.safetensors"))?;

    let mut trainer = Trainer::new(&settings, &dataset, examples, vaplan::parser::device("cpu")?)?;
    trainer
        .parser()
        .weights()
        .write(&out.join("initial.safetensors"))?;
    let (mut losses, mut seconds) = (Vec::new(), Vec::new());
    let mut last = Instant::now();
    trainer.epoch(&dataset, |step| {
        losses.push(step.loss);
        seconds.push(last.elapsed().as_secs_f64());
        last = Instant::now();
        ControlFlow::Continue(())
    })?;
    let report = serde_json::json!({"read": read, "losses": losses, "seconds": seconds});
    println!("{report}");
    Ok(())
}
