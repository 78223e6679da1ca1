//! Writes a classifier's scores in the place of embeddings, so that `label` can compare the scores with thresholds.
//!
//! The feature of a segment is `(p_1, .., p_C, rest) / scale`. Here `p_c` is the probability of class c, `scale` is the
//! square root of C, and `rest` makes the feature unit length. The text embedding of class c is the unit vector with 1
//! at position c. The cosine of both is `p_c / scale`. Therefore `label --rule logit --audio-scale SCALE
//! --audio-threshold 0.5` sets a label if the classifier's probability is above 0.5.

use std::collections::BTreeMap;
use std::path::Path;

use super::ModelError;
use super::folder::{ClassifierScores, ModelFolder};
use crate::encode::text::ClassTexts;

/// The scores of a classifier that belong to each class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassScores {
    /// For each class, the positions of its scores; if a class has several scores, the highest one is used.
    columns: Vec<Vec<usize>>,
    /// Number of scores that the model gives for a segment.
    found: usize,
    scores: ClassifierScores,
}

/// The position of a class without a score, and the prompts by which its score was searched.
type Unknown = (usize, String);

impl ClassScores {
    /// Finds the scores of every class: a score belongs to a class if the score's name equals a prompt of the class.
    /// The comparison ignores upper and lower case, `_`, commas and brackets. The function also returns the classes
    /// without a score; the probability of these classes is always 0.
    ///
    /// # Errors
    /// Returns [`ModelError::Folder`] if the names cannot be read, or if their number differs from the number of
    /// scores.
    pub fn new(
        folder: &ModelFolder,
        found: usize,
        prompts: &[Vec<String>],
    ) -> Result<(ClassScores, Vec<Unknown>), ModelError> {
        let bad = |problem: String| ModelError::Folder {
            path: folder.path.clone(),
            problem,
        };
        let names = names(&folder.tokenizer).map_err(bad)?;
        if names.len() != found {
            return Err(bad(format!(
                "`{}` has {} names, expected {found} as the model has scores",
                folder.tokenizer.display(),
                names.len()
            )));
        }
        let places: BTreeMap<String, usize> = names
            .iter()
            .enumerate()
            .map(|(place, name)| (plain(name), place))
            .collect();
        let mut unknown = Vec::new();
        let mut columns = Vec::with_capacity(prompts.len());
        for (class, prompts) in prompts.iter().enumerate() {
            let own: Vec<usize> = prompts
                .iter()
                .filter_map(|prompt| places.get(&plain(prompt)).copied())
                .collect();
            if own.is_empty() {
                unknown.push((class, prompts.join("`, `")));
            }
            columns.push(own);
        }
        let scores = folder.classifier.scores;
        Ok((
            ClassScores {
                columns,
                found,
                scores,
            },
            unknown,
        ))
    }

    /// The scores of a folder whose columns are known: [`ClassScores::columns`] of an earlier encoding.
    ///
    /// # Errors
    /// Returns a message if the model gives fewer scores than the columns name.
    pub fn of_columns(
        folder: &ModelFolder,
        found: usize,
        columns: Vec<Vec<usize>>,
    ) -> Result<ClassScores, String> {
        let most = columns.iter().flatten().copied().max().unwrap_or(0);
        match most < found {
            true => Ok(ClassScores {
                columns,
                found,
                scores: folder.classifier.scores,
            }),
            false => Err(format!("gives {found} scores, expected at least {}", most + 1)),
        }
    }

    /// The positions of the scores of each class.
    pub fn columns(&self) -> &[Vec<usize>] {
        &self.columns
    }

    /// Number of values of a feature: one for each class, and one for `rest`.
    pub fn width(&self) -> usize {
        self.columns.len() + 1
    }

    /// The scale that turns a cosine into a probability: the square root of the number of classes.
    pub fn scale(&self) -> f64 {
        (self.columns.len() as f64).sqrt()
    }

    /// Turns the scores of segments, of shape `[T, found]`, into features of shape `[T, width]`.
    pub fn rows(&self, scores: &[f32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(scores.len() / self.found * self.width());
        for segment in scores.chunks_exact(self.found) {
            let mut square = 0.0;
            for columns in &self.columns {
                let probability = columns
                    .iter()
                    .map(|&column| self.probability(segment[column]))
                    .fold(0.0, f64::max);
                square += probability * probability;
                rows.push((probability / self.scale()) as f32);
            }
            let rest = (self.columns.len() as f64 - square).max(0.0).sqrt();
            rows.push((rest / self.scale()) as f32);
        }
        rows
    }

    fn probability(&self, score: f32) -> f64 {
        match self.scores {
            ClassifierScores::Logit => 1.0 / (1.0 + (-f64::from(score)).exp()),
            ClassifierScores::Probability => f64::from(score).clamp(0.0, 1.0),
        }
    }

    /// Returns the text embeddings: for each class, the unit vector with 1 at the position of the class.
    pub fn texts(&self, model: &str) -> ClassTexts {
        let width = self.width();
        let cell = |at: usize| if at / width == at % width { 1.0 } else { 0.0 };
        ClassTexts {
            width,
            values: (0..self.columns.len() * width).map(cell).collect(),
            model: model.to_owned(),
            encoded: 0,
        }
    }
}

/// Reads the names of the scores: one in each line, or the column `display_name` of a CSV file.
fn names(path: &Path) -> Result<Vec<String>, String> {
    let failed = |problem: String| format!("list of labels `{}` {problem}", path.display());
    if path.extension().is_none_or(|extension| extension != "csv") {
        let text =
            std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let mut reader =
        csv::Reader::from_path(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let headers = reader
        .headers()
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    let column = headers.iter().position(|header| header == "display_name");
    let column = column.ok_or_else(|| failed("has no column `display_name`".to_owned()))?;
    reader
        .records()
        .map(|record| {
            let record = record.map_err(|error| failed(format!("cannot be read: {error}")))?;
            Ok(record.get(column).unwrap_or_default().to_owned())
        })
        .collect()
}

/// Turns a name into words of letters and digits, in lower case and separated by one space.
fn plain(name: &str) -> String {
    let words = name.to_lowercase();
    words
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_times_the_scale_are_the_probabilities() {
        let scores = ClassScores {
            columns: vec![vec![2], vec![0, 1], vec![]],
            found: 3,
            scores: ClassifierScores::Logit,
        };
        let row = scores.rows(&[-1.0, 0.5, 2.0]);
        let texts = scores.texts("model");
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let length: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        for (text, wanted) in texts.values.chunks(4).zip([sigmoid(2.0), sigmoid(0.5), 0.0]) {
            let cosine: f64 = row.iter().zip(text).map(|(a, b)| f64::from(a * b)).sum();
            assert!((cosine * scores.scale() - wanted).abs() < 1e-6, "{cosine}");
        }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.csv");
        std::fs::write(
            &path,
            "index,mid,display_name\n0,/m/0,Speech\n1,/m/1,\"Violin, fiddle\"\n",
        )
        .unwrap();
        assert_eq!(names(&path).unwrap(), ["Speech", "Violin, fiddle"]);
        assert_eq!(plain("Violin_fiddle"), plain("Violin, fiddle"));
        assert_eq!(plain("Frying (food)"), plain("frying food"));
        std::fs::write(&path, "index,mid\n0,/m/0\n").unwrap();
        assert!(names(&path).unwrap_err().contains("has no column `display_name`"));
    }
}
