//! How the command line reads paths. [`read`] gives every option of type `PathBuf` the same reader, so that no command can
//! forget a form of a path.
//!
//! ```text
//! a/b                   the path, as it is
//! file:///a/b           the local path /a/b
//! s3://bucket/a         the URL, if the option takes a store or an input; otherwise an error that says what to do
//! ```

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};
use vaplan_schemas::storage::{StoreUrl, local_path, redacted};

/// The options that take the URL of a store or of an input, in every command but those of [`LOCAL_ONLY`].
const TAKE_URLS: [&str; 18] = [
    "store",
    "copy-to",
    "annotations",
    "classes",
    "visual",
    "audio",
    "visual-text",
    "audio-text",
    "remove-visual",
    "remove-audio",
    "weak",
    "weak-add",
    "weak-remove",
    "user",
    "media",
    "clip",
    "clap",
    "model",
];

/// Options of [`TAKE_URLS`] that take a local path in one command. `serve` gives out parts of media files.
const LOCAL_ONLY: [(&str, &str); 1] = [("serve", "media")];

/// Gives every argument of type `PathBuf` of a command and its subcommands the reader of this module.
pub(super) fn read(command: Command) -> Command {
    command.mut_args(read_argument).mut_subcommands(read)
}

/// Gives an argument of type `PathBuf` the reader of this module. Other arguments stay as they are.
pub(super) fn read_argument(argument: Arg) -> Arg {
    let paths = ValueParser::path_buf().type_id();
    match argument.get_value_parser().type_id() == paths {
        true => argument.value_parser(PathReader),
        false => argument,
    }
}

/// Reads the value of one argument.
#[derive(Clone, Debug)]
struct PathReader;

impl TypedValueParser for PathReader {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, clap::Error> {
        let path = PathBufValueParser::new().parse_ref(command, argument, value)?;
        let read = match argument.is_some_and(|argument| takes_url(command.get_name(), argument)) {
            true => path_or_url(&path),
            false => {
                let name = argument.map_or_else(|| "this argument".to_owned(), ToString::to_string);
                only_local(&path, &name)
            }
        };
        // The usual message of clap repeats the value, which can be a URL with a password.
        read.map_err(|problem| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{problem}\n")).with_cmd(command)
        })
    }
}

fn takes_url(command: &str, argument: &Arg) -> bool {
    argument
        .get_long()
        .is_some_and(|option| TAKE_URLS.contains(&option) && !LOCAL_ONLY.contains(&(command, option)))
}

/// Reads the path of a store or of an input.
///
/// # Errors
/// Returns a message if the path is a URL that cannot be used.
pub(super) fn path_or_url(path: &Path) -> Result<PathBuf, String> {
    let local = local_path(path).map_err(|error| error.to_string())?;
    Ok(local.unwrap_or_else(|| path.to_owned()))
}

/// Reads a path of the local disk. `name` is the name of its argument.
///
/// # Errors
/// Returns a message if the path is a URL of an object store. Otherwise a command would make a folder that is named like the
/// URL.
pub(super) fn only_local(path: &Path, name: &str) -> Result<PathBuf, String> {
    let refused = |url: &str| {
        format!(
            "`{url}` is a URL, but {name} takes a path of the local disk: give a local path, and copy the files from or to the URL"
        )
    };
    match StoreUrl::parse(path) {
        Ok(Some(url)) => Err(refused(&url.to_string())),
        Ok(None) => local_path(path)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| refused(&redacted(&path.to_string_lossy()))),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    /// Names of values that are files or folders.
    const PATH_VALUES: [&str; 9] = [
        "DIR", "FILE", "PATH", "CSV", "NPY", "MEDIA", "PROGRAM", "CONFIG", "OLD",
    ];

    /// Options that hold a path and more: the next test has them.
    const PARTS: [&str; 3] = ["hosts", "prompt", "rebase"];

    /// The program, with what clap adds before it reads arguments. Without it, clap cannot print an argument.
    fn program() -> Command {
        let mut program = Cli::command();
        program.build();
        program
    }

    /// All commands, with the names of the commands that they are in.
    fn commands(command: &Command, within: &str) -> Vec<(String, Command)> {
        let name = format!("{within} {}", command.get_name());
        let mut all = vec![(name.clone(), command.clone())];
        for below in command.get_subcommands() {
            all.extend(commands(below, &name));
        }
        all
    }

    fn is_path(argument: &Arg) -> bool {
        argument.get_value_parser().type_id() == ValueParser::path_buf().type_id()
    }

    /// The path that a command reads from an argument with this value, or its message.
    fn value(command: &Command, argument: &Arg, value: &str) -> Result<PathBuf, String> {
        let read = PathReader.parse_ref(command, Some(argument), OsStr::new(value));
        // The same value by way of the command, so that a command with another reader is found.
        let mut words = vec![command.get_name().to_owned()];
        words.extend(argument.get_long().map(|option| format!("--{option}")));
        let values = argument
            .get_num_args()
            .map_or(1, |range| range.min_values().max(1));
        words.extend(std::iter::repeat_n(value.to_owned(), values));
        let matches = command
            .clone()
            .ignore_errors(true)
            .try_get_matches_from(words)
            .unwrap();
        let mut found = matches.get_many::<PathBuf>(argument.get_id().as_str());
        let given = matches.value_source(argument.get_id().as_str());
        match given == Some(clap::parser::ValueSource::CommandLine) {
            true => assert_eq!(found.as_mut().and_then(Iterator::next), read.as_ref().ok()),
            false => assert!(read.is_err(), "{argument} of {}", command.get_name()),
        }
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn every_path_of_every_command_takes_file_urls_and_refuses_urls_that_it_cannot_use() {
        let (mut all, mut remote) = (0, 0);
        for (name, command) in commands(&program(), "") {
            for argument in command.get_arguments().filter(|argument| is_path(argument)) {
                let of = format!("{name} {argument}");
                let read = |text: &str| value(&command, argument, text);
                assert_eq!(read("file:///a%20b/c"), Ok("/a b/c".into()), "{of}");
                assert_eq!(read("FILE:///a"), Ok("/a".into()), "{of}");
                assert_eq!(read("a/b"), Ok("a/b".into()), "{of}");
                for url in ["file://host/a", "ftp://host/a", "s3://me:hunter2@bucket/a"] {
                    let refused = read(url).unwrap_err();
                    assert!(!refused.contains("hunter2"), "{of}: {refused}");
                }
                match read("s3://bucket/a") {
                    Ok(url) => {
                        assert_eq!(url, Path::new("s3://bucket/a"), "{of}");
                        remote += 1;
                    }
                    Err(refused) => {
                        let told =
                            format!("but {argument} takes a path of the local disk: give a local path");
                        assert!(refused.contains(&told), "{of}: {refused}");
                    }
                }
                all += 1;
            }
        }
        println!("{all} arguments of all commands take file URLs, {remote} take URLs of object stores");
        assert!(all > 60 && remote > 30, "{all} paths, {remote} take URLs");
    }

    #[test]
    fn an_argument_that_names_a_file_or_folder_is_a_path() {
        for (name, command) in commands(&program(), "") {
            let arguments = command.get_arguments();
            for argument in arguments.filter(|argument| argument.get_action().takes_values()) {
                let values = argument.get_value_names().unwrap_or_default();
                let is_named = values.iter().any(|value| {
                    let words = value.split(|c: char| !c.is_ascii_uppercase());
                    words.into_iter().any(|word| PATH_VALUES.contains(&word))
                });
                let option = argument.get_long().unwrap_or_default();
                if is_named && !PARTS.contains(&option) {
                    assert!(is_path(argument), "`{argument}` of `{name}` is read as text");
                }
            }
        }
    }

    #[test]
    fn options_that_hold_a_path_and_more_read_the_path_alike() {
        let told = |words: &[&str]| format!("{:?}", Cli::try_parse_from(words));
        for (words, read) in [
            (
                ["--prompt", "visual/Dog=file:///a%20b.npy"],
                "(Visual, \"Dog\", \"/a b.npy\")",
            ),
            (
                ["--prompt", "visual/Dog=s3://bucket/a.npy"],
                "\"s3://bucket/a.npy\"",
            ),
            (
                ["--prompt", "visual/Dog=file://host/a.npy"],
                "no path of this machine",
            ),
            (
                ["--rebase", "file:///a%20b=s3://bucket/c"],
                "(\"/a b\", \"s3://bucket/c\")",
            ),
            (["--rebase", "/a=file://host/c"], "no path of this machine"),
            (["--hosts", "file:///a%20b"], "\"/a b\""),
            (["--hosts", "a:1,b:2"], "\"a:1,b:2\""),
            (
                ["--hosts", "s3://bucket/hosts"],
                "`s3://bucket/hosts` is a URL, but --hosts takes a path of the local disk",
            ),
        ] {
            let mut line = vec!["vaplan", "relabel", "--store", "s", "--process", "0"];
            if words[0] != "--hosts" {
                line.truncate(4);
            }
            line.extend(words);
            assert!(told(&line).contains(read), "{words:?}: {}", told(&line));
        }
    }

    #[test]
    fn an_option_that_takes_urls_exists() {
        let all = commands(&program(), "");
        for option in TAKE_URLS {
            let has = |(_, command): &(String, Command)| {
                let mut arguments = command.get_arguments();
                arguments.any(|argument| argument.get_long() == Some(option))
            };
            // A build without media or models lacks the commands that read them.
            let is_left_out = cfg!(not(feature = "encode")) && ["clip", "clap", "model"].contains(&option);
            assert!(is_left_out || all.iter().any(has), "--{option}");
        }
    }
}
