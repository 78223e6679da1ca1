//! What the handlers of all requests share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vaplan_schemas::store::{Snapshot, Store};

use super::audit::{AuditCache, SavedVerdicts};
use super::figures::ReviewFigures;
use super::index::ReviewIndex;
use super::index::refresh::HeldIndex;
use super::media::{MediaIndex, MediaKind};
use super::overview::{Overview, OverviewCache};
use super::save::{SaveRequest, SavedVersion};
use super::writer::{ReviewWriter, WriterListener};
use super::{ServeError, ServeRequest};
use crate::chain::chain;
use crate::error::LabelError;

/// Time between two looks for versions of other programs, while a page is open.
const LOOK: Duration = Duration::from_secs(1);
/// A page asks at least once in this time, so that a longer silence means that no page is open.
const SILENCE: Duration = Duration::from_secs(30);

/// What the handlers of all requests share.
pub(super) struct ReviewState {
    pub(super) store: Store,
    pub(super) request: ServeRequest,
    pub(super) media: Option<MediaIndex>,
    pub(super) figures: ReviewFigures,
    /// `None` in a read-only server.
    writer: RwLock<Option<ReviewWriter>>,
    index: watch::Sender<IndexState>,
    overview: OverviewCache,
    pub(super) audit: AuditCache,
    latest: AtomicU64,
    /// Versions that this server saved and that the index does not have yet, with the videos whose labels they changed.
    saves: Mutex<BTreeMap<u64, BTreeSet<Arc<str>>>>,
    wake: Wake,
    refresher: Mutex<Option<JoinHandle<()>>>,
}

/// The index, or why there is none.
#[derive(Clone, Debug, Default)]
pub(super) enum IndexState {
    /// The first index is being made.
    #[default]
    Loading,
    /// The index of the latest version that was read.
    Ready(Arc<ReviewIndex>),
    /// The tables cannot be read.
    Failed(Arc<str>),
}

/// Wakes the thread that keeps the index up to date.
#[derive(Debug)]
struct Wake {
    asked: Mutex<WakeState>,
    signal: Condvar,
}

#[derive(Debug)]
struct WakeState {
    now: bool,
    ended: bool,
    last_request: Instant,
}

/// Tells the state what the writer saved.
struct StateListener(Arc<ReviewState>);

impl WriterListener for StateListener {
    fn saved(&self, request: &SaveRequest, saved: &SavedVersion) {
        self.0.figures.save(saved);
        if saved.saved {
            self.0.saves().insert(saved.version, request.videos());
        }
        self.0.moved(saved.version);
    }

    fn judged(&self, saved: &SavedVerdicts) {
        self.0.figures.verdicts.fetch_add(1, Ordering::Relaxed);
        // No entry of the index changes.
        if saved.version > self.0.latest() {
            self.0.saves().insert(saved.version, BTreeSet::new());
        }
        self.0.moved(saved.version);
    }
}

impl ReviewState {
    /// Starts the thread that makes the index and, unless the server is read-only, the thread that saves.
    pub(super) fn start(
        request: &ServeRequest,
        store: Store,
        latest: u64,
        media: Option<MediaIndex>,
    ) -> Result<Arc<ReviewState>, ServeError> {
        let state = Arc::new(ReviewState {
            store,
            request: request.clone(),
            media,
            figures: ReviewFigures::default(),
            writer: RwLock::default(),
            index: watch::Sender::default(),
            overview: OverviewCache::default(),
            audit: AuditCache::default(),
            latest: AtomicU64::new(latest),
            saves: Mutex::default(),
            wake: Wake {
                asked: Mutex::new(WakeState {
                    now: true,
                    ended: false,
                    last_request: Instant::now(),
                }),
                signal: Condvar::new(),
            },
            refresher: Mutex::default(),
        });
        let own = state.clone();
        let refresher = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || own.keep_index())
            .map_err(|error| ServeError::Start(error.to_string()))?;
        *state.refresher.lock().unwrap_or_else(PoisonError::into_inner) = Some(refresher);
        if !request.read_only {
            let writer = ReviewWriter::start(request, state.store.clone(), StateListener(state.clone()))?;
            *state.writer.write().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        }
        Ok(state)
    }

    /// Completes the saves that wait, and ends the threads.
    pub(super) fn end(&self) {
        let writer = self.writer.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.end();
        }
        self.wake
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.wake.signal.notify_all();
        let refresher = self
            .refresher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if refresher.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the index ended by a panic");
        }
    }

    /// Calls `with` with the thread that saves; `None` in a read-only server.
    pub(super) fn with_writer<R>(&self, with: impl FnOnce(&ReviewWriter) -> R) -> Option<R> {
        let writer = self.writer.read().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map(with)
    }

    /// Records that a request came, so that the index follows the store.
    pub(super) fn asked(&self) {
        self.figures.requests.fetch_add(1, Ordering::Relaxed);
        let mut asked = self.wake.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = asked.last_request.elapsed() > SILENCE;
        asked.last_request = Instant::now();
        if slept {
            asked.now = true;
            self.wake.signal.notify_all();
        }
    }

    /// The latest store version that the server knows.
    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// Opens the latest version.
    pub(super) fn snapshot(&self) -> Result<Snapshot, LabelError> {
        let snapshot = self.store.at_version(None)?;
        self.moved(snapshot.version().version);
        Ok(snapshot)
    }

    /// Records that the store has this version, and has the index follow.
    fn moved(&self, version: u64) {
        if self.latest.fetch_max(version, Ordering::Relaxed) < version {
            self.wake.asked.lock().unwrap_or_else(PoisonError::into_inner).now = true;
            self.wake.signal.notify_all();
        }
    }

    /// The index as it is now.
    pub(super) fn index(&self) -> IndexState {
        self.index.borrow().clone()
    }

    /// Changes of the index.
    pub(super) fn watch_index(&self) -> watch::Receiver<IndexState> {
        self.index.subscribe()
    }

    /// The overview of the version of an index; see [`OverviewCache::get`].
    pub(super) fn overview(&self, index: &Arc<ReviewIndex>) -> Result<Arc<Overview>, LabelError> {
        self.overview.get(&self.store, index)
    }

    /// The kind of the media file of a video.
    pub(super) fn media_kind(&self, name: &str) -> Option<MediaKind> {
        let found = self.media.as_ref()?.find(name, |key| self.is_only(key));
        found.map(|(kind, _)| *kind)
    }

    /// Whether only one video begins with this key.
    pub(super) fn is_only(&self, key: &str) -> bool {
        match self.index() {
            IndexState::Ready(index) => index.starting(key).take(2).count() == 1,
            IndexState::Loading | IndexState::Failed(_) => false,
        }
    }

    fn saves(&self) -> MutexGuard<'_, BTreeMap<u64, BTreeSet<Arc<str>>>> {
        self.saves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The videos that the versions after `before`, up to `now`, changed. `None` if another program made one of them.
    fn saved_since(&self, before: u64, now: u64) -> Option<BTreeSet<Arc<str>>> {
        let mut saves = self.saves();
        let later = saves.split_off(&(now + 1));
        let mut since = std::mem::replace(&mut *saves, later).split_off(&(before + 1));
        let all = since.len() as u64 == now - before;
        all.then(|| since.values_mut().flat_map(std::mem::take).collect())
    }

    fn keep_index(&self) {
        let mut held: Option<HeldIndex> = None;
        while self.wait() {
            let made = self.snapshot().and_then(|snapshot| {
                let version = snapshot.version().version;
                match held.take() {
                    Some(held) if held.index.version == version => Ok(held),
                    Some(held) => match self.saved_since(held.index.version, version) {
                        Some(changed) => held.advance_by(&snapshot, changed),
                        None => held.advance(&snapshot),
                    },
                    None => HeldIndex::read(&snapshot),
                }
            });
            match made {
                Ok(made) => {
                    let before = held.insert(made).index.clone();
                    self.index.send_if_modified(|state| {
                        let known =
                            matches!(state, IndexState::Ready(index) if index.version == before.version);
                        *state = IndexState::Ready(before);
                        !known
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the list of videos cannot be made");
                    self.index.send_replace(IndexState::Failed(chain(&error).into()));
                }
            }
        }
    }

    /// Waits until the index must be looked at again. Returns `false` if the server ends.
    fn wait(&self) -> bool {
        let mut asked = self.wake.asked.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if asked.ended {
                return false;
            }
            if std::mem::take(&mut asked.now) {
                return true;
            }
            let idle = asked.last_request.elapsed() > SILENCE;
            let waited = match idle {
                true => (self.wake.signal.wait(asked)).map(|asked| (asked, false)),
                false => (self.wake.signal.wait_timeout(asked, LOOK))
                    .map(|(asked, time)| (asked, time.timed_out()))
                    .map_err(|error| std::sync::PoisonError::new(error.into_inner().0)),
            };
            let timed_out;
            (asked, timed_out) = waited.unwrap_or_else(|error| (error.into_inner(), false));
            if timed_out && !asked.ended {
                return true;
            }
        }
    }
}
