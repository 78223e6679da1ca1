//! `vaplan demo`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::Parser;

use super::{Cli, Global};
use crate::synth::sample::AnnotationSet;

/// Do the whole job on a built-in sample: features, labels, a parser, denoised labels, scores, SQL, a timeline
///
/// The demo prints the command of each step before it runs that command. The sample is made
/// up, and its features are simulated: the demo shows how the program works, and its scores
/// say nothing about real data. It takes about two minutes on two cores, and writes 100 MB.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DemoArgs {
    /// Folder to write. It must be empty or the folder of an earlier demo, whose files are replaced
    #[arg(long, value_name = "DIR", default_value = "vaplan-demo")]
    dir: PathBuf,
    /// Video whose timeline the last step shows
    #[arg(
        long,
        value_name = "NAME",
        default_value = "demo0001510_0_10",
        allow_hyphen_values = true
    )]
    video: String,
    /// Write only the annotations and the file that describes the job, and stop after the first step
    #[arg(long)]
    annotations_only: bool,
}

/// Name of the file that marks the folder of a demo. Only a folder with this file may be overwritten.
const MARKER: &str = ".vaplan-demo";
/// Name of the file that describes the job for `vaplan run`.
#[cfg(feature = "train")]
const JOB: &str = "job.toml";
/// Contents of that file. The parser is small, so that the job takes less than a minute on two cores.
#[cfg(feature = "train")]
const JOB_TEXT: &str = "\
# vaplan run --print-default has every key.
store = \"store\"
baselines = [\"weak\"]

[data]
annotations = \"annotations\"

[features]
visual = \"features/visual\"
audio = \"features/audio\"
visual_text = \"features/visual_text.npy\"
audio_text = \"features/audio_text.npy\"

[train_features]
visual = \"features/parser/frames\"
audio = \"features/parser/audio\"
clips = \"features/parser/clips\"

[train]
epochs = 8
hidden = 64
feedforward = 64
learning_rate = 0.004
schedule = \"cosine\"
warmup_epochs = 1

[denoise]
restart = true
";
/// Name of the file with the settings of the ablation.
#[cfg(feature = "train")]
const ABLATION: &str = "train.toml";
/// Contents of that file: section `[train]` of the job.
#[cfg(feature = "train")]
const ABLATION_TEXT: &str = "\
epochs = 8
hidden = 64
feedforward = 64
learning_rate = 0.004
schedule = \"cosine\"
warmup_epochs = 1
";
/// Longest line of a printed command, in columns. Longer commands are broken before an option.
const COLUMNS: usize = 88;
const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const TYPED: Style = Style::new().bold();

#[cfg(all(feature = "query", feature = "train"))]
const SQL: &str = "SELECT modality, class, \"to\" AS label, count(*) AS flips, round(avg(why['loss']), 1) AS mean_loss \
                   FROM label_changes WHERE rule = 'pld' GROUP BY modality, class, label \
                   ORDER BY flips DESC, modality, class, label LIMIT 9";
#[cfg(all(feature = "query", not(feature = "train")))]
const SQL: &str = "SELECT class, modality, count(*) AS events, round(avg(offset - onset), 1) AS mean_seconds \
                   FROM events GROUP BY class, modality ORDER BY events DESC, class, modality LIMIT 9";

pub(super) fn run(args: &DemoArgs, global: &Global, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    prepare(&args.dir)?;
    let place = |name: &str| args.dir.join(name).display().to_string();
    let (annotations, features, store) = (place("annotations"), place("features"), place("store"));
    let dir = args.dir.display().to_string();

    let mut steps = Steps {
        done: 0,
        total: 5 + usize::from(cfg!(feature = "query")) + usize::from(cfg!(feature = "train")),
        global,
        out,
    };
    let title = format!(
        "annotations in LLP's format: {} videos, made up",
        AnnotationSet::Demo.videos()
    );
    steps.announce(&title, &["demo", "--annotations-only", "--dir", &dir])?;
    AnnotationSet::Demo.write(Path::new(&annotations))?;
    writeln!(steps.out, "written to {annotations}")?;
    #[cfg(feature = "train")]
    {
        let job = place(JOB);
        fs::write(&job, JOB_TEXT).with_context(|| format!("cannot write `{job}`"))?;
        writeln!(steps.out, "what is to be done with them: {job}")?;
        let ablation = place(ABLATION);
        fs::write(&ablation, ABLATION_TEXT).with_context(|| format!("cannot write `{ablation}`"))?;
    }
    if args.annotations_only {
        return Ok(ExitCode::SUCCESS);
    }

    steps.take(
        "features of every second, simulated here: CLIP-like and CLAP-like ones for the labels, others for the \
         parser",
        &[
            "synth",
            "--annotations",
            &annotations,
            "--out",
            &features,
            "--preset",
            "clear",
            "--dim",
            "128",
            "--parquet",
        ],
    )?;
    job(&mut steps, &place, &store, &features)?;
    #[cfg(feature = "query")]
    steps.take(
        match cfg!(feature = "train") {
            true => "which labels denoising flipped, and how large their losses were, in SQL",
            false => "events in SQL",
        },
        &["query", "--store", &store, SQL],
    )?;
    // The video comes after `--`, because a name that begins with a dash would be read as an option.
    steps.take(
        "one video, second by second",
        &["show", "--store", &store, "--", &args.video],
    )?;

    farewell(out, &dir, &store, &features, begun.elapsed().as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}

/// Steps that make labels, parsers and denoised labels, and score all of them.
#[cfg(feature = "train")]
fn job(
    steps: &mut Steps<'_>,
    place: &dyn Fn(&str) -> String,
    store: &str,
    features: &str,
) -> anyhow::Result<()> {
    let job = place(JOB);
    steps.take(
        "the whole job: labels, a parser trained on weak labels and one on these, labels denoised by it, \
         a parser trained on what is left, all scored against the dense truth",
        &["run", &job],
    )?;
    steps.take("what a second run would do", &["plan", &job])?;
    let parser = |name: &str| format!("{features}/parser/{name}");
    steps.take(
        "does each step of the method help? The same training with three seeds: mean and deviation",
        &[
            "ablate",
            "--store",
            store,
            "--visual",
            &parser("frames"),
            "--audio",
            &parser("audio"),
            "--clips",
            &parser("clips"),
            "--config",
            &place(ABLATION),
            "--lines",
            "weak,pseudo,pseudo+richness,pseudo+richness+pld",
        ],
    )
}

/// Steps that make labels and score them, in a program without training.
#[cfg(not(feature = "train"))]
fn job(
    steps: &mut Steps<'_>,
    _place: &dyn Fn(&str) -> String,
    store: &str,
    features: &str,
) -> anyhow::Result<()> {
    let label = label_words(store, features);
    let label: Vec<&str> = label.iter().map(String::as_str).collect();
    steps.take(
        "segment labels from features and weak labels, committed to a store",
        &label,
    )?;
    steps.take(
        "how good the labels are, against the dense truth",
        &["eval", "--store", store, "--split", "test"],
    )
}

fn label_words(store: &str, features: &str) -> Vec<String> {
    let file = |name: &str| Path::new(features).join(name).display().to_string();
    let annotations = Path::new(features)
        .with_file_name("annotations")
        .display()
        .to_string();
    let mut words: Vec<String> = ["label", "--store", store, "--annotations", &annotations]
        .map(str::to_owned)
        .into();
    for modality in ["visual", "audio"] {
        words.extend([format!("--{modality}"), file(modality)]);
        words.extend([
            format!("--{modality}-text"),
            file(&format!("{modality}_text.npy")),
        ]);
    }
    words
}

/// Creates the folder, or removes the annotations, features and store of an earlier demo in it. Refuses any other
/// folder that is not empty, so that the demo deletes no files of the user.
fn prepare(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    let marker = dir.join(MARKER);
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{shown}`"))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot list `{shown}`"))?;
    if entries.next().is_some() && !marker.is_file() {
        bail!("`{shown}` is not empty and no folder of a demo, expected a new one: --dir DIR");
    }
    fs::write(
        &marker,
        "Written by `vaplan demo`, which may write this folder anew.\n",
    )
    .with_context(|| format!("cannot write `{}`", marker.display()))?;
    for name in ["annotations", "features", "store"] {
        let folder = dir.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
        }
    }
    Ok(())
}

/// Steps of the demo. Each step is a command line that is parsed and run as if the user had typed it.
struct Steps<'a> {
    done: usize,
    total: usize,
    global: &'a Global,
    out: &'a mut dyn Write,
}

impl Steps<'_> {
    fn announce(&mut self, title: &str, words: &[&str]) -> anyhow::Result<()> {
        self.done += 1;
        writeln!(
            self.out,
            "\n{TITLE}[{}/{}] {title}{TITLE:#}",
            self.done, self.total
        )?;
        writeln!(self.out, "{TYPED}$ {}{TYPED:#}", typed(words))?;
        // Print the command before anything that it writes to standard error.
        self.out.flush()?;
        Ok(())
    }

    fn take(&mut self, title: &str, words: &[&str]) -> anyhow::Result<()> {
        self.announce(title, words)?;
        let mut cli = Cli::try_parse_from(["vaplan"].iter().chain(words))
            .with_context(|| format!("step {} of the demo", self.done))?;
        let asked: Vec<String> = ["vaplan"]
            .iter()
            .chain(words)
            .map(|word| super::quoted(word))
            .collect();
        cli.global = Global {
            asked: Some(asked.join(" ")),
            ..self.global.clone()
        };
        let code = cli.run(self.out).with_context(|| format!("`{}`", typed(words)))?;
        if code != ExitCode::SUCCESS {
            bail!("`{}` left something out, see above", typed(words));
        }
        Ok(())
    }
}

/// Returns the command as a user would type it into a shell. A line that is longer than [`COLUMNS`] is broken before an
/// option.
fn typed(words: &[&str]) -> String {
    let mut lines = vec![String::from("vaplan")];
    for (position, word) in words.iter().enumerate() {
        let word = quoted(word);
        let line = lines.last_mut().expect("there is a first line");
        // The value of an option stays on the line of the option.
        let value = words
            .get(position + 1)
            .filter(|next| !next.starts_with("--"))
            .map_or(0, |next| next.len() + 1);
        if word.starts_with("--") && line.len() + 1 + word.len() + value > COLUMNS {
            lines.push(format!("    {word}"));
        } else {
            line.push(' ');
            line.push_str(&word);
        }
    }
    lines.join(" \\\n")
}

/// Quotes a word if a shell would not take it as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn farewell(out: &mut dyn Write, dir: &str, store: &str, features: &str, seconds: f64) -> anyhow::Result<()> {
    let label = label_words(store, features);
    let label: Vec<&str> = label.iter().map(String::as_str).collect();
    let again = typed(&[&label[..], &["--visual-threshold", "1.01"]].concat());
    let (dir, store) = (quoted(dir), quoted(store));
    writeln!(out, "\n{TITLE}Done in {seconds:.0} s{TITLE:#}")?;
    writeln!(
        out,
        "Scores above are simulated, as the features are. The store {store} is a folder of Delta\n\
         tables: Polars reads them too; docs/operations.md says how others do.\n\
         \n\
         {TITLE}Go on with this store{TITLE:#}"
    )?;
    #[cfg(feature = "query")]
    writeln!(
        out,
        "{TYPED}$ vaplan query --store {store}{TYPED:#}\n    an SQL prompt"
    )?;
    #[cfg(feature = "train")]
    writeln!(
        out,
        "{TYPED}$ vaplan run {dir}/{JOB}{TYPED:#}\n    after a change of the file: does again what depends on it"
    )?;
    writeln!(
        out,
        "{TYPED}$ {again}{TYPED:#}\n    other labels, as a new version\n\
         {TYPED}$ vaplan log --store {store}{TYPED:#}\n    all versions; commands that read take --version N\n\
         \n\
         {TITLE}With your own data{TITLE:#}\n\
         1. Weak labels: tab-separated files as in {dir}/annotations; LLP's own\n   \
            work as they are. Classes other than LLP's: a classes.txt beside them, one a line.\n\
         2. Features of each segment, per modality: a folder of <id>.npy (T,D), or Parquet shards\n   \
            with columns video, modality, segment, feature. Text embeddings of the classes: npy (C,D).\n   \
            None yet? vaplan synth simulates them for your annotations.\n\
         3. The commands above, with your paths; vaplan label --help tells of rules and thresholds.\n   \
            Bad rows stop nothing: they are listed in the table rejects.\n\
         4. Labels you have as npy can be scored too: vaplan eval --help\n\
         \n\
         {TITLE}See and correct the labels in the browser{TITLE:#}\n\
         {TYPED}$ vaplan serve --store {store}{TYPED:#}"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_a_shell_takes_them() {
        assert_eq!(
            typed(&["show", "--store", "my store", "--", "-a_0_1"]),
            "vaplan show --store 'my store' -- -a_0_1"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        let path = "x".repeat(60);
        let expected = format!("vaplan label --store {path} \\\n    --visual {path}");
        assert_eq!(typed(&["label", "--store", &path, "--visual", &path]), expected);
    }
}
