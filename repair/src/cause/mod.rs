//! Why a test fails, as far as its exception and the difference between two trees show it. A list of rules, the
//! surest first; each says what it rests on, and where none applies nothing is said. Whether the change of the code
//! or the test is wrong is never decided here.

mod messages;
mod reach;

pub use messages::{Said, said, said_in_report};

use crate::changes::{Awaiting, ChangeKind, Changes};
use crate::python::symbols::{Kind, Target, join};
use crate::tree::SourceTree;
pub(crate) use reach::within_reach_of;
use reach::{Changed, changed_within_reach};

/// Sure enough to act on.
pub const THRESHOLD: f64 = 0.7;
/// The exception names the symbol, and the difference shows what became of it.
const NAMED_AND_CHANGED: f64 = 0.95;
/// The exception says it all by itself.
const SAID: f64 = 0.9;
/// One changed symbol, and no other, is used by the test itself.
const USED: f64 = 0.8;
/// One changed symbol, and no other, is reached through code that did not change.
const REACHED: f64 = 0.7;
/// Several changed symbols are equally near.
const ONE_OF_SEVERAL: f64 = 0.4;

/// One failure, as a framework told it.
#[derive(Debug, Clone, Default)]
pub struct Symptom<'a> {
    /// The test (`path::Class::name[parameters]`), or the path of a file that could not be collected.
    pub test: &'a str,
    /// `assertion`, `exception`, `framework`, `timeout`, `crash`, `out_of_memory`; `collection` for files.
    pub kind: &'a str,
    /// `setup`, `call` or `teardown`.
    pub phase: &'a str,
    /// The last exception's type in full.
    pub exception: &'a str,
    /// Its message, or the report of a file.
    pub message: &'a str,
    /// The fixture whose set-up or tear-down failed.
    pub fixture: Option<&'a str>,
}

/// What made a test fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CauseKind {
    /// A name of the code is another one now.
    Renamed,
    /// It is somewhere else now.
    Moved,
    /// A function takes other parameters.
    Signature,
    /// A function became a coroutine, or is none any more.
    Asynchronous,
    /// Something is gone, and nothing took its place.
    Removed,
    /// A constant has another value.
    Constant,
    /// Code raises something else, or says it in other words.
    Exception,
    /// Code does something else.
    Behaviour,
    /// What is to be replaced by a mock is not there any more.
    MockTarget,
    /// A fixture is missing, or fails.
    Fixture,
    /// A source cannot be parsed.
    Syntax,
    /// A package that is not of the project is missing.
    MissingModule,
    /// A program is missing.
    MissingTool,
    /// A file is missing.
    MissingFile,
    /// Permission was refused.
    Permission,
    /// The disk is full.
    Disk,
    /// Something on the network was asked for.
    Network,
    /// Memory ended.
    Memory,
    /// Time ended.
    Timeout,
    /// The interpreter died.
    Crash,
}

impl CauseKind {
    /// The word used in every format.
    pub fn word(self) -> &'static str {
        match self {
            CauseKind::Renamed => "renamed",
            CauseKind::Moved => "moved",
            CauseKind::Signature => "signature",
            CauseKind::Asynchronous => "asynchronous",
            CauseKind::Removed => "removed",
            CauseKind::Constant => "constant",
            CauseKind::Exception => "exception",
            CauseKind::Behaviour => "behaviour",
            CauseKind::MockTarget => "mock_target",
            CauseKind::Fixture => "fixture",
            CauseKind::Syntax => "syntax",
            CauseKind::MissingModule => "missing_module",
            CauseKind::MissingTool => "missing_tool",
            CauseKind::MissingFile => "missing_file",
            CauseKind::Permission => "permission",
            CauseKind::Disk => "disk",
            CauseKind::Network => "network",
            CauseKind::Memory => "memory",
            CauseKind::Timeout => "timeout",
            CauseKind::Crash => "crash",
        }
    }

    /// Whether it lies in the place where the tests run, not in the project.
    pub fn is_environment(self) -> bool {
        use CauseKind::{Disk, Memory, MissingModule, MissingTool, Network, Permission};
        matches!(self, MissingModule | MissingTool | Permission | Disk | Network | Memory)
    }

    /// Whether a repair can follow from the difference alone.
    pub fn is_adaptable(self) -> bool {
        use CauseKind::{Asynchronous, MockTarget, Moved, Renamed, Signature};
        matches!(self, Renamed | Moved | Signature | Asynchronous | MockTarget)
    }
}

/// Why a test fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// What kind.
    pub kind: CauseKind,
    /// What it is about: a path of the code, a module, a program, a file. Equal for failures with one cause.
    pub subject: String,
    /// 0 to 1; from [`THRESHOLD`] it is worth acting on.
    pub confidence: f64,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
}

/// Two trees and their difference.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The tree in which the tests passed.
    pub old: &'a SourceTree,
    /// The tree in which they fail.
    pub new: &'a SourceTree,
    /// What callers must know.
    pub changes: &'a Changes,
}

/// Why the test fails; nothing where neither the exception nor the difference says so.
pub fn explain(symptom: &Symptom<'_>, difference: Option<&Difference<'_>>) -> Option<Cause> {
    match symptom.kind {
        "timeout" => return Some(alone(CauseKind::Timeout, "", "it did not end within its limit")),
        "out_of_memory" => return Some(alone(CauseKind::Memory, "", "the kernel ended it: memory ended")),
        "crash" => return Some(alone(CauseKind::Crash, "", "its interpreter died")),
        _ => {}
    }
    let told = match symptom.kind {
        "collection" => said_in_report(symptom.message),
        _ => said(symptom.exception, symptom.message),
    };
    if let Some(difference) = difference {
        if let Some(cause) = named(&told, symptom, difference) {
            return Some(cause);
        }
        if told == Said::NotParsed
            && let Some((path, why)) = difference.new.unreadable().iter().next()
        {
            return Some(alone(CauseKind::Syntax, path, &format!("{path}: {why}")));
        }
    }
    if let Some(cause) = environment(&told, difference) {
        return Some(cause);
    }
    if let (Some(fixture), true) = (symptom.fixture, symptom.phase != "call") {
        let evidence =
            format!("its {} failed", if symptom.phase == "teardown" { "tear-down" } else { "set-up" });
        return Some(Cause { confidence: USED, ..alone(CauseKind::Fixture, fixture, &evidence) });
    }
    difference.and_then(|difference| within_reach(&told, symptom, difference))
}

fn alone(kind: CauseKind, subject: &str, evidence: &str) -> Cause {
    Cause { kind, subject: subject.to_owned(), confidence: SAID, evidence: vec![evidence.to_owned()] }
}

/// The exception names something of which the difference tells what became.
fn named(told: &Said, symptom: &Symptom<'_>, difference: &Difference<'_>) -> Option<Cause> {
    let changes = difference.changes;
    match told {
        Said::NoModule(module) => fate(changes, module, false),
        Said::CannotImport { name, module: Some(module) } => fate(changes, &join(module, name), false),
        Said::NoAttribute { owner, name, patched } => {
            let of_module = fate(changes, &join(owner, name), *patched);
            of_module.or_else(|| fate_of_member(changes, owner, name, *patched))
        }
        Said::BadCall(function) => signature(changes, function),
        Said::Coroutine(function) => asynchronous(changes, function.as_deref(), symptom, difference),
        Said::NoName(name) => {
            let mut found = (0..changes.old.symbols.len()).filter(|&place| {
                let symbol = changes.old_symbol(place);
                symbol.name == *name && !symbol.is_member()
            });
            let only = found.next()?;
            if found.next().is_some() {
                return None;
            }
            fate(changes, &changes.old_symbol(only).path(), false)
        }
        _ => None,
    }
}

/// What became of a path of the old code.
fn fate(changes: &Changes, path: &str, patched: bool) -> Option<Cause> {
    let target = changes.old.resolve(path)?;
    if changes.new.resolve(path).is_some() && changes.new_path(path).as_deref() == Some(path) {
        return None;
    }
    let Some(now) = changes.new_path(path) else {
        let evidence = vec![format!("{path} was there, and is gone")];
        return Some(Cause {
            kind: CauseKind::Removed,
            subject: path.to_owned(),
            confidence: USED,
            evidence,
        });
    };
    let (before, after) = (path.rsplit_once('.'), now.rsplit_once('.'));
    let in_place = before.map(|(parent, _)| parent) == after.map(|(parent, _)| parent);
    let kind = match (patched, in_place, &target) {
        (true, _, _) => CauseKind::MockTarget,
        (_, true, Target::Symbol(_)) => CauseKind::Renamed,
        _ => CauseKind::Moved,
    };
    let evidence = vec![format!("the exception names {path}"), format!("{path} is {now} now")];
    Some(Cause { kind, subject: path.to_owned(), confidence: NAMED_AND_CHANGED, evidence })
}

/// What became of a member of a class that goes by its last name.
fn fate_of_member(changes: &Changes, class: &str, name: &str, patched: bool) -> Option<Cause> {
    let last = class.rsplit('.').next().unwrap_or(class);
    let found = (0..changes.old.symbols.len()).find(|&place| {
        let symbol = changes.old_symbol(place);
        symbol.name == name && symbol.owner.rsplit('.').next() == Some(last)
    });
    let (place, exact) = match found {
        Some(place) => (place, true),
        None => (changes.only_member(name)?, false),
    };
    let path = changes.old_symbol(place).path();
    let (kind, evidence) = match changes.matching.symbols.get(&place) {
        Some(now) if changes.new.symbols[now.to].name != name => {
            let now = changes.new.symbols[now.to].path();
            (CauseKind::Renamed, format!("{path} is {now} now"))
        }
        Some(_) => return None,
        None => (CauseKind::Removed, format!("{path} was there, and is gone")),
    };
    let kind = if patched { CauseKind::MockTarget } else { kind };
    let confidence = match (exact, kind) {
        (_, CauseKind::Removed) | (false, _) => USED,
        (true, _) => NAMED_AND_CHANGED,
    };
    let evidence = vec![format!("the exception names {name} of {class}"), evidence];
    Some(Cause { kind, subject: path, confidence, evidence })
}

/// A function that is called by its qualified name takes other parameters now.
fn signature(changes: &Changes, function: &str) -> Option<Cause> {
    let name = function.strip_suffix(".__init__").unwrap_or(function);
    let matches = |place: &usize| {
        let symbol = changes.old_symbol(*place);
        let now = changes.matching.symbols.get(place).map(|found| &changes.new.symbols[found.to]);
        // The new code raised: it goes by its new name.
        let is = |owner: &str, own: &str| join(owner, own) == name || own == name;
        is(&symbol.owner, &symbol.name) || now.is_some_and(|now| is(&now.owner, &now.name))
    };
    let places: Vec<usize> = (0..changes.old.symbols.len())
        .filter(matches)
        .filter(|&place| changes.signature(place).is_some())
        .collect();
    let (first, several) = (places.first()?, places.len() > 1);
    let change = changes.signature(*first)?;
    let path = changes.old_symbol(*first).path();
    let evidence = vec![
        format!("the exception names {function}()"),
        format!("{path}({}) takes ({}) now", change.old.names(), change.new.names()),
    ];
    let confidence = if several { USED } else { NAMED_AND_CHANGED };
    Some(Cause { kind: CauseKind::Signature, subject: path, confidence, evidence })
}

/// A coroutine stands where its result was wanted, or the other way about.
fn asynchronous(
    changes: &Changes,
    function: Option<&str>,
    symptom: &Symptom<'_>,
    difference: &Difference<'_>,
) -> Option<Cause> {
    let of_function = |place: usize, awaiting: Awaiting, confidence| {
        let path = changes.old_symbol(place).path();
        let now = match awaiting {
            Awaiting::Now => "must be awaited now",
            Awaiting::Before => "need not be awaited any more",
        };
        let evidence = vec![format!("{path} {now}")];
        Cause { kind: CauseKind::Asynchronous, subject: path, confidence, evidence }
    };
    let changed: Vec<(usize, Awaiting)> = (0..changes.old.symbols.len())
        .filter_map(|place| Some((place, changes.awaiting(place)?)))
        .filter(|(place, _)| {
            let name = &changes.old_symbol(*place).name;
            function.is_none_or(|function| function.rsplit('.').next() == Some(name))
        })
        .collect();
    match changed.as_slice() {
        [] => None,
        [(place, awaiting)] => Some(of_function(*place, *awaiting, NAMED_AND_CHANGED)),
        several => {
            let near = changed_within_reach(symptom.test, difference);
            let used = |(place, _): &&(usize, Awaiting)| {
                near.iter().any(|changed| changed.old == Some(*place) && changed.distance == 0)
            };
            let mut used = several.iter().filter(used);
            let (place, awaiting) = used.next()?;
            let confidence = if used.next().is_none() { USED } else { ONE_OF_SEVERAL };
            Some(of_function(*place, *awaiting, confidence))
        }
    }
}

/// What is missing where the tests run.
fn environment(told: &Said, difference: Option<&Difference<'_>>) -> Option<Cause> {
    match told {
        Said::NoModule(module) => {
            let top = module.split('.').next().unwrap_or(module);
            let ours = difference.is_some_and(|difference| {
                difference
                    .new
                    .code_files()
                    .any(|file| difference.new.module_name(&file.path).split('.').next() == Some(top))
            });
            (!ours)
                .then(|| alone(CauseKind::MissingModule, module, &format!("no module {module} is installed")))
        }
        Said::NoProgram(name) => {
            Some(alone(CauseKind::MissingTool, name, &format!("there is no program {name}")))
        }
        Said::NoFile(path) => Some(Cause {
            confidence: USED,
            ..alone(CauseKind::MissingFile, path, &format!("there is no {path}"))
        }),
        Said::NoFixture(name) => {
            Some(alone(CauseKind::Fixture, name, &format!("there is no fixture {name}")))
        }
        Said::Denied => Some(alone(CauseKind::Permission, "", "permission was refused")),
        Said::DiskFull => Some(alone(CauseKind::Disk, "", "no space is left")),
        Said::NoNetwork => Some(alone(CauseKind::Network, "", "nothing answers on the network")),
        Said::NoMemory => Some(alone(CauseKind::Memory, "", "memory ended")),
        Said::TooLong => Some(alone(CauseKind::Timeout, "", "something did not answer in time")),
        Said::NotParsed => Some(alone(CauseKind::Syntax, "", "a source cannot be parsed")),
        _ => None,
    }
}

/// Something that the test uses, itself or through other code, changed.
fn within_reach(told: &Said, symptom: &Symptom<'_>, difference: &Difference<'_>) -> Option<Cause> {
    let changed = changed_within_reach(symptom.test, difference);
    let nearest = changed.first()?.distance;
    let mut near: Vec<&Changed> = changed.iter().take_while(|changed| changed.distance == nearest).collect();
    // What is used otherwise is misused: mostly, that is an error of types.
    let misused = symptom.exception.rsplit('.').next() == Some("TypeError");
    near.sort_by_key(|changed| changed.interface != misused);
    // The literal that a constant had, or has, stands in what differs: that is the one.
    let shown = changed.iter().find(|changed| {
        changed.kind == Kind::Variable
            && changed.literals.iter().any(|literal| symptom.message.contains(literal.as_str()))
    });
    let (first, confidence) = match (shown, near.as_slice()) {
        (Some(shown), _) => (shown, SAID),
        (None, [only]) if nearest == 0 => (*only, USED),
        (None, [only]) => (*only, REACHED),
        (None, several) => (several[0], ONE_OF_SEVERAL),
    };
    let kind = match (first.kind, told, &first.use_now) {
        (Kind::Variable, ..) => CauseKind::Constant,
        // What went wrong may be how it was asked, whatever it does.
        (_, _, Some(use_now)) if first.interface || misused => match use_now {
            ChangeKind::NowAsync | ChangeKind::NoLongerAsync => CauseKind::Asynchronous,
            _ => CauseKind::Signature,
        },
        (_, Said::DidNotRaise | Said::OtherMessage, _) if first.raises => CauseKind::Exception,
        _ => CauseKind::Behaviour,
    };
    let way = match first.distance {
        0 => "the test uses it".to_owned(),
        steps => format!("the test reaches it in {} steps", steps + 1),
    };
    let what = first.use_now.as_ref().map_or_else(|| "changed".to_owned(), use_in_words);
    let mut evidence = vec![format!("{} {what}", first.path), way];
    if near.len() > 1 && shown.is_none() {
        let others: Vec<&str> = near[1..].iter().take(4).map(|changed| changed.path.as_str()).collect();
        evidence.push(format!("as near: {}", others.join(", ")));
    }
    Some(Cause { kind, subject: first.path.clone(), confidence, evidence })
}

/// How something is used now.
fn use_in_words(use_now: &ChangeKind) -> String {
    match use_now {
        ChangeKind::NowAsync => "must be awaited now".to_owned(),
        ChangeKind::NoLongerAsync => "need not be awaited any more".to_owned(),
        ChangeKind::NowCalled => "was a property, and must be called now".to_owned(),
        ChangeKind::NowProperty => "is a property now".to_owned(),
        ChangeKind::Signature(old, new) => format!("takes ({new}) for ({old}) now"),
        ChangeKind::Renamed(_) | ChangeKind::Moved(_) | ChangeKind::Gone => "changed".to_owned(),
    }
}

#[cfg(test)]
mod tests;
