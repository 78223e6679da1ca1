//! Counts requests to object stores.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of requests to an object store. Each attempt counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Reads of objects or of parts of objects, and looks for their size.
    pub get: u64,
    /// Listings. A listing of more than 1,000 objects takes one request for each 1,000, and counts once here.
    pub list: u64,
    /// Writes, each part of a multipart upload included.
    pub put: u64,
    /// Removals.
    pub delete: u64,
    /// Attempts that failed and were repeated.
    pub repeated: u64,
}

impl RequestCounts {
    /// The number of all requests.
    pub fn all(&self) -> u64 {
        self.get + self.list + self.put + self.delete
    }
}

impl fmt::Display for RequestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests: {} get, {} list, {} put, {} delete; {} repeated",
            self.all(),
            self.get,
            self.list,
            self.put,
            self.delete,
            self.repeated
        )
    }
}

/// The requests of all stores and inputs of this process until now.
pub fn requests_of_process() -> RequestCounts {
    PROCESS.read()
}

static PROCESS: RequestCounters = RequestCounters {
    get: AtomicU64::new(0),
    list: AtomicU64::new(0),
    put: AtomicU64::new(0),
    delete: AtomicU64::new(0),
    repeated: AtomicU64::new(0),
};

/// The counters of a store.
#[derive(Debug, Default)]
pub(super) struct RequestCounters {
    get: AtomicU64,
    list: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
    repeated: AtomicU64,
}

impl RequestCounters {
    pub(super) fn read(&self) -> RequestCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            get: of(&self.get),
            list: of(&self.list),
            put: of(&self.put),
            delete: of(&self.delete),
            repeated: of(&self.repeated),
        }
    }

    /// Counts a request.
    pub(super) fn add(&self, operation: Operation) {
        for counters in [self, &PROCESS] {
            let counter = match operation {
                Operation::Get => &counters.get,
                Operation::List => &counters.list,
                Operation::Put => &counters.put,
                Operation::Delete => &counters.delete,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an attempt that is repeated.
    pub(super) fn add_repeated(&self) {
        for counters in [self, &PROCESS] {
            counters.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    List,
    Put,
    Delete,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Get => "GET",
            Operation::List => "LIST",
            Operation::Put => "PUT",
            Operation::Delete => "DELETE",
        }
    }
}
