//! `flakefarm tests links`, `link` and `unlink`: tests that were renamed or moved.

use super::print;
use super::shown::date;
use crate::args::{LinkArgs, LinksArgs, TestsAction};
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place, csv};
use crate::say::say;
use flakefarm_coordinator::db::DbError;
use flakefarm_coordinator::history::linking::{self, Links};
use flakefarm_coordinator::http::TestLink;
use flakefarm_shared::{TestId, now_micros};

pub(super) async fn of_action(action: &TestsAction) -> Result<Exit, Complaint> {
    match action {
        TestsAction::Links(args) => list(args).await,
        TestsAction::Link(args) => link(args).await,
        TestsAction::Unlink(args) => unlink(args).await,
    }
}

async fn list(args: &LinksArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    let links = match memory.open().await? {
        Place::Farm(farm) => farm.test_links(&memory.project).await?,
        Place::Here { db, .. } => linking::links(&db, &memory.project).await?,
    };
    print(args.format, &links, text, table)
}

fn text(links: &Links) -> String {
    if links.links.is_empty() {
        return format!("no test of {} was renamed or moved, as far as is known\n", links.project);
    }
    let mut text = String::new();
    for link in &links.links {
        let reason = if link.reason.is_empty() { String::new() } else { format!(": {}", link.reason) };
        text.push_str(&format!("{}\n  was {}\n", link.test, link.earlier));
        text.push_str(&format!("  {} {}{reason}\n", link.origin, date(link.linked_at)));
        if let Some(at) = link.unlinked_at {
            text.push_str(&format!("  taken back {}\n", date(at)));
        }
    }
    text
}

fn table(links: &Links) -> String {
    let mut text = "test,earlier,origin,reason,linked,taken_back\n".to_owned();
    for link in &links.links {
        let taken_back = link.unlinked_at.map(date).unwrap_or_default();
        let words = [&link.test, &link.earlier, &link.origin, &link.reason].map(|word| csv(word));
        text.push_str(&format!("{},{},{taken_back}\n", words.join(","), date(link.linked_at)));
    }
    text
}

async fn link(args: &LinkArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    match memory.open().await? {
        Place::Farm(farm) => farm.link_tests(&named(&memory, args)).await?,
        Place::Here { db, .. } => {
            let (test, earlier) = (TestId(args.test.clone()), TestId(args.earlier.clone()));
            let tests = (&test, &earlier);
            linking::link(&db, &memory.project, tests, args.reason.as_deref(), now_micros())
                .await
                .map_err(refused)?;
        }
    }
    say(format!("{} was {}: their history is one", args.test, args.earlier));
    Ok(Exit::Clean)
}

async fn unlink(args: &LinkArgs) -> Result<Exit, Complaint> {
    let memory = Memory::of(&args.memory)?;
    match memory.open().await? {
        Place::Farm(farm) => farm.unlink_tests(&named(&memory, args)).await?,
        Place::Here { db, .. } => {
            let (test, earlier) = (TestId(args.test.clone()), TestId(args.earlier.clone()));
            if !linking::unlink(&db, &memory.project, (&test, &earlier), now_micros())
                .await
                .map_err(refused)?
            {
                return Err(Complaint::usage(format!("{test} is not linked to {earlier}"))
                    .hint("`flakefarm tests links` lists what is linked"));
            }
        }
    }
    say(format!("{} and {} have their own history again", args.test, args.earlier));
    Ok(Exit::Clean)
}

fn named(memory: &Memory, args: &LinkArgs) -> TestLink {
    TestLink {
        project: memory.project.clone(),
        test: args.test.clone(),
        earlier: args.earlier.clone(),
        reason: args.reason.clone(),
    }
}

fn refused(error: DbError) -> Complaint {
    match error {
        DbError::NotFound(what) => Complaint::usage(format!("nobody has seen {what}"))
            .hint("`flakefarm tests` lists those that somebody saw; --project names another project"),
        DbError::Conflict(why) => {
            Complaint::usage(why).hint("`flakefarm tests links` lists what is linked, `unlink` takes it back")
        }
        error => error.into(),
    }
}
