//! What the names of a file stand for, by Python's rules of scope: which import a name goes back to, and
//! where it is bound.

use crate::python::deep;
use crate::python::symbols::{absolute, join};
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Comprehension, ExceptHandler, Expr, ExprContext, Parameters, Pattern, Stmt};
use ruff_text_size::{Ranged, TextSize};
use std::collections::{HashMap, HashSet};

/// How a scope looks names up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScopeKind {
    Module,
    Function,
    /// Not seen from the functions inside.
    Class,
}

/// What a name is bound to in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// Imports alone: the dotted paths, one for each import (fallbacks have several).
    Imported(Vec<String>),
    /// Something of the file's own, or both.
    Local,
}

#[derive(Debug)]
struct Scope {
    parent: Option<usize>,
    kind: ScopeKind,
    bindings: HashMap<String, Binding>,
    globals: HashSet<String>,
}

/// The scopes of one file.
#[derive(Debug)]
pub struct Scopes {
    scopes: Vec<Scope>,
    /// By where the function, class, lambda or comprehension begins.
    by_start: HashMap<TextSize, usize>,
    /// Modules all of whose names the file takes.
    pub stars: Vec<String>,
}

/// The module's scope.
pub const MODULE: usize = 0;

impl Scopes {
    /// Reads the bindings of a file whose relative imports start from `package`.
    pub fn read(body: &[Stmt], package: &str) -> Self {
        let mut scopes = Self {
            scopes: vec![Scope {
                parent: None,
                kind: ScopeKind::Module,
                bindings: HashMap::new(),
                globals: HashSet::new(),
            }],
            by_start: HashMap::new(),
            stars: Vec::new(),
        };
        let mut binder = Binder { scopes: &mut scopes, at: MODULE, package };
        body.iter().for_each(|stmt| binder.visit_stmt(stmt));
        scopes
    }

    /// The scope that begins at `start` within `outer`; `outer` itself if none does.
    pub fn entered(&self, outer: usize, start: TextSize) -> usize {
        self.by_start.get(&start).copied().unwrap_or(outer)
    }

    /// Where `name`, used in `scope`, is bound, and to what.
    pub fn lookup(&self, scope: usize, name: &str) -> Option<(usize, &Binding)> {
        let mut at = Some(scope);
        let mut first = true;
        while let Some(place) = at {
            let here = &self.scopes[place];
            if here.globals.contains(name) {
                return self.scopes[MODULE].bindings.get(name).map(|binding| (MODULE, binding));
            }
            if (first || here.kind != ScopeKind::Class)
                && let Some(binding) = here.bindings.get(name)
            {
                return Some((place, binding));
            }
            first = false;
            at = here.parent;
        }
        None
    }

    /// Whether any scope of the file binds `name`.
    pub fn binds(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.bindings.contains_key(name))
    }

    /// Whether the scope itself binds `name`.
    pub fn binds_in(&self, scope: usize, name: &str) -> bool {
        self.scopes[scope].bindings.contains_key(name)
    }
}

struct Binder<'s> {
    scopes: &'s mut Scopes,
    at: usize,
    package: &'s str,
}

impl Binder<'_> {
    fn bind(&mut self, name: &str, binding: Binding) {
        let at = if self.scopes.scopes[self.at].globals.contains(name) { MODULE } else { self.at };
        let known = self.scopes.scopes[at].bindings.get_mut(name);
        match (known, binding) {
            (None, binding) => {
                self.scopes.scopes[at].bindings.insert(name.to_owned(), binding);
            }
            (Some(Binding::Imported(paths)), Binding::Imported(more)) => {
                for path in more {
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
            }
            (Some(known), _) => *known = Binding::Local,
        }
    }

    fn local(&mut self, name: &str) {
        self.bind(name, Binding::Local);
    }

    fn inside(&mut self, kind: ScopeKind, start: TextSize, work: impl FnOnce(&mut Self)) {
        let scope = Scope { parent: Some(self.at), kind, bindings: HashMap::new(), globals: HashSet::new() };
        let place = self.scopes.scopes.len();
        self.scopes.scopes.push(scope);
        self.scopes.by_start.insert(start, place);
        let outer = std::mem::replace(&mut self.at, place);
        work(self);
        self.at = outer;
    }

    fn parameters(&mut self, parameters: &Parameters) {
        for parameter in parameters.iter_non_variadic_params() {
            self.local(parameter.name().id.as_str());
        }
        for variadic in parameters.vararg.iter().chain(&parameters.kwarg) {
            self.local(variadic.name.id.as_str());
        }
    }

    fn comprehension<'a>(&mut self, start: TextSize, generators: &'a [Comprehension], parts: &[&'a Expr]) {
        self.inside(ScopeKind::Function, start, |binder| {
            for generator in generators {
                binder.visit_expr(&generator.target);
                binder.visit_expr(&generator.iter);
                generator.ifs.iter().for_each(|condition| binder.visit_expr(condition));
            }
            parts.iter().for_each(|part| binder.visit_expr(part));
        });
    }
}

/// Where the scope of a function begins: its parameters, since decorators and defaults are outside.
pub fn function_scope_start(function: &ruff_python_ast::StmtFunctionDef) -> TextSize {
    function.name.range.start()
}

/// Where the scope of a class begins.
pub fn class_scope_start(class: &ruff_python_ast::StmtClassDef) -> TextSize {
    class.name.range.start()
}

impl<'a> Visitor<'a> for Binder<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(function) => {
                self.local(function.name.id.as_str());
                function.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                for parameter in function.parameters.iter_non_variadic_params() {
                    if let Some(default) = parameter.default() {
                        self.visit_expr(default);
                    }
                }
                self.inside(ScopeKind::Function, function_scope_start(function), |binder| {
                    binder.parameters(&function.parameters);
                    function.body.iter().for_each(|stmt| binder.visit_stmt(stmt));
                });
            }
            Stmt::ClassDef(class) => {
                self.local(class.name.id.as_str());
                class.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                if let Some(arguments) = &class.arguments {
                    self.visit_arguments(arguments);
                }
                self.inside(ScopeKind::Class, class_scope_start(class), |binder| {
                    class.body.iter().for_each(|stmt| binder.visit_stmt(stmt));
                });
            }
            Stmt::Import(import) => {
                for alias in &import.names {
                    let path = alias.name.id.as_str();
                    match &alias.asname {
                        Some(asname) => {
                            self.bind(asname.id.as_str(), Binding::Imported(vec![path.to_owned()]));
                        }
                        None => {
                            let first = path.split('.').next().unwrap_or(path);
                            self.bind(first, Binding::Imported(vec![first.to_owned()]));
                        }
                    }
                }
            }
            Stmt::ImportFrom(import) => {
                let module = import.module.as_ref().map(|module| module.id.as_str());
                let from = absolute(self.package, import.level, module);
                for alias in &import.names {
                    let name = alias.name.id.as_str();
                    if name == "*" {
                        self.scopes.stars.extend(from.clone());
                        continue;
                    }
                    let local = alias.asname.as_ref().map_or(name, |asname| asname.id.as_str());
                    match &from {
                        Some(from) => self.bind(local, Binding::Imported(vec![join(from, name)])),
                        None => self.local(local),
                    }
                }
            }
            Stmt::Global(global) => {
                for name in &global.names {
                    let at = self.at;
                    self.scopes.scopes[at].globals.insert(name.id.to_string());
                }
            }
            Stmt::Try(attempt) => {
                for handler in &attempt.handlers {
                    let ExceptHandler::ExceptHandler(handler) = handler;
                    if let Some(name) = &handler.name {
                        self.local(name.id.as_str());
                    }
                }
                walk_stmt(self, stmt);
            }
            _ => walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if matches!(name.ctx, ExprContext::Store | ExprContext::Del) => {
                self.local(name.id.as_str());
            }
            Expr::Lambda(lambda) => {
                self.inside(ScopeKind::Function, lambda.range.start(), |binder| {
                    if let Some(parameters) = &lambda.parameters {
                        binder.parameters(parameters);
                    }
                    binder.visit_expr(&lambda.body);
                });
            }
            Expr::ListComp(comp) => self.comprehension(comp.range.start(), &comp.generators, &[&comp.elt]),
            Expr::SetComp(comp) => self.comprehension(comp.range.start(), &comp.generators, &[&comp.elt]),
            Expr::Generator(comp) => self.comprehension(comp.range.start(), &comp.generators, &[&comp.elt]),
            Expr::DictComp(_) => deep(|| walk_expr(self, expr)),
            _ => deep(|| walk_expr(self, expr)),
        }
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        match pattern {
            Pattern::MatchAs(binding) => {
                if let Some(name) = &binding.name {
                    self.local(name.id.as_str());
                }
            }
            Pattern::MatchStar(star) => {
                if let Some(name) = &star.name {
                    self.local(name.id.as_str());
                }
            }
            _ => {}
        }
        ruff_python_ast::visitor::walk_pattern(self, pattern);
    }
}

/// Whether the expression begins a scope of its own, and where.
pub fn scope_start(expr: &Expr) -> Option<TextSize> {
    match expr {
        Expr::Lambda(_) | Expr::ListComp(_) | Expr::SetComp(_) | Expr::Generator(_) => {
            Some(expr.range().start())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        let parsed = ruff_python_parser::parse_module(text).unwrap();
        Scopes::read(&parsed.syntax().body, "pkg.tests")
    }

    fn imported(paths: &[&str]) -> Binding {
        Binding::Imported(paths.iter().map(|path| (*path).to_owned()).collect())
    }

    #[test]
    fn names_go_back_to_their_imports_unless_something_hides_them() {
        let text = "import a.b\nimport c.d as e\nfrom . import f\nfrom ..g import h as i\ndef t(e):\n    x = e\n    a\nclass K:\n    i = 1\n    def m(self): i\n";
        let scopes = scopes(text);
        let module = |name: &str| scopes.lookup(MODULE, name).map(|(_, binding)| binding.clone());
        assert_eq!(module("a"), Some(imported(&["a"])));
        assert_eq!(module("e"), Some(imported(&["c.d"])));
        assert_eq!(module("f"), Some(imported(&["pkg.tests.f"])));
        assert_eq!(module("i"), Some(imported(&["pkg.g.h"])));
        let at = |needle: &str| TextSize::new(u32::try_from(text.find(needle).unwrap()).unwrap());
        let function = scopes.entered(MODULE, at("t(e)"));
        assert_eq!(scopes.lookup(function, "e").unwrap().1, &Binding::Local, "a parameter");
        assert_eq!(scopes.lookup(function, "a").unwrap().1, &imported(&["a"]));
        let method = scopes.entered(MODULE, at("m(self)"));
        assert_eq!(scopes.lookup(method, "i").unwrap().1, &imported(&["pkg.g.h"]), "classes do not enclose");
    }

    #[test]
    fn fallback_imports_are_one_name() {
        let scopes = scopes("try:\n    from a import x\nexcept ImportError:\n    from b import x\n");
        assert_eq!(scopes.lookup(MODULE, "x").unwrap().1, &imported(&["a.x", "b.x"]));
    }

    #[test]
    fn deep_sources_are_read() {
        let text = format!("x = {}1\n", "1 + ".repeat(20_000));
        // Taken apart on a large stack: dropping the tree goes as deep as reading it.
        std::thread::Builder::new()
            .stack_size(256 << 20)
            .spawn(move || assert!(scopes(&text).binds("x")))
            .unwrap()
            .join()
            .unwrap();
    }
}
