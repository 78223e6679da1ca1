//! Fetches public exports from the Hugging Face hub. A file is kept only if it arrived whole and passed the checks of
//! its size and, if the hub gives one, its SHA-256.
//!
//! The module uses the crate `reqwest`, which the store needs anyway. The crate `hf-hub` 1.0 would add 60 more crates.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use crate::encode::sum::hex;

/// Short names and repositories of exports that are known to have the usual files.
pub const KNOWN: [(&str, &str); 4] = [
    ("clip-vit-base-patch32", "Xenova/clip-vit-base-patch32"),
    ("clip-vit-base-patch16", "Xenova/clip-vit-base-patch16"),
    ("clip-vit-large-patch14", "Xenova/clip-vit-large-patch14"),
    ("clap-htsat-unfused", "Xenova/clap-htsat-unfused"),
];

/// The files that are fetched for CLIP, and for CLAP.
const CLIP: [&str; 3] = ["onnx/vision_model.onnx", "onnx/text_model.onnx", "tokenizer.json"];
const CLAP: [&str; 3] = ["onnx/audio_model.onnx", "onnx/text_model.onnx", "tokenizer.json"];

/// The default address of the hub; the environment variable `HF_ENDPOINT` replaces it.
pub const ENDPOINT: &str = "https://huggingface.co";

/// The reason why a model cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The name is neither a short name nor a repository.
    #[error(
        "`{name}` is no model known here, expected <owner>/<repository>, or one of {}",
        known()
    )]
    Name {
        /// The name as the user gave it.
        name: String,
    },
    /// The server cannot be reached.
    #[error("cannot reach `{url}`: is there a network? Models can also be copied into a folder by hand")]
    Network {
        /// The address that was requested.
        url: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with a status that is neither a success nor a redirection, or redirected too often.
    #[error("`{url}` answers {status}, expected a file")]
    Status {
        /// The address that was requested.
        url: String,
        /// The status of the answer.
        status: StatusCode,
    },
    /// The file that arrived differs from the file that the server announced.
    #[error("`{url}` gave {found}, expected {expected}: nothing of it is kept")]
    Damaged {
        /// The address that was requested.
        url: String,
        /// Number of bytes, or SHA-256, of the file that arrived.
        found: String,
        /// The number of bytes, or the SHA-256, that the server announced.
        expected: String,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Path of the file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

fn known() -> String {
    KNOWN.map(|(name, _)| name).join(", ")
}

/// Fetches a model into a folder. Files that exist in the folder are not fetched again.
///
/// `name` is a short name of [`KNOWN`], or a repository with the usual files. The function calls `on_file` with the name
/// and the number of bytes of every file that it fetched.
///
/// # Errors
/// Returns [`PullError`] if a file cannot be fetched or written. Files that were fetched before the error stay.
pub fn pull(
    endpoint: &str,
    name: &str,
    revision: &str,
    folder: &Path,
    on_file: &mut dyn FnMut(&str, u64),
) -> Result<(), PullError> {
    let repository = repository(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| PullError::Write {
        path: folder.to_owned(),
        source,
    })?;
    runtime.block_on(async {
        let url = |file: &str| {
            format!(
                "{}/{repository}/resolve/{revision}/{file}",
                endpoint.trim_end_matches('/')
            )
        };
        let unreachable = |source| PullError::Network {
            url: url("tokenizer.json"),
            source,
        };
        // The hub gives the hash of a file only in the answer that redirects to the file. The client must therefore not
        // follow redirections itself; `get` follows them and reads the headers of each answer.
        let client = Client::builder()
            .redirect(Policy::none())
            .build()
            .map_err(unreachable)?;
        let sound = repository.to_ascii_lowercase().contains("clap");
        for file in if sound { CLAP } else { CLIP } {
            let to = folder.join(file);
            if to.is_file() {
                continue;
            }
            let bytes = fetch(&client, &url(file), &to).await?;
            on_file(file, bytes);
        }
        Ok(())
    })
}

/// Returns the repository of a name. The function refuses names with other characters than those of a repository, so
/// that a name cannot change the rest of the address.
fn repository(name: &str) -> Result<&str, PullError> {
    if let Some((_, repository)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return Ok(repository);
    }
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match name.split_once('/') {
        Some((owner, repository)) if plain(owner) && plain(repository) => Ok(name),
        _ => Err(PullError::Name {
            name: name.to_owned(),
        }),
    }
}

/// The size and the hash of a file, as the answers of the hub announce them.
#[derive(Default)]
struct AnnouncedFile {
    size: Option<u64>,
    sha256: Option<String>,
}

impl AnnouncedFile {
    /// Reads the headers that the hub adds. Only large files have a SHA-256 there.
    fn take(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(size) = text("x-linked-size").and_then(|size| size.parse().ok()) {
            self.size = Some(size);
        }
        let sum = text("x-linked-etag").map(|tag| tag.trim_matches('"'));
        if let Some(sum) =
            sum.filter(|sum| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            self.sha256 = Some(sum.to_ascii_lowercase());
        }
    }
}

async fn fetch(client: &Client, url: &str, to: &Path) -> Result<u64, PullError> {
    let mut announced = AnnouncedFile::default();
    let mut response = get(client, url, &mut announced).await?;
    let expected = announced.size.or(response.content_length());
    let write = |source| PullError::Write {
        path: to.to_owned(),
        source,
    };
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(write)?;
    // The temporary name is unique, so that two processes that fetch the same model do not write into one file.
    let mut file = tempfile::Builder::new()
        .prefix(".fetch.")
        .suffix(".part")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(write)?;
    let (mut sum, mut bytes) = (Sha256::new(), 0);
    let received = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                sum.update(&chunk);
                bytes += chunk.len() as u64;
                file.write_all(&chunk).map_err(write)?;
            }
            Ok(None) => break Ok(()),
            Err(source) => break Err(source),
        }
    };
    let damaged = |found: String, expected: String| PullError::Damaged {
        url: url.to_owned(),
        found,
        expected,
    };
    let sum = hex(&sum.finalize());
    let verdict = match (received, expected, &announced.sha256) {
        (_, Some(expected), _) if expected != bytes => {
            Err(damaged(format!("{bytes} bytes"), format!("{expected} bytes")))
        }
        (Err(source), ..) => Err(PullError::Network {
            url: url.to_owned(),
            source,
        }),
        (Ok(()), _, Some(announced)) if *announced != sum => {
            Err(damaged(format!("SHA-256 {sum}"), announced.clone()))
        }
        (Ok(()), ..) => Ok(()),
    };
    // On an error, the temporary file is dropped here, and so removed.
    verdict?;
    file.as_file().sync_all().map_err(write)?;
    file.persist(to).map_err(|error| write(error.error))?;
    Ok(bytes)
}

/// Requests the file, and follows at most five redirections.
async fn get(client: &Client, url: &str, announced: &mut AnnouncedFile) -> Result<Response, PullError> {
    let network = |source| PullError::Network {
        url: url.to_owned(),
        source,
    };
    let mut at = url.to_owned();
    for _ in 0..6 {
        let response = client.get(&at).send().await.map_err(network)?;
        announced.take(response.headers());
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let refused = || PullError::Status {
            url: url.to_owned(),
            status,
        };
        let next = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let next = next.filter(|_| status.is_redirection()).ok_or_else(refused)?;
        // The new address may be relative to the address that redirected.
        at = Url::parse(&at)
            .and_then(|base| base.join(next))
            .map_err(|_| refused())?
            .to_string();
    }
    Err(PullError::Status {
        url: url.to_owned(),
        status: StatusCode::LOOP_DETECTED,
    })
}
