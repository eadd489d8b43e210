//! Repairs that put a fixture around a test.

use crate::edits::Edits;
use crate::flaky::site::{Fixture, Site, edited, write_fixtures};
use crate::flaky::{Context, LeakedState, Proposal, Strategy};
use crate::python::signature::is_portable;
use crate::python::symbols::Target;
use crate::tree::SourceFile;
use ruff_python_ast::Stmt;
use std::collections::{BTreeMap, BTreeSet};

/// Most pieces of state that one repair restores: with more, it is not known which of them matters.
const MAX_STATE: usize = 6;

/// A fixture and the imports it needs.
struct Made {
    fixture: Fixture,
    imports: BTreeSet<String>,
}

/// A proposal that writes one fixture into the test's file and has the test use it.
fn around(context: &Context<'_>, strategy: Strategy, explanation: &str, made: Made) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    write_fixtures(site.file, std::slice::from_ref(&made.fixture), &made.imports, &mut edits);
    site.use_fixture(&made.fixture.name, &mut edits);
    let files = edited(site.file, &edits).into_iter().collect();
    Some(Proposal { strategy, explanation: explanation.to_owned(), files })
}

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(|line| (*line).to_owned()).collect()
}

fn imports(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Puts the state back that each of `tests` changes.
pub(super) fn restore(context: &Context<'_>, tests: &[String]) -> Option<Proposal> {
    let mut by_file: BTreeMap<&str, (&SourceFile, Vec<Made>, Edits)> = BTreeMap::new();
    let mut restored: Vec<&str> = Vec::new();
    for test in tests {
        let Some(site) = Site::find(context.tree, test) else { continue };
        let state: Vec<&LeakedState> =
            context.finding.state.iter().filter(|state| state.test == *test).collect();
        for state in state.into_iter().take(MAX_STATE) {
            let Some(made) = restoring(context, site.file, state) else { continue };
            let entry =
                by_file.entry(&site.file.path).or_insert_with(|| (site.file, Vec::new(), Edits::default()));
            site.use_fixture(&made.fixture.name, &mut entry.2);
            if !entry.1.iter().any(|known| known.fixture.name == made.fixture.name) {
                entry.1.push(made);
            }
            restored.push(&state.name);
        }
    }
    if restored.is_empty() {
        return None;
    }
    let files = by_file
        .into_values()
        .filter_map(|(file, made, mut edits)| {
            let needed = made.iter().flat_map(|made| made.imports.iter().cloned()).collect();
            let fixtures: Vec<Fixture> = made.into_iter().map(|made| made.fixture).collect();
            write_fixtures(file, &fixtures, &needed, &mut edits);
            edited(file, &edits)
        })
        .collect();
    restored.sort_unstable();
    restored.dedup();
    let explanation = format!("{} is put back after the test that changes it", restored.join(", "));
    Some(Proposal { strategy: Strategy::RestoreState, explanation, files })
}

/// A name for a fixture about something called `name`.
fn fixture_name(before: &str, name: &str) -> String {
    let mut clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    while clean.contains("__") {
        clean = clean.replace("__", "_");
    }
    format!("{before}_{}", clean.trim_matches('_'))
}

/// How a fixture in `file` names a global, and what it must import: `depot.UNIT`, or a bare name for one of
/// the file's own.
fn named(context: &Context<'_>, file: &SourceFile, name: &str) -> Option<(String, BTreeSet<String>)> {
    let own = context.tree.module_name(&file.path);
    let stem = own.rsplit('.').next().unwrap_or(&own);
    for module in [own.as_str(), stem] {
        if let Some(rest) = name.strip_prefix(module).and_then(|rest| rest.strip_prefix('.')) {
            return is_name(rest).then(|| (rest.to_owned(), BTreeSet::new()));
        }
    }
    // The longest front that is a module.
    let mut module = name;
    loop {
        module = module.rsplit_once('.')?.0;
        if context.table.resolve(module) == Some(Target::Module(module.to_owned())) {
            return is_name(name).then(|| (name.to_owned(), imports(&[module])));
        }
    }
}

fn is_name(name: &str) -> bool {
    name.split('.').all(|part| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Text as a Python string literal.
fn literal(text: &str) -> Option<String> {
    // The plain ones only: what needs escapes is no name of a variable or file worth guessing at.
    text.chars().all(|c| !c.is_control() && c != '"' && c != '\\').then(|| format!("\"{text}\""))
}

fn restoring(context: &Context<'_>, file: &SourceFile, state: &LeakedState) -> Option<Made> {
    match state.kind.as_str() {
        "module global" | "class attribute" => {
            let (name, mut needed) = named(context, file, &state.name)?;
            let assigns = !name.contains('.');
            let mut body = Vec::new();
            if assigns {
                body.push(format!("global {name}"));
            }
            let refill: &[&str] = match state.before.as_bytes().first() {
                Some(b'[') => &["kept[:] = saved"],
                Some(b'{') => &["kept.clear()", "kept.update(saved)"],
                _ if state.before.starts_with("set(") => &["kept.clear()", "kept.update(saved)"],
                _ => &[],
            };
            if refill.is_empty() {
                body.extend([format!("saved = {name}"), "yield".to_owned(), format!("{name} = saved")]);
            } else {
                needed.insert("copy".to_owned());
                body.extend([
                    format!("kept = {name}"),
                    "saved = copy.deepcopy(kept)".to_owned(),
                    "yield".to_owned(),
                ]);
                body.extend(lines(refill));
                body.push(format!("{name} = kept"));
            }
            let fixture = Fixture { name: fixture_name("restored", &state.name), takes: "", body };
            Some(Made { fixture, imports: needed })
        }
        "environment variable" => {
            let variable = literal(&state.name)?;
            let body = vec![
                format!("saved = os.environ.get({variable})"),
                "yield".to_owned(),
                "if saved is None:".to_owned(),
                format!("    os.environ.pop({variable}, None)"),
                "else:".to_owned(),
                format!("    os.environ[{variable}] = saved"),
            ];
            let fixture = Fixture { name: fixture_name("restored", &state.name), takes: "", body };
            Some(Made { fixture, imports: imports(&["os"]) })
        }
        "working directory" => {
            let body = lines(&["saved = os.getcwd()", "yield", "os.chdir(saved)"]);
            let fixture = Fixture { name: "restored_working_directory".to_owned(), takes: "", body };
            Some(Made { fixture, imports: imports(&["os"]) })
        }
        "file" if state.before.is_empty() => {
            let path = literal(&state.name)?;
            let body = vec![
                "yield".to_owned(),
                format!("if os.path.exists({path}):"),
                format!("    os.remove({path})"),
            ];
            let fixture = Fixture { name: fixture_name("removed", &state.name), takes: "", body };
            Some(Made { fixture, imports: imports(&["os"]) })
        }
        "locale" => {
            let body = lines(&[
                "saved = locale.setlocale(locale.LC_ALL)",
                "yield",
                "locale.setlocale(locale.LC_ALL, saved)",
            ]);
            let fixture = Fixture { name: "restored_locale".to_owned(), takes: "", body };
            Some(Made { fixture, imports: imports(&["locale"]) })
        }
        "random state" => {
            let body = lines(&["saved = random.getstate()", "yield", "random.setstate(saved)"]);
            let fixture = Fixture { name: "restored_random_state".to_owned(), takes: "", body };
            Some(Made { fixture, imports: imports(&["random"]) })
        }
        _ => None,
    }
}

/// Gives a test the state that another one used to leave, where that can be written down.
pub(super) fn provide(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut body = vec!["with pytest.MonkeyPatch.context() as patch:".to_owned()];
    let mut needed = BTreeSet::new();
    let mut given = Vec::new();
    for state in context.finding.state.iter().take(MAX_STATE) {
        match state.kind.as_str() {
            "module global" | "class attribute" => {
                let parsed = ruff_python_parser::parse_expression(&state.after).ok()?;
                if !is_portable(parsed.expr()) {
                    continue;
                }
                let (name, imports) = named(context, site.file, &state.name)?;
                let (owner, attribute) = name.rsplit_once('.')?;
                needed.extend(imports);
                body.push(format!("    patch.setattr({owner}, \"{attribute}\", {})", state.after));
            }
            "environment variable" => {
                let (name, value) = (literal(&state.name)?, literal(state.after.trim_matches(['\'', '"']))?);
                body.push(format!("    patch.setenv({name}, {value})"));
            }
            _ => continue,
        }
        given.push(state.name.as_str());
    }
    if given.is_empty() {
        return None;
    }
    body.push("    yield".to_owned());
    let fixture = Fixture { name: fixture_name("with", given[0]), takes: "", body };
    let explanation = format!("{} is set up by the test itself", given.join(", "));
    around(context, Strategy::ProvideState, &explanation, Made { fixture, imports: needed })
}

pub(super) fn time_zone(context: &Context<'_>) -> Option<Proposal> {
    let body = lines(&[
        "with pytest.MonkeyPatch.context() as patch:",
        "    patch.setenv(\"TZ\", \"UTC\")",
        "    time.tzset()",
        "    yield",
        "time.tzset()",
    ]);
    let fixture = Fixture { name: "time_zone_utc".to_owned(), takes: "", body };
    around(
        context,
        Strategy::PinTimeZone,
        "the local time zone is UTC while the test runs",
        Made { fixture, imports: imports(&["time"]) },
    )
}

/// When the clock stands still: in the middle of a week, a month and a day, and half a year apart, so that a test that is
/// wrong in one season is right in the other. Year, month, seconds since 1970, and in words.
const INSTANTS: [(u16, u8, u8, u64, &str); 2] =
    [(2025, 6, 11, 1_749_643_200, "11 June 2025"), (2025, 11, 12, 1_762_948_800, "12 November 2025")];

/// Stops the clock on an ordinary day. Which of them will do is for the experiment to say.
pub(super) fn clock(context: &Context<'_>) -> Vec<Proposal> {
    INSTANTS.iter().filter_map(|instant| clock_at(context, *instant)).collect()
}

fn clock_at(context: &Context<'_>, instant: (u16, u8, u8, u64, &str)) -> Option<Proposal> {
    let (year, month, day, seconds, words) = instant;
    let written = format!("{year}-{month:02}-{day:02} 12:00:00");
    let site = Site::find(context.tree, &context.finding.test)?;
    let imports_module = |module: &str| {
        site.file.parsed.syntax().body.iter().any(|stmt| match stmt {
            Stmt::Import(import) => import.names.iter().any(|alias| alias.name.id.as_str() == module),
            Stmt::ImportFrom(import) => import.module.as_ref().is_some_and(|name| name.id.as_str() == module),
            _ => false,
        })
    };
    // A library for it that the project uses already is better than a class of ours.
    let used = |word: &str| context.tree.test_files().any(|file| file.text.contains(word));
    let (body, needed) = if used("import freezegun") || used("from freezegun") {
        (
            vec![format!("with freezegun.freeze_time(\"{written}\"):"), "    yield".to_owned()],
            imports(&["freezegun"]),
        )
    } else if used("import time_machine") {
        (
            vec![
                format!("with time_machine.travel(\"{written}+00:00\", tick=False):"),
                "    yield".to_owned(),
            ],
            imports(&["time_machine"]),
        )
    } else {
        // Names imported from the module keep the old class: the module's own names are what is replaced.
        if !imports_module("datetime") && !imports_module("time") {
            return None;
        }
        (
            lines(&[
                "class FixedDateTime(datetime.datetime):",
                "    @classmethod",
                "    def now(cls, tz=None):",
                &format!("        now = cls({year}, {month}, {day}, 12, tzinfo=datetime.timezone.utc)"),
                "        return now.astimezone(tz) if tz else now.astimezone().replace(tzinfo=None)",
                "",
                "    @classmethod",
                "    def utcnow(cls):",
                &format!("        return cls({year}, {month}, {day}, 12)"),
                "",
                "class FixedDate(datetime.date):",
                "    @classmethod",
                "    def today(cls):",
                &format!("        return cls({year}, {month}, {day})"),
                "",
                "with pytest.MonkeyPatch.context() as patch:",
                "    patch.setattr(datetime, \"datetime\", FixedDateTime)",
                "    patch.setattr(datetime, \"date\", FixedDate)",
                &format!("    patch.setattr(time, \"time\", lambda: {seconds}.0)"),
                "    yield",
            ]),
            imports(&["datetime", "time"]),
        )
    };
    let fixture = Fixture { name: "fixed_clock".to_owned(), takes: "", body };
    around(
        context,
        Strategy::PinClock,
        &format!("the clock stands at noon of {words} (UTC) while the test runs"),
        Made { fixture, imports: needed },
    )
}

pub(super) fn umask(context: &Context<'_>) -> Option<Proposal> {
    let body = lines(&["saved = os.umask(0o022)", "yield", "os.umask(saved)"]);
    let fixture = Fixture { name: "usual_umask".to_owned(), takes: "", body };
    around(
        context,
        Strategy::PinUmask,
        "new files get the usual permissions (umask 022) while the test runs",
        Made { fixture, imports: imports(&["os"]) },
    )
}

pub(super) fn home(context: &Context<'_>) -> Option<Proposal> {
    let body = lines(&[
        "with pytest.MonkeyPatch.context() as patch:",
        "    patch.setenv(\"HOME\", str(tmp_path))",
        "    yield",
    ]);
    let fixture = Fixture { name: "own_home".to_owned(), takes: "tmp_path", body };
    around(
        context,
        Strategy::OwnHome,
        "the home directory is a temporary one while the test runs",
        Made { fixture, imports: BTreeSet::new() },
    )
}
