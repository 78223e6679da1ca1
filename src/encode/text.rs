//! Computes the text embeddings of the classes, once for each prompt and model.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::cache::{Cache, EncodedBatch, Piece};
use super::error::EncodeError;
use super::model::{ModelError, ModelFolder, SessionOptions, TextEncoder, session};
use super::read::key;
use crate::ingest::IngestError;
use crate::ingest::shards::MODEL_KEY;

/// One text embedding of unit length for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassTexts {
    /// Number of values of an embedding (D).
    pub width: usize,
    /// The embeddings, of shape `[C, width]`.
    pub values: Vec<f32>,
    /// SHA-256 of the text model, in hexadecimal.
    pub model: String,
    /// Number of prompts that this run encoded; prompts from the cache do not count.
    pub encoded: usize,
}

/// Computes the text embedding of every class. If a class has several prompts, its embedding is the mean of the
/// prompts' embeddings of unit length, scaled to unit length again (as in OpenAI CLIP,
/// `notebooks/Prompt_Engineering_for_ImageNet.ipynb`).
///
/// # Errors
/// Returns [`EncodeError::Model`] if the text model or its tokenizer cannot be used, or if the embeddings of a class
/// cancel each other. Returns [`EncodeError::Write`] if an embedding cannot be written to the cache.
/// Returns [`EncodeError::Stopped`] if an embedding was removed from the cache during the run.
pub fn embed(
    folder: &ModelFolder,
    prompts: &[Vec<String>],
    cache: &Cache,
    options: &SessionOptions,
) -> Result<ClassTexts, EncodeError> {
    let model = session::sha256(&folder.text, options.external_data)?;
    let tokenizer = session::sha256(&folder.tokenizer, false)?;
    let settings = format!("{} {:?}", folder.max_tokens, folder.pad);
    let key_of = |prompt: &str| key(&["text", &model, &tokenizer, &settings], &[prompt.to_owned()]);
    let mut missing: Vec<&str> = prompts.iter().flatten().map(String::as_str).collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|prompt| cache.whole(&key_of(prompt)).is_none());
    if !missing.is_empty() {
        let mut encoder = TextEncoder::open(folder, options)?;
        let mut batch = EncodedBatch::default();
        for prompt in &missing {
            let row = encoder.encode(prompt)?;
            batch.width = row.len() as u32;
            batch.values.extend(row);
            let key = key_of(prompt);
            batch.totals.push((key.clone(), 1));
            batch.pieces.push(Piece {
                key,
                first: 0,
                count: 1,
            });
        }
        cache.keep(&batch)?;
    }
    let mut texts = ClassTexts {
        width: 0,
        values: Vec::new(),
        encoded: missing.len(),
        model: model.clone(),
    };
    for prompts in prompts {
        let mut mean: Vec<f64> = Vec::new();
        for prompt in prompts {
            let row = cache.row(&key_of(prompt)).ok_or_else(|| {
                EncodeError::Stopped(format!(
                    "the embedding of `{prompt}` was taken out of the cache meanwhile"
                ))
            })?;
            mean.resize(row.len(), 0.0);
            mean.iter_mut()
                .zip(&row)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let length = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length < 1e-6 {
            return Err(ModelError::Embedding {
                path: folder.text.clone(),
                what: format!("the prompts `{}`", prompts.join("`, `")),
                problem: "cancel each other",
            }
            .into());
        }
        texts.width = mean.len();
        texts
            .values
            .extend(mean.iter().map(|value| (value / length) as f32));
    }
    Ok(texts)
}

/// Writes the name, the prompts and the embedding of every class into a Parquet file that `label` reads.
///
/// # Errors
/// Returns [`IngestError::Io`] if the file cannot be created, and [`IngestError::Parquet`] if it cannot be written.
pub fn write(
    path: &Path,
    classes: &[Arc<str>],
    prompts: &[Vec<String>],
    texts: &ClassTexts,
) -> Result<(), IngestError> {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let width = i32::try_from(texts.width).expect("a model's width is small");
    let schema = Arc::new(Schema::new(vec![
        Field::new("class", DataType::Utf8, false),
        Field::new("prompt", DataType::Utf8, false),
        Field::new("feature", DataType::FixedSizeList(item.clone(), width), false),
    ]));
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![KeyValue::new(
            MODEL_KEY.to_owned(),
            texts.model.clone(),
        )]))
        .build();
    let build = || -> Result<RecordBatch, arrow::error::ArrowError> {
        let features = FixedSizeListArray::try_new(
            item,
            width,
            Arc::new(Float32Array::from(texts.values.clone())),
            None,
        )?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                classes.iter().map(|class| &**class),
            )),
            Arc::new(StringArray::from_iter_values(
                prompts.iter().map(|prompts| prompts.join(" | ")),
            )),
            Arc::new(features),
        ];
        RecordBatch::try_new(schema.clone(), columns)
    };
    let file = std::fs::File::create(path).map_err(IngestError::io("create", path))?;
    let write = || -> Result<(), ParquetError> {
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;
        writer.write(&build()?)?;
        writer.close().map(drop)
    };
    write().map_err(|error| IngestError::Parquet {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}
