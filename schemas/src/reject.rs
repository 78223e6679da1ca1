//! Rejected rows and notes: the row type of table `rejects`.

use crate::ids::Modality;

/// Tells whether a row of `rejects` means that input was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input was left out. The program ends with exit status 1.
    Reject,
    /// The input is odd, but the program reads it as the public evaluator does; nothing was left out.
    Note,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The reason class of a row of `rejects`.
        ///
        /// The program decides by the kind, never by the text of [`RejectRow::reason`]. So a message can be reworded
        /// without changing which rows a relabelling removes.
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum RejectKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl RejectKind {
            /// All kinds.
            pub const ALL: &'static [RejectKind] = &[$(RejectKind::$kind),*];

            /// The name of the kind in column `kind`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(RejectKind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// The row was written by a program version that had no kinds.
    #[default]
    Unknown = "unknown",
    /// A video has no usable features of the modality.
    MissingFeatures = "missing_features",
    /// A video has several features of the modality that differ.
    FeatureConflict = "feature_conflict",
    /// The audio and the visual features of a video have different numbers of segments.
    UnequalLengths = "unequal_lengths",
    /// A class of the weak label has no score.
    UnscoredClass = "unscored_class",
    /// A user label has no label that it could set.
    UserLabel = "user_label",
    /// The predictions of a video have another number of segments than its labels.
    PredictionLength = "prediction_length",
    /// The value of a prediction is not a probability.
    PredictionValue = "prediction_value",
    /// Two predictions of one video, modality and epoch differ.
    PredictionConflict = "prediction_conflict",
    /// A line is not a row of its file: wrong number of fields, not UTF-8, or a NUL.
    MalformedLine = "malformed_line",
    /// A row names no video.
    EmptyName = "empty_name",
    /// A field has a value that is not allowed, or that is odd.
    FieldValue = "field_value",
    /// Classes keep their threshold, because the weak labels do not tell a better one.
    FittedThreshold = "fitted_threshold",
    /// A row names a class that is not in the list of classes.
    UnknownClass = "unknown_class",
    /// Several rows or files are for one video.
    RepeatedVideo = "repeated_video",
    /// A row names a video that is in no split.
    UnknownVideo = "unknown_video",
    /// Dense events have a class that is outside the weak label.
    OutsideWeakLabel = "outside_weak_label",
    /// A video of a split with dense truth has no dense event.
    NoEvent = "no_event",
    /// A file cannot be read, or cannot be read to its end.
    UnreadableFile = "unreadable_file",
    /// A file has no rows.
    EmptyFile = "empty_file",
    /// The key of a feature or label file can mean several videos. Column `video` holds the key.
    AmbiguousKey = "ambiguous_key",
    /// A row of a feature or prediction file cannot be used.
    FeatureRow = "feature_row",
    /// The label files of one video differ.
    LabelConflict = "label_conflict",
    /// A media file cannot be decoded, or lacks a modality.
    Media = "media",
    /// A segment has no embedding.
    Embedding = "embedding",
    /// The name of a video cannot be a file name.
    FileName = "file_name",
    /// An encoder has no text for a class.
    Prompt = "prompt",
}

impl RejectKind {
    /// Returns whether the label graph writes rows of this kind. A relabelling of the video replaces such rows.
    pub const fn is_of_graph(self) -> bool {
        matches!(
            self,
            RejectKind::MissingFeatures
                | RejectKind::FeatureConflict
                | RejectKind::UnequalLengths
                | RejectKind::UnscoredClass
                | RejectKind::UserLabel
        ) || self.is_of_predictions()
    }

    /// Returns whether the label graph writes rows of this kind because of a prediction.
    pub const fn is_of_predictions(self) -> bool {
        matches!(self, RejectKind::PredictionLength | RejectKind::PredictionValue)
    }

    /// Returns whether column `file` of a row of this kind names all inputs of the modality.
    pub const fn names_inputs(self) -> bool {
        matches!(
            self,
            RejectKind::MissingFeatures | RejectKind::UnequalLengths | RejectKind::UnscoredClass
        )
    }
}

impl std::fmt::Display for RejectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for RejectKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = RejectKind::ALL.iter().find(|kind| kind.as_str() == text);
        found.copied().ok_or_else(|| {
            format!(
                "kind is `{text}`, expected one of the kinds that docs/tables.md lists for table `rejects`"
            )
        })
    }
}

/// A row of table `rejects`; the key is all columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RejectRow {
    /// The file that holds the input; all inputs of a modality, separated by `, `; or the table name `user_labels` or
    /// `predictions`.
    pub file: String,
    /// The place in the file: lines count from 1, as in an editor, and segment rows of a shard count from 0. `None`
    /// means the whole file.
    pub row: Option<u64>,
    /// The video, if known. In rows of kind [`RejectKind::AmbiguousKey`] this field holds the key.
    pub video: Option<String>,
    /// Rejected input or a note.
    pub severity: Severity,
    /// The field, the value found and what was expected. The text is for people; no code reads it, except `with_kind`
    /// for old stores.
    pub reason: String,
    /// The kind of the row.
    #[serde(default)]
    pub kind: RejectKind,
    /// The modality of the input, if the row concerns one modality.
    #[serde(default)]
    pub modality: Option<Modality>,
}

impl RejectRow {
    /// Makes a row for a whole file that was left out. The other methods add the row, the video and the modality.
    ///
    /// ```
    /// use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};
    /// let row = RejectRow::reject(RejectKind::UnknownClass, "train.csv", "class `Dgo` is unknown").row(3).video("v");
    /// assert_eq!((row.row, row.video.as_deref(), row.severity), (Some(3), Some("v"), Severity::Reject));
    /// ```
    pub fn reject(kind: RejectKind, file: impl Into<String>, reason: impl Into<String>) -> RejectRow {
        RejectRow {
            file: file.into(),
            row: None,
            video: None,
            severity: Severity::Reject,
            reason: reason.into(),
            kind,
            modality: None,
        }
    }

    /// Makes a note: like [`RejectRow::reject`], for odd input of which nothing was left out.
    pub fn note(kind: RejectKind, file: impl Into<String>, reason: impl Into<String>) -> RejectRow {
        RejectRow {
            severity: Severity::Note,
            ..RejectRow::reject(kind, file, reason)
        }
    }

    /// Sets the row of the file.
    #[must_use]
    pub fn row(self, row: u64) -> RejectRow {
        RejectRow {
            row: Some(row),
            ..self
        }
    }

    /// Sets the video.
    #[must_use]
    pub fn video(self, video: impl Into<String>) -> RejectRow {
        RejectRow {
            video: Some(video.into()),
            ..self
        }
    }

    /// Sets the modality.
    #[must_use]
    pub fn modality(self, modality: Modality) -> RejectRow {
        RejectRow {
            modality: Some(modality),
            ..self
        }
    }
}
