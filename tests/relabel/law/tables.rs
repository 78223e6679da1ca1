//! What a store holds, so far as the law speaks of it.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::rows::{
    CandidateRow, ClassRow, LabelTrack, PromptRow, RejectRow, ScoreTrack, Severity, TruthRow, VideoRow,
};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{
    Candidates, Classes, Labels, Prompts, Rejects, Scores, Table, Truth, UserLabels, Videos,
};

use super::world::{Cell, World};

/// A table by key: files come by bucket.
fn sorted<T: Table>(snapshot: &Snapshot) -> Vec<T::Row> {
    let mut rows = snapshot.read::<T>().unwrap();
    rows.sort_by(T::compare);
    rows
}

/// The tables, by key.
#[derive(Debug, PartialEq)]
pub(crate) struct Tables {
    pub(crate) videos: Vec<VideoRow>,
    pub(crate) candidates: Vec<CandidateRow>,
    pub(crate) scores: Vec<ScoreTrack>,
    pub(crate) labels: Vec<LabelTrack>,
    pub(crate) classes: Vec<ClassRow>,
    pub(crate) prompts: Vec<PromptRow>,
    pub(crate) truth: Vec<TruthRow>,
    pub(crate) rejects: Vec<RejectRow>,
    pub(crate) marks: Vec<(Cell, bool)>,
}

impl Tables {
    /// Without what says which file of a change something came from: a store made anew has other files.
    pub(crate) fn read(snapshot: &Snapshot, world: &World) -> Tables {
        let mut videos = sorted::<Videos>(snapshot);
        for row in &mut videos {
            row.source = Arc::from("");
        }
        let (changes, annotations) = (world.folder.join("changes"), world.folder.join("annotations"));
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
        Tables {
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
    pub(crate) fn differences(&self, other: &Tables) -> String {
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
