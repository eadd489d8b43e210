//! What a question cannot ask, and what it can ask instead.

/// A question that cannot be asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuestionError {
    /// No number of runs gives certainty.
    #[error(
        "a confidence of {given} is not possible: choose one above 0 and at most {most}, such as 0.95 or 0.99"
    )]
    Confidence {
        /// What was given.
        given: f64,
        /// The highest that can be asked for.
        most: f64,
    },
    /// No number of runs proves that a test never flakes.
    #[error(
        "a flake rate of {given} is not possible: no number of runs proves that a test never flakes; choose at \
         least {least} and less than 1, such as 0.05 (59 clean runs at 95 %) or 0.01 (299)"
    )]
    Rate {
        /// What was given.
        given: f64,
        /// The lowest that can be asked for.
        least: f64,
    },
    /// Not a scope.
    #[error("`{0}` is not a scope: choose `test`, `file`, `suite` or `auto`")]
    Scope(String),
    /// Not a guarantee.
    #[error("`{0}` is not a guarantee: choose `test` (of each test) or `suite` (of the suite as a whole)")]
    Guarantee(String),
    /// Not a budget.
    #[error(
        "`{0}` is not a budget: write a time on the clock (10m), container time (container:2h) or a number of \
         attempts (attempts:500)"
    )]
    Budget(String),
    /// It does not pay for a first look.
    #[error("a budget of {budget} does not pay for one run of every test: that takes {least}")]
    TooSmall {
        /// What was offered, as it is written.
        budget: String,
        /// What would do, as it is written.
        least: String,
    },
    /// Nothing can be done with it.
    #[error("a budget of {0} buys nothing: choose at least 1 second, or 1 attempt")]
    NoBudget(String),
}
