//! Which changed symbols a test reaches: those that it names itself, then those that the code it names names, step by
//! step. What code does is not followed, only what it says; so more is reached than is run.

use super::Difference;
use crate::changes::ChangeKind;
use crate::flaky::Site;
use crate::python::dotted;
use crate::python::scopes::{Binding, Scopes};
use crate::python::symbols::{Bag, Kind, SymbolTable, Target, body_of, join, package_of};
use crate::python::walk::{Handler, Into, Place, walk};
use crate::tree::{SourceTree, is_test_path};
use ruff_python_ast::{Expr, Stmt, StmtFunctionDef};
use ruff_text_size::{Ranged, TextSize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Steps from the test.
const MAX_DISTANCE: u32 = 4;
/// From a test to helpers of its file, and on to theirs.
const MAX_HELPER_STEPS: usize = 4;
/// Symbols that are looked at.
const MAX_SYMBOLS: usize = 5_000;

/// A changed symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    /// Steps from the test; 0: the test names it itself.
    pub(super) distance: u32,
    /// Its path in the new tree.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// How it is used now, if otherwise than before.
    pub(super) use_now: Option<ChangeKind>,
    /// Whether it is used otherwise and does what it did.
    pub(super) interface: bool,
    /// Whether what it raises changed, or can have.
    pub(super) raises: bool,
    /// Tokens that are in the old definition and not in the new one, or the other way about: literals.
    pub(super) literals: Vec<String>,
    /// Its place in the old table.
    pub(super) old: Option<usize>,
}

/// The changed symbols within reach of `test`, the nearest first.
pub(super) fn changed_within_reach(test: &str, difference: &Difference<'_>) -> Vec<Changed> {
    let changed = changed_symbols(difference);
    let distances = distances(test, difference.new, &difference.changes.new);
    let mut found: Vec<Changed> = changed
        .into_iter()
        .filter_map(|(place, mut change)| {
            change.distance = *distances.get(&place)?;
            Some(change)
        })
        .collect();
    // A class changes with its members: they say it more exactly.
    let owners: BTreeSet<String> =
        found.iter().filter_map(|change| Some(change.path.rsplit_once('.')?.0.to_owned())).collect();
    found.retain(|change| change.kind != Kind::Class || !owners.contains(&change.path));
    found.sort_by(|a, b| (a.distance, &a.path).cmp(&(b.distance, &b.path)));
    found
}

/// The symbols of `table`, which is of `tree`, within reach of `test`, the nearest first.
pub(crate) fn within_reach_of(test: &str, tree: &SourceTree, table: &SymbolTable) -> Vec<usize> {
    let mut near: Vec<(u32, usize)> =
        distances(test, tree, table).into_iter().map(|(place, distance)| (distance, place)).collect();
    near.sort_unstable();
    near.into_iter().map(|(_, place)| place).collect()
}

/// How many steps each symbol within reach of `test` is away from it.
fn distances(test: &str, tree: &SourceTree, table: &SymbolTable) -> BTreeMap<usize, u32> {
    let Some(site) = Site::find(tree, test) else { return BTreeMap::new() };
    let module = tree.module_name(&site.file.path);
    let scopes = Scopes::read(&site.file.parsed.syntax().body, &package_of(site.file, &module));
    let mut named = Named::default();
    let mut looked_at = BTreeSet::from([site.function.name.range().start()]);
    for _ in 0..MAX_HELPER_STEPS {
        let nothing = Named::default();
        let mut look =
            Look { table, scopes: &scopes, module: &module, looked_at: &looked_at, named: nothing };
        walk(&site.file.parsed.syntax().body, &scopes, &mut look);
        named = look.named;
        let before = looked_at.len();
        let helpers = functions(&site.file.parsed.syntax().body);
        looked_at.extend(
            helpers
                .filter(|function| named.own.contains(function.name.id.as_str()))
                .map(|function| function.name.range().start()),
        );
        if looked_at.len() == before {
            break;
        }
    }
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, symbol) in table.symbols.iter().enumerate() {
        by_name.entry(&symbol.name).or_default().push(place);
    }
    let mut distances: BTreeMap<usize, u32> = named.symbols.iter().map(|&place| (place, 0)).collect();
    // A member is named by its attribute: whose it is, is not known.
    for name in &named.names {
        for &place in by_name.get(name.as_str()).into_iter().flatten() {
            if table.symbols[place].is_member() {
                distances.entry(place).or_insert(0);
            }
        }
    }
    let mut layer: Vec<usize> = distances.keys().copied().collect();
    for distance in 1..=MAX_DISTANCE {
        let mut next = Vec::new();
        for place in layer {
            let symbol = &table.symbols[place];
            for token in symbol.bag.keys() {
                for &to in by_name.get(token.as_str()).into_iter().flatten() {
                    if distances.len() < MAX_SYMBOLS && !distances.contains_key(&to) {
                        distances.insert(to, distance);
                        next.push(to);
                    }
                }
            }
        }
        layer = next;
    }
    distances
}

/// Symbols of the new tree whose definitions differ from their old selves.
fn changed_symbols(difference: &Difference<'_>) -> Vec<(usize, Changed)> {
    let changes = difference.changes;
    let renamed: HashMap<&str, &str> = changes
        .matching
        .symbols
        .iter()
        .map(|(&from, to)| {
            (changes.old.symbols[from].name.as_str(), changes.new.symbols[to.to].name.as_str())
        })
        .filter(|(before, after)| before != after)
        .collect();
    let mut found = Vec::new();
    for (&from, to) in &changes.matching.symbols {
        let (before, after) = (&changes.old.symbols[from], &changes.new.symbols[to.to]);
        // Code that follows a new name does what it did.
        let same =
            before.bag == after.bag || followed(&before.bag, |name| renamed.get(name).copied()) == after.bag;
        let uses = if before.kind == Kind::Function { changes.uses(from) } else { Vec::new() };
        let use_now = uses.into_iter().next();
        if (same && use_now.is_none()) || is_test_path(&after.file) {
            continue;
        }
        let tokens = |one: &Bag, other: &Bag| {
            one.iter()
                .filter(|(token, count)| other.get(*token) != Some(count))
                .map(|(token, _)| token.clone())
                .collect::<Vec<_>>()
        };
        let differing: Vec<String> =
            tokens(&before.bag, &after.bag).into_iter().chain(tokens(&after.bag, &before.bag)).collect();
        let is_literal = |token: &String| {
            token.len() > 1
                && token.starts_with(|first: char| first.is_ascii_digit() || first == '"' || first == '\'')
        };
        let literals = differing
            .iter()
            .filter(|token| is_literal(token))
            .map(|token| token.trim_matches(['"', '\'']).to_owned())
            .filter(|token| token.len() > 1)
            .collect();
        found.push((
            to.to,
            Changed {
                distance: 0,
                path: after.path(),
                kind: after.kind,
                interface: use_now.is_some() && (same || does_the_same(from, to.to, &renamed, difference)),
                use_now,
                raises: after.bag.contains_key("raise") || before.bag.contains_key("raise"),
                literals,
                old: Some(from),
            },
        ));
    }
    found
}

/// Whether the bodies of two functions are the same, but for what is called otherwise now: other code, and their own
/// parameters.
fn does_the_same(from: usize, to: usize, renamed: &HashMap<&str, &str>, difference: &Difference<'_>) -> bool {
    let changes = difference.changes;
    let bodies = (
        body_of(difference.old, &changes.old.symbols[from]),
        body_of(difference.new, &changes.new.symbols[to]),
    );
    let (Some(before), Some(after)) = bodies else { return false };
    let signature = changes.signature(from);
    let own = |name: &str| signature.and_then(|change| change.new_name(name));
    followed(&before, |name| own(name).or_else(|| renamed.get(name).copied())) == after
}

/// Tokens as they are where names are other ones now.
fn followed<'a>(bag: &Bag, now: impl Fn(&str) -> Option<&'a str>) -> Bag {
    let mut followed = Bag::new();
    for (token, count) in bag {
        *followed.entry(now(token).unwrap_or(token).to_owned()).or_default() += count;
    }
    followed
}

/// The functions of a file, those in classes included.
fn functions(body: &[Stmt]) -> impl Iterator<Item = &StmtFunctionDef> {
    body.iter().flat_map(|stmt| {
        let inside: &[Stmt] = match stmt {
            Stmt::ClassDef(class) => &class.body,
            _ => std::slice::from_ref(stmt),
        };
        inside.iter().filter_map(Stmt::as_function_def_stmt)
    })
}

/// What functions of a test file name.
#[derive(Debug, Default)]
struct Named {
    /// Symbols of the code.
    symbols: BTreeSet<usize>,
    /// Attributes.
    names: BTreeSet<String>,
    /// Names of the file's own, parameters (fixtures) included.
    own: BTreeSet<String>,
}

/// Looks at some functions of a file, and at what is at its top, which is run for every test.
struct Look<'a> {
    table: &'a SymbolTable,
    scopes: &'a Scopes,
    module: &'a str,
    looked_at: &'a BTreeSet<TextSize>,
    named: Named,
}

impl Look<'_> {
    fn covers(&self, place: &Place<'_>) -> bool {
        let starts = |function: &&StmtFunctionDef| self.looked_at.contains(&function.name.range().start());
        place.functions.is_empty() || place.functions.iter().any(starts)
    }
}

impl<'a> Handler<'a> for Look<'_> {
    fn expr(&mut self, expr: &'a Expr, place: &Place<'a>) -> Into {
        if !self.covers(place) {
            return Into::Inside;
        }
        if let Expr::Attribute(attribute) = expr {
            self.named.names.insert(attribute.attr.id.to_string());
            // `self.helper()`, of the test's own class.
            self.named.own.insert(attribute.attr.id.to_string());
        }
        let Some(names) = dotted(expr) else { return Into::Inside };
        let mut path = match self.scopes.lookup(place.scope, names[0]) {
            Some((_, Binding::Imported(paths))) => match paths.first() {
                Some(path) => path.clone(),
                None => return Into::Inside,
            },
            Some((_, Binding::Local)) => {
                self.named.own.insert(names[0].to_owned());
                join(self.module, names[0])
            }
            // What a star import brought.
            None => {
                let known = |star: &&String| self.table.resolve(&join(star, names[0])).is_some();
                match self.scopes.stars.iter().find(known) {
                    Some(star) => join(star, names[0]),
                    None => return Into::Inside,
                }
            }
        };
        for (number, name) in names.iter().enumerate() {
            if number > 0 {
                path = join(&path, name);
            }
            if let Some(Target::Symbol(symbol)) = self.table.resolve(&path) {
                self.named.symbols.insert(symbol);
                self.named.symbols.extend(self.table.called(symbol));
            }
        }
        Into::Inside
    }

    fn stmt(&mut self, stmt: &'a Stmt, _: &Place<'a>) {
        if let Stmt::FunctionDef(function) = stmt
            && self.looked_at.contains(&function.name.range().start())
        {
            let fixtures = function.parameters.iter().map(|parameter| parameter.name().id.to_string());
            self.named.own.extend(fixtures);
        }
    }
}
