//! The commands and options that need a feature of the build, and what a build without this feature says about them.
//!
//! clap does not know a command that was left out, and would suggest another one with a similar name.

use clap::error::{ContextKind, ErrorKind};

/// The features, and whether this build has them.
const FEATURES: [(&str, bool); 3] = [
    ("encode", cfg!(feature = "encode")),
    ("query", cfg!(feature = "query")),
    ("train", cfg!(feature = "train")),
];

/// The commands that need features.
const COMMANDS: [(&str, &[&str]); 8] = [
    ("ablate", &["train"]),
    ("encode", &["encode"]),
    ("models", &["encode"]),
    ("parse", &["encode", "train"]),
    ("predict", &["train"]),
    ("query", &["query"]),
    ("run", &["train"]),
    ("train", &["train"]),
];

/// The options of other commands that need a feature. An option without dashes is an argument without a name.
const OPTIONS: [(&str, &[&str], &str); 5] = [
    (
        "label",
        &[
            "--batch",
            "--cache",
            "--clap",
            "--clip",
            "--commit-every",
            "--device",
            "--dtype",
            "--external-data",
            "--ffmpeg",
            "--frame",
            "--frame-rate",
            "--media",
            "--prompts",
            "--readers",
            "--resize",
            "--segments",
            "--sessions",
            "--threads",
        ],
        "encode",
    ),
    (
        "watch",
        &["--clap", "--clip", "--ffmpeg", "--frame-rate", "--segments"],
        "encode",
    ),
    ("watch", &["--threads", "--train"], "train"),
    ("eval", &["--epoch", "--protocol"], "train"),
    ("plan", &["CONFIG"], "train"),
];

/// What to say about arguments that are not valid because this build lacks a feature. `command` is the command that the user
/// gave. Returns `None` if the arguments are not valid in any build.
pub(super) fn said(error: &clap::Error, command: Option<&str>) -> Option<String> {
    let named = |kind| Some(error.get(kind)?.to_string());
    let features = FEATURES.into_iter();
    let features: Vec<&str> = features.filter_map(|(name, has)| has.then_some(name)).collect();
    match error.kind() {
        ErrorKind::InvalidSubcommand => of_command(&named(ContextKind::InvalidSubcommand)?, &features),
        ErrorKind::UnknownArgument => of_option(command?, &named(ContextKind::InvalidArg)?, &features),
        _ => None,
    }
}

fn of_command(command: &str, features: &[&str]) -> Option<String> {
    let (_, needed) = COMMANDS.iter().find(|(name, _)| *name == command)?;
    message(&format!("command `{command}`"), needed, features)
}

fn of_option(command: &str, option: &str, features: &[&str]) -> Option<String> {
    let of_clap = option.split(['=', ' ']).next().unwrap_or(option);
    let (_, _, needed) = OPTIONS.iter().find(|(name, options, _)| {
        *name == command
            && options
                .iter()
                .any(|own| *own == of_clap || (!own.starts_with('-') && !of_clap.starts_with('-')))
    })?;
    let what = match option.starts_with('-') {
        true => format!("option `{of_clap}` of command `{command}`"),
        false => format!("file of a run (`{option}`) in command `{command}`"),
    };
    message(&what, &[needed], features)
}

/// Returns `None` if no needed feature is missing.
fn message(what: &str, needed: &[&str], features: &[&str]) -> Option<String> {
    let quoted = |names: &[&str]| format!("`{}`", names.join("` and `"));
    let missing: Vec<&str> = needed
        .iter()
        .filter(|name| !features.contains(name))
        .copied()
        .collect();
    if missing.is_empty() {
        return None;
    }
    let all = FEATURES.iter().map(|(name, _)| *name);
    let wanted: Vec<&str> = all
        .clone()
        .filter(|name| features.contains(name) || needed.contains(name))
        .collect();
    let build = match wanted.len() == all.count() {
        true => "cargo build --release".to_owned(),
        false => format!(
            "cargo build --release --no-default-features --features {}",
            wanted.join(",")
        ),
    };
    // The libraries are linked or loaded by these features only.
    let libraries = match wanted.iter().any(|name| ["encode", "train"].contains(name)) {
        true => "run `scripts/native-libs.sh`, then build it with ",
        false => "build it with ",
    };
    let s = if missing.len() > 1 { "s" } else { "" };
    Some(format!(
        "this build of vaplan has no {what}: it lacks the feature{s} {}; in the folder of the source, {libraries}`{build}`",
        quoted(&missing)
    ))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn has(feature: &str) -> bool {
        FEATURES.contains(&(feature, true))
    }

    #[test]
    fn the_tables_name_what_clap_has_with_these_features_and_nothing_else() {
        let cli = Cli::command();
        for (name, needed) in COMMANDS {
            assert_eq!(
                cli.find_subcommand(name).is_some(),
                needed.iter().all(|feature| has(feature)),
                "{name}"
            );
        }
        for (command, options, needed) in OPTIONS {
            let found = cli.find_subcommand(command).unwrap();
            for option in options {
                let own = |arg: &clap::Arg| match option.strip_prefix("--") {
                    Some(long) => arg.get_long() == Some(long),
                    None => arg.is_positional(),
                };
                assert_eq!(found.get_arguments().any(own), has(needed), "{command} {option}");
            }
        }
    }

    #[test]
    fn a_build_without_a_feature_says_how_to_build_with_it() {
        assert_eq!(
            of_command("query", &[]).unwrap(),
            "this build of vaplan has no command `query`: it lacks the feature `query`; in the folder of the source, \
             build it with `cargo build --release --no-default-features --features query`"
        );
        assert_eq!(
            of_command("parse", &["query"]).unwrap(),
            "this build of vaplan has no command `parse`: it lacks the features `encode` and `train`; in the folder of \
             the source, run `scripts/native-libs.sh`, then build it with `cargo build --release`"
        );
        let encode = of_command("encode", &["query"]).unwrap();
        assert!(
            encode.ends_with("--no-default-features --features encode,query`"),
            "{encode}"
        );
        let media = of_option("label", "--media=videos", &[]).unwrap();
        assert!(
            media.starts_with("this build of vaplan has no option `--media` of command `label`: it lacks"),
            "{media}"
        );
        let plan = of_option("plan", "job.toml", &[]).unwrap();
        assert!(
            plan.contains("no file of a run (`job.toml`) in command `plan`"),
            "{plan}"
        );
        // Nothing is missing, or no build has it.
        assert_eq!(of_command("query", &["query"]), None);
        assert_eq!(of_command("qwery", &[]), None);
        assert_eq!(of_option("label", "--medium", &[]), None);
        assert_eq!(of_option("show", "--media", &[]), None);
    }

    /// clap tells the name of an unknown command and of an unknown option in the way that [`said`] expects.
    #[test]
    fn clap_tells_the_names() {
        let told = |words: &[&str], kind: ContextKind| {
            let error = Cli::try_parse_from(words).unwrap_err();
            error.get(kind).map(ToString::to_string)
        };
        for words in [
            &["vaplan", "qwery"][..],
            &["vaplan", "-q", "qwery", "--store", "s"],
        ] {
            let name = told(words, ContextKind::InvalidSubcommand);
            assert_eq!(name.as_deref(), Some("qwery"));
        }
        let option = told(
            &["vaplan", "check", "--store", "s", "--medium", "m"],
            ContextKind::InvalidArg,
        );
        assert_eq!(option.as_deref(), Some("--medium"));
        let word = told(
            &["vaplan", "check", "--store", "s", "job.toml"],
            ContextKind::InvalidArg,
        );
        assert_eq!(word.as_deref(), Some("job.toml"));
    }
}
