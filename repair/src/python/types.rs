//! Which class of the code under test a value in a test file is an instance of, as far as assignments,
//! annotations, fixtures and base classes say so. What they do not say stays unknown.

use crate::python::scopes::{Binding, Scopes};
use crate::python::symbols::{Kind, SymbolTable, Target, join, written_type};
use crate::python::walk::{Handler, Into, Place, walk};
use crate::python::{dotted, last_name};
use ruff_python_ast::{Expr, Stmt, StmtClassDef, StmtFunctionDef};
use ruff_text_size::TextSize;
use std::collections::HashMap;

/// Longest chain of calls and attributes that is followed.
const MAX_CHAIN: u32 = 30;

/// What is known of the values of one file.
#[derive(Debug, Default)]
pub struct Types {
    /// By scope and name. Nothing inside: assigned differently in different places.
    names: HashMap<(usize, String), Option<usize>>,
    /// Attributes of `self`, by where the class stands and the attribute's name.
    attributes: HashMap<(TextSize, String), Option<usize>>,
    /// The class of the old code that a class of the file derives from, by scope and name.
    classes: HashMap<(usize, String), Option<usize>>,
}

/// What fixtures give, by name, over a whole tree.
pub type Fixtures = HashMap<String, Option<usize>>;

/// A file as the inference sees it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The old code: tests were written for it.
    pub table: &'a SymbolTable,
    /// The file's scopes.
    pub scopes: &'a Scopes,
    /// What fixtures give.
    pub fixtures: &'a Fixtures,
}

impl<'a> View<'a> {
    /// The dotted path of a chain of names that goes back to an import.
    pub fn path(&self, expr: &Expr, scope: usize) -> Option<String> {
        let names = dotted(expr)?;
        let base = match self.scopes.lookup(scope, names[0]) {
            Some((_, Binding::Imported(paths))) => {
                paths.iter().find(|path| self.table.resolve(path).is_some()).or(paths.first())?.clone()
            }
            Some((_, Binding::Local)) => return None,
            None => self
                .scopes
                .stars
                .iter()
                .map(|star| join(star, names[0]))
                .find(|path| self.table.resolve(path).is_some())?,
        };
        Some(names[1..].iter().fold(base, |path, name| join(&path, name)))
    }

    /// The symbol of the old code that an expression names.
    pub fn symbol(&self, expr: &Expr, scope: usize) -> Option<usize> {
        match self.table.resolve(&self.path(expr, scope)?)? {
            Target::Symbol(symbol) => Some(symbol),
            Target::Module(_) => None,
        }
    }

    fn class(&self, written: &str, scope: usize) -> Option<usize> {
        let first = written.split('.').next()?;
        let base = match self.scopes.lookup(scope, first)?.1 {
            Binding::Imported(paths) => paths.first()?.clone(),
            Binding::Local => return None,
        };
        let path = written.split('.').skip(1).fold(base, |path, name| join(&path, name));
        self.class_at(&path)
    }

    fn class_at(&self, path: &str) -> Option<usize> {
        match self.table.resolve(path)? {
            Target::Symbol(symbol) if self.table.symbols[symbol].kind == Kind::Class => Some(symbol),
            Target::Symbol(_) | Target::Module(_) => None,
        }
    }

    /// The class of the old code that a class of the test file derives from.
    pub fn base_of(&self, class: &StmtClassDef, scope: usize) -> Option<usize> {
        let arguments = class.arguments.as_ref()?;
        arguments.args.iter().find_map(|base| {
            let symbol = self.symbol(base, scope)?;
            (self.table.symbols[symbol].kind == Kind::Class).then_some(symbol)
        })
    }
}

impl Types {
    /// Reads a file. Twice, so that what is assigned late is known to what uses it earlier in the text.
    pub fn read(body: &[Stmt], view: View<'_>) -> Self {
        let mut types = Self::default();
        for _ in 0..2 {
            let known = std::mem::take(&mut types);
            let mut reader = Reader { known: &known, view, found: &mut types };
            walk(body, view.scopes, &mut reader);
        }
        types
    }

    /// The class whose instance `expr` is.
    pub fn of(&self, expr: &Expr, place: &Place<'_>, view: View<'_>) -> Option<usize> {
        self.within(expr, place, view, MAX_CHAIN)
    }

    fn within(&self, expr: &Expr, place: &Place<'_>, view: View<'_>, depth: u32) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        match expr {
            Expr::Name(name) => self.name(name.id.as_str(), place, view),
            Expr::Await(awaited) => self.within(&awaited.value, place, view, depth),
            Expr::Call(call) => {
                let symbol = match view.symbol(&call.func, place.scope) {
                    Some(symbol) => symbol,
                    None => {
                        if let Expr::Name(name) = call.func.as_ref() {
                            let (scope, _) = view.scopes.lookup(place.scope, name.id.as_str())?;
                            return self.classes.get(&(scope, name.id.to_string())).copied().flatten();
                        }
                        let Expr::Attribute(attribute) = call.func.as_ref() else { return None };
                        let class = self.within(&attribute.value, place, view, depth)?;
                        view.table.member(class, attribute.attr.id.as_str())?
                    }
                };
                let symbol_is = &view.table.symbols[symbol];
                match symbol_is.kind {
                    Kind::Class => Some(symbol),
                    Kind::Function => {
                        let written = symbol_is.returns.as_deref()?;
                        if written == "Self" {
                            return view.class_at(&join(&symbol_is.module, &symbol_is.owner));
                        }
                        view.class_at(&join(&symbol_is.module, written))
                    }
                    Kind::Variable => None,
                }
            }
            Expr::Attribute(attribute) => {
                let Expr::Name(name) = attribute.value.as_ref() else { return None };
                let class = place.classes.last()?;
                let this = place.functions.last()?.parameters.iter_non_variadic_params().next()?;
                if this.name().id != name.id {
                    return None;
                }
                let key = (class.range.start(), attribute.attr.id.to_string());
                self.attributes.get(&key).copied().flatten()
            }
            _ => None,
        }
    }

    fn name(&self, name: &str, place: &Place<'_>, view: View<'_>) -> Option<usize> {
        let (scope, binding) = view.scopes.lookup(place.scope, name)?;
        if *binding != Binding::Local {
            return None;
        }
        if let Some(known) = self.names.get(&(scope, name.to_owned())) {
            return *known;
        }
        let function = place.functions.last()?;
        let parameter =
            function.parameters.iter_non_variadic_params().find(|p| p.name().id.as_str() == name)?;
        if let Some(annotation) = parameter.annotation() {
            return view.class(&written_type(annotation)?, place.scope);
        }
        let first = function.parameters.iter_non_variadic_params().next()?;
        if let Some(class) = place.classes.last()
            && first.name().id.as_str() == name
        {
            return view.base_of(class, place.scope);
        }
        view.fixtures.get(name).copied().flatten()
    }
}

struct Reader<'t, 'v> {
    known: &'t Types,
    view: View<'v>,
    found: &'t mut Types,
}

impl Reader<'_, '_> {
    fn assign(&mut self, target: &Expr, value: Option<usize>, place: &Place<'_>) {
        match target {
            Expr::Name(name) => {
                let Some((scope, _)) = self.view.scopes.lookup(place.scope, name.id.as_str()) else { return };
                note(&mut self.found.names, (scope, name.id.to_string()), value);
            }
            Expr::Attribute(attribute) => {
                let Expr::Name(_) = attribute.value.as_ref() else { return };
                if let Some(class) = place.classes.last() {
                    note(
                        &mut self.found.attributes,
                        (class.range.start(), attribute.attr.id.to_string()),
                        value,
                    );
                }
            }
            Expr::Tuple(tuple) => tuple.elts.iter().for_each(|element| self.assign(element, None, place)),
            _ => {}
        }
    }
}

fn note<K: std::hash::Hash + Eq>(known: &mut HashMap<K, Option<usize>>, key: K, value: Option<usize>) {
    known
        .entry(key)
        .and_modify(|before| {
            if *before != value {
                *before = None
            }
        })
        .or_insert(value);
}

impl<'a> Handler<'a> for Reader<'_, '_> {
    fn expr(&mut self, _: &'a Expr, _: &Place<'a>) -> Into {
        Into::Past
    }

    fn stmt(&mut self, stmt: &'a Stmt, place: &Place<'a>) {
        match stmt {
            Stmt::Assign(assign) => {
                let value = self.known.of(&assign.value, place, self.view);
                assign.targets.iter().for_each(|target| self.assign(target, value, place));
            }
            Stmt::AnnAssign(assign) => {
                let written = written_type(&assign.annotation);
                let value = written.and_then(|written| self.view.class(&written, place.scope));
                self.assign(&assign.target, value, place);
            }
            Stmt::With(with) => {
                for item in &with.items {
                    if let Some(target) = &item.optional_vars {
                        let value = self.known.of(&item.context_expr, place, self.view);
                        self.assign(target, value, place);
                    }
                }
            }
            Stmt::For(each) => self.assign(&each.target, None, place),
            Stmt::ClassDef(class) => {
                let name = class.name.id.as_str();
                if let Some((scope, _)) = self.view.scopes.lookup(place.scope, name) {
                    let base = self.view.base_of(class, place.scope);
                    note(&mut self.found.classes, (scope, name.to_owned()), base);
                }
            }
            _ => {}
        }
    }
}

/// What the fixtures of a file give, added to `fixtures`.
pub fn read_fixtures(body: &[Stmt], view: View<'_>, fixtures: &mut Fixtures) {
    let types = Types::read(body, view);
    let mut reader = FixtureReader { types: &types, view, fixtures };
    walk(body, view.scopes, &mut reader);
}

struct FixtureReader<'t, 'v> {
    types: &'t Types,
    view: View<'v>,
    fixtures: &'t mut Fixtures,
}

/// Whether the function is a fixture.
pub fn is_fixture(function: &StmtFunctionDef) -> bool {
    function
        .decorator_list
        .iter()
        .any(|d| matches!(last_name(&d.expression), Some("fixture" | "yield_fixture")))
}

impl FixtureReader<'_, '_> {
    fn gives(&mut self, value: &Expr, place: &Place<'_>) {
        let Some(function) = place.functions.first().filter(|function| is_fixture(function)) else { return };
        let class = self.types.of(value, place, self.view);
        note(self.fixtures, function.name.id.to_string(), class);
    }
}

impl<'a> Handler<'a> for FixtureReader<'_, '_> {
    fn expr(&mut self, expr: &'a Expr, place: &Place<'a>) -> Into {
        if let Expr::Yield(given) = expr
            && let Some(value) = &given.value
        {
            self.gives(value, place);
        }
        Into::Inside
    }

    fn stmt(&mut self, stmt: &'a Stmt, place: &Place<'a>) {
        if let Stmt::Return(given) = stmt
            && let Some(value) = &given.value
        {
            self.gives(value, place);
        }
    }
}
