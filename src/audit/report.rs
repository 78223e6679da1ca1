//! The estimates of a store version.
//!
//! ```text
//! verdicts, versions ── basis ── frame: the size of every stratum (reads all labels) ──┬─ report
//! verdicts ── labels of their videos ─────────────────────────────────────────────────┘
//! ```
//!
//! A verdict is about the truth, so that it judges every later label. The sample was random within the strata of the version
//! that it was drawn from. The report therefore divides the segments by their labels in every version with verdicts, and by
//! their label now: within each such stratum the verdicts are still a random sample, whatever changed the labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::rows::{LabelTrack, Split, VerdictRow, VersionRow};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Labels, Table, Videos};
use vaplan_schemas::{StoreError, StoreVersion};

use super::estimate::{AuditEstimate, AuditStratum, pooled, precision, recall};
use super::population::{AuditStrata, Population, TrackKey, groups, of_videos};
use super::{AuditError, sorted};
use crate::choice::Choice;

/// The estimates of one group of segments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRow {
    /// Name of the class, modality or rule; `overall` for all.
    pub name: String,
    /// Number of segments.
    pub segments: u64,
    /// Number of segments with a set label.
    pub set: u64,
    /// Number of verdicts.
    pub verdicts: u64,
    /// The share of true labels among the set ones.
    pub precision: Option<AuditEstimate>,
    /// The share of set labels among the true ones, within the weak label.
    pub recall: Option<AuditEstimate>,
}

/// The report of a store version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditReport {
    /// The store version whose labels are judged.
    pub version: u64,
    /// What the rows are divided by.
    pub by: &'static str,
    /// The rows: first `overall`, then one per group, in order of name.
    pub rows: Vec<AuditRow>,
    /// Number of verdicts of a person who was unsure. The estimates leave these segments out.
    pub unsure: u64,
    /// Number of verdicts that judge no label of this version, because the video, class or segment is gone or belongs to
    /// another split.
    pub unused: u64,
    /// Store versions that verdicts were made on and that are gone. The estimates then assume that no label changed after
    /// these versions.
    pub gone: Vec<u64>,
}

/// A stratum: the group of the report, the strata of the samples, the labels of the versions with verdicts, and the label
/// now.
type StratumKey = (String, Vec<String>, Vec<Option<bool>>, bool);

/// Estimates precision and recall of the labels of a version, for the videos of these splits.
///
/// # Errors
/// Returns [`AuditError::NoVerdicts`] and [`AuditError::NoLabels`] if there is nothing to judge or to judge by, and
/// [`AuditError::Store`] if the store cannot be read.
pub fn report(snapshot: &Snapshot, splits: &[Split], by: AuditStrata) -> Result<AuditReport, AuditError> {
    let verdicts = sorted(snapshot)?;
    if verdicts.is_empty() {
        let version = snapshot.version().version;
        return Err(AuditError::NoVerdicts { version });
    }
    let basis = FrameBasis::new(snapshot, splits, by, &verdicts)?;
    AuditFrame::read(snapshot, basis)?.report(snapshot, &verdicts)
}

/// What the sizes of the strata depend on. More verdicts of the same samples do not change the basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameBasis {
    by: AuditStrata,
    splits: Vec<Split>,
    /// What the samples of the verdicts were stratified by.
    samples: Vec<AuditStrata>,
    /// The labels and videos now.
    now: LabelTables,
    /// Versions that verdicts were made on and that have other labels than now, one for each state of the labels.
    before: Vec<u64>,
    /// Versions like `before` that are gone.
    gone: Vec<u64>,
}

/// Delta versions of the tables `labels` and `videos`.
type LabelTables = (Option<u64>, Option<u64>);

fn tables_of(row: &VersionRow) -> LabelTables {
    let of = |wanted: &str| {
        let found = row.tables.iter().find(|(name, _)| name == wanted);
        found.map(|(_, delta)| *delta)
    };
    (of(Labels::NAME), of(Videos::NAME))
}

impl FrameBasis {
    /// The basis of these verdicts and the labels of a version.
    ///
    /// # Errors
    /// Returns [`AuditError::Store`] if the list of versions cannot be read.
    pub fn new(
        snapshot: &Snapshot,
        splits: &[Split],
        by: AuditStrata,
        verdicts: &[VerdictRow],
    ) -> Result<FrameBasis, AuditError> {
        let now = tables_of(snapshot.version());
        let mut basis = FrameBasis {
            by,
            splits: splits.to_vec(),
            samples: samples(verdicts),
            now,
            before: Vec::new(),
            gone: Vec::new(),
        };
        let made_on: BTreeSet<u64> = verdicts.iter().map(|row| row.version).collect();
        let versions = snapshot.store().versions()?;
        let mut known = vec![now.0];
        for version in made_on {
            let labels = versions.iter().find(|row| row.version == version);
            let labels = labels.map(|row| tables_of(row).0);
            if labels.is_some_and(|labels| known.contains(&labels)) {
                continue;
            }
            match snapshot.store().at_version(Some(StoreVersion(version))) {
                Ok(_) => basis.before.push(version),
                Err(_) => basis.gone.push(version),
            }
            known.extend(labels);
        }
        Ok(basis)
    }
}

/// The number of segments of every stratum of a version.
#[derive(Clone, Debug)]
pub struct AuditFrame {
    basis: FrameBasis,
    sizes: BTreeMap<StratumKey, u64>,
}

impl AuditFrame {
    /// Counts the segments of every stratum, a group of videos at a time.
    ///
    /// # Errors
    /// Returns [`AuditError::NoLabels`] if the version has no labels, and [`AuditError::Store`] if the store cannot be read.
    pub fn read(snapshot: &Snapshot, basis: FrameBasis) -> Result<AuditFrame, AuditError> {
        let before = versions(snapshot, &basis.before)?;
        let mut sizes: BTreeMap<StratumKey, u64> = BTreeMap::new();
        for group in groups(snapshot, &basis.splits)? {
            let labels = GroupLabels::read(snapshot, &before, group)?;
            for key in labels.now.keys() {
                for (first, count) in labels.alike(key) {
                    *sizes.entry(labels.stratum(&basis, key, first)).or_default() += count;
                }
            }
        }
        if sizes.is_empty() {
            let names: Vec<&str> = basis.splits.iter().map(|split| split.as_str()).collect();
            return Err(AuditError::NoLabels {
                version: snapshot.version().version,
                of: format!(" of split {}", names.join(", ")),
            });
        }
        Ok(AuditFrame { basis, sizes })
    }

    /// Whether the frame has the sizes of this basis.
    pub fn is_of(&self, basis: &FrameBasis) -> bool {
        self.basis == *basis
    }

    /// Estimates precision and recall by verdicts. The frame must be of their basis in this version.
    ///
    /// # Errors
    /// Returns [`AuditError::Store`] if the store cannot be read.
    pub fn report(&self, snapshot: &Snapshot, verdicts: &[VerdictRow]) -> Result<AuditReport, AuditError> {
        let basis = &self.basis;
        let judged: BTreeSet<Arc<str>> = verdicts.iter().map(|row| row.video.clone()).collect();
        let rows = snapshot.scan::<Videos>(&Filter::videos(judged))?;
        let rows = rows.into_iter().map(|found| found.row);
        let wanted = rows.filter(|row| basis.splits.contains(&row.split));
        let wanted = wanted.map(|row| row.video).collect();
        let labels = GroupLabels::read(snapshot, &versions(snapshot, &basis.before)?, wanted)?;
        let of_stratum = |(key, size): (&StratumKey, &u64)| {
            let stratum = AuditStratum {
                size: *size,
                label: key.3,
                ..AuditStratum::default()
            };
            (key.clone(), stratum)
        };
        let mut strata: BTreeMap<StratumKey, AuditStratum> = self.sizes.iter().map(of_stratum).collect();
        let (mut unused, mut unsure) = (0, 0);
        for row in verdicts {
            let key: TrackKey = (row.video.clone(), row.modality, row.class.clone());
            let segment = row.segment as usize;
            if labels
                .now
                .get(&key)
                .is_none_or(|track| segment >= track.segments())
            {
                unused += 1;
                continue;
            }
            let Some(present) = row.present else {
                unsure += 1;
                continue;
            };
            let own = strata.entry(labels.stratum(basis, &key, segment)).or_default();
            own.judged += 1;
            own.present += u64::from(present);
        }
        let mut groups: BTreeMap<&str, Vec<AuditStratum>> = BTreeMap::new();
        for ((group, ..), stratum) in &strata {
            groups.entry(group).or_default().push(*stratum);
        }
        let all: Vec<AuditStratum> = strata.values().copied().collect();
        let mut rows = vec![row("overall", &all)];
        if basis.by != AuditStrata::All {
            rows.extend(groups.iter().map(|(name, strata)| row(name, strata)));
        }
        Ok(AuditReport {
            version: snapshot.version().version,
            by: basis.by.name(),
            rows,
            unsure,
            unused,
            gone: basis.gone.clone(),
        })
    }
}

fn versions(snapshot: &Snapshot, numbers: &[u64]) -> Result<Vec<Snapshot>, AuditError> {
    let open = |version: &u64| snapshot.store().at_version(Some(StoreVersion(*version)));
    Ok(numbers.iter().map(open).collect::<Result<_, _>>()?)
}

/// What the samples of the verdicts were stratified by.
fn samples(verdicts: &[VerdictRow]) -> Vec<AuditStrata> {
    let mut names: Vec<&Arc<str>> = verdicts.iter().map(|row| &row.strata).collect();
    names.sort_unstable();
    names.dedup();
    // A name that this program does not know was written by a later one.
    names
        .into_iter()
        .filter_map(|name| AuditStrata::parse(name).ok())
        .collect()
}

/// The labels of a group of videos, now and in the versions with verdicts.
struct GroupLabels {
    now: Population,
    before: Vec<Population>,
}

impl GroupLabels {
    fn read(
        snapshot: &Snapshot,
        before: &[Snapshot],
        videos: Vec<Arc<str>>,
    ) -> Result<GroupLabels, StoreError> {
        let then = |version: &Snapshot| of_videos(version, videos.iter().cloned());
        Ok(GroupLabels {
            before: before.iter().map(then).collect::<Result<_, _>>()?,
            now: of_videos(snapshot, videos)?,
        })
    }

    /// Groups of segments of a track that are in the same stratum: the first segment, and the number of segments.
    fn alike(&self, key: &TrackKey) -> Vec<(usize, u64)> {
        let now = &self.now[key];
        let before: Vec<&LabelTrack> = self.before.iter().filter_map(|own| own.get(key)).collect();
        let same = |a: usize, b: usize| {
            let of = |track: &LabelTrack, segment: usize| {
                let label = track.labels.get(segment).copied();
                (label, track.rules.get(segment).copied())
            };
            of(now, a) == of(now, b) && before.iter().all(|track| of(track, a) == of(track, b))
        };
        let mut groups: Vec<(usize, u64)> = Vec::new();
        for segment in 0..now.segments() {
            match groups.iter_mut().find(|(first, _)| same(*first, segment)) {
                Some((_, count)) => *count += 1,
                None => groups.push((segment, 1)),
            }
        }
        groups
    }

    /// The stratum of a segment that has a label now.
    fn stratum(&self, basis: &FrameBasis, key: &TrackKey, segment: usize) -> StratumKey {
        let track = &self.now[key];
        let before = || {
            let of = self.before.iter().map(|population| population.get(key));
            of.map(|track| track.filter(|track| segment < track.segments()))
        };
        let mut parts = Vec::new();
        for sample in &basis.samples {
            parts.push(sample.of(track, segment).to_owned());
            // The rule can differ from version to version.
            if *sample == AuditStrata::Rule {
                let rule = |track: &LabelTrack| sample.of(track, segment).to_owned();
                parts.extend(before().map(|track| track.map_or_else(String::new, rule)));
            }
        }
        let labels = before().map(|track| track.map(|track| track.labels[segment]));
        (
            basis.by.of(track, segment).to_owned(),
            parts,
            labels.collect(),
            track.labels[segment],
        )
    }
}

fn row(name: &str, strata: &[AuditStratum]) -> AuditRow {
    let sum = |of: fn(&AuditStratum) -> u64| strata.iter().map(of).sum();
    let usable = pooled(strata);
    AuditRow {
        name: name.to_owned(),
        segments: sum(|own| own.size),
        set: sum(|own| if own.label { own.size } else { 0 }),
        verdicts: sum(|own| own.judged),
        precision: precision(&usable),
        recall: recall(&usable),
    }
}
