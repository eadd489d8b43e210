//! One walk over a file's statements and expressions that knows in which scope, function and class it is.

use crate::python::deep;
use crate::python::scopes::{MODULE, Scopes, class_scope_start, function_scope_start, scope_start};
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, Stmt, StmtClassDef, StmtFunctionDef};

/// Whether the walk goes on into an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// It does.
    Inside,
    /// It was dealt with as a whole.
    Past,
}

/// Where the walk is.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The innermost scope.
    pub scope: usize,
    /// The functions around, the outermost first.
    pub functions: Vec<&'a StmtFunctionDef>,
    /// The classes around, the outermost first.
    pub classes: Vec<&'a StmtClassDef>,
    /// How many lambdas are around, within the innermost function.
    pub lambdas: usize,
}

/// What is done on the way.
pub trait Handler<'a> {
    /// At each expression, before those in it.
    fn expr(&mut self, expr: &'a Expr, place: &Place<'a>) -> Into;

    /// At each statement, before what is in it.
    fn stmt(&mut self, _: &'a Stmt, _: &Place<'a>) {}
}

/// Walks over `body`.
pub fn walk<'a>(body: &'a [Stmt], scopes: &Scopes, handler: &mut impl Handler<'a>) {
    let place = Place { scope: MODULE, functions: Vec::new(), classes: Vec::new(), lambdas: 0 };
    let mut walk = Walk { scopes, handler, place };
    body.iter().for_each(|stmt| walk.visit_stmt(stmt));
}

struct Walk<'a, 's, H> {
    scopes: &'s Scopes,
    handler: &'s mut H,
    place: Place<'a>,
}

impl<'a, H: Handler<'a>> Visitor<'a> for Walk<'a, '_, H> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.handler.stmt(stmt, &self.place);
        match stmt {
            Stmt::FunctionDef(function) => {
                function.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                self.visit_parameters(&function.parameters);
                if let Some(returns) = &function.returns {
                    self.visit_annotation(returns);
                }
                let outer = self.place.scope;
                let lambdas = std::mem::take(&mut self.place.lambdas);
                self.place.scope = self.scopes.entered(outer, function_scope_start(function));
                self.place.functions.push(function);
                function.body.iter().for_each(|stmt| self.visit_stmt(stmt));
                self.place.functions.pop();
                self.place.scope = outer;
                self.place.lambdas = lambdas;
            }
            Stmt::ClassDef(class) => {
                class.decorator_list.iter().for_each(|decorator| self.visit_decorator(decorator));
                if let Some(arguments) = &class.arguments {
                    self.visit_arguments(arguments);
                }
                let outer = self.place.scope;
                self.place.scope = self.scopes.entered(outer, class_scope_start(class));
                self.place.classes.push(class);
                class.body.iter().for_each(|stmt| self.visit_stmt(stmt));
                self.place.classes.pop();
                self.place.scope = outer;
            }
            _ => deep(|| walk_stmt(self, stmt)),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if self.handler.expr(expr, &self.place) == Into::Past {
            return;
        }
        let outer = self.place.scope;
        if let Some(start) = scope_start(expr) {
            self.place.scope = self.scopes.entered(outer, start);
        }
        let lambda = usize::from(matches!(expr, Expr::Lambda(_)));
        self.place.lambdas += lambda;
        deep(|| walk_expr(self, expr));
        self.place.lambdas -= lambda;
        self.place.scope = outer;
    }
}
