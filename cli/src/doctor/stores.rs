//! The stores that the settings name.

use super::{Finding, Findings, skew};
use crate::exit::Complaint;
use crate::{role_settings, stores};
use flakefarm_coordinator::db::{Db, Inspection};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_project::settings::Settings;
use flakefarm_shared::now_micros;
use flakefarm_shared::queue::{QueueError, Role};
use std::time::Duration;

pub(super) async fn look(findings: &mut Findings, settings: &Settings) -> Result<(), Complaint> {
    if let Some(url) = settings.text("stores.database") {
        database(findings, &url).await?;
    }
    if settings.text("stores.queue").is_some() {
        findings.say("queue", queue(role_settings::queue(settings)).await?)?;
    }
    if let Some(address) = settings.text("stores.samples") {
        findings.say("samples", samples(&address).await)?;
    }
    if let Some(address) = settings.text("stores.blobs") {
        findings.say("blobs", blobs(&address).await)?;
    }
    Ok(())
}

async fn database(findings: &mut Findings, url: &str) -> Result<(), Complaint> {
    const HINT: &str = "is the database up, and the address in --database (FLAKEFARM_DATABASE) right?";
    let asked = now_micros();
    let inspection = match Db::inspect(url).await {
        Ok(Some(inspection)) => inspection,
        Ok(None) => {
            let fact = "the file is not there yet: `flakefarm coordinator` makes it".to_owned();
            return findings.say("database", Finding::Well(fact));
        }
        Err(error) => return findings.say("database", Finding::Wrong(Complaint::of(&error).hint(HINT))),
    };
    // Its clock was read between asking and now.
    let ours = asked + (now_micros() - asked) / 2;
    findings.say("database", Finding::Well(format!("{} answers", inspection.server)))?;
    findings.say("migrations", migrations(&inspection))?;
    if !inspection.lacks.is_empty() {
        let lacks = inspection.lacks.join(", ");
        let complaint = Complaint::farm(format!("this user has no {lacks}"));
        let grant = complaint.hint("as its owner: GRANT CREATE ON SCHEMA public TO flakefarm");
        findings.say("database permissions", Finding::Wrong(grant))?;
    }
    match inspection.clock {
        Some(theirs) => findings.say("clock", skew(theirs, ours, "the database's")),
        None => Ok(()),
    }
}

/// Whether the schema is that of this program.
fn migrations(found: &Inspection) -> Finding {
    let known = found.known;
    match found.schema {
        Some(taken) if taken == known => Finding::Well(format!("schema {taken}, current")),
        Some(taken) if taken > known => Finding::Wrong(
            Complaint::farm(format!("schema {taken} is newer than this program, which knows {known}"))
                .hint("upgrade flakefarm here: an older one does not start on it"),
        ),
        Some(taken) => Finding::Note(
            format!("schema {taken}, this program's is {known}"),
            "the next coordinator of this version brings it up to date at its start; back up before"
                .to_owned(),
        ),
        None => Finding::Note(
            format!("no schema yet, this program's is {known}"),
            "the first coordinator makes it at its start".to_owned(),
        ),
    }
}

async fn queue(address: Result<String, Complaint>) -> Result<Finding, Complaint> {
    let queue = stores::open_queue(&address?, Role::Worker)?;
    let checked = queue.check().await;
    queue.close().await;
    Ok(match checked {
        Ok(()) => Finding::Well("answers, topology is there".to_owned()),
        // One that is there and was declared otherwise is another matter.
        Err(QueueError::Topology(why)) if why.contains("NOT_FOUND") => Finding::Note(
            format!("answers, and has no topology yet: {why}"),
            "the first coordinator declares what is missing at its start".to_owned(),
        ),
        Err(error) => Finding::Wrong(
            Complaint::of(&error)
                .hint("is the broker up, and the address in --queue (FLAKEFARM_QUEUE) right?"),
        ),
    })
}

async fn samples(address: &str) -> Result<String, Complaint> {
    let samples = stores::open_samples(address, &HistoryRetention::default()).await?;
    samples.check().await.map_err(|error| {
        Complaint::of(&error)
            .hint("is the server up, and the address in --samples (FLAKEFARM_SAMPLES) right?")
    })?;
    Ok("answers".to_owned())
}

async fn blobs(address: &str) -> Result<String, Complaint> {
    const BOUND: Duration = Duration::from_secs(30);
    const HINT: &str = "is the address in --blobs (FLAKEFARM_BLOBS) right, and may this user read and write there? \
                        credentials come from AWS_…, GOOGLE_… or AZURE_… variables, and without TLS AWS_ALLOW_HTTP=true is needed";
    let blobs = stores::open_blobs(address)?;
    let tried = async {
        let digest = blobs.put(b"flakefarm doctor".as_slice()).await?;
        blobs.get(&digest).await
    };
    // An object store is asked again and again while it is away.
    let tried = tokio::time::timeout(BOUND, tried).await.map_err(|_| {
        Complaint::farm(format!("nothing has been written and read within {} s", BOUND.as_secs())).hint(HINT)
    })?;
    tried.map_err(|error| Complaint::of(&error).hint(HINT))?;
    Ok("can be written and read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_older_or_newer() {
        let of = |schema| {
            migrations(&Inspection {
                schema,
                known: 62,
                server: String::new(),
                clock: None,
                lacks: Vec::new(),
            })
        };
        assert!(matches!(of(Some(62)), Finding::Well(_)));
        assert!(matches!(of(Some(3)), Finding::Note(..)));
        assert!(matches!(of(None), Finding::Note(..)));
        assert!(matches!(of(Some(63)), Finding::Wrong(_)));
    }
}
