//! What a test file asks, in numbers: assertions, what is expected of exceptions, and everything that lets a
//! test pass without them.

use crate::python::deep;
use crate::python::{dotted, last_name};
use ruff_python_ast::comparable::ComparableExpr;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{CmpOp, Expr, ExprCall, Stmt, StmtFunctionDef};
use std::collections::BTreeMap;

/// One file.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// By name, classes before it.
    pub(super) functions: BTreeMap<String, FunctionProfile>,
    /// What stands outside functions.
    pub(super) module: FunctionProfile,
    /// Comments that silence other tools.
    pub(super) silenced: u32,
}

/// One function.
#[derive(Debug, Default)]
pub(super) struct FunctionProfile {
    pub(super) is_test: bool,
    /// `assert`, `self.assert...`, `raises`, and mocks' `assert_...`.
    pub(super) assertions: u32,
    /// Those that compare with `==`.
    pub(super) exact_assertions: u32,
    /// Those that cannot fail.
    pub(super) empty_assertions: u32,
    pub(super) tolerances: u32,
    /// The widest tolerance that is written as a number.
    pub(super) widest_tolerance: f64,
    /// `raises(Exception)` and wider.
    pub(super) broad_exceptions: u32,
    /// `raises(..., match=...)`.
    pub(super) matched_exceptions: u32,
    pub(super) skips: u32,
    pub(super) retries: u32,
    /// Handlers of exceptions, and `suppress`.
    pub(super) catches: u32,
    /// `return` and `exit` in a test.
    pub(super) exits: u32,
    /// Calls of `sleep`.
    pub(super) waits: u32,
    pub(super) longest_wait_ms: f64,
    /// Rows of parametrised tests.
    pub(super) rows: u32,
    pub(super) mocks: u32,
    /// Writes to `sys.modules`, `os.environ`, builtins.
    pub(super) environment: u32,
}

impl Profile {
    /// Reads a file's text.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let parsed = ruff_python_parser::parse_module(text).map_err(|error| error.to_string())?;
        let mut reader = Reader { profile: Profile::default(), path: Vec::new(), function: None };
        for stmt in &parsed.syntax().body {
            reader.visit_stmt(stmt);
        }
        let mut profile = reader.profile;
        for token in parsed.tokens().iter().filter(|token| token.kind().is_comment()) {
            let range = ruff_text_size::Ranged::range(token);
            let comment = &text[range.start().to_usize()..range.end().to_usize()];
            let silences = ["noqa", "type: ignore", "pragma: no cover", "nosec", "pylint: disable"];
            profile.silenced += u32::from(silences.iter().any(|word| comment.contains(word)));
        }
        Ok(profile)
    }
}

struct Reader {
    profile: Profile,
    path: Vec<String>,
    function: Option<String>,
}

impl Reader {
    fn here(&mut self) -> &mut FunctionProfile {
        match &self.function {
            Some(name) => self.profile.functions.entry(name.clone()).or_default(),
            None => &mut self.profile.module,
        }
    }

    fn function(&mut self, function: &StmtFunctionDef) {
        if self.function.is_some() {
            // What is nested counts with what it is in.
            function.body.iter().for_each(|stmt| self.visit_stmt(stmt));
            return;
        }
        let mut path = self.path.clone();
        path.push(function.name.id.to_string());
        self.function = Some(path.join("::"));
        self.here().is_test = function.name.id.starts_with("test");
        for decorator in &function.decorator_list {
            self.mark(&decorator.expression);
            self.visit_expr(&decorator.expression);
        }
        function.body.iter().for_each(|stmt| self.visit_stmt(stmt));
        self.function = None;
    }

    /// A decorator, or an element of `pytestmark`.
    fn mark(&mut self, expr: &Expr) {
        match last_name(expr) {
            Some("skip" | "skipif" | "skipIf" | "skipUnless" | "xfail" | "expectedFailure") => {
                self.here().skips += 1
            }
            Some("flaky" | "rerun" | "retry" | "repeat") => self.here().retries += 1,
            Some("parametrize") => {
                if let Expr::Call(call) = expr
                    && let Some(Expr::List(list)) = call.arguments.find_argument_value("argvalues", 1)
                {
                    self.here().rows += u32::try_from(list.elts.len()).unwrap_or(u32::MAX);
                }
            }
            _ => {}
        }
    }

    fn assertion(&mut self, test: &Expr) {
        let empty = cannot_fail(test);
        let here = self.here();
        here.assertions += 1;
        here.empty_assertions += u32::from(empty);
        here.exact_assertions += u32::from(!empty && is_exact(test));
    }

    fn call(&mut self, call: &ExprCall) {
        let names = dotted(&call.func).unwrap_or_default();
        let Some(name) = last_name(&call.func) else { return };
        let number = |expr: &Expr| match expr {
            Expr::NumberLiteral(literal) => match &literal.value {
                ruff_python_ast::Number::Float(value) => Some(*value),
                ruff_python_ast::Number::Int(value) => value.as_i64().map(|whole| whole as f64),
                ruff_python_ast::Number::Complex { .. } => None,
            },
            _ => None,
        };
        let arguments = &call.arguments;
        let here = self.here();
        match name {
            "skip" | "skipTest" | "importorskip" | "xfail" if names.len() > 1 || name == "skipTest" => {
                here.skips += 1
            }
            "fail" => here.assertions += 1,
            "raises" | "assertRaises" | "assertRaisesRegex" | "warns" => {
                here.assertions += 1;
                let broad = |expr: &Expr| matches!(last_name(expr), Some("Exception" | "BaseException"));
                here.broad_exceptions += u32::from(arguments.args.first().is_some_and(broad));
                here.matched_exceptions +=
                    u32::from(arguments.find_keyword("match").is_some() || name == "assertRaisesRegex");
            }
            "approx" | "isclose" | "allclose" | "assertAlmostEqual" => {
                here.tolerances += 1;
                for keyword in &arguments.keywords {
                    if let Some(value) = number(&keyword.value) {
                        here.widest_tolerance = here.widest_tolerance.max(value);
                    }
                }
                if name == "assertAlmostEqual" {
                    here.assertions += 1;
                }
            }
            "sleep" => {
                here.waits += 1;
                if let Some(seconds) = arguments.args.first().and_then(number) {
                    here.longest_wait_ms = here.longest_wait_ms.max(seconds * 1000.0);
                }
            }
            "suppress" => here.catches += 1,
            "patch" | "setattr" | "setitem" | "object" | "Mock" | "MagicMock" | "AsyncMock"
                if name != "object" || names.contains(&"patch") =>
            {
                here.mocks += 1;
            }
            "exit" | "_exit" => here.exits += 1,
            "exec" | "eval" => here.environment += 1,
            _ if name.starts_with("assert") => {
                here.assertions += 1;
                here.exact_assertions += u32::from(matches!(
                    name,
                    "assertEqual"
                        | "assertEquals"
                        | "assertDictEqual"
                        | "assertListEqual"
                        | "assertTupleEqual"
                        | "assertSetEqual"
                        | "assert_called_once_with"
                        | "assert_called_with"
                        | "assert_equal"
                ));
                let same = arguments.args.len() == 2
                    && ComparableExpr::from(&arguments.args[0]) == ComparableExpr::from(&arguments.args[1]);
                here.empty_assertions += u32::from(same);
            }
            _ => {}
        }
    }
}

/// Whether a condition compares something with `==`.
fn is_exact(test: &Expr) -> bool {
    match test {
        Expr::Compare(compare) => {
            compare.ops.iter().any(|op| matches!(op, CmpOp::Eq | CmpOp::Is))
                && !compare
                    .comparators
                    .iter()
                    .any(|other| matches!(other, Expr::NoneLiteral(_)) && compare.ops.contains(&CmpOp::IsNot))
        }
        Expr::BoolOp(both) => both.op == ruff_python_ast::BoolOp::And && both.values.iter().any(is_exact),
        _ => false,
    }
}

/// Whether a condition is true whatever the code does.
fn cannot_fail(test: &Expr) -> bool {
    match test {
        Expr::BooleanLiteral(literal) => literal.value,
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => true,
        Expr::Tuple(tuple) => !tuple.elts.is_empty(),
        Expr::Compare(compare) => {
            compare.ops.len() == 1
                && matches!(compare.ops[0], CmpOp::Eq | CmpOp::Is | CmpOp::LtE | CmpOp::GtE)
                && ComparableExpr::from(compare.left.as_ref())
                    == ComparableExpr::from(&compare.comparators[0])
        }
        Expr::BoolOp(either) => {
            let mut values = either.values.iter();
            if either.op == ruff_python_ast::BoolOp::Or {
                values.any(cannot_fail)
            } else {
                values.all(cannot_fail)
            }
        }
        _ => false,
    }
}

/// Whether a block never runs: a loop over nothing, a condition that is false.
fn never_runs(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::For(each) => match each.iter.as_ref() {
            Expr::List(list) => list.elts.is_empty(),
            Expr::Tuple(tuple) => tuple.elts.is_empty(),
            Expr::Dict(dict) => dict.items.is_empty(),
            Expr::Call(call) => {
                last_name(&call.func) == Some("range")
                    && matches!(call.arguments.args.as_ref(), [Expr::NumberLiteral(literal)]
                        if matches!(&literal.value, ruff_python_ast::Number::Int(value) if value.as_i64() == Some(0)))
            }
            _ => false,
        },
        Stmt::If(branch) => is_false(&branch.test) && branch.elif_else_clauses.is_empty(),
        Stmt::While(repeat) => is_false(&repeat.test),
        _ => false,
    }
}

fn is_false(test: &Expr) -> bool {
    match test {
        Expr::BooleanLiteral(literal) => !literal.value,
        Expr::NoneLiteral(_) => true,
        Expr::NumberLiteral(literal) => {
            matches!(&literal.value, ruff_python_ast::Number::Int(value) if value.as_i64() == Some(0))
        }
        _ => false,
    }
}

impl<'a> Visitor<'a> for Reader {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if never_runs(stmt) {
            return;
        }
        match stmt {
            Stmt::FunctionDef(function) => return self.function(function),
            Stmt::ClassDef(class) => {
                for decorator in &class.decorator_list {
                    self.mark(&decorator.expression);
                }
                if self.function.is_none() {
                    self.path.push(class.name.id.to_string());
                    class.body.iter().for_each(|stmt| self.visit_stmt(stmt));
                    self.path.pop();
                    return;
                }
            }
            Stmt::Assert(assert) => self.assertion(&assert.test),
            Stmt::Return(_) if self.function.is_some() => {
                let here = self.here();
                here.exits += u32::from(here.is_test);
            }
            Stmt::Try(attempt) => {
                self.here().catches += u32::try_from(attempt.handlers.len()).unwrap_or(u32::MAX);
            }
            Stmt::Assign(assign) => {
                for target in &assign.targets {
                    if matches!(target, Expr::Name(name) if name.id.as_str() == "pytestmark") {
                        match assign.value.as_ref() {
                            Expr::List(list) => list.elts.iter().for_each(|mark| self.mark(mark)),
                            mark => self.mark(mark),
                        }
                    }
                    let written = match target {
                        Expr::Subscript(subscript) => dotted(&subscript.value),
                        Expr::Attribute(attribute) => dotted(&attribute.value),
                        _ => None,
                    };
                    let of_the_interpreter = written.is_some_and(|names| {
                        matches!(names.as_slice(), ["sys", ..] | ["os", "environ"] | ["builtins", ..])
                    });
                    self.here().environment += u32::from(of_the_interpreter);
                }
            }
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Call(call) = expr {
            self.call(call);
        }
        deep(|| walk_expr(self, expr));
    }
}
