//! Whether the farm itself can be trusted, in words.

use super::model::{Trust, TrustState};
use super::words::visible;

/// A sentence, without its end.
pub fn trust_line(trust: &Trust) -> String {
    let counts = format!(
        "found {} of {} known flaky tests, accused {} of {} stable",
        trust.found, trust.flaky, trust.accused, trust.stable
    );
    let list = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!("; {what} {}", visible(&names.join(", "))),
    };
    let names = [
        list("missed", &trust.missed),
        list("accused", &trust.wronged),
        list("no answer for", &trust.unanswered),
    ]
    .concat();
    match trust.state {
        TrustState::Trusted => format!("the farm can be trusted: {counts}"),
        TrustState::NotTrusted => {
            format!("THE FARM CANNOT BE TRUSTED, nor this report: {counts}{names}")
        }
        TrustState::Unknown => {
            let why = trust.why.as_deref().unwrap_or("nobody knows why");
            format!("whether the farm can be trusted is not known: {}", visible(why))
        }
        TrustState::Pending => "the farm's control of known tests still runs".to_owned(),
    }
}

/// The same in a few words, for a list.
pub fn trust_short(trust: &Trust) -> String {
    let counts = format!("{}/{} found, {}/{} accused", trust.found, trust.flaky, trust.accused, trust.stable);
    match trust.state {
        TrustState::Trusted => format!("trusted ({counts})"),
        TrustState::NotTrusted => format!("NOT TRUSTED ({counts})"),
        TrustState::Unknown => "trust unknown".to_owned(),
        TrustState::Pending => "control runs".to_owned(),
    }
}
