//! `vaplan denoise`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use vaplan_schemas::Modality;

use super::relabel::listener;
use super::{Global, notes, workers};
use crate::denoise::{self, Denoised, DenoisingRequest};
use crate::eval::Level;
use crate::world::changes::DenoiseRequest;
use crate::world::flips;

/// Flip the labels that a trained epoch contradicts
///
/// Pseudo label denoising: where the loss of a label against the epoch's prediction is more than alpha times the mean of
/// the K smallest losses of its class in the video, and the prediction is farther from the label than the guard, the label
/// is flipped. Losses are against what scores and thresholds say, never against labels flipped before, so the flips of
/// an epoch replace those of any other. Labels that a person set stay. All is one store version; each flip says why in tables
/// labels and label_changes.
///
/// Prints how many labels of each class are flipped, set and unset, and where dense truth is known the segment-level
/// F-scores of the labels before and after. A prediction that is no probability flips nothing, is listed in the `rejects`
/// table and makes the exit status 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store to change
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Epoch of the store whose predictions count [default: the best that predicted train videos]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch: Option<u64>,
    /// The base of a loss is the mean of the K smallest [default: as before; 5 at first]
    #[arg(long, value_name = "K")]
    k: Option<u32>,
    /// A loss is abnormal above this many times the base [default: as before; 10 at first]
    #[arg(long, value_name = "A")]
    alpha: Option<f64>,
    /// A label flips only where the prediction is farther from it than this; 0: the bare rule [default: as before; 0.5 at first]
    #[arg(long, value_name = "G")]
    guard: Option<f64>,
    /// Whose labels [default: as before; visual at first]
    #[arg(long, value_name = "MODALITY")]
    modality: Option<Of>,
    /// Print also the labels that would change, a line each with + or -, and commit nothing
    #[arg(long)]
    dry_run: bool,
    /// Workers of the dataflow; tables are the same for every number [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
}

/// Modalities to denoise.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Of {
    /// What is seen.
    Visual,
    /// What is heard.
    Audio,
    /// Both.
    Both,
}

impl Of {
    pub(super) fn modalities(self) -> Vec<Modality> {
        match self {
            Of::Visual => vec![Modality::Visual],
            Of::Audio => vec![Modality::Audio],
            Of::Both => Modality::ALL.to_vec(),
        }
    }
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (bar, listener) = listener("denoising", global);
    let request = DenoisingRequest {
        store: args.store.clone(),
        epoch: args.epoch,
        denoising: DenoiseRequest {
            k: args.k,
            alpha: args.alpha,
            guard: args.guard,
            modalities: args.modality.map(Of::modalities),
        },
        workers: workers(args.workers),
        dry_run: args.dry_run,
        command: global.command_line(),
    };
    let denoised = denoise::run(&request, &listener)?;
    bar.finish();
    if args.dry_run {
        super::relabel::print_changes(&denoised.summary.changes, out)?;
    }
    print(&denoised, out)?;
    let rejected = notes::report(&denoised.summary.rejected, global.quiet);
    if !args.dry_run {
        super::relabel::print_version(&denoised.summary, out)?;
    }
    Ok(if rejected > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// The flips and, where there is truth, the scores.
pub(super) fn print(denoised: &Denoised, out: &mut dyn Write) -> std::io::Result<()> {
    for modality in Modality::ALL {
        let settings = denoised.summary.denoising[crate::world::at(modality)];
        if let Some(pld) = settings {
            let (epoch, k, alpha, guard) = (denoised.epoch, pld.k(), pld.alpha(), pld.guard());
            writeln!(
                out,
                "epoch {epoch}, {modality}: k {k}, alpha {alpha}, guard {guard}"
            )?;
        }
    }
    if let Some(flips) = &denoised.summary.flips {
        let width = flips.keys().map(|(_, class)| class.chars().count()).max();
        let width = width.unwrap_or(0).max("class".len());
        writeln!(
            out,
            "{:<8} {:<width$} {:>9} {:>9}",
            "flips", "class", "to set", "to unset"
        )?;
        let mut all = [0, 0];
        for ((modality, class), [set, unset]) in flips {
            writeln!(
                out,
                "{:<8} {class:<width$} {set:>9} {unset:>9}",
                modality.as_str()
            )?;
            all = [all[0] + set, all[1] + unset];
        }
        writeln!(
            out,
            "{:<8} {:<width$} {:>9} {:>9}",
            "all",
            flips::total(flips),
            all[0],
            all[1]
        )?;
    }
    if !denoised.quality.is_empty() {
        writeln!(
            out,
            "{:<8} {:<8} {:>6} {:>6} {:>6} {:>8}",
            "labels", "segment", "A", "V", "AV", "Type@AV"
        )?;
    }
    for quality in &denoised.quality {
        for (when, level) in [("before", &quality.before), ("after", &quality.after)] {
            let Level {
                audio,
                visual,
                audio_visual,
                type_av,
                ..
            } = level;
            writeln!(
                out,
                "{:<8} {when:<8} {audio:>6.1} {visual:>6.1} {audio_visual:>6.1} {type_av:>8.1}",
                quality.split.as_str()
            )?;
        }
    }
    Ok(())
}
