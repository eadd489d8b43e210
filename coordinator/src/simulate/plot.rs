//! A simulation as pictures.

use super::bench::{Bench, GuaranteeBench};
use super::chart::{Axis, Chart, Joined, Scale, Series};
use super::checks::percent;
use super::text::band_name;
use crate::experiment::Guarantee;

/// The pictures, by file name.
pub fn plots(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut plots = vec![
        ("recall.svg", recall(bench).svg()),
        ("cost.svg", cost(bench).svg()),
        ("coverage.svg", coverage(bench).svg()),
    ];
    if bench.guarantees.iter().any(|found| !found.nights.is_empty()) {
        plots.push(("nights.svg", nights(bench).svg()));
    }
    plots
}

fn name(found: &GuaranteeBench) -> &'static str {
    match found.guarantee {
        Guarantee::PerTest => "flakefarm, guarantee of each test",
        Guarantee::PerSuite => "flakefarm, guarantee of the suite",
    }
}

fn recall(bench: &Bench) -> Chart {
    let bands = |found: &GuaranteeBench| found.first.measured.by_rate.len();
    let count = bench.guarantees.first().map_or(0, bands);
    let mut series: Vec<Series> = Vec::new();
    for found in &bench.guarantees {
        let shares = found.first.measured.by_rate.iter().map(|band| band.share());
        series.push(line(name(found), (0..).map(f64::from).zip(shares).collect()));
    }
    if let Some(found) = bench.guarantees.first() {
        let wanted = [10.0, f64::from(bench.guaranteed_runs), 100.0];
        for rerun in found.first.fixed.iter().filter(|rerun| wanted.contains(&rerun.runs)) {
            let points = (0..).map(f64::from).zip(rerun.by_rate.iter().copied()).collect();
            series.push(line(&format!("fixed N = {}", rerun.runs), points));
        }
    }
    let ticks = (0..count).map(|band| (band as f64, band_name(band))).collect();
    let x = Axis {
        label: "true failure rate".into(),
        scale: Scale::Linear,
        from: -0.4,
        to: count as f64 - 0.6,
        ticks,
    };
    let rules = vec![(bench.settings.confidence.get(), percent(bench.settings.confidence.get()))];
    Chart {
        title: "Flaky tests found in a first sweep, by how often they really fail".into(),
        x,
        y: Axis::linear("found", 1.0, percent),
        series,
        rules,
    }
}

fn cost(bench: &Bench) -> Chart {
    let mut series = Vec::new();
    let mut seconds = Vec::new();
    let mut most = 0.0_f64;
    for found in &bench.guarantees {
        let all = found.first.measured.flaky.tests as f64;
        let point = |spent: f64, missed: f64| (spent / found.first.measured.sweeps as f64, missed / all);
        if series.is_empty() {
            let curve = &found.first.curve;
            let points: Vec<_> = curve.iter().map(|at| point(at.container_seconds, at.missed)).collect();
            seconds.extend(points.iter().map(|(spent, _)| *spent));
            most = points.iter().map(|(_, missed)| *missed).fold(most, f64::max);
            series.push(line("fixed N, 2 to 1,000", points));
        }
        let measured = &found.first.measured;
        let own = point(measured.container_seconds, measured.flaky.missed() as f64);
        seconds.push(own.0);
        most = most.max(own.1);
        series.push(Series { name: name(found).to_owned(), points: vec![own], joined: Joined::No });
    }
    Chart {
        title: "A first sweep: what it misses for what it costs".into(),
        x: Axis::logarithmic("container seconds", &seconds, round),
        y: Axis::linear("flaky tests missed, of any rate", most, percent),
        series,
        rules: Vec::new(),
    }
}

fn coverage(bench: &Bench) -> Chart {
    let mut series = Vec::new();
    let mut rates = Vec::new();
    let mut least = bench.settings.confidence.get();
    for found in &bench.guarantees {
        let rows = found.calibration.coverage.iter().filter(|row| row.rate > 0.0 && row.intervals > 0);
        let points: Vec<_> = rows.map(|row| (row.rate, row.cover as f64 / row.intervals as f64)).collect();
        rates.extend(points.iter().map(|(rate, _)| *rate));
        least = points.iter().map(|(_, share)| *share).fold(least, f64::min);
        series.push(line(name(found), points));
    }
    let confidence = bench.settings.confidence.get();
    // What matters is within a few per cent of the promise.
    let from = ((least - 0.02) * 50.0).floor() / 50.0;
    let step = if 1.0 - from > 0.17 { 0.1 } else { 0.02 };
    let steps = ((1.0 - from) / step + 1e-9) as u32;
    let ticks = (0..=steps).map(|n| 1.0 - step * f64::from(n)).map(|at| (at, percent(at))).collect();
    Chart {
        title: "Intervals that contain the true rate, when sweeps stop as they please".into(),
        x: Axis::logarithmic("true failure rate", &rates, percent),
        y: Axis { label: "intervals that cover".into(), scale: Scale::Linear, from, to: 1.0, ticks },
        series,
        rules: vec![(confidence, format!("promised: {}", percent(confidence)))],
    }
}

fn nights(bench: &Bench) -> Chart {
    let mut series = Vec::new();
    let mut seconds = Vec::new();
    let mut last = 1.0_f64;
    for found in &bench.guarantees {
        let mut add = |name: String, points: Vec<(f64, f64)>| {
            seconds.extend(points.iter().map(|(_, spent)| *spent));
            last = points.iter().map(|(night, _)| *night).fold(last, f64::max);
            series.push(line(&name, points));
        };
        let at = |night: u32| f64::from(night);
        if found.guarantee == Guarantee::PerTest || bench.guarantees.len() == 1 {
            let fixed = found
                .nights
                .iter()
                .map(|night| (at(night.night), night.guaranteed_seconds / night.measured.sweeps as f64))
                .collect();
            add(format!("fixed N = {}", bench.guaranteed_runs), fixed);
        }
        let own = found
            .nights
            .iter()
            .map(|n| (at(n.night), n.measured.container_seconds / n.measured.sweeps as f64))
            .collect();
        add(name(found).to_owned(), own);
    }
    Chart {
        title: format!(
            "Container time per night, {} of the tests changed before each",
            percent(bench.settings.changed)
        ),
        x: Axis::linear("night", last, |night| night.to_string()),
        y: Axis::logarithmic("container seconds", &seconds, round),
        series,
        rules: Vec::new(),
    }
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), points, joined: Joined::ByALine }
}

fn round(value: f64) -> String {
    super::text::thousands(value)
}
