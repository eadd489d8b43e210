//! What a reader should know of how attempts were isolated.

use crate::experiment::{Ledger, SandboxChoice, Standing};
use flakefarm_shared::SandboxLevel;
use std::collections::BTreeMap;

/// A sentence each, none for what is as it should be.
pub(super) fn notes(sandbox: SandboxChoice, ledger: &Ledger) -> Vec<String> {
    let mut notes = Vec::new();
    if sandbox == SandboxChoice::Process {
        notes.push(
            "attempts were plain processes of one machine, isolated from nothing: what looks flaky may be what \
             another attempt, or the machine, has left behind"
                .to_owned(),
        );
    }
    let mut instead: BTreeMap<(SandboxLevel, &str), u64> = BTreeMap::new();
    for attempt in ledger.each_attempt() {
        if let Standing::Ended(record) = attempt.standing
            && let Some(why) = &record.instead
        {
            *instead.entry((record.level, why)).or_default() += 1;
        }
    }
    notes.extend(instead.into_iter().map(|((level, why), count)| {
        let attempts = if count == 1 { "attempt".to_owned() } else { format!("{count} attempts") };
        format!("the sandbox level `{level}` was taken for {attempts} instead of a cheaper one: {why}")
    }));
    notes
}
