//! SQL tables with one row per segment, over tables of the store with one row per track.
//!
//! `scores`, `labels` and `label_changes` have list columns. A query asks for segments, so this module shows each value of
//! a list as a row. Filters on columns of the track are applied before the lists are taken apart.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{not, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table};

/// The largest number of rows of a batch of segments, unless one track has more.
const BATCH_ROWS: usize = 1 << 16;

/// The column with the number of the segment, which tables with one row per segment have.
pub(super) const SEGMENT: &str = "segment";

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A column of the track, which has the same value in every segment.
    Track(&'static str),
    /// The opposite of a column of the track.
    Not(&'static str),
    /// A list column with one value per segment, or null.
    List(&'static str),
    /// The number of the segment, from 0.
    Number,
}

/// The columns of a table in SQL, and the list column that every row of the store has.
type Columns = (&'static str, &'static [(&'static str, Origin)]);

/// The columns of a table of the store that has one row per track; `None` for other tables.
fn columns(table: &str) -> Option<Columns> {
    use Origin::{List, Not, Number, Track};
    const SCORES: &[(&str, Origin)] = &[
        ("video", Track("video")),
        ("modality", Track("modality")),
        ("class", Track("class")),
        (SEGMENT, Number),
        ("cosine", List("cosine")),
        ("score", List("score")),
    ];
    const LABELS: &[(&str, Origin)] = &[
        ("video", Track("video")),
        ("modality", Track("modality")),
        ("class", Track("class")),
        (SEGMENT, Number),
        ("label", List("label")),
        ("rule", List("rule")),
        ("score", List("score")),
        ("threshold", Track("threshold")),
        ("why", List("why")),
    ];
    const CHANGES: &[(&str, Origin)] = &[
        ("version", Track("version")),
        ("video", Track("video")),
        ("modality", Track("modality")),
        ("class", Track("class")),
        (SEGMENT, List("segments")),
        ("from", Not("to")),
        ("to", Track("to")),
        ("rule", Track("rule")),
        ("why", List("why")),
    ];
    match table {
        Scores::NAME => Some(("score", SCORES)),
        Labels::NAME => Some(("label", LABELS)),
        LabelChanges::NAME => Some(("segments", CHANGES)),
        _ => None,
    }
}

/// Makes a table of segments from `tracks`, the table of the store. Returns `tracks` itself if the table `name` has no
/// tracks, or if its files have one row per segment already, as programs before wrote them.
pub(super) fn segments(name: &str, tracks: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let Some((lengths, columns)) = columns(name) else {
        return Ok(tracks);
    };
    let stored = tracks.schema();
    // Tables of tracks have no such column: their lists have one value per segment, or list the segments.
    if stored.column_with_name(SEGMENT).is_some() {
        return Ok(tracks);
    }
    let field = |(name, origin): &(&'static str, Origin)| {
        let (data_type, nullable) = match origin {
            Origin::Number => (DataType::Int32, false),
            Origin::Track(own) | Origin::Not(own) => {
                let field = stored.field_with_name(own)?;
                (field.data_type().clone(), field.is_nullable())
            }
            Origin::List(own) => {
                let field = stored.field_with_name(own)?;
                match field.data_type() {
                    DataType::List(values) => (values.data_type().clone(), values.is_nullable()),
                    other => {
                        return plan_err!("column `{own}` of table `{name}` is {other}, expected a list");
                    }
                }
            }
        };
        Ok(Field::new(*name, data_type, nullable))
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(SegmentTable {
        tracks,
        schema: Arc::new(Schema::new(fields)),
        lengths,
        columns,
    }))
}

#[derive(Debug)]
struct SegmentTable {
    tracks: Arc<dyn TableProvider>,
    schema: SchemaRef,
    lengths: &'static str,
    columns: &'static [(&'static str, Origin)],
}

impl SegmentTable {
    /// Whether a filter has only columns of the track.
    fn is_of_tracks(&self, filter: &Expr) -> bool {
        let is = |name: &str| {
            let column = self.columns.iter().find(|(own, _)| *own == name);
            column.is_some_and(|(own, origin)| *origin == Origin::Track(own))
        };
        !filter.is_volatile() && filter.column_refs().iter().all(|column| is(column.name()))
    }
}

#[async_trait]
impl TableProvider for SegmentTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| match self.is_of_tracks(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(wanted) => wanted.clone(),
            None => (0..self.columns.len()).collect(),
        };
        let stored = self.tracks.schema();
        let mut needed = vec![stored.index_of(self.lengths)?];
        for at in &wanted {
            if let Origin::Track(own) | Origin::Not(own) | Origin::List(own) = self.columns[*at].1 {
                needed.push(stored.index_of(own)?);
            }
        }
        for column in filters.iter().flat_map(Expr::column_refs) {
            needed.push(stored.index_of(column.name())?);
        }
        needed.sort_unstable();
        needed.dedup();
        // Every track has a segment, so a limit on segments is a limit on tracks.
        let limit = limit.filter(|_| filters.is_empty());
        let mut plan = self.tracks.scan(state, Some(&needed), &[], limit).await?;
        if let Some(filter) = conjunction(filters.iter().cloned()) {
            let schema = DFSchema::try_from(plan.schema().as_ref().clone())?;
            // The optimizer moves this filter into the Parquet reader.
            let filter = state.create_physical_expr(unqualified(filter)?, &schema)?;
            plan = Arc::new(FilterExec::try_new(filter, plan)?);
        }
        let columns = wanted.iter().map(|at| self.columns[*at].1).collect();
        let schema = Arc::new(self.schema.project(&wanted)?);
        Ok(Arc::new(SegmentsExec::new(plan, self.lengths, columns, schema)))
    }
}

/// The filter with plain column names, as the plan of the tracks has them.
fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = |expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(column.name.into())),
            other => Transformed::no(other),
        })
    };
    Ok(filter.transform(plain)?.data)
}

/// Takes the lists of its input apart.
#[derive(Clone, Debug)]
struct SegmentsExec {
    input: Arc<dyn ExecutionPlan>,
    lengths: &'static str,
    columns: Vec<Origin>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl SegmentsExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        lengths: &'static str,
        columns: Vec<Origin>,
        schema: SchemaRef,
    ) -> SegmentsExec {
        let of_input = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(
                of_input.partitioning.partition_count(),
            ),
            of_input.emission_type,
            of_input.boundedness,
        );
        SegmentsExec {
            input,
            lengths,
            columns,
            schema,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for SegmentsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentsExec: lengths of {}", self.lengths)
    }
}

impl ExecutionPlan for SegmentsExec {
    fn name(&self) -> &'static str {
        "SegmentsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (columns, schema) = (self.columns.clone(), self.schema.clone());
        let input = children.swap_remove(0);
        Ok(Arc::new(SegmentsExec::new(input, self.lengths, columns, schema)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let own = self.clone();
        let stream = self.input.execute(partition, context)?.flat_map(move |batch| {
            let made = match batch {
                Ok(batch) => own.pieces(&batch),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(made)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema.clone(),
            stream,
        )))
    }
}

impl SegmentsExec {
    /// The segments of a batch of tracks, in batches of at most [`BATCH_ROWS`] rows if no track is longer.
    fn pieces(&self, batch: &RecordBatch) -> Vec<Result<RecordBatch>> {
        let Some(lists) = batch.column_by_name(self.lengths) else {
            unreachable!("scan asks for column `{}`", self.lengths);
        };
        let offsets = lists.as_list::<i32>().value_offsets();
        let (mut pieces, mut from) = (Vec::new(), 0);
        while from < batch.num_rows() {
            let most = offsets[from] as usize + BATCH_ROWS;
            let fits = offsets[from + 1..].partition_point(|end| *end as usize <= most);
            let to = from + fits.max(1);
            pieces.push(self.segments(&batch.slice(from, to - from)));
            from = to;
        }
        pieces
    }

    fn segments(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .expect("scan asks for the columns it needs")
        };
        let offsets = column(self.lengths).as_list::<i32>().value_offsets();
        let length = |track: usize| (offsets[track + 1] - offsets[track]) as usize;
        let tracks = 0..batch.num_rows();
        let rows = length_sum(offsets);
        let mut of_track: Option<UInt32Array> = None;
        let mut repeated = |array: &ArrayRef| -> Result<ArrayRef> {
            let tracks = tracks.clone();
            let places = of_track.get_or_insert_with(|| {
                let of = tracks.flat_map(|track| std::iter::repeat_n(track as u32, length(track)));
                UInt32Array::from_iter_values(of)
            });
            Ok(take(array, places, None)?)
        };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for origin in &self.columns {
            columns.push(match origin {
                Origin::Track(name) => repeated(column(name))?,
                Origin::Not(name) => repeated(&(Arc::new(not(column(name).as_boolean())?) as ArrayRef))?,
                Origin::List(name) => values(column(name), &tracks.clone().map(length).collect::<Vec<_>>())?,
                Origin::Number => {
                    let numbers = tracks.clone().flat_map(|track| 0..length(track) as i32);
                    Arc::new(Int32Array::from_iter_values(numbers))
                }
            });
        }
        let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            self.schema.clone(),
            columns,
            &options,
        )?)
    }
}

fn length_sum(offsets: &[i32]) -> usize {
    offsets.last().map_or(0, |last| (last - offsets[0]) as usize)
}

/// The values of a list column. A list that is null stands for as many nulls as `lengths` says.
fn values(lists: &ArrayRef, lengths: &[usize]) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let offsets = lists.value_offsets();
    if lists.null_count() == 0 {
        return Ok(lists.values().slice(offsets[0] as usize, length_sum(offsets)));
    }
    let of = |(track, length): (usize, &usize)| {
        let first = lists.is_valid(track).then(|| offsets[track] as u32);
        (0..*length as u32).map(move |segment| first.map(|first| first + segment))
    };
    let places: UInt32Array = lengths.iter().enumerate().flat_map(of).collect();
    Ok(take(lists.values(), &places, None)?)
}
