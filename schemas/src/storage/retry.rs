//! An object store whose requests are counted and repeated.
//!
//! Every request is tried up to 8 times, with a growing pause between the attempts. The crate `object_store` would repeat
//! requests, too, but its errors do not say how often, and it cannot tell the lost response of a conditional put from a
//! lost race: both end in "already exists". This module reads the object then, and compares the bytes.
//!
//! S3 can also answer a conditional put with status 409 while another process writes the same object: nobody has won yet, and
//! the put is to be repeated (ConditionalRequestConflict). The crate reports this as "already exists", too. This module
//! repeats the put if there is no such object.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::sync::Semaphore;

use super::counts::{Operation, RequestCounters, RequestCounts};
use super::open::registered;
use super::sizes::{part_bytes, whole_number};
use super::{StoreUrl, checkpoint, fault, redacted};
use crate::error::{ObjectError, StoreError};

/// The environment variable with the number of attempts of a request.
pub const ATTEMPTS_VARIABLE: &str = "VAPLAN_OBJECT_ATTEMPTS";
const ATTEMPTS: u32 = 8;
/// The pause after the first attempt. Each later pause is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// The most parts of one object that are under way at once.
const PARTS_AT_ONCE: usize = 4;
/// The most requests of one store that are under way at once.
pub(crate) const AT_ONCE: usize = 256;

/// The object store of the keys below a URL.
#[derive(Clone, Debug)]
pub(crate) struct Retrying {
    inner: Arc<dyn ObjectStore>,
    url: StoreUrl,
    attempts: u32,
    /// An object of more than two parts of this size is written in parts.
    part_bytes: usize,
    counters: Arc<RequestCounters>,
    permits: Arc<Semaphore>,
}

impl Retrying {
    /// Wraps `inner`, whose keys are relative to `url`.
    ///
    /// # Errors
    /// Returns [`StoreError::Variable`] if [`ATTEMPTS_VARIABLE`] is no number from 1.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, url: StoreUrl) -> Result<Retrying, StoreError> {
        let part_bytes = match registered(&url) {
            Some(place) => place.part_bytes,
            None => part_bytes(),
        };
        Ok(Retrying {
            inner,
            url,
            attempts: whole_number(ATTEMPTS_VARIABLE, "a number of attempts, at least 1")?
                .unwrap_or(ATTEMPTS),
            part_bytes,
            counters: Arc::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    pub(super) fn counts(&self) -> RequestCounts {
        self.counters.read()
    }

    fn count(&self, operation: Operation) {
        self.counters.add(operation);
        if matches!(operation, Operation::Put | Operation::Delete) {
            fault::point("request");
        }
    }

    /// Tries a request until it succeeds, fails for good, or was tried often enough. `request` is given the number of the
    /// attempt, from 1.
    async fn tried<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        operation: Operation,
        location: &Location,
        request: impl Fn(u32) -> F,
    ) -> object_store::Result<T> {
        let mut pause = match self.url.scheme() {
            // Memory has no reason for a longer pause.
            "memory" => PAUSE / 100,
            _ => PAUSE,
        };
        for attempt in 1.. {
            self.count(operation);
            let answer = {
                let _permit = self
                    .permits
                    .acquire()
                    .await
                    .expect("the semaphore is never closed");
                request(attempt).await
            };
            let error = match answer {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if is_answer(&error) {
                return Err(error);
            }
            if attempt >= self.attempts || !may_pass(&error) {
                return Err(self.failed(operation, location, attempt, &error));
            }
            self.counters.add_repeated();
            tracing::debug!(url = %self.at(location), attempt, error = %redacted(&error.to_string()), "request failed");
            tokio::time::sleep(with_jitter(pause)).await;
            pause = (pause * 2).min(LONGEST);
        }
        unreachable!("the last attempt returns")
    }

    fn at(&self, location: &Location) -> String {
        match location.as_ref() {
            "" => self.url.to_string(),
            key => format!("{}/{key}", self.url),
        }
    }

    fn failed(&self, operation: Operation, location: &Location, attempts: u32, error: &Error) -> Error {
        let status = status(error);
        let text = short(error);
        Error::Generic {
            store: "object store",
            source: Box::new(ObjectError {
                operation: operation.name(),
                url: self.at(location),
                attempts,
                advice: advice(status, error),
                last: match status {
                    Some(status) => format!("status {status}: {text}"),
                    None => text,
                },
            }),
        }
    }

    /// Writes an object, in parts if it is large.
    pub(super) async fn put_whole(&self, location: &Location, bytes: Bytes) -> object_store::Result<()> {
        let part_bytes = self.part_bytes;
        if bytes.len() <= part_bytes.saturating_mul(2) {
            return self.put(location, bytes.into()).await.map(drop);
        }
        // If a part fails, all parts are written again: an upload in parts cannot replace one of them.
        let request = async |_| {
            let mut upload = self.inner.put_multipart(location).await?;
            let parts: Vec<Bytes> = (0..bytes.len())
                .step_by(part_bytes)
                .map(|start| bytes.slice(start..bytes.len().min(start + part_bytes)))
                .collect();
            for together in parts.chunks(PARTS_AT_ONCE) {
                let parts = together.iter().map(|part| {
                    self.count(Operation::Put);
                    upload.put_part(part.clone().into())
                });
                let parts: Vec<_> = parts.collect();
                if let Err(error) = futures::future::try_join_all(parts).await {
                    // Parts of an upload that was not ended cost storage. If this fails, too, a rule of the bucket for
                    // incomplete uploads removes them.
                    let _ = upload.abort().await;
                    return Err(error);
                }
            }
            self.count(Operation::Put);
            upload.complete().await.map(drop)
        };
        self.tried(Operation::Put, location, request).await
    }

    /// Writes an object that must not exist.
    async fn create(&self, location: &Location, payload: PutPayload) -> object_store::Result<PutResult> {
        let request = async |attempt: u32| {
            let mode = PutMode::Create;
            let done = self.inner.put_opts(location, payload.clone(), mode.into()).await;
            let Err(error @ Error::AlreadyExists { .. }) = done else {
                return done;
            };
            let Some(found) = self.found(location).await? else {
                return Err(undecided());
            };
            // An attempt before may have succeeded although its response was lost. The first attempt has none before it: equal
            // bytes are of another process then.
            match attempt > 1 && found == Bytes::from(payload.clone()) {
                true => Ok(PutResult {
                    e_tag: None,
                    version: None,
                }),
                false => Err(error),
            }
        };
        self.tried(Operation::Put, location, request).await
    }

    /// The bytes of an object, by one request; `None` if there is no such object.
    async fn found(&self, location: &Location) -> object_store::Result<Option<Bytes>> {
        self.count(Operation::Get);
        match self.inner.get(location).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(error @ Error::NotFound { .. }) if is_bucket(&error) => Err(error),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes to write in place of a checkpoint, or of the file that names the last checkpoint.
    async fn of_checkpoint(&self, location: &Location, payload: &PutPayload) -> Option<Bytes> {
        let name = location.filename()?;
        if name == checkpoint::HINT {
            let text = Bytes::from(payload.clone());
            let log = location.as_ref().rsplit_once('/')?.0;
            let checkpoint = Location::from(format!("{log}/{}", checkpoint::named(&text)?));
            let bytes = self
                .get_opts(&checkpoint, GetOptions::default())
                .await
                .ok()?
                .bytes()
                .await
                .ok()?;
            return checkpoint::hint(&text, &bytes).map(Bytes::from);
        }
        if checkpoint::is_checkpoint(name) {
            let table = location.as_ref().rsplit_once("/_delta_log/")?.0;
            let listed = self
                .list_with_delimiter(Some(&Location::from(table)))
                .await
                .ok()?;
            let names: std::collections::BTreeSet<String> = listed
                .objects
                .iter()
                .filter_map(|object| object.location.filename().map(str::to_owned))
                .collect();
            return checkpoint::trimmed(payload.clone().into(), |name| names.contains(name)).map(Bytes::from);
        }
        None
    }
}

/// The error of a put that must not replace an object, if the service refuses the put although there is no such object.
fn undecided() -> Error {
    Error::Generic {
        store: "object store",
        source: "server returned status code: 409 Conflict: another process writes the object at this moment"
            .into(),
    }
}

/// Whether an error is the answer to the request, so that another attempt would give the same.
fn is_answer(error: &Error) -> bool {
    matches!(
        error,
        Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::InvalidPath { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
    ) || matches!(error, Error::NotFound { .. } if !is_bucket(error))
}

/// Whether an object store does not know the bucket. It then does not know any object either.
fn is_bucket(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
}

/// Whether another attempt can succeed.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Generic { .. } | Error::JoinError { .. } => match status(error) {
            Some(status) => status >= 500 || [408, 409, 425, 429].contains(&status),
            None => !error.to_string().contains("issing"),
        },
        _ => false,
    }
}

/// The HTTP status in the chain of an error.
fn status(error: &Error) -> Option<u16> {
    match error {
        Error::NotFound { .. } => return Some(404),
        Error::PermissionDenied { .. } => return Some(403),
        Error::Unauthenticated { .. } => return Some(401),
        _ => {}
    }
    let text = chain(error);
    let after = text.split_once("status code: ")?.1;
    after.get(..3)?.parse().ok()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text
}

/// What an error says, in one line of at most 300 bytes and without secrets.
fn short(error: &Error) -> String {
    let text = redacted(&chain(error));
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 300 {
        line.truncate(line.floor_char_boundary(300));
        line.push_str(" ...");
    }
    line
}

fn advice(status: Option<u16>, error: &Error) -> &'static str {
    match status {
        Some(401 | 403) => "check the credentials in the environment and their rights to this bucket",
        Some(404) if is_bucket(error) => {
            "check the name of the bucket, and create the bucket if it is missing"
        }
        Some(409) => {
            "other processes write the same object: run the command again; a commit exists completely or not at all"
        }
        Some(404) => "the object is gone: another process removed it; run the command again",
        Some(status) if status >= 500 || status == 429 => {
            "the service is overloaded or down: run the command again later; a commit exists completely or not at all"
        }
        Some(_) => "check region, endpoint and settings in the environment (docs/object-stores.md)",
        None => {
            "check the network, and the endpoint and credentials in the environment (docs/object-stores.md); a commit exists completely or not at all"
        }
    }
}

/// Between half of a pause and the whole, so that processes that failed together do not try again together.
fn with_jitter(pause: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    pause / 2 + (pause / 2).mul_f64(f64::from(nanos % 1000) / 1000.0)
}

impl fmt::Display for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Retrying {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let payload = match self.of_checkpoint(location, &payload).await {
            Some(bytes) => bytes.into(),
            None => payload,
        };
        if opts.mode == PutMode::Create {
            return self.create(location, payload).await;
        }
        let request = |_| self.inner.put_opts(location, payload.clone(), opts.clone());
        self.tried(Operation::Put, location, request).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let request = |_| self.inner.put_multipart_opts(location, opts.clone());
        self.tried(Operation::Put, location, request).await
    }

    /// Reads the whole answer, so that a response that breaks off is asked for again.
    async fn get_opts(&self, location: &Location, options: GetOptions) -> object_store::Result<GetResult> {
        let request = async |_| {
            let found = self.inner.get_opts(location, options.clone()).await?;
            let (mut meta, range, attributes) =
                (found.meta.clone(), found.range.clone(), found.attributes.clone());
            // `PrefixStore` gives the location with its prefix. DataFusion would then take the file for another one, and
            // read no row.
            meta.location = location.clone();
            let bytes = match options.head {
                true => Bytes::new(),
                false => found.bytes().await?,
            };
            Ok((bytes, meta, range, attributes))
        };
        let (bytes, meta, range, attributes) = self.tried(Operation::Get, location, request).await?;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(
        &self,
        location: &Location,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        let one = |range: Range<u64>| async move {
            let request = async |_| self.inner.get_range(location, range.clone()).await;
            self.tried(Operation::Get, location, request).await
        };
        // Boxed, because the compiler cannot prove that the closure holds for any lifetime of its future.
        let all: Vec<futures::future::BoxFuture<'_, _>> =
            ranges.iter().map(|range| one(range.clone()).boxed()).collect();
        stream::iter(all).buffered(AT_ONCE).try_collect().await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Location>>,
    ) -> BoxStream<'static, object_store::Result<Location>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let request = async |_| this.inner.delete(&location).await;
                    this.tried(Operation::Delete, &location, request).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listed(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listed(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> object_store::Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        self.tried(Operation::List, &at, |_| self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(
        &self,
        from: &Location,
        to: &Location,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        let request = |_| self.inner.copy_opts(from, to, options.clone());
        self.tried(Operation::Put, to, request).await
    }
}

impl Retrying {
    /// Lists everything before it gives the first object, so that a listing that breaks off is asked for again.
    fn listed(
        &self,
        prefix: Option<&Location>,
        offset: Option<&Location>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (this, prefix, offset) = (self.clone(), prefix.cloned(), offset.cloned());
        let all = async move {
            let at = prefix.clone().unwrap_or_default();
            let request = async |_| {
                let found = match &offset {
                    Some(offset) => this.inner.list_with_offset(prefix.as_ref(), offset),
                    None => this.inner.list(prefix.as_ref()),
                };
                found.try_collect::<Vec<ObjectMeta>>().await
            };
            let mut found = this.tried(Operation::List, &at, request).await?;
            found.sort_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }
}
