//! What the cases of a run have come across: a law that no case puts to the test is none.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vaplan_dataflows::{Rejection, SetBy, UserLabelRejection};

use crate::oracle::VersionOutput;

/// Counts by name.
#[derive(Default)]
pub(crate) struct GraphCoverage(RefCell<BTreeMap<&'static str, u64>>);

/// What must have come up.
const WANTED: [&str; 16] = [
    "cases",
    "versions",
    "restarts",
    "changes by plg",
    "changes by pld",
    "changes by user",
    "rejections: missing",
    "rejections: conflict",
    "rejections: lengths",
    "rejections: unscored",
    "rejections: user_label without labels",
    "rejections: user_label of another class",
    "rejections: user_label beyond the end",
    "rejections: prediction of another length",
    "rejections: no probability",
    "audio-visual cells",
];

impl GraphCoverage {
    pub(crate) fn count(&self, name: &'static str, by: usize) {
        *self.0.borrow_mut().entry(name).or_default() += by as u64;
    }

    pub(crate) fn see(&self, answers: &[VersionOutput]) {
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
            for (_, rejection) in &answer.rejections {
                self.count(name_of(rejection), 1);
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

fn name_of(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Missing(_) => "rejections: missing",
        Rejection::Conflict(..) => "rejections: conflict",
        Rejection::Lengths { .. } => "rejections: lengths",
        Rejection::Unscored(..) => "rejections: unscored",
        Rejection::UserLabel { why, .. } => match why {
            UserLabelRejection::Unlabelled => "rejections: user_label without labels",
            UserLabelRejection::Class(_) => "rejections: user_label of another class",
            UserLabelRejection::Segment { .. } => "rejections: user_label beyond the end",
        },
        Rejection::Prediction { .. } => "rejections: prediction of another length",
        Rejection::Probability { .. } => "rejections: no probability",
    }
}
