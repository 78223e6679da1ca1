//! `vaplan calibrate`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreVersion};

use super::Global;
use super::denoise::Of;
use crate::calibrate::{self, How, Metric, Report, Request};
use crate::eval::Level;
use crate::world::{World, at};

/// Choose the thresholds that score best on videos with dense truth
///
/// Tries every threshold that makes a difference, in one pass over the sorted scores, against the truth of a split, and
/// takes the one of highest segment-level F-score, as `eval` has it. Where the store has predictions of that split, K, alpha
/// and guard of denoising are chosen, too. Nothing in the store is changed: --out takes a file for `label --thresholds` and
/// `relabel --thresholds`.
///
/// Thresholds that are chosen by some videos are better on them than on others. So the videos are cut into folds, each is
/// labelled by what the others choose, and the gain on all folds (held out) is told beside the gain on the videos that chose
/// (in sample). Where they are far apart, the thresholds are of these videos only.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Version of it [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Part of the data set with dense truth: val or test
    #[arg(long, value_name = "SPLIT")]
    split: Split,
    /// A threshold for each class, not one for all
    #[arg(long)]
    per_class: bool,
    /// Whose thresholds
    #[arg(long, value_name = "MODALITY", default_value = "both")]
    modality: Of,
    /// What is maximised: own (A for audio, V for visual), audio-visual, type-av or event-av
    #[arg(long, value_name = "METRIC", default_value = "own")]
    metric: Metric,
    /// Into how many parts the videos are cut
    #[arg(long, value_name = "N", default_value_t = 5)]
    folds: usize,
    /// Epoch of the store that K, alpha and guard are chosen by [default: the best that predicted the split]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// TOML of thresholds to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = Request {
        store: args.store.clone(),
        version: args.version.map(StoreVersion),
        split: args.split,
        how: How {
            modalities: args.modality.modalities(),
            per_class: args.per_class,
            metric: args.metric,
        },
        epoch: args.epoch,
        folds: args.folds,
    };
    let report = calibrate::run(&request)?;
    print(&report, &request, out)?;
    if let Some(path) = &args.out {
        let world = World::read(&Store::open(&args.store)?.at_version(request.version)?)?;
        let mut text = format!("# {}\n", global.command_line());
        if let Some(line) = denoise_line(&report) {
            text += &format!("# {line}\n");
        }
        text += &report.choice.settings.to_toml(&world.classes);
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report, request: &Request, out: &mut dyn Write) -> std::io::Result<()> {
    let (videos, split, folds) = (report.videos, request.split, request.folds);
    writeln!(
        out,
        "{:<24} {:>6} {:>6} {:>6} {:>8} {:>8}",
        format!("{split}, {videos} videos, segment"),
        "A",
        "V",
        "AV",
        "Type@AV",
        "Event@AV"
    )?;
    let mut row = |name: &str, level: &Level| {
        let Level {
            audio,
            visual,
            audio_visual,
            type_av,
            event_av,
        } = level;
        writeln!(
            out,
            "{name:<24} {audio:>6.2} {visual:>6.2} {audio_visual:>6.2} {type_av:>8.2} {event_av:>8.2}"
        )
    };
    row("thresholds now", &report.now)?;
    row("chosen, in sample", &report.thresholds.in_sample)?;
    row("chosen, held out", &report.thresholds.held_out)?;
    if let Some(pld) = &report.pld {
        row("with PLD, in sample", &pld.in_sample)?;
        row("with PLD, held out", &pld.held_out)?;
    }
    let metric = request.how.metric;
    for &modality in &request.how.modalities {
        let gain = |level: &Level| metric.of(level, modality) - metric.of(&report.now, modality);
        let gains = [
            gain(&report.thresholds.in_sample),
            gain(&report.thresholds.held_out),
        ];
        let thresholds = &report.choice.settings.of(modality).thresholds;
        let chosen = match thresholds.split_first() {
            Some((first, others)) if others.iter().all(|other| other == first) => {
                format!("threshold {first}")
            }
            _ => format!("{} thresholds", thresholds.len()),
        };
        let [in_sample, held_out] = gains;
        let name = metric.as_str();
        writeln!(
            out,
            "{modality}: {chosen}; {name} {in_sample:+.2} in sample, {held_out:+.2} held out ({folds} folds)"
        )?;
    }
    if let Some(line) = denoise_line(report) {
        writeln!(out, "{line}")?;
    }
    if report.epoch.is_none() {
        writeln!(
            out,
            "no epoch has predictions of {split} videos: K, alpha and guard are as they are"
        )?;
    }
    Ok(())
}

/// How to denoise as was found best.
fn denoise_line(report: &Report) -> Option<String> {
    let epoch = report.epoch?;
    let denoised = |modality: &Modality| report.choice.pld[at(*modality)].is_some();
    let denoised: Vec<Modality> = Modality::ALL.into_iter().filter(denoised).collect();
    let Some(pld) = report.choice.pld.iter().flatten().next() else {
        return Some(format!("no flip by epoch {epoch} gains"));
    };
    let (k, alpha, guard) = (pld.k(), pld.alpha(), pld.guard());
    let of = match denoised[..] {
        [modality] => modality.as_str(),
        _ => "both",
    };
    Some(format!(
        "vaplan denoise --epoch {epoch} --modality {of} --k {k} --alpha {alpha} --guard {guard}"
    ))
}
