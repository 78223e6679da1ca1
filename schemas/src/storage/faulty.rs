//! An object store in memory that is slow and fails as the services do. Tests and measurements use it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use twox_hash::XxHash3_64;

/// The faults of a [`FaultyMemory`]. A chance is between 0 and 1. The default has no faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Every request takes at least this long.
    pub latency: Duration,
    /// Decides which requests fail.
    pub seed: u64,
    /// The chance that a request is answered with status 503 and does nothing.
    pub unavailable: f64,
    /// The chance that a write succeeds and its response is lost.
    pub lost: f64,
    /// The chance that a put that must not replace an object is refused as if the object existed, and does nothing. S3 answers
    /// so, with status 409, while another process writes the object.
    pub conflict: f64,
    /// The chance that a listing breaks off after its first half.
    pub partial: f64,
    /// After this number of writes and removals every request fails, as if the network were cut.
    pub cut_after: Option<u64>,
}

/// An object store in memory with [`Faults`].
#[derive(Debug)]
pub struct FaultyMemory {
    inner: InMemory,
    faults: Mutex<Faults>,
    requests: AtomicU64,
    writes: AtomicU64,
    uploads: AtomicU64,
    rounds: Mutex<Rounds>,
}

/// How many requests follow one another.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    /// The number of [`FaultyMemory::set`].
    period: u64,
    /// The longest chain of requests that have ended.
    ended: u64,
}

impl FaultyMemory {
    /// An empty object store.
    pub fn new(faults: Faults) -> Arc<FaultyMemory> {
        Arc::new(FaultyMemory {
            inner: InMemory::new(),
            faults: Mutex::new(faults),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            rounds: Mutex::default(),
        })
    }

    /// A copy of the objects, with other faults.
    pub fn fork(&self, faults: Faults) -> Arc<FaultyMemory> {
        Arc::new(FaultyMemory {
            inner: self.inner.fork(),
            faults: Mutex::new(faults),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            rounds: Mutex::default(),
        })
    }

    /// Removes all objects whose key contains a text, without a request.
    pub fn remove_all(&self, text: &str) {
        let all = async {
            let found: Vec<ObjectMeta> = self.inner.list(None).try_collect().await?;
            for object in found
                .iter()
                .filter(|object| object.location.as_ref().contains(text))
            {
                object_store::ObjectStoreExt::delete(&self.inner, &object.location).await?;
            }
            Ok::<_, Error>(())
        };
        super::run(all)
            .expect("the runtime starts")
            .expect("memory does not fail");
    }

    /// Sets the faults of later requests, and counts writes and rounds from 0 again.
    pub fn set(&self, faults: Faults) {
        *self.faults() = faults;
        self.writes.store(0, Ordering::Relaxed);
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        *rounds = Rounds {
            period: rounds.period + 1,
            ended: 0,
        };
    }

    /// The length of the longest chain of requests since [`FaultyMemory::set`], in which each request began after the request
    /// before it had ended. With a latency that is longer than the program takes between two requests that it makes together, this
    /// is the number of requests that follow one another.
    pub fn rounds(&self) -> u64 {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// The number of uploads in parts that were begun.
    pub fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::Relaxed)
    }

    /// The number of writes and removals that were begun since [`FaultyMemory::set`].
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number between 0 and 1 that the seed and the number of the request decide.
    fn chance(&self, number: u64, salt: u64) -> f64 {
        let mut text = [0; 24];
        text[..8].copy_from_slice(&number.to_le_bytes());
        text[8..16].copy_from_slice(&salt.to_le_bytes());
        text[16..].copy_from_slice(&self.faults().seed.to_le_bytes());
        (XxHash3_64::oneshot(&text) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Waits as long as a request takes. Returns the number of the request, or its failure.
    async fn begin(&self, writes: bool) -> object_store::Result<u64> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let faults = *self.faults();
        if writes {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        let began = *self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if !faults.latency.is_zero() {
            tokio::time::sleep(faults.latency).await;
        }
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        if rounds.period == began.period {
            rounds.ended = rounds.ended.max(began.ended + 1);
        }
        drop(rounds);
        if faults.cut_after.is_some_and(|most| self.writes() > most) {
            return Err(failure("connection refused"));
        }
        if self.chance(number, 1) < faults.unavailable {
            return Err(failure(
                "server returned status code: 503 Service Unavailable: SlowDown",
            ));
        }
        Ok(number)
    }

    /// Loses the response of a request that succeeded.
    fn end<T>(&self, number: u64, done: object_store::Result<T>) -> object_store::Result<T> {
        let lost = self.faults().lost;
        match done {
            Ok(_) if self.chance(number, 2) < lost => Err(failure("connection closed before the response")),
            done => done,
        }
    }
}

fn failure(text: &'static str) -> Error {
    Error::Generic {
        store: "memory",
        source: text.into(),
    }
}

impl fmt::Display for FaultyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty memory")
    }
}

/// An upload in parts whose requests have the faults of its object store.
#[derive(Debug)]
struct FaultyUpload {
    memory: Arc<FaultyMemory>,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait::async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (memory, part) = (self.memory.clone(), self.upload.put_part(data));
        Box::pin(async move {
            let number = memory.begin(true).await?;
            let done = part.await;
            memory.end(number, done)
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let number = self.memory.begin(true).await?;
        let done = self.upload.complete().await;
        self.memory.end(number, done)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let number = self.memory.begin(true).await?;
        let done = self.upload.abort().await;
        self.memory.end(number, done)
    }
}

/// A shared [`FaultyMemory`] as an object store, which listings outlive.
#[derive(Clone, Debug)]
pub struct SharedFaultyMemory(pub Arc<FaultyMemory>);

impl fmt::Display for SharedFaultyMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl SharedFaultyMemory {
    fn listed(
        &self,
        objects: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let this = self.0.clone();
        let all = async move {
            let number = this.begin(false).await?;
            let found: Vec<ObjectMeta> = objects.try_collect().await?;
            let partial = this.faults().partial;
            let breaks = this.chance(number, 3) < partial;
            let kept = if breaks { found.len() / 2 } else { found.len() };
            let found = found.into_iter().take(kept).map(Ok);
            let end = breaks.then(|| Err(failure("connection closed before the end of the listing")));
            Ok::<_, Error>(stream::iter(found.chain(end).collect::<Vec<_>>()))
        };
        stream::once(all).try_flatten().boxed()
    }
}

#[async_trait::async_trait]
impl ObjectStore for SharedFaultyMemory {
    async fn put_opts(
        &self,
        location: &Location,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let number = self.0.begin(true).await?;
        let conflict = self.0.faults().conflict;
        if opts.mode == PutMode::Create && self.0.chance(number, 4) < conflict {
            return Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "server returned status code: 409 Conflict: ConditionalRequestConflict".into(),
            });
        }
        let done = self.0.inner.put_opts(location, payload, opts).await;
        self.0.end(number, done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let number = self.0.begin(true).await?;
        let done = self.0.inner.put_multipart_opts(location, opts).await;
        let upload = self.0.end(number, done)?;
        self.0.uploads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FaultyUpload {
            memory: self.0.clone(),
            upload,
        }))
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.begin(false).await?;
        self.0.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Location,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.0.begin(false).await?;
        self.0.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Location>>,
    ) -> BoxStream<'static, object_store::Result<Location>> {
        let this = self.0.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let location = location?;
                    let number = this.begin(true).await?;
                    let done = object_store::ObjectStoreExt::delete(&this.inner, &location).await;
                    this.end(number, done)?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listed(self.0.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Location>,
        offset: &Location,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listed(self.0.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> object_store::Result<ListResult> {
        let number = self.0.begin(false).await?;
        let partial = self.0.faults().partial;
        if self.0.chance(number, 3) < partial {
            return Err(failure("connection closed before the end of the listing"));
        }
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Location,
        to: &Location,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        let number = self.0.begin(true).await?;
        let done = self.0.inner.copy_opts(from, to, options).await;
        self.0.end(number, done)
    }
}
