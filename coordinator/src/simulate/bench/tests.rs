//! The claims of the bench on suites small enough for every build. The numbers at full size are made by
//! `flakefarm simulate`.

use super::*;
use crate::experiment::Planning;
use crate::plan::plan;
use crate::simulate::{checks, plot, text};
use quick_xml::events::Event;

fn settings(tests: usize, sweeps: u32, nights: u32, guarantee: Guarantee) -> Settings {
    Settings {
        tests,
        seed: 1,
        sweeps,
        nights,
        changed: 0.05,
        infrastructure_errors: 0.05,
        guarantees: vec![guarantee],
        max_flake_rate: Rate::DEFAULT,
        confidence: Confidence::DEFAULT,
        workers: NonZeroU16::new(8).unwrap(),
    }
}

#[test]
fn first_sweeps_find_what_they_promise_and_accuse_nobody() {
    for guarantee in Guarantee::ALL {
        let settings = settings(200, 3, 0, guarantee);
        let noise = Weather::noisy(settings.infrastructure_errors);
        let calm = first_sweeps(&settings, guarantee, Weather::CALM, &mut plan).unwrap();
        let noisy = first_sweeps(&settings, guarantee, noise, &mut plan).unwrap();
        assert!(noisy.measured.infrastructure_errors > 0);
        for found in [&calm, &noisy] {
            let measured = &found.measured;
            assert!(measured.flaky.tests > 8 && measured.at_or_above.tests > 2, "{measured:#?}");
            assert_eq!((measured.false_accusations, measured.inconclusive), (0, 0), "{measured:#?}");
            assert!(measured.at_or_above.share() >= 0.95, "{measured:#?}");
            assert_eq!(measured.by_order.missed(), 0, "{measured:#?}");
        }
        if guarantee == Guarantee::PerSuite {
            assert!(calm.cost_against_guaranteed <= 0.7, "{}", calm.cost_against_guaranteed);
        }
    }
}

#[test]
fn intervals_cover_the_rate_although_sweeps_stop_as_they_please() {
    for guarantee in Guarantee::ALL {
        let measured = calibrate(&settings(180, 1, 0, guarantee), guarantee, &mut plan).unwrap();
        let flaky = measured.coverage.iter().filter(|row| row.rate > 0.0);
        let (cover, intervals) =
            flaky.fold((0, 0), |(cover, all), row| (cover + row.cover, all + row.intervals));
        assert!(intervals == 90 && cover * 100 >= intervals * 95, "{cover} of {intervals}: {measured:#?}");
        assert_eq!(measured.coverage[0].cover, 90, "what never fails may never fail: {measured:#?}");
        assert_eq!(measured.false_accusations, 0);
    }
}

#[test]
fn nights_with_history_cost_a_part_of_the_first() {
    let settings = settings(150, 1, 5, Guarantee::PerSuite);
    let bench = run(&settings, &mut plan, &mut |_| ()).unwrap();
    let nights = &bench.guarantees[0].nights;
    assert_eq!(nights.len(), 6);
    let last = nights.last().unwrap();
    assert!(last.measured.container_seconds < 0.5 * nights[0].measured.container_seconds, "{nights:#?}");
    assert!(nights.iter().all(|night| night.measured.false_accusations == 0));
    assert_eq!(bench, run(&settings, &mut plan, &mut |_| ()).unwrap(), "a seed names a simulation");

    let text = text::render(&bench);
    for check in checks::checks(&bench) {
        assert!(text.contains(&check.claim) && text.contains(&check.found), "{check:?} in\n{text}");
    }
    for (name, picture) in plot::plots(&bench) {
        let mut reader = quick_xml::Reader::from_str(&picture);
        let mut elements = 0;
        loop {
            match reader.read_event().unwrap_or_else(|error| panic!("{name}: {error}")) {
                Event::Eof => break,
                Event::Start(_) => elements += 1,
                _ => {}
            }
        }
        assert!(elements > 10 && !picture.contains("NaN"), "{name}: {picture}");
    }
    let json = serde_json::to_string(&bench).unwrap();
    let read: Bench = serde_json::from_str(&json).unwrap();
    assert_eq!(checks::checks(&read), checks::checks(&bench));
}

#[test]
fn a_planner_that_waits_for_nothing_is_noticed() {
    let settings = settings(10, 1, 0, Guarantee::PerTest);
    let mut idle = |question: &Question, ledger: &Ledger, history: &History, elapsed: Duration| Plan {
        jobs: Vec::new(),
        state: Planning::Working,
        ..plan(question, ledger, history, elapsed)
    };
    let stalled = calibrate(&settings, Guarantee::PerTest, &mut idle).unwrap_err();
    assert_eq!(stalled.attempts, 0);
}
