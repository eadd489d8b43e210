//! What a sweep may cost, and what is left of it. The clock is the caller's: time enters as what
//! has passed.

use super::error::QuestionError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// What a sweep may cost, in one of three currencies. Written `10m`, `container:2h`, `attempts:500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Time on the clock, from the submission on.
    Clock(Duration),
    /// Time in containers, added up.
    Container(Duration),
    /// Attempts, infrastructure errors not counted.
    Attempts(NonZeroU64),
}

impl Budget {
    fn time(text: &str, whole: &str) -> Result<Duration, QuestionError> {
        let time = humantime::parse_duration(text).map_err(|_| QuestionError::Budget(whole.to_owned()))?;
        if time < Duration::from_secs(1) { Err(QuestionError::NoBudget(whole.to_owned())) } else { Ok(time) }
    }
}

impl FromStr for Budget {
    type Err = QuestionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.split_once(':') {
            None => Ok(Budget::Clock(Self::time(text, text)?)),
            Some(("clock", time)) => Ok(Budget::Clock(Self::time(time, text)?)),
            Some(("container", time)) => Ok(Budget::Container(Self::time(time, text)?)),
            Some(("attempts", number)) => {
                let number: u64 =
                    number.trim().parse().map_err(|_| QuestionError::Budget(text.to_owned()))?;
                let number =
                    NonZeroU64::new(number).ok_or_else(|| QuestionError::NoBudget(text.to_owned()))?;
                Ok(Budget::Attempts(number))
            }
            Some(_) => Err(QuestionError::Budget(text.to_owned())),
        }
    }
}

/// As it is written on the command line.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Clock(time) => write!(f, "{}", humantime::format_duration(*time)),
            Budget::Container(time) => write!(f, "container:{}", humantime::format_duration(*time)),
            Budget::Attempts(number) => write!(f, "attempts:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_they_are_written() {
        #[track_caller]
        fn check(text: &str, expect: Budget) {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget, expect);
            assert_eq!(budget.to_string().parse::<Budget>().unwrap(), expect);
        }
        check("10m", Budget::Clock(Duration::from_secs(600)));
        check("clock:1h 30m", Budget::Clock(Duration::from_secs(5_400)));
        check("container:2h", Budget::Container(Duration::from_secs(7_200)));
        check("attempts:500", Budget::Attempts(NonZeroU64::new(500).unwrap()));
    }

    #[test]
    fn what_is_no_budget_is_answered_with_what_is() {
        for text in ["", "10", "ten minutes", "attempts:many", "attempts:-1", "euros:5", "container:"] {
            let error = text.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains("attempts:500"), "{text}: {error}");
        }
        for text in ["0s", "10ms", "container:0s", "attempts:0"] {
            let error = text.parse::<Budget>().unwrap_err().to_string();
            assert!(error.contains("at least 1"), "{text}: {error}");
        }
    }
}
