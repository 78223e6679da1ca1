//! Tables as programs before wrote them: `scores`, `labels` and `label_changes` with one row per segment.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use serde_json::{Value, json};
use vaplan_schemas::TableError;
use vaplan_schemas::rows::{FlipReason, LabelChangeRow, LabelTrack, ScoreTrack};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table};

/// The reason of each row in five columns, as programs before column `why` wrote it.
fn reasons(whys: &[Option<FlipReason>]) -> [(&'static str, ArrayRef); 5] {
    let float = |get: fn(&FlipReason) -> Option<f64>| -> ArrayRef {
        Arc::new(
            whys.iter()
                .map(|why| get(why.as_ref()?))
                .collect::<Float64Array>(),
        )
    };
    let epoch = whys.iter().map(|why| Some(why.as_ref()?.epoch as i64));
    let k = whys.iter().map(|why| Some(why.as_ref()?.limit?.k as i32));
    [
        ("epoch", Arc::new(epoch.collect::<Int64Array>())),
        ("loss", float(|why| why.loss)),
        ("base", float(|why| Some(why.limit?.base))),
        ("alpha", float(|why| Some(why.limit?.alpha))),
        ("k", Arc::new(k.collect::<Int32Array>())),
    ]
}

/// The reason of each row as a struct.
fn why(whys: &[Option<FlipReason>]) -> ArrayRef {
    let (names, columns): (Vec<&str>, Vec<ArrayRef>) = reasons(whys).into_iter().unzip();
    let field = |(name, column): (&&str, &ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let fields: Fields = names.iter().zip(&columns).map(field).collect();
    let there: NullBuffer = whys.iter().map(Option::is_some).collect::<Vec<_>>().into();
    Arc::new(StructArray::new(fields, columns, Some(there)))
}

/// How a program wrote the reasons of flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormerReasons {
    /// The first columns of `loss`, `epoch`, `base`, `alpha`, `k` in `labels`; `epoch`, `loss`, ... in `label_changes`.
    Columns(usize),
    Struct,
}

impl FormerReasons {
    pub(crate) const fn of(code: u8) -> FormerReasons {
        match code {
            0 => FormerReasons::Struct,
            columns => FormerReasons::Columns(columns as usize),
        }
    }

    fn columns(self, first: [&str; 2], whys: &[Option<FlipReason>]) -> Vec<(&'static str, ArrayRef)> {
        match self {
            FormerReasons::Struct => vec![("why", why(whys))],
            FormerReasons::Columns(count) => {
                let all = reasons(whys);
                let order = [first[0], first[1], "base", "alpha", "k"];
                let of = |name: &&str| all.iter().find(|(own, _)| own == name).unwrap().clone();
                order[..count].iter().map(of).collect()
            }
        }
    }
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    let plain: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    cast(&plain, &dictionary).unwrap()
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> RecordBatch {
    let nullable = ["score", "threshold", "why", "loss", "epoch", "base", "alpha", "k"];
    let field = |(name, column): &(&'static str, ArrayRef)| {
        Field::new(
            *name,
            column.data_type().clone(),
            nullable.contains(name) && column.data_type() != &DataType::Float32,
        )
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn key<'a>(
    rows: impl Iterator<Item = (&'a str, &'a str, &'a str, u32)> + Clone,
) -> Vec<(&'static str, ArrayRef)> {
    let segment = rows.clone().map(|row| row.3 as i32);
    vec![
        ("video", text(rows.clone().map(|row| row.0))),
        ("modality", text(rows.clone().map(|row| row.1))),
        ("class", text(rows.clone().map(|row| row.2))),
        ("segment", Arc::new(Int32Array::from_iter_values(segment))),
    ]
}

/// `scores` with one row per segment.
pub(crate) struct FormerScores;

impl Table for FormerScores {
    type Row = ScoreTrack;
    const NAME: &'static str = Scores::NAME;
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Self::encode(&[]).schema()
    }

    fn encode(rows: &[ScoreTrack]) -> RecordBatch {
        let of = |track: &'_ ScoreTrack, segment: usize| (track.cosine[segment], track.score[segment]);
        let all: Vec<(&ScoreTrack, usize)> = each(rows, |track| track.score.len());
        let keys = all.iter().map(|(track, segment)| {
            (
                &*track.video,
                track.modality.as_str(),
                &*track.class,
                *segment as u32,
            )
        });
        let mut columns = key(keys);
        let cosine = all.iter().map(|(track, segment)| of(track, *segment).0);
        let score = all.iter().map(|(track, segment)| of(track, *segment).1);
        columns.push(("cosine", Arc::new(Float32Array::from_iter_values(cosine))));
        columns.push(("score", Arc::new(Float64Array::from_iter_values(score))));
        batch(columns)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<ScoreTrack>, TableError> {
        Scores::decode(batch)
    }

    fn compare(a: &ScoreTrack, b: &ScoreTrack) -> Ordering {
        Scores::compare(a, b)
    }

    fn height(row: &ScoreTrack) -> usize {
        row.score.len()
    }

    fn video(row: &ScoreTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

fn each<R>(rows: &[R], segments: impl Fn(&R) -> usize) -> Vec<(&R, usize)> {
    let own = |row| (0..segments(row)).map(move |segment| (row, segment));
    rows.iter().flat_map(own).collect()
}

/// `labels` with one row per segment, with the reasons as [`FormerReasons::of`] `CODE`.
pub(crate) struct FormerLabels<const CODE: u8>;

impl<const CODE: u8> Table for FormerLabels<CODE> {
    type Row = LabelTrack;
    const NAME: &'static str = Labels::NAME;
    const BUCKETED: bool = true;

    fn schema() -> SchemaRef {
        Self::encode(&[]).schema()
    }

    fn encode(rows: &[LabelTrack]) -> RecordBatch {
        let all = each(rows, LabelTrack::segments);
        let keys = all.iter().map(|(track, segment)| {
            (
                &*track.video,
                track.modality.as_str(),
                &*track.class,
                *segment as u32,
            )
        });
        let mut columns = key(keys);
        let cells: Vec<_> = all.iter().map(|(track, segment)| track.get(*segment)).collect();
        let label = cells.iter().map(|cell| Some(cell.label));
        columns.push(("label", Arc::new(label.collect::<BooleanArray>())));
        columns.push(("rule", text(cells.iter().map(|cell| cell.rule.as_str()))));
        let score = cells.iter().map(|cell| cell.score);
        columns.push(("score", Arc::new(score.collect::<Float64Array>())));
        let threshold = cells.iter().map(|cell| cell.threshold);
        columns.push(("threshold", Arc::new(threshold.collect::<Float64Array>())));
        let whys: Vec<_> = cells.iter().map(|cell| cell.why.copied()).collect();
        columns.extend(FormerReasons::of(CODE).columns(["loss", "epoch"], &whys));
        batch(columns)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelTrack>, TableError> {
        Labels::decode(batch)
    }

    fn compare(a: &LabelTrack, b: &LabelTrack) -> Ordering {
        Labels::compare(a, b)
    }

    fn height(row: &LabelTrack) -> usize {
        row.segments()
    }

    fn video(row: &LabelTrack) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

/// `label_changes` with one row per segment, with the reasons as [`FormerReasons::of`] `CODE`.
pub(crate) struct FormerChanges<const CODE: u8>;

impl<const CODE: u8> Table for FormerChanges<CODE> {
    type Row = LabelChangeRow;
    const NAME: &'static str = LabelChanges::NAME;
    const BUCKETED: bool = false;

    fn schema() -> SchemaRef {
        Self::encode(&[]).schema()
    }

    fn encode(rows: &[LabelChangeRow]) -> RecordBatch {
        let version = rows.iter().map(|row| row.version as i64);
        let mut columns: Vec<(&'static str, ArrayRef)> =
            vec![("version", Arc::new(Int64Array::from_iter_values(version)))];
        columns.extend(key(rows
            .iter()
            .map(|row| (&*row.video, row.modality.as_str(), &*row.class, row.segment))));
        let boolean = |get: fn(&LabelChangeRow) -> bool| -> ArrayRef {
            Arc::new(rows.iter().map(|row| Some(get(row))).collect::<BooleanArray>())
        };
        columns.push(("from", boolean(|row| row.from)));
        columns.push(("to", boolean(|row| row.to)));
        columns.push(("rule", text(rows.iter().map(|row| row.rule.as_str()))));
        let whys: Vec<_> = rows.iter().map(|row| row.why.as_deref().copied()).collect();
        columns.extend(FormerReasons::of(CODE).columns(["epoch", "loss"], &whys));
        batch(columns)
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<LabelChangeRow>, TableError> {
        let rows = LabelChanges::decode(batch)?;
        Ok(rows
            .iter()
            .flat_map(vaplan_schemas::rows::LabelChangeTrack::changes)
            .collect())
    }

    fn compare(a: &LabelChangeRow, b: &LabelChangeRow) -> Ordering {
        let order = (a.version, &a.video, a.modality).cmp(&(b.version, &b.video, b.modality));
        order.then_with(|| (&a.class, a.segment).cmp(&(&b.class, b.segment)))
    }

    fn changed_labels(_: &LabelChangeRow) -> u64 {
        1
    }

    fn video(row: &LabelChangeRow) -> Option<&Arc<str>> {
        Some(&row.video)
    }
}

/// The columns of a schema in the JSON of a Delta log.
pub(crate) fn of_log(schema: &Schema) -> Value {
    fn data_type(of: &DataType) -> Value {
        match of {
            DataType::Dictionary(..) | DataType::Utf8 => json!("string"),
            DataType::Int32 => json!("integer"),
            DataType::Int64 => json!("long"),
            DataType::Float32 => json!("float"),
            DataType::Float64 => json!("double"),
            DataType::Boolean => json!("boolean"),
            DataType::Struct(fields) => json!({ "type": "struct", "fields": all(fields) }),
            other => panic!("no column of the former layout has the type {other}"),
        }
    }
    fn all(fields: &Fields) -> Vec<Value> {
        let one = |field: &Arc<Field>| {
            let of = data_type(field.data_type());
            json!({ "name": field.name(), "type": of, "nullable": field.is_nullable(), "metadata": {} })
        };
        fields.iter().map(one).collect()
    }
    json!({ "type": "struct", "fields": all(schema.fields()) })
}
