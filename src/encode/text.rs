//! Text embeddings of the classes, computed once per prompt and model.

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

/// One embedding of unit length per class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassTexts {
    /// D.
    pub width: usize,
    /// `[C, width]`.
    pub values: Vec<f32>,
    /// SHA-256 of the text model, hex.
    pub model: String,
    /// Prompts that were encoded now, not taken from the cache.
    pub encoded: usize,
}

/// Embeds the prompts of every class: of several the mean of their embeddings of unit length (C: OpenAI CLIP,
/// `notebooks/Prompt_Engineering_for_ImageNet.ipynb`).
///
/// # Errors
/// [`EncodeError::Model`]; [`EncodeError::Write`] where embeddings cannot be kept.
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

/// Writes class, prompts and embedding of every class, as `label` reads them.
///
/// # Errors
/// [`IngestError::Io`], [`IngestError::Parquet`].
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
