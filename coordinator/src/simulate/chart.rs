//! One chart as an SVG file that stands alone: axes, lines with marks, a legend, rules. Series
//! differ in colour and in shape.

use maud::{Markup, html};
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 48.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 58.0;
/// Colours that people who see few colours tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#8a6d00", "#cc79a7", "#555555"];

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// One axis.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) scale: Scale,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From nothing to at least `most`, with round ticks.
    pub(super) fn linear(label: &str, most: f64, tell: impl Fn(f64) -> String) -> Self {
        let rough = (most / 5.0).max(1e-9);
        let tenfold = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * tenfold).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let steps = (most / step).ceil().max(1.0) as u32;
        let ticks = (0..=steps).map(|n| f64::from(n) * step).map(|at| (at, tell(at))).collect();
        let to = f64::from(steps) * step;
        Self { label: label.to_owned(), scale: Scale::Linear, from: 0.0, to, ticks }
    }

    /// Over powers of ten around these values.
    pub(super) fn logarithmic(label: &str, values: &[f64], tell: impl Fn(f64) -> String) -> Self {
        let positive = || values.iter().copied().filter(|value| *value > 0.0);
        let (least, most) =
            (positive().fold(f64::INFINITY, f64::min), positive().fold(f64::NEG_INFINITY, f64::max));
        let (least, most) = if least <= most { (least, most) } else { (1.0, 10.0) };
        let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let last = last.max(first + 1);
        let ticks = (first..=last).map(|power| 10_f64.powi(power)).map(|at| (at, tell(at))).collect();
        let (from, to) = (10_f64.powi(first), 10_f64.powi(last));
        Self { label: label.to_owned(), scale: Scale::Logarithmic, from, to, ticks }
    }

    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// Points that belong together.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) joined: Joined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    ByALine,
    No,
}

/// A chart.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Horizontal lines that something is to stay above or below.
    pub(super) rules: Vec<(f64, String)>,
}

impl Chart {
    pub(super) fn svg(&self) -> String {
        let x = |value: f64| LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM);
        let (floor, middle) = (HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2.0);
        let picture = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(WIDTH) height=(HEIGHT) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) font-family="system-ui, sans-serif" font-size="13" fill="#333333" {
                rect width=(WIDTH) height=(HEIGHT) fill="#ffffff" {}
                text x="20" y="28" font-size="16" font-weight="600" { (self.title) }
                @for (at, text) in &self.y.ticks {
                    line x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(y(*at))) y2=(n(y(*at))) stroke="#e6e6e6" {}
                    text x=(n(LEFT - 8.0)) y=(n(y(*at) + 4.5)) text-anchor="end" { (text) }
                }
                @for (at, text) in &self.x.ticks {
                    line x1=(n(x(*at))) x2=(n(x(*at))) y1=(n(floor)) y2=(n(floor + 5.0)) stroke="#777777" {}
                    text x=(n(x(*at))) y=(n(floor + 20.0)) text-anchor="middle" { (text) }
                }
                line x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(floor)) y2=(n(floor)) stroke="#777777" {}
                text x=(n((LEFT + WIDTH - RIGHT) / 2.0)) y=(n(HEIGHT - 14.0)) text-anchor="middle" { (self.x.label) }
                text x="16" y=(n(middle)) text-anchor="middle" transform=(format!("rotate(-90 16 {})", n(middle))) { (self.y.label) }
                @for (at, text) in &self.rules {
                    line x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(y(*at))) y2=(n(y(*at))) stroke="#333333" stroke-dasharray="5 4" {}
                    text x=(n(WIDTH - RIGHT - 4.0)) y=(n(y(*at) - 6.0)) text-anchor="end" font-size="12" { (text) }
                }
                @for (number, series) in self.series.iter().enumerate() {
                    (self.series(number, series, &x, &y))
                }
                (self.legend())
            }
        };
        picture.into_string()
    }

    fn series(
        &self,
        number: usize,
        series: &Series,
        x: &impl Fn(f64) -> f64,
        y: &impl Fn(f64) -> f64,
    ) -> Markup {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for (place, (across, up)) in series.points.iter().enumerate() {
            let _infallible =
                write!(path, "{}{} {}", if place == 0 { "M" } else { "L" }, n(x(*across)), n(y(*up)));
        }
        html! {
            @if series.joined == Joined::ByALine {
                path d=(path) fill="none" stroke=(colour) stroke-width="2" stroke-linejoin="round" {}
            }
            @for (across, up) in &series.points {
                (mark(number, x(*across), y(*up), if series.joined == Joined::ByALine { 3.6 } else { 6.0 }))
            }
        }
    }

    fn legend(&self) -> Markup {
        let mut places = Vec::new();
        let (mut left, mut top) = (LEFT, 50.0);
        for series in &self.series {
            let width = 26.0 + 7.2 * series.name.chars().count() as f64;
            if left + width > WIDTH - RIGHT && left > LEFT {
                left = LEFT;
                top += 19.0;
            }
            places.push((left, top));
            left += width + 16.0;
        }
        html! {
            @for (number, (series, (left, top))) in self.series.iter().zip(places).enumerate() {
                (mark(number, left + 6.0, top, 5.0))
                text x=(n(left + 18.0)) y=(n(top + 4.5)) { (series.name) }
            }
        }
    }
}

fn mark(number: usize, x: f64, y: f64, r: f64) -> Markup {
    let colour = COLOURS[number % COLOURS.len()];
    let at = |dx: f64, dy: f64| format!("{} {}", n(x + dx * r), n(y + dy * r));
    html! {
        @match number % 4 {
            0 => circle cx=(n(x)) cy=(n(y)) r=(n(r)) fill=(colour) {},
            1 => path d=(format!("M{}L{}L{}L{}z", at(0.0, -1.3), at(1.3, 0.0), at(0.0, 1.3), at(-1.3, 0.0))) fill=(colour) {},
            2 => path d=(format!("M{}L{}L{}L{}z", at(-0.9, -0.9), at(0.9, -0.9), at(0.9, 0.9), at(-0.9, 0.9))) fill=(colour) {},
            _ => path d=(format!("M{}L{}L{}z", at(0.0, -1.2), at(1.1, 0.8), at(-1.1, 0.8))) fill=(colour) {},
        }
    }
}

fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
