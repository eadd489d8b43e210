//! How sure, how seldom, and how many runs that takes.

use super::error::QuestionError;
use serde::{Deserialize, Serialize};

/// A probability of being right, within (0, 1).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Confidence(f64);

impl Confidence {
    /// The highest that can be asked for.
    pub const MAX: f64 = 0.999_999;
    /// 95 %, the default.
    pub const DEFAULT: Confidence = Confidence(0.95);

    /// Refuses what no number of runs can give.
    pub fn new(value: f64) -> Result<Self, QuestionError> {
        if value > 0.0 && value <= Self::MAX {
            Ok(Self(value))
        } else {
            Err(QuestionError::Confidence { given: value, most: Self::MAX })
        }
    }

    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The probability of being wrong, 1 minus this.
    pub fn risk(self) -> f64 {
        1.0 - self.0
    }
}

impl TryFrom<f64> for Confidence {
    type Error = QuestionError;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Confidence> for f64 {
    fn from(confidence: Confidence) -> f64 {
        confidence.0
    }
}

/// A flake rate, within (0, 1).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

impl Rate {
    /// The lowest that can be asked for: below it, a test would need millions of runs.
    pub const MIN: f64 = 0.000_01;
    /// 5 %, the default.
    pub const DEFAULT: Rate = Rate(0.05);

    /// Refuses what no number of runs can prove.
    pub fn new(value: f64) -> Result<Self, QuestionError> {
        if (Self::MIN..1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(QuestionError::Rate { given: value, least: Self::MIN })
        }
    }

    /// The value.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Rate {
    type Error = QuestionError;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> f64 {
        rate.0
    }
}

/// Clean runs after which a test that fails at `rate` or more would have been seen to fail with
/// probability `confidence`: the smallest n with (1 - rate)^n <= 1 - confidence.
pub fn clean_runs_needed(rate: Rate, confidence: Confidence) -> u32 {
    let runs = confidence.risk().ln() / (-rate.get()).ln_1p();
    // A quotient that is whole but for rounding is not rounded up once more.
    let runs = (runs - 1e-9).ceil().max(1.0);
    if runs >= f64::from(u32::MAX) { u32::MAX } else { runs as u32 }
}

/// Passes and failures of one arm; skips and infrastructure errors are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// Passes and failures.
    pub attempts: u32,
    /// Failures.
    pub failures: u32,
}

impl Counts {
    /// Panics if there are more failures than attempts.
    pub fn new(failures: u32, attempts: u32) -> Self {
        assert!(failures <= attempts, "failures are attempts");
        Self { attempts, failures }
    }

    /// Failures over attempts; none without attempts.
    pub fn rate(self) -> Option<f64> {
        (self.attempts > 0).then(|| f64::from(self.failures) / f64::from(self.attempts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_wishes_are_refused_with_what_is_possible() {
        for value in [0.0, 1.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Confidence::new(value).is_err(), "{value}");
            assert!(Rate::new(value).is_err(), "{value}");
        }
        assert!(Confidence::new(1.0).unwrap_err().to_string().contains("0.95"));
        assert!(Rate::new(0.0).unwrap_err().to_string().contains("0.05"));
        assert!(serde_json::from_str::<Confidence>("1.0").is_err());
        assert_eq!(serde_json::from_str::<Rate>("0.05").unwrap(), Rate::DEFAULT);
    }
}
