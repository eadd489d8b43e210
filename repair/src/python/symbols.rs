//! What the code of a tree defines: modules, classes, functions, members and constants, each with what is
//! needed to recognise it in another tree, and the paths by which it can be imported.

use crate::python::signature::{First, Param, ParamKind, Signature};
use crate::python::{dotted, last_name};
use crate::tree::{SourceFile, SourceTree};
use ruff_python_ast::visitor::{Visitor, walk_stmt};
use ruff_python_ast::{Expr, Stmt, StmtClassDef, StmtFunctionDef};
use ruff_text_size::{Ranged, TextRange};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most steps through re-exports and base classes of one search: circles of them end here.
const MAX_STEPS: u32 = 1_000;

/// How often each token occurs.
pub type Bag = HashMap<String, u32>;

/// What a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A function, or a method.
    Function,
    /// A class.
    Class,
    /// A name that is assigned to: in a module, a class body, or on `self`.
    Variable,
}

/// Something the code defines.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// What it is.
    pub kind: Kind,
    /// The module it is defined in.
    pub module: String,
    /// The classes around it, the outermost first, joined by dots; empty at the top of its module.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// Where its definition stands.
    pub range: TextRange,
    /// Its parameters: a function's own, a class's where they are told by its fields.
    pub signature: Option<Signature>,
    /// Whether calling it gives a coroutine.
    pub is_async: bool,
    /// Whether it is a property: read, and not called.
    pub is_property: bool,
    /// Base classes as written.
    pub bases: Vec<String>,
    /// What a function says it returns, as written.
    pub returns: Option<String>,
    /// Its tokens, without its own name.
    pub bag: Bag,
}

impl Symbol {
    /// Module, classes and name, joined by dots.
    pub fn path(&self) -> String {
        join(&join(&self.module, &self.owner), &self.name)
    }

    /// Whether it is a member of a class.
    pub fn is_member(&self) -> bool {
        !self.owner.is_empty()
    }
}

/// `a.b`, or the one that is not empty.
pub fn join(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_owned(),
        (_, true) => a.to_owned(),
        _ => format!("{a}.{b}"),
    }
}

/// One module.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// Its file.
    pub file: String,
    /// Names bound to what other modules define: the dotted path each stands for.
    pub aliases: BTreeMap<String, String>,
    /// Modules all of whose names it takes.
    pub stars: Vec<String>,
    /// Its tokens.
    pub bag: Bag,
}

/// What a path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A module of the tree.
    Module(String),
    /// A symbol, by its place in [`SymbolTable::symbols`].
    Symbol(usize),
}

/// Everything that a tree defines.
#[derive(Debug, Default)]
pub struct SymbolTable {
    /// In the order of files and definitions.
    pub symbols: Vec<Symbol>,
    /// By name.
    pub modules: BTreeMap<String, Module>,
    /// Files that could not be read: what they define is not known.
    pub unread: BTreeSet<String>,
    by_path: HashMap<String, usize>,
}

impl SymbolTable {
    /// What the code under test of `tree` defines.
    pub fn read(tree: &SourceTree) -> Self {
        let mut table = Self { unread: tree.unreadable().keys().cloned().collect(), ..Self::default() };
        for file in tree.code_files() {
            let name = tree.module_name(&file.path);
            if name.is_empty() {
                continue;
            }
            let mut reader =
                Reader { table: &mut table, file, module: name.clone(), package: package_of(file, &name) };
            let module =
                Module { file: file.path.clone(), bag: bag_of(file, whole(file), ""), ..Module::default() };
            reader.table.modules.insert(name, module);
            reader.block(&file.parsed.syntax().body, "");
        }
        table
    }

    /// What `path` stands for; nothing if the tree does not say.
    pub fn resolve(&self, path: &str) -> Option<Target> {
        self.resolve_within(path, &mut { MAX_STEPS })
    }

    fn resolve_within(&self, path: &str, steps: &mut u32) -> Option<Target> {
        *steps = steps.checked_sub(1)?;
        if self.modules.contains_key(path) {
            // A name bound in the package hides a module below it only where it is a symbol of its own.
            return match self.by_path.get(path) {
                Some(&symbol) => Some(Target::Symbol(symbol)),
                None => Some(Target::Module(path.to_owned())),
            };
        }
        if let Some(&symbol) = self.by_path.get(path) {
            return Some(Target::Symbol(symbol));
        }
        let (parent, name) = path.rsplit_once('.')?;
        match self.resolve_within(parent, steps)? {
            Target::Symbol(class) => self.member_within(class, name, steps).map(Target::Symbol),
            Target::Module(module) => self.name_in(&module, name, steps),
        }
    }

    fn name_in(&self, module: &str, name: &str, steps: &mut u32) -> Option<Target> {
        *steps = steps.checked_sub(1)?;
        if let Some(&symbol) = self.by_path.get(&join(module, name)) {
            return Some(Target::Symbol(symbol));
        }
        let known = self.modules.get(module)?;
        if let Some(path) = known.aliases.get(name) {
            return self.resolve_within(path, steps);
        }
        let below = join(module, name);
        if self.modules.contains_key(&below) {
            return Some(Target::Module(below));
        }
        if name.starts_with('_') {
            return None;
        }
        known.stars.iter().find_map(|star| self.name_in(star, name, steps))
    }

    /// The member `name` of a class or of its bases, as far as they are defined in the tree.
    pub fn member(&self, class: usize, name: &str) -> Option<usize> {
        self.member_within(class, name, &mut { MAX_STEPS })
    }

    fn member_within(&self, class: usize, name: &str, steps: &mut u32) -> Option<usize> {
        *steps = steps.checked_sub(1)?;
        let symbol = &self.symbols[class];
        if symbol.kind != Kind::Class {
            return None;
        }
        if let Some(&found) = self.by_path.get(&join(&symbol.path(), name)) {
            return Some(found);
        }
        symbol.bases.iter().find_map(|base| {
            let base = self.class_of_base(symbol, base, steps)?;
            if base == class { None } else { self.member_within(base, name, steps) }
        })
    }

    /// The class that a base, as written in the definition of `class`, stands for.
    fn class_of_base(&self, class: &Symbol, base: &str, steps: &mut u32) -> Option<usize> {
        let found = self.resolve_within(&join(&class.module, base), steps)?;
        match found {
            Target::Symbol(symbol) if self.symbols[symbol].kind == Kind::Class => Some(symbol),
            Target::Symbol(_) | Target::Module(_) => None,
        }
    }

    /// The function whose parameters a call of `symbol` fills: itself, or a class's `__init__`.
    pub fn called(&self, symbol: usize) -> Option<usize> {
        match self.symbols[symbol].kind {
            Kind::Function => Some(symbol),
            Kind::Class => self
                .member(symbol, "__init__")
                .or_else(|| self.symbols[symbol].signature.is_some().then_some(symbol)),
            Kind::Variable => None,
        }
    }

    /// The symbol of that path, as defined, not as imported.
    pub fn defined(&self, path: &str) -> Option<usize> {
        self.by_path.get(path).copied()
    }
}

/// The package that relative imports in the file start from.
pub fn package_of(file: &SourceFile, module: &str) -> String {
    if file.path.ends_with("__init__.py") {
        return module.to_owned();
    }
    module.rsplit_once('.').map_or_else(String::new, |(package, _)| package.to_owned())
}

/// The absolute path of an import `from <dots><module>` in a file of `package`.
pub fn absolute(package: &str, level: u32, module: Option<&str>) -> Option<String> {
    if level == 0 {
        return module.map(str::to_owned);
    }
    let mut base = package;
    for _ in 1..level {
        base = base.rsplit_once('.').map(|(parent, _)| parent)?;
    }
    Some(join(base, module.unwrap_or("")))
}

fn whole(file: &SourceFile) -> TextRange {
    file.parsed.syntax().range()
}

/// The tokens within `range`, without comments, line structure and `own` name.
fn bag_of(file: &SourceFile, range: TextRange, own: &str) -> Bag {
    let mut bag = Bag::new();
    for token in file.parsed.tokens().in_range(range) {
        let text = &file.text[token.range().start().to_usize()..token.range().end().to_usize()];
        let text = text.trim();
        if token.kind().is_trivia() || text.is_empty() || text == own {
            continue;
        }
        *bag.entry(text.to_owned()).or_default() += 1;
    }
    bag
}

/// The tokens of what a function does: of its body, without its own name. Nothing for what is no function.
pub fn body_of(tree: &SourceTree, symbol: &Symbol) -> Option<Bag> {
    let file = tree.file(&symbol.file)?;
    let function = definition(&file.parsed.syntax().body, symbol.range)?;
    let body = TextRange::new(function.body.first()?.start(), function.range.end());
    Some(bag_of(file, body, &symbol.name))
}

/// The function whose definition stands at `range`.
pub fn definition(body: &[Stmt], range: TextRange) -> Option<&StmtFunctionDef> {
    body.iter().find_map(|stmt| match stmt {
        Stmt::FunctionDef(function) if function.range == range => Some(function),
        Stmt::ClassDef(class) if class.range.contains_range(range) => definition(&class.body, range),
        Stmt::If(branch) => definition(&branch.body, range),
        Stmt::Try(attempt) => definition(&attempt.body, range),
        _ => None,
    })
}

struct Reader<'a> {
    table: &'a mut SymbolTable,
    file: &'a SourceFile,
    module: String,
    package: String,
}

impl Reader<'_> {
    fn add(&mut self, symbol: Symbol) {
        let path = symbol.path();
        let place = self.table.symbols.len();
        // The first definition is what the path stands for; later ones are variants of it (overloads,
        // fallbacks), unless they are the first that can be called.
        match self.table.by_path.get(&path) {
            Some(&known)
                if self.table.symbols[known].kind != Kind::Variable || symbol.kind == Kind::Variable => {}
            Some(_) | None => {
                self.table.by_path.insert(path, place);
                self.table.symbols.push(symbol);
            }
        }
    }

    fn block(&mut self, body: &[Stmt], owner: &str) {
        for stmt in body {
            self.stmt(stmt, owner);
        }
    }

    fn stmt(&mut self, stmt: &Stmt, owner: &str) {
        match stmt {
            Stmt::FunctionDef(function) => self.function(function, owner),
            Stmt::ClassDef(class) => self.class(class, owner),
            Stmt::Assign(assign) => {
                for target in &assign.targets {
                    self.targets(target, assign.value.range(), owner);
                }
            }
            Stmt::AnnAssign(assign) => {
                let value = assign.value.as_ref().map_or(assign.annotation.range(), |value| value.range());
                self.targets(&assign.target, value, owner);
            }
            Stmt::Import(import) if owner.is_empty() => {
                for alias in &import.names {
                    let path = alias.name.id.as_str();
                    let (name, path) = match &alias.asname {
                        Some(asname) => (asname.id.as_str(), path),
                        None => {
                            let first = path.split('.').next().unwrap_or(path);
                            (first, first)
                        }
                    };
                    self.alias(name, path);
                }
            }
            Stmt::ImportFrom(import) if owner.is_empty() => {
                let module = import.module.as_ref().map(|module| module.id.as_str());
                let Some(from) = absolute(&self.package, import.level, module) else { return };
                for alias in &import.names {
                    let name = alias.name.id.as_str();
                    if name == "*" {
                        let known = self.table.modules.entry(self.module.clone()).or_default();
                        known.stars.push(from.clone());
                        continue;
                    }
                    let local = alias.asname.as_ref().map_or(name, |asname| asname.id.as_str());
                    self.alias(local, &join(&from, name));
                }
            }
            Stmt::If(branch) => {
                self.block(&branch.body, owner);
                for clause in &branch.elif_else_clauses {
                    self.block(&clause.body, owner);
                }
            }
            Stmt::Try(attempt) => {
                self.block(&attempt.body, owner);
                for handler in &attempt.handlers {
                    let ruff_python_ast::ExceptHandler::ExceptHandler(handler) = handler;
                    self.block(&handler.body, owner);
                }
                self.block(&attempt.orelse, owner);
                self.block(&attempt.finalbody, owner);
            }
            Stmt::With(with) => self.block(&with.body, owner),
            _ => {}
        }
    }

    fn alias(&mut self, name: &str, path: &str) {
        let known = self.table.modules.entry(self.module.clone()).or_default();
        known.aliases.entry(name.to_owned()).or_insert_with(|| path.to_owned());
    }

    fn targets(&mut self, target: &Expr, value: TextRange, owner: &str) {
        match target {
            Expr::Name(name) => {
                let bag = bag_of(self.file, value, name.id.as_str());
                self.variable(name.id.as_str(), owner, name.range, bag);
            }
            Expr::Tuple(tuple) => {
                for element in &tuple.elts {
                    self.targets(element, value, owner);
                }
            }
            _ => {}
        }
    }

    fn variable(&mut self, name: &str, owner: &str, range: TextRange, bag: Bag) {
        if name.starts_with("__") && name.ends_with("__") {
            return;
        }
        let symbol = self.symbol(Kind::Variable, owner, name, range, bag);
        self.add(symbol);
    }

    fn symbol(&self, kind: Kind, owner: &str, name: &str, range: TextRange, bag: Bag) -> Symbol {
        Symbol {
            kind,
            module: self.module.clone(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            file: self.file.path.clone(),
            range,
            signature: None,
            is_async: false,
            is_property: false,
            bases: Vec::new(),
            returns: None,
            bag,
        }
    }

    fn function(&mut self, function: &StmtFunctionDef, owner: &str) {
        let name = function.name.id.as_str();
        let decorated =
            |word: &str| function.decorator_list.iter().any(|d| last_name(&d.expression) == Some(word));
        if decorated("overload") {
            return;
        }
        // `@x.setter` and its like define nothing new.
        let accessor = function
            .decorator_list
            .iter()
            .any(|d| dotted(&d.expression).is_some_and(|names| names.len() == 2 && names[0] == name));
        if accessor {
            return;
        }
        let first = if owner.is_empty() || decorated("staticmethod") { First::Free } else { First::Bound };
        let property = decorated("property") || decorated("cached_property");
        let bag = bag_of(self.file, function.range, name);
        let mut symbol = self.symbol(Kind::Function, owner, name, function.range, bag);
        symbol.signature = (!property).then(|| Signature::read(&function.parameters, &self.file.text, first));
        let generator = {
            let mut search = Yields(false);
            function.body.iter().for_each(|stmt| search.visit_stmt(stmt));
            search.0
        };
        symbol.is_async = function.is_async && !generator;
        symbol.is_property = property;
        symbol.returns = match &function.returns {
            Some(annotation) => written_type(annotation),
            None => constructed(function),
        };
        self.add(symbol);
        if !owner.is_empty()
            && let Some(this) = function.parameters.iter_non_variadic_params().next()
        {
            let mut search = OnSelf { this: this.name().id.as_str(), found: Vec::new() };
            function.body.iter().for_each(|stmt| search.visit_stmt(stmt));
            for (attribute, range, value) in search.found {
                let bag = bag_of(self.file, value, &attribute);
                self.variable(&attribute, owner, range, bag);
            }
        }
    }

    fn class(&mut self, class: &StmtClassDef, owner: &str) {
        let name = class.name.id.as_str();
        let bag = bag_of(self.file, class.range, name);
        let mut symbol = self.symbol(Kind::Class, owner, name, class.range, bag);
        symbol.bases = class
            .arguments
            .iter()
            .flat_map(|arguments| arguments.args.iter())
            .filter_map(|base| match base {
                Expr::Subscript(subscript) => dotted(&subscript.value),
                _ => dotted(base),
            })
            .map(|names| names.join("."))
            .collect();
        symbol.signature = self.fields(class);
        self.add(symbol);
        let inside = join(owner, name);
        self.block(&class.body, &inside);
    }

    /// The parameters that a data class takes, in the order of its fields.
    fn fields(&self, class: &StmtClassDef) -> Option<Signature> {
        let decorated = class.decorator_list.iter().any(|decorator| {
            matches!(
                last_name(&decorator.expression),
                Some("dataclass" | "define" | "frozen" | "mutable" | "attrs")
            )
        });
        let named_tuple = class
            .arguments
            .iter()
            .flat_map(|arguments| arguments.args.iter())
            .any(|base| last_name(base) == Some("NamedTuple"));
        if !decorated && !named_tuple {
            return None;
        }
        let source =
            |range: TextRange| self.file.text[range.start().to_usize()..range.end().to_usize()].to_owned();
        let params = class.body.iter().filter_map(|stmt| {
            let Stmt::AnnAssign(assign) = stmt else { return None };
            let Expr::Name(name) = assign.target.as_ref() else { return None };
            if last_name(&assign.annotation) == Some("ClassVar") {
                return None;
            }
            Some(Param {
                name: name.id.to_string(),
                kind: ParamKind::Normal,
                default: assign.value.as_ref().map(|value| source(value.range())),
                annotation: Some(source(assign.annotation.range())),
            })
        });
        Some(Signature { params: params.collect() })
    }
}

/// The dotted name in an annotation: bare, quoted, or within `Optional` and its like.
pub fn written_type(annotation: &Expr) -> Option<String> {
    match annotation {
        Expr::StringLiteral(text) => Some(text.value.to_str().trim().to_owned()),
        Expr::Subscript(subscript) => match last_name(&subscript.value) {
            Some("Optional" | "Iterator" | "Generator" | "Awaitable" | "AsyncIterator") => {
                match subscript.slice.as_ref() {
                    Expr::Tuple(tuple) => tuple.elts.first().and_then(written_type),
                    slice => written_type(slice),
                }
            }
            _ => dotted(&subscript.value).map(|names| names.join(".")),
        },
        Expr::BinOp(either) => match either.right.as_ref() {
            Expr::NoneLiteral(_) => written_type(&either.left),
            _ => None,
        },
        _ => dotted(annotation).map(|names| names.join(".")),
    }
}

/// What a function without an annotation makes, where each of its `return`s makes the same: the class as
/// written, `Self` for the class that the method is called on.
fn constructed(function: &StmtFunctionDef) -> Option<String> {
    let mut returns = Returns(Vec::new());
    function.body.iter().for_each(|stmt| returns.visit_stmt(stmt));
    let (first, others) = returns.0.split_first()?;
    let made = first.as_ref().filter(|first| others.iter().all(|other| other.as_ref() == Some(*first)))?;
    let own =
        function.parameters.iter_non_variadic_params().next().map(|parameter| parameter.name().id.as_str());
    if own == Some("cls") && made == "cls" { Some("Self".to_owned()) } else { Some(made.clone()) }
}

/// What each `return` calls.
struct Returns(Vec<Option<String>>);

impl<'a> Visitor<'a> for Returns {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => {}
            Stmt::Return(given) => self.0.push(match given.value.as_deref() {
                Some(Expr::Call(call)) => dotted(&call.func).map(|names| names.join(".")),
                _ => None,
            }),
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

/// Whether a body yields.
struct Yields(bool);

impl<'a> Visitor<'a> for Yields {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if !matches!(stmt, Stmt::FunctionDef(_) | Stmt::ClassDef(_)) {
            walk_stmt(self, stmt);
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Yield(_) | Expr::YieldFrom(_) => self.0 = true,
            Expr::Lambda(_) => {}
            _ => crate::python::deep(|| ruff_python_ast::visitor::walk_expr(self, expr)),
        }
    }
}

/// What is assigned to attributes of the first parameter.
struct OnSelf<'n> {
    this: &'n str,
    found: Vec<(String, TextRange, TextRange)>,
}

impl OnSelf<'_> {
    fn target(&mut self, target: &Expr, value: TextRange) {
        match target {
            Expr::Attribute(attribute) => {
                if let Expr::Name(name) = attribute.value.as_ref()
                    && name.id.as_str() == self.this
                {
                    self.found.push((attribute.attr.id.to_string(), attribute.attr.range, value));
                }
            }
            Expr::Tuple(tuple) => tuple.elts.iter().for_each(|element| self.target(element, value)),
            _ => {}
        }
    }
}

impl<'a> Visitor<'a> for OnSelf<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Assign(assign) => {
                assign.targets.iter().for_each(|target| self.target(target, assign.value.range()));
            }
            Stmt::AnnAssign(assign) => {
                let value = assign.value.as_ref().map_or(assign.annotation.range(), |value| value.range());
                self.target(&assign.target, value);
            }
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => {}
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(files: &[(&str, &str)]) -> SymbolTable {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        SymbolTable::read(&SourceTree::new(files).unwrap())
    }

    #[test]
    fn paths_lead_through_imports_stars_and_bases() {
        let table = table(&[
            (
                "shop/__init__.py",
                "from ._prices import price as cost\nfrom .stock import *\nfrom . import stock\n",
            ),
            ("shop/_prices.py", "def price(x, *, tax=0): return x\nRATE = 3\n"),
            (
                "shop/stock.py",
                "class Base:\n    def count(self, of): self.seen = of\nclass Stock(Base):\n    size = 1\n",
            ),
        ]);
        #[track_caller]
        fn check(table: &SymbolTable, path: &str, expect: Option<&str>) {
            let found = table.resolve(path).map(|target| match target {
                Target::Module(name) => format!("module {name}"),
                Target::Symbol(symbol) => table.symbols[symbol].path(),
            });
            assert_eq!(found.as_deref(), expect, "{path}");
        }
        check(&table, "shop.cost", Some("shop._prices.price"));
        check(&table, "shop.Stock.count", Some("shop.stock.Base.count"));
        check(&table, "shop.Stock.seen", Some("shop.stock.Base.seen"));
        check(&table, "shop.stock", Some("module shop.stock"));
        check(&table, "shop._prices.RATE", Some("shop._prices.RATE"));
        check(&table, "shop.price", None);
        check(&table, "os.path", None);
    }

    #[test]
    fn methods_are_seen_without_self_and_data_classes_by_their_fields() {
        let table = table(&[(
            "m.py",
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int = 2\nclass C:\n    def f(self, a): pass\n    @staticmethod\n    def s(a): pass\n    async def w(self): pass\n",
        )]);
        let names = |path: &str| {
            let symbol = &table.symbols[table.defined(path).unwrap()];
            symbol.signature.as_ref().unwrap().params.iter().map(|p| p.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("m.P"), ["x", "y"]);
        assert_eq!(names("m.C.f"), ["a"]);
        assert_eq!(names("m.C.s"), ["a"]);
        assert!(table.symbols[table.defined("m.C.w").unwrap()].is_async);
    }

    #[test]
    fn imports_in_a_circle_end() {
        let table = table(&[
            ("a.py", "from b import x\nfrom b import *\n"),
            ("b.py", "from a import x\nfrom a import *\n"),
            ("c.py", "class A(A): pass\nclass B(C): pass\nclass C(B): pass\n"),
        ]);
        assert_eq!(table.resolve("a.x"), None);
        assert_eq!(table.resolve("a.y"), None);
        assert_eq!(table.resolve("c.B.f"), None);
    }
}
