//! What pairs of measurements say, and no more than that.

use serde::Serialize;

/// A median and the bounds of its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

const RESAMPLES: usize = 2000;

impl Estimate {
    /// None without values.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let median = median(values)?;
        // Always the same resamples: the same measurements give the same interval.
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let sample: Vec<f64> =
                    values.iter().map(|_| values[random.below(values.len())]).collect();
                self::median(&sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |per_mille: usize| medians.get((medians.len() - 1) * per_mille / 1000).copied();
        Some(Estimate { median, low: at(25)?, high: at(975)? })
    }

    /// Whether this differs from one by more than what nothing at all differs by.
    pub fn stands_out(&self, floor: &Estimate) -> bool {
        let noise = (floor.high - 1.0).max(1.0 - floor.low);
        self.low > 1.0 + noise || self.high < 1.0 - noise
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_median() {
        assert_eq!(Estimate::of(&[]), None);
        let same = Estimate::of(&[1.5; 11]).unwrap();
        assert_eq!((same.median, same.low, same.high), (1.5, 1.5, 1.5));
        let values: Vec<f64> = (0..101).map(f64::from).collect();
        let spread = Estimate::of(&values).unwrap();
        assert_eq!(spread.median, 50.0);
        assert!(spread.low > 30.0 && spread.low < 50.0, "{spread:?}");
        assert!(spread.high > 50.0 && spread.high < 70.0, "{spread:?}");
    }

    #[test]
    fn noise_is_no_finding() {
        let of = |low, high| Estimate { median: f64::midpoint(low, high), low, high };
        let floor = of(0.98, 1.02);
        assert!(!of(1.00, 1.03).stands_out(&floor));
        assert!(!of(0.97, 1.05).stands_out(&floor));
        assert!(of(1.03, 1.05).stands_out(&floor));
        assert!(of(0.90, 0.97).stands_out(&floor));
    }
}
