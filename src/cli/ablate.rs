//! `vaplan ablate`.

use std::io::Write;
use std::process::ExitCode;

use vaplan_schemas::rows::Split;

use super::Global;
use super::learning::{LabelSourceArgs, TrainArgs, ablation_line, network};
use super::progress::Bar;
use crate::parser::NetworkSettings;
use crate::parser::ablate::{self, AblateProgress, AblateRequest, AblationLine};

/// Train every line of the paper's ablation with several seeds, and print the scores
///
/// The lines are: weak labels as HAN was published; pseudo labels; pseudo labels with one or both terms of the
/// richness-aware loss; the same with labels that are denoised once or by every second epoch; and the same with one variant of
/// the loss each. All lines have the same settings otherwise, and every network learns for the same number of epochs. Each
/// network is scored on --split at the epoch that is best on the split of the settings (default: val). Denoising chooses its
/// rule on val, and denoises nothing if no rule gains there. If the labels of the store are denoised already, all lines begin
/// with the labels before that. The command writes no store version. It keeps the scores of each trained network in the
/// store's folder _vaplan/train/ablate, so that a second run trains only the networks that are missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan ablate --store store --visual res152 --audio vggish --clips r2plus1d_18
  vaplan ablate --store store --visual clip --audio clap --config train.toml --split test
  vaplan ablate --store store --visual clip --audio clap --lines pseudo+richness --networks han,transformer")]
pub(super) struct Args {
    #[command(flatten)]
    source: LabelSourceArgs,
    #[command(flatten)]
    training: TrainArgs,
    /// Seeds that each line is trained with, separated by commas
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Lines of the table, separated by commas
    #[arg(
        long,
        value_name = "LINES",
        value_delimiter = ',',
        value_parser = ablation_line(),
        default_value = "weak,pseudo,pseudo+richness,pseudo+richness+pld"
    )]
    lines: Vec<AblationLine>,
    /// Networks to compare, separated by commas; each line is trained with each network [default: that of --network]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = network())]
    networks: Vec<&'static str>,
    /// Split to score: train, val or test
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: Split,
    /// Output format: a table of means, or JSON with every run, unrounded
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// Output format.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let settings = args.training.settings()?;
    let networks: Vec<NetworkSettings> = match args.networks.is_empty() {
        true => vec![settings.network.clone()],
        false => {
            let named = args.networks.iter().map(|name| settings.network.of_network(name));
            named.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?
        }
    };
    let request = AblateRequest {
        store: args.source.store.clone(),
        version: args.source.version(),
        features: args.source.features(),
        settings,
        networks,
        lines: args.lines.clone(),
        seeds: args.seeds.clone(),
        split: args.split,
        device: args.training.machine.device()?,
        kept: args.source.folder().join("ablate"),
    };
    args.training.machine.set_threads();
    let bar = Bar::new("training", "videos", global);
    let ablation = ablate::run(&request, &mut |progress| match progress {
        AblateProgress::Planned(videos) => bar.total(videos),
        AblateProgress::Videos(videos) => bar.add(videos),
        AblateProgress::Run(run) => bar.say(&format!(
            "{}, network {}, seed {}: best epoch {}, segment Type@AV {:.2}",
            run.line.as_str(),
            run.network,
            run.seed,
            run.epoch,
            run.scores[0].1[3]
        )),
    })?;
    bar.finish();
    match args.format {
        Format::Table => write!(out, "{ablation}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&ablation)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
