//! What all tests of a project that have failed teach about one of them: by how much their own record is to be
//! corrected, given facts about their last days (a test that is red altogether is soon mended, in one project, and
//! in another not). A logistic regression whose weights are known with a Gaussian uncertainty, learnt one
//! observation at a time by the extended Kalman filter (Fahrmeir 1992), and averaged over what the weights may be
//! (MacKay 1992). It begins as a test's own record, uncorrected, and departs from it as observations say so. Pure.

use super::unwell::FACTS;

/// Where a test's own record is among the facts.
const RECORD: usize = 1;
/// How far each weight may be from where it begins (standard deviations).
const SPREAD: [f64; FACTS] = [1.0, 0.3, 0.3, 1.0, 0.5, 0.5, 0.5, 1.0];

/// The weights of facts, and their covariances.
#[derive(Debug, Clone)]
pub(super) struct Pooled {
    weights: [f64; FACTS],
    covariance: [[f64; FACTS]; FACTS],
}

impl Default for Pooled {
    fn default() -> Self {
        let mut weights = [0.0; FACTS];
        weights[RECORD] = 1.0;
        let mut covariance = [[0.0; FACTS]; FACTS];
        for (place, spread) in SPREAD.iter().enumerate() {
            covariance[place][place] = spread * spread;
        }
        Self { weights, covariance }
    }
}

impl Pooled {
    /// The chance of a failure, by facts.
    pub(super) fn chance(&self, facts: &[f64; FACTS]) -> f64 {
        let variance = dot(&self.spread(facts), facts);
        logistic(dot(&self.weights, facts) / (1.0 + std::f64::consts::PI * variance / 8.0).sqrt())
    }

    /// Learns which share of runs failed on a day of which these facts were known.
    pub(super) fn learn(&mut self, facts: &[f64; FACTS], share: f64) {
        let chance = logistic(dot(&self.weights, facts));
        let spread = self.spread(facts);
        let information = (chance * (1.0 - chance)).max(1e-6);
        let gain = 1.0 / (1.0 + information * dot(&spread, facts));
        for (weight, spread) in self.weights.iter_mut().zip(&spread) {
            *weight += spread * gain * (share - chance);
        }
        for (row, one) in self.covariance.iter_mut().zip(&spread) {
            for (covariance, other) in row.iter_mut().zip(&spread) {
                *covariance -= information * gain * one * other;
            }
        }
    }

    fn spread(&self, facts: &[f64; FACTS]) -> [f64; FACTS] {
        self.covariance.each_ref().map(|row| dot(row, facts))
    }
}

fn dot(a: &[f64; FACTS], b: &[f64; FACTS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_as_the_record_and_learns_by_how_much_that_is_off() {
        let mut pooled = Pooled::default();
        // By their record these fail in 19 of 20 runs; in fact in 1 of 2.
        let facts = [1.0, 19f64.ln(), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let before = pooled.chance(&facts);
        assert!((0.85..0.95).contains(&before), "{before}");
        for day in 0..200 {
            pooled.learn(&facts, f64::from(day % 2));
        }
        let after = pooled.chance(&facts);
        assert!((0.45..0.55).contains(&after), "{after}");
    }
}
