//! `vaplan train`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::learning::{LabelSourceArgs, TrainArgs, epoch_line};
use super::progress::Bar;
use super::{Global, notes};
use crate::parser::train::{self, TrainProgress, TrainRequest, TrainSummary};

/// Train a network on the labels of a store
///
/// The network (HAN, with the richness-aware loss) learns from the train videos of a store version. Every epoch becomes
/// one store version: loss terms and scores in table `epochs`, probabilities in `predictions` and `video_predictions`.
/// If features have several rows per segment (ResNet-152: 8), their mean is computed first and kept in a copy inside
/// the store.
///
/// A training that was interrupted continues after its last epoch and ends in the same result, bit for bit (on the CPU,
/// with the same --threads). For a training that is complete, the command does nothing.
///
/// Settings come from --config over the defaults, and from flags over both. docs/train.md lists them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan train --store store --visual clip --audio clap
  vaplan train --store store --visual res152 --audio vggish --clips r2plus1d_18 --supervision weak")]
pub(super) struct Args {
    #[command(flatten)]
    source: LabelSourceArgs,
    #[command(flatten)]
    training: TrainArgs,
    /// Folder of the checkpoints [default: _vaplan/train in the store]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    fn request(&self, global: &Global) -> anyhow::Result<TrainRequest> {
        Ok(TrainRequest {
            store: self.source.store.clone(),
            version: self.source.version(),
            features: self.source.features(),
            settings: self.training.settings()?,
            device: self.training.machine.device()?,
            out: self.out.clone().unwrap_or_else(|| self.source.folder()),
            command: global.command_line(),
        })
    }
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = args.request(global)?;
    args.training.machine.set_threads();
    let bar = Bar::new("training", "videos", global);
    let (mut begun, mut videos, mut last) = (Instant::now(), 0_u64, String::new());
    let summary = train::run(&request, &mut |progress| match progress {
        TrainProgress::Read { .. } => bar.message("reading features"),
        TrainProgress::Waiting(holder) => {
            bar.say(&format!("waiting: the store is being written by {holder}"))
        }
        TrainProgress::Planned { epochs, done, videos } => {
            bar.total(epochs * videos);
            bar.add(done * videos);
            if done > 0 && done < epochs {
                bar.say(&format!("continuing after epoch {done} of {epochs}"));
            }
            begun = Instant::now();
        }
        TrainProgress::Step(step) => {
            videos += step.videos as u64;
            let speed = videos as f64 / begun.elapsed().as_secs_f64().max(1e-9);
            bar.message(format!("loss {:.3}, {speed:.0} videos/s{last}", step.loss));
            bar.add(step.videos as u64);
        }
        TrainProgress::Epoch { row, score, better } => {
            let shown = score.map_or(String::new(), |score| format!(", score {score:.1}"));
            last = shown.clone();
            bar.say(&epoch_line(&row, score, better));
        }
    })?;
    bar.finish();
    let rejected = notes::report(&summary.rejects, global.quiet);
    write_summary(&summary, &request, out)?;
    Ok(if rejected > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn write_summary(summary: &TrainSummary, request: &TrainRequest, out: &mut dyn Write) -> anyhow::Result<()> {
    let TrainSummary {
        epochs,
        resumed,
        best,
        videos,
        left_out,
        checkpoint,
        model,
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
                "last epoch {epoch}: the best epoch is unknown, because split {split} has no dense truth"
            )?,
        }
        writeln!(out, "checkpoint {}", checkpoint.display())?;
        writeln!(out, "model {}", model.display())?;
    }
    Ok(())
}
