//! Calls that must be awaited now, or need not be any more, and the functions around them.

use crate::adapt::references::{AsyncCall, AsyncCalls};
use crate::adapt::{Context, Note, line_of};
use crate::changes::Awaiting;
use crate::edits::Edits;
use crate::python::last_name;
use crate::python::types::is_fixture;
use crate::tree::SourceTree;
use ruff_python_ast::token::TokenKind;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, Stmt, StmtFunctionDef};
use ruff_text_size::{Ranged, TextRange, TextSize};
use std::collections::{BTreeMap, BTreeSet};

/// How the project's tests run coroutines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncStyle {
    /// Tests that are coroutines are marked (`pytest.mark.asyncio`).
    Marked,
    /// Tests that are coroutines are run as they are (`asyncio_mode = auto`).
    Auto,
    /// No plug-in is known: `asyncio.run(...)` around each call.
    Run,
}

impl AsyncStyle {
    /// What the files that configure a test run say; `file` gives the text of one at the root.
    pub fn of_configuration(file: impl Fn(&str) -> Option<String>) -> Self {
        let says_auto = |text: String| {
            text.lines().any(|line| line.trim_start().starts_with("asyncio_mode") && line.contains("auto"))
        };
        let auto = ["pyproject.toml", "pytest.ini", "setup.cfg", "tox.ini"]
            .iter()
            .any(|name| file(name).is_some_and(says_auto));
        if auto { AsyncStyle::Auto } else { AsyncStyle::Run }
    }

    /// What the tests themselves show goes before what was said.
    pub(super) fn seen_in(self, tests: &SourceTree) -> Self {
        let marked = tests.test_files().any(|file| file.text.contains("mark.asyncio"));
        if self == AsyncStyle::Run && marked { AsyncStyle::Marked } else { self }
    }
}

/// Rewrites the calls, and makes functions coroutines or plain ones where that follows.
pub(super) fn rewrite(
    context: &Context<'_>,
    mut found: AsyncCalls<'_>,
    style: AsyncStyle,
    edits: &mut Edits,
    notes: &mut BTreeSet<Note>,
) {
    let text = &context.file.text;
    let mut needed = Needed::default();
    let mut freed: BTreeMap<TextSize, (&StmtFunctionDef, u32)> = BTreeMap::new();
    let mut open: Vec<AsyncCall<'_>> = std::mem::take(&mut found.calls);
    let mut made_async: BTreeSet<TextSize> = BTreeSet::new();
    let mut unwrapped = 0;
    while let Some(call) = open.pop() {
        match call.awaiting {
            Awaiting::Before => {
                if let Some(&start) = found.awaited.get(&call.range.start()) {
                    edits.replace(TextRange::new(start, call.range.start()), "");
                    if let Some(function) = call.functions.last() {
                        freed.entry(function.range.start()).or_insert((function, 0)).1 += 1;
                    }
                } else if let Some(around) = found.run.get(&call.range.start()) {
                    edits.replace(TextRange::new(around.start(), call.range.start()), "");
                    edits.replace(TextRange::new(call.range.end(), around.end()), "");
                    unwrapped += 1;
                }
            }
            Awaiting::Now => {
                if found.awaited.contains_key(&call.range.start()) {
                    continue;
                }
                let function = call.functions.last().copied();
                let runs = style == AsyncStyle::Run && function.is_none_or(|function| !function.is_async);
                if runs || function.is_none() {
                    edits.insert(call.range.start(), "asyncio.run(");
                    edits.insert(call.range.end(), ")");
                    needed.asyncio = true;
                    continue;
                }
                let Some(function) = function.filter(|_| !call.in_lambda) else {
                    let line = line_of(text, call.range.start().to_usize());
                    notes.insert(Note::CannotAwait { path: context.file.path.clone(), line });
                    continue;
                };
                if found.tight.contains(&call.range) {
                    edits.insert(call.range.start(), "(await ");
                    edits.insert(call.range.end(), ")");
                } else {
                    edits.insert(call.range.start(), "await ");
                }
                if !function.is_async && made_async.insert(function.range.start()) {
                    make_async(context, function, style, edits, &mut needed);
                    // Whoever calls it by name must await it in turn.
                    if !is_test(function) && !is_fixture(function) {
                        open.extend(found.by_name.remove(function.name.id.as_str()).unwrap_or_default());
                    }
                }
            }
        }
    }
    for (function, count) in freed.into_values() {
        let mut left = Awaits(0);
        function.body.iter().for_each(|stmt| left.visit_stmt(stmt));
        if left.0 <= count {
            make_plain(context, function, edits);
        }
    }
    if unwrapped > 0 && unwrapped == found.asyncio {
        forget_asyncio(context, edits);
    }
    needed.import(context, edits);
}

/// Takes `import asyncio` away, where nothing uses it any more.
fn forget_asyncio(context: &Context<'_>, edits: &mut Edits) {
    let text = &context.file.text;
    for stmt in &context.file.parsed.syntax().body {
        let Stmt::Import(import) = stmt else { continue };
        let [only] = import.names.as_slice() else { continue };
        if only.name.id.as_str() == "asyncio" && only.asname.is_none() {
            let end = import.range.end().to_usize();
            let rest = &text[end..];
            let line = rest.find('\n').map_or(rest.len(), |at| at + 1);
            if rest[..line].trim().is_empty() {
                let at = TextSize::try_from(end + line).expect("files are bounded");
                edits.replace(TextRange::new(import.range.start(), at), "");
            }
        }
    }
}

fn is_test(function: &StmtFunctionDef) -> bool {
    function.name.id.starts_with("test")
}

fn make_async(
    context: &Context<'_>,
    function: &StmtFunctionDef,
    style: AsyncStyle,
    edits: &mut Edits,
    needed: &mut Needed,
) {
    let Some(keyword) = keyword_of(context, function) else { return };
    let marked =
        function.decorator_list.iter().any(|decorator| last_name(&decorator.expression) == Some("asyncio"));
    if is_test(function) && style == AsyncStyle::Marked && !marked {
        let text = &context.file.text;
        let line = text[..keyword.to_usize()].rfind('\n').map_or(0, |at| at + 1);
        let end = context.file.line_end();
        edits.insert(keyword, format!("@pytest.mark.asyncio{end}{}async ", &text[line..keyword.to_usize()]));
        needed.pytest = true;
    } else {
        edits.insert(keyword, "async ");
    }
}

fn make_plain(context: &Context<'_>, function: &StmtFunctionDef, edits: &mut Edits) {
    let Some(def) = keyword_of(context, function) else { return };
    let text = &context.file.text;
    // `def` is where the keyword was found; `async` stands before it.
    if let Some(at) = text[..def.to_usize()].rfind("async") {
        let start = TextSize::try_from(at).expect("files are bounded");
        edits.replace(TextRange::new(start, def), "");
    }
    for decorator in &function.decorator_list {
        if last_name(&decorator.expression) == Some("asyncio") {
            let start = decorator.range.start().to_usize();
            let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
            let end = text[start..].find('\n').map_or(text.len(), |at| start + at + 1);
            let at = |byte: usize| TextSize::try_from(byte).expect("files are bounded");
            edits.replace(TextRange::new(at(line), at(end)), "");
        }
    }
}

/// Where the `def` of a function stands.
fn keyword_of(context: &Context<'_>, function: &StmtFunctionDef) -> Option<TextSize> {
    let before = TextRange::new(function.range.start(), function.name.range.start());
    let tokens = context.file.parsed.tokens().in_range(before);
    tokens.iter().rev().find(|token| token.kind() == TokenKind::Def).map(Ranged::start)
}

#[derive(Debug, Default)]
struct Needed {
    asyncio: bool,
    pytest: bool,
}

impl Needed {
    /// Puts missing imports before the first import of the file, or at its beginning.
    fn import(&self, context: &Context<'_>, edits: &mut Edits) {
        let body = &context.file.parsed.syntax().body;
        let end = context.file.line_end();
        let is_future = |stmt: &Stmt| matches!(stmt, Stmt::ImportFrom(import) if import.module.as_ref().is_some_and(|module| module.id.as_str() == "__future__"));
        let is_import =
            |stmt: &&Stmt| matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_)) && !is_future(stmt);
        let at = body
            .iter()
            .find(is_import)
            .or_else(|| body.iter().find(|stmt| !is_future(stmt) && !is_docstring(stmt)))
            .map_or(TextSize::new(0), Ranged::start);
        for (wanted, name) in [(self.asyncio, "asyncio"), (self.pytest, "pytest")] {
            if wanted && !context.scopes.binds(name) {
                edits.insert(at, format!("import {name}{end}"));
            }
        }
    }
}

fn is_docstring(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Expr(expr) if expr.value.is_string_literal_expr())
}

/// How often a body waits.
struct Awaits(u32);

impl<'a> Visitor<'a> for Awaits {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => return,
            Stmt::For(each) if each.is_async => self.0 += 1,
            Stmt::With(with) if with.is_async => self.0 += 1,
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Await(_) => self.0 += 1,
            Expr::ListComp(comp) if comp.generators.iter().any(|generator| generator.is_async) => self.0 += 1,
            _ => {}
        }
        crate::python::deep(|| walk_expr(self, expr));
    }
}
