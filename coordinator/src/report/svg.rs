//! The pictures of the page, as inline SVG. Each says with shape and place what it also says with
//! colour, and carries its facts as titles and a label. Text goes through the template, which escapes it.

use super::experiment::{ArmRole, ExperimentArm};
use super::model::{AttemptOutcome, InfrastructureError, Rate, TestReport, TimelineEntry};
use super::words;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Width of the attempts picture, and of one of the two smaller ones.
const WIDE: f64 = 960.0;
const HALF: f64 = 460.0;
/// Where plots begin, right of their labels.
const WIDE_LEFT: f64 = 172.0;
const HALF_LEFT: f64 = 58.0;
const ROW: f64 = 26.0;
const BINS: usize = 40;

/// What one mark stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Pass,
    Fail,
    Timeout,
    Crash,
    Oom,
    Skip,
    Infrastructure,
}

impl Mark {
    fn of(outcome: AttemptOutcome) -> Self {
        match outcome {
            AttemptOutcome::Pass => Mark::Pass,
            AttemptOutcome::Fail => Mark::Fail,
            AttemptOutcome::Skip => Mark::Skip,
            AttemptOutcome::Timeout => Mark::Timeout,
            AttemptOutcome::Crash => Mark::Crash,
            AttemptOutcome::Oom => Mark::Oom,
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Mark::Pass => "m-pass",
            Mark::Fail => "m-fail",
            Mark::Timeout => "m-timeout",
            Mark::Crash => "m-crash",
            Mark::Oom => "m-oom",
            Mark::Skip => "m-skip",
            Mark::Infrastructure => "m-infra",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Mark::Pass => "passed",
            Mark::Fail => "failed",
            Mark::Timeout => "timed out",
            Mark::Crash => "crashed",
            Mark::Oom => "out of memory",
            Mark::Skip => "skipped",
            Mark::Infrastructure => "infrastructure error (not an outcome)",
        }
    }
}

/// The marks, defined once per page.
pub(crate) fn symbols() -> Markup {
    html! {
        svg width="0" height="0" aria-hidden="true" focusable="false" class="defs" {
            symbol id="m-pass" viewBox="-5 -5 10 10" { circle r="3" fill="none" stroke="currentColor" stroke-width="1.5" {} }
            symbol id="m-fail" viewBox="-5 -5 10 10" { path d="M-3.4-3.4 3.4 3.4M-3.4 3.4 3.4-3.4" stroke="currentColor" stroke-width="2.3" stroke-linecap="round" {} }
            symbol id="m-timeout" viewBox="-5 -5 10 10" { path d="M-3.6-3.6h7.2v7.2h-7.2z" fill="currentColor" {} }
            symbol id="m-crash" viewBox="-5 -5 10 10" { path d="M0-4.8 4.8 0 0 4.8-4.8 0z" fill="currentColor" {} }
            symbol id="m-oom" viewBox="-5 -5 10 10" { path d="M-4.4-3.6h8.8L0 4.2z" fill="currentColor" {} }
            symbol id="m-skip" viewBox="-5 -5 10 10" { path d="M-3 0h6" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" {} }
            symbol id="m-infra" viewBox="-5 -5 10 10" { path d="M-4 3.4h8L0-4z" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" {} }
        }
    }
}

fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn mark(mark: Mark, x: f64, y: f64, size: f64, title: &str) -> Markup {
    let href = format!("#{}", mark.symbol());
    html! {
        use href=(href) x=(n(x - size / 2.0)) y=(n(y - size / 2.0)) width=(n(size)) height=(n(size)) class=(mark.symbol()) {
            title { (title) }
        }
    }
}

/// A test's attempts in the order they started, a row per condition.
pub(crate) fn attempts(test: &TestReport, infrastructure: &[InfrastructureError]) -> Markup {
    let entries = &test.timeline;
    let mut rows: Vec<&str> = test.conditions.iter().map(|count| count.condition.as_str()).collect();
    for entry in entries {
        if !rows.contains(&entry.condition.as_str()) {
            rows.push(&entry.condition);
        }
    }
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return html! {} };
    let around: Vec<&InfrastructureError> =
        infrastructure.iter().filter(|error| (first.at..=last.at).contains(&error.at)).take(100).collect();
    let lanes = rows.len() + usize::from(!around.is_empty());
    let step = (WIDE - WIDE_LEFT - 10.0) / entries.len() as f64;
    let size = (step * 1.1).clamp(5.0, 13.0);
    let x = |i: usize| WIDE_LEFT + step * (i as f64 + 0.5);
    let y = |row: usize| ROW * (row as f64 + 0.5) + 2.0;
    let height = ROW * lanes as f64 + 26.0;
    let mut marks: Vec<Mark> = entries.iter().map(|entry| Mark::of(entry.outcome)).collect();
    if !around.is_empty() {
        marks.push(Mark::Infrastructure);
    }
    marks.sort_unstable();
    marks.dedup();
    let label = format!("Attempts over time: {}", words::conditions(test));
    html! {
        figure class="wide" {
            figcaption { "Attempts over time" @if (entries.len() as u64) < test.attempts { span class="quiet" { " · " (entries.len()) " of " (test.attempts) ", failures first" } } }
            svg viewBox=(format!("0 0 {WIDE} {}", n(height))) role="img" aria-label=(label) {
                @for (row, condition) in rows.iter().enumerate() {
                    line x1=(WIDE_LEFT) x2=(WIDE) y1=(n(y(row))) y2=(n(y(row))) class="lane" {}
                    text x="0" y=(n(y(row) + 4.0)) class="label" { (words::visible(condition)) }
                    @if let Some(count) = test.conditions.iter().find(|count| count.condition == **condition) {
                        text x=(n(WIDE_LEFT - 16.0)) y=(n(y(row) + 4.0)) class=(if count.failures > 0 { "num bad" } else { "num" }) { (count.failures) "/" (count.attempts) }
                    }
                }
                @if !around.is_empty() {
                    line x1=(WIDE_LEFT) x2=(WIDE) y1=(n(y(rows.len()))) y2=(n(y(rows.len()))) class="lane" {}
                    text x="0" y=(n(y(rows.len()) + 4.0)) class="label quiet" { "infrastructure" }
                    @for error in &around {
                        // It belongs before the first attempt that started after it.
                        @let place = entries.partition_point(|entry| entry.at < error.at);
                        (mark(Mark::Infrastructure, WIDE_LEFT + step * place as f64, y(rows.len()), 12.0, &format!("{} · {}", clock(error.at), words::visible(&error.message))))
                    }
                }
                @for (i, entry) in entries.iter().enumerate() {
                    @let row = rows.iter().position(|row| *row == entry.condition).unwrap_or(0);
                    (mark(Mark::of(entry.outcome), x(i), y(row), size, &describe(entry)))
                }
                text x=(WIDE_LEFT) y=(n(height - 6.0)) class="axis" { (clock(first.at)) }
                text x=(WIDE) y=(n(height - 6.0)) class="axis end" { (clock(last.at)) " UTC" }
            }
            p class="legend" {
                @for kind in marks {
                    span { svg width="12" height="12" aria-hidden="true" class=(kind.symbol()) { use href=(format!("#{}", kind.symbol())) width="12" height="12" {} } (kind.word()) }
                }
            }
        }
    }
}

/// Outcomes by condition: a row of marks for each, passes before failures.
pub(crate) fn experiment(arms: &[&ExperimentArm]) -> Markup {
    const LEFT: f64 = 380.0;
    const STEP: f64 = 14.0;
    const MARKS: u64 = 38;
    let y = |row: usize| ROW * (row as f64 + 0.5) + 2.0;
    let height = ROW * arms.len() as f64 + 6.0;
    let marks = |arm: &ExperimentArm| -> Vec<Mark> {
        // Where there are too many, their shares.
        let shown = arm.attempts.min(MARKS);
        let failed = (arm.failures * shown).div_ceil(arm.attempts.max(1));
        let passed = std::iter::repeat_n(Mark::Pass, (shown - failed) as usize);
        passed.chain(std::iter::repeat_n(Mark::Fail, failed as usize)).collect()
    };
    html! {
        @if !arms.is_empty() {
            figure class="wide" {
                figcaption { "The experiment" span class="quiet" { " · a mark per attempt; bold: the conditions that tell" } }
                svg viewBox=(format!("0 0 {WIDE} {}", n(height))) role="img" aria-label="Outcomes by condition" {
                    @for (row, arm) in arms.iter().enumerate() {
                        line x1=(LEFT) x2=(WIDE) y1=(n(y(row))) y2=(n(y(row))) class="lane" {}
                        text x="0" y=(n(y(row) + 4.0)) class="label" font-weight=(if arm.role == ArmRole::Tried { "400" } else { "700" }) { (words::bounded(&words::visible(&arm.condition), 48)) }
                        text x=(n(LEFT - 16.0)) y=(n(y(row) + 4.0)) class=(if arm.failures > 0 { "num bad" } else { "num" }) { (arm.failures) "/" (arm.attempts) }
                        @for (i, kind) in marks(arm).into_iter().enumerate() {
                            (mark(kind, LEFT + STEP * (i as f64 + 0.7), y(row), 11.0, kind.word()))
                        }
                    }
                }
            }
        }
    }
}

fn clock(at: time::OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

fn describe(entry: &TimelineEntry) -> String {
    let mut text = format!(
        "{} · {} · {} · position {} · {} · {}",
        entry.outcome.word(),
        words::duration(entry.wall_ms),
        words::visible(&entry.condition),
        u64::from(entry.position) + 1,
        clock(entry.at),
        words::visible(&entry.worker),
    );
    if entry.concurrency > 1 {
        let _ = write!(text, " ({} at once)", entry.concurrency);
    }
    if let Some(seed) = entry.order_seed {
        let _ = write!(text, " · order seed {seed}");
    }
    if let Some(signature) = &entry.signature {
        let _ = write!(text, " · signature {}", words::visible(signature));
    }
    text
}

/// Outcomes by the test's place in the order: a picture of order dependence. Nothing when it never ran
/// among others.
pub(crate) fn positions(test: &TestReport) -> Option<Markup> {
    let among: Vec<&TimelineEntry> = test
        .timeline
        .iter()
        .filter(|entry| entry.condition != "alone" && entry.outcome != AttemptOutcome::Skip)
        .collect();
    let most = among.iter().map(|entry| entry.position).max().filter(|most| *most > 0)?;
    let x =
        |position: u32| HALF_LEFT + 4.0 + f64::from(position) / f64::from(most) * (HALF - HALF_LEFT - 12.0);
    // One path per outcome: a hundred ticks weigh what one does.
    let ticks = |wanted: bool, top: f64| {
        let mut path = String::new();
        for entry in among.iter().filter(|entry| entry.outcome.is_failure() == wanted) {
            let _ = write!(path, "M{} {}v26", n(x(entry.position)), n(top));
        }
        path
    };
    let failed = among.iter().filter(|entry| entry.outcome.is_failure()).count();
    let label = format!("By position in the order: {failed} of {} attempts failed", among.len());
    Some(html! {
        figure {
            figcaption { "By position in the order" span class="quiet" { " · how many tests ran before it" } }
            svg viewBox=(format!("0 0 {HALF} 112")) role="img" aria-label=(label) {
                rect x=(HALF_LEFT) y="8" width=(HALF - HALF_LEFT - 4.0) height="34" class="strip" {}
                rect x=(HALF_LEFT) y="50" width=(HALF - HALF_LEFT - 4.0) height="34" class="strip" {}
                text x="0" y="29" class="label" { "failed" }
                text x="0" y="71" class="label" { "passed" }
                path d=(ticks(true, 12.0)) class="tick t-fail" {}
                path d=(ticks(false, 54.0)) class="tick t-pass" {}
                text x=(HALF_LEFT) y="102" class="axis" { "0" }
                text x=(HALF - 4.0) y="102" class="axis end" { (words::thousands(u64::from(most))) }
            }
        }
    })
}

/// How long it took: passes above the line, failures below, on one scale.
pub(crate) fn durations(test: &TestReport) -> Option<Markup> {
    let of = |wanted: bool| -> Vec<f64> {
        test.timeline
            .iter()
            .filter(|entry| entry.outcome != AttemptOutcome::Skip && entry.outcome.is_failure() == wanted)
            .map(|entry| entry.wall_ms.max(0.001))
            .collect()
    };
    let (passes, failures) = (of(false), of(true));
    let all = || passes.iter().chain(&failures).copied();
    let (least, most) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
    let log = most / least > 20.0;
    let scale = |ms: f64| if log { ms.max(0.001).ln() } else { ms };
    let (from, to) = (scale(least), scale(most));
    let share = |ms: f64| if to > from { ((scale(ms) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.5 };
    let width = HALF - HALF_LEFT - 4.0;
    let bins = |durations: &[f64]| {
        let mut bins = [0_u32; BINS];
        for ms in durations {
            bins[((share(*ms) * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        bins
    };
    let (up, down) = (bins(&passes), bins(&failures));
    let tallest = |bins: &[u32; BINS]| f64::from(bins.iter().copied().max().unwrap_or(0).max(1));
    let unit = (40.0 / tallest(&up)).min(30.0 / tallest(&down)).min(12.0);
    let base = 70.0;
    let bars = |bins: &[u32; BINS], sign: f64| {
        let mut path = String::new();
        let step = width / BINS as f64;
        for (i, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (x, height) = (HALF_LEFT + step * i as f64 + 0.8, (f64::from(*count) * unit).max(2.0));
            let _ = write!(
                path,
                "M{} {}v{}h{}v{}z",
                n(x),
                n(base - sign),
                n(-sign * height),
                n(step - 1.6),
                n(sign * height)
            );
        }
        path
    };
    let p = |ms: f64| HALF_LEFT + share(ms) * width;
    let label = match test.duration_ms {
        Some(d) => format!(
            "Durations: median {}, 95th percentile {}",
            words::duration(d.p50),
            words::duration(d.p95)
        ),
        None => "Durations".to_owned(),
    };
    Some(html! {
        figure {
            figcaption { "Duration" @if log { span class="quiet" { " · log scale" } } }
            svg viewBox=(format!("0 0 {HALF} 124")) role="img" aria-label=(label) {
                @if let Some(d) = test.duration_ms {
                    (percentile("p50", p(d.p50), 10.0, d.p50))
                    (percentile("p95", p(d.p95), 22.0, d.p95))
                }
                path d=(bars(&up, 1.0)) class="b-pass" {}
                path d=(bars(&down, -1.0)) class="b-fail" {}
                line x1=(HALF_LEFT) x2=(HALF - 4.0) y1=(base) y2=(base) class="base" {}
                text x="0" y="62" class="label" { "passed" }
                text x="0" y="86" class="label" { "failed" }
                text x=(HALF_LEFT) y="120" class="axis" { (words::duration(least)) }
                @if most > least { text x=(HALF - 4.0) y="120" class="axis end" { (words::duration(most)) } }
            }
        }
    })
}

fn percentile(name: &str, x: f64, y: f64, ms: f64) -> Markup {
    // The text goes where there is room.
    let left = x > HALF * 0.62;
    let (at, class) = if left { (x - 5.0, "axis end") } else { (x + 5.0, "axis") };
    html! {
        line x1=(n(x)) x2=(n(x)) y1=(n(y - 8.0)) y2="104" class="mid" {}
        text x=(n(at)) y=(n(y)) class=(class) { (name) " " (words::duration(ms)) }
    }
}

/// One row of a forest plot: the interval as a line, the estimate as a dot, on an axis from 0 to `most`.
pub(crate) fn interval(rate: &Rate, most: f64) -> Markup {
    let x = |share: f64| 4.0 + (share / most).clamp(0.0, 1.0) * 172.0;
    let text = format!("{} ({})", words::percent(rate.estimate), words::interval(rate.lower, rate.upper));
    html! {
        svg viewBox="0 0 180 18" class="forest" role="img" aria-label=(text) {
            line x1="4" x2="176" y1="9" y2="9" class="lane" {}
            line x1="4" x2="4" y1="2" y2="16" class="base" {}
            line x1=(n(x(rate.lower))) x2=(n(x(rate.upper))) y1="9" y2="9" class="whisker" {}
            path d=(format!("M{} 5v8M{} 5v8", n(x(rate.lower)), n(x(rate.upper)))) class="cap" {}
            circle cx=(n(x(rate.estimate))) cy="9" r="4" class="dot" {}
        }
    }
}

/// A round number not below `most`, for the end of the axis.
pub(crate) fn axis_end(most: f64) -> f64 {
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8].into_iter().find(|end| most <= *end).unwrap_or(1.0)
}
