//! `flakefarm status`: a farm at a glance.

use crate::args::{ListFormat, StatusArgs};
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::operators::{ago, duration, table};
use crate::say::say;
use crate::{output, signals};
use flakefarm_coordinator::events::Event;
use flakefarm_coordinator::http::FarmStatus;
use flakefarm_coordinator::http::views::{SweepView, WorkerView};
use flakefarm_project::config::without_project;
use flakefarm_shared::now_micros;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// Moves the cursor home; what is written over is not cleared before, so that nothing flickers.
const HOME: &str = "\u{1b}[H";
/// Clears the rest of a line, and of the screen.
const END_OF_LINE: &str = "\u{1b}[K\n";
const END_OF_SCREEN: &str = "\u{1b}[J";

pub(crate) async fn status(args: &StatusArgs) -> Result<Exit, Complaint> {
    let settings = without_project(&args.farm.options()).map_err(|error| config_complaint(&error))?;
    let address = settings.text("farm.url").ok_or_else(|| {
        Complaint::usage("no farm is named")
            .hint("--farm URL (FLAKEFARM_FARM); `flakefarm sweeps` lists this machine's own")
    })?;
    let farm = Farm::new(&address, settings.text("farm.token"))?;
    match farm.check().await {
        // A farm that is away may come back: who watches sees it.
        Err(complaint) if !args.watch || complaint.exit == Exit::Usage => return Err(complaint),
        Ok(()) | Err(_) => {}
    }
    if !args.watch {
        let status = farm.farm_status().await?;
        output::print(&shown(&farm, &status, args.format))?;
        return Ok(Exit::Clean);
    }
    let stop = signals::stop_on_signal()?;
    let screen = args.format == ListFormat::Human && std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let asked = tokio::select! {
            asked = farm.farm_status() => asked,
            () = stop.cancelled() => return Ok(Exit::Clean),
        };
        match asked {
            Ok(status) => {
                let text = match args.format {
                    ListFormat::Json => {
                        format!("{}\n", serde_json::to_string(&status).expect("a status serialises"))
                    }
                    ListFormat::Human => shown(&farm, &status, args.format),
                };
                output::print(&if screen { on_screen(&text) } else { text.clone() })?;
                last = text;
            }
            // What cannot be mended by waiting ends it.
            Err(complaint) if complaint.exit == Exit::Usage => return Err(complaint),
            Err(complaint) if screen => {
                output::print(&on_screen(&format!("{complaint}\nwhat was known last:\n\n{last}")))?;
            }
            Err(complaint) => say(complaint.to_string()),
        }
        tokio::select! {
            () = tokio::time::sleep(args.every) => {}
            () = stop.cancelled() => return Ok(Exit::Clean),
        }
    }
}

/// A text in place of what was on the terminal, as much of it as has room.
fn on_screen(text: &str) -> String {
    let room = terminal_size::terminal_size().map(|(columns, rows)| (columns.0.into(), rows.0.into()));
    let (columns, rows) = room.unwrap_or((80, 24));
    let lines = fitted(text, columns, rows).into_iter().map(|line| line + END_OF_LINE);
    // The last line has no end: it would move all of them up.
    let lines: String = lines.collect();
    format!("{HOME}{}{END_OF_SCREEN}", lines.trim_end_matches('\n'))
}

/// The lines that a terminal of this size shows.
fn fitted(text: &str, columns: usize, rows: usize) -> Vec<String> {
    let cut = |line: &str| match line.char_indices().nth(columns.max(2)) {
        None => line.to_owned(),
        Some(_) => line.chars().take(columns.max(2) - 1).chain(['…']).collect(),
    };
    let mut lines: Vec<String> = text.lines().map(cut).collect();
    if lines.len() > rows.max(2) {
        let more = lines.len() - (rows.max(2) - 1);
        lines.truncate(rows.max(2) - 1);
        lines.push(cut(&format!("and {more} more lines: in a larger window, or without --watch")));
    }
    lines
}

fn shown(farm: &Farm, status: &FarmStatus, format: ListFormat) -> String {
    match format {
        ListFormat::Human => text(farm.address(), status),
        ListFormat::Json => {
            format!("{}\n", serde_json::to_string_pretty(status).expect("a status serialises"))
        }
    }
}

fn text(address: &str, status: &FarmStatus) -> String {
    let mut text = format!("flakefarm {} at {address}\n", status.version);
    let mut section = |name: &str, body: &str| {
        for (place, line) in body.lines().enumerate() {
            let name = if place == 0 { name } else { "" };
            writeln!(text, "{name:<9}{line}").expect("text can be written to memory");
        }
    };
    section("stores", &stores(status));
    section("queues", &queues(status));
    section("workers", &workers(&status.workers));
    section("sweeps", &sweeps(status));
    section("errors", &errors(status));
    section("trust", &trust(status));
    section("loops", &loops(status));
    text
}

fn stores(status: &FarmStatus) -> String {
    let said = |store: &flakefarm_coordinator::http::StoreStatus| match &store.error {
        None => format!("{} ok ({} ms)", store.store, store.milliseconds),
        Some(error) => format!("{} DOWN: {error}", store.store),
    };
    // What is down gets a line of its own.
    let (well, down): (Vec<_>, Vec<_>) = status.stores.iter().partition(|store| store.error.is_none());
    let well = well.into_iter().map(said).collect::<Vec<_>>().join(", ");
    let mut lines: Vec<String> = down.into_iter().map(said).collect();
    lines.push(well);
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

fn queues(status: &FarmStatus) -> String {
    if status.queues.is_empty() {
        return "not known: the database does not answer".to_owned();
    }
    let mut rows =
        vec![["", "WAIT", "ON QUEUE", "IN BROKER", "IN HAND", "ATTEMPTS", "OLDEST"].map(str::to_owned)];
    rows.extend(status.queues.iter().map(|queue| {
        [
            queue.class.clone(),
            queue.pending.to_string(),
            queue.queued.to_string(),
            queue.ready.map_or("?".to_owned(), |ready| ready.to_string()),
            queue.leased.to_string(),
            queue.attempts.to_string(),
            if queue.queued == 0 { "-".to_owned() } else { seconds(queue.oldest_seconds) },
        ]
    }));
    table(&rows)
}

fn workers(workers: &[WorkerView]) -> String {
    if workers.is_empty() {
        return "none: start one with `flakefarm worker`".to_owned();
    }
    let count = |of: &dyn Fn(&WorkerView) -> bool| workers.iter().filter(|worker| of(worker)).count();
    let (gone, draining) = (count(&|worker| worker.gone), count(&|worker| !worker.gone && worker.draining));
    let working = workers.iter().filter(|worker| !worker.gone && !worker.draining);
    let (slots, jobs) =
        working.fold((0, 0), |(slots, jobs), worker| (slots + u32::from(worker.slots), jobs + worker.jobs));
    let mut text =
        format!("{} ({draining} draining, {gone} silent), {jobs} of {slots} slots busy\n", workers.len());
    let mut rows = vec![["NAME", "VERSION", "JOBS", "HEARD", ""].map(str::to_owned)];
    rows.extend(workers.iter().map(|worker| {
        let mut words = Vec::new();
        if worker.gone {
            words.push("silent".to_owned());
        }
        if worker.draining {
            words.push("draining".to_owned());
        }
        words.extend(worker.trouble.clone());
        [
            worker.id.clone(),
            worker.version.clone(),
            format!("{}/{}", worker.jobs, worker.slots),
            format!("{} ago", duration(worker.seconds_since_seen)),
            words.join(", "),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

fn sweeps(status: &FarmStatus) -> String {
    if status.sweeps.is_empty() {
        return match status.running {
            0 => "none runs".to_owned(),
            others => format!("{others} of projects that this token does not see"),
        };
    }
    let mut rows =
        vec![["SWEEP", "PROJECT", "RUNS FOR", "ATTEMPTS", "LEFT", "FLAKY", "ERRORS"].map(str::to_owned)];
    rows.extend(status.sweeps.iter().map(|sweep| sweep_row(sweep, status.at)));
    let mut text = table(&rows);
    let others = status.running.saturating_sub(status.sweeps.len() as u64);
    if others > 0 {
        text.push_str(&format!("and {others} more\n"));
    }
    text
}

fn sweep_row(sweep: &SweepView, now: i64) -> [String; 7] {
    let since = duration((now - sweep.created_at) / 1_000_000);
    let head = [sweep.id.clone(), sweep.project.clone(), since];
    let [id, project, since] = head;
    match &sweep.progress {
        Some(Event::Progress {
            attempts,
            remaining,
            remaining_seconds,
            flaky,
            infrastructure_errors,
            slots,
            ..
        }) => {
            let left = match slots {
                0 => "no worker".to_owned(),
                slots => format!("about {}", seconds(whole(remaining_seconds / f64::from(*slots)))),
            };
            [
                id,
                project,
                since,
                format!("{attempts} of about {}", attempts + remaining),
                left,
                flaky.to_string(),
                infrastructure_errors.to_string(),
            ]
        }
        _ => [id, project, since, "listing tests".to_owned(), String::new(), String::new(), String::new()],
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and it is an estimate"
)]
fn whole(seconds: f64) -> u64 {
    seconds.max(0.0) as u64
}

fn seconds(seconds: u64) -> String {
    duration(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn errors(status: &FarmStatus) -> String {
    let mut lines: Vec<String> = status
        .troubles
        .iter()
        .map(|trouble| format!("for {}: {}", seconds(trouble.seconds), trouble.message))
        .collect();
    if status.dead > 0 {
        lines.push(format!("{} dead jobs: `flakefarm dead` lists them", status.dead));
    }
    if status.parked > 0 {
        lines.push(format!("{} messages that nobody can read: `flakefarm dead` lists them", status.parked));
    }
    if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
}

fn trust(status: &FarmStatus) -> String {
    if status.trust.is_empty() {
        return "not known: only scheduled sweeps have a control".to_owned();
    }
    let line = |trust: &flakefarm_coordinator::http::TrustStatus| {
        format!("{}, {} of {}: {}", ago(trust.at), trust.schedule, trust.project, trust.line)
    };
    // The last one counts; what was doubted before is not forgotten.
    let (last, before) = (status.trust.iter().take(1), status.trust.iter().skip(1));
    let doubted = before.filter(|trust| trust.trusted == Some(false));
    last.chain(doubted).map(line).collect::<Vec<_>>().join("\n")
}

fn loops(status: &FarmStatus) -> String {
    if status.leases.is_empty() {
        return "nobody runs them".to_owned();
    }
    let names = |this: bool| {
        let of = status.leases.iter().filter(|lease| lease.this == this);
        of.map(|lease| lease.lease.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (here, elsewhere) = (names(true), names(false));
    let mut lines = Vec::new();
    if !here.is_empty() {
        lines.push(format!("{here}: in the coordinator that was asked"));
    }
    if !elsewhere.is_empty() {
        lines.push(format!("{elsewhere}: in another coordinator"));
    }
    lines.push(format!(
        "asked at {}; database {}, schema {}",
        clock(status.at),
        flakefarm_project::settings::size_about(status.database_bytes),
        status.schema
    ));
    lines.join("\n")
}

/// The farm's clock, and how far it is from ours, if it is.
fn clock(at: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(at / 1_000_000).ok();
    let time = time.map_or(String::new(), |time| {
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        )
    });
    let skew = (now_micros() - at) / 1_000_000;
    if skew.abs() > 10 { format!("{time} (this machine's clock differs by {} s)", skew.abs()) } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_what_it_has_room_for_and_says_what_it_has_not() {
        let text = "one\ntwo words\nthree\nfour\n";
        assert_eq!(fitted(text, 80, 24), ["one", "two words", "three", "four"]);
        assert_eq!(fitted(text, 5, 4), ["one", "two …", "three", "four"]);
        assert_eq!(
            fitted(text, 80, 3)[1..],
            ["two words", "and 2 more lines: in a larger window, or without --watch"]
        );
        assert_eq!(fitted(text, 0, 0).len(), 2);
        assert_eq!(fitted("", 80, 24), [""; 0]);
    }
}
