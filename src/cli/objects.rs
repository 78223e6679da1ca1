//! Which options take URLs of object stores.

use std::ffi::OsString;
use std::path::Path;

use vaplan_schemas::storage::{StoreUrl, redacted, requests_of_process};

/// The options that take the URL of a store or of an input.
const TAKE_URLS: [&str; 20] = [
    "--store",
    "--copy-to",
    "--annotations",
    "--classes",
    "--visual",
    "--audio",
    "--visual-text",
    "--audio-text",
    "--remove-visual",
    "--remove-audio",
    "--weak",
    "--weak-add",
    "--weak-remove",
    "--user",
    "--text",
    "--command",
    "--media",
    "--clip",
    "--clap",
    "--model",
];

/// Refuses URLs of object stores in options that take paths of the local disk. Otherwise a command would make a folder that
/// is named like the URL.
///
/// # Errors
/// Returns an error that names the option.
pub(super) fn check_arguments(words: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    let mut option = String::new();
    for word in words {
        let word = word.to_string_lossy().into_owned();
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), value.to_owned()),
            _ if word.starts_with('-') => {
                option = word;
                continue;
            }
            _ => (option.clone(), word.clone()),
        };
        let is_store = matches!(StoreUrl::parse(Path::new(&value)), Ok(Some(_)));
        anyhow::ensure!(
            !is_store || TAKE_URLS.contains(&name.as_str()),
            "`{}` is a URL, but {} takes a path of the local disk: write to a local folder and copy it to the URL",
            redacted(&value),
            if name.is_empty() { "this argument" } else { &name },
        );
    }
    Ok(())
}

/// Logs how many requests the command made, if it made any.
pub(super) fn log_requests() {
    let counts = requests_of_process();
    if counts.all() > 0 {
        tracing::debug!(%counts, "requests to object stores");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(line: &str) -> anyhow::Result<()> {
        check_arguments(line.split(' ').map(OsString::from))
    }

    #[test]
    fn urls_are_refused_where_a_local_path_is_expected() {
        checked("label --store s3://b/s --visual=s3://b/v --annotations gs://b/a").unwrap();
        checked("export --store s3://b/s --out dir").unwrap();
        checked("export --store s --note https://example.org/a").unwrap();
        for line in [
            "export --out s3://b/x",
            "synth --out=az://c/x",
            "query -o gs://b/x",
        ] {
            let refused = checked(line).unwrap_err().to_string();
            assert!(refused.contains("takes a path of the local disk"), "{refused}");
        }
    }
}
