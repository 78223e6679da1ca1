//! The right to write a store in an object store: a lease that ends if its process does not renew it.
//!
//! ```text
//! _vaplan/writer/00000000000000000007    the object with the highest number names the process that holds the lease
//!   put 8, remove 7                      the process renews its lease, or another process takes it over
//!   put an empty 8                       the process gives its lease back
//! ```
//!
//! Every step creates the next number, and only one process can create a number. A process that wants the lease takes it
//! if the holder gave it back, or if the number did not change for the duration that the holder named. It measures this
//! duration by its own clock, so clocks of different machines need not agree.
//!
//! The lease spares work: two processes that write at the same time would both do the work, and one would lose. It does
//! not decide who commits. The conditional put of the entry of `versions` decides that.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::open::registered;
use super::sizes::whole_number;
use super::{OWN, ObjectStorage, Storage, StoreUrl, StoredFile};
use crate::error::StoreError;

/// The environment variable with the duration of a lease in seconds.
pub const LEASE_SECONDS_VARIABLE: &str = "VAPLAN_LEASE_SECONDS";
const SECONDS: u64 = 30;
/// A process that waits looks at the lease this often.
const LOOK: Duration = Duration::from_millis(500);

/// The text of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseText {
    /// The process, for people.
    holder: String,
    /// The boot and the process namespace of `process`.
    machine: String,
    process: u32,
    /// The lease ends if it is not renewed for this number of milliseconds.
    milliseconds: u64,
}

impl LeaseText {
    /// The text of the lease of this process.
    ///
    /// # Errors
    /// Returns [`StoreError::Variable`] if [`LEASE_SECONDS_VARIABLE`] is no number from 1.
    fn own(url: &StoreUrl) -> Result<LeaseText, StoreError> {
        let host = read("/proc/sys/kernel/hostname");
        let asked = whole_number(LEASE_SECONDS_VARIABLE, "a number of seconds, at least 1")?;
        let asked = asked.map(Duration::from_secs);
        let usual = registered(url).map_or(Duration::from_secs(SECONDS), |place| place.lease);
        Ok(LeaseText {
            holder: format!("process {} on {host}", std::process::id()),
            machine: machine(),
            process: std::process::id(),
            milliseconds: u64::try_from(asked.unwrap_or(usual).as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Whether the process that holds the lease is known to have ended.
    fn has_ended(&self) -> bool {
        let here = machine();
        !here.is_empty() && here == self.machine && !PathBuf::from(format!("/proc/{}", self.process)).exists()
    }

    fn bytes(&self) -> bytes::Bytes {
        serde_json::to_vec(self)
            .expect("texts and numbers are JSON")
            .into()
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "this host".to_owned(), |text| text.trim().to_owned())
}

/// What tells this boot of this machine, and its numbers of processes, from all others; empty if the system does not say.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

fn folder() -> String {
    format!("{OWN}/writer")
}

fn key(number: u64) -> String {
    format!("{}/{number:020}", folder())
}

/// The objects of the lease at one time.
#[derive(Debug)]
pub(crate) struct LeaseLook {
    listed: Vec<StoredFile>,
    began: Instant,
}

impl LeaseLook {
    pub(super) fn new(storage: &ObjectStorage) -> Result<LeaseLook, StoreError> {
        let began = Instant::now();
        let listed = storage.list(&folder(), None)?;
        Ok(LeaseLook { listed, began })
    }

    /// Whether the last process that held the lease gave it back, by leaving an empty object.
    pub(crate) fn is_given_back(&self) -> bool {
        self.listed.last().is_none_or(|file| file.bytes == 0)
    }
}

/// A lease that a thread renews until the value is dropped.
#[derive(Debug)]
pub(crate) struct ObjectLease {
    free_since_look: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    storage: ObjectStorage,
    text: LeaseText,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    number: u64,
    renewed: Instant,
    lost: bool,
    stopping: bool,
}

impl ObjectLease {
    /// Takes the lease. If another process holds it, this calls `on_wait` once and waits. `look` is used in place of the first
    /// list.
    pub(super) fn take(
        storage: &ObjectStorage,
        mut look: Option<LeaseLook>,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<ObjectLease, StoreError> {
        let text = LeaseText::own(storage.url())?;
        let mut seen: Option<(u64, Option<LeaseText>, Instant)> = None;
        let mut told = false;
        loop {
            let is_first = look.is_some();
            let now = match look.take() {
                Some(look) => look,
                None => LeaseLook::new(storage)?,
            };
            let listed = now.listed.iter();
            let numbers: Vec<u64> = listed.filter_map(|file| file.name.parse().ok()).collect();
            let last = numbers.iter().copied().max().unwrap_or(0);
            let given_back = now.is_given_back();
            if !given_back && seen.as_ref().is_none_or(|(number, ..)| *number != last) {
                let found = match last {
                    0 => None,
                    _ => storage.get(&key(last))?,
                };
                let found = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                seen = Some((last, found, Instant::now()));
            }
            let free = given_back
                || match &seen {
                    Some((_, Some(holder), since)) => {
                        let duration = Duration::from_millis(holder.milliseconds);
                        holder.has_ended() || since.elapsed() > duration
                    }
                    _ => true,
                };
            if free && storage.put_new(&key(last + 1), text.bytes())? {
                // An object that stays is removed by the next process.
                storage.begin_delete(numbers.into_iter().map(key).collect());
                let mut lease = ObjectLease::start(storage.clone(), text, last + 1, now.began)?;
                lease.free_since_look = is_first && given_back;
                return Ok(lease);
            }
            if !free {
                if let (false, Some((_, Some(holder), _))) = (told, &seen) {
                    told = true;
                    on_wait(&holder.holder);
                }
                std::thread::sleep(LOOK.min(Duration::from_millis(text.milliseconds / 10)));
            }
        }
    }

    fn start(
        storage: ObjectStorage,
        text: LeaseText,
        number: u64,
        renewed: Instant,
    ) -> Result<ObjectLease, StoreError> {
        let shared = Arc::new(Shared {
            storage,
            text,
            state: Mutex::new(State {
                number,
                renewed,
                lost: false,
                stopping: false,
            }),
            wake: Condvar::new(),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("vaplan-lease".to_owned());
        let thread = thread
            .spawn(move || own.renew())
            .map_err(|source| StoreError::Io {
                action: "start a thread for the lease of",
                path: shared.storage.root(),
                source,
            })?;
        Ok(ObjectLease {
            free_since_look: false,
            shared,
            thread: Some(thread),
        })
    }

    /// Whether no other process had the lease since the look that [`ObjectLease::take`] got: the lease was given back then, and
    /// its next number did not exist.
    pub(super) fn is_free_since_look(&self) -> bool {
        self.free_since_look
    }

    /// Returns an error if the lease is lost.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let state = self.shared.state();
        match state.lost || state.renewed.elapsed() > self.shared.duration() {
            true => Err(StoreError::LeaseLost {
                path: self.shared.storage.root(),
            }),
            false => Ok(()),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn duration(&self) -> Duration {
        Duration::from_millis(self.text.milliseconds)
    }

    fn renew(&self) {
        let mut state = self.state();
        loop {
            let wait = self.duration() / 3;
            state = self
                .wake
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if state.stopping || state.lost {
                return;
            }
            if state.renewed.elapsed() < wait {
                continue;
            }
            let (number, began) = (state.number, Instant::now());
            drop(state);
            let renewed = self.storage.put_new(&key(number + 1), self.text.bytes());
            if matches!(renewed, Ok(true)) {
                self.storage.begin_delete(vec![key(number)]);
            }
            state = self.state();
            match renewed {
                Ok(true) => (state.number, state.renewed) = (number + 1, began),
                Ok(false) => state.lost = true,
                Err(error) => tracing::warn!(%error, "the lease was not renewed"),
            }
        }
    }
}

impl Drop for ObjectLease {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if self.check().is_err() {
            return;
        }
        let number = self.shared.state().number;
        // If this fails, the lease ends by itself.
        let _ = self.shared.storage.put_new(&key(number + 1), bytes::Bytes::new());
    }
}
