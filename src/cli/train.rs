//! `vaplan train`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::learning::{How, Source, epoch_line};
use super::progress::Bar;
use super::{Global, notes};
use crate::parser::train::{self, Progress, Request, Summary};

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
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    how: How,
    /// Folder of the checkpoints [default: _vaplan/train in the store]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    fn request(&self, global: &Global) -> anyhow::Result<Request> {
        Ok(Request {
            store: self.source.store.clone(),
            version: self.source.version(),
            features: self.source.features(),
            settings: self.how.settings()?,
            threads: self.how.threads(),
            device: self.how.device(),
            out: self.out.clone().unwrap_or_else(|| self.source.folder()),
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
            bar.say(&epoch_line(&row, score, better));
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
