//! The mixture of two normal distributions, of which one is known, and the point where both are equally likely.

/// Number of rounds of expectation and maximisation. The estimates change by less than 1e-4 after 30 rounds.
const ROUNDS: usize = 60;
/// Least share, and least share of the rest, that the mixture gives the event. A share of 0 or 1 could not change in later
/// rounds.
const LEAST_SHARE: f64 = 0.05;
/// Least deviation of the event's scores, as a share of the deviation without the event.
const LEAST_DEVIATION: f64 = 0.5;

/// Count, mean and deviation of values that come one by one.
///
/// Source: Welford 1962, as in Knuth, The Art of Computer Programming 2, 4.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        let from = value - self.mean;
        self.mean += from / self.count;
        self.squares += from * (value - self.mean);
    }

    /// Mean, and standard deviation; `None` for fewer than two different values.
    pub fn normal(&self) -> Option<(f64, f64)> {
        let deviation = (self.squares / self.count).sqrt();
        (deviation > 0.0).then_some((self.mean, deviation))
    }
}

/// Returns the smallest point above the mean of `without` from which on a segment of `with` more likely has the event than
/// not. Returns `None` if the values of `with` are not higher.
///
/// `without` are values of segments without the event. `with` are values of segments of which an unknown share has the
/// event. The values with the event are taken to be normally distributed; share, mean and deviation are those of highest
/// likelihood (expectation and maximisation, Dempster, Laird and Rubin 1977).
///
/// ```
/// use vaplan::label::fit::mixture::{Moments, threshold};
/// let mut without = Moments::default();
/// (0..100).for_each(|at| without.add(f64::from(at % 10) / 10.0));
/// // A third of the segments is at 3 to 4, the others are as without the event.
/// let with: Vec<f32> = (0..300).map(|at| (if at % 3 == 0 { 3.0 } else { 0.0 }) + (at % 10) as f32 / 10.0).collect();
/// let point = threshold(&without, &with).unwrap();
/// assert!((1.0..3.0).contains(&point), "{point}");
/// ```
pub fn threshold(without: &Moments, with: &[f32]) -> Option<f64> {
    let (low, spread) = without.normal()?;
    let mut all = Moments::default();
    with.iter().for_each(|value| all.add(f64::from(*value)));
    let (mean, deviation) = all.normal()?;
    let (mut share, mut high, mut wide) = (0.5, mean + 0.5 * deviation, deviation);
    for _ in 0..ROUNDS {
        let (mut weight, mut sum) = (0.0, 0.0);
        let responsibility = |value: f64| {
            let difference = odds(value, (share, high, wide), (low, spread));
            1.0 / (1.0 + (-difference).exp())
        };
        for value in with {
            let own = responsibility(f64::from(*value));
            weight += own;
            sum += own * f64::from(*value);
        }
        if weight <= 0.0 {
            return None;
        }
        let centre = sum / weight;
        let squares: f64 = with
            .iter()
            .map(|value| responsibility(f64::from(*value)) * (f64::from(*value) - centre).powi(2))
            .sum();
        wide = (squares / weight).sqrt().max(LEAST_DEVIATION * spread);
        high = centre;
        share = (weight / with.len() as f64).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
    }
    if high <= low + LEAST_DEVIATION * spread {
        return None;
    }
    crossing((share, high, wide), (low, spread))
}

/// The logarithm of the odds of the event, up to the factor that both densities share.
fn odds(value: f64, (share, high, wide): (f64, f64, f64), (low, spread): (f64, f64)) -> f64 {
    let event = share.ln() - wide.ln() - 0.5 * ((value - high) / wide).powi(2);
    let none = (1.0 - share).ln() - spread.ln() - 0.5 * ((value - low) / spread).powi(2);
    event - none
}

/// The smallest point from `low` on at which the odds are not negative. Returns `None` if there is none up to the mean of
/// the event.
fn crossing(event: (f64, f64, f64), none: (f64, f64)) -> Option<f64> {
    let (mut below, mut above) = (none.0, event.1);
    if odds(above, event, none) < 0.0 {
        return None;
    }
    if odds(below, event, none) >= 0.0 {
        // A wide event with a large share is likelier everywhere. Half of the segments without it are then below.
        return Some(below);
    }
    // Between the two means the odds rise, because each summand rises.
    for _ in 0..60 {
        let middle = 0.5 * (below + above);
        match odds(middle, event, none) < 0.0 {
            true => below = middle,
            false => above = middle,
        }
    }
    Some(above)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    use super::*;

    fn normal(rng: &mut ChaCha8Rng, mean: f64, deviation: f64) -> f64 {
        mean + deviation * rng.sample::<f64, _>(StandardNormal)
    }

    /// Values without the event, N(1, 0.5), and values of which `share` are N(`high`, 0.7).
    fn sample(share: f64, high: f64) -> (Moments, Vec<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut without = Moments::default();
        (0..20_000).for_each(|_| without.add(normal(&mut rng, 1.0, 0.5)));
        let with = (0..20_000).map(|_| {
            let event = rng.random_bool(share);
            let (mean, deviation) = if event { (high, 0.7) } else { (1.0, 0.5) };
            normal(&mut rng, mean, deviation) as f32
        });
        let with = with.collect();
        (without, with)
    }

    #[test]
    fn the_point_is_where_both_are_equally_likely() {
        for (share, high) in [(0.3, 3.0), (0.6, 3.0), (0.5, 2.2)] {
            let (without, with) = sample(share, high);
            let found = threshold(&without, &with).unwrap();
            // By the true distributions, on a grid.
            let exact = (0..4000)
                .map(|at| 1.0 + f64::from(at) / 1000.0)
                .find(|at| odds(*at, (share, high, 0.7), (1.0, 0.5)) >= 0.0)
                .unwrap();
            assert!(
                (found - exact).abs() < 0.06,
                "share {share}, mean {high}: {found}, {exact}"
            );
        }
    }

    #[test]
    fn more_events_lower_the_point() {
        let at = |share| {
            let (without, with) = sample(share, 3.0);
            threshold(&without, &with).unwrap()
        };
        assert!(at(0.8) < at(0.5) && at(0.5) < at(0.2));
    }

    #[test]
    fn values_that_are_not_higher_give_no_point() {
        let (without, with) = sample(0.0, 3.0);
        let lower: Vec<f32> = with.iter().map(|value| value - 2.0).collect();
        assert_eq!(threshold(&without, &lower), None);
        assert_eq!(threshold(&without, &[]), None);
        assert_eq!(
            threshold(&Moments::default(), &with),
            None,
            "nothing is known without the event"
        );
        let mut equal = Moments::default();
        (0..9).for_each(|_| equal.add(1.0));
        assert_eq!(threshold(&equal, &with), None, "all values are equal");
    }
}
