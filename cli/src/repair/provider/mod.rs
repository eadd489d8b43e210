//! Who proposes where the rules do not: nobody, a program, or a model behind an interface that many speak. What
//! they propose is nobody's word: the same gates and the same experiments decide.

mod answer;
mod command;
mod http;
mod request;

use super::ledger::{Ledger, Prices};
use crate::exit::Complaint;
use flakefarm_project::settings::Settings;
use flakefarm_project::snapshot::Archive;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) use answer::{Proposal, Tree, short};
pub(super) use request::{Attempt, FailingTest, File, Material, Request};

/// Who proposes.
pub(super) enum Provider {
    /// Nobody but the rules.
    None,
    /// A program.
    Command(command::Program),
    /// A model.
    Http(Box<http::Model>),
}

/// What came of asking.
pub(super) enum Reply {
    /// Something is proposed.
    Proposal(Proposal),
    /// Nothing comes to its mind.
    NoIdea,
    /// What it said is refused, for a reason that it is told the next time.
    Refused(String),
    /// Asking again makes no sense, for a reason that people are told.
    Over(String),
}

/// What goes with a request.
pub(super) struct Circumstances<'a> {
    pub(super) tree: &'a Tree,
    /// The project as it lies there, which the tree may be ahead of.
    pub(super) original: &'a Archive,
    /// Where the project is: nothing may change there.
    pub(super) root: &'a Path,
    /// Where this machine keeps its state: nor there.
    pub(super) state: &'a Path,
    pub(super) seed: u64,
    pub(super) ledger: &'a mut Ledger,
    pub(super) stop: &'a CancellationToken,
}

impl Provider {
    /// As settings say.
    pub(super) fn of(settings: &Settings) -> Result<Self, Complaint> {
        let timeout = settings.duration("repair.timeout").unwrap_or(Duration::from_secs(300));
        match settings.text("repair.provider").as_deref() {
            Some("command") => command::Program::of(settings, timeout).map(Provider::Command),
            Some("http") => http::Model::of(settings, timeout).map(|model| Provider::Http(Box::new(model))),
            _ => Ok(Provider::None),
        }
    }

    /// The strategy that its proposals count as.
    pub(super) fn strategy(&self) -> &'static str {
        match self {
            Provider::None => "provider:none",
            Provider::Command(_) => "provider:command",
            Provider::Http(_) => "provider:http",
        }
    }

    /// What a person should know before it is asked.
    pub(super) async fn warning(&self) -> Option<String> {
        match self {
            Provider::Command(program) => program.warning().await,
            Provider::None | Provider::Http(_) => None,
        }
    }

    /// What must not be in a request.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = std::env::vars()
            .filter(|(name, value)| request::names_a_secret(name) && value.len() >= 8)
            .map(|(_, value)| value)
            .collect();
        if let Provider::Http(model) = self {
            secrets.extend(model.key().map(str::to_owned));
        }
        secrets
    }

    /// Asks for a proposal.
    pub(super) async fn ask(
        &self,
        request: &Request,
        circumstances: Circumstances<'_>,
    ) -> Result<Reply, Complaint> {
        match self {
            Provider::None => Ok(Reply::NoIdea),
            Provider::Command(program) => program.ask(request, circumstances).await,
            Provider::Http(model) => model.ask(request, circumstances).await,
        }
    }
}

/// Prices and limits, as settings say.
fn prices(settings: &Settings) -> Prices {
    Prices {
        input: settings.number("repair.price_input").unwrap_or_default(),
        output: settings.number("repair.price_output").unwrap_or_default(),
        token_limit: settings.whole("repair.token_limit").unwrap_or(500_000),
        money_limit: settings.number("repair.money_limit"),
    }
}
