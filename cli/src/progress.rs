//! Progress for people: a line that redraws on a terminal, plain lines elsewhere. Always on
//! standard error; the report owns standard output.

use crate::say::say;
use flakefarm_coordinator::events::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// On no terminal, a line at most this often.
const PLAIN_PAUSE: Duration = Duration::from_secs(10);

/// Shows the events of one sweep.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last_plain: Option<Instant>,
    last_doing: String,
    /// Who is told instead of whoever sits before this process.
    told: Option<UnboundedSender<String>>,
    /// Another shows how far it is.
    is_beside: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len}")
                    .expect("the template is well-formed")
                    .progress_chars("━╸─"),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last_plain: None, last_doing: String::new(), told: None, is_beside: false }
    }

    /// One that nobody sees: its lines go to `told`.
    pub(crate) fn telling(told: UnboundedSender<String>) -> Self {
        Self { bar: None, last_plain: None, last_doing: String::new(), told: Some(told), is_beside: false }
    }

    pub(crate) fn show(&mut self, event: &Event) {
        if self.is_beside {
            return;
        }
        match event {
            Event::Preparing { doing, .. } => self.say_once(doing.clone()),
            Event::Listed { tests, collection_errors, .. } => {
                let errors = match collection_errors {
                    0 => String::new(),
                    1 => ", 1 file could not be collected".to_owned(),
                    many => format!(", {many} files could not be collected"),
                };
                self.say_once(format!("{tests} {}{errors}", if *tests == 1 { "test" } else { "tests" }));
            }
            Event::Progress {
                attempts,
                remaining,
                remaining_seconds,
                flaky,
                failing,
                infrastructure_errors,
                slots,
                ..
            } => {
                let mut line = format!("{flaky} flaky, {failing} failing");
                if *infrastructure_errors > 0 {
                    line.push_str(&format!(", {infrastructure_errors} infrastructure errors"));
                }
                if *slots == 0 {
                    line.push_str(", no worker");
                } else if *attempts > 0 && *remaining_seconds > 0.0 {
                    let eta = Duration::from_secs((remaining_seconds / f64::from(*slots)).ceil() as u64);
                    line.push_str(&format!(", about {} left", humantime::format_duration(eta)));
                }
                match &self.bar {
                    Some(bar) => {
                        bar.set_length(attempts + remaining);
                        bar.set_position(*attempts);
                        bar.set_message(line);
                    }
                    None if self.last_plain.is_none_or(|at| at.elapsed() >= PLAIN_PAUSE) => {
                        self.last_plain = Some(Instant::now());
                        say(format!("{attempts} of about {} attempts: {line}", attempts + remaining));
                    }
                    None => {}
                }
            }
            Event::Trouble { message, .. } => self.say_once(format!("waiting: {message}")),
            Event::Finished { .. } => self.clear(),
            Event::JobDead { reason, .. } => self.note(&format!("a job is given up: {reason}")),
            Event::Submitted { .. }
            | Event::VerdictChanged { .. }
            | Event::QuarantineChanged { .. }
            | Event::FiringFailed { .. }
            | Event::FarmDoubted { .. }
            | Event::RepairTold { .. }
            | Event::RepairChanged { .. }
            | Event::WorkerGone { .. } => {}
        }
    }

    fn say_once(&mut self, doing: String) {
        if doing.is_empty() || doing == self.last_doing {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(doing.clone()),
            None => say(&doing),
        }
        self.last_doing = doing;
    }

    /// One for what goes on beside what this one shows: only its lines are seen.
    pub(crate) fn beside(&self) -> Self {
        Self {
            bar: None,
            last_plain: None,
            last_doing: String::new(),
            told: self.told.clone(),
            is_beside: true,
        }
    }

    /// A line that stays.
    pub(crate) fn note(&self, line: &str) {
        if let Some(told) = &self.told {
            // Who listens has ended with what was asked.
            let _nobody = told.send(line.to_owned());
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
