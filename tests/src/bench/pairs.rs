//! Without, with, without, with: what stands between them is the tool.

use anyhow::Result;

use super::{
    stats::{Estimate, median},
    tools::Trial,
};

#[derive(Debug)]
pub(super) struct Pairs {
    without: Vec<Trial>,
    pub(super) with: Vec<Trial>,
}

impl Pairs {
    /// One more pair is run first and thrown away: caches are cold then.
    pub(super) fn measure(
        pairs: usize,
        mut without: impl FnMut() -> Result<Trial>,
        mut with: impl FnMut() -> Result<Trial>,
    ) -> Result<Pairs> {
        without()?;
        with()?;
        let mut all = Pairs { without: Vec::new(), with: Vec::new() };
        for pair in 0..pairs {
            // Turn and turn about, so that neither is always the one that comes second.
            if pair % 2 == 0 {
                all.without.push(without()?);
                all.with.push(with()?);
            } else {
                all.with.push(with()?);
                all.without.push(without()?);
            }
        }
        Ok(all)
    }

    pub(super) fn ratio(&self, of: impl Fn(&Trial) -> f64) -> Option<Estimate> {
        let ratios: Vec<f64> = self
            .with
            .iter()
            .zip(&self.without)
            .map(|(with, without)| of(with) / of(without))
            .collect();
        Estimate::of(&ratios)
    }

    pub(super) fn difference(&self, of: impl Fn(&Trial) -> f64) -> Option<f64> {
        let differences: Vec<f64> = self
            .with
            .iter()
            .zip(&self.without)
            .map(|(with, without)| of(with) - of(without))
            .collect();
        median(&differences)
    }
}
