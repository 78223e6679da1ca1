//! Precision and recall of labels by a stratified random sample of verdicts, with confidence intervals.
//!
//! A stratum h has N_h segments, n_h verdicts, and k_h verdicts that the event occurs. All segments of a stratum have the
//! same label. docs/audit.md derives the formulas.
//!
//! - Precision P = Σ N_h k_h/n_h / Σ N_h over the strata whose label is set.
//! - Recall R = A / (A + B), with A = Σ N_h k_h/n_h over the strata that are set, and B the same over those that are not.
//! - The interval is Wilson's (1927), at the effective number of verdicts n* = p(1-p) / Var. For one stratum, n* is
//!   n N/(N-n), Wilson's interval with the correction for a finite population: with all N verdicts it is the value itself.
//!
//! Source: W. G. Cochran, Sampling Techniques, 3rd ed. 1977, sections 5.3 (variance of a stratified mean), 6.2 (a ratio),
//! 5A.12 (collapsed strata); E. B. Wilson, J. Am. Stat. Assoc. 22, 1927; the effective sample size in Wilson's interval: C. Franco,
//! R. Little, T. Louis, E. Slud, J. Surv. Stat. Methodol. 7, 2019. Grade C for these; the smoothing of k_h in the variance is ours
//! (D).

/// The 97.5 % point of the normal distribution: intervals of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A stratum of segments with the same label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditStratum {
    /// N_h, the number of segments.
    pub size: u64,
    /// n_h, the number of verdicts.
    pub judged: u64,
    /// k_h, the number of verdicts that the event occurs.
    pub present: u64,
    /// Whether the label of these segments is set.
    pub label: bool,
}

/// A share with its confidence interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct AuditEstimate {
    /// The estimate, from 0 to 1.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of verdicts that the estimate rests on.
    pub verdicts: u64,
    /// Number of further verdicts, spread like those there are, that would halve the interval. 0 if the interval has no
    /// width.
    pub more_to_halve: u64,
}

impl AuditStratum {
    /// The share of present segments among the verdicts.
    fn share(&self) -> f64 {
        self.present as f64 / self.judged as f64
    }

    /// Both strata as one.
    fn with(self, other: AuditStratum) -> AuditStratum {
        AuditStratum {
            size: self.size + other.size,
            judged: self.judged + other.judged,
            present: self.present + other.present,
            label: self.label,
        }
    }

    /// The share with one more verdict of each kind. A stratum in which all verdicts agree would otherwise seem to have no
    /// variance.
    fn smooth(&self) -> f64 {
        (self.present as f64 + 1.0) / (self.judged as f64 + 2.0)
    }

    /// The variance of the number of present segments, N_h k_h/n_h, if there are `verdicts` verdicts.
    fn variance(&self, verdicts: f64) -> f64 {
        let (size, share) = (self.size as f64, self.smooth());
        let left = (1.0 - verdicts / size).max(0.0);
        size * size * left * share * (1.0 - share) / verdicts
    }
}

/// Sums over the strata of one label: the number of present segments, the same smoothed, its variance, and all segments.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    present: f64,
    smooth: f64,
    variance: f64,
    size: f64,
    verdicts: u64,
}

impl Total {
    /// The strata of a label. Each has `factor` times its verdicts, at most all segments.
    fn of(strata: &[AuditStratum], label: bool, factor: f64) -> Total {
        let mut total = Total::default();
        for stratum in strata.iter().filter(|own| own.label == label && own.judged > 0) {
            let size = stratum.size as f64;
            let verdicts = (stratum.judged as f64 * factor).min(size);
            total.present += size * stratum.share();
            total.smooth += size * stratum.smooth();
            total.variance += stratum.variance(verdicts);
            total.size += size;
            total.verdicts += stratum.judged;
        }
        total
    }
}

/// The number of independent verdicts whose share would have this variance. Without a variance, the share is known.
fn effective(share: f64, variance: f64) -> f64 {
    match variance > 0.0 {
        true => share * (1.0 - share) / variance,
        false => f64::INFINITY,
    }
}

/// Wilson's interval of the share `value`, for `verdicts` independent verdicts.
pub fn wilson(value: f64, verdicts: f64) -> (f64, f64) {
    if verdicts.is_infinite() {
        return (value, value);
    }
    let z2 = Z * Z;
    let middle = (value + z2 / (2.0 * verdicts)) / (1.0 + z2 / verdicts);
    let half = Z / (1.0 + z2 / verdicts)
        * (value * (1.0 - value) / verdicts + z2 / (4.0 * verdicts * verdicts)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// The share of true labels among the set ones. `None` without a verdict on a set label.
pub fn precision(strata: &[AuditStratum]) -> Option<AuditEstimate> {
    let at = |factor: f64| {
        let set = Total::of(strata, true, factor);
        let (value, smooth) = (set.present / set.size, set.smooth / set.size);
        let effective = effective(smooth, set.variance / (set.size * set.size));
        (value, wilson(value, effective), set.verdicts)
    };
    estimate(strata, |label| label, at)
}

/// The share of set labels among the segments in which the event occurs, within the weak label. `None` if no verdict says
/// that an event occurs, or if only set or only unset labels have verdicts.
pub fn recall(strata: &[AuditStratum]) -> Option<AuditEstimate> {
    let there = |label: bool| strata.iter().any(|own| own.label == label && own.size > 0);
    let judged = |label: bool| strata.iter().any(|own| own.label == label && own.judged > 0);
    if [true, false]
        .into_iter()
        .any(|label| there(label) && !judged(label))
    {
        return None;
    }
    let at = |factor: f64| {
        let (set, unset) = (Total::of(strata, true, factor), Total::of(strata, false, factor));
        let value = set.present / (set.present + unset.present);
        let all = set.smooth + unset.smooth;
        let smooth = set.smooth / all;
        // The variance of a ratio A / (A + B) by its derivatives, B / (A + B)² and -A / (A + B)².
        let variance =
            (unset.smooth.powi(2) * set.variance + set.smooth.powi(2) * unset.variance) / all.powi(4);
        let effective = effective(smooth, variance);
        (value, wilson(value, effective), set.verdicts + unset.verdicts)
    };
    estimate(strata, |_| true, at)
}

/// The value, interval and number of verdicts if each stratum has `factor` times its verdicts.
type At<'a> = &'a dyn Fn(f64) -> (f64, (f64, f64), u64);

fn estimate(
    strata: &[AuditStratum],
    counts: impl Fn(bool) -> bool,
    at: impl Fn(f64) -> (f64, (f64, f64), u64),
) -> Option<AuditEstimate> {
    let (value, (low, high), verdicts) = at(1.0);
    if verdicts == 0 || !value.is_finite() {
        return None;
    }
    let own: Vec<&AuditStratum> = strata
        .iter()
        .filter(|own| counts(own.label) && own.judged > 0)
        .collect();
    Some(AuditEstimate {
        value,
        low,
        high,
        verdicts,
        more_to_halve: more_to_halve(&own, &at, high - low),
    })
}

/// The number of further verdicts at which the interval is half as wide, if they are spread like those there are.
fn more_to_halve(strata: &[&AuditStratum], at: At<'_>, width: f64) -> u64 {
    if width <= 0.0 {
        return 0;
    }
    let most = strata
        .iter()
        .map(|own| own.size as f64 / own.judged as f64)
        .fold(1.0, f64::max);
    let narrow = |factor: f64| {
        let (_, (low, high), _) = at(factor);
        high - low <= width / 2.0
    };
    let (mut less, mut enough) = (1.0, most);
    for _ in 0..60 {
        let middle = (less + enough) / 2.0;
        if narrow(middle) {
            enough = middle
        } else {
            less = middle
        }
    }
    let more = |own: &&AuditStratum| {
        let wanted = (own.judged as f64 * enough).ceil().min(own.size as f64) as u64;
        wanted.saturating_sub(own.judged)
    };
    strata.iter().map(more).sum()
}

/// Pools the strata with fewer than two verdicts with others of the same label, because one verdict tells nothing of the
/// spread. If the pool still has fewer than two, it takes in the smallest other strata, so that every segment counts.
pub fn pooled(strata: &[AuditStratum]) -> Vec<AuditStratum> {
    let mut kept = Vec::new();
    for label in [true, false] {
        let own = strata.iter().filter(|own| own.label == label && own.size > 0);
        let few = |own: &&AuditStratum| own.judged < 2 && own.judged < own.size;
        let (few, mut enough): (Vec<AuditStratum>, Vec<AuditStratum>) = {
            let (few, enough): (Vec<_>, Vec<_>) = own.partition(few);
            (
                few.into_iter().copied().collect(),
                enough.into_iter().copied().collect(),
            )
        };
        if let Some(mut pool) = few.into_iter().reduce(AuditStratum::with) {
            enough.sort_by_key(|own| std::cmp::Reverse(own.size));
            while pool.judged < 2
                && let Some(smallest) = enough.pop()
            {
                pool = pool.with(smallest);
            }
            enough.push(pool);
        }
        kept.append(&mut enough);
    }
    kept
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
