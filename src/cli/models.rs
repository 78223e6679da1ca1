//! `vaplan models`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Global;
use super::report_format::{ReportFormat, print_json};
use super::stderr::tell;
use crate::encode::model::{Encoder, ModelFolder, ModelKind, SessionOptions, TextEncoder, pull, session};

/// Describe the models in folders, and check that they can be used
///
/// The command opens every model, reads its inputs and outputs, and runs it once. A folder that cannot be used is
/// reported on standard error and makes the exit status 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vaplan models models/clip models/clap
  vaplan models pull clip-vit-base-patch32")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Model folders, or folders that contain model folders [default: vaplan/models in the user's cache folder]
    #[arg(value_name = "DIR", env = "VAPLAN_MODELS")]
    folders: Vec<PathBuf>,
    /// Read weights that are in files beside the ONNX file of a model
    #[arg(long)]
    external_data: bool,
    /// Format of the descriptions
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ReportFormat,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Download a public export, and print its folder
    ///
    /// NAME is clip-vit-base-patch32, clip-vit-base-patch16, clip-vit-large-patch14 or clap-htsat-unfused, or a
    /// repository <owner>/<name> of the Hugging Face hub that has onnx/vision_model.onnx or onnx/audio_model.onnx,
    /// onnx/text_model.onnx and tokenizer.json. Files that exist already are not downloaded again.
    Pull {
        /// Name of the model or repository
        name: String,
        /// Folder to write [default: vaplan/models/NAME in the user's cache folder]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Branch, tag or commit of the repository
        #[arg(long, value_name = "REVISION", default_value = "main")]
        revision: String,
        /// Server to download from
        #[arg(long, value_name = "URL", default_value = pull::ENDPOINT, env = "HF_ENDPOINT")]
        endpoint: String,
    },
}

/// Returns the folder of downloaded models: `vaplan/models` in `$XDG_CACHE_HOME` or `~/.cache`. `None` if neither
/// variable is set.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(caches.join("vaplan").join("models"))
}

fn fetch(
    (name, to, revision, endpoint): (&str, Option<&PathBuf>, &str, &str),
    global: &Global,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let folder = match to {
        Some(folder) => folder.clone(),
        None => cache()
            .context("there is no HOME, expected --to")?
            .join(name.replace('/', "--")),
    };
    pull::pull(endpoint, name, revision, &folder, &mut |file, bytes| {
        if !global.quiet {
            tell(&format!("fetched {file}, {bytes} bytes"));
        }
    })?;
    writeln!(out, "{}", folder.display())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(args: &Args, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if let Some(Action::Pull {
        name,
        to,
        revision,
        endpoint,
    }) = &args.action
    {
        return fetch((name, to.as_ref(), revision, endpoint), global, out);
    }
    let mut given = args.folders.clone();
    if given.is_empty() {
        let cache = cache().filter(|cache| cache.is_dir());
        given.push(cache.context("no model was pulled so far, expected a folder")?);
    }
    let options = SessionOptions {
        external_data: args.external_data,
        ..SessionOptions::default()
    };
    let mut status = ExitCode::SUCCESS;
    let mut described = Vec::new();
    for folder in folders(&given)? {
        match describe(&folder, &options) {
            Ok(own) if args.format == ReportFormat::Json => described.push(own),
            Ok(own) => writeln!(out, "{}\n{own}", folder.display())?,
            Err(error) => {
                tell(&format!("{error:#}"));
                status = ExitCode::from(1);
            }
        }
    }
    if args.format == ReportFormat::Json {
        print_json(&described, out)?;
    }
    Ok(status)
}

/// Returns the model folders: a given folder that is no model folder itself is replaced by the model folders in it, if
/// it has any.
fn folders(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for folder in given {
        let mut below = Vec::new();
        if ModelFolder::find(folder).is_err() && folder.is_dir() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() && ModelFolder::find(&path).is_ok() {
                    below.push(path);
                }
            }
        }
        below.sort_unstable();
        if below.is_empty() {
            below.push(folder.clone());
        }
        folders.append(&mut below);
    }
    Ok(folders)
}

/// What `models` tells of a model folder.
#[derive(serde::Serialize)]
struct DescribedModel {
    folder: PathBuf,
    kind: ModelKind,
    width: usize,
    logit_scale: f64,
    media: PathBuf,
    media_sha256: String,
    text: PathBuf,
    text_sha256: String,
}

impl std::fmt::Display for DescribedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "  kind         {}\n  width        {}\n  logit scale  {}\n  media        {}\n  sha256       {}\n  text         {}\n  sha256       {}",
            self.kind,
            self.width,
            self.logit_scale,
            self.media.display(),
            self.media_sha256,
            self.text.display(),
            self.text_sha256,
        )
    }
}

fn describe(path: &std::path::Path, options: &SessionOptions) -> anyhow::Result<DescribedModel> {
    let folder = ModelFolder::find(path)?;
    let encoder = Encoder::open(&folder, options)?;
    if folder.kind != ModelKind::Classifier {
        TextEncoder::open(&folder, options)?;
    }
    Ok(DescribedModel {
        folder: path.to_owned(),
        kind: folder.kind,
        width: encoder.width(),
        logit_scale: folder.logit_scale,
        media_sha256: encoder.sha256().to_owned(),
        text_sha256: session::sha256(&folder.text, options.external_data)?,
        media: folder.media,
        text: folder.text,
    })
}
