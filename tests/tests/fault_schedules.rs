//! Seeded schedules of faults on real servers: processes end at named points between row and
//! acknowledgement, servers go away, freeze, are full or lose what they hold, workers are told to leave, clocks
//! are set, two coordinators work at once, jobs wait long. Whatever happens, the sweep ends by itself with every
//! attempt counted once, nothing is left behind, and the schedule proves that its fault was felt.
//!
//! `make faults` runs 200; the suite runs a few. `FLAKEFARM_FAULT_SEED=17` replays one.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_shared::fault::POINTS;
use flakefarm_tests::dice::Dice;
use flakefarm_tests::faultfarm::{FaultFarm, Server, wait_for};
use std::time::{Duration, Instant};

/// In the test suite.
const FEW: usize = 4;
/// Work flows again so soon after a server is back.
const RECOVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A process ends when it passes a point for the given time.
    Ends { point: &'static str, time: u32 },
    /// A server is cut off, or falls silent, for so long.
    Away { server: Server, silent: bool, millis: u64 },
    /// SIGTERM to a worker in mid-attempt; another one starts.
    Drained,
    /// SIGKILL to a worker in mid-attempt; another one starts.
    Killed,
    /// The broker's queue of jobs is deleted with what it holds.
    QueueDeleted,
    /// Redis forgets everything.
    SamplesFlushed,
    /// Redis has no memory left, for so long.
    SamplesFull { millis: u64 },
    /// The broker has no memory left, for so long, and reads nothing from those who publish.
    BrokerStarved { millis: u64 },
    /// Every connection to the database ends.
    DatabaseDrops,
    /// The coordinator's clock is set, by so many seconds.
    ClockSet { seconds: i64 },
    /// A second coordinator over the same database.
    TwoCoordinators,
}

impl Fault {
    fn of(dice: &mut Dice) -> Self {
        match dice.next(13) {
            0..=3 => {
                let point = POINTS[dice.next(POINTS.len() as u64) as usize];
                // The first job lists the tests; when the coordinator carries the second, the client has
                // its answer. Few jobs are published: their points are not passed much oftener.
                let time = if point.starts_with("worker") { 1 + dice.next(2) as u32 } else { 2 };
                Fault::Ends { point, time }
            }
            4 | 5 => {
                let server = [Server::Queue, Server::Samples, Server::Database][dice.next(3) as usize];
                Fault::Away { server, silent: dice.next(3) == 0, millis: 1_000 + dice.next(6_000) }
            }
            6 => Fault::Drained,
            7 => Fault::Killed,
            8 => [Fault::QueueDeleted, Fault::SamplesFlushed][dice.next(2) as usize],
            9 => Fault::SamplesFull { millis: 1_000 + dice.next(6_000) },
            10 => {
                let millis = 1_000 + dice.next(6_000);
                [Fault::BrokerStarved { millis }, Fault::DatabaseDrops][dice.next(2) as usize]
            }
            11 => Fault::ClockSet { seconds: [7_200, -7_200][dice.next(2) as usize] },
            _ => Fault::TwoCoordinators,
        }
    }

    /// Two that can both be felt: a point that lies behind the sweep is never passed.
    fn two(dice: &mut Dice) -> [Self; 2] {
        let (first, second) = (Fault::of(dice), Fault::of(dice));
        let second = match (first, second) {
            (Fault::Ends { point: one, .. }, Fault::Ends { point: other, .. }) => {
                match (one.starts_with("worker"), other.starts_with("worker")) {
                    (true, true) => Fault::Killed,
                    (false, false) => Fault::Drained,
                    (true, false) | (false, true) => second,
                }
            }
            _ => second,
        };
        // While a coordinator is gone, or the first worker, nothing happens that the other fault could wait for: its end
        // comes first, the coordinator's before the worker's.
        let ends = |fault: Self, role: &str| fault.point_of(role).is_some();
        let later = ends(second, "coordinator") || (ends(second, "worker") && !ends(first, "coordinator"));
        if later { [second, first] } else { [first, second] }
    }

    /// The point at which a process of this role ends.
    fn point_of(self, role: &str) -> Option<(&'static str, u32)> {
        match self {
            Fault::Ends { point, time } if point.starts_with(role) => Some((point, time)),
            _ => None,
        }
    }

    /// Attempts in hand when it strikes may be made again.
    fn may_repeat(self) -> bool {
        match self {
            Fault::Ends { .. } | Fault::Killed | Fault::QueueDeleted => true,
            Fault::Away { silent, .. } => silent,
            Fault::Drained
            | Fault::SamplesFlushed
            | Fault::SamplesFull { .. }
            | Fault::BrokerStarved { .. }
            | Fault::DatabaseDrops
            | Fault::ClockSet { .. }
            | Fault::TwoCoordinators => false,
        }
    }

    /// Whether nobody feels it who shares the servers.
    fn is_private(self) -> bool {
        !matches!(self, Fault::BrokerStarved { .. })
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let faults = Fault::two(&mut dice);
    let began = Instant::now();
    eprintln!("schedule {seed}: {faults:?}");
    let mut farm = FaultFarm::start("10s");
    // A process with a fault in it is there from the start; what it leaves is taken over by another.
    let with_clock = faults.iter().any(|fault| matches!(fault, Fault::ClockSet { .. }));
    if with_clock {
        farm.with_clock();
    }
    let point = faults.iter().find_map(|fault| fault.point_of("coordinator"));
    if with_clock || point.is_some() {
        farm.restart_coordinator(point);
    }
    let mut sweep = farm.sweep(90);
    farm.wait_for_submission();
    farm.start_worker("first", faults.iter().find_map(|fault| fault.point_of("worker")));
    for fault in faults {
        strike(&mut farm, fault);
    }
    farm.start_worker("last", None);
    let report = farm.whole(&mut sweep, seed);
    farm.nothing_is_left(seed);
    if !faults.iter().any(|fault| fault.may_repeat()) {
        assert_eq!(farm.repeated(), Vec::<String>::new(), "schedule {seed}: attempts made twice");
    }
    eprintln!("schedule {seed}: whole after {:?}, {report} attempts", began.elapsed());
}

fn strike(farm: &mut FaultFarm, fault: Fault) {
    match fault {
        Fault::Ends { point, .. } if point.starts_with("coordinator") => {
            farm.felt_end_of_coordinator(point);
            farm.restart_coordinator(None);
        }
        Fault::Ends { point, .. } => {
            farm.felt_end_of_worker(point);
            farm.start_worker("heir", None);
        }
        Fault::Away { server, silent, millis } => {
            farm.wait_for_attempts(1);
            farm.cut(server, silent, Duration::from_millis(millis));
            farm.start_worker("helper", None);
            farm.flows_again(RECOVERY);
        }
        Fault::Drained => {
            farm.start_worker("leaving", None);
            farm.wait_for_attempts(1);
            farm.drain("leaving");
        }
        Fault::Killed => {
            farm.start_worker("doomed", None);
            farm.wait_for_attempts(1);
            farm.kill("doomed");
        }
        Fault::QueueDeleted => {
            farm.delete_queue();
        }
        Fault::SamplesFlushed => {
            farm.wait_for_attempts(1);
            farm.flush_samples();
        }
        Fault::SamplesFull { millis } => {
            farm.wait_for_attempts(1);
            farm.fill_samples(Duration::from_millis(millis));
            farm.flows_again(RECOVERY);
        }
        Fault::BrokerStarved { millis } => {
            farm.wait_for_attempts(1);
            farm.starve_queue(Duration::from_millis(millis));
            farm.start_worker("helper", None);
            farm.flows_again(RECOVERY);
        }
        Fault::DatabaseDrops => {
            farm.wait_for_attempts(1);
            farm.end_database_connections();
            farm.start_worker("helper", None);
            farm.flows_again(RECOVERY);
        }
        Fault::ClockSet { seconds } => {
            farm.wait_for_attempts(1);
            farm.set_clock(seconds);
            farm.start_worker("helper", None);
            farm.flows_again(RECOVERY);
        }
        Fault::TwoCoordinators => farm.start_second_coordinator(),
    }
}

#[test]
fn seeded_schedules_of_faults_lose_nothing_and_count_nothing_twice() {
    if let Ok(seed) = std::env::var("FLAKEFARM_FAULT_SEED") {
        return run(seed.parse().unwrap());
    }
    let many = std::env::var("FLAKEFARM_FAULT_SCHEDULES").ok().map(|text| text.parse().unwrap());
    // Beside other tests, only what they do not feel.
    let fits =
        |seed: &u64| many.is_some() || Fault::two(&mut Dice(*seed)).iter().all(|fault| fault.is_private());
    for seed in (0..).filter(fits).take(many.unwrap_or(FEW)) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = outcome {
            eprintln!("replay it with FLAKEFARM_FAULT_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Longer than two leases: published once, run once.
#[test]
fn jobs_that_wait_longer_than_a_lease_are_not_copied() {
    let mut farm = FaultFarm::start("3s");
    farm.start_worker("only", None);
    let mut sweep = farm.sweep(40);
    farm.wait_for_attempts(1);
    farm.stop_process("only");
    let waited = Instant::now();
    // The fault itself: nobody takes what waits, for more than two leases.
    wait_for("two leases to pass", || waited.elapsed() > Duration::from_secs(8));
    farm.continue_process("only");
    farm.whole(&mut sweep, 0);
    assert_eq!(farm.copies(), 0, "of jobs that waited");
    assert_eq!(farm.repeated(), Vec::<String>::new());
    farm.nothing_is_left(0);
}

/// The broker away for `FLAKEFARM_FAULT_AWAY` seconds (30 by `make faults`), with jobs in hand of two
/// workers: nothing runs again.
/// Every test is healthy, whatever one machine makes of it.
#[test]
fn a_worker_that_fails_more_than_the_others_is_drained_and_its_attempts_are_made_again() {
    let mut farm = FaultFarm::start("45s");
    farm.start_failing_worker("bad", 60);
    for name in ["good", "better"] {
        farm.start_worker(name, None);
    }
    // Jobs are cut so that each of six slots has one, four seconds long: 40 attempts on all tests.
    farm.wait_for_workers(3);
    let mut sweep = farm.sweep_by("suite", 240);
    farm.whole(&mut sweep, 0);
    wait_for("the bad worker to say that it is set aside", || farm.set_aside() == 1);
    let by_it = farm.starts().iter().filter(|line| line.starts_with("bad ")).count();
    assert!(by_it >= 10, "it was noticed by what it did: {by_it} attempts");
    let logs = farm.logs();
    assert!(logs.contains("jobs of workers that were set aside are made again"), "{logs}");
    farm.nothing_is_left(0);
}

#[test]
fn a_broker_that_is_away_has_nothing_run_again() {
    away(Server::Queue, 12);
}

/// Redis away (150 s by `make faults`): work waits, it does not die, and readiness tells.
#[test]
fn a_sample_store_that_is_away_has_nothing_run_again() {
    away(Server::Samples, 12);
}

fn away(server: Server, seconds: u64) {
    let seconds = std::env::var("FLAKEFARM_FAULT_AWAY").map_or(seconds, |text| text.parse().unwrap());
    let mut farm = FaultFarm::start("10s");
    farm.start_worker("one", None);
    farm.start_worker("other", None);
    let mut sweep = farm.sweep(220);
    // 40 a second at most: by then the coordinator has heard workers for long enough to judge leases
    // while it is cut off.
    farm.wait_for_attempts(440);
    farm.cut(server, false, Duration::from_secs(seconds));
    farm.flows_again(RECOVERY);
    farm.whole(&mut sweep, 0);
    assert_eq!(farm.published_again(), 0, "of jobs whose workers live: {}", farm.logs());
    assert_eq!(farm.repeated(), Vec::<String>::new(), "attempts made twice: {}", farm.logs());
    farm.nothing_is_left(0);
}

/// Told to leave, a worker ends within an attempt, hands back what is left, and no attempt is made twice.
#[test]
fn a_drained_worker_leaves_within_an_attempt_and_nothing_is_made_twice() {
    let mut farm = FaultFarm::start("30s");
    farm.start_worker("0", None);
    let mut sweep = farm.sweep(120);
    let times = std::env::var("FLAKEFARM_FAULT_DRAINS").map_or(6, |text| text.parse().unwrap());
    for n in 0..times {
        farm.wait_for_attempts(1);
        farm.start_worker(&(n + 1).to_string(), None);
        farm.drain(&n.to_string());
    }
    farm.whole(&mut sweep, 0);
    assert_eq!(farm.repeated(), Vec::<String>::new(), "attempts made twice");
    farm.nothing_is_left(0);
}
