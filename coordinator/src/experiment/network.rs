//! Which tests want a network that is not there.

use super::ledger::{Ledger, Seen};
use flakefarm_shared::{Circumstance, Failure, TestId};

/// What tells that a test wants a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantsNetwork {
    /// Its failure says so: a type of exception or a message.
    Said,
    /// The kernel counted so many packets and connections without a route while it ran, whoever of its processes
    /// made them.
    Counted(u32),
}

/// Whether a plain failure of `test` says that there is no network, or the kernel does.
pub fn asked_for_network(test: &TestId, ledger: &Ledger) -> Option<WantsNetwork> {
    let failures = ledger.plain(test).filter_map(|observation| match &observation.seen {
        Seen::Fail(seen) => Some(&seen.failure),
        Seen::Pass | Seen::Skip => None,
    });
    let mut found = None;
    for failure in failures {
        match counted(failure) {
            Some(packets) => return Some(WantsNetwork::Counted(packets)),
            None if says(failure) => found = Some(WantsNetwork::Said),
            None => {}
        }
    }
    found
}

fn counted(failure: &Failure) -> Option<u32> {
    failure.circumstances.iter().find_map(|found| match found {
        Circumstance::NoRoute { packets } => Some(*packets),
        Circumstance::Hook { .. }
        | Circumstance::Fixture { .. }
        | Circumstance::SubTest { .. }
        | Circumstance::SecondPass { .. }
        | Circumstance::Unknown => None,
    })
}

fn says(failure: &Failure) -> bool {
    const EXCEPTIONS: [&str; 7] = [
        "gaierror",
        "URLError",
        "NewConnectionError",
        "NameResolutionError",
        "ConnectionError",
        "ConnectError",
        "ConnectorError",
    ];
    const MESSAGES: [&str; 4] = [
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "Failed to establish a new connection",
    ];
    failure.exceptions.iter().any(|name| EXCEPTIONS.iter().any(|known| name.ends_with(known)))
        || MESSAGES.iter().any(|known| failure.message.contains(known))
}
