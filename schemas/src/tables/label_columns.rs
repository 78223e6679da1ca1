//! The rows of table `labels` as columns, for a change of all rows that looks at no row by itself.
//!
//! ```text
//! video, modality, class, score ──────────────────────────▶ unchanged
//! score, threshold of each row ─────── label = score > threshold ─▶ label, threshold
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Float64Array, ListArray, RecordBatch,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Float64Type;

use super::columns::{Columns, TextColumn, batch, names};
use super::lists::ELEMENT;
use super::{Labels, Table};
use crate::ids::Modality;
use crate::rows::{LabelRule, LabelTrack};

/// Rows of table `labels`, of which no person set a label.
pub struct LabelColumns {
    batch: RecordBatch,
    video: TextColumn,
    modality: Vec<Modality>,
    class: TextColumn,
    /// The places of the segments of each row in `labels` and `scores`.
    offsets: OffsetBuffer<i32>,
    labels: BooleanArray,
    scores: Float64Array,
}

/// Rows of table `labels` whose labels were generated anew.
pub struct GeneratedLabels {
    pub(crate) batch: RecordBatch,
    /// The first and the last video.
    pub(crate) range: [Arc<str>; 2],
    /// The rows with other labels than before: the labels before, and the new row.
    pub changed: Vec<(Vec<bool>, LabelTrack)>,
    /// For audio and visual: the number of labels that are set, and of all labels.
    pub counts: [[u64; 2]; 2],
}

impl LabelColumns {
    /// Takes rows in the order of the table. Returns `None` if a person set a label, if a value is not as expected, or if there
    /// are no rows: the rows must then be decoded one by one, which names a wrong value.
    pub(crate) fn of(batch: RecordBatch) -> Option<LabelColumns> {
        let columns = Columns::new(Labels::NAME, &batch);
        let video = columns.required_text("video").ok()?;
        let class = columns.required_text("class").ok()?;
        let modality = columns.required_text("modality").ok()?;
        let modality = modality.each(None, |name| name.parse().ok());
        let list = |name: &str| Some(batch.column_by_name(name)?.as_list_opt::<i32>()?.clone());
        let [label, rule, score] = [list("label")?, list("rule")?, list("score")?];
        let offsets = label.offsets().clone();
        let alike = |lists: &ListArray| *lists.offsets() == offsets && lists.null_count() == 0;
        let labels = label.values().as_boolean_opt()?.clone();
        let scores = score.values().as_primitive_opt::<Float64Type>()?.clone();
        let whole = *offsets.first()? == 0 && *offsets.last()? as usize == labels.len();
        let nulls = labels.null_count() + scores.null_count() + rule.values().null_count();
        let empty = offsets.windows(2).any(|pair| pair[0] == pair[1]);
        let by_rule = super::columns::text_column(rule.values())?;
        let set_by_user = by_rule.has(|name| name == LabelRule::User.as_str());
        if batch.num_rows() == 0
            || !whole
            || empty
            || nulls > 0
            || set_by_user
            || ![&label, &rule, &score].into_iter().all(alike)
        {
            return None;
        }
        Some(LabelColumns {
            modality: modality.into_iter().collect::<Option<_>>()?,
            batch,
            video,
            class,
            offsets,
            labels,
            scores,
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The number of videos.
    pub fn videos(&self) -> u64 {
        let others = (1..self.rows()).filter(|&row| !self.video.same(row - 1, row));
        1 + others.count() as u64
    }

    /// The class of a row. Rows of one class share the allocation of its name.
    pub fn class(&self, row: usize) -> &Arc<str> {
        self.class.expect(row)
    }

    /// The modality of a row.
    pub fn modality(&self, row: usize) -> Modality {
        self.modality[row]
    }

    /// Generates all labels by PLG: a label is set if its score is above the threshold of its row. Flips of PLD are taken
    /// back. `rule` is the rule of the rows of a modality.
    ///
    /// # Panics
    /// Panics if there is not one threshold for each row.
    pub fn generate(&self, thresholds: &[f64], rule: impl Fn(Modality) -> LabelRule) -> GeneratedLabels {
        assert_eq!(thresholds.len(), self.rows(), "one threshold a row");
        let scores = self.scores.values();
        let mut labels = BooleanBufferBuilder::new(scores.len());
        let mut changed = Vec::new();
        let mut counts = [[0; 2]; 2];
        for (row, threshold) in thresholds.iter().enumerate() {
            let own = self.segments(row);
            let (mut differs, mut set) = (false, 0);
            for at in own.clone() {
                let label = scores[at] > *threshold;
                differs |= label != self.labels.value(at);
                set += u64::from(label);
                labels.append(label);
            }
            let [all_set, all] = &mut counts[self.modality[row].index()];
            (*all_set, *all) = (*all_set + set, *all + own.len() as u64);
            if differs {
                let before = own.clone().map(|at| self.labels.value(at)).collect();
                let modality = self.modality[row];
                changed.push((
                    before,
                    LabelTrack {
                        video: self.video.expect(row).clone(),
                        modality,
                        class: self.class.expect(row).clone(),
                        labels: scores[own.clone()]
                            .iter()
                            .map(|score| score > threshold)
                            .collect(),
                        rules: vec![rule(modality); own.len()],
                        scores: scores[own].to_vec(),
                        threshold: Some(*threshold),
                        flips: Vec::new(),
                    },
                ));
            }
        }
        let rules = (0..self.rows()).map(|row| (rule(self.modality[row]).as_str(), self.segments(row).len()));
        let last = self.rows() - 1;
        let schema = Labels::schema();
        let column = |name: &str| {
            self.batch
                .column_by_name(name)
                .expect("the columns were checked")
                .clone()
        };
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "threshold" => Arc::new(Float64Array::from(thresholds.to_vec())) as ArrayRef,
            "label" => self.list(Arc::new(BooleanArray::new(labels.finish(), None))),
            "rule" => self.list(names(rules.clone())),
            super::why::WHY => arrow::array::new_null_array(field.data_type(), self.rows()),
            name => column(name),
        });
        GeneratedLabels {
            batch: batch(schema.clone(), columns.collect()),
            range: [self.video.expect(0).clone(), self.video.expect(last).clone()],
            changed,
            counts,
        }
    }

    fn segments(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    /// A list column of these values, with the lengths of the rows.
    fn list(&self, values: ArrayRef) -> ArrayRef {
        let field = arrow::datatypes::Field::new(ELEMENT, values.data_type().clone(), false);
        let lists = ListArray::try_new(Arc::new(field), self.offsets.clone(), values, None);
        Arc::new(lists.expect("there is a value for each segment"))
    }
}
