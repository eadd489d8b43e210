//! A simulation as tables for people.

use super::bench::{Bench, Comparison, GuaranteeBench};
use super::checks::{Held, checks, percent};
use super::measure::{BANDS, Measured};
use super::strategies::Rerun;
use crate::experiment::Guarantee;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

/// Everything, as text.
pub fn render(bench: &Bench) -> String {
    let settings = &bench.settings;
    let mut text = format!(
        "{} tests, {} s for one run of the suite; {} first sweeps, each of another suite; {} workers; seed {}\n\
         Wanted: every test that flakes at {} or above, with {} confidence ({} clean runs of each test).\n\
         Published shape: 3 % of the tests flake, a third of them by order; of the others, most do so in less than\n\
         one run of twenty. Luck is shared: the n-th run of a test has one outcome, whoever makes it.\n",
        thousands(settings.tests as f64),
        thousands(bench.suite_seconds),
        settings.sweeps,
        settings.workers,
        settings.seed,
        percent(settings.max_flake_rate.get()),
        percent(settings.confidence.get()),
        bench.guaranteed_runs,
    );
    for found in &bench.guarantees {
        guarantee(&mut text, bench, found);
    }
    text.push_str("\nMust reach\n");
    let rows = checks(bench).into_iter().map(|check| {
        let held = match check.held {
            Held::Yes => "yes",
            Held::No => "NO",
        };
        vec![check.claim, check.wanted, check.found, held.to_owned()]
    });
    table(&mut text, &["claim", "wanted", "found", "holds"], rows);
    text
}

fn guarantee(text: &mut String, bench: &Bench, found: &GuaranteeBench) {
    let name = match found.guarantee {
        Guarantee::PerTest => "Guarantee of each test",
        Guarantee::PerSuite => "Guarantee of the suite",
    };
    let noise = percent(bench.settings.infrastructure_errors);
    let _infallible = writeln!(text, "\n{name}: first sweeps");
    costs(text, &found.first);
    let _infallible =
        writeln!(text, "\n{name}: first sweeps, {noise} of the attempts end with an infrastructure error");
    costs(text, &found.noisy);
    let _infallible = writeln!(text, "\n{name}: found, by true failure rate (first sweeps, no errors)");
    recall(text, &found.first);
    let _infallible = writeln!(
        text,
        "\n{name}: intervals that cover the true rate ({} suites in which every other test flakes)",
        found.calibration.sweeps
    );
    let rows = found.calibration.coverage.iter().filter(|row| row.intervals > 0).map(|row| {
        vec![
            row.rate.to_string(),
            thousands(row.intervals as f64),
            percent(row.cover as f64 / row.intervals as f64),
            format!("{:.1}", row.runs as f64 / row.intervals as f64),
        ]
    });
    table(text, &["true rate", "intervals", "cover", "runs each"], rows);
    let Some(settled) = &found.settled else { return };
    let _infallible = writeln!(
        text,
        "\n{name}: nights, {} of the tests changed before each, {noise} infrastructure errors",
        percent(bench.settings.changed)
    );
    let shown = |night: u32| night < 3 || night.is_multiple_of(5) || night == bench.settings.nights;
    let rows = found.nights.iter().filter(|night| shown(night.night)).map(|night| {
        let m = &night.measured;
        vec![
            night.night.to_string(),
            seconds(m.container_seconds / m.sweeps as f64),
            percent(m.container_seconds / night.guaranteed_seconds),
            thousands(m.attempts as f64 / m.sweeps as f64),
            format!("{:.1}", m.steady_runs as f64 / m.steady.max(1) as f64),
            format!("{} of {}", m.flaky.missed(), m.flaky.tests),
            percent(m.at_or_above.share()),
            m.false_accusations.to_string(),
        ]
    });
    let of_fixed = format!("of N = {}", bench.guaranteed_runs);
    let at = at_or_above(bench);
    table(
        text,
        &["night", "containers", &of_fixed, "attempts", "runs each", "flaky missed", &at, "accused"],
        rows,
    );
    let _infallible = writeln!(text, "\n{name}: the last of those nights together");
    costs(text, settled);
}

fn at_or_above(bench: &Bench) -> String {
    format!("found ≥ {}", percent(bench.settings.max_flake_rate.get()))
}

fn costs(text: &mut String, comparison: &Comparison) {
    let measured = &comparison.measured;
    let suites = measured.sweeps as f64;
    let of = |missed: f64| format!("{} of {}", thousands(missed), thousands(measured.flaky.tests as f64));
    let mut rows = vec![vec![
        "flakefarm".to_owned(),
        seconds(measured.container_seconds / suites),
        "1".to_owned(),
        thousands(measured.attempts as f64 / suites),
        of(measured.flaky.missed() as f64),
        percent(measured.at_or_above.share()),
        measured.false_accusations.to_string(),
        format!("{:.1}", measured.steady_runs as f64 / measured.steady.max(1) as f64),
    ]];
    let mut row = |name: String, rerun: &Rerun| {
        rows.push(vec![
            name,
            seconds(rerun.container_seconds / suites),
            format!("{:.2}", rerun.container_seconds / measured.container_seconds),
            thousands(rerun.attempts / suites),
            of(rerun.missed),
            percent(rerun.at_or_above),
            "0".to_owned(),
            format!("{:.1}", rerun.runs),
        ]);
    };
    for rerun in &comparison.fixed {
        row(format!("fixed N = {}", rerun.runs), rerun);
    }
    for rerun in &comparison.stopping {
        row(format!("stop at first failure, N = {}", rerun.runs), rerun);
    }
    row("fixed N, equal recall".to_owned(), &comparison.equal_recall);
    row("fixed N, equal cost".to_owned(), &comparison.equal_cost);
    let header = ["", "containers", "relative", "attempts", "flaky missed", "found", "accused", "runs each"];
    table(text, &header, rows);
    outcome(text, measured, comparison);
}

fn outcome(text: &mut String, measured: &Measured, comparison: &Comparison) {
    let suites = measured.sweeps as f64;
    let _infallible = writeln!(
        text,
        "  {:.2} of the container time of fixed N that misses as many; {} s on the clock, {} plans, {} infrastructure \
         errors,\n  {} tests without a verdict, {} that always failed called broken",
        comparison.cost_at_equal_recall,
        thousands(measured.wall_seconds / suites),
        thousands(measured.rounds as f64 / suites),
        thousands(measured.infrastructure_errors as f64 / suites),
        thousands(measured.inconclusive as f64 / suites),
        measured.called_broken,
    );
}

fn recall(text: &mut String, comparison: &Comparison) {
    let measured = &comparison.measured;
    let mut header = vec!["true rate".to_owned(), "tests".to_owned(), "flakefarm".to_owned()];
    header.extend(comparison.fixed.iter().map(|rerun| format!("N = {}", rerun.runs)));
    header.push("equal cost".to_owned());
    let all = || comparison.fixed.iter().chain([&comparison.equal_cost]);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (band, found) in measured.by_rate.iter().enumerate().filter(|(_, found)| found.tests > 0) {
        let mut row = vec![band_name(band), thousands(found.tests as f64), percent(found.share())];
        row.extend(all().map(|rerun| percent(rerun.by_rate[band])));
        rows.push(row);
    }
    let mut row = vec![
        "by order".to_owned(),
        thousands(measured.by_order.tests as f64),
        percent(measured.by_order.share()),
    ];
    row.extend(all().map(|rerun| percent(rerun.by_order)));
    rows.push(row);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(text, &header, rows);
}

/// What a band of true rates is called.
pub(super) fn band_name(band: usize) -> String {
    match BANDS.get(band + 1) {
        None => format!("{} and more", percent(BANDS[band])),
        Some(to) if band == 0 => format!("below {}", percent(*to)),
        Some(to) => format!("{} to {}", percent(BANDS[band]), percent(*to)),
    }
}

/// Columns as wide as their widest cell; all but the first to the right.
fn table(text: &mut String, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut lines = vec![header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| lines.iter().map(|line| line[column].width()).max().unwrap_or_default())
        .collect();
    for line in lines {
        let mut row = String::from(" ");
        for (column, cell) in line.iter().enumerate() {
            let room = " ".repeat(widths[column] - cell.width());
            let _infallible =
                if column == 0 { write!(row, " {cell}{room}") } else { write!(row, "  {room}{cell}") };
        }
        let _infallible = writeln!(text, "{}", row.trim_end());
    }
}

fn seconds(value: f64) -> String {
    if value < 600.0 {
        format!("{value:.0} s")
    } else if value < 36_000.0 {
        format!("{:.1} min", value / 60.0)
    } else {
        format!("{:.1} h", value / 3_600.0)
    }
}

/// Rounded, with commas.
pub(super) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
