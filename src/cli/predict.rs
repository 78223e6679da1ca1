//! `vaplan predict`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use super::progress::Bar;
use super::{Global, notes};
use crate::train::FeaturePaths;
use crate::train::apply::{self, Request, Target};

/// Predict with a checkpoint
///
/// Reads a network from safetensors, or from a PyTorch state dict without executing its pickle (YapengTian/AVVP-ECCV20's
/// HAN and others of its parameter names), and gives the probability of every class in every segment. The network's sizes
/// are read off the weights.
///
/// --npy writes a folder: audio/<id>.npy and visual/<id>.npy, (T,C) f32, of every video that has both features; no
/// annotations are needed. --store writes the videos of a store as a new epoch, for `eval --epoch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Weights: .safetensors, or .pt
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Visual features, as for `train`
    #[arg(long, value_name = "PATH", env = "VAPLAN_VISUAL")]
    visual: PathBuf,
    /// Audio features
    #[arg(long, value_name = "PATH", env = "VAPLAN_AUDIO")]
    audio: PathBuf,
    /// Clip features, where the network takes some
    #[arg(long, value_name = "PATH", env = "VAPLAN_CLIPS")]
    clips: Option<PathBuf>,
    /// Folder to write npy files to
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "store",
        conflicts_with = "store"
    )]
    npy: Option<PathBuf>,
    /// Store to write an epoch to
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Attention heads, where the checkpoint does not tell [default: 1]
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
    /// Threads of libtorch [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_THREADS")]
    threads: Option<NonZeroUsize>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", env = "VAPLAN_DEVICE", value_parser = crate::network::device)]
    device: tch::Device,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (target, cache) = match (&args.store, &args.npy) {
        (Some(store), _) => (Target::Store(store.clone()), store.join("_vaplan/train/features")),
        (None, Some(npy)) => (Target::Npy(npy.clone()), npy.join("features.part")),
        (None, None) => anyhow::bail!("expected --npy or --store"),
    };
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let request = Request {
        checkpoint: args.checkpoint.clone(),
        features: FeaturePaths {
            audio: args.audio.clone(),
            visual: args.visual.clone(),
            clips: args.clips.clone(),
            cache,
        },
        target,
        heads: args.heads,
        threads: args.threads.map_or_else(cores, NonZeroUsize::get),
        device: args.device,
        command: global.command_line(),
    };
    let bar = Bar::new("predicting", "videos", global);
    let done = apply::run(&request, &mut |videos, all| {
        bar.total(all);
        bar.add(videos);
    })?;
    bar.finish();
    let rejected = notes::report(&done.rejects, global.quiet);
    match done.epoch {
        Some(epoch) => writeln!(out, "epoch {epoch}: {} videos predicted", done.videos)?,
        None => writeln!(out, "{} videos predicted", done.videos)?,
    }
    if done.left_out > 0 {
        eprintln!("vaplan: {} videos have not all features, left out", done.left_out);
    }
    Ok(if rejected > 0 || done.left_out > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
