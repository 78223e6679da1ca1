//! The estimates of a store version.
//!
//! A verdict is about the truth, so that it judges every later label. The sample was random within the strata of the version
//! that it was drawn from. The report therefore divides the segments by their labels in every version with verdicts, and by
//! their label now: within each such stratum the verdicts are still a random sample, whatever changed the labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use vaplan_schemas::StoreVersion;
use vaplan_schemas::rows::{Split, VerdictRow};
use vaplan_schemas::store::{Snapshot, Store};

use super::estimate::{AuditEstimate, AuditStratum, pooled, precision, recall};
use super::population::{AuditStrata, Population, TrackKey, of_snapshot};
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
pub fn report(
    store: &Store,
    snapshot: &Snapshot,
    splits: &[Split],
    by: AuditStrata,
) -> Result<AuditReport, AuditError> {
    let version = snapshot.version().version;
    let verdicts = sorted(snapshot)?;
    if verdicts.is_empty() {
        return Err(AuditError::NoVerdicts { version });
    }
    let now = of_snapshot(snapshot, splits)?;
    if now.is_empty() {
        let names: Vec<&str> = splits.iter().map(|split| split.as_str()).collect();
        return Err(AuditError::NoLabels {
            version,
            of: format!(" of split {}", names.join(", ")),
        });
    }
    let mut gone = Vec::new();
    let mut before: Vec<(u64, Population)> = Vec::new();
    let mut made_on: Vec<u64> = verdicts.iter().map(|row| row.version).collect();
    made_on.sort_unstable();
    made_on.dedup();
    for own in made_on.into_iter().filter(|own| *own != version) {
        match store
            .at_version(Some(StoreVersion(own)))
            .and_then(|then| of_snapshot(&then, splits))
        {
            Ok(population) => before.push((own, population)),
            Err(_) => gone.push(own),
        }
    }
    let strata_of = Strata {
        by,
        samples: samples(&verdicts),
        before: &before,
    };
    let mut strata: BTreeMap<StratumKey, AuditStratum> = BTreeMap::new();
    for (key, track) in &now {
        for segment in 0..track.labels.len() {
            let own = strata.entry(strata_of.of(&now, key, segment)).or_default();
            own.size += 1;
            own.label = track.labels[segment];
        }
    }
    let mut unused = 0;
    for row in &verdicts {
        let key: TrackKey = (row.video.clone(), row.modality, row.class.clone());
        let there = now
            .get(&key)
            .is_some_and(|track| (row.segment as usize) < track.labels.len());
        if !there {
            unused += 1;
            continue;
        }
        let own = strata
            .entry(strata_of.of(&now, &key, row.segment as usize))
            .or_default();
        own.judged += 1;
        own.present += u64::from(row.present);
    }
    let mut groups: BTreeMap<&str, Vec<AuditStratum>> = BTreeMap::new();
    for ((group, ..), stratum) in &strata {
        groups.entry(group).or_default().push(*stratum);
    }
    let all: Vec<AuditStratum> = strata.values().copied().collect();
    let mut rows = vec![row("overall", &all)];
    if by != AuditStrata::All {
        rows.extend(groups.iter().map(|(name, strata)| row(name, strata)));
    }
    Ok(AuditReport {
        version,
        by: by.name(),
        rows,
        unused,
        gone,
    })
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

struct Strata<'a> {
    by: AuditStrata,
    samples: Vec<AuditStrata>,
    before: &'a [(u64, Population)],
}

impl Strata<'_> {
    fn of(&self, now: &Population, key: &TrackKey, segment: usize) -> StratumKey {
        let track = &now[key];
        let then = |population: &Population| {
            let track = population.get(key).filter(|track| segment < track.labels.len());
            track.map(|track| track.labels[segment])
        };
        let mut parts = Vec::new();
        for sample in &self.samples {
            if *sample != AuditStrata::Rule {
                parts.push(sample.of(track, segment).to_owned());
                continue;
            }
            // The rule can differ from version to version.
            parts.push(sample.of(track, segment).to_owned());
            for (_, population) in self.before {
                let track = population.get(key).filter(|track| segment < track.labels.len());
                parts.push(track.map_or_else(String::new, |track| sample.of(track, segment).to_owned()));
            }
        }
        (
            self.by.of(track, segment).to_owned(),
            parts,
            self.before
                .iter()
                .map(|(_, population)| then(population))
                .collect(),
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
