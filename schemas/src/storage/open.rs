//! Opens the object store of a URL.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::objects::ObjectStorage;
use super::retry::Retrying;
use super::{LocalStorage, Storage, StoreUrl, redacted, runtime, sizes, url};
use crate::error::StoreError;

/// The object stores that [`register`] was given, by the URL of their bucket.
static REGISTERED: Mutex<BTreeMap<String, Registered>> = Mutex::new(BTreeMap::new());

/// An object store of this process.
#[derive(Clone)]
pub(super) struct Registered {
    objects: Arc<dyn ObjectStore>,
    /// The lease of a writer ends if it is not renewed for this duration.
    pub(super) lease: Duration,
    /// An object of more than two parts of this size is written in parts.
    pub(super) part_bytes: usize,
}

/// The longest time of one attempt of a request, including the transfer of its bytes.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Makes an object store available under `memory://BUCKET` in this process. Tests and measurements use this. The lease of a writer
/// ends if it is not renewed for the duration `lease`; the environment variable
/// [`LEASE_SECONDS_VARIABLE`](super::LEASE_SECONDS_VARIABLE) goes before it. `part_bytes` is the size of the parts in which large
/// objects are written; `None` is the usual size.
///
/// # Panics
/// Panics if the text is no URL of a bucket with scheme `memory`.
pub fn register(bucket: &str, objects: Arc<dyn ObjectStore>, lease: Duration, part_bytes: Option<usize>) {
    let url = StoreUrl::parse(Path::new(bucket)).ok().flatten();
    let url = url.filter(|url| url.scheme() == "memory" && url.key().is_empty());
    let url = url.unwrap_or_else(|| panic!("`{bucket}` is no URL such as memory://name"));
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).insert(
        url.base(),
        Registered {
            objects,
            lease,
            part_bytes: part_bytes.unwrap_or_else(sizes::part_bytes).max(1),
        },
    );
}

/// The object store that was registered for a bucket.
pub(super) fn registered(url: &StoreUrl) -> Option<Registered> {
    let known = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&url.base()).cloned()
}

/// Opens the files below a path of the local disk, which must exist, or below a URL.
///
/// # Errors
/// Returns [`StoreError::Url`] if the URL or the settings in the environment cannot be used, and [`StoreError::Io`] if the
/// folder does not exist. No request is made.
pub(crate) fn open(root: &Path) -> Result<Arc<dyn Storage>, StoreError> {
    match StoreUrl::parse(root)? {
        Some(url) => Ok(Arc::new(ObjectStorage::new(objects(&url)?, url))),
        None => Ok(Arc::new(LocalStorage::new(&url::local(root)?)?)),
    }
}

/// The object store of the keys below a URL, with counts and repeated requests.
pub(super) fn objects(url: &StoreUrl) -> Result<Retrying, StoreError> {
    let bucket = bucket(url)?;
    let below: Arc<dyn ObjectStore> = match url.key() {
        "" => bucket,
        _ => Arc::new(PrefixStore::new(bucket, url.location())),
    };
    Retrying::new(below, url.clone())
}

/// The beginnings of the names of environment variables that the builders of object stores read.
const SERVICES: [&str; 4] = ["AWS_", "AZURE_", "AZURITE_", "GOOGLE_"];

/// Refuses an endpoint with a user or a password. The services take no such credentials, and the HTTP library logs endpoints.
///
/// # Errors
/// Returns [`StoreError::Endpoint`] with the name of the variable, but not its value.
fn check_endpoints(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<(), StoreError> {
    for (name, value) in variables {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let rest = value.split_once("://").filter(|(scheme, _)| {
            ["http", "https"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
        });
        let holds_user = rest.is_some_and(|(_, rest)| rest.contains('@'));
        if holds_user && SERVICES.iter().any(|service| name.starts_with(service)) {
            return Err(StoreError::Endpoint {
                variable: name.into_owned(),
            });
        }
    }
    Ok(())
}

fn bucket(url: &StoreUrl) -> Result<Arc<dyn ObjectStore>, StoreError> {
    check_endpoints(std::env::vars_os())?;
    let wrong = |error: object_store::Error| StoreError::Settings {
        url: url.to_string(),
        problem: redacted(&error.to_string()),
    };
    // This crate repeats requests itself: see `retry`.
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    // Connections live on the runtime of the stores, which outlives the runtimes of queries.
    let connector = SpawnedReqwestConnector::new(runtime::runtime()?.handle().clone());
    let options = ClientOptions::new()
        .with_timeout(TIMEOUT)
        .with_connect_timeout(Duration::from_secs(10));
    Ok(match url.scheme() {
        "s3" => {
            let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
            let endpoint = endpoint.iter().find_map(|name| std::env::var(name).ok());
            // An endpoint that begins with `http:` says that its owner wants no TLS.
            let plain = endpoint
                .as_ref()
                .is_some_and(|endpoint| endpoint.starts_with("http:"));
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(url.bucket())
                .with_client_options(options.with_allow_http(plain))
                .with_http_connector(connector)
                .with_retry(once);
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            Arc::new(builder.build().map_err(wrong)?)
        }
        "gs" => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(url.bucket())
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(once)
                .build()
                .map_err(wrong)?,
        ),
        "az" => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_container_name(url.bucket())
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(once)
                .build()
                .map_err(wrong)?,
        ),
        _ => {
            let found = registered(url).ok_or_else(|| StoreError::Url {
                url: url.to_string(),
                problem: "no such store in the memory of this process",
            })?;
            found.objects
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(variable: &str, value: &str) -> Result<(), String> {
        let variables = [("HOME", "/home/me"), (variable, value)];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        check_endpoints(variables.into_iter()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_with_a_password_is_refused_by_the_name_of_its_variable() {
        for variable in [
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_S3",
            "AZURE_STORAGE_ENDPOINT",
            "GOOGLE_BASE_URL",
        ] {
            for text in [
                "http://me:hunter2@host:9",
                "HTTPS://hunter2@host/",
                "http://me:hun/ter2@host",
            ] {
                let refused = checked(variable, text).unwrap_err();
                assert!(
                    refused.contains(variable) && refused.contains("expected a URL without"),
                    "{refused}"
                );
                assert!(
                    !refused.contains("hunter2") && !refused.contains("ter2"),
                    "{refused}"
                );
            }
            assert_eq!(checked(variable, "http://127.0.0.1:9"), Ok(()));
        }
        // A proxy can need a password.
        assert_eq!(checked("HTTPS_PROXY", "http://me:hunter2@host:9"), Ok(()));
        assert_eq!(
            checked(
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                r#"{"client_email":"me@host","uri":"https://host"}"#
            ),
            Ok(())
        );
    }
}
