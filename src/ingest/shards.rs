//! Writes feature shards: Parquet files with one row per segment, in the format that [`features`](super::features)
//! reads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array,
    Int32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use half::f16;
use half::slice::HalfFloatSliceExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use vaplan_schemas::Modality;

use super::error::IngestError;
use super::parquet::{DTYPE_KEY, FEATURE, WIDTH_KEY};

/// Metadata key for the SHA-256 (hexadecimal) of the model that made the features.
pub const MODEL_KEY: &str = "vaplan.model";

/// Approximate number of bytes of features per row group. The writer holds one row group in memory, and readers can
/// start only at the beginning of a row group.
const GROUP_BYTES: usize = 16 << 20;
/// Approximate number of bytes per page. A page is read with one call, and is small enough for a second-level cache.
const PAGE_BYTES: usize = 256 << 10;

/// Type of the values on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatType {
    /// 16 bits: half the size of f32, exact to 3 digits.
    #[default]
    F16,
    /// 32 bits.
    F32,
}

impl FloatType {
    /// The name of the type in metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            FloatType::F16 => "f16",
            FloatType::F32 => "f32",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            FloatType::F16 => 2,
            FloatType::F32 => 4,
        }
    }
}

/// Form of the feature column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeatureLayout {
    /// Fixed-size binary. It is read ten times faster than a list.
    #[default]
    Packed,
    /// Fixed-size list. Every Parquet tool can show its numbers.
    List,
}

/// The contents and format of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFormat {
    /// Modality of every row.
    pub modality: Modality,
    /// Number D of values per row.
    pub width: usize,
    /// Type of the values.
    pub float: FloatType,
    /// Form of the feature column.
    pub layout: FeatureLayout,
    /// SHA-256 (hexadecimal) of the model that made the features. `None` if no model made them.
    pub model: Option<String>,
}

/// Writes one shard.
///
/// Features are stored without compression, because embeddings do not compress. Names are dictionary-encoded.
///
/// ```
/// use vaplan::ingest::shards::{FeatureLayout, FloatType, ShardFormat, ShardWriter};
/// use vaplan_schemas::Modality;
/// # let folder = tempfile::tempdir()?;
/// let format = ShardFormat {
///     modality: Modality::Visual,
///     width: 2,
///     float: FloatType::F16,
///     layout: FeatureLayout::Packed,
///     model: None,
/// };
/// let mut shard = ShardWriter::create(&folder.path().join("visual-00000.parquet"), format)?;
/// shard.append("BjCEufrlXm4_20_30", &[0.5, 1.0, 0.25, 0.0])?; // two segments
/// assert_eq!(shard.finish()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShardWriter {
    path: PathBuf,
    format: ShardFormat,
    schema: SchemaRef,
    writer: ArrowWriter<File>,
    rows_per_batch: usize,
    /// Names of the batch. `name_of` and `segments` have the name and the segment of each row.
    names: Vec<String>,
    name_of: Vec<i32>,
    segments: Vec<u32>,
    values: Vec<f32>,
    rows: u64,
}

impl ShardWriter {
    /// Creates a file. An existing file is overwritten.
    ///
    /// # Errors
    /// - Returns [`IngestError::Io`] if the file cannot be created or written.
    /// - Returns [`IngestError::Parquet`] if the Parquet writer fails.
    ///
    /// # Panics
    /// Panics if the width is 0, or if a row would have 2 GiB or more.
    pub fn create(path: &Path, format: ShardFormat) -> Result<ShardWriter, IngestError> {
        let row = format.width * format.float.bytes();
        assert!(
            row > 0 && i32::try_from(row).is_ok(),
            "width {} makes no row",
            format.width
        );
        let schema = schema(&format);
        let rows_per_group = (GROUP_BYTES / row).clamp(256, 1 << 16);
        let feature = match format.layout {
            FeatureLayout::Packed => ColumnPath::from(FEATURE),
            FeatureLayout::List => ColumnPath::from(vec![FEATURE.into(), "list".into(), "item".into()]),
        };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_max_row_group_row_count(Some(rows_per_group))
            .set_data_page_size_limit(PAGE_BYTES)
            // The writer checks the size of a page after this many rows.
            .set_write_batch_size((PAGE_BYTES / row).clamp(1, 1024))
            .set_column_dictionary_enabled(feature.clone(), false)
            .set_column_statistics_enabled(feature, EnabledStatistics::None);
        let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        let mut metadata = vec![
            pair(DTYPE_KEY, format.float.as_str().to_owned()),
            pair(WIDTH_KEY, format.width.to_string()),
        ];
        metadata.extend(format.model.clone().map(|model| pair(MODEL_KEY, model)));
        properties = properties.set_key_value_metadata(Some(metadata));
        let file = File::create(path).map_err(IngestError::io("create", path))?;
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.build()));
        Ok(ShardWriter {
            writer: writer.map_err(|error| failed(path, error))?,
            path: path.to_owned(),
            rows_per_batch: rows_per_group.min(1024),
            format,
            schema,
            names: Vec::new(),
            name_of: Vec::new(),
            segments: Vec::new(),
            values: Vec::new(),
            rows: 0,
        })
    }

    /// Appends a video with values of shape `[T, width]`, row-major.
    ///
    /// # Errors
    /// Returns the errors of [`ShardWriter::create`].
    ///
    /// # Panics
    /// Panics if the values are not a whole number of rows.
    pub fn append(&mut self, video: &str, values: &[f32]) -> Result<(), IngestError> {
        assert_eq!(
            values.len() % self.format.width,
            0,
            "{} values are no rows",
            values.len()
        );
        let name = i32::try_from(self.names.len()).expect("a batch has few names");
        self.names.push(video.to_owned());
        for segment in 0..values.len() / self.format.width {
            self.name_of.push(name);
            self.segments
                .push(u32::try_from(segment).expect("memory holds fewer segments"));
        }
        self.values.extend_from_slice(values);
        if self.segments.len() >= self.rows_per_batch {
            self.write()
        } else {
            Ok(())
        }
    }

    /// Writes the remaining rows and closes the file. Returns the number of rows.
    ///
    /// # Errors
    /// Returns the errors of [`ShardWriter::create`].
    pub fn finish(mut self) -> Result<u64, IngestError> {
        self.write()?;
        let path = self.path.clone();
        self.writer.close().map_err(|error| failed(&path, error))?;
        Ok(self.rows)
    }

    fn write(&mut self) -> Result<(), IngestError> {
        let values = std::mem::take(&mut self.values);
        let names = StringArray::from_iter_values(self.names.drain(..));
        let keys = Int32Array::from(std::mem::take(&mut self.name_of));
        let segments = UInt32Array::from(std::mem::take(&mut self.segments));
        let count = segments.len();
        let modality = StringArray::from_iter_values([self.format.modality.as_str()]);
        let build = || -> Result<RecordBatch, arrow::error::ArrowError> {
            let modality =
                DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; count]), Arc::new(modality))?;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(names))?),
                Arc::new(modality),
                Arc::new(segments),
                feature(&self.format, &values)?,
            ];
            RecordBatch::try_new(self.schema.clone(), columns)
        };
        let written = build()
            .map_err(ParquetError::from)
            .and_then(|batch| self.writer.write(&batch));
        self.rows += count as u64;
        written.map_err(|error| failed(&self.path, error))
    }
}

fn schema(format: &ShardFormat) -> SchemaRef {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("video", text(), false),
        Field::new("modality", text(), false),
        Field::new("segment", DataType::UInt32, false),
        Field::new(FEATURE, feature_type(format), false),
    ]))
}

fn item(format: &ShardFormat) -> Arc<Field> {
    let float = match format.float {
        FloatType::F16 => DataType::Float16,
        FloatType::F32 => DataType::Float32,
    };
    Arc::new(Field::new("item", float, false))
}

fn feature_type(format: &ShardFormat) -> DataType {
    let bytes = format.width * format.float.bytes();
    match format.layout {
        FeatureLayout::Packed => DataType::FixedSizeBinary(bytes as i32),
        FeatureLayout::List => DataType::FixedSizeList(item(format), format.width as i32),
    }
}

fn feature(format: &ShardFormat, values: &[f32]) -> Result<ArrayRef, arrow::error::ArrowError> {
    let halves = || {
        let mut halves = vec![f16::ZERO; values.len()];
        halves.convert_from_f32_slice(values);
        halves
    };
    Ok(match format.layout {
        FeatureLayout::Packed => {
            let bytes: Vec<u8> = match format.float {
                FloatType::F16 => halves().iter().flat_map(|value| value.to_le_bytes()).collect(),
                FloatType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            };
            let width = (format.width * format.float.bytes()) as i32;
            Arc::new(FixedSizeBinaryArray::try_new(
                width,
                Buffer::from_vec(bytes),
                None,
            )?)
        }
        FeatureLayout::List => {
            let values: ArrayRef = match format.float {
                FloatType::F16 => Arc::new(Float16Array::from(halves())),
                FloatType::F32 => Arc::new(Float32Array::from(values.to_vec())),
            };
            Arc::new(FixedSizeListArray::try_new(
                item(format),
                format.width as i32,
                values,
                None,
            )?)
        }
    })
}

fn failed(path: &Path, error: ParquetError) -> IngestError {
    match error {
        // Report a full disk as an I/O error, not as a problem of the Parquet format.
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => IngestError::Io {
                action: "write",
                path: path.to_owned(),
                source: *source,
            },
            Err(source) => IngestError::Parquet {
                path: path.to_owned(),
                problem: source.to_string(),
            },
        },
        error => IngestError::Parquet {
            path: path.to_owned(),
            problem: error.to_string(),
        },
    }
}
