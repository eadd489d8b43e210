//! Repairs of flaky tests, from what a diagnosis found by experiment: the state that leaks is restored where
//! it is made, what a test lacked it gets, clocks, zones, seeds and orders are pinned, fixed waits become
//! bounded waits for what is waited for. Nothing here knows whether a proposal helps: each is one arm of an
//! experiment, under the very condition in which the test failed.

mod fixtures;
mod rewrites;
mod site;

pub(crate) use site::Site;

use crate::adapt::FileAdaptation;
use crate::gates::Rule;
use crate::python::symbols::SymbolTable;
use crate::tree::SourceTree;

/// Why a test is flaky, as far as a repair depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// It fails after tests that leave something behind.
    OrderVictim,
    /// It passes only after tests that leave something behind.
    OrderBrittle,
    /// It fails the second time in one process.
    NotIdempotent,
    /// Random numbers.
    Randomness,
    /// The order of sets, by the salt of hashes.
    HashOrder,
    /// The local time zone.
    TimeZone,
    /// The date or the time of day.
    Clock,
    /// It waits for a fixed time, or measures it.
    Timing,
    /// The order of directories, the umask, the home directory.
    FileSystem,
    /// Language and encoding of the process.
    Locale,
}

/// One piece of state that a test changed and did not change back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeakedState {
    /// The test that changed it, by its id.
    pub test: String,
    /// `module global`, `environment variable`, `working directory`, `file`, ...
    pub kind: String,
    /// Which one: `depot.UNIT`, `DEPOT_REGION`, `/tmp/depot.lock`.
    pub name: String,
    /// What it was, as Python writes it; empty if it was not there.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// What a diagnosis says of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The test, by pytest's node id.
    pub test: String,
    /// Why it is flaky.
    pub category: Category,
    /// What the tests before it, or its own first run, left behind.
    pub state: Vec<LeakedState>,
    /// The tests that must run before it to show it (polluters or state-setters), in order.
    pub others: Vec<String>,
}

/// How a repair goes about it. Success is remembered under this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// A fixture puts state back after the test that changes it.
    RestoreState,
    /// A fixture gives the test the state that another test used to leave.
    ProvideState,
    /// What another test does before its assertions is done in this one.
    CopySetUp,
    /// A file in a shared place becomes one of the test's own.
    OwnFile,
    /// Generators of random numbers get a seed.
    SeedRandomness,
    /// What has no order is sorted before it is used as a sequence.
    SortUnordered,
    /// The time zone is UTC during the test.
    PinTimeZone,
    /// The clock stands still during the test.
    PinClock,
    /// A sleep becomes a bounded wait for what is asserted next.
    WaitForCondition,
    /// A limit on a blocking call becomes long enough for a busy machine.
    GenerousTimeout,
    /// Time spent is measured in CPU time.
    MeasureCpuTime,
    /// The umask is the usual one during the test.
    PinUmask,
    /// The home directory is one of the test's own.
    OwnHome,
    /// Texts are read and written as UTF-8, whatever the locale.
    SayEncoding,
}

impl Strategy {
    /// Its name in reports and in what is remembered.
    pub fn word(self) -> &'static str {
        match self {
            Strategy::RestoreState => "restore-state",
            Strategy::ProvideState => "provide-state",
            Strategy::CopySetUp => "copy-set-up",
            Strategy::OwnFile => "own-file",
            Strategy::SeedRandomness => "seed-randomness",
            Strategy::SortUnordered => "sort-unordered",
            Strategy::PinTimeZone => "pin-time-zone",
            Strategy::PinClock => "pin-clock",
            Strategy::WaitForCondition => "wait-for-condition",
            Strategy::GenerousTimeout => "generous-timeout",
            Strategy::MeasureCpuTime => "measure-cpu-time",
            Strategy::PinUmask => "pin-umask",
            Strategy::OwnHome => "own-home",
            Strategy::SayEncoding => "say-encoding",
        }
    }

    /// What the gates would object to and what is the point of this strategy: nothing else may be.
    pub fn excused(self) -> &'static [Rule] {
        match self {
            Strategy::ProvideState | Strategy::PinTimeZone | Strategy::PinClock | Strategy::OwnHome => {
                &[Rule::MoreMocked]
            }
            // A variable of the environment is put back by writing it.
            Strategy::RestoreState => &[Rule::EnvironmentChanged],
            // The bounded wait sleeps in its loop.
            Strategy::WaitForCondition => &[Rule::WaitsLonger],
            _ => &[],
        }
    }
}

/// One way to mend a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// How.
    pub strategy: Strategy,
    /// What it does, in a sentence.
    pub explanation: String,
    /// The files as they would be.
    pub files: Vec<FileAdaptation>,
}

/// What might mend the test, the likeliest first. Empty where nothing is known that could.
pub fn propose(tree: &SourceTree, finding: &Finding) -> Vec<Proposal> {
    let table = SymbolTable::read(tree);
    let context = Context { tree, table: &table, finding };
    let mut proposals: Vec<Proposal> = Vec::new();
    match finding.category {
        Category::OrderVictim => proposals.extend(fixtures::restore(&context, &finding.others)),
        Category::OrderBrittle => {
            proposals.extend(fixtures::provide(&context));
            proposals.extend(rewrites::copy_set_up(&context));
        }
        Category::NotIdempotent => {
            proposals.extend(rewrites::own_file(&context));
            proposals.extend(fixtures::restore(&context, std::slice::from_ref(&finding.test)));
        }
        Category::Randomness => proposals.extend(rewrites::seed(&context)),
        Category::HashOrder => proposals.extend(rewrites::sort(&context)),
        Category::TimeZone => proposals.extend(fixtures::time_zone(&context)),
        Category::Clock => proposals.extend(fixtures::clock(&context)),
        Category::Timing => {
            proposals.extend(rewrites::wait_for_condition(&context));
            proposals.extend(rewrites::generous_timeout(&context));
            proposals.extend(rewrites::measure_cpu_time(&context));
        }
        Category::FileSystem => {
            proposals.extend(rewrites::sort(&context));
            proposals.extend(fixtures::umask(&context));
            proposals.extend(fixtures::home(&context));
        }
        Category::Locale => proposals.extend(rewrites::say_encoding(&context)),
    }
    proposals.retain(|proposal| {
        !proposal.files.is_empty()
            && proposal.files.iter().all(|file| ruff_python_parser::parse_module(&file.text).is_ok())
    });
    proposals
}

/// What strategies see.
struct Context<'a> {
    tree: &'a SourceTree,
    table: &'a SymbolTable,
    finding: &'a Finding,
}

#[cfg(test)]
mod tests;
