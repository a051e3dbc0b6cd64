//! Numbers about numbers.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Of a count per session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "SpreadForm")]
pub struct Spread {
    sessions: u64,
    sum: u64,
    pub min: u64,
    pub max: u64,
}

#[derive(Serialize)]
struct SpreadForm {
    mean: f64,
    min: u64,
    max: u64,
}

impl From<Spread> for SpreadForm {
    fn from(spread: Spread) -> SpreadForm {
        SpreadForm { mean: spread.mean(), min: spread.min, max: spread.max }
    }
}

impl Spread {
    pub(super) fn add(&mut self, value: u64) {
        self.min = if self.sessions == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
        self.sessions += 1;
    }

    /// 0 without sessions.
    pub fn mean(&self) -> f64 {
        if self.sessions == 0 { 0.0 } else { self.sum as f64 / self.sessions as f64 }
    }
}

/// Of latencies in nanoseconds. All but the mean and the number are exact to three digits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub min: u64,
    pub p25: u64,
    pub median: u64,
    pub p75: u64,
    pub p95: u64,
    pub max: u64,
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram<u64>, sums: &[(u64, u64)]) -> Option<Quantiles> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Some(Quantiles {
            count: histogram.len(),
            mean: mean(sums.iter().copied())?,
            min: histogram.min(),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            max: histogram.max(),
        })
    }
}

/// A difference of two means in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub mean: f64,
    /// Bounds of the 95 % bootstrap interval. Absent unless both groups have at least two sessions
    /// with connections: one session says nothing about how much sessions differ.
    pub interval: Option<(f64, f64)>,
}

fn mean(sums: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for (session_sum, session_count) in sums {
        sum += session_sum as f64;
        count += session_count;
    }
    (count > 0).then(|| sum / count as f64)
}

/// The mean of `group` minus that of `from`, each given as sum and number per session.
///
/// The bootstrap draws whole sessions, with replacement, because connections of one session are
/// alike (one network, one moment) and count for less than as many independent ones. The drawing is
/// the same at every call.
pub(super) fn difference(group: &[(u64, u64)], from: &[(u64, u64)]) -> Option<Difference> {
    const DRAWS: usize = 2_000;
    let with_some = |sums: &[(u64, u64)]| -> Vec<(u64, u64)> {
        sums.iter().copied().filter(|(_, count)| *count > 0).collect()
    };
    let (group, from) = (with_some(group), with_some(from));
    let difference = mean(group.iter().copied())? - mean(from.iter().copied())?;
    let mut numbers = Numbers(0x5eed);
    let interval = (group.len() >= 2 && from.len() >= 2).then(|| {
        let mut draws: Vec<f64> = (0..DRAWS)
            .filter_map(|_| Some(redrawn(&group, &mut numbers)? - redrawn(&from, &mut numbers)?))
            .collect();
        draws.sort_by(f64::total_cmp);
        (draws[DRAWS * 25 / 1000], draws[DRAWS * 975 / 1000 - 1])
    });
    Some(Difference { mean: difference, interval })
}

fn redrawn(sums: &[(u64, u64)], numbers: &mut Numbers) -> Option<f64> {
    mean((0..sums.len()).map(|_| sums[numbers.below(sums.len())]))
}

/// SplitMix64: no secret depends on it, and it is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_contains_the_difference_and_knows_noise_from_effect() {
        let sessions = |base: u64| -> Vec<(u64, u64)> {
            (0..20).map(|at| (10 * (base + at % 5), 10)).collect()
        };
        let effect = difference(&sessions(1_000), &sessions(900)).unwrap();
        assert!((effect.mean - 100.0).abs() < 1e-9, "{effect:?}");
        let (low, high) = effect.interval.unwrap();
        assert!(low < 100.0 && 100.0 < high && low > 95.0 && high < 105.0, "{effect:?}");
        let none = difference(&sessions(900), &sessions(900)).unwrap();
        let (low, high) = none.interval.unwrap();
        assert!(low < 0.0 && 0.0 < high, "{none:?}");
        assert_eq!(difference(&sessions(1_000), &sessions(900)), Some(effect), "deterministic");
    }

    #[test]
    fn one_session_gives_no_interval_and_none_no_difference() {
        let one = [(100, 10)];
        assert_eq!(
            difference(&one, &[(50, 10), (50, 10)]),
            Some(Difference { mean: 5.0, interval: None })
        );
        assert_eq!(difference(&one, &[(0, 0), (0, 0)]), None);
    }

    #[test]
    fn a_spread_of_nothing_is_zero() {
        let mut spread = Spread::default();
        assert_eq!((spread.mean(), spread.min, spread.max), (0.0, 0, 0));
        for value in [4, 2, 9] {
            spread.add(value);
        }
        assert_eq!((spread.mean(), spread.min, spread.max), (5.0, 2, 9));
    }
}
