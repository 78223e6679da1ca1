//! Verdicts on the review page: a sample of segments to judge, verdicts as store versions, and the estimates so far.
//!
//! ```text
//! version, strata, number, seed ── draw ─▶ sample ── a person ─▶ verdicts ── under the write lock ─▶ one store version
//!                                   └ kept, and drawn again by the same request               └─▶ report (frame is kept)
//! ```
//!
//! A sample is a function of a version and its request. The address of the page has both, so that a person can continue after
//! the page or the server was closed, and two persons can share a sample.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vaplan_schemas::rows::{Split, VerdictRow};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Table, Verdicts, Videos};
use vaplan_schemas::{Modality, StoreVersion};

use crate::audit::population::of_videos;
use crate::audit::{
    AuditError, AuditFrame, AuditReport, AuditStrata, FrameBasis, SampleRequest, SampledSegment,
    VerdictChange, VerdictKey, change_verdicts_if, draw, verdict_key,
};
use crate::choice::Choice;
use crate::error::LabelError;
use crate::serve::media::MediaKind;
use crate::serve::save::{check_author, source_of};

/// Largest number of segments of a sample on the page.
pub const MOST_SAMPLED: usize = 2_000;
/// Largest number of verdicts of a request.
pub const MOST_VERDICTS: usize = 1_000;
/// Number of samples that are kept.
const KEPT: usize = 4;

/// What a person says about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditVerdict {
    /// The event occurs.
    Yes,
    /// The event does not occur.
    No,
    /// The person is unsure.
    Unsure,
}

impl AuditVerdict {
    fn of(present: Option<bool>) -> AuditVerdict {
        match present {
            Some(true) => AuditVerdict::Yes,
            Some(false) => AuditVerdict::No,
            None => AuditVerdict::Unsure,
        }
    }

    fn present(self) -> Option<bool> {
        match self {
            AuditVerdict::Yes => Some(true),
            AuditVerdict::No => Some(false),
            AuditVerdict::Unsure => None,
        }
    }
}

/// A request for a sample.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleQuery {
    /// Store version whose labels are sampled; the latest by default.
    pub version: Option<u64>,
    /// Strata; `class` by default.
    pub by: Option<String>,
    /// Number of segments, 200 by default.
    pub count: Option<usize>,
    /// Seed, 1 by default.
    pub seed: Option<u64>,
    /// Splits with commas between them; all by default.
    pub split: Option<String>,
}

/// A request for the estimates of the latest version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportQuery {
    /// What the rows of the report are divided by; `class` by default.
    pub by: Option<String>,
    /// Splits with commas between them; all by default.
    pub split: Option<String>,
}

/// A sample with the verdicts so far. The labels are not in it, because a person who sees a label judges less freely.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownSample {
    /// Version that the sample is drawn from.
    pub version: u64,
    /// Strata.
    pub by: &'static str,
    /// Number of segments that were asked for.
    pub count: usize,
    /// Seed.
    pub seed: u64,
    /// Splits.
    pub split: Vec<Split>,
    /// The segments.
    pub segments: Vec<SegmentToJudge>,
}

/// A segment of a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SegmentToJudge {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Segment, from 0.
    pub segment: u32,
    /// Length of a segment in seconds.
    pub seconds: f64,
    /// The verdict in the latest version.
    pub verdict: Option<AuditVerdict>,
    /// The kind of the media file of the video. `None` without a file.
    pub media: Option<MediaKind>,
}

/// The estimates of the latest version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownAudit {
    /// The latest version.
    pub version: u64,
    /// The estimates. `None` if the store has no verdicts.
    pub report: Option<AuditReport>,
}

/// A verdict to save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentVerdict {
    /// Full name of the video.
    pub video: Arc<str>,
    /// Modality.
    pub modality: Modality,
    /// Class.
    pub class: Arc<str>,
    /// Segment, from 0.
    pub segment: u32,
    /// The verdict; null withdraws the verdict.
    pub verdict: Option<AuditVerdict>,
    /// The verdict that the person saw.
    #[serde(default)]
    pub before: Option<AuditVerdict>,
}

impl SegmentVerdict {
    fn key(&self) -> VerdictKey {
        (
            self.video.clone(),
            self.modality,
            self.class.clone(),
            self.segment,
        )
    }
}

/// A request to save verdicts as one store version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictRequest {
    /// Version that the sample was drawn from.
    pub version: u64,
    /// Strata of the sample.
    pub by: String,
    /// The verdicts.
    pub verdicts: Vec<SegmentVerdict>,
    /// Who judges. `None` takes the author of the server.
    pub author: Option<Arc<str>>,
}

/// Verdicts that are saved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SavedVerdicts {
    /// The latest store version.
    pub version: u64,
    /// Whether the request differs from what the person saw.
    pub saved: bool,
    /// Milliseconds from the arrival of the request to the durable commit.
    pub milliseconds: f64,
}

/// The reason why verdicts were not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// A value of the request is not allowed.
    #[error("{0}")]
    Request(String),
    /// Another person judged a segment since this person saw it. The field has the verdicts that are there now.
    #[error("another person judged {} of these segments meanwhile", .0.len())]
    Conflict(Vec<SegmentVerdict>),
    /// The store cannot be read or written.
    #[error(transparent)]
    Label(#[from] LabelError),
}

impl From<AuditError> for VerdictError {
    fn from(error: AuditError) -> VerdictError {
        match error {
            AuditError::Store(error) => LabelError::from(error).into(),
            error => VerdictError::Request(error.to_string()),
        }
    }
}

impl From<vaplan_schemas::StoreError> for VerdictError {
    fn from(error: vaplan_schemas::StoreError) -> VerdictError {
        use vaplan_schemas::StoreError;
        match error {
            StoreError::NoVersion { .. } | StoreError::Vacuumed { .. } => {
                VerdictError::Request(format!("{error}: draw a new sample"))
            }
            error => LabelError::from(error).into(),
        }
    }
}

fn strata(by: Option<&str>) -> Result<AuditStrata, VerdictError> {
    by.map_or(Ok(AuditStrata::Class), |name| {
        AuditStrata::parse(name).map_err(|error| VerdictError::Request(error.to_string()))
    })
}

fn splits(text: Option<&str>) -> Result<Vec<Split>, VerdictError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Split::ALL.to_vec());
    };
    let parse = |name: &str| name.parse().map_err(VerdictError::Request);
    text.split(',').map(parse).collect()
}

impl SampleQuery {
    fn request(&self) -> Result<SampleRequest, VerdictError> {
        let count = self.count.unwrap_or(200);
        if !(1..=MOST_SAMPLED).contains(&count) {
            return Err(VerdictError::Request(format!(
                "count is {count}, expected 1 to {MOST_SAMPLED}; `vaplan audit --sample` draws larger samples"
            )));
        }
        Ok(SampleRequest {
            by: strata(self.by.as_deref())?,
            count,
            seed: self.seed.unwrap_or(1),
            splits: splits(self.split.as_deref())?,
        })
    }
}

/// A drawn sample: its version, its request, and its segments.
type DrawnSample = (u64, SampleRequest, Arc<Vec<SampledSegment>>);

/// Samples and sizes of strata that are slow to make, because they need the labels of all videos.
#[derive(Debug, Default)]
pub(super) struct AuditCache {
    samples: Mutex<Vec<DrawnSample>>,
    frame: Mutex<Option<Arc<AuditFrame>>>,
}

impl AuditCache {
    /// The sample of a request, with the verdicts of the latest version. `media` gives the kind of the media of a video.
    pub(super) fn sample(
        &self,
        store: &Store,
        query: &SampleQuery,
        media: impl Fn(&str) -> Option<MediaKind>,
    ) -> Result<ShownSample, VerdictError> {
        let request = query.request()?;
        let latest = store.at_version(None)?;
        let version = query.version.unwrap_or(latest.version().version);
        let drawn = self.drawn(store, version, &request)?;
        let names: BTreeSet<Arc<str>> = drawn.iter().map(|own| own.video.clone()).collect();
        let mut seconds = BTreeMap::new();
        for row in latest.scan::<Videos>(&vaplan_schemas::store::Filter::videos(names))? {
            seconds.insert(row.row.video, row.row.segment_seconds);
        }
        let verdicts = latest.read::<Verdicts>()?;
        let verdicts: BTreeMap<VerdictKey, Option<bool>> = verdicts
            .iter()
            .map(|row| (verdict_key(row), row.present))
            .collect();
        let shown = |own: &SampledSegment| {
            let key = (own.video.clone(), own.modality, own.class.clone(), own.segment);
            SegmentToJudge {
                media: media(&own.video),
                seconds: seconds.get(&own.video).copied().unwrap_or(1.0),
                verdict: verdicts.get(&key).map(|present| AuditVerdict::of(*present)),
                video: key.0,
                modality: key.1,
                class: key.2,
                segment: key.3,
            }
        };
        Ok(ShownSample {
            version,
            by: request.by.name(),
            count: request.count,
            seed: request.seed,
            segments: drawn.iter().map(shown).collect(),
            split: request.splits,
        })
    }

    /// Draws a sample from the labels and verdicts of a version. Later verdicts do not change the sample.
    fn drawn(
        &self,
        store: &Store,
        version: u64,
        request: &SampleRequest,
    ) -> Result<Arc<Vec<SampledSegment>>, VerdictError> {
        // Two requests for one sample wait for the same draw.
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let found = samples.iter().find(|own| own.0 == version && own.1 == *request);
        if let Some((.., sample)) = found {
            return Ok(sample.clone());
        }
        let snapshot = store.at_version(Some(StoreVersion(version)))?;
        let judged = snapshot.read::<Verdicts>()?;
        let sample = Arc::new(draw(&snapshot, &judged, request)?);
        if samples.len() == KEPT {
            samples.remove(0);
        }
        samples.push((version, request.clone(), sample.clone()));
        Ok(sample)
    }

    /// The estimates of the latest version.
    pub(super) fn report(&self, store: &Store, query: &ReportQuery) -> Result<ShownAudit, VerdictError> {
        let (by, splits) = (strata(query.by.as_deref())?, splits(query.split.as_deref())?);
        let snapshot = store.at_version(None)?;
        let version = snapshot.version().version;
        let mut verdicts = snapshot.read::<Verdicts>()?;
        verdicts.sort_by(Verdicts::compare);
        if verdicts.is_empty() {
            return Ok(ShownAudit {
                version,
                report: None,
            });
        }
        let basis = FrameBasis::new(&snapshot, &splits, by, &verdicts)?;
        let report = self.frame(&snapshot, basis)?.report(&snapshot, &verdicts)?;
        Ok(ShownAudit {
            version,
            report: Some(report),
        })
    }

    fn frame(&self, snapshot: &Snapshot, basis: FrameBasis) -> Result<Arc<AuditFrame>, VerdictError> {
        let mut kept = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = kept.as_ref().filter(|frame| frame.is_of(&basis)) {
            return Ok(frame.clone());
        }
        let frame = Arc::new(AuditFrame::read(snapshot, basis)?);
        *kept = Some(frame.clone());
        Ok(frame)
    }
}

impl VerdictRequest {
    /// Checks the values that need no store.
    ///
    /// # Errors
    /// Returns [`VerdictError::Request`] with the value found and the value expected.
    pub fn check(&self) -> Result<(), VerdictError> {
        strata(Some(&self.by))?;
        check_author(self.author.as_ref()).map_err(VerdictError::Request)?;
        let found = self.verdicts.len();
        if !(1..=MOST_VERDICTS).contains(&found) {
            return Err(VerdictError::Request(format!(
                "{found} verdicts, expected 1 to {MOST_VERDICTS}"
            )));
        }
        let keys: BTreeSet<VerdictKey> = self.verdicts.iter().map(SegmentVerdict::key).collect();
        match keys.len() == found {
            true => Ok(()),
            false => Err(VerdictError::Request(
                "a segment has two verdicts, expected one".to_owned(),
            )),
        }
    }

    /// Saves the verdicts as one store version. `author` is used if the request names no author.
    ///
    /// # Errors
    /// Returns [`VerdictError::Request`] if the sampled version has no such label, and [`VerdictError::Conflict`] if another
    /// person judged a segment since this person saw it. Nothing is saved then.
    pub(super) fn save(
        &self,
        store: &Store,
        author: Option<&Arc<str>>,
        command: &str,
        arrived: Instant,
    ) -> Result<SavedVerdicts, VerdictError> {
        let given = self.author.clone().filter(|text| !text.trim().is_empty());
        let author = given.or_else(|| author.cloned());
        self.check_segments(store)?;
        let (set, withdrawn): (Vec<&SegmentVerdict>, Vec<&SegmentVerdict>) =
            self.verdicts.iter().partition(|own| own.verdict.is_some());
        let row = |own: &SegmentVerdict| VerdictRow {
            video: own.video.clone(),
            modality: own.modality,
            class: own.class.clone(),
            segment: own.segment,
            present: own.verdict.and_then(AuditVerdict::present),
            version: self.version,
            strata: self.by.as_str().into(),
            source: source_of(author.as_ref()),
        };
        let change = VerdictChange {
            added: set.into_iter().map(row).collect(),
            withdrawn: withdrawn.into_iter().map(SegmentVerdict::key).collect(),
            command: command.to_owned(),
            author: author.clone(),
        };
        let changes = self.verdicts.iter().any(|own| own.verdict != own.before);
        let version = change_verdicts_if(store, change, &mut |_| (), |rows| self.compare(rows))?.0;
        Ok(SavedVerdicts {
            version,
            saved: changes,
            milliseconds: arrived.elapsed().as_secs_f64() * 1e3,
        })
    }

    /// Checks that the sampled version has a label of each segment.
    fn check_segments(&self, store: &Store) -> Result<(), VerdictError> {
        let sampled = store.at_version(Some(StoreVersion(self.version)))?;
        let labels = of_videos(&sampled, self.verdicts.iter().map(|own| own.video.clone()))?;
        for own in &self.verdicts {
            let (video, modality, class) = (&own.video, own.modality, &own.class);
            let Some(track) = labels.get(&(video.clone(), modality, class.clone())) else {
                return Err(VerdictError::Request(format!(
                    "version {} has no {modality} labels of class `{class}` of video `{video}`, expected a segment of the \
                     sample",
                    self.version
                )));
            };
            if own.segment as usize >= track.segments() {
                return Err(VerdictError::Request(format!(
                    "video `{video}`: segment is {}, expected less than {}, the number of segments",
                    own.segment,
                    track.segments()
                )));
            }
        }
        Ok(())
    }

    /// Compares the verdicts that the person saw with those of now.
    fn compare(&self, rows: &[VerdictRow]) -> Result<(), VerdictError> {
        let rows: BTreeMap<VerdictKey, Option<bool>> =
            rows.iter().map(|row| (verdict_key(row), row.present)).collect();
        let mut others = Vec::new();
        for own in &self.verdicts {
            let now = rows.get(&own.key()).map(|present| AuditVerdict::of(*present));
            if now != own.before && now != own.verdict {
                others.push(SegmentVerdict {
                    verdict: now,
                    ..own.clone()
                });
            }
        }
        match others.is_empty() {
            true => Ok(()),
            false => Err(VerdictError::Conflict(others)),
        }
    }
}
