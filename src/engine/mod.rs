//! The engine turns inputs and changes into committed store versions.
//!
//! ```text
//! a whole run (flow):
//! shards ── read ── similarity ── stage ═ scores on disk, by group of videos
//! pass after pass: scores of the pass ──────────────────────┐
//!                  its rows in the version before (before) ─┴─ labelling ─▶ outcome ── commit ─ rows of the pass
//! after the last pass: a version of all tables
//!
//! a change of a store (change):
//! a part of the store ── part ── labelling ─▶ changed rows ── patch ─┬─▶ a version of the tables that change
//! tracks of all videos ── tracks ─▶ rows of one bucket after the other ─┘
//! every score ── whole ── a whole run, as above
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`plan`] | the inputs of a labelling run |
//! | [`score`], `read` | read shards and score them into candidates |
//! | [`stage`], `sections` | the scores of finished shards, kept on disk until the commit |
//! | [`passes`] | the ranges of buckets that are labelled and written together |
//! | [`before`], `spill` | the labels, user labels and predictions of the version before, by bucket |
//! | [`flow`] | the dataflows of a whole run, one per pass |
//! | `group` | the processes that label together, as the process that commits sees them |
//! | [`share`] | the buckets that one process labels and writes |
//! | [`workers`], [`cluster`] | timely's workers: threads of one process, or of several processes |
//! | [`rows`], [`commit`] | turn the outcome into table rows, and write the rows as one store version |
//! | [`change`] | turns one change into one store version |
//! | [`features`], [`part`], [`patch`] | read, label and write only the rows that a change can touch |
//! | `tracks` | labels tracks of all videos anew from the tables, bucket by bucket |
//! | `lost` | refuses a commit that would unset the labels of most videos |
//! | [`rebase`] | moves the inputs of a store to another folder |
//! | [`whole`] | a change that touches every score |
//! | [`session`] | a store version that stays in memory between changes |
//! | [`resident`], `held_rows` | the graph of a session, and a copy of the rows that were fed to the graph |
//! | `progress` | progress reports and cancelling |

pub mod before;
pub mod change;
pub mod cluster;
pub mod commit;
pub mod features;
pub mod flow;
pub(crate) mod group;
mod held_rows;
pub(crate) mod lost;
pub mod part;
pub mod passes;
pub mod patch;
pub mod plan;
mod progress;
mod read;
pub mod rebase;
mod remarks;
pub mod resident;
pub mod rows;
pub mod score;
mod sections;
pub mod session;
pub mod share;
mod spill;
pub mod stage;
pub(crate) mod tracks;
pub mod unknown;
pub mod whole;
pub mod workers;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::Bits;
use vaplan_dataflows::outcome::Outcome;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectRow, Severity, VersionRow};

pub use progress::{CancelToken, Listener, Progress};

/// The result of a labelling run.
#[derive(Clone, Debug)]
pub struct LabelSummary {
    /// The version that holds the labels.
    pub version: VersionRow,
    /// Counts of the run; `None` if the store already held the labels of exactly these inputs and settings, so that
    /// the run did nothing.
    pub done: Option<LabelCounts>,
}

/// Counts of a run that made a new store version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCounts {
    /// Number of videos in the selected splits.
    pub videos: u64,
    /// Number of label records: one per video and modality that has labels.
    pub records: u64,
    /// Audio labels.
    pub audio: SetLabels,
    /// Visual labels.
    pub visual: SetLabels,
    /// Labels of the videos that have labels in both modalities. Set are those that are set in both.
    pub audio_visual: SetLabels,
    /// Number of labels that differ from the version before.
    pub changes: u64,
    /// Number of rejected rows.
    pub rejects: u64,
    /// Number of notes.
    pub notes: u64,
    /// The rejected rows and notes, so that the caller can show the first of them.
    pub rejected: Vec<RejectRow>,
    /// Remarks for the user: thresholds that set all labels of a modality, or none. They were also logged.
    pub remarks: Vec<String>,
}

/// How many labels there are, and how many of them are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLabels {
    /// Number of labels that are set.
    pub set: u64,
    /// Number of labels, set or not.
    pub of: u64,
}

impl SetLabels {
    /// Counts the labels of a track.
    pub(crate) fn add(&mut self, labels: &Bits) {
        self.set += u64::from(labels.ones());
        self.of += labels.len() as u64;
    }

    /// Adds the counts of other labels.
    pub(crate) fn add_counts(&mut self, other: SetLabels) {
        self.set += other.set;
        self.of += other.of;
    }

    /// The share of the labels that are set, in percent; 0 if there are no labels.
    pub fn percent(self) -> f64 {
        100.0 * self.set as f64 / self.of.max(1) as f64
    }
}

impl LabelCounts {
    /// Adds the counts of labels of another process.
    pub(crate) fn add(&mut self, other: &LabelCounts) {
        self.records += other.records;
        self.changes += other.changes;
        let of = [
            (&mut self.audio, other.audio),
            (&mut self.visual, other.visual),
            (&mut self.audio_visual, other.audio_visual),
        ];
        for (own, others) in of {
            own.add_counts(others);
        }
    }

    /// Counts the labels and changes of an outcome.
    pub(crate) fn count_labels(&mut self, outcome: &Outcome) {
        self.changes += outcome.changes.len() as u64;
        for own in outcome.videos.values() {
            if let [Some(audio), Some(visual)] = &own.labels {
                let both = audio.shared(visual);
                both.for_each(|(_, labels)| self.audio_visual.add(&labels));
            }
        }
        for (_, modality, record) in outcome.labels() {
            self.records += 1;
            let count = match modality {
                Modality::Audio => &mut self.audio,
                Modality::Visual => &mut self.visual,
            };
            record.tracks.iter().for_each(|track| count.add(&track.label));
        }
    }

    pub(crate) fn count_rejects(&mut self, rows: Vec<RejectRow>) {
        self.rejects = rows.iter().filter(|row| row.severity == Severity::Reject).count() as u64;
        self.notes = rows.len() as u64 - self.rejects;
        self.rejected = rows;
    }
}
