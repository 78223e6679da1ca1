//! `vaplan calibrate`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::{Modality, StoreVersion};

use super::Global;
use super::choice::choices;
use super::denoise::ModalityChoice;
use super::report_format::{ReportFormat, print_json};
use crate::calibrate::{self, CalibrateRequest, CalibrationGoal, CalibrationMetric, CalibrationReport};
use crate::choice::Choice;
use crate::eval::Level;
use crate::world::World;

/// Choose the thresholds that score best on videos with dense truth
///
/// Calibration compares labels with the dense truth of a split and chooses the thresholds with the highest
/// segment-level F-score, defined as in `vaplan eval`. It tries every threshold that changes a label. If the store has
/// predictions for the split, it also chooses K, alpha and guard of denoising. The store is not changed: --out writes a
/// file for `label --thresholds` and `relabel --thresholds`.
///
/// Thresholds score better on the videos that they were chosen on than on other videos. Therefore the videos are
/// divided into folds, and each fold is also labelled with the thresholds that the other folds choose. The output shows
/// both scores: "in sample" is the score on the videos that chose, and "held out" is the score over all folds. If the
/// two differ much, the thresholds fit only these videos.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan calibrate --store store --split val
  vaplan calibrate --store store --split val --per-class --out thresholds.toml
  vaplan calibrate --store store --split val --plot curve.svg --format json
  vaplan relabel --store store --thresholds thresholds.toml")]
pub(super) struct CalibrateArgs {
    /// Store to read
    #[arg(long, value_name = "DIR", env = "VAPLAN_STORE")]
    store: PathBuf,
    /// Store version to read [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Split with dense truth: val or test
    #[arg(long, value_name = "SPLIT")]
    split: Split,
    /// Choose a threshold for each class, instead of one for all classes
    #[arg(long)]
    per_class: bool,
    /// Modality whose thresholds are chosen
    #[arg(long, value_name = "MODALITY", default_value = "both")]
    modality: ModalityChoice,
    /// Segment-level score to maximise
    #[arg(long, value_name = "METRIC", default_value = "own", value_parser = choices::<CalibrationMetric>())]
    metric: CalibrationMetric,
    /// Number of folds that the videos are divided into, at least 2
    #[arg(long, value_name = "N", default_value_t = 5)]
    folds: usize,
    /// Epoch whose predictions determine K, alpha and guard [default: the best epoch that predicted the split]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// TOML file to write the chosen thresholds to
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// SVG file to write a picture to: the metric over one threshold for all classes of each modality
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ReportFormat,
}

impl CalibrateArgs {
    /// Returns whether the command writes a file.
    pub(super) fn writes(&self) -> bool {
        self.out.is_some() || self.plot.is_some()
    }
}

pub(super) fn run(args: &CalibrateArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let request = CalibrateRequest {
        store: args.store.clone(),
        version: args.version.map(StoreVersion),
        split: args.split,
        how: CalibrationGoal {
            modalities: args.modality.modalities(),
            per_class: args.per_class,
            metric: args.metric,
        },
        epoch: args.epoch,
        folds: args.folds,
    };
    if let Some(path) = &args.plot {
        let is_svg = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
        anyhow::ensure!(
            is_svg,
            "--plot is `{}`, expected a file that ends in .svg: the picture is an SVG file",
            path.display()
        );
    }
    let (report, curves) = calibrate::run_with_curves(&request, args.plot.is_some())?;
    match args.format {
        ReportFormat::Table => print(&report, &request, out)?,
        ReportFormat::Json => json(&report, &request, out)?,
    }
    if let Some(path) = &args.plot {
        let svg = calibrate::plot::svg(&curves, request.how.metric.title());
        std::fs::write(path, svg).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
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

/// Prints the report as one JSON object. Scores are percent.
fn json(report: &CalibrationReport, request: &CalibrateRequest, out: &mut dyn Write) -> anyhow::Result<()> {
    let chosen = |modality: &Modality| {
        let own = report.choice.settings.of(*modality);
        let pld = report.choice.pld[modality.index()].map(|rule| {
            let parameters = rule.parameters().into_iter();
            let parameters: serde_json::Map<String, serde_json::Value> =
                parameters.map(|(name, value)| (name, value.into())).collect();
            serde_json::json!({ "rule": rule.name(), "parameters": parameters })
        });
        let value = serde_json::json!({ "thresholds": own.thresholds, "pld": pld });
        (modality.as_str().to_owned(), value)
    };
    let chosen: serde_json::Map<String, serde_json::Value> =
        request.how.modalities.iter().map(chosen).collect();
    let report = serde_json::json!({
        "split": request.split.as_str(),
        "videos": report.videos,
        "folds": request.folds,
        "metric": request.how.metric.name(),
        "epoch": report.epoch,
        "now": report.now,
        "thresholds": report.thresholds,
        "pld": report.pld,
        "chosen": chosen,
    });
    print_json(&report, out)
}

fn print(report: &CalibrationReport, request: &CalibrateRequest, out: &mut dyn Write) -> std::io::Result<()> {
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
        let name = metric.name();
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

/// Command line that denoises with the chosen K, alpha and guard.
fn denoise_line(report: &CalibrationReport) -> Option<String> {
    let epoch = report.epoch?;
    let denoised = |modality: &Modality| report.choice.pld[modality.index()].is_some();
    let denoised: Vec<Modality> = Modality::ALL.into_iter().filter(denoised).collect();
    let Some(rule) = report.choice.pld.iter().flatten().next() else {
        return Some(format!("no flip by epoch {epoch} improves the score"));
    };
    let parameters = rule.parameters().into_iter();
    let parameters: String = parameters
        .map(|(name, value)| format!(" --{name} {value}"))
        .collect();
    let of = match denoised[..] {
        [modality] => modality.as_str(),
        _ => "both",
    };
    Some(format!(
        "vaplan denoise --epoch {epoch} --modality {of}{parameters}"
    ))
}
