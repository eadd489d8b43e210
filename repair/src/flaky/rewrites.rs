//! Repairs that rewrite what a test does itself.

use crate::edits::Edits;
use crate::flaky::site::{Site, edited, import};
use crate::flaky::{Context, Proposal, Strategy};
use crate::python::deep;
use crate::python::{dotted, last_name};
use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{Expr, ExprCall, ExprStringLiteral, Stmt};
use ruff_text_size::{Ranged, TextSize};
use std::collections::BTreeSet;

/// Seeds that are tried, one proposal each.
const SEEDS: u32 = 8;
/// How long a bounded wait may take, in seconds: long for any machine, short for a person.
const PATIENCE_S: u32 = 30;

/// What a test calls, and its string literals.
#[derive(Default)]
struct Contents<'a> {
    calls: Vec<&'a ExprCall>,
    strings: Vec<&'a ExprStringLiteral>,
}

impl<'a> Contents<'a> {
    fn of(site: &Site<'a>) -> Self {
        let mut contents = Self::default();
        site.function.body.iter().for_each(|stmt| contents.visit_stmt(stmt));
        contents
    }
}

impl<'a> Visitor<'a> for Contents<'a> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Call(call) => self.calls.push(call),
            Expr::StringLiteral(text) => self.strings.push(text),
            _ => {}
        }
        deep(|| walk_expr(self, expr));
    }
}

fn proposal(site: &Site<'_>, edits: &Edits, strategy: Strategy, explanation: String) -> Option<Proposal> {
    let file = edited(site.file, edits)?;
    Some(Proposal { strategy, explanation, files: vec![file] })
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// Does in this test what the state-setters do before they assert anything.
pub(super) fn copy_set_up(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    let mut lines: Vec<String> = Vec::new();
    let mut needed = BTreeSet::new();
    for other in &context.finding.others {
        let setter = Site::find(context.tree, other)?;
        // What it takes it cannot be given here.
        if !setter.function.parameters.is_empty() {
            return None;
        }
        for stmt in
            setter.function.body.iter().filter(|stmt| !matches!(stmt, Stmt::Assert(_) | Stmt::Return(_)))
        {
            if matches!(stmt, Stmt::Expr(doc) if doc.value.is_string_literal_expr()) {
                continue;
            }
            let indent = setter.indent(stmt.start());
            let text = setter.text(stmt);
            lines.extend(text.lines().map(|line| line.strip_prefix(indent).unwrap_or(line).to_owned()));
        }
        for stmt in &setter.file.parsed.syntax().body {
            if let Stmt::Import(import) = stmt {
                needed.extend(
                    import
                        .names
                        .iter()
                        .filter(|alias| alias.asname.is_none())
                        .map(|alias| alias.name.id.to_string()),
                );
            }
        }
    }
    let used = |module: &String| {
        let first = module.split('.').next().unwrap_or(module);
        lines.iter().any(|line| line.contains(first))
    };
    needed.retain(used);
    import(site.file, &needed, &mut edits);
    site.begin_with(&lines, &mut edits);
    let explanation = format!("the test does itself what {} did for it", context.finding.others.join(", "));
    proposal(&site, &edits, Strategy::CopySetUp, explanation)
}

/// Makes a file in a shared directory one of the test's own.
pub(super) fn own_file(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let contents = Contents::of(&site);
    let mut edits = Edits::default();
    let mut moved = Vec::new();
    for text in &contents.strings {
        let path = text.value.to_str();
        let created = context.finding.state.iter().any(|state| state.kind == "file" && state.name == path);
        let Some((_, name)) = path.rsplit_once('/').filter(|_| created) else { continue };
        edits.replace(text.range, format!("str(tmp_path / \"{name}\")"));
        moved.push(path);
    }
    if moved.is_empty() {
        return None;
    }
    let parameters = &site.function.parameters;
    if !parameters.includes("tmp_path") {
        let inside = parameters.range.start() + TextSize::new(1);
        let method = parameters.args.first().is_some_and(|first| first.name().id.as_str() == "self");
        match (parameters.args.len(), method) {
            (0, _) => edits.insert(inside, "tmp_path"),
            (_, true) => edits.insert(parameters.args[0].range.end(), ", tmp_path"),
            _ => edits.insert(inside, "tmp_path, "),
        }
    }
    let explanation = format!("{} is a file of the test's own", moved.join(", "));
    proposal(&site, &edits, Strategy::OwnFile, explanation)
}

/// Seeds the generators that the file knows. Which seed will do is for the experiment to say.
pub(super) fn seed(context: &Context<'_>) -> Vec<Proposal> {
    let Some(site) = Site::find(context.tree, &context.finding.test) else { return Vec::new() };
    let mut seeding: Vec<String> = Vec::new();
    for stmt in &site.file.parsed.syntax().body {
        let Stmt::Import(import) = stmt else { continue };
        for alias in &import.names {
            let local = alias.asname.as_ref().map_or(alias.name.id.as_str(), |name| name.id.as_str());
            match alias.name.id.as_str() {
                "random" => seeding.push(format!("{local}.seed(SEED)")),
                "numpy" => seeding.push(format!("{local}.random.seed(SEED)")),
                _ => {}
            }
        }
    }
    let mut needed = BTreeSet::new();
    if seeding.is_empty() {
        seeding.push("random.seed(SEED)".to_owned());
        needed.insert("random".to_owned());
    }
    let with = |seed: u32| {
        let mut edits = Edits::default();
        import(site.file, &needed, &mut edits);
        let lines: Vec<String> = seeding.iter().map(|line| line.replace("SEED", &seed.to_string())).collect();
        site.begin_with(&lines, &mut edits);
        proposal(&site, &edits, Strategy::SeedRandomness, format!("random numbers are those of seed {seed}"))
    };
    (0..SEEDS).filter_map(with).collect()
}

/// Whether an expression has no order of its own, or one that the file system makes.
fn is_unordered(expr: &Expr) -> bool {
    match expr {
        Expr::Set(_) | Expr::SetComp(_) => true,
        Expr::Call(call) => matches!(
            last_name(&call.func),
            Some("set" | "frozenset" | "listdir" | "iterdir" | "glob" | "iglob" | "rglob")
        ),
        _ => false,
    }
}

/// Sorts what has no order where it is used as a sequence.
pub(super) fn sort(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    let mut wrap = |expr: &Expr| {
        edits.insert(expr.start(), "sorted(");
        edits.insert(expr.end(), ")");
    };
    let contents = Contents::of(&site);
    for call in &contents.calls {
        let sequence =
            matches!(last_name(&call.func), Some("join" | "list" | "tuple" | "iter" | "enumerate" | "zip"));
        if sequence {
            call.arguments.args.iter().filter(|argument| is_unordered(argument)).for_each(&mut wrap);
        }
    }
    for stmt in &site.function.body {
        match stmt {
            // `names = os.listdir(...)`; a set that is given a name may be meant as one.
            Stmt::Assign(assign) if is_unordered(&assign.value) && assign.value.is_call_expr() => {
                let set = matches!(assign.value.as_ref(), Expr::Call(call) if matches!(last_name(&call.func), Some("set" | "frozenset")));
                if !set {
                    wrap(&assign.value);
                }
            }
            Stmt::For(each) if is_unordered(&each.iter) => wrap(&each.iter),
            Stmt::Assert(assert) => {
                if let Expr::Compare(compare) = assert.test.as_ref() {
                    let sides = std::iter::once(compare.left.as_ref()).chain(&compare.comparators);
                    let listed = |expr: &&Expr| matches!(expr, Expr::Call(call) if matches!(last_name(&call.func), Some("listdir" | "glob" | "iglob")));
                    sides.filter(listed).for_each(&mut wrap);
                }
            }
            _ => {}
        }
    }
    proposal(&site, &edits, Strategy::SortUnordered, "what has no order of its own is sorted".to_owned())
}

/// A fixed wait before an assertion becomes a bounded wait for what is asserted.
pub(super) fn wait_for_condition(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    for pair in site.function.body.windows(2) {
        let [Stmt::Expr(wait), Stmt::Assert(assert)] = pair else { continue };
        let Expr::Call(call) = wait.value.as_ref() else { continue };
        if last_name(&call.func) != Some("sleep") {
            continue;
        }
        let sleep = site.text(call.func.as_ref());
        let Some(module) = sleep.rsplit_once('.').map(|(module, _)| module) else { continue };
        let (indent, end) = (site.indent(wait.start()), site.line_end());
        let condition = site.text(assert.test.as_ref());
        edits.replace(
            wait.range,
            format!(
                "deadline = {module}.monotonic() + {PATIENCE_S}{end}\
                 {indent}while not ({condition}) and {module}.monotonic() < deadline:{end}\
                 {indent}    {sleep}(0.01)"
            ),
        );
    }
    let explanation =
        format!("the test waits for what it asserts, {PATIENCE_S} s at most, instead of a fixed time");
    proposal(&site, &edits, Strategy::WaitForCondition, explanation)
}

/// Limits of calls that return as soon as they can are made long enough for a busy machine.
pub(super) fn generous_timeout(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    for call in &Contents::of(&site).calls {
        let blocking = matches!(
            last_name(&call.func),
            Some(
                "get"
                    | "put"
                    | "wait"
                    | "wait_for"
                    | "join"
                    | "result"
                    | "acquire"
                    | "recv"
                    | "communicate"
                    | "poll"
                    | "run"
            )
        );
        if let Some(limit) = call.arguments.find_keyword("timeout").filter(|_| blocking)
            && limit.value.is_number_literal_expr()
        {
            edits.replace(limit.value.range(), PATIENCE_S.to_string());
        }
    }
    let explanation = format!("calls that return as soon as they can have {PATIENCE_S} s for it");
    proposal(&site, &edits, Strategy::GenerousTimeout, explanation)
}

/// What is asserted of the time that work takes is measured in the process's own CPU time.
pub(super) fn measure_cpu_time(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    let contents = Contents::of(&site);
    // A test that sleeps or waits measures waiting.
    let waits =
        |call: &&ExprCall| matches!(last_name(&call.func), Some("sleep" | "wait" | "get" | "join" | "recv"));
    if contents.calls.iter().any(waits) {
        return None;
    }
    for call in &contents.calls {
        if let Some([module, "time" | "monotonic" | "perf_counter"]) = dotted(&call.func).as_deref() {
            edits.replace(call.func.range(), format!("{module}.process_time"));
        }
    }
    let explanation = "work is measured in CPU time, which other programs do not lengthen".to_owned();
    proposal(&site, &edits, Strategy::MeasureCpuTime, explanation)
}

/// Texts are UTF-8, in files and in what child processes print.
pub(super) fn say_encoding(context: &Context<'_>) -> Option<Proposal> {
    let site = Site::find(context.tree, &context.finding.test)?;
    let mut edits = Edits::default();
    let mut needed = BTreeSet::new();
    for call in &Contents::of(&site).calls {
        let arguments = &call.arguments;
        let Some(last) =
            arguments.args.iter().map(Ranged::end).chain(arguments.keywords.iter().map(Ranged::end)).max()
        else {
            if matches!(last_name(&call.func), Some("read_text")) {
                edits.insert(arguments.range.end() - TextSize::new(1), "encoding=\"utf-8\"");
            }
            continue;
        };
        match last_name(&call.func) {
            Some("open" | "write_text" | "read_text") if arguments.find_keyword("encoding").is_none() => {
                let binary = arguments.find_argument_value("mode", 1).is_some_and(
                    |mode| matches!(mode, Expr::StringLiteral(mode) if mode.value.to_str().contains('b')),
                );
                let of_os = dotted(&call.func).is_some_and(|names| names.first() == Some(&"os"));
                if !binary && !of_os {
                    edits.insert(last, ", encoding=\"utf-8\"");
                }
            }
            Some("run" | "check_output" | "Popen" | "check_call")
                if arguments.find_keyword("env").is_none() =>
            {
                edits.insert(last, ", env={**os.environ, \"PYTHONUTF8\": \"1\"}");
                needed.extend(names(&["os"]));
            }
            _ => {}
        }
    }
    if !edits.is_empty() {
        import(site.file, &needed, &mut edits);
    }
    proposal(&site, &edits, Strategy::SayEncoding, "texts are UTF-8 whatever the locale".to_owned())
}
