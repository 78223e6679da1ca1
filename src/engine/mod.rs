//! From inputs and changes to committed store versions.
//!
//! ```text
//! shards ── read ── similarity ── stage ─┐                 score
//!                                        ├─ labelling ─▶ results ── commit ─▶ a version of all tables       flow
//! the version before, user labels ───────┘
//!
//! a change ── part ── labelling ─▶ changed rows ── patch ─▶ a version of the tables that change
//!    └─ everything ── whole, as above
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | what a run reads and labels |
//! | [`score`], `read` | shards to scored candidates |
//! | [`stage`] | scores of finished shards, kept until the commit |
//! | [`flow`] | the dataflow of a whole run |
//! | [`workers`], [`cluster`] | timely's workers: threads of one process, or of several |
//! | [`rows`], [`commit`] | results to rows, and rows to one store version |
//! | [`change`] | one change to one store version |
//! | [`features`], [`part`], [`patch`] | the part of a store that a change touches, before and after |
//! | [`rebase`] | inputs of a store moved to another folder |
//! | [`whole`] | a change that touches everything |
//! | [`session`] | a store version in memory, changed from one version to the next |
//! | [`resident`], `mirror` | the graph of a session, and the rows that the graph was told |
//! | `progress` | progress and cancelling |

pub mod change;
pub mod cluster;
pub mod commit;
pub mod features;
pub mod flow;
mod mirror;
pub mod part;
pub mod patch;
pub mod plan;
mod progress;
mod read;
pub mod rebase;
pub mod resident;
pub mod rows;
pub mod score;
pub mod session;
pub mod stage;
pub mod whole;
pub mod workers;

use vaplan_schemas::rows::{RejectRow, Severity, VersionRow};

pub use progress::{CancelToken, Listener, Progress};

/// What a run did.
#[derive(Clone, Debug)]
pub struct LabelSummary {
    /// The version that holds the labels.
    pub version: VersionRow,
    /// None: the store held the answer to this very question already.
    pub done: Option<LabelCounts>,
}

/// Counts of a run that did something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts {
    /// Videos of the splits.
    pub videos: u64,
    /// Videos and modalities labelled.
    pub records: u64,
    /// Cells set in audio.
    pub audio: u64,
    /// Cells set in visual.
    pub visual: u64,
    /// Cells set in both.
    pub audio_visual: u64,
    /// Cells, set or not.
    pub cells: u64,
    /// Cells that differ from the version before.
    pub changes: u64,
    /// Rows left out.
    pub rejects: u64,
    /// Oddities that cost nothing.
    pub notes: u64,
    /// Rows of rejects and notes, for showing the first of them.
    pub rejected: Vec<RejectRow>,
}

impl LabelCounts {
    pub(crate) fn count_rejects(&mut self, rows: Vec<RejectRow>) {
        self.rejects = rows.iter().filter(|row| row.severity == Severity::Reject).count() as u64;
        self.notes = rows.len() as u64 - self.rejects;
        self.rejected = rows;
    }
}
