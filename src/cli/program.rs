//! The `main` functions of the two programs.

use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};
use vaplan_schemas::storage::redacted;

use super::{Cli, left_out, stderr};

/// Runs `vaplan`: a command that computes with libtorch is handed over to `vaplan-torch`, in the same process.
///
/// Nothing that this function calls may call libtorch: the linker then leaves libtorch out of the program.
pub fn main() -> ExitCode {
    let cli = parsed(std::env::args_os().collect());
    #[cfg(feature = "train")]
    if cli.needs_libtorch() {
        let error = super::handover::hand_over();
        stderr::tell(&error);
        return ExitCode::from(2);
    }
    finish(|out| cli.run_without_libtorch(out))
}

/// Runs `vaplan-torch`, which has all commands.
#[cfg(feature = "train")]
pub fn main_with_libtorch() -> ExitCode {
    let cli = parsed(std::env::args_os().collect());
    finish(|out| cli.run(out))
}

/// Runs `vaplan` with these arguments, as another program that contains the library does. `arguments` begins with the name
/// of the program. Returns the exit status.
///
/// Commands that compute with libtorch are refused, because the other program is not linked to libtorch. Arguments that are
/// not valid, `--help` and `--version` end the process, as they end `vaplan`.
pub fn main_with(arguments: Vec<std::ffi::OsString>) -> u8 {
    let words = arguments.iter().skip(1);
    let words = words.map(|word| super::quoted(&word.to_string_lossy()));
    let asked = std::iter::once("vaplan".to_owned()).chain(words);
    let asked = asked.collect::<Vec<_>>().join(" ");
    let mut cli = parsed(arguments);
    cli.global.asked = Some(asked);
    let code = finish(|out| cli.run_without_libtorch(out));
    // An `ExitCode` can be compared, but does not give its number.
    (0..=u8::MAX)
        .find(|status| ExitCode::from(*status) == code)
        .unwrap_or(2)
}

/// The options of a command, or for `None` those before the command, that take values from the words after them: each with the
/// largest number of values. A program that contains the library finds the command of a line with them, also a command that the
/// library lacks.
pub fn options_with_values(command: Option<&str>) -> Vec<(String, usize)> {
    let mut all = Cli::command();
    all.build();
    let Some(own) = command.map_or(Some(&all), |name| all.find_subcommand(name)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for option in own.get_opts().filter(|option| option.get_action().takes_values()) {
        let most = option.get_num_args().map_or(1, |range| range.max_values());
        let names = option.get_long_and_visible_aliases().unwrap_or_default();
        found.extend(names.into_iter().map(|name| (format!("--{name}"), most)));
        let letters = option.get_short_and_visible_aliases().unwrap_or_default();
        found.extend(letters.into_iter().map(|letter| (format!("-{letter}"), most)));
    }
    found
}

/// Reads the arguments of the program. Arguments that are not valid end the program.
fn parsed(arguments: Vec<std::ffi::OsString>) -> Cli {
    Cli::try_parse_from(&arguments).unwrap_or_else(|error| {
        let invalid = error.get(ContextKind::InvalidArg).map(ToString::to_string);
        let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
        let command = words.into_iter().find(|word| !word.starts_with('-'));
        if let Some(message) = left_out::said(&error, command) {
            stderr::tell(&message);
            std::process::exit(2);
        }
        if let (ErrorKind::UnknownArgument, Some("--hosts"), Some(command)) =
            (error.kind(), invalid.as_deref(), command)
        {
            stderr::tell(&format!(
                "`{command}` runs in one process, expected no --hosts: {} take it",
                super::cluster::COMMANDS
            ));
            std::process::exit(2);
        }
        refuse(&error)
    })
}

/// Prints why arguments are not valid, or the help that they ask for, and ends the process. A message repeats the value of an
/// argument, which can be a URL with a password: the password is left out.
fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let plain = redacted(&text);
    if error.use_stderr() && plain != text {
        // A closed standard error takes no message, and changes no exit status.
        let _ = std::io::stderr().write_all(plain.as_bytes());
        std::process::exit(error.exit_code());
    }
    error.exit()
}

fn finish(command: impl FnOnce(&mut dyn Write) -> anyhow::Result<ExitCode>) -> ExitCode {
    let mut out = anstream::stdout().lock();
    let done = command(&mut out).and_then(|code| out.flush().map(|()| code).map_err(Into::into));
    match done {
        Ok(code) => code,
        // A reader that closed the pipe (`| head`) wants no more output and no message.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::tell(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
