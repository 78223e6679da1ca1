//! The tables of one store version in SQL, read-only.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use futures::StreamExt;
use tokio::runtime::Runtime;
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{self, Table, Versions};

use super::QueryError;
use super::files::provider;

/// Definition of the view `events`.
///
/// One row per maximal run of set labels of a video, modality and class. `modality` is `audio`, `visual`, or
/// `audio_visual` for the runs of segments that are set in both (METHOD.md: AV = A and V, grade C). `onset` and
/// `offset` are seconds from the start of the video, segment number times `videos.segment_seconds`; `offset` is the
/// end of the last segment. `score` is the mean over the run of what was compared with the threshold, of an
/// audio-visual run the mean of both modalities; labels that a person set have none and do not count.
pub const EVENTS: &str = include_str!("events.sql");

/// One store version, open for SQL: its tables, `versions` up to it, and the view [`EVENTS`].
pub struct Session {
    context: SessionContext,
    runtime: Runtime,
    version: u64,
    tables: Vec<TableEntry>,
    /// Its files stay while they are read.
    _snapshot: Snapshot,
}

/// A table or view that a session has.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// Name in SQL.
    pub name: &'static str,
    /// Columns.
    pub schema: SchemaRef,
    /// Rows, where the store's log tells; not of a view.
    pub rows: Option<u64>,
}

impl Session {
    /// Opens exactly the files that the version names: commits meanwhile change nothing.
    ///
    /// # Errors
    /// [`QueryError::Store`] where the store does not read back, [`QueryError::Sql`] where a file is no Parquet.
    pub fn open(snapshot: &Snapshot) -> Result<Session, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("vaplan-query")
            .enable_all()
            .build()?;
        // DESCRIBE and SHOW TABLES read the information schema; filters run while Parquet decodes.
        let config = SessionConfig::new()
            .with_information_schema(true)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        let version = snapshot.version().version;
        let mut entries = Vec::new();
        let mut files = Vec::new();
        for (name, schema) in tables::all() {
            files.push((name, schema, snapshot.files(name)?));
        }
        let mut versions = snapshot.version_files()?;
        versions.retain(|file| file.version().is_none_or(|of_file| of_file <= version));
        files.push((Versions::NAME, Versions::schema(), versions));
        for (name, schema, files) in files {
            let schema = Arc::new(tables::plain(&schema));
            let rows = Some(files.iter().map(|file| file.rows).sum());
            let table = provider(&schema, &files).map_err(QueryError::sql)?;
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
        Ok(Session {
            context,
            runtime,
            version,
            tables: entries,
            _snapshot: snapshot.clone(),
        })
    }

    /// Store version that is asked.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Tables and views.
    pub fn tables(&self) -> &[TableEntry] {
        &self.tables
    }

    /// The statements of a text, parted by `;`.
    ///
    /// # Errors
    /// [`QueryError::Sql`] where it does not parse, [`QueryError::Statements`] where it holds none.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, QueryError> {
        let statements = DFParser::parse_sql(sql).map_err(QueryError::sql)?;
        if statements.is_empty() {
            return Err(QueryError::Statements {
                found: 0,
                expected: "one",
            });
        }
        Ok(statements.into())
    }

    /// The one statement of a text.
    ///
    /// # Errors
    /// As [`Session::parse`], and [`QueryError::Statements`] where there are more.
    pub fn parse_one(&self, sql: &str) -> Result<Statement, QueryError> {
        let mut statements = self.parse(sql)?;
        match (statements.pop(), statements.len()) {
            (Some(statement), 0) => Ok(statement),
            (_, more) => Err(QueryError::Statements {
                found: more + 1,
                expected: "one, as the format holds one answer",
            }),
        }
    }

    /// Plans a statement and begins to run it; rows come as they are asked for.
    ///
    /// # Errors
    /// [`QueryError::ReadOnly`] for a statement that would change something, [`QueryError::Sql`] for one that does
    /// not plan.
    pub fn start(&self, statement: Statement) -> Result<Rows<'_>, QueryError> {
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
        Ok(Rows {
            stream,
            runtime: &self.runtime,
        })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The rows of an answer, batch by batch.
pub struct Rows<'a> {
    stream: SendableRecordBatchStream,
    runtime: &'a Runtime,
}

impl Rows<'_> {
    /// Columns, known before the first row.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime
            .block_on(self.stream.next())
            .map(|batch| batch.map_err(QueryError::sql))
    }
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("schema", &self.schema())
            .finish_non_exhaustive()
    }
}

/// A column's type in a word.
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
