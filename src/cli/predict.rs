//! `vaplan predict`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::cluster::{ClusterArgs, starting};
use super::learning::{FeatureArgs, MachineArgs};
use super::progress::Bar;
use super::{Global, notes};
use crate::parser::predict::{self, PredictRequest, PredictTarget};
use crate::parser::predict_cluster::{self, PredictOutcome};

/// Predict the events of videos with a trained network
///
/// The command reads the network from a checkpoint: safetensors, or a PyTorch state dict of HAN
/// (YapengTian/AVVP-ECCV20) or of another network with the same parameter names. No pickle is executed. The shapes of
/// the weights give the sizes of the network. For every segment the network gives the probability of every class.
///
/// With --npy, the command writes audio/<id>.npy and visual/<id>.npy, (T,C) of f32, for every video that has both
/// features. It needs no annotations. A video whose name cannot be a file name is left out and listed, and the exit
/// status is then 1.
///
/// With --store, the command predicts the videos of a store and writes a new epoch, which `eval --epoch` scores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan predict --checkpoint best.safetensors --visual clip --audio clap --npy predictions
  vaplan predict --checkpoint HAN.pt --visual res152 --audio vggish --clips r2plus1d_18 --store store")]
pub(super) struct Args {
    /// Checkpoint with the weights: .safetensors or .pt
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    #[command(flatten)]
    features: FeatureArgs,
    /// Folder to write npy files to; the command creates it if it does not exist
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
    /// Attention heads of the network [default: as the checkpoint says, or 1]
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let target = match (&args.store, &args.npy) {
        (Some(store), _) => PredictTarget::Store(store.clone()),
        (None, Some(npy)) => PredictTarget::Npy(npy.clone()),
        (None, None) => anyhow::bail!("expected --npy or --store"),
    };
    let FeatureArgs {
        audio,
        visual,
        clips,
        columns,
    } = args.features.clone();
    let request = PredictRequest {
        checkpoint: args.checkpoint.clone(),
        audio,
        visual,
        clips,
        columns: columns.unwrap_or_default(),
        target,
        heads: args.heads,
        device: args.machine.device()?,
        command: global.command_line(),
    };
    args.machine.set_threads();
    let bar = Bar::new("predicting", "videos", global);
    let mut on_videos = |videos, all| {
        bar.total(all);
        bar.add(videos);
    };
    args.cluster.serve("predict")?;
    let outcome = match args.cluster.settings()? {
        Some(settings) => {
            starting(&settings, &bar);
            predict_cluster::run(&request, &settings, &mut on_videos)?
        }
        None => PredictOutcome::Led(Box::new(predict::run(&request, &mut on_videos)?)),
    };
    bar.finish();
    let done = match outcome {
        PredictOutcome::Led(done) => *done,
        PredictOutcome::Followed { videos, rejects } => {
            writeln!(
                out,
                "{videos} videos predicted in this process; process 0 has the counts"
            )?;
            return Ok(ExitCode::from(u8::from(rejects > 0)));
        }
    };
    let rejected = notes::report(&done.rejects, global.quiet);
    match done.epoch {
        Some(epoch) => writeln!(out, "epoch {epoch}: {} videos predicted", done.videos)?,
        None => writeln!(out, "{} videos predicted", done.videos)?,
    }
    if done.left_out > 0 {
        super::stderr::tell(&format!(
            "{} videos were left out, because they lack some of their features",
            done.left_out
        ));
    }
    Ok(if rejected > 0 || done.left_out > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
