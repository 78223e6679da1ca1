//! SQL over the tables of a store version, by DataFusion.
//!
//! Every table is there under its name, with the files that the version names and no others, and so is the view
//! `events`: maximal runs of labels (`video`, `modality` including `audio_visual`, `class`, `onset` and `offset` in
//! seconds, mean `score`).
//!
//! | module | what |
//! |---|---|
//! | [`output`] | results as a table, CSV, JSON or Parquet |
//! | [`prompt`] | the interactive prompt |

pub mod output;
pub mod prompt;

use std::path::Path;
use std::sync::Arc;

use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use tokio::runtime::Runtime;
use vaplan_schemas::StoreError;
use vaplan_schemas::store::{DataFile, Snapshot};
use vaplan_schemas::tables::{self, Table, Versions};

/// The view of maximal runs.
const EVENTS: &str = include_str!("events.sql");

/// What keeps a query from being answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store does not read back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQL that is wrong, or that fails on the data.
    #[error("{0}")]
    Sql(String),
    /// SQL that would write.
    #[error("a query only reads: {0}")]
    Writes(String),
    /// An answer that cannot be written.
    #[error("cannot write the answer")]
    Write(#[source] std::io::Error),
    /// The prompt cannot be shown.
    #[error("cannot read the prompt: {0}")]
    Prompt(String),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        let text = error.strip_backtrace();
        // The wording of `SQLOptions`: what it refuses is what would write.
        match text.split_once(" not supported: ") {
            Some((kind, statement))
                if kind.ends_with("DDL") || kind.ends_with("DML") || kind.ends_with("Statement") =>
            {
                QueryError::Writes(format!("{statement} is refused"))
            }
            _ => QueryError::Sql(text),
        }
    }
}

/// A store version, ready to be asked.
pub struct Session {
    runtime: Runtime,
    context: SessionContext,
}

impl Session {
    /// Registers the tables of a version and the view `events`.
    ///
    /// # Errors
    /// [`QueryError::Store`] where a table's log does not read back.
    pub fn open(snapshot: &Snapshot) -> Result<Session, QueryError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| StoreError::Io {
                action: "start the reader of",
                path: snapshot.store().root().to_owned(),
                source,
            })?;
        let config = SessionConfig::new().with_information_schema(true);
        let context = SessionContext::new_with_config(config);
        for (name, schema) in tables::all() {
            register(&context, name, &schema, &snapshot.files(name)?)?;
        }
        register(
            &context,
            Versions::NAME,
            &Versions::schema(),
            &snapshot.version_files()?,
        )?;
        let session = Session { runtime, context };
        let events = session.runtime.block_on(session.context.sql(EVENTS))?;
        session.context.register_table("events", events.into_view())?;
        Ok(session)
    }

    /// Asks one statement; the answer comes in batches as it is made.
    ///
    /// # Errors
    /// [`QueryError::Sql`], [`QueryError::Writes`].
    pub fn ask(&self, sql: &str) -> Result<Answer<'_>, QueryError> {
        let reads = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let stream = self.runtime.block_on(async {
            let frame = self.context.sql_with_options(sql, reads).await?;
            frame.execute_stream().await
        })?;
        Ok(Answer {
            session: self,
            stream,
        })
    }

    /// Names of tables and views, sorted.
    pub fn tables(&self) -> Vec<String> {
        let schema = self
            .context
            .catalog("datafusion")
            .and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }
}

/// An answer in the making.
pub struct Answer<'a> {
    session: &'a Session,
    stream: SendableRecordBatchStream,
}

impl Answer<'_> {
    /// Its columns.
    pub fn schema(&self) -> arrow::datatypes::SchemaRef {
        self.stream.schema()
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<arrow::array::RecordBatch, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        use futures::StreamExt;
        let next = self.session.runtime.block_on(self.stream.next());
        next.map(|batch| batch.map_err(QueryError::from))
    }
}

fn register(
    context: &SessionContext,
    name: &str,
    schema: &arrow::datatypes::SchemaRef,
    files: &[DataFile],
) -> Result<(), QueryError> {
    let schema = Arc::new(tables::plain(schema));
    if files.is_empty() {
        context.register_table(name, Arc::new(EmptyTable::new(schema)))?;
        return Ok(());
    }
    let urls = files
        .iter()
        .map(|file| url(&file.path))
        .collect::<Result<Vec<_>, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(schema);
    context.register_table(name, Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}

/// By URL and without a glob: a store's folder may be named `*` or `[x]`.
fn url(path: &Path) -> Result<ListingTableUrl, QueryError> {
    let url = url::Url::from_file_path(path)
        .map_err(|()| QueryError::Sql(format!("`{}` is not absolute", path.display())))?;
    Ok(ListingTableUrl::try_new(url, None)?)
}
