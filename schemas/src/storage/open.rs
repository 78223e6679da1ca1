//! Opens the object store of a URL.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::objects::ObjectStorage;
use super::retry::Retrying;
use super::{LocalStorage, Storage, StoreUrl, redacted, runtime, url};
use crate::error::StoreError;

/// The object stores that [`register`] was given, by the URL of their bucket.
static REGISTERED: Mutex<BTreeMap<String, Registered>> = Mutex::new(BTreeMap::new());

/// An object store of this process.
#[derive(Clone)]
struct Registered {
    objects: Arc<dyn ObjectStore>,
    lease: Duration,
}

/// The longest time of one attempt of a request, including the transfer of its bytes.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Makes an object store available under `memory://BUCKET` in this process. Tests and measurements use this. The lease of a writer
/// ends if it is not renewed for the duration `lease`; the environment variable
/// [`LEASE_SECONDS_VARIABLE`](super::LEASE_SECONDS_VARIABLE) goes before it.
///
/// # Panics
/// Panics if the text is no URL of a bucket with scheme `memory`.
pub fn register(bucket: &str, objects: Arc<dyn ObjectStore>, lease: Duration) {
    let url = StoreUrl::parse(Path::new(bucket)).ok().flatten();
    let url = url.filter(|url| url.scheme() == "memory" && url.key().is_empty());
    let url = url.unwrap_or_else(|| panic!("`{bucket}` is no URL such as memory://name"));
    REGISTERED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(url.base(), Registered { objects, lease });
}

/// The object store that was registered for a bucket, and the duration of its leases.
pub(super) fn registered(url: &StoreUrl) -> Option<(Arc<dyn ObjectStore>, Duration)> {
    let known = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.get(&url.base()).cloned();
    found.map(|found| (found.objects, found.lease))
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
        key => Arc::new(PrefixStore::new(bucket, Location::from(key))),
    };
    Ok(Retrying::new(below, url.clone()))
}

fn bucket(url: &StoreUrl) -> Result<Arc<dyn ObjectStore>, StoreError> {
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
            found.0
        }
    })
}
