//! What the scripts of a run have come across: a law that no case puts to the test is none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vaplan::relabel::RelabelSummary;
use vaplan_schemas::rows::{LabelChangeRow, LabelRule};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{Labels, Scores, Table};

use super::script::{Request, Step};
use super::tables::StoreTables;

/// Counts by name.
#[derive(Default)]
pub(crate) struct StoreCoverage(RefCell<BTreeMap<&'static str, u64>>);

/// What must have come up.
const WANTED: [&str; 41] = [
    "scripts",
    "versions",
    "runs that changed nothing",
    "runs of a part",
    "dry runs",
    "runs once more",
    "labelled after",
    "changes told to a session that stays",
    "stores with holes and patches",
    "thresholds",
    "rules and scales",
    "candidate rules",
    "videos with guessed candidates",
    "labels of guessed candidates",
    "weak labels",
    "prompts",
    "class lists",
    "npy files",
    "shards",
    "files of both",
    "marks",
    "epochs",
    "epochs chosen",
    "denoising",
    "versions brought back",
    "changes by plg",
    "changes by pld",
    "changes by user",
    "labels by pld",
    "labels by user",
    "candidates that do not count",
    "rejects: missing",
    "rejects: differing copies",
    "rejects: lengths",
    "rejects: no numbers",
    "rejects: width",
    "rejects: no npy",
    "rejects: key of two",
    "rejects: marks",
    "rejects: predictions",
    "rejects: probabilities",
];

impl StoreCoverage {
    pub(crate) fn count(&self, name: &'static str, by: usize) {
        *self.0.borrow_mut().entry(name).or_default() += by as u64;
    }

    pub(crate) fn run(&self, run: &Request, summary: &RelabelSummary, told: &[LabelChangeRow]) {
        self.count("versions", usize::from(summary.version.is_some()));
        self.count(
            "runs that changed nothing",
            usize::from(summary.version.is_none()),
        );
        self.count("runs of a part", usize::from(!summary.rows.is_empty()));
        self.count("dry runs", usize::from(run.dry));
        for step in &run.steps {
            let name = match step {
                Step::Threshold(..) | Step::AllThresholds(..) => "thresholds",
                Step::Rule { .. } | Step::Scale(..) => "rules and scales",
                Step::Candidates(_) => "candidate rules",
                Step::Weak(..) => "weak labels",
                Step::Prompt(..) | Step::Texts(..) => "prompts",
                Step::Classes(..) => "class lists",
                Step::Npy { .. } => "npy files",
                Step::Shard { .. } => "shards",
                Step::Both { .. } | Step::Unname => "files of both",
                Step::Mark { .. } => "marks",
                Step::Epoch { .. } => "epochs",
                Step::Choose(_) => "epochs chosen",
                Step::Denoise { .. } => "denoising",
                Step::Back(_) => "versions brought back",
            };
            self.count(name, 1);
        }
        for row in told {
            let name = match row.rule {
                LabelRule::Plg | LabelRule::Import => "changes by plg",
                LabelRule::Pld => "changes by pld",
                LabelRule::User => "changes by user",
            };
            self.count(name, 1);
        }
    }

    pub(crate) fn end(&self, found: &StoreTables, snapshot: &Snapshot) {
        let patched = |table: &str| {
            let files = snapshot.files(table).unwrap();
            files.iter().any(|file| file.deleted.is_some()) && files.iter().any(|file| file.is_patch())
        };
        let patched = patched(Labels::NAME) || patched(Scores::NAME);
        self.count("stores with holes and patches", usize::from(patched));
        for cell in found.labels.iter().flat_map(|track| track.iter()) {
            match cell.rule {
                LabelRule::Plg | LabelRule::Import => {}
                LabelRule::Pld => self.count("labels by pld", 1),
                LabelRule::User => self.count("labels by user", 1),
            }
        }
        let guessed = found
            .videos
            .iter()
            .filter(|row| row.guessed && !row.weak_labels.is_empty());
        let guessed: Vec<_> = guessed.map(|row| &row.video).collect();
        self.count("videos with guessed candidates", guessed.len());
        let labels = found
            .labels
            .iter()
            .filter(|track| guessed.contains(&&track.video));
        self.count("labels of guessed candidates", labels.count());
        self.count("candidates that do not count", found.candidates.len());
        for row in &found.rejects {
            let says = |text: &str| row.reason.contains(text);
            let name = match () {
                () if says("features that can be used") => "rejects: missing",
                () if says("features that differ in") => "rejects: differing copies",
                () if says("expected equally many") => "rejects: lengths",
                () if says("finite number") || says("all zero") => "rejects: no numbers",
                () if says("width") => "rejects: width",
                () if says("means both") => "rejects: key of two",
                () if says("a person set") => "rejects: marks",
                () if says("expected 0 to 1") => "rejects: probabilities",
                () if says("predictions of epoch") => "rejects: predictions",
                () if row.file.ends_with(".npy") => "rejects: no npy",
                () => continue,
            };
            self.count(name, 1);
        }
    }

    /// Prints the counts; where there were enough scripts, asks that there be no 0 among them.
    pub(crate) fn report(&self, enough: bool) {
        let counts = self.0.borrow();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let said: Vec<String> = WANTED
            .iter()
            .map(|name| format!("{} {name}", count(name)))
            .collect();
        println!("the law held: {}", said.join(", "));
        for name in WANTED.iter().filter(|_| enough) {
            assert!(count(name) > 0, "no script had any {name}");
        }
    }
}
