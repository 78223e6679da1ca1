//! Reads the feature column in each of its encodings.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{AsBytes, FixedLenByteArray, FixedLenByteArrayType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use vaplan_schemas::contain::contain;

use super::source::Source;
use super::{DTYPE_KEY, FEATURE, WIDTH_KEY};
use crate::ingest::floats;

/// Type of packed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    F16,
    F32,
}

/// How the feature of a row is stored.
pub(super) enum Encoding {
    /// Fixed-size binary of little-endian floats. `leaf` is the position of the column among all leaf columns.
    Packed {
        leaf: usize,
        optional: bool,
        dtype: Packed,
        width: usize,
    },
    /// List of floats, of fixed or variable size.
    List,
}

impl Encoding {
    pub(super) fn find(
        metadata: &ArrowReaderMetadata,
        column: usize,
        stated: &BTreeMap<String, String>,
    ) -> Result<Encoding, String> {
        const LISTS: &str = "fixed-size binary, or a list of integers or of 16, 32 or 64 bit floats";
        let field = metadata.schema().field(column);
        let number = |item: &DataType| {
            let float = matches!(item, DataType::Float16 | DataType::Float32 | DataType::Float64);
            float || item.is_integer()
        };
        match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                if number(item.data_type()) =>
            {
                Ok(Encoding::List)
            }
            DataType::FixedSizeBinary(bytes) => Encoding::packed(metadata, field.name(), *bytes, stated),
            found => Err(format!("column `{}` is {found}, expected {LISTS}", field.name())),
        }
    }

    fn packed(
        metadata: &ArrowReaderMetadata,
        name: &str,
        bytes: i32,
        stated: &BTreeMap<String, String>,
    ) -> Result<Encoding, String> {
        let bytes = usize::try_from(bytes).map_err(|_| format!("column `{name}` has {bytes} bytes"))?;
        let dtype = match stated.get(DTYPE_KEY).map(String::as_str) {
            Some("f16") => Packed::F16,
            Some("f32") => Packed::F32,
            Some(other) => {
                return Err(format!(
                    "metadata `{DTYPE_KEY}` is `{other}`, expected `f16` or `f32`"
                ));
            }
            None => {
                return Err(format!(
                    "column `{name}` is {bytes} bytes a row of unknown type, expected metadata `{DTYPE_KEY}` = \
                     `f16` or `f32` of the column or the file"
                ));
            }
        };
        let size = if dtype == Packed::F16 { 2 } else { 4 };
        if bytes == 0 || bytes % size != 0 {
            return Err(format!(
                "column `{name}` is {bytes} bytes a row, expected a multiple of {size}"
            ));
        }
        let width = bytes / size;
        if let Some(expected_width) = stated.get(WIDTH_KEY)
            && expected_width.parse() != Ok(width)
        {
            return Err(format!(
                "metadata `{WIDTH_KEY}` is `{expected_width}`, expected {width} for {bytes} bytes a row"
            ));
        }
        let schema = metadata.parquet_schema();
        let leaf = (0..schema.num_columns()).find(|&leaf| {
            let column = schema.column(leaf);
            column.path().parts() == [name]
                && column.physical_type() == PhysicalType::FIXED_LEN_BYTE_ARRAY
                && column.max_rep_level() == 0
                && column.max_def_level() <= 1
        });
        let leaf = leaf.ok_or_else(|| format!("column `{name}` is nested, expected one value a row"))?;
        let optional = schema.column(leaf).max_def_level() == 1;
        Ok(Encoding::Packed {
            leaf,
            optional,
            dtype,
            width,
        })
    }
}

/// Reader of the packed features of one row group.
pub(super) struct PackedReader {
    reader: ColumnReaderImpl<FixedLenByteArrayType>,
    optional: bool,
    dtype: Packed,
    width: usize,
}

impl PackedReader {
    pub(super) fn open(
        source: &Arc<Source>,
        metadata: &ParquetMetaData,
        group: usize,
        leaf: usize,
        optional: bool,
        dtype: Packed,
        width: usize,
    ) -> Result<PackedReader, String> {
        let group = metadata.row_group(group);
        let rows = usize::try_from(group.num_rows()).map_err(|error| error.to_string())?;
        let open = || {
            let chunk = group
                .columns()
                .get(leaf)
                .ok_or_else(|| "row group lacks a column".to_owned())?;
            let pages = SerializedPageReader::new(source.clone(), chunk, rows, None);
            let pages = pages.map_err(|error| error.to_string())?;
            Ok(ColumnReaderImpl::new(chunk.column_descr_ptr(), Box::new(pages)))
        };
        let reader = contain(open).and_then(|opened| opened)?;
        Ok(PackedReader {
            reader,
            optional,
            dtype,
            width,
        })
    }

    /// Reads the next `count` rows.
    pub(super) fn next(&mut self, count: usize) -> Result<Features, String> {
        let mut values = Vec::with_capacity(count);
        let mut levels = Vec::new();
        let mut records = 0;
        while records < count {
            let there = self.optional.then_some(&mut levels);
            let read = contain(|| {
                self.reader
                    .read_records(count - records, there, None, &mut values)
            })?;
            let (more, _, _) = read.map_err(|error| error.to_string())?;
            if more == 0 {
                return Err(format!(
                    "column `{FEATURE}` ends {} rows before the others",
                    count - records
                ));
            }
            records += more;
        }
        let values = if self.optional {
            let mut values = values.into_iter();
            levels
                .iter()
                .map(|&level| if level > 0 { values.next() } else { None })
                .collect()
        } else {
            values.into_iter().map(Some).collect()
        };
        Ok(Features::Packed {
            values,
            dtype: self.dtype,
            width: self.width,
        })
    }
}

/// Features of some rows.
pub(crate) enum Features {
    Packed {
        values: Vec<Option<FixedLenByteArray>>,
        dtype: Packed,
        width: usize,
    },
    List {
        list: ArrayRef,
        values: ArrayRef,
        bounds: Vec<usize>,
    },
    /// Only the key columns of the rows were read.
    Unread,
}

impl Features {
    pub(super) fn of_list(list: &ArrayRef) -> Result<Features, String> {
        let (values, bounds) = match list.data_type() {
            DataType::List(_) => {
                let array = list.as_list::<i32>();
                (
                    array.values(),
                    array.value_offsets().iter().map(|&at| at as usize).collect(),
                )
            }
            DataType::LargeList(_) => {
                let array = list.as_list::<i64>();
                (
                    array.values(),
                    array.value_offsets().iter().map(|&at| at as usize).collect(),
                )
            }
            DataType::FixedSizeList(_, width) => {
                let (array, width) = (list.as_fixed_size_list(), (*width).max(0) as usize);
                (array.values(), (0..=array.len()).map(|row| row * width).collect())
            }
            other => return Err(format!("column `{FEATURE}` is {other}, expected a list")),
        };
        // Integers become floats, as in an npy file.
        let values = match values.data_type() {
            item if item.is_integer() => {
                let cast = contain(|| arrow::compute::cast(values, &DataType::Float32))?;
                cast.map_err(|error| error.to_string())?
            }
            _ => values.clone(),
        };
        Ok(Features::List {
            list: list.clone(),
            values,
            bounds,
        })
    }

    /// Appends the feature of a row and returns its width. The error describes the problem with this row.
    pub(crate) fn append(&self, row: usize, out: &mut Vec<f32>) -> Result<usize, String> {
        let null = || format!("{FEATURE} is null, expected floats");
        match self {
            Features::Unread => Err(format!("{FEATURE} was not read")),
            Features::Packed { values, dtype, width } => {
                let bytes = values
                    .get(row)
                    .and_then(Option::as_ref)
                    .ok_or_else(null)?
                    .as_bytes();
                let size = if *dtype == Packed::F16 { 2 } else { 4 };
                if bytes.len() != width * size {
                    return Err(format!(
                        "{FEATURE} is {} bytes, expected {}",
                        bytes.len(),
                        width * size
                    ));
                }
                match dtype {
                    Packed::F16 => floats::append_f16(bytes, out),
                    Packed::F32 => floats::append_f32(bytes, out),
                }
                Ok(*width)
            }
            Features::List { list, values, bounds } => {
                if list.is_null(row) {
                    return Err(null());
                }
                let (from, to) = (bounds[row], bounds[row + 1]);
                if values.null_count() > 0
                    && let Some(at) = (from..to).find(|&at| values.is_null(at))
                {
                    return Err(format!("{FEATURE} value {} is null, expected a float", at - from));
                }
                match values.data_type() {
                    DataType::Float16 => {
                        floats::append_f16_values(
                            &values.as_primitive::<Float16Type>().values()[from..to],
                            out,
                        );
                    }
                    DataType::Float32 => {
                        out.extend_from_slice(&values.as_primitive::<Float32Type>().values()[from..to]);
                    }
                    DataType::Float64 => {
                        let values = &values.as_primitive::<Float64Type>().values()[from..to];
                        out.extend(values.iter().map(|&value| value as f32));
                    }
                    other => return Err(format!("{FEATURE} holds {other}, expected floats")),
                }
                Ok(to - from)
            }
        }
    }
}
