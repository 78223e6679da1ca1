//! `vaplan train`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use vaplan_schemas::StoreVersion;

use super::progress::Bar;
use super::{Global, notes};
use crate::eval::Task;
use crate::train::{self, FeaturePaths, Progress, Request, Summary, Supervision, TrainSettings};

/// Train the parser on a store's labels
///
/// Learns from the train videos of a store version: HAN with the richness-aware loss. Every epoch becomes one store
/// version: loss terms and scores in table `epochs`, probabilities in `predictions` and `video_predictions`. Features may
/// have several rows a segment (ResNet-152: 8): they are averaged first, into a copy beside the store.
///
/// A training that was interrupted goes on after its last epoch, with the same result to the last bit (on the CPU,
/// with the same --threads). One that is done does nothing.
///
/// Settings: --config, over the defaults; flags, over both. docs/train.md has all of them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store with labels; epochs are written to it
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Version whose labels are learnt [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Visual features: a folder of <id>.npy (T,D) or (8T,D), a folder of Parquet shards, or one Parquet file
    #[arg(long, value_name = "PATH", env = "VAPLAN_VISUAL")]
    visual: PathBuf,
    /// Audio features, as --visual
    #[arg(long, value_name = "PATH", env = "VAPLAN_AUDIO")]
    audio: PathBuf,
    /// Clip features such as R(2+1)D, as --visual [default: none]
    #[arg(long, value_name = "PATH", env = "VAPLAN_CLIPS")]
    clips: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Folder of the checkpoints [default: _vaplan/train in the store]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Flags that training and ablation share.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// TOML with settings
    #[arg(long, value_name = "FILE", env = "VAPLAN_TRAIN_CONFIG")]
    config: Option<PathBuf>,
    /// Passes over the videos [default: 40]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Videos of a step [default: 16]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Names the random numbers [default: 1]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What is asked of the network [default: avvp]
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// What the network learns from [default: pseudo+richness]
    #[arg(long, value_name = "WHAT")]
    supervision: Option<Supervision>,
    /// Learning rate [default: 0.0003]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Threads of libtorch [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE", value_parser = crate::network::device)]
    device: tch::Device,
}

impl How {
    /// Flags over file over defaults.
    pub(super) fn settings(&self) -> anyhow::Result<TrainSettings> {
        let mut settings = match &self.config {
            Some(path) => TrainSettings::read(path)?,
            None => TrainSettings::default(),
        };
        settings.epochs = self.epochs.unwrap_or(settings.epochs);
        settings.batch = self.batch.unwrap_or(settings.batch);
        settings.seed = self.seed.unwrap_or(settings.seed);
        settings.task = self.task.unwrap_or(settings.task);
        settings.supervision = self.supervision.unwrap_or(settings.supervision);
        settings.learning_rate = self.learning_rate.unwrap_or(settings.learning_rate);
        settings.check()?;
        Ok(settings)
    }

    pub(super) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    pub(super) fn device(&self) -> tch::Device {
        self.device
    }
}

impl Args {
    fn request(&self, global: &Global) -> anyhow::Result<Request> {
        let own = self.store.join("_vaplan/train");
        Ok(Request {
            store: self.store.clone(),
            version: self.version.map(StoreVersion),
            features: FeaturePaths {
                audio: self.audio.clone(),
                visual: self.visual.clone(),
                clips: self.clips.clone(),
                cache: own.join("features"),
            },
            settings: self.how.settings()?,
            threads: self.how.threads(),
            device: self.how.device(),
            out: self.out.clone().unwrap_or(own),
            command: global.command_line(),
        })
    }
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = args.request(global)?;
    let bar = Bar::new("training", "videos", global);
    let (mut begun, mut videos, mut last) = (Instant::now(), 0_u64, String::new());
    let summary = train::run(&request, &mut |progress| match progress {
        Progress::Read { .. } => bar.message("reading features"),
        Progress::Waiting(holder) => bar.say(&format!("waiting: the store is being written by {holder}")),
        Progress::Planned { epochs, done, videos } => {
            bar.total(epochs * videos);
            bar.add(done * videos);
            if done > 0 && done < epochs {
                bar.say(&format!("going on after epoch {done} of {epochs}"));
            }
            begun = Instant::now();
        }
        Progress::Step(step) => {
            videos += step.videos as u64;
            let speed = videos as f64 / begun.elapsed().as_secs_f64().max(1e-9);
            bar.message(format!("loss {:.3}, {speed:.0} videos/s{last}", step.loss));
            bar.add(step.videos as u64);
        }
        Progress::Epoch { row, score, better } => {
            let shown = score.map_or(String::new(), |score| format!(", score {score:.1}"));
            last = shown.clone();
            let best = if better { ", the best so far" } else { "" };
            let loss = train::run::named(&row)["total"];
            bar.say(&format!(
                "epoch {}: loss {loss:.4}{shown}{best} ({:.1} s)",
                row.epoch, row.seconds
            ));
        }
    })?;
    bar.finish();
    let rejected = notes::report(&summary.rejects, global.quiet);
    tell(&summary, &request, out)?;
    Ok(if rejected > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn tell(summary: &Summary, request: &Request, out: &mut dyn Write) -> anyhow::Result<()> {
    let Summary {
        epochs,
        resumed,
        best,
        videos,
        left_out,
        checkpoint,
        ..
    } = summary;
    if *resumed == Some(*epochs) {
        writeln!(out, "nothing to do: these {epochs} epochs are done")?;
    } else {
        writeln!(
            out,
            "{epochs} epochs of {videos} videos ({left_out} without labels or features)"
        )?;
    }
    if let Some((epoch, score)) = best {
        let metric = request.settings.best_metric();
        let (split, gate) = (request.settings.best_split, request.settings.best_gate.as_str());
        match score {
            Some(score) => writeln!(
                out,
                "best epoch {epoch}: {metric} {score:.2} on {split}, protocol {gate}"
            )?,
            None => writeln!(
                out,
                "last epoch {epoch}: nothing to choose by, {split} has no dense truth"
            )?,
        }
        writeln!(out, "checkpoint {}", checkpoint.display())?;
    }
    Ok(())
}
