//! Places within a function where one small change makes other code, and the edits that put the change there behind a
//! switch.

use crate::edits::{Edits, Piece};
use crate::mutants::{Purpose, SWITCH};
use crate::python::deep;
use crate::python::symbols::definition;
use crate::tree::SourceFile;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{BoolOp, CmpOp, Expr, Number, Operator, Stmt, StmtFunctionDef};
use ruff_text_size::{Ranged, TextRange, TextSize};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An error where the function begins.
    Enter,
    /// The opposite comparison.
    Comparison,
    /// Another number, the other truth value, another text.
    Constant,
    /// `None` is returned.
    NoResult,
    /// `and` for `or`.
    Boolean,
    /// `-` for `+`.
    Arithmetic,
    /// Nothing is raised.
    NoError,
}

/// One place.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) path: String,
    pub(super) kind: Kind,
    /// The number of the place among those of its kind in the function.
    pub(super) nth: usize,
    /// What else must be the same for two places to be one: the operator, the constant.
    pub(super) shape: String,
    /// What is replaced.
    pub(super) range: TextRange,
    /// What stands there instead.
    made: String,
    /// White space before the statement.
    indent: String,
    line_end: &'static str,
}

impl Site {
    /// For people.
    pub(super) fn what(&self) -> String {
        match self.kind {
            Kind::Enter => "an error at the beginning".to_owned(),
            Kind::NoResult => "None is returned".to_owned(),
            Kind::NoError => "nothing is raised".to_owned(),
            Kind::Comparison | Kind::Constant | Kind::Boolean | Kind::Arithmetic => {
                format!("`{}` for `{}`", self.made.trim(), self.shape.trim())
            }
        }
    }

    /// Puts the change there, in effect where the switch says `number`.
    pub(super) fn edit(&self, number: usize, edits: &mut Edits) {
        let on = format!("__import__(\"os\").environ.get(\"{SWITCH}\") == \"{number}\"");
        match self.kind {
            Kind::Enter => edits.insert(
                self.range.start(),
                format!("if {on}: raise RuntimeError(\"a mutant\"){}{}", self.line_end, self.indent),
            ),
            Kind::NoError => edits.insert(self.range.start(), format!("if not ({on}): ")),
            Kind::Comparison | Kind::Boolean | Kind::Arithmetic | Kind::Constant | Kind::NoResult => edits
                .compose(
                    self.range,
                    vec![
                        Piece::Text(format!("(({}) if {on} else (", self.made)),
                        Piece::source(self.range),
                        Piece::Text("))".to_owned()),
                    ],
                ),
        }
    }
}

/// The places within the definition that stands at `range` of a file.
pub(super) fn sites(file: &SourceFile, range: TextRange, purpose: Purpose) -> Vec<Site> {
    let Some(function) = definition(&file.parsed.syntax().body, range) else { return Vec::new() };
    let mut finder = Finder { file, found: Vec::new(), indent: String::new() };
    match purpose {
        Purpose::Probe => finder.enter(function),
        Purpose::Change => function.body.iter().for_each(|stmt| finder.visit_stmt(stmt)),
    }
    finder.found
}

struct Finder<'a> {
    file: &'a SourceFile,
    found: Vec<Site>,
    indent: String,
}

impl<'a> Finder<'a> {
    fn text(&self, range: TextRange) -> &'a str {
        &self.file.text[range.start().to_usize()..range.end().to_usize()]
    }

    fn add(&mut self, kind: Kind, range: TextRange, shape: String, made: String) {
        let nth = self.found.iter().filter(|site| site.kind == kind).count();
        self.found.push(Site {
            path: self.file.path.clone(),
            kind,
            nth,
            shape,
            range,
            made,
            indent: self.indent.clone(),
            line_end: self.file.line_end(),
        });
    }

    /// The white space before a statement that begins its line.
    fn begins_line(&self, at: TextSize) -> Option<String> {
        let text = &self.file.text[..at.to_usize()];
        let line = &text[text.rfind('\n').map_or(0, |found| found + 1)..];
        line.chars().all(|c| c == ' ' || c == '\t').then(|| line.to_owned())
    }

    fn enter(&mut self, function: &'a StmtFunctionDef) {
        let first = match function.body.as_slice() {
            [Stmt::Expr(doc), next, ..] if doc.value.is_string_literal_expr() => next,
            [first, ..] => first,
            [] => return,
        };
        // A decorated definition begins with its decorators; a generator is entered when it is asked.
        if let Some(indent) = self.begins_line(first.start()) {
            self.indent = indent;
            self.add(Kind::Enter, TextRange::empty(first.start()), String::new(), String::new());
        }
    }

    /// An operation of two parts, with another word between. `false` where that cannot be written.
    fn between(
        &mut self,
        kind: Kind,
        whole: TextRange,
        left: TextRange,
        right: TextRange,
        old: &str,
        new: &str,
    ) -> bool {
        let gap = TextRange::new(left.end(), right.start());
        let is_bracket = |c: char| c.is_whitespace() || c == '(' || c == ')';
        // Comments between the two would hide what follows.
        if self.text(gap).trim_matches(is_bracket) != old || !self.is_whole(whole) {
            return false;
        }
        let before = self.text(TextRange::new(whole.start(), gap.start()));
        let after = self.text(TextRange::new(gap.end(), whole.end()));
        let made =
            format!("{before}{}{after}", self.text(gap).replacen(old, new, 1)).replace(['\r', '\n'], " ");
        self.add(kind, whole, self.text(whole).to_owned(), made);
        true
    }
}

impl<'a> Visitor<'a> for Finder<'a> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            // What is within counts as its own, and loops that never end are not made.
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) | Stmt::While(_) | Stmt::Match(_) => return,
            Stmt::Expr(doc) if doc.value.is_string_literal_expr() => return,
            Stmt::Raise(raise) if raise.exc.is_some() => {
                if let Some(indent) = self.begins_line(stmt.start()) {
                    self.indent = indent;
                    self.add(Kind::NoError, TextRange::empty(stmt.start()), String::new(), String::new());
                }
                return;
            }
            Stmt::Return(returned) => {
                if let Some(value) = &returned.value
                    && !value.is_none_literal_expr()
                    && !has_star(value)
                {
                    // What is computed here is changed rather than left out.
                    if matches!(
                        value.as_ref(),
                        Expr::Compare(_)
                            | Expr::BooleanLiteral(_)
                            | Expr::NumberLiteral(_)
                            | Expr::BinOp(_)
                            | Expr::BoolOp(_)
                    ) {
                        let before = self.found.len();
                        self.visit_expr(value);
                        if self.found.len() > before {
                            return;
                        }
                    }
                    let range = value.range();
                    if self.is_whole(range) {
                        self.add(Kind::NoResult, range, String::new(), "None".to_owned());
                        return;
                    }
                }
            }
            Stmt::AnnAssign(assign) => {
                if let Some(value) = &assign.value {
                    self.visit_expr(value);
                }
                return;
            }
            _ => {}
        }
        walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Compare(compare) if compare.ops.len() == 1 => {
                let (old, new) = opposite(compare.ops[0]);
                let right = compare.comparators[0].range();
                if self.between(Kind::Comparison, compare.range, compare.left.range(), right, old, new) {
                    return;
                }
            }
            Expr::BoolOp(both) if both.values.len() == 2 => {
                let (old, new) = if both.op == BoolOp::And { ("and", "or") } else { ("or", "and") };
                let (left, right) = (both.values[0].range(), both.values[1].range());
                if self.between(Kind::Boolean, both.range, left, right, old, new) {
                    return;
                }
            }
            Expr::BinOp(both) => {
                let words = match both.op {
                    Operator::Add => Some(("+", "-")),
                    Operator::Sub => Some(("-", "+")),
                    Operator::Mult => Some(("*", "+")),
                    Operator::Div => Some(("/", "*")),
                    Operator::FloorDiv => Some(("//", "*")),
                    // What `%` and the others do with texts and sets has no opposite.
                    _ => None,
                };
                let (left, right) = (both.left.range(), both.right.range());
                if let Some((old, new)) = words
                    && self.between(Kind::Arithmetic, both.range, left, right, old, new)
                {
                    return;
                }
            }
            Expr::NumberLiteral(literal) => {
                if let Number::Int(value) = &literal.value
                    && let Some(value) = value.as_i64()
                {
                    self.add(
                        Kind::Constant,
                        literal.range,
                        value.to_string(),
                        value.wrapping_add(1).to_string(),
                    );
                }
            }
            Expr::BooleanLiteral(literal) => {
                let (old, new) = if literal.value { ("True", "False") } else { ("False", "True") };
                self.add(Kind::Constant, literal.range, old.to_owned(), new.to_owned());
            }
            // Strings within are pieces of one text; lambdas and comprehensions have scopes that edits may stand in.
            Expr::FString(_) | Expr::TString(_) | Expr::Yield(_) | Expr::YieldFrom(_) | Expr::Await(_) => {
                return;
            }
            _ => {}
        }
        deep(|| walk_expr(self, expr));
    }
}

impl Finder<'_> {
    /// Whether an expression can be put into brackets as it stands.
    fn is_whole(&self, range: TextRange) -> bool {
        let text = self.text(range);
        !text.contains('#') && !text.contains("\\\n") && !text.contains("\\\r")
    }
}

fn has_star(expr: &Expr) -> bool {
    match expr {
        Expr::Tuple(tuple) => tuple.elts.iter().any(Expr::is_starred_expr),
        Expr::Yield(_) | Expr::YieldFrom(_) | Expr::Await(_) => true,
        _ => false,
    }
}

fn opposite(op: CmpOp) -> (&'static str, &'static str) {
    match op {
        CmpOp::Eq => ("==", "!="),
        CmpOp::NotEq => ("!=", "=="),
        CmpOp::Lt => ("<", ">="),
        CmpOp::LtE => ("<=", ">"),
        CmpOp::Gt => (">", "<="),
        CmpOp::GtE => (">=", "<"),
        CmpOp::Is => ("is", "is not"),
        CmpOp::IsNot => ("is not", "is"),
        CmpOp::In => ("in", "not in"),
        CmpOp::NotIn => ("not in", "in"),
    }
}
