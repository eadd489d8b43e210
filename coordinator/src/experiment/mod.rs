//! The vocabulary of experiments: what is asked, what is tried, what was seen. Planning, scoring and
//! reporting speak about nothing else; this is below all of them and decides nothing.

pub mod answer;
pub mod arm;
pub mod budget;
pub mod category;
pub mod certainty;
pub mod error;
pub mod filter;
pub mod history;
pub mod job_key;
pub mod ledger;
pub mod network;
pub mod planned;
pub mod question;
pub mod request;
pub mod sandbox;
pub mod seed;
pub mod trials;
pub mod verdict;
pub mod within;
pub mod worlds;

pub use answer::{Answer, Answers, SuiteNumbers, TestAnswer};
pub use arm::{Arm, Company};
pub use budget::Budget;
pub use category::CauseCategory;
pub use certainty::{Confidence, Counts, Rate};
pub use error::QuestionError;
pub use filter::TestFilter;
pub(crate) use filter::matches;
pub use history::{Flaked, History, PastRun, Record, RunCounts, TestHistory};
pub use job_key::{JobKey, JobPhase, Series, UnknownJobKey};
pub use ledger::{
    Aside, Attempt, AttemptFacts, Condition, ConditionCount, Ledger, Observation, Seen, SeenFailure, Shared,
    Standing, Subject, TestTally,
};
pub use network::{WantsNetwork, asked_for_network};
pub use planned::{Estimate, Plan, PlannedJob, Planning};
pub use question::{Guarantee, Question, QuestionKind, Runs, ScopeChoice};
pub use request::{BisectRequest, FailingIn, Rerun, RerunGate, RevisionSnapshot, ValidateRequest};
pub use sandbox::{SandboxChoice, UnknownSandbox};
pub use seed::{derive_seed, file_of, shuffle_key};
pub use trials::{Tally, Trial, Trials};
pub use verdict::Verdict;
pub use within::{Incapable, Narrowed, narrowed};
pub use worlds::{Unbearable, WorldsSeen};
