//! Names, attributes, calls and strings that refer to the code under test.

use crate::adapt::imports::{Bindings, Rebound};
use crate::adapt::{Context, Note, line_of};
use crate::changes::{Awaiting, Changes, Reading};
use crate::edits::Edits;
use crate::python::calls::{Ground, rewrite};
use crate::python::scopes::Binding;
use crate::python::symbols::{Kind, Target, join};
use crate::python::types::{Types, View};
use crate::python::walk::{Handler, Into, Place};
use crate::python::{dotted, last_name};
use ruff_python_ast::{
    Expr, ExprAttribute, ExprCall, ExprContext, ExprDict, ExprStringLiteral, Keyword, Stmt, StmtFunctionDef,
};
use ruff_text_size::{Ranged, TextRange, TextSize};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Calls that must be awaited now, or need not be any more.
#[derive(Debug, Default)]
pub(super) struct AsyncCalls<'a> {
    /// In the order of the source.
    pub(super) calls: Vec<AsyncCall<'a>>,
    /// Functions of the file by name that are called by their bare name, with those calls.
    pub(super) by_name: BTreeMap<String, Vec<AsyncCall<'a>>>,
    /// Calls whose result is used by what binds closer than `await`.
    pub(super) tight: HashSet<TextRange>,
    /// Calls that are awaited: where the `await` begins.
    pub(super) awaited: BTreeMap<TextSize, TextSize>,
    /// Calls that are run to their end by `asyncio.run(...)`: all of that, by where the call begins.
    pub(super) run: BTreeMap<TextSize, TextRange>,
    /// How often the file names `asyncio`.
    pub(super) asyncio: usize,
}

/// One such call.
#[derive(Debug, Clone)]
pub(super) struct AsyncCall<'a> {
    /// The call.
    pub(super) range: TextRange,
    /// What changes.
    pub(super) awaiting: Awaiting,
    /// The functions around it, the outermost first.
    pub(super) functions: Vec<&'a StmtFunctionDef>,
    /// Whether a lambda stands between.
    pub(super) in_lambda: bool,
}

/// Rewrites the references of one file.
pub(super) struct References<'a, 'c> {
    context: &'c Context<'a>,
    changes: &'c Changes,
    view: View<'c>,
    types: &'c Types,
    bindings: Bindings,
    edits: Edits,
    notes: BTreeSet<Note>,
    found: AsyncCalls<'a>,
    /// Imports that were added, by what they import.
    added: BTreeSet<String>,
    /// Members that classes of the file itself define: of these names nothing is known by name alone.
    own_members: HashSet<String>,
}

impl<'a, 'c> References<'a, 'c> {
    pub(super) fn new(
        context: &'c Context<'a>,
        changes: &'c Changes,
        view: View<'c>,
        types: &'c Types,
        bindings: Bindings,
    ) -> Self {
        let mut own_members = HashSet::new();
        for stmt in &context.file.parsed.syntax().body {
            if let Stmt::ClassDef(class) = stmt
                && view.base_of(class, crate::python::scopes::MODULE).is_none()
            {
                for inside in &class.body {
                    if let Stmt::FunctionDef(function) = inside {
                        own_members.insert(function.name.id.to_string());
                    }
                }
            }
        }
        Self {
            context,
            changes,
            view,
            types,
            bindings,
            edits: Edits::default(),
            notes: BTreeSet::new(),
            found: AsyncCalls::default(),
            added: BTreeSet::new(),
            own_members,
        }
    }

    pub(super) fn finish(self, edits: &mut Edits, notes: &mut BTreeSet<Note>) -> AsyncCalls<'a> {
        edits.extend(self.edits);
        notes.extend(self.notes);
        self.found
    }

    fn rebound(&self, scope: usize, name: &str) -> Option<&Rebound> {
        let (bound, binding) = self.view.scopes.lookup(scope, name)?;
        match binding {
            Binding::Imported(_) => self.bindings.get(&(bound, name.to_owned())),
            Binding::Local => None,
        }
    }

    fn name(&mut self, name: &ruff_python_ast::ExprName, place: &Place<'_>) {
        let old = name.id.as_str();
        if let Some(now) = self.rebound(place.scope, old) {
            if now.name != old {
                self.edits.replace(name.range, now.name.clone());
            }
            return;
        }
        // What a star import brought.
        if self.view.scopes.lookup(place.scope, old).is_none()
            && let Some(path) = self.view.path(&Expr::Name(name.clone()), place.scope)
            && let Some(now) = self.changes.new_path(&path)
            && let Some((_, new_name)) = now.rsplit_once('.')
            && new_name != old
        {
            self.edits.replace(name.range, new_name);
        }
    }

    /// A chain of attributes that goes back to an import; false if it does not lead into the old code.
    fn chain(&mut self, attribute: &ExprAttribute, whole: &Expr, place: &Place<'_>) -> bool {
        let Some(path) = self.view.path(whole, place.scope) else { return false };
        if self.view.table.resolve(&path).is_none() {
            return false;
        }
        let Some(now) = self.changes.new_path(&path) else { return false };
        let Some(names) = dotted(whole) else { return false };
        let Some(base) = self.rebound(place.scope, names[0]).cloned() else { return false };
        let text = match now.strip_prefix(&base.path).filter(|rest| rest.starts_with('.')) {
            Some(rest) => format!("{}{rest}", base.name),
            None => self.reached_otherwise(&now, &base),
        };
        if text != names.join(".") {
            // Only the last name, if the rest stays: comments and line breaks within the chain stay, too.
            match (text.rsplit_once('.'), names.split_last()) {
                (Some((front, last)), Some((_, rest))) if front == rest.join(".") => {
                    self.edits.replace(attribute.attr.range, last);
                }
                _ => self.edits.replace(attribute.range, text),
            }
        }
        true
    }

    /// How the file can reach `path`, which is not below what `base` stands for: through another import, a
    /// new one if need be.
    fn reached_otherwise(&mut self, path: &str, base: &Rebound) -> String {
        let known = self
            .bindings
            .iter()
            .filter(|((scope, _), _)| *scope == crate::python::scopes::MODULE)
            .filter_map(|(_, rebound)| Some((rebound, path.strip_prefix(&rebound.path)?.strip_prefix('.')?)))
            .min_by_key(|(rebound, rest)| (rest.len(), rebound.name.clone()));
        if let Some((rebound, rest)) = known {
            return format!("{}.{rest}", rebound.name);
        }
        let module = self.module_of(path);
        if self.added.insert(module.clone()) {
            let line = self.context.file.line_end();
            self.edits.insert(base.after.0, format!("{line}{}import {module}", base.after.1));
        }
        path.to_owned()
    }

    /// The module that a path of the new code begins with.
    fn module_of(&self, path: &str) -> String {
        let mut module = path;
        while let Some((parent, _)) = module.rsplit_once('.') {
            if matches!(self.changes.new.resolve(module), Some(Target::Module(_))) {
                break;
            }
            module = parent;
        }
        module.to_owned()
    }

    /// An attribute of a value: by the value's class, or by the name where that leaves no doubt.
    fn member(&mut self, attribute: &ExprAttribute, place: &Place<'_>) {
        let name = attribute.attr.id.as_str();
        if let Some(now) = self.member_name(&attribute.value, name, place)
            && now != name
        {
            self.edits.replace(attribute.attr.range, now);
        }
    }

    fn member_name(&self, receiver: &Expr, name: &str, place: &Place<'_>) -> Option<String> {
        if let Some(class) = self.class_of(receiver, place) {
            let member = self.view.table.member(class, name)?;
            let now = self.changes.matching.symbols.get(&member)?.to;
            return Some(self.changes.new.symbols[now].name.clone());
        }
        // Attributes of modules and of other libraries' objects are none of ours.
        if self.view.path(receiver, place.scope).is_some() || self.own_members.contains(name) {
            return None;
        }
        self.changes.member_of_any(name).map(str::to_owned)
    }

    /// The class that an attribute of `receiver` is looked up in.
    fn class_of(&self, receiver: &Expr, place: &Place<'_>) -> Option<usize> {
        if let Expr::Call(call) = receiver
            && matches!(call.func.as_ref(), Expr::Name(name) if name.id.as_str() == "super")
        {
            return self.view.base_of(place.classes.last()?, place.scope);
        }
        if let Some(symbol) = self.view.symbol(receiver, place.scope)
            && self.view.table.symbols[symbol].kind == Kind::Class
        {
            return Some(symbol);
        }
        self.types.of(receiver, place, self.view)
    }

    /// The symbol of the old code that a call calls.
    fn callee(&self, func: &Expr, place: &Place<'_>) -> Option<usize> {
        if let Some(symbol) = self.view.symbol(func, place.scope) {
            return Some(symbol);
        }
        let Expr::Attribute(attribute) = func else { return None };
        let name = attribute.attr.id.as_str();
        if let Some(class) = self.class_of(&attribute.value, place) {
            return self.view.table.member(class, name);
        }
        if self.view.path(&attribute.value, place.scope).is_some() || self.own_members.contains(name) {
            return None;
        }
        self.changes.only_member(name)
    }

    fn call(&mut self, call: &'a ExprCall, place: &Place<'a>) {
        self.named_by_string(call, place);
        if let Expr::Name(name) = call.func.as_ref()
            && matches!(self.view.scopes.lookup(place.scope, name.id.as_str()), Some((_, Binding::Local)))
        {
            let call = self.async_call(call, Awaiting::Now, place);
            self.found.by_name.entry(name.id.to_string()).or_default().push(call);
        }
        // `partial(f, key=1)` calls `f` later.
        if last_name(&call.func) == Some("partial")
            && let Some(first) = call.arguments.args.first()
            && let Some(symbol) = self.callee(first, place)
        {
            self.keywords(symbol, call);
        }
        if let Expr::Attribute(attribute) = call.func.as_ref()
            && call.arguments.is_empty()
            && self.reading(attribute, &call.func, place) == Some(Reading::Property)
        {
            self.edits.replace(call.arguments.range, "");
        }
        let Some(symbol) = self.callee(&call.func, place) else { return };
        if let Some(change) = self.changes.signature(symbol) {
            let called = self.changes.old_symbol(symbol).name.clone();
            let mut edits = Edits::default();
            let unpacks = call.arguments.args.iter().any(Expr::is_starred_expr)
                || call.arguments.keywords.iter().any(|keyword| keyword.arg.is_none());
            let line = line_of(&self.context.file.text, call.range().start().to_usize());
            let path = self.context.file.path.clone();
            match rewrite(change, call, self.context.file, &mut edits) {
                Some(Ground::Assumed) => {
                    self.notes.insert(Note::ValueAssumed { path, line, called });
                }
                Some(Ground::Shown) => {}
                None if unpacks => {
                    self.keywords(symbol, call);
                    self.notes.insert(Note::CallNotUnderstood { path, line, called });
                }
                None => {}
            }
            self.edits.extend(edits);
        }
        if let Some(awaiting) = self.changes.awaiting(symbol) {
            let call = self.async_call(call, awaiting, place);
            self.found.calls.push(call);
        }
    }

    fn keywords(&mut self, symbol: usize, call: &ExprCall) {
        let Some(change) = self.changes.signature(symbol) else { return };
        let now = |name: &str| change.new_name(name).filter(|now| *now != name).map(str::to_owned);
        let keywords = &call.arguments.keywords;
        // What is unpacked is written there and then: `**dict(name=1)`, `**{"name": 1}`.
        for name in keywords.iter().flat_map(written_there).filter_map(|keyword| keyword.arg.as_ref()) {
            if let Some(now) = now(name.id.as_str()) {
                self.edits.replace(name.range, now);
            }
        }
        let unpacked = keywords.iter().filter(|keyword| keyword.arg.is_none());
        let keys = unpacked.filter_map(|keyword| keyword.value.as_dict_expr()).flat_map(ExprDict::iter_keys);
        for text in keys.flatten().filter_map(Expr::as_string_literal_expr) {
            if let Some(now) = now(text.value.to_str()) {
                self.string(text, text.value.to_str(), &now);
            }
        }
    }

    /// The member that an attribute of a value reads, if that became a property or is none any more. Of a class itself,
    /// both are read alike.
    fn reading(&self, attribute: &ExprAttribute, whole: &Expr, place: &Place<'_>) -> Option<Reading> {
        if self.view.symbol(whole, place.scope).is_some() {
            return None;
        }
        self.changes.reading(self.callee(whole, place)?).filter(|_| attribute.ctx == ExprContext::Load)
    }

    fn async_call(&self, call: &ExprCall, awaiting: Awaiting, place: &Place<'a>) -> AsyncCall<'a> {
        AsyncCall {
            range: call.range(),
            awaiting,
            functions: place.functions.clone(),
            in_lambda: place.lambdas > 0,
        }
    }

    /// `patch.object(x, "name")`, `monkeypatch.setattr(x, "name", ...)`, `getattr(x, "name")`, and modules
    /// named by a single word.
    fn named_by_string(&mut self, call: &ExprCall, place: &Place<'_>) {
        let arguments = &call.arguments;
        let function = last_name(&call.func).unwrap_or("");
        if matches!(function, "object" | "setattr" | "delattr" | "getattr" | "hasattr")
            && let [target, Expr::StringLiteral(text), ..] = arguments.args.as_ref()
        {
            let name = text.value.to_str();
            let now = match self.view.path(target, place.scope) {
                Some(path) => self
                    .changes
                    .new_path(&join(&path, name))
                    .and_then(|now| now.rsplit_once('.').map(|(_, last)| last.to_owned())),
                None => self.member_name(target, name, place),
            };
            if let Some(now) = now {
                self.string(text, name, &now);
            }
        }
        let logger = arguments.keywords.iter().filter(|keyword| {
            keyword
                .arg
                .as_ref()
                .is_some_and(|name| matches!(name.id.as_str(), "logger" | "logger_name" | "name"))
        });
        let first = matches!(function, "getLogger" | "import_module" | "importorskip" | "reload")
            .then(|| arguments.args.first())
            .flatten();
        for value in first.into_iter().chain(logger.map(|keyword| &keyword.value)) {
            if let Expr::StringLiteral(text) = value
                && let name = text.value.to_str()
                && !name.contains('.')
                && let Some(Target::Module(_)) = self.view.table.resolve(name)
                && let Some(now) = self.changes.new_path(name)
            {
                self.string(text, name, &now);
            }
        }
    }

    /// A string that is a dotted path into the old code.
    fn dotted_string(&mut self, text: &ExprStringLiteral) {
        let content = text.value.to_str();
        let names = || content.split('.');
        let is_path = content.len() <= 500
            && content.contains('.')
            && names().all(|name| {
                !name.is_empty()
                    && !name.starts_with(|c: char| c.is_ascii_digit())
                    && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            });
        if !is_path {
            return;
        }
        if let Some((now, front)) = self.changes.imported_path(content) {
            self.string(text, content, &format!("{now}{}", &content[front..]));
            return;
        }
        // The longest front that is known; what hangs on it (an attribute of an imported library, say) stays.
        let mut front = content;
        loop {
            if self.view.table.resolve(front).is_some() {
                break;
            }
            match front.rsplit_once('.') {
                Some((shorter, _)) if shorter.contains('.') => front = shorter,
                _ => return,
            }
        }
        if let Some(now) = self.changes.new_path(front)
            && now != front
        {
            self.string(text, content, &format!("{now}{}", &content[front.len()..]));
        }
    }

    fn string(&mut self, text: &ExprStringLiteral, old: &str, new: &str) {
        if old == new || text.value.is_implicit_concatenated() {
            return;
        }
        let range = text.range;
        let source = &self.context.file.text[range.start().to_usize()..range.end().to_usize()];
        if let Some(at) = source.find(old) {
            let start = range.start() + TextSize::try_from(at).expect("files are bounded");
            let end = start + TextSize::try_from(old.len()).expect("files are bounded");
            self.edits.replace(TextRange::new(start, end), new);
        }
    }

    /// A method of a test's own class that overrides a renamed one.
    fn overriding(&mut self, function: &StmtFunctionDef, place: &Place<'_>) {
        let Some(class) = place.classes.last() else { return };
        if place.functions.iter().any(|around| class.range.contains_range(around.range)) {
            return;
        }
        let Some(base) = self.view.base_of(class, place.scope) else { return };
        let name = function.name.id.as_str();
        if let Some(member) = self.view.table.member(base, name)
            && let Some(now) = self.changes.matching.symbols.get(&member)
        {
            let now = &self.changes.new.symbols[now.to].name;
            if now != name {
                self.edits.replace(function.name.range, now.clone());
            }
        }
    }
}

/// The keywords that one stands for: those of `**dict(...)`, else itself.
fn written_there(keyword: &Keyword) -> &[Keyword] {
    match (&keyword.arg, &keyword.value) {
        (None, Expr::Call(dict)) if last_name(&dict.func) == Some("dict") => &dict.arguments.keywords,
        _ => std::slice::from_ref(keyword),
    }
}

impl<'a> Handler<'a> for References<'a, '_> {
    fn expr(&mut self, expr: &'a Expr, place: &Place<'a>) -> Into {
        match expr {
            Expr::Name(name) if name.ctx == ExprContext::Load => {
                self.found.asyncio += usize::from(name.id.as_str() == "asyncio");
                self.name(name, place);
            }
            Expr::Attribute(attribute) => {
                if let Expr::Call(call) = attribute.value.as_ref() {
                    self.found.tight.insert(call.range());
                }
                if self.chain(attribute, expr, place) {
                    return Into::Past;
                }
                if self.reading(attribute, expr, place) == Some(Reading::Called) {
                    self.edits.insert(attribute.range.end(), "()");
                }
                self.member(attribute, place);
            }
            Expr::Subscript(subscript) => {
                if let Expr::Call(call) = subscript.value.as_ref() {
                    self.found.tight.insert(call.range());
                }
            }
            Expr::Await(awaited) => {
                if let Expr::Call(call) = awaited.value.as_ref() {
                    self.found.awaited.insert(call.range().start(), awaited.range.start());
                }
            }
            Expr::Call(call) => {
                if let Expr::Call(inner) = call.func.as_ref() {
                    self.found.tight.insert(inner.range());
                }
                if dotted(&call.func).is_some_and(|names| names == ["asyncio", "run"])
                    && call.arguments.keywords.is_empty()
                    && let [Expr::Call(inner)] = call.arguments.args.as_ref()
                {
                    self.found.run.insert(inner.range().start(), call.range());
                }
                self.call(call, place);
            }
            Expr::StringLiteral(text) => self.dotted_string(text),
            _ => {}
        }
        Into::Inside
    }

    fn stmt(&mut self, stmt: &'a Stmt, place: &Place<'a>) {
        if let Stmt::FunctionDef(function) = stmt {
            self.overriding(function, place);
        }
    }
}
