//! From recorded events to deliveries, and from deliveries to their receivers. One coordinator does both;
//! one that dies in the middle leaves rows from which the next one goes on.

use super::proposing::PROPOSED;
use super::trouble::Step;
use super::{Coordinator, EngineError};
use crate::db::{ChannelRow, DeliveryRow, EventRow, Followed, RepairRow};
use crate::digest;
use crate::events::Event;
use crate::notify::message::{self, code, escaped};
use crate::notify::send::{self, Outgoing};
use crate::notify::{Kind, Message, Subject, TRIES, pause};
use crate::plan::{Question, QuestionKind};
use crate::repairs::{RepairState, is_of_repair};
use crate::schedule::Rhythm;
use flakefarm_shared::{SweepId, UnixMicros, now_micros};
use futures::future::join_all;
use reqwest::Client;
use std::collections::HashMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

/// How often the outbox is polled.
const PAUSE: Duration = Duration::from_secs(2);
/// Events looked at together.
const EVENTS: u32 = 200;
/// Deliveries tried at the same time.
const AT_ONCE: u32 = 16;
/// The project of a channel that hears of the farm itself.
pub const FARM: &str = "*";
/// For how long what arrived can be looked at.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Tells what is to be told, until `stop`. One coordinator does.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let client = match send::client() {
        Ok(client) => client,
        Err(error) => {
            warn!(error, "nothing can be sent: nobody is notified");
            return;
        }
    };
    loop {
        let told = coordinator.notify_once(&client).await;
        coordinator.note(Step::Notifying, &told);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Coordinator {
    async fn notify_once(&self, client: &Client) -> Result<(), EngineError> {
        let channels = self.db.channels().await?;
        for channel in &channels {
            self.follow(channel).await?;
            self.digest_of(channel, now_micros()).await?;
        }
        if channels.is_empty() {
            return Ok(());
        }
        let channels: HashMap<Uuid, &ChannelRow> =
            channels.iter().map(|channel| (channel.id, channel)).collect();
        let due = self.db.due_deliveries(now_micros(), AT_ONCE).await?;
        for tried in join_all(due.iter().map(|delivery| self.deliver(client, &channels, delivery))).await {
            tried?;
        }
        let keep = i64::try_from(KEEP.as_micros()).unwrap_or(i64::MAX);
        self.db.forget_deliveries(now_micros() - keep).await?;
        Ok(())
    }

    /// Looks at what has happened since a channel was looked at last.
    async fn follow(&self, channel: &ChannelRow) -> Result<(), EngineError> {
        let of_farm = channel.project == FARM;
        let projects = [channel.project.clone()];
        let events = self.db.events_page((!of_farm).then_some(&projects[..]), channel.event, EVENTS).await?;
        let mut looked_at = None;
        for row in events {
            let followed = match of_farm {
                true if row.project.is_some() => Followed::default(),
                true => farm_message(&row).map(|message| self.of(channel, vec![message])).unwrap_or_default(),
                false => self.followed(channel, &row).await?,
            };
            let id = row.id;
            if followed.messages.is_empty() && followed.told.is_empty() {
                looked_at = Some(id);
                continue;
            }
            looked_at = None;
            let followed = Followed { event: Some(id), ..followed };
            self.db.follow_event(channel.id, &followed, now_micros()).await?;
        }
        if looked_at.is_some() {
            let followed = Followed { event: looked_at, ..Followed::default() };
            self.db.follow_event(channel.id, &followed, now_micros()).await?;
        }
        Ok(())
    }

    fn of(&self, channel: &ChannelRow, messages: Vec<Message>) -> Followed {
        let at = channel.channel.may_send_at(now_micros());
        let messages = messages.into_iter().map(|message| (message, at)).collect();
        Followed { messages, ..Followed::default() }
    }

    /// What follows from one event of the channel's project.
    async fn followed(&self, channel: &ChannelRow, row: &EventRow) -> Result<Followed, EngineError> {
        match &row.event {
            Event::Finished { sweep, state } if state == "answered" => {
                let Some(found) = self.db.sweep(*sweep).await? else { return Ok(Followed::default()) };
                if is_of_repair(&found.source) {
                    return Ok(Followed::default());
                }
                let Ok(question) = serde_json::from_str::<Question>(&found.question) else {
                    return Ok(Followed::default());
                };
                if question.kind != QuestionKind::Detect || question.rerun.is_some() {
                    return Ok(Followed::default());
                }
                let report = match self.report(*sweep).await {
                    Ok(report) => report,
                    // What was lost is not told; what fails now is tried again.
                    Err(error) if error.end_of_sweep().is_some() => return Ok(Followed::default()),
                    Err(error) => return Err(error),
                };
                if report.sweep.under.is_some() {
                    return Ok(Followed::default());
                }
                if let Some(thread) = found.source.strip_prefix("pull-request:") {
                    let answers = matches!(channel.channel.kind, Kind::Github { .. });
                    let answer = answers.then(|| message::of_reruns(&report, thread));
                    return Ok(self.of(channel, answer.into_iter().collect()));
                }
                let told = self.db.told(channel.id).await?;
                let owners = self.owners_of(&found.context).await;
                let (messages, told) = message::after_sweep(&channel.channel, &told, &report, &owners);
                Ok(Followed { told, ..self.of(channel, messages) })
            }
            Event::Finished { sweep, state } if state == "failed" => {
                // Who asked for it has been told; a schedule's sweep has nobody who looks.
                let Some(schedule) = self.db.schedule_of(*sweep).await? else {
                    return Ok(Followed::default());
                };
                let row_id = row.id;
                let row = self.db.sweep(*sweep).await?;
                let refusal = row.as_ref().and_then(|row| row.state.refusal().cloned());
                let message =
                    refusal.map_or_else(|| "nobody knows why".to_owned(), |refusal| refusal.message);
                let message =
                    failed_schedule(&channel.project, &schedule.name, Some(*sweep), row_id, &message);
                Ok(self.of(channel, vec![message]))
            }
            Event::FiringFailed { schedule, why } => {
                let message = failed_schedule(&channel.project, schedule, None, row.id, why);
                Ok(self.of(channel, vec![message]))
            }
            Event::RepairChanged { repair, state, about } => {
                let proved = *state == RepairState::Proved.word() && about.starts_with(PROPOSED);
                let row = if proved { self.db.repair(*repair).await? } else { None };
                Ok(row.map_or_else(Followed::default, |row| self.of(channel, vec![proposed(&row)])))
            }
            Event::FarmDoubted { sweep, why } => {
                let message = Message {
                    key: format!("doubted/{sweep}"),
                    cause: "trust".to_owned(),
                    event: Subject::FarmFailed,
                    project: channel.project.clone(),
                    title: message::one_line(&format!("{}: the farm cannot be trusted", channel.project)),
                    text: format!("{}\n", escaped(why)),
                    tests: Vec::new(),
                    owners: Vec::new(),
                    sweep: Some(sweep.to_string()),
                    thread: None,
                };
                Ok(self.of(channel, vec![message]))
            }
            Event::QuarantineChanged { sweep, test, action, why } => {
                let project = &channel.project;
                let owner = self.owner_in_quarantine(project, test.as_str(), *sweep).await?;
                if !channel.channel.hears_of(owner.as_deref()) {
                    return Ok(Followed::default());
                }
                let answers = owner
                    .as_deref()
                    .map_or_else(String::new, |owner| format!(" ({})", message::called(owner)));
                let words = match action.as_str() {
                    "entered" => "is in quarantine",
                    "left" => "has left quarantine",
                    _ => "is not in quarantine any more: its time is over",
                };
                let message = Message {
                    key: format!("event/{}", row.id),
                    cause: format!("quarantine/{test}"),
                    event: Subject::QuarantineChanged,
                    project: project.clone(),
                    title: message::one_line(&format!("{project}: {test} {words}")),
                    text: format!("{}: {}{answers}\n", code(test.as_str()), escaped(why)),
                    tests: vec![test.to_string()],
                    owners: owner
                        .iter()
                        .flat_map(|owner| owner.split_whitespace().map(str::to_owned))
                        .collect(),
                    sweep: sweep.map(|sweep| sweep.to_string()),
                    thread: None,
                };
                Ok(self.of(channel, vec![message]))
            }
            _ => Ok(Followed::default()),
        }
    }

    /// Who answers for a test whose quarantine has changed: as its entry says, else the sources of the sweep.
    async fn owner_in_quarantine(
        &self,
        project: &str,
        test: &str,
        sweep: Option<SweepId>,
    ) -> Result<Option<String>, EngineError> {
        let entries = self.db.quarantine(project).await?;
        let named = entries.into_iter().find(|entry| entry.test == test).and_then(|entry| entry.owner);
        if named.is_some() {
            return Ok(named);
        }
        let Some(sweep) = sweep else { return Ok(None) };
        let Some(row) = self.db.sweep(sweep).await? else { return Ok(None) };
        Ok(self.owners_of(&row.context).await.of(test))
    }

    /// The week of a channel, when it is due; one in which nothing happened is passed over.
    async fn digest_of(&self, channel: &ChannelRow, now: UnixMicros) -> Result<(), EngineError> {
        let (Some(due), Some(cron)) = (channel.digest_at.filter(|at| *at <= now), &channel.channel.digest)
        else {
            return Ok(());
        };
        let next = Rhythm::parse(cron, &channel.channel.zone).ok().and_then(|rhythm| rhythm.next_after(now));
        let found = digest::collect(&self.db, Some(&self.blobs), &channel.project, digest::WEEK, now).await?;
        let mut followed = Followed { digest_at: Some(next), ..Followed::default() };
        if !found.is_silent() {
            let message = Message {
                key: format!("week/{due}"),
                cause: "week".to_owned(),
                event: Subject::WeekPassed,
                project: channel.project.clone(),
                title: message::one_line(&format!("{}: {}", channel.project, found.headline())),
                text: digest::markdown::render(&found),
                tests: Vec::new(),
                owners: Vec::new(),
                sweep: None,
                thread: None,
            };
            followed.messages = self.of(channel, vec![message]).messages;
        }
        Ok(self.db.follow_event(channel.id, &followed, now).await?)
    }

    /// One try of one delivery.
    async fn deliver(
        &self,
        client: &Client,
        channels: &HashMap<Uuid, &ChannelRow>,
        delivery: &DeliveryRow,
    ) -> Result<(), EngineError> {
        let Some(channel) = channels.get(&delivery.channel) else { return Ok(()) };
        let thread = self.db.thread_of(delivery.channel, &delivery.message.cause).await?;
        let (message, at) = (&delivery.message, now_micros());
        let outgoing = Outgoing { id: delivery.id, message, thread: thread.as_deref(), at };
        // The deadline is the client's for the web; mail has none of its own for all of it.
        let sent = tokio::time::timeout(
            Duration::from_secs(60),
            send::send(client, &channel.channel.kind, outgoing),
        );
        let sent = sent.await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        let now = now_micros();
        match sent {
            Ok(thread) => {
                info!(delivery.id = %delivery.id, channel = channel.channel.name, "delivered");
                self.db.delivered(delivery.id, thread.as_deref(), now).await?;
            }
            Err(error) => {
                let tries = delivery.tries + 1;
                let next = (tries < TRIES)
                    .then(|| now + i64::try_from(pause(tries).as_micros()).unwrap_or(i64::MAX / 2));
                warn!(delivery.id = %delivery.id, channel = channel.channel.name, tries, error, "not delivered");
                self.db.not_delivered(delivery.id, &error, next, now).await?;
            }
        }
        Ok(())
    }

    /// Sends a message that only says that the channel works; it is due at once, quiet hours or not.
    pub async fn try_channel(&self, channel: &ChannelRow) -> Result<(), EngineError> {
        let now = now_micros();
        let message = Message {
            key: format!("try/{now}"),
            cause: "try".to_owned(),
            event: Subject::ChannelTried,
            project: channel.project.clone(),
            title: message::one_line(&format!("{}: this channel works", channel.project)),
            text: "Somebody tried it with `flakefarm notify try`.\n".to_owned(),
            tests: Vec::new(),
            owners: Vec::new(),
            sweep: None,
            thread: None,
        };
        let followed = Followed { messages: vec![(message, now)], ..Followed::default() };
        Ok(self.db.follow_event(channel.id, &followed, now).await?)
    }
}

fn failed_schedule(project: &str, schedule: &str, sweep: Option<SweepId>, event: i64, why: &str) -> Message {
    let key = sweep.map_or_else(|| format!("event/{event}"), |sweep| format!("failed/{sweep}"));
    Message {
        key,
        cause: format!("schedule/{schedule}"),
        event: Subject::FarmFailed,
        project: project.to_owned(),
        title: message::one_line(&format!("{project}: the sweep of schedule {schedule} could not run")),
        text: format!("{}\n", escaped(why)),
        tests: Vec::new(),
        owners: Vec::new(),
        sweep: sweep.map(|sweep| sweep.to_string()),
        thread: None,
    }
}

/// A patch that waits to be looked at.
fn proposed(row: &RepairRow) -> Message {
    let (mended, id) = (row.mended(), row.id);
    let list: String = mended.iter().map(|test| format!("- {}\n", code(test))).collect();
    let what = if mended.len() == 1 { "1 newly flaky test" } else { "newly flaky tests" };
    Message {
        key: format!("repair/{id}"),
        cause: format!("repair/{id}"),
        event: Subject::RepairProposed,
        project: row.project.clone(),
        title: message::one_line(&format!("{}: a proved patch for {what}", row.project)),
        text: format!(
            "{list}\n`flakefarm repair --show {id}` shows it with its proof, `--patch {id}` prints it.\n"
        ),
        tests: mended,
        owners: Vec::new(),
        sweep: None,
        thread: None,
    }
}

/// What the farm itself is told to have met.
fn farm_message(row: &EventRow) -> Option<Message> {
    let (cause, title) = match &row.event {
        Event::WorkerGone { worker } => {
            (format!("worker/{worker}"), format!("worker {worker} has fallen silent"))
        }
        _ => return None,
    };
    Some(Message {
        key: format!("event/{}", row.id),
        cause,
        event: Subject::FarmFailed,
        project: FARM.to_owned(),
        title: message::one_line(&title),
        text: String::new(),
        tests: Vec::new(),
        owners: Vec::new(),
        sweep: None,
        thread: None,
    })
}
