//! A read-only SQL session over the tables of one store version.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use tokio::runtime::Runtime;
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{self, Table, Versions};

use super::QueryError;
use super::files::{provider, register};
use super::former;
use super::overflow::{CheckedArithmetic, CheckedSum};
use super::segments::segments;
use super::words;

/// The SQL that defines the view `events`.
///
/// The view has one row per maximal run of consecutive set labels of a video, modality and class. `modality` is
/// `audio`, `visual`, or `audio_visual` for runs of segments that are set in both (docs/method.md: AV = A and V, grade C).
/// `onset` and `offset` are seconds from the start of the video: segment number times `videos.segment_seconds`.
/// `offset` is the end of the last segment. `score` is the mean over the run of the scores that were compared with
/// the threshold; for an audio-visual run it is the mean over both modalities. User labels have no score and are left
/// out of the mean.
pub const EVENTS: &str = include_str!("events.sql");

/// A sort sets aside one part in this number of a memory limit to merge what it spilled.
const SHARE_OF_MERGES: usize = 4;
/// Time between two looks whether an answer is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Size of the stack on which statements are planned and computed. DataFusion calls itself for every operator of a chain, and the
/// longest allowed chain takes 20 MB in a debug build. Only the part that is used takes memory.
const STACK: usize = 128 << 20;
/// Size of the stacks of the threads that compute partitions. Computing takes less stack than planning.
const THREAD_STACK: usize = 64 << 20;

/// Runs work on a large stack.
fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, work)
}

/// A read-only SQL session over one store version.
///
/// The session has the tables of the version, the table `versions` up to this version, and the view [`EVENTS`].
///
/// ```no_run
/// use vaplan::query::QuerySession;
/// use vaplan_schemas::store::Store;
///
/// let snapshot = Store::open("store".as_ref())?.at_version(None)?;
/// let session = QuerySession::open(&snapshot)?;
/// let statement = session.parse_one("SELECT video FROM videos LIMIT 1")?;
/// for batch in session.start(statement)? {
///     assert_eq!(batch?.num_columns(), 1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct QuerySession {
    context: SessionContext,
    runtime: Runtime,
    version: u64,
    tables: Vec<TableEntry>,
    /// Holds the lease of the version, so that `vacuum` keeps its files while the session reads them.
    _snapshot: Snapshot,
}

/// A table or view of a session.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// The name in SQL.
    pub name: &'static str,
    /// The columns, in order.
    pub schema: SchemaRef,
    /// The number of rows, from the store's log. `None` for views and for tables with one row per segment.
    pub rows: Option<u64>,
}

impl QuerySession {
    /// Opens a session over the files of `snapshot`. Later commits do not change what the session reads.
    ///
    /// # Errors
    /// Returns [`QueryError::Store`] if the store's log cannot be read, [`QueryError::Sql`] if a table cannot be
    /// registered, and [`QueryError::Threads`] if the operating system refuses to start threads.
    pub fn open(snapshot: &Snapshot) -> Result<QuerySession, QueryError> {
        QuerySession::with_memory(snapshot, None)
    }

    /// Opens a session as [`QuerySession::open`] does, whose queries hold at most `memory` bytes in sorts, joins and groups.
    /// Operators that can spill write more than that to temporary files; a query whose other operators need more fails.
    ///
    /// # Errors
    /// As [`QuerySession::open`].
    pub fn with_memory(snapshot: &Snapshot, memory: Option<usize>) -> Result<QuerySession, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("vaplan-query")
            .thread_stack_size(THREAD_STACK)
            .enable_all()
            .build()
            .map_err(QueryError::Threads)?;
        // DESCRIBE and SHOW TABLES need the information schema. With `pushdown_filters` the Parquet reader skips rows
        // while it decodes.
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        if let Some(bytes) = memory {
            // Every sort sets memory aside to merge what it spilled, by default 10 MB in each partition. With a small
            // limit, sorts would fail before their first row. One partition, because the merge of several partitions needs
            // memory that the sorts below may have taken, and cannot spill.
            let options = &mut config.options_mut().execution;
            options.target_partitions = 1;
            let share = bytes / SHARE_OF_MERGES;
            options.sort_spill_reservation_bytes = options.sort_spill_reservation_bytes.min(share);
        }
        let limits = match memory {
            Some(bytes) => RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes))),
            None => RuntimeEnvBuilder::new(),
        };
        let limits = limits.build_arc().map_err(QueryError::sql)?;
        let context = SessionContext::new_with_config_rt(config, limits);
        context.add_analyzer_rule(Arc::new(CheckedArithmetic));
        context.register_udaf(CheckedSum::default().into());
        let root = snapshot.store().root();
        register(&context, snapshot.store()).map_err(QueryError::sql)?;
        let version = snapshot.version().version;
        let mut entries = Vec::new();
        let mut files = Vec::new();
        for (name, schema) in snapshot.tables()? {
            files.push((name, schema, snapshot.files(name)?));
        }
        let mut versions = snapshot.version_files()?;
        versions.retain(|file| file.version().is_none_or(|of_file| of_file <= version));
        files.push((Versions::NAME, Versions::schema(), versions));
        for (name, schema, files) in files {
            let schema = Arc::new(tables::plain(&schema));
            let former = former::view(&context, root, &schema, &files).map_err(QueryError::sql)?;
            let table = match former {
                Some(view) => view,
                None => {
                    let stored = provider(root, &schema, &files).map_err(QueryError::sql)?;
                    segments(name, stored).map_err(QueryError::sql)?
                }
            };
            // The log counts tracks, and only the data files say how many segments they have.
            let is_stored = table.schema() == schema;
            let rows = is_stored.then(|| files.iter().map(|file| file.rows).sum());
            let schema = table.schema();
            context.register_table(name, table).map_err(QueryError::sql)?;
            entries.push(TableEntry { name, schema, rows });
        }
        runtime.block_on(context.sql(EVENTS)).map_err(QueryError::sql)?;
        let events = runtime
            .block_on(context.table("events"))
            .map_err(QueryError::sql)?;
        let schema = Arc::new(events.schema().as_arrow().clone());
        entries.push(TableEntry {
            name: "events",
            schema,
            rows: None,
        });
        Ok(QuerySession {
            context,
            runtime,
            version,
            tables: entries,
            _snapshot: snapshot.clone(),
        })
    }

    /// The store version that the session reads.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tables, followed by the views.
    pub fn tables(&self) -> &[TableEntry] {
        &self.tables
    }

    /// Parses statements that are separated by `;`.
    ///
    /// # Errors
    /// Returns [`QueryError::Sql`] if the text does not parse, and [`QueryError::Statements`] if it has no statement.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, QueryError> {
        let statements = words::statements(sql)?;
        if statements.is_empty() {
            return Err(QueryError::Statements {
                found: 0,
                expected: "at least one",
            });
        }
        Ok(statements)
    }

    /// Parses a text of exactly one statement.
    ///
    /// # Errors
    /// Returns the same errors as [`QuerySession::parse`], and [`QueryError::Statements`] if the text has several
    /// statements.
    pub fn parse_one(&self, sql: &str) -> Result<Statement, QueryError> {
        let mut statements = self.parse(sql)?;
        match (statements.pop(), statements.len()) {
            (Some(statement), 0) => Ok(statement),
            (_, more) => Err(QueryError::Statements {
                found: more + 1,
                expected: "one, because the output holds one answer",
            }),
        }
    }

    /// Plans a statement and starts it. The rows are computed while the caller iterates over them.
    ///
    /// # Errors
    /// Returns [`QueryError::ReadOnly`] if the statement would change data or settings, and [`QueryError::Sql`] if it
    /// cannot be planned.
    pub fn start(&self, statement: Statement) -> Result<AnswerRows<'_>, QueryError> {
        deep(|| self.start_here(statement))
    }

    /// [`QuerySession::start`] on the current stack.
    fn start_here(&self, statement: Statement) -> Result<AnswerRows<'_>, QueryError> {
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let text = statement.to_string();
        let plan = self
            .runtime
            .block_on(self.context.state().statement_to_plan(statement))
            .map_err(QueryError::sql)?;
        options.verify_plan(&plan).map_err(|error| QueryError::ReadOnly {
            statement: text.split_whitespace().next().unwrap_or_default().to_uppercase(),
            reason: match error {
                DataFusionError::Plan(reason) => reason,
                other => other.strip_backtrace(),
            },
        })?;
        let stream = self
            .runtime
            .block_on(async {
                self.context
                    .execute_logical_plan(plan)
                    .await?
                    .execute_stream()
                    .await
            })
            .map_err(QueryError::sql)?;
        Ok(AnswerRows {
            stream,
            runtime: &self.runtime,
        })
    }
}

impl std::fmt::Debug for QuerySession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuerySession")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// An iterator over the rows of an answer, batch by batch.
pub struct AnswerRows<'a> {
    stream: SendableRecordBatchStream,
    runtime: &'a Runtime,
}

impl AnswerRows<'_> {
    /// The columns of the answer. They are known before the first row.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next batch, as [`Iterator::next`] gives it. While the batch is computed, this asks `go_on` every 50 ms, and
    /// returns `None` if the answer is no longer wanted.
    pub fn next_while(&mut self, go_on: impl Fn() -> bool) -> Option<Result<RecordBatch, QueryError>> {
        loop {
            let next = deep(|| {
                self.runtime
                    .block_on(async { tokio::time::timeout(LOOK, self.stream.next()).await })
            });
            match next {
                Ok(batch) => return batch.map(|batch| batch.map_err(QueryError::sql)),
                Err(_) if go_on() => {}
                Err(_) => return None,
            }
        }
    }
}

impl Iterator for AnswerRows<'_> {
    type Item = Result<RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        deep(|| self.runtime.block_on(self.stream.next())).map(|batch| batch.map_err(QueryError::sql))
    }
}

impl Drop for AnswerRows<'_> {
    /// Drops the plan on a large stack, too: a long chain is dropped operator by operator.
    fn drop(&mut self) {
        let empty = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
        let stream = std::mem::replace(&mut self.stream, empty);
        deep(|| drop(stream));
    }
}

impl std::fmt::Debug for AnswerRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerRows")
            .field("schema", &self.schema())
            .finish_non_exhaustive()
    }
}

/// A short name of a column's type, for people.
///
/// ```
/// use datafusion::arrow::datatypes::DataType;
/// use vaplan::query::session::type_name;
/// let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
/// assert_eq!(type_name(&text), "text");
/// ```
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::List(item) => format!("list of {}", type_name(item.data_type())),
        other => other.to_string().to_lowercase(),
    }
}
