//! `flakefarm doctor`: what is wrong with this machine, its stores or a farm, and what to type about it. It
//! looks: no schema is changed, no queue declared.

mod farm;
mod machine;
mod stores;

use crate::args::DoctorArgs;
use crate::ask::config_complaint;
use crate::exit::{Complaint, Exit};
use crate::farm::Farm;
use crate::output;
use crate::role_settings::of_role;
use flakefarm_project::config::without_project;

/// What is to be said of one thing.
#[derive(Debug)]
pub(crate) enum Finding {
    /// As it should be.
    Well(String),
    /// It works, but somebody should know; with what to do about it.
    Note(String, String),
    /// It does not work.
    Wrong(Complaint),
}

impl From<Result<String, Complaint>> for Finding {
    fn from(found: Result<String, Complaint>) -> Self {
        match found {
            Ok(fact) => Finding::Well(fact),
            Err(complaint) => Finding::Wrong(complaint),
        }
    }
}

/// Says findings as they are made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    notes: u32,
    wrong: u32,
}

impl Findings {
    fn say(&mut self, what: &str, finding: impl Into<Finding>) -> Result<(), Complaint> {
        let (word, fact, hint) = match finding.into() {
            Finding::Well(fact) => ("ok  ", fact, None),
            Finding::Note(fact, hint) => {
                self.notes += 1;
                ("note", fact, Some(hint))
            }
            Finding::Wrong(complaint) => {
                self.wrong += 1;
                ("FAIL", complaint.message, complaint.hint)
            }
        };
        let hint = hint.map(|hint| format!("\n      hint: {hint}")).unwrap_or_default();
        output::print(&format!("{word}  {what}: {fact}{hint}\n"))
    }
}

pub(crate) async fn doctor(args: &DoctorArgs) -> Result<Exit, Complaint> {
    let Some(settings) = of_role(&args.role, &args.stores.options())? else { return Ok(Exit::Clean) };
    let given = args.farm.options();
    let of_farm = without_project(&given).map_err(|error| config_complaint(&error))?;
    let mut findings = Findings::default();
    // Who names a farm asks for that; one that the environment names is looked at, too.
    if !given.iter().any(|option| option.key == "farm.url") {
        Box::pin(machine::look(&mut findings, &settings)).await?;
        Box::pin(stores::look(&mut findings, &settings)).await?;
    }
    if let Some(address) = of_farm.text("farm.url") {
        let farm = Farm::new(&address, of_farm.text("farm.token"))?;
        Box::pin(farm::look(&mut findings, &farm)).await?;
    }
    let Findings { notes, wrong } = findings;
    if wrong > 0 {
        output::print(&format!("{wrong} wrong, {notes} to be known\n"))?;
        return Ok(Exit::FarmFailed);
    }
    output::print(&match notes {
        0 => "all is well\n".to_owned(),
        notes => format!("it works; {notes} to be known\n"),
    })?;
    Ok(Exit::Clean)
}

/// How far another clock is from ours, in words; a note if it is too far.
fn skew(theirs: i64, ours: i64, whose: &str) -> Finding {
    /// What leases and certificates bear.
    const BEARABLE: i64 = 5_000_000;
    let skew = theirs.saturating_sub(ours);
    let seconds = skew.unsigned_abs() / 1_000_000;
    if skew.abs() <= BEARABLE {
        return Finding::Well(format!("within {} s of {whose}", BEARABLE / 1_000_000));
    }
    let direction = if skew > 0 { "behind" } else { "ahead of" };
    Finding::Note(
        format!("this machine's clock is {seconds} s {direction} {whose}"),
        "let both be set by the same time service: timedatectl set-ntp true".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_which_way() {
        let words = |finding| match finding {
            Finding::Well(words) | Finding::Note(words, _) => words,
            Finding::Wrong(complaint) => complaint.message,
        };
        assert_eq!(words(skew(3_000_000, 0, "the farm's")), "within 5 s of the farm's");
        let behind = "this machine's clock is 60 s behind the farm's";
        assert_eq!(words(skew(60_000_000, 0, "the farm's")), behind);
        let ahead = "this machine's clock is 60 s ahead of the farm's";
        assert_eq!(words(skew(0, 60_000_000, "the farm's")), ahead);
    }
}
