//! A farm, by what its coordinator says of itself.

use super::{Finding, Findings, skew};
use crate::exit::Complaint;
use crate::farm::Farm;
use crate::operators::duration;
use flakefarm_coordinator::http::FarmStatus;
use flakefarm_coordinator::http::views::WorkerView;
use flakefarm_shared::now_micros;

pub(super) async fn look(findings: &mut Findings, farm: &Farm) -> Result<(), Complaint> {
    let asked = now_micros();
    let status = match farm.check().await {
        Ok(()) => farm.farm_status().await,
        Err(complaint) => Err(complaint),
    };
    let status = match status {
        Ok(status) => status,
        Err(complaint) => return findings.say("farm", Finding::Wrong(complaint)),
    };
    let ours = asked + (now_micros() - asked) / 2;
    findings.say("farm", version(farm.address(), &status))?;
    findings.say("clock", skew(status.at, ours, "the farm's"))?;
    for store in &status.stores {
        let finding = match &store.error {
            None => Finding::Well(format!("answers the coordinator within {} ms", store.milliseconds)),
            Some(error) => Finding::Wrong(
                Complaint::farm(format!("does not answer the coordinator: {error}")).hint(format!(
                    "where the coordinator runs: flakefarm doctor, with its settings; what waits for the {} goes on by \
                     itself",
                    store.store
                )),
            ),
        };
        findings.say(&store.store, finding)?;
    }
    if status.schema_known > 0 {
        findings.say("migrations", migrations(&status))?;
        findings.say("loops", loops(&status))?;
    }
    for trouble in &status.troubles {
        let message = format!("for {}: {}", seconds(trouble.seconds), trouble.message);
        let complaint =
            Complaint::farm(message).hint("the coordinator's log says more; it tries again by itself");
        findings.say("standstill", Finding::Wrong(complaint))?;
    }
    findings.say("workers", workers(&status))?;
    if status.dead > 0 || status.parked > 0 {
        let fact = format!("{} dead jobs, {} messages that nobody can read", status.dead, status.parked);
        findings
            .say("dead", Finding::Note(fact, "flakefarm dead lists them; requeue or discard".to_owned()))?;
    }
    if let Some(last) = status.trust.first() {
        let finding = match last.trusted {
            Some(false) => Finding::Wrong(
                Complaint::farm(last.line.clone())
                    .hint("flakefarm digest says since when; look at the workers' machines"),
            ),
            Some(true) | None => Finding::Well(last.line.clone()),
        };
        findings.say("trust", finding)?;
    }
    Ok(())
}

fn version(address: &str, status: &FarmStatus) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let fact = format!("{address} answers, version {}", status.version);
    if status.version == ours {
        Finding::Well(fact)
    } else {
        Finding::Note(
            format!("{fact}; this is {ours}"),
            "both speak the same version of the interface; upgrade the older one when it suits".to_owned(),
        )
    }
}

fn migrations(status: &FarmStatus) -> Finding {
    let (taken, known) = (status.schema, status.schema_known);
    if taken == known {
        return Finding::Well(format!("schema {taken}, current"));
    }
    Finding::Note(
        format!("schema {taken}, the coordinator's is {known}"),
        "a newer coordinator has brought it up to date: upgrade the others".to_owned(),
    )
}

fn loops(status: &FarmStatus) -> Finding {
    let led: Vec<&str> = status.leases.iter().map(|lease| lease.lease.as_str()).collect();
    if led.contains(&"work") {
        return Finding::Well(format!("{} are run by a coordinator", led.join(", ")));
    }
    Finding::Wrong(
        Complaint::farm("no coordinator runs the loops that publish and plan")
            .hint("within seconds another one takes over; if not, its log says why"),
    )
}

fn workers(status: &FarmStatus) -> Finding {
    let waits: u64 = status.queues.iter().map(|queue| queue.pending + queue.queued).sum();
    let live: Vec<&WorkerView> =
        status.workers.iter().filter(|worker| !worker.gone && !worker.draining).collect();
    let hint = "flakefarm worker, with the farm's --queue, --samples and --blobs".to_owned();
    if live.is_empty() {
        return match waits {
            0 => Finding::Note("none".to_owned(), hint),
            waits => Finding::Wrong(Complaint::farm(format!("none, and {waits} jobs wait")).hint(hint)),
        };
    }
    let list = |of: &dyn Fn(&WorkerView) -> bool| {
        let names = live.iter().filter(|worker| of(worker)).map(|worker| worker.id.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let slots: u32 = live.iter().map(|worker| u32::from(worker.slots)).sum();
    let fact = format!("{} with {slots} slots", live.len());
    let trouble = list(&|worker| worker.trouble.is_some());
    if !trouble.is_empty() {
        return Finding::Note(
            format!("{fact}; in trouble: {trouble}"),
            "flakefarm workers says what they wait for".to_owned(),
        );
    }
    let others = list(&|worker| worker.version != status.version);
    if !others.is_empty() {
        return Finding::Note(
            format!("{fact}; of another version than the coordinator: {others}"),
            "that is fine while an upgrade is under way".to_owned(),
        );
    }
    Finding::Well(fact)
}

fn seconds(seconds: u64) -> String {
    duration(i64::try_from(seconds).unwrap_or(i64::MAX))
}
