//! `vaplan predict`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::learning::{FeatureArgs, Machine};
use super::progress::Bar;
use super::{Global, notes};
use crate::parser::predict::{self, Request, Target};

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
    #[command(flatten)]
    features: FeatureArgs,
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
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (target, cache) = match (&args.store, &args.npy) {
        (Some(store), _) => (Target::Store(store.clone()), store.join("_vaplan/train/features")),
        (None, Some(npy)) => (Target::Npy(npy.clone()), npy.join("features.part")),
        (None, None) => anyhow::bail!("expected --npy or --store"),
    };
    let request = Request {
        checkpoint: args.checkpoint.clone(),
        features: args.features.paths(cache),
        target,
        heads: args.heads,
        threads: args.machine.threads(),
        device: args.machine.device,
        command: global.command_line(),
    };
    let bar = Bar::new("predicting", "videos", global);
    let done = predict::run(&request, &mut |videos, all| {
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
