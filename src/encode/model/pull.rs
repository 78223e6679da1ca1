//! Public exports, fetched from the Hugging Face hub: each file whole and verified, or not at all.
//!
//! Our own few lines on the reqwest that the store brings already: `hf-hub` 1.0 would bring 60 crates more.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use crate::encode::sum::hex;

/// Short names of exports that are known to have the usual files.
pub const KNOWN: [(&str, &str); 4] = [
    ("clip-vit-base-patch32", "Xenova/clip-vit-base-patch32"),
    ("clip-vit-base-patch16", "Xenova/clip-vit-base-patch16"),
    ("clip-vit-large-patch14", "Xenova/clip-vit-large-patch14"),
    ("clap-htsat-unfused", "Xenova/clap-htsat-unfused"),
];

/// What is fetched of CLIP, and of CLAP.
const CLIP: [&str; 3] = ["onnx/vision_model.onnx", "onnx/text_model.onnx", "tokenizer.json"];
const CLAP: [&str; 3] = ["onnx/audio_model.onnx", "onnx/text_model.onnx", "tokenizer.json"];

/// Where models come from, unless `HF_ENDPOINT` says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";

/// What keeps a model from being fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// No short name, and no repository.
    #[error(
        "`{name}` is no model known here, expected <owner>/<repository>, or one of {}",
        known()
    )]
    Name {
        /// As given.
        name: String,
    },
    /// The server cannot be reached.
    #[error("cannot reach `{url}`: is there a network? Models can also be copied into a folder by hand")]
    Network {
        /// What was asked for.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The server says no.
    #[error("`{url}` answers {status}, expected a file")]
    Status {
        /// What was asked for.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// What came is not what the server said would come.
    #[error("`{url}` gave {found}, expected {expected}: nothing of it is kept")]
    Damaged {
        /// What was asked for.
        url: String,
        /// Bytes or SHA-256.
        found: String,
        /// As the server said.
        expected: String,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

fn known() -> String {
    KNOWN.map(|(name, _)| name).join(", ")
}

/// Fetches a model into a folder; files that are there already stay.
///
/// `name` is one of [`KNOWN`], or a repository with the usual files. `told` hears of every file.
///
/// # Errors
/// [`PullError`]; files that came whole before stay.
pub fn pull(
    endpoint: &str,
    name: &str,
    revision: &str,
    folder: &Path,
    told: &mut dyn FnMut(&str, u64),
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
        // The hub tells a file's hash where it sends one on: redirections are followed by hand.
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
            told(file, bytes);
        }
        Ok(())
    })
}

/// Repository of a name: no part of it may lead elsewhere.
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

/// What the first answer says of a file.
#[derive(Default)]
struct Told {
    size: Option<u64>,
    sha256: Option<String>,
}

impl Told {
    /// Of the hub's own headers; only large files have a SHA-256.
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
    let mut said = Told::default();
    let mut response = get(client, url, &mut said).await?;
    let expected = said.size.or(response.content_length());
    let write = |source| PullError::Write {
        path: to.to_owned(),
        source,
    };
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(write)?;
    // A name of its own, so that two processes that fetch the same model do not write into one file.
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
    let verdict = match (received, expected, &said.sha256) {
        (_, Some(expected), _) if expected != bytes => {
            Err(damaged(format!("{bytes} bytes"), format!("{expected} bytes")))
        }
        (Err(source), ..) => Err(PullError::Network {
            url: url.to_owned(),
            source,
        }),
        (Ok(()), _, Some(told)) if *told != sum => Err(damaged(format!("SHA-256 {sum}"), told.clone())),
        (Ok(()), ..) => Ok(()),
    };
    // The temporary file is removed with the error.
    verdict?;
    file.as_file().sync_all().map_err(write)?;
    file.persist(to).map_err(|error| write(error.error))?;
    Ok(bytes)
}

/// The answer that holds the file, at most five redirections away.
async fn get(client: &Client, url: &str, said: &mut Told) -> Result<Response, PullError> {
    let network = |source| PullError::Network {
        url: url.to_owned(),
        source,
    };
    let mut at = url.to_owned();
    for _ in 0..6 {
        let response = client.get(&at).send().await.map_err(network)?;
        said.take(response.headers());
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
        // May be relative to where it came from.
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
