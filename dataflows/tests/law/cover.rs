//! What the cases of a run have come across: a law that no case puts to the test is none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vaplan_dataflows::{Fault, MarkFault, SetBy};

use crate::oracle::Answer;

/// Counts by name.
#[derive(Default)]
pub(crate) struct Cover(RefCell<BTreeMap<&'static str, u64>>);

/// What must have come up.
const WANTED: [&str; 16] = [
    "cases",
    "versions",
    "restarts",
    "changes by plg",
    "changes by pld",
    "changes by user",
    "faults: missing",
    "faults: conflict",
    "faults: lengths",
    "faults: unscored",
    "faults: mark without labels",
    "faults: mark of another class",
    "faults: mark beyond the end",
    "faults: prediction of another length",
    "faults: no probability",
    "audio-visual cells",
];

impl Cover {
    pub(crate) fn count(&self, name: &'static str, by: usize) {
        *self.0.borrow_mut().entry(name).or_default() += by as u64;
    }

    pub(crate) fn see(&self, answers: &[Answer]) {
        self.count("versions", answers.len());
        for answer in answers {
            for change in &answer.changes {
                let name = match change.rule {
                    SetBy::Plg => "changes by plg",
                    SetBy::Pld => "changes by pld",
                    SetBy::User => "changes by user",
                };
                self.count(name, 1);
            }
            for (_, fault) in &answer.faults {
                self.count(name_of(fault), 1);
            }
            for record in answer.audio_visual.values() {
                self.count("audio-visual cells", record.ones() as usize);
            }
        }
    }

    /// Prints the counts, and asks that there be no 0 among them.
    pub(crate) fn report(&self) {
        let counts = self.0.borrow();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let said: Vec<String> = WANTED
            .iter()
            .map(|name| format!("{} {name}", count(name)))
            .collect();
        println!("the law held: {}", said.join(", "));
        for name in WANTED {
            assert!(count(name) > 0, "no case had any {name}");
        }
    }
}

fn name_of(fault: &Fault) -> &'static str {
    match fault {
        Fault::Missing(_) => "faults: missing",
        Fault::Conflict(..) => "faults: conflict",
        Fault::Lengths { .. } => "faults: lengths",
        Fault::Unscored(..) => "faults: unscored",
        Fault::Mark { why, .. } => match why {
            MarkFault::Unlabelled => "faults: mark without labels",
            MarkFault::Class(_) => "faults: mark of another class",
            MarkFault::Segment { .. } => "faults: mark beyond the end",
        },
        Fault::Prediction { .. } => "faults: prediction of another length",
        Fault::Probability { .. } => "faults: no probability",
    }
}
