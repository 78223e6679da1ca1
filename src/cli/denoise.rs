//! `vaplan denoise`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use vaplan_schemas::Modality;

use super::cluster::{ClusterArgs, followed, starting};
use super::relabel::listener;
use super::report_format::{ReportFormat, print_json};
use super::rule::RuleArgs;
use super::{Global, notes, workers};
use crate::denoise::{self, DenoiseSummary, DenoisingRequest};
use crate::engine::cluster::outcome::ClusterOutcome;
use crate::eval::Level;
use crate::world::flips;

/// Flip the labels that the predictions of an epoch contradict
///
/// Pseudo label denoising (PLD) flips a label under two conditions. First, the label's loss against the epoch's
/// prediction is more than alpha times the mean of the K smallest losses of its class in the video. Second, the
/// prediction differs from the label by more than the guard. Losses are computed against the labels that scores and
/// thresholds give, not against labels that were flipped before. Therefore the flips of an epoch replace those of every
/// other epoch. User labels never flip. The command commits one store version. The tables labels and label_changes
/// state the reason of each flip.
///
/// If the store has dense truth of split val, and the epoch predicted it, the command first tries rules and parameters on
/// val, unless a rule or parameter is given. It takes the rule that improves the labels most. If no rule improves
/// held-out videos by more than two standard errors, the command says so and changes nothing.
///
/// The output counts the flipped labels of each class. If dense truth is known, it also shows the segment-level
/// F-scores of the labels before and after. A prediction that is not a probability flips nothing, is listed in the
/// table rejects, and makes the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan denoise --store store --dry-run
  vaplan denoise --store store --epoch 12 --modality both --k 5 --alpha 10 --guard 0.5")]
pub(super) struct DenoiseArgs {
    /// Store to change
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Epoch whose predictions are used [default: the best epoch that predicted train videos]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=crate::world::resolve::MOST_EPOCH))]
    epoch: Option<u64>,
    #[command(flatten)]
    rule: RuleArgs,
    /// Modality whose labels PLD may flip [default: the store's setting, or visual for the first epoch]
    #[arg(long, value_name = "MODALITY")]
    modality: Option<ModalityChoice>,
    /// Take the rule of the store as it is, without trying rules on val
    #[arg(long)]
    no_calibration: bool,
    /// Print the labels that would change, one per line with + or -, and commit nothing
    #[arg(long)]
    dry_run: bool,
    /// Number of dataflow workers; it does not change the result [default: one per core]
    #[arg(long, value_name = "N", env = "VAPLAN_WORKERS")]
    workers: Option<std::num::NonZeroUsize>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ReportFormat,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Choice of one modality or both.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum ModalityChoice {
    /// Visual labels.
    Visual,
    /// Audio labels.
    Audio,
    /// Labels of both modalities.
    Both,
}

impl ModalityChoice {
    pub(super) fn modalities(self) -> Vec<Modality> {
        match self {
            ModalityChoice::Visual => vec![Modality::Visual],
            ModalityChoice::Audio => vec![Modality::Audio],
            ModalityChoice::Both => Modality::ALL.to_vec(),
        }
    }
}

pub(super) fn run(args: &DenoiseArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (bar, listener) = listener("denoising", global);
    let request = DenoisingRequest {
        store: args.store.clone(),
        epoch: args.epoch,
        denoising: args.rule.request(args.modality.map(ModalityChoice::modalities))?,
        calibrate: !args.no_calibration,
        workers: workers(args.workers),
        dry_run: args.dry_run,
        command: global.command_line(),
    };
    args.cluster.serve("denoise")?;
    let cluster = args.cluster.settings()?;
    anyhow::ensure!(
        cluster.is_none() || !args.dry_run,
        "--dry-run is the work of one process, expected it without --hosts"
    );
    let outcome = match cluster {
        Some(settings) => {
            starting(&settings, &bar);
            denoise::run_in_cluster(&request, &settings, &listener)?
        }
        None => ClusterOutcome::Led(Box::new(denoise::run(&request, &listener)?)),
    };
    bar.finish();
    let denoised = match outcome {
        ClusterOutcome::Led(denoised) => *denoised,
        ClusterOutcome::Followed { version, rejects } => return followed(version, rejects, out),
    };
    if args.format == ReportFormat::Json {
        print_json(&json(&denoised), out)?;
    } else {
        if args.dry_run {
            super::relabel::print_changes(&denoised.summary.changes, out)?;
        }
        print(&denoised, out)?;
    }
    let rejected = notes::report(&denoised.summary.rejected, global.quiet);
    if !args.dry_run && args.format == ReportFormat::Table {
        super::relabel::print_version(&denoised.summary, out)?;
    }
    Ok(if rejected > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// The report as JSON. Scores are percent; `changes` has the labels that a dry run would change.
fn json(denoised: &DenoiseSummary) -> Value {
    let summary = &denoised.summary;
    let rule = |modality: Modality| {
        summary.denoising[modality.index()].map(|rule| {
            let parameters: Map<String, Value> = rule
                .parameters()
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect();
            json!({ "rule": rule.name(), "parameters": parameters })
        })
    };
    let flips = summary.flips.as_ref().map(|flips| {
        let flips = flips.iter().map(|((modality, class), [set, unset])| {
            json!({ "modality": modality.as_str(), "class": &**class, "set": set, "unset": unset })
        });
        flips.collect::<Vec<Value>>()
    });
    let quality = denoised
        .quality
        .iter()
        .map(|own| json!({ "split": own.split.as_str(), "before": own.before, "after": own.after }));
    let changes = summary.changes.iter().map(|row| {
        json!({
            "video": &*row.video,
            "modality": row.modality.as_str(),
            "class": &*row.class,
            "segment": row.segment,
            "label": row.to,
            "rule": row.rule.as_str(),
        })
    });
    json!({
        "epoch": denoised.epoch,
        "calibration": denoised.calibration,
        "version": summary.version.as_ref().map(|version| version.version),
        "set": summary.set,
        "unset": summary.unset,
        "audio": rule(Modality::Audio),
        "visual": rule(Modality::Visual),
        "flips": flips,
        "segment_scores": quality.collect::<Vec<Value>>(),
        "changes": changes.collect::<Vec<Value>>(),
    })
}

/// Prints the flips and, if dense truth is known, the scores.
pub(super) fn print(denoised: &DenoiseSummary, out: &mut dyn Write) -> std::io::Result<()> {
    if let Some(gain) = &denoised.calibration {
        if !gain.is_gain() {
            writeln!(
                out,
                "{gain} (a rule, such as `--denoise-rule pld`, denoises anyway)"
            )?;
            return Ok(());
        }
        writeln!(out, "{gain}")?;
    }
    for modality in Modality::ALL {
        let rule = denoised.summary.denoising[modality.index()];
        if let Some(rule) = rule {
            writeln!(out, "epoch {}, {modality}: {rule}", denoised.epoch)?;
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
