//! What callers of the old code must know about the new: the new path of everything they can name, and how
//! calls and members changed.

use crate::matching::Matching;
use crate::python::calls::{arguments, bind};
use crate::python::dotted;
use crate::python::scopes::{Binding, Scopes};
use crate::python::signature::{Param, SignatureChange, is_portable};
use crate::python::symbols::{Kind, Symbol, SymbolTable, Target, join, package_of};
use crate::python::walk::{Handler, Into, Place, walk};
use crate::tree::SourceTree;
use ruff_python_ast::Expr;
use ruff_text_size::Ranged;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Whether calling a function gives a coroutine now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaiting {
    /// It does, and did not before.
    Now,
    /// It did before.
    Before,
}

/// How a member that is a property in one of the trees gives its value in the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It must be called; it was a property.
    Called,
    /// It is a property; it was called.
    Property,
}

/// The difference between two trees as their callers see it.
#[derive(Debug)]
pub struct Changes {
    /// What the old code defined.
    pub old: SymbolTable,
    /// What the new code defines.
    pub new: SymbolTable,
    /// Which is which.
    pub matching: Matching,
    signatures: HashMap<usize, SignatureChange>,
    members: HashMap<String, Option<String>>,
}

/// One thing that changed, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What it was called.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a symbol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is called this now, in the same place.
    Renamed(String),
    /// It is there now.
    Moved(String),
    /// Its parameters are others: the old and the new list.
    Signature(String, String),
    /// Its calls must be awaited now.
    NowAsync,
    /// Its calls give their result at once now.
    NoLongerAsync,
    /// It was a property, and must be called now.
    NowCalled,
    /// It is a property now.
    NowProperty,
    /// It is gone, and it is not known what took its place.
    Gone,
}

impl Changes {
    /// Compares the code under test of two trees.
    pub fn between(old_tree: &SourceTree, new_tree: &SourceTree) -> Self {
        let (old, new) = (SymbolTable::read(old_tree), SymbolTable::read(new_tree));
        let matching = Matching::between(&old, &new);
        let mut changes = Self { old, new, matching, signatures: HashMap::new(), members: HashMap::new() };
        changes.signatures = changes.compare_signatures();
        changes.learn_values(new_tree);
        changes.members = changes.fates_of_members();
        changes
    }

    /// Whether callers need to know nothing.
    pub fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// Everything that changed, for people; members that moved with their class are not repeated.
    pub fn list(&self) -> Vec<Change> {
        let mut list = BTreeSet::new();
        for (from, to) in &self.matching.modules {
            if from != to {
                list.insert(Change { path: from.clone(), kind: ChangeKind::Moved(to.clone()) });
            }
        }
        for (&from, to) in &self.matching.symbols {
            let (before, after) = (&self.old.symbols[from], &self.new.symbols[to.to]);
            let path = before.path();
            let moved_with = self.matching.modules.get(&before.module) == Some(&after.module);
            if before.name != after.name && (before.is_member() || moved_with) {
                list.insert(Change { path: path.clone(), kind: ChangeKind::Renamed(after.name.clone()) });
            } else if !before.is_member() && !moved_with {
                list.insert(Change { path: path.clone(), kind: ChangeKind::Moved(after.path()) });
            }
            list.extend(self.uses(from).into_iter().map(|kind| Change { path: path.clone(), kind }));
        }
        for &gone in &self.matching.lost {
            let symbol = &self.old.symbols[gone];
            if symbol.kind != Kind::Variable && !symbol.name.starts_with('_') {
                list.insert(Change { path: symbol.path(), kind: ChangeKind::Gone });
            }
        }
        list.into_iter().collect()
    }

    /// The new path of what `path` stood for; nothing if it stood for nothing here, or is gone.
    pub fn new_path(&self, path: &str) -> Option<String> {
        match self.old.resolve(path)? {
            Target::Module(module) => {
                let now = self.matching.modules.get(&module)?;
                let same = self.new.resolve(path) == Some(Target::Module(now.clone()));
                Some(if same { path.to_owned() } else { now.clone() })
            }
            Target::Symbol(symbol) => {
                let now = self.matching.symbols.get(&symbol)?.to;
                let is = |path: &str| self.new.resolve(path) == Some(Target::Symbol(now));
                if is(path) {
                    return Some(path.to_owned());
                }
                let name = &self.new.symbols[now].name;
                let (parent, _) = path.rsplit_once('.')?;
                let around = self.new_path(parent);
                if let Some(around) = around.filter(|around| is(&join(around, name))) {
                    return Some(join(&around, name));
                }
                Some(self.shortest_path(now))
            }
        }
    }

    /// Where the name that `path` begins with can be replaced now, if an old module had imported it: in that module, or
    /// in the only one that took some of its code and imports the same. With the length of that front of `path`.
    /// What else hangs on it is not looked at: it may be another library's.
    pub fn imported_path(&self, path: &str) -> Option<(String, usize)> {
        let mut fronts = path.rmatch_indices('.').map(|(at, _)| at);
        let end = fronts.find(|&at| self.old.modules.contains_key(&path[..at]))?;
        let (module, name) = (&path[..end], path[end + 1..].split('.').next()?);
        if self.old.defined(&join(module, name)).is_some() {
            return None;
        }
        let stands_for = self.old.modules[module].aliases.get(name)?;
        let now = self.new_path(stands_for);
        let imported_by = |module: &str| {
            let aliases = &self.new.modules.get(module)?.aliases;
            let is = |path: &String| path == stands_for || Some(path) == now.as_ref();
            let same_name = aliases.get(name).filter(|path| is(path)).map(|_| name);
            let name = same_name
                .or_else(|| aliases.iter().find(|(_, path)| is(path)).map(|(name, _)| name.as_str()))?;
            Some(join(module, name))
        };
        let front = end + 1 + name.len();
        if let Some(here) = self.matching.modules.get(module).and_then(|module| imported_by(module)) {
            return Some((here, front));
        }
        let took: BTreeSet<&str> = self
            .matching
            .symbols
            .iter()
            .filter(|(from, _)| self.old.symbols[**from].module == module)
            .map(|(_, to)| self.new.symbols[to.to].module.as_str())
            .collect();
        let mut found = took.into_iter().filter_map(imported_by);
        let only = found.next()?;
        found.next().is_none().then_some((only, front))
    }

    /// The shortest path by which the new symbol can be imported from a package above it.
    fn shortest_path(&self, symbol: usize) -> String {
        let symbol_is = &self.new.symbols[symbol];
        let own = symbol_is.path();
        if symbol_is.is_member() || !symbol_is.module.split('.').any(|part| part.starts_with('_')) {
            return own;
        }
        let mut package = symbol_is.module.as_str();
        let mut best = own;
        while let Some((above, _)) = package.rsplit_once('.') {
            let path = join(above, &symbol_is.name);
            if self.new.resolve(&path) == Some(Target::Symbol(symbol)) {
                best = path;
            }
            package = above;
        }
        best
    }

    /// How calls of the function (or class) change.
    pub fn signature(&self, symbol: usize) -> Option<&SignatureChange> {
        self.signatures.get(&self.old.called(symbol)?)
    }

    /// How the symbol itself is used otherwise now: awaited or not, as a property or not, with other parameters.
    pub fn uses(&self, symbol: usize) -> Vec<ChangeKind> {
        let awaiting = self.awaiting(symbol).map(|awaiting| match awaiting {
            Awaiting::Now => ChangeKind::NowAsync,
            Awaiting::Before => ChangeKind::NoLongerAsync,
        });
        let reading = self.reading(symbol).map(|reading| match reading {
            Reading::Called => ChangeKind::NowCalled,
            Reading::Property => ChangeKind::NowProperty,
        });
        let signature = self
            .signatures
            .get(&symbol)
            .map(|change| ChangeKind::Signature(change.old.names(), change.new.names()));
        [awaiting, reading, signature].into_iter().flatten().collect()
    }

    /// Whether calls of the function must be awaited now, or need not be any more.
    pub fn awaiting(&self, symbol: usize) -> Option<Awaiting> {
        let now = self.matching.symbols.get(&symbol)?.to;
        let (before, after) = (&self.old.symbols[symbol], &self.new.symbols[now]);
        match (before.is_async, after.is_async) {
            (false, true) => Some(Awaiting::Now),
            (true, false) => Some(Awaiting::Before),
            _ => None,
        }
    }

    /// Whether the member became a property, or is none any more. A method that asks for more than its object could be
    /// no property, and is left alone.
    pub fn reading(&self, symbol: usize) -> Option<Reading> {
        let now = self.matching.symbols.get(&symbol)?.to;
        let (before, after) = (&self.old.symbols[symbol], &self.new.symbols[now]);
        let asks_nothing = |method: &Symbol| {
            method.kind == Kind::Function
                && method.is_member()
                && method
                    .signature
                    .as_ref()
                    .is_some_and(|signature| !signature.params.iter().any(Param::is_required))
        };
        match (before.is_property, after.is_property) {
            (true, false) if asks_nothing(after) => Some(Reading::Called),
            (false, true) if asks_nothing(before) => Some(Reading::Property),
            _ => None,
        }
    }

    /// What the member `name` of any class is called now, if all members of that name are called the same
    /// now, and nothing else is called `name`.
    pub fn member_of_any(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.as_deref()
    }

    /// The only member of the old code that is called `name`.
    pub fn only_member(&self, name: &str) -> Option<usize> {
        let mut found = self
            .old
            .symbols
            .iter()
            .enumerate()
            .filter(|(_, symbol)| symbol.is_member() && symbol.name == name)
            .map(|(place, _)| place);
        let only = found.next()?;
        (found.next().is_none() && !is_common(name)).then_some(only)
    }

    fn compare_signatures(&self) -> HashMap<usize, SignatureChange> {
        let mut found = HashMap::new();
        for (&from, to) in &self.matching.symbols {
            let (Some(from), Some(to)) = (self.old.called(from), self.new.called(to.to)) else { continue };
            let (before, after) = (&self.old.symbols[from], &self.new.symbols[to]);
            let (Some(old), Some(new)) = (&before.signature, &after.signature) else { continue };
            if let Some(change) = SignatureChange::between(old, new, &before.bag, &after.bag) {
                found.insert(from, change);
            }
        }
        found
    }

    /// Which values the new code itself gives for parameters that it added.
    fn learn_values(&mut self, tree: &SourceTree) {
        let mut wanted: HashMap<usize, Vec<usize>> = HashMap::new();
        for (&from, change) in &self.signatures {
            let Some(to) = self.new_called(from) else { continue };
            if !change.added.is_empty() {
                wanted.entry(to).or_default().push(from);
            }
        }
        if wanted.is_empty() {
            return;
        }
        let mut seen: HashMap<(usize, usize), BTreeMap<String, u32>> = HashMap::new();
        for file in tree.code_files() {
            let module = tree.module_name(&file.path);
            let scopes = Scopes::read(&file.parsed.syntax().body, &package_of(file, &module));
            let mut sites = CallSites {
                table: &self.new,
                scopes: &scopes,
                file,
                module: &module,
                wanted: &wanted,
                seen: &mut seen,
            };
            walk(&file.parsed.syntax().body, &scopes, &mut sites);
        }
        let mut learned: Vec<(usize, usize, String)> = Vec::new();
        for (to, origins) in &wanted {
            for from in origins {
                for (place, _) in &self.signatures[from].added {
                    let most = seen
                        .get(&(*to, *place))
                        .and_then(|values| values.iter().max_by_key(|(_, count)| **count));
                    if let Some((value, _)) = most {
                        learned.push((*from, *place, value.clone()));
                    }
                }
            }
        }
        for (from, place, value) in learned {
            let change = self.signatures.get_mut(&from).expect("it was read from there");
            for added in &mut change.added {
                if added.0 == place {
                    added.1 = Some(value.clone());
                }
            }
        }
    }

    /// The new function whose parameters calls of the old one fill.
    fn new_called(&self, from: usize) -> Option<usize> {
        if let Some(to) = self.matching.symbols.get(&from) {
            return self.new.called(to.to);
        }
        None
    }

    fn fates_of_members(&self) -> HashMap<String, Option<String>> {
        let new_members: BTreeSet<&str> = self
            .new
            .symbols
            .iter()
            .filter(|symbol| symbol.is_member())
            .map(|symbol| symbol.name.as_str())
            .collect();
        let mut fates: HashMap<String, Option<String>> = HashMap::new();
        for (place, symbol) in self.old.symbols.iter().enumerate().filter(|(_, symbol)| symbol.is_member()) {
            let now = self.matching.symbols.get(&place).map(|found| self.new.symbols[found.to].name.clone());
            let fate = now.filter(|now| {
                *now != symbol.name && !new_members.contains(symbol.name.as_str()) && !is_common(&symbol.name)
            });
            match fates.get_mut(&symbol.name) {
                None => {
                    fates.insert(symbol.name.clone(), fate);
                }
                Some(known) if *known != fate => *known = None,
                Some(_) => {}
            }
        }
        fates
    }

    /// A symbol of the old code.
    pub fn old_symbol(&self, place: usize) -> &Symbol {
        &self.old.symbols[place]
    }
}

/// Names that attributes of Python's own objects have: they say nothing about whose member is meant.
fn is_common(name: &str) -> bool {
    const COMMON: &[&str] = &[
        "add",
        "append",
        "args",
        "clear",
        "close",
        "copy",
        "count",
        "data",
        "decode",
        "discard",
        "encode",
        "endswith",
        "errors",
        "extend",
        "find",
        "flush",
        "format",
        "get",
        "group",
        "groups",
        "index",
        "insert",
        "items",
        "join",
        "keys",
        "lower",
        "match",
        "mode",
        "name",
        "open",
        "parent",
        "path",
        "pop",
        "popitem",
        "put",
        "read",
        "readline",
        "remove",
        "replace",
        "reverse",
        "search",
        "seek",
        "send",
        "set",
        "setdefault",
        "sort",
        "split",
        "start",
        "startswith",
        "stop",
        "strip",
        "suffix",
        "title",
        "union",
        "update",
        "upper",
        "value",
        "values",
        "write",
    ];
    COMMON.contains(&name) || (name.starts_with("__") && name.ends_with("__"))
}

struct CallSites<'a, 's> {
    table: &'s SymbolTable,
    scopes: &'s Scopes,
    file: &'a crate::tree::SourceFile,
    module: &'s str,
    wanted: &'s HashMap<usize, Vec<usize>>,
    seen: &'s mut HashMap<(usize, usize), BTreeMap<String, u32>>,
}

impl CallSites<'_, '_> {
    fn callee(&self, func: &Expr, place: &Place<'_>) -> Option<usize> {
        let names = dotted(func)?;
        let base = match self.scopes.lookup(place.scope, names[0]) {
            Some((_, Binding::Imported(paths))) => paths.first()?.clone(),
            Some((_, Binding::Local)) if names[0] == "self" || names[0] == "cls" => {
                let class = place.classes.first()?;
                join(self.module, class.name.id.as_str())
            }
            Some((_, Binding::Local)) => join(self.module, names[0]),
            None => return None,
        };
        let mut path = base;
        for name in &names[1..] {
            path = join(&path, name);
        }
        match self.table.resolve(&path)? {
            Target::Symbol(symbol) => self.table.called(symbol),
            Target::Module(_) => None,
        }
    }
}

impl<'a> Handler<'a> for CallSites<'a, '_> {
    fn expr(&mut self, expr: &'a Expr, place: &Place<'a>) -> Into {
        let Expr::Call(call) = expr else { return Into::Inside };
        // Methods are found by their name where the receiver is not known: what they are given is a hint
        // either way.
        let callee = self.callee(&call.func, place).or_else(|| {
            let Expr::Attribute(attribute) = call.func.as_ref() else { return None };
            let mut named = self.wanted.keys().copied().filter(|&symbol| {
                let symbol = &self.table.symbols[symbol];
                symbol.is_member() && symbol.name == attribute.attr.id.as_str()
            });
            let only = named.next()?;
            named.next().is_none().then_some(only)
        });
        if let Some(symbol) = callee
            && self.wanted.contains_key(&symbol)
            && let Some(signature) = &self.table.symbols[symbol].signature
            && let Some(arguments) = arguments(call, self.file)
            && let Some(places) = bind(signature, &arguments)
        {
            for (argument, place) in arguments.iter().zip(places) {
                if is_portable(argument.value) {
                    let range = argument.value.range();
                    let text = &self.file.text[range.start().to_usize()..range.end().to_usize()];
                    *self.seen.entry((symbol, place)).or_default().entry(text.to_owned()).or_default() += 1;
                }
            }
        }
        Into::Inside
    }
}
