//! Segment-level labels for weakly labelled video, and a trained parser, kept correct as inputs change.
//!
//! A clip often has only a weak label: "speech, dog", without the modality and without the time. `vaplan` compares
//! every segment with every class, keeps the classes of the weak label that score above a threshold, and stores
//! scores and labels as a *store version* in Arrow/Parquet tables. Later changes of thresholds, weak labels, prompts,
//! features, user labels or predictions cost only as much as the data that they touch, and give the same tables as a
//! fresh run on the final inputs.
//!
//! | task | items |
//! |---|---|
//! | label feature shards into a store | [`LabelRequest`] and [`label()`] |
//! | change a store | [`Changes`], [`RelabelRequest`] and [`relabel()`] |
//! | see what a change would cost | [`estimate`] |
//! | change a store many times, with the graph in memory | [`Session`] |
//! | read the tables of a version | [`Store`], [`Snapshot`], and the modules [`tables`] and [`rows`] |
//! | show progress, or stop a run | [`Listener`], [`Progress`], [`CancelToken`] |
//! | try these functions without data | [`sample()`] |
//!
//! # Example
//!
//! ```
//! use vaplan::{Changes, Listener, Modality, Session, Store, tables};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! // The built-in sample; a real run names its own files with `LabelRequest::new`.
//! let request = vaplan::sample(folder.path())?;
//! let summary = vaplan::label(&request, &Listener::silent())?;
//! assert_eq!(summary.version.version, 1);
//!
//! // A session keeps the version in memory. Each change is one durable store version.
//! let mut session = Session::open(&request.store, 1, Listener::silent())?;
//! let mut changes = Changes::default();
//! changes.settings.visual_threshold = Some(1.05);
//! let changed = session.apply(changes, "raise the visual threshold to 1.05")?;
//! assert!(changed.unset > 0 && changed.set == 0);
//! session.close()?;
//!
//! // Every version can be read, by this library and by every reader of Delta tables.
//! let store = Store::open(&request.store)?;
//! let labels = store.at_version(None)?.read::<tables::Labels>()?;
//! assert!(labels.iter().any(|track| track.modality == Modality::Visual));
//! assert_eq!(store.versions()?.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! The modules that this page does not show are internal: the program, the tests and the benches of this workspace
//! use them, and they change without notice. `docs/architecture.md` describes them.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion"))]

#[doc(hidden)]
pub mod audit;
#[doc(hidden)]
pub mod calibrate;
mod chain;
#[doc(hidden)]
pub mod choice;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod denoise;
#[cfg(feature = "encode")]
#[doc(hidden)]
pub mod encode;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod eval;
#[doc(hidden)]
pub mod events;
#[doc(hidden)]
pub mod export;
#[doc(hidden)]
pub mod histogram;
#[doc(hidden)]
pub mod ingest;
#[doc(hidden)]
pub mod label;
mod loopback;
#[doc(hidden)]
pub mod matrices;
#[cfg(all(feature = "encode", feature = "train"))]
#[doc(hidden)]
pub mod parse;
#[cfg(feature = "train")]
#[doc(hidden)]
pub mod parser;
#[cfg(feature = "query")]
#[doc(hidden)]
pub mod query;
#[doc(hidden)]
pub mod relabel;
#[doc(hidden)]
pub mod report;
#[cfg(feature = "train")]
#[doc(hidden)]
pub mod run;
mod sample;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod show;
#[doc(hidden)]
pub mod synth;
#[doc(hidden)]
pub mod watch;
#[doc(hidden)]
pub mod world;

pub use vaplan_dataflows::CandidateRule;
pub use vaplan_schemas::store::{Snapshot, Store};
pub use vaplan_schemas::{Modality, StoreError, StoreVersion, rows, tables};

pub use self::engine::change::{RelabelRequest, RelabelSummary};
pub use self::engine::session::Session;
pub use self::engine::{CancelToken, LabelCounts, LabelSummary, Listener, Progress, SetLabels};
pub use self::error::LabelError;
pub use self::label::{LabelRequest, run as label};
pub use self::relabel::estimate::{Estimate, estimate};
pub use self::relabel::run as relabel;
pub use self::sample::sample;
pub use self::world::changes::{Changes, DenoiseRequest, WeakEdit};
pub use self::world::settings::{ClassThreshold, RuleName, SettingsRequest, ThresholdsFile};
