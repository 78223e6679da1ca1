//! What is asked to change, and what of it is of single videos.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use vaplan_schemas::rows::{RejectKind, RejectRow, Split};
use vaplan_schemas::{ClassId, Modality};

use crate::ingest::annotations::unknown_class;
use crate::ingest::sheet::{self, optional, required};
use crate::ingest::{IngestError, absolute};
use crate::world::Both;
use crate::world::settings::{ClassThreshold, SettingsRequest};

/// What is asked to change; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Rule, scales, thresholds of modalities; a TOML of them.
    pub settings: SettingsRequest,
    /// Thresholds of single classes; they stand over `settings`.
    pub thresholds: Vec<ClassThreshold>,
    /// Weak labels, in order.
    pub weak: Vec<(WeakEdit, PathBuf)>,
    /// New list of classes; classes that are not in it retire.
    pub classes: Option<PathBuf>,
    /// Text embeddings of all classes of a modality.
    pub texts: Both<Option<PathBuf>>,
    /// Text embeddings of single classes: npy `(D,)` or `(1, D)`.
    pub prompts: Vec<(Modality, Arc<str>, PathBuf)>,
    /// Features that are new, or whose files changed or went since they were read.
    pub features: Both<Vec<PathBuf>>,
    /// Features that are not to count any more, whether or not the files are there.
    pub removed: Both<Vec<PathBuf>>,
    /// Labels that a person set.
    pub user: Vec<PathBuf>,
    /// Probabilities of an epoch: the folder or file, and the number of the epoch.
    pub predictions: Option<(PathBuf, u64)>,
    /// The epoch that counts, and no other: one that the store has predictions of.
    pub epoch: Option<u64>,
    /// Denoising.
    pub denoising: DenoiseRequest,
    /// Take rule, thresholds, prompts and denoising of this store version.
    pub to_version: Option<u64>,
    /// Hashes of the deliveries to an inbox that these changes are: the version remembers them.
    pub delivered: Vec<Arc<str>>,
}

/// K, α, guard and modalities of denoising; what is none stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DenoiseRequest {
    /// K.
    pub k: Option<u32>,
    /// α.
    pub alpha: Option<f64>,
    /// Guard.
    pub guard: Option<f64>,
    /// Exactly these modalities; none: as they are, or visual where an epoch comes and there are none yet (METHOD.md,
    /// PLD, grade P).
    pub modalities: Option<Vec<Modality>>,
}

/// How a file of weak labels is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakEdit {
    /// The label of a video is exactly this.
    Set,
    /// These classes are added.
    Add,
    /// These classes are taken away; where none is named, the video itself.
    Remove,
}

impl Changes {
    /// Is nothing asked?
    pub fn is_empty(&self) -> bool {
        let settings = &self.settings;
        let settings = settings.rule.is_none()
            && settings.file.is_none()
            && [
                settings.visual_threshold,
                settings.audio_threshold,
                settings.visual_scale,
                settings.audio_scale,
            ]
            .iter()
            .all(Option::is_none);
        settings
            && self.thresholds.is_empty()
            && self.weak.is_empty()
            && self.classes.is_none()
            && self.texts.iter().all(Option::is_none)
            && self.prompts.is_empty()
            && self.features.iter().chain(&self.removed).all(Vec::is_empty)
            && self.user.is_empty()
            && self.predictions.is_none()
            && self.epoch.is_none()
            && self.denoising == DenoiseRequest::default()
            && self.to_version.is_none()
    }
}

/// Reads `MODALITY/CLASS=VALUE`; a class may hold `/` and `=`.
///
/// ```
/// use vaplan::world::changes::of_class;
/// let (modality, class, value) = of_class::<f64>("visual/Dog=1.5").unwrap();
/// assert_eq!((modality.as_str(), &*class, value), ("visual", "Dog", 1.5));
/// assert!(of_class::<f64>("Dog=1.5").unwrap_err().contains("expected MODALITY/CLASS=VALUE"));
/// ```
///
/// # Errors
/// What was found and expected.
pub fn of_class<V: FromStr>(text: &str) -> Result<(Modality, Arc<str>, V), String>
where
    V::Err: std::fmt::Display,
{
    let form = || format!("`{text}`, expected MODALITY/CLASS=VALUE, such as `visual/Dog=1.1`");
    let (modality, rest) = text.split_once('/').ok_or_else(form)?;
    let (class, value) = rest.rsplit_once('=').ok_or_else(form)?;
    let modality = modality.parse().map_err(|_| form())?;
    let value = value.parse().map_err(|error| format!("`{value}`: {error}"))?;
    Ok((modality, class.into(), value))
}

/// What a file of weak labels says of a video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeakRow {
    pub(crate) edit: WeakEdit,
    /// Ascending, each once.
    pub(crate) classes: Vec<ClassId>,
    pub(crate) split: Option<Split>,
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
}

/// Reads weak labels: columns `filename`, `event_labels` (classes with commas between) and, if it has it, `split`.
pub(crate) fn weak(
    edit: WeakEdit,
    path: &Path,
    classes: &[Arc<str>],
    rejects: &mut Vec<RejectRow>,
) -> Result<Vec<(Arc<str>, WeakRow)>, IngestError> {
    let labels_column = match edit {
        WeakEdit::Remove => optional("event_labels"),
        WeakEdit::Set | WeakEdit::Add => required("event_labels"),
    };
    let path = &absolute(path)?;
    let file: Arc<str> = path.display().to_string().into();
    let mut read: Vec<(Arc<str>, WeakRow)> = Vec::new();
    let mut lines: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for row in sheet::read(
        path,
        [required("filename"), labels_column, optional("split")],
        rejects,
    )? {
        let [video, labels, split] = row.fields;
        let mut refuse = |kind, reason: String| {
            rejects.push(reject(kind, &file, row.line, video.as_deref(), reason));
        };
        let Some(name) = &video else {
            refuse(
                RejectKind::EmptyName,
                "filename is empty, expected the name of a video".to_owned(),
            );
            continue;
        };
        let split = match split.as_deref().map(str::parse).transpose() {
            Ok(split) => split,
            Err(reason) => {
                refuse(RejectKind::FieldValue, reason);
                continue;
            }
        };
        let mut ids = Vec::new();
        let mut whole = true;
        let labels = labels.as_deref().unwrap_or_default();
        for label in labels.split(',').map(str::trim).filter(|label| !label.is_empty()) {
            match position(classes, label) {
                Some(class) => ids.push(class),
                None => {
                    refuse(RejectKind::UnknownClass, unknown_class(label, classes));
                    whole = false;
                }
            }
        }
        // Half a label would be another label.
        if !whole {
            continue;
        }
        ids.sort_unstable();
        ids.dedup();
        let name: Arc<str> = name.as_str().into();
        if let Some(line) = lines.insert(name.clone(), row.line) {
            refuse(
                RejectKind::RepeatedVideo,
                format!("video is in row {line} too, expected once: the first row counts"),
            );
            lines.insert(name, line);
            continue;
        }
        read.push((
            name,
            WeakRow {
                edit,
                classes: ids,
                split,
                file: file.clone(),
                line: row.line,
            },
        ));
    }
    Ok(read)
}

/// A label that a person set, or withdrew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) video: Arc<str>,
    pub(crate) modality: Modality,
    pub(crate) class: Arc<str>,
    pub(crate) segments: std::ops::Range<u32>,
    /// None: withdrawn.
    pub(crate) label: Option<bool>,
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
}

/// More segments than any video has.
const MOST_SEGMENTS: u32 = 1 << 20;
/// As many segments one row may name: each is a row of `user_labels`, and a slip of a digit is soon a million of them.
const MOST_OF_A_ROW: u32 = 1 << 14;

/// Reads labels that a person set: columns `video`, `modality`, `class`, `label` (0, 1 or `withdraw`), and `segment`, or
/// `onset` and `offset` (segments; the offset is the first after).
pub(crate) fn user(
    path: &Path,
    classes: &[Arc<str>],
    rejects: &mut Vec<RejectRow>,
) -> Result<Vec<UserRow>, IngestError> {
    let columns = [
        required("video"),
        required("modality"),
        required("class"),
        required("label"),
        optional("segment"),
        optional("onset"),
        optional("offset"),
    ];
    let path = &absolute(path)?;
    let file: Arc<str> = path.display().to_string().into();
    let mut read = Vec::new();
    for row in sheet::read(path, columns, rejects)? {
        let line = row.line;
        match user_row(row.fields.each_ref().map(Option::as_deref), classes) {
            Ok((modality, segments, label)) => {
                let [video, _, class, ..] = row.fields;
                read.push(UserRow {
                    video: video.unwrap_or_default().into(),
                    modality,
                    class: class.unwrap_or_default().into(),
                    segments,
                    label,
                    file: file.clone(),
                    line,
                });
            }
            Err((kind, reason)) => {
                rejects.push(reject(kind, &file, line, row.fields[0].as_deref(), reason));
            }
        }
    }
    Ok(read)
}

type UserCells = (Modality, std::ops::Range<u32>, Option<bool>);

fn user_row(fields: [Option<&str>; 7], classes: &[Arc<str>]) -> Result<UserCells, (RejectKind, String)> {
    let [video, modality, class, label, segment, onset, offset] = fields;
    if video.is_none() {
        let reason = "video is empty, expected a name".to_owned();
        return Err((RejectKind::EmptyName, reason));
    }
    let bad = |reason: String| (RejectKind::FieldValue, reason);
    let modality: Modality = modality.unwrap_or_default().parse().map_err(|_| {
        bad(format!(
            "modality is `{}`, expected `audio` or `visual`",
            modality.unwrap_or_default()
        ))
    })?;
    let class = class.unwrap_or_default();
    if position(classes, class).is_none() {
        return Err((RejectKind::UnknownClass, unknown_class(class, classes)));
    }
    let label = match label {
        Some("0") => Some(false),
        Some("1") => Some(true),
        Some("withdraw") => None,
        other => {
            return Err(bad(format!(
                "label is `{}`, expected 0, 1 or `withdraw`",
                other.unwrap_or_default()
            )));
        }
    };
    let number = |name: &str, text: &str| {
        let value = text.parse::<u32>().ok().filter(|value| *value <= MOST_SEGMENTS);
        value.ok_or_else(|| {
            bad(format!(
                "{name} is `{text}`, expected a segment from 0 to {MOST_SEGMENTS}"
            ))
        })
    };
    let segments = match (segment, onset, offset) {
        (Some(segment), None, None) => {
            let first = number("segment", segment)?;
            first..first + 1
        }
        (None, Some(onset), Some(offset)) => number("onset", onset)?..number("offset", offset)?,
        _ => {
            let reason = "expected either segment, or onset and offset".to_owned();
            return Err(bad(reason));
        }
    };
    if segments.is_empty() {
        return Err(bad(format!(
            "onset is {}, expected less than offset {}",
            segments.start, segments.end
        )));
    }
    if segments.len() > MOST_OF_A_ROW as usize {
        return Err(bad(format!(
            "onset {} and offset {} are {} segments, expected at most {MOST_OF_A_ROW} in a row",
            segments.start,
            segments.end,
            segments.len()
        )));
    }
    Ok((modality, segments, label))
}

pub(crate) fn reject(
    kind: RejectKind,
    file: &str,
    line: u64,
    video: Option<&str>,
    reason: String,
) -> RejectRow {
    RejectRow {
        video: video.map(str::to_owned),
        ..RejectRow::reject(kind, file, reason).row(line)
    }
}

fn position(classes: &[Arc<str>], name: &str) -> Option<ClassId> {
    let position = classes.iter().position(|class| &**class == name)?;
    Some(ClassId(position as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<Arc<str>> {
        ["Speech", "Dog", "Cat"].map(Arc::from).to_vec()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn reasons(rejects: &[RejectRow]) -> Vec<String> {
        rejects
            .iter()
            .map(|row| format!("{}: {}", row.row.unwrap(), row.reason))
            .collect()
    }

    #[test]
    fn weak_labels_in_llps_format_or_with_commas_and_bad_rows_beside_good_ones() {
        let llp = file("filename\tevent_labels\na_0_10\tCat,Dog\nb_0_10\tDgo\na_0_10\tSpeech\n");
        let mut rejects = Vec::new();
        let rows = weak(WeakEdit::Set, llp.path(), &classes(), &mut rejects).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (&*rows[0].0, &rows[0].1.classes),
            ("a_0_10", &vec![ClassId(1), ClassId(2)])
        );
        assert_eq!(
            reasons(&rejects),
            [
                "3: class `Dgo` is unknown, expected one of 3 (nearest: `Dog`)",
                "4: video is in row 2 too, expected once: the first row counts"
            ]
        );
        let commas = file("split,event_labels,filename\nval,\"Cat,Dog\",c\nvalid,Cat,d\n");
        let mut rejects = Vec::new();
        let rows = weak(WeakEdit::Add, commas.path(), &classes(), &mut rejects).unwrap();
        assert_eq!((&*rows[0].0, rows[0].1.split), ("c", Some(Split::Val)));
        assert_eq!(
            reasons(&rejects),
            ["3: split is `valid`, expected `train`, `val` or `test`"]
        );
    }

    #[test]
    fn user_labels_by_segment_or_by_event_and_bad_rows_by_field() {
        let text = "video,modality,class,label,segment,onset,offset\n\
                    v,audio,Dog,1,3,,\nv,visual,Dog,withdraw,,2,5\nv,sound,Dog,1,3,,\nv,audio,Dog,2,3,,\n\
                    v,audio,Dog,1,,,\nv,audio,Dog,1,,5,5\nv,audio,Dog,1,-1,,\nv,audio,Dgo,1,1,,\n\
                    v,audio,Dog,1,,7,16392\nv,audio,Dog,1,,7,16391\n";
        let mut rejects = Vec::new();
        let rows = user(file(text).path(), &classes(), &mut rejects).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].segments.clone(), rows[0].label), (3..4, Some(true)));
        assert_eq!((rows[1].segments.clone(), rows[1].label), (2..5, None));
        assert_eq!(
            reasons(&rejects),
            [
                "4: modality is `sound`, expected `audio` or `visual`",
                "5: label is `2`, expected 0, 1 or `withdraw`",
                "6: expected either segment, or onset and offset",
                "7: onset is 5, expected less than offset 5",
                "8: segment is `-1`, expected a segment from 0 to 1048576",
                "9: class `Dgo` is unknown, expected one of 3 (nearest: `Dog`)",
                "10: onset 7 and offset 16392 are 16385 segments, expected at most 16384 in a row",
            ]
        );
    }
}
