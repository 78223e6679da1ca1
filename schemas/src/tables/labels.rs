use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::columns::{Columns, TextBuilder, batch, compare_text, names};
use super::lists::{self, Lists, list};
use super::why::{self, Reasons};
use super::{Table, by_segment, text};
use crate::error::TableError;
use crate::rows::{FlipReason, LabelRule, LabelTrack};

/// The `labels` table: the labels of each class of the weak label, and the reasons for them.
///
/// Key: (`video`, `modality`, `class`). One row per key; sorted by key within a bucket. The lists of a row have one value
/// per segment, from segment 0.
#[derive(Clone, Copy, Debug)]
pub struct Labels;

impl Table for Labels {
    type Row = LabelTrack;
    const NAME: &'static str = "labels";
    const BUCKETED: bool = true;
    const FORMER: Option<&str> = Some(by_segment::SEGMENT);

    fn schema() -> SchemaRef {
        let columns = vec![
            Field::new("video", text(), false),
            Field::new("modality", text(), false),
            Field::new("class", text(), false),
            Field::new("threshold", DataType::Float64, true), // what scores are compared with; null if all rules are `user`
            Field::new("label", list(DataType::Boolean, false), false), // does the event occur
            Field::new("rule", list(text(), false), false), // the rule that set the label: `plg`, `pld` or `user`
            Field::new("score", list(DataType::Float64, true), false), // the compared score; null for rule `user`
            why::list_field(), // why PLD flipped a label; null if PLD flipped no label of the row
        ];
        Arc::new(Schema::new(columns))
    }

    fn encode(rows: &[LabelTrack]) -> RecordBatch {
        let (mut video, mut class) = (TextBuilder::default(), TextBuilder::default());
        for track in rows {
            video.push(&track.video);
            class.push(&track.class);
        }
        let lengths = || rows.iter().map(LabelTrack::segments);
        let labels = rows.iter().flat_map(|track| &track.labels);
        let labels: BooleanArray = labels.map(|label| Some(*label)).collect();
        let rules = names(
            rows.iter()
                .flat_map(|track| &track.rules)
                .map(|rule| (rule.as_str(), 1)),
        );
        let scores = rows.iter().flat_map(|track| {
            let scores = track.rules.iter().zip(&track.scores);
            scores.map(|(rule, score)| rule.compares().then_some(*score))
        });
        let columns: Vec<ArrayRef> = vec![
            video.finish(),
            names(rows.iter().map(|track| (track.modality.as_str(), 1))),
            class.finish(),
            Arc::new(rows.iter().map(|track| track.threshold).collect::<Float64Array>()),
            lists::build(lengths(), Arc::new(labels), false, None),
            lists::build(lengths(), rules, false, None),
            lists::build(lengths(), Arc::new(scores.collect::<Float64Array>()), true, None),
            whys(rows),
        ];
        batch(Self::schema(), columns)
    }

    fn compare(a: &LabelTrack, b: &LabelTrack) -> Ordering {
        let order = compare_text(&a.video, &b.video).then(a.modality.cmp(&b.modality));
        order.then_with(|| compare_text(&a.class, &b.class))
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelTrack>, TableError> {
        let columns = Columns::new(Self::NAME, batch);
        if Self::is_former(&batch.schema()) {
            return by_segment::labels(&columns, batch.num_rows());
        }
        let (video, modality) = (
            columns.required_text("video")?,
            columns.required_text("modality")?,
        );
        let (class, threshold) = (
            columns.required_text("class")?,
            columns.optional_float64("threshold")?,
        );
        let label_lists = Lists::new(&columns, "label", "List(Boolean)", true)?;
        let rule_lists = Lists::new(&columns, "rule", "List(Utf8)", true)?;
        let score_lists = Lists::new(&columns, "score", "List(Float64)", true)?;
        let why_lists = Lists::new(&columns, why::WHY, "List(Struct)", false)?;
        let (label, score) = (
            label_lists.booleans(&columns)?,
            score_lists.optional_float64(&columns)?,
        );
        let rule_names = rule_lists.text(&columns)?;
        let rule = rule_names.each(None, named);
        let why = Reasons::of_list(&columns, &why_lists)?;
        (0..batch.num_rows())
            .map(|row| {
                let of = label_lists.range(row).unwrap_or_default();
                if of.is_empty() {
                    return Err(columns.value(row, "label", "an empty list", "a value per segment"));
                }
                let rules = rule_lists.range_of(&columns, row, of.len())?;
                let unknown = |at: usize| {
                    let name = rule_names.expect(at);
                    columns.value(row, "rule", format!("`{name}`"), RULES)
                };
                let rules: Vec<LabelRule> = rules
                    .map(|at| rule[at].ok_or_else(|| unknown(at)))
                    .collect::<Result<_, _>>()?;
                let own = score_lists.range_of(&columns, row, of.len())?;
                let scores = own
                    .zip(&rules)
                    .map(|(at, rule)| match (rule.compares(), score.is_valid(at)) {
                        (false, _) => Ok(0.0),
                        (true, true) => Ok(score.value(at)),
                        (true, false) => {
                            let expected = "a number, since the rule is not `user`";
                            Err(columns.value(row, "score", "null", expected))
                        }
                    });
                let scores = scores.collect::<Result<_, _>>()?;
                let compared = rules.iter().any(|rule| rule.compares());
                if compared && threshold.is_null(row) {
                    let expected = "a number, since a rule is not `user`";
                    return Err(columns.value(row, "threshold", "null", expected));
                }
                let mut flips = Vec::new();
                if why_lists.range(row).is_some() {
                    let reasons = why_lists.range_of(&columns, row, of.len())?;
                    for (segment, at) in (0..).zip(reasons) {
                        flips.extend(why.get(&columns, at, row)?.map(|why| (segment, *why)));
                    }
                }
                Ok(LabelTrack {
                    video: video.expect(row).clone(),
                    modality: columns.modality(row, &modality)?,
                    class: class.expect(row).clone(),
                    labels: of.map(|at| label.value(at)).collect(),
                    rules,
                    scores,
                    threshold: compared.then(|| threshold.value(row)),
                    flips,
                })
            })
            .collect()
    }

    fn former_height(row: &LabelTrack) -> usize {
        row.segments()
    }

    fn former_schema() -> SchemaRef {
        by_segment::labels_schema()
    }

    fn video(row: &LabelTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

/// Column `why`. A row without flips has null, and any other row one reason or null per segment.
fn whys(rows: &[LabelTrack]) -> ArrayRef {
    let flipped = |track: &&LabelTrack| !track.flips.is_empty();
    let mut reasons: Vec<Option<&FlipReason>> = Vec::new();
    for track in rows.iter().filter(flipped) {
        let first = reasons.len();
        reasons.resize(first + track.segments(), None);
        for (segment, why) in &track.flips {
            reasons[first + *segment as usize] = Some(why);
        }
    }
    let lengths = rows
        .iter()
        .map(|track| if flipped(&track) { track.segments() } else { 0 });
    let there = rows.iter().map(|track| flipped(&track)).collect();
    lists::build(lengths, why::encode(&reasons), true, Some(there))
}

/// The known rules, for messages.
const RULES: &str = "`plg`, `import`, `pld` or `user`";

/// The rule of this name.
fn named(name: &str) -> Option<LabelRule> {
    [LabelRule::Plg, LabelRule::Import, LabelRule::Pld, LabelRule::User]
        .into_iter()
        .find(|rule| rule.as_str() == name)
}

pub(super) fn label_rule(columns: &Columns<'_>, row: usize, name: &str) -> Result<LabelRule, TableError> {
    named(name).ok_or_else(|| columns.value(row, "rule", format!("`{name}`"), RULES))
}
