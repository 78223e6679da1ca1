//! The tables of a store that the law compares.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::rows::{
    CandidateRow, ClassRow, LabelTrack, PromptRow, RejectRow, ScoreTrack, Severity, TruthRow, VideoRow,
};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{
    Candidates, Classes, Labels, Prompts, Rejects, Scores, Truth, UserLabels, Videos,
};

use super::inputs::{SegmentKey, StoreInputs};
use crate::support::sorted;

/// The tables, by key.
#[derive(Debug, PartialEq)]
pub(crate) struct StoreTables {
    pub(crate) videos: Vec<VideoRow>,
    pub(crate) candidates: Vec<CandidateRow>,
    pub(crate) scores: Vec<ScoreTrack>,
    pub(crate) labels: Vec<LabelTrack>,
    pub(crate) classes: Vec<ClassRow>,
    pub(crate) prompts: Vec<PromptRow>,
    pub(crate) truth: Vec<TruthRow>,
    pub(crate) rejects: Vec<RejectRow>,
    pub(crate) marks: Vec<(SegmentKey, bool)>,
}

impl StoreTables {
    /// Without what says which file of a change something came from: a store made anew has other files.
    pub(crate) fn read(snapshot: &Snapshot, inputs: &StoreInputs) -> StoreTables {
        let mut videos = sorted::<Videos>(snapshot);
        for row in &mut videos {
            row.source = Arc::from("");
        }
        let (changes, annotations) = (inputs.folder.join("changes"), inputs.folder.join("annotations"));
        let mut rejects = sorted::<Rejects>(snapshot);
        rejects.retain(|row| {
            let of = |folder: &Path| Path::new(&row.file).starts_with(folder);
            !(of(&changes) || of(&annotations) && row.severity == Severity::Note)
        });
        let marks = sorted::<UserLabels>(snapshot);
        let mark = |row: &vaplan_schemas::rows::UserLabelRow| {
            let cell = (
                row.video.to_string(),
                row.modality,
                row.class.to_string(),
                row.segment,
            );
            (cell, row.label)
        };
        StoreTables {
            videos,
            candidates: sorted::<Candidates>(snapshot),
            scores: sorted::<Scores>(snapshot),
            labels: sorted::<Labels>(snapshot),
            classes: sorted::<Classes>(snapshot),
            prompts: sorted::<Prompts>(snapshot),
            truth: sorted::<Truth>(snapshot),
            marks: marks.iter().map(mark).collect(),
            rejects,
        }
    }

    /// What differs, a few rows of each table; empty: nothing.
    pub(crate) fn differences(&self, other: &StoreTables) -> String {
        let mut said = String::new();
        differ(&mut said, "videos", &self.videos, &other.videos);
        differ(&mut said, "candidates", &self.candidates, &other.candidates);
        differ(&mut said, "scores", &self.scores, &other.scores);
        differ(&mut said, "labels", &self.labels, &other.labels);
        differ(&mut said, "classes", &self.classes, &other.classes);
        differ(&mut said, "prompts", &self.prompts, &other.prompts);
        differ(&mut said, "truth", &self.truth, &other.truth);
        differ(&mut said, "rejects", &self.rejects, &other.rejects);
        differ(&mut said, "user_labels", &self.marks, &other.marks);
        said
    }
}

fn differ<R: Debug + PartialEq>(said: &mut String, table: &str, found: &[R], wanted: &[R]) {
    let mut only = |sign: char, these: &[R], those: &[R]| {
        for row in these.iter().filter(|row| !those.contains(row)).take(3) {
            *said += &format!("{sign} {table}: {row:?}\n");
        }
    };
    only('+', found, wanted);
    only('-', wanted, found);
    if said.is_empty() && found != wanted {
        *said += &format!("{table}: rows are doubled or in another order\n");
    }
}
