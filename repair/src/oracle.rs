//! Proposals that change what a test expects, where the difference of the code shows the new expectation: an exception
//! raised with another text or of another type, a constant with another value. They are proposals and nothing more: only
//! people know whether the change of the code was meant. Where the difference shows no such thing nothing is proposed:
//! code that does something else may well be wrong.

use crate::adapt::FileAdaptation;
use crate::cause::{Cause, CauseKind, Difference, Symptom};
use crate::edits::Edits;
use crate::flaky::Site;
use crate::python::signature::is_portable;
use crate::python::{deep, last_name};
use crate::tree::SourceFile;
use ruff_python_ast::comparable::ComparableExpr;
use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{CmpOp, Expr, ExprCall, ExprStringLiteral, Stmt};
use ruff_text_size::{Ranged, TextRange};

/// Shortest text of an exception that is looked for.
const SHORTEST: usize = 3;
/// Most raising statements of one function that are compared.
const MAX_RAISES: usize = 50;

/// What would be expected instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oracle {
    /// Another text of an exception.
    Message,
    /// Another exception.
    Exception,
    /// Another value.
    Value,
}

impl Oracle {
    /// Its name in reports.
    pub fn word(self) -> &'static str {
        match self {
            Oracle::Message => "expected-message",
            Oracle::Exception => "expected-exception",
            Oracle::Value => "expected-value",
        }
    }
}

/// One proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleChange {
    /// What would be expected instead.
    pub oracle: Oracle,
    /// In a sentence, with what it rests on.
    pub explanation: String,
    /// The file as it would be.
    pub file: FileAdaptation,
}

/// What the test could expect instead, if the change of the code that made it fail was meant.
pub fn propose(symptom: &Symptom<'_>, cause: &Cause, difference: &Difference<'_>) -> Option<OracleChange> {
    let site = Site::find(difference.new, symptom.test)?;
    match cause.kind {
        CauseKind::Constant => value(&site, symptom, cause),
        CauseKind::Exception | CauseKind::Behaviour => raised(&site, cause, difference),
        _ => None,
    }
}

fn made(site: &Site<'_>, edits: &Edits, oracle: Oracle, explanation: String) -> Option<OracleChange> {
    let text = edits.apply(&site.file.text).ok()?;
    ruff_python_parser::parse_module(&text).ok()?;
    let file = FileAdaptation { path: site.file.path.clone(), text };
    Some(OracleChange { oracle, explanation, file })
}

// Values.

/// `assert LEFT == RIGHT` failed, and one side is what the test says: it takes the other.
fn value(site: &Site<'_>, symptom: &Symptom<'_>, cause: &Cause) -> Option<OracleChange> {
    let (left, right) = sides(symptom.message)?;
    let mut literals = Literals { found: Vec::new() };
    site.function.body.iter().for_each(|stmt| literals.visit_stmt(stmt));
    site.function.decorator_list.iter().for_each(|decorator| literals.visit_expr(&decorator.expression));
    let says = |text: &str| -> Vec<TextRange> {
        let Ok(wanted) = ruff_python_parser::parse_expression(text) else { return Vec::new() };
        let wanted = ComparableExpr::from(wanted.expr());
        literals
            .found
            .iter()
            .filter(|expr| ComparableExpr::from(**expr) == wanted)
            .map(|expr| expr.range())
            .collect()
    };
    let (of_left, of_right) = (says(&left), says(&right));
    // One side stands in the test, once, and the other nowhere: then it is clear which is expected, and where.
    let (at, old, new) = match (of_left.as_slice(), of_right.as_slice()) {
        ([], [at]) => (*at, right, left),
        ([at], []) => (*at, left, right),
        _ => return None,
    };
    let parsed = ruff_python_parser::parse_expression(&new).ok()?;
    if !is_portable(parsed.expr()) {
        return None;
    }
    let mut edits = Edits::default();
    edits.replace(at, new.clone());
    let explanation = format!("{} changed: {new} would be expected in place of {old}", cause.subject);
    made(site, &edits, Oracle::Value, explanation)
}

/// The two sides of a failed `assert a == b`, as the message shows them.
fn sides(message: &str) -> Option<(String, String)> {
    let line = message.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("AssertionError:").trim();
        line.strip_prefix("assert ")
    });
    if let Some(line) = line {
        let parsed = ruff_python_parser::parse_expression(line).ok()?;
        let Expr::Compare(compare) = parsed.expr() else { return None };
        if compare.ops.as_ref() != [CmpOp::Eq] {
            return None;
        }
        let text = |range: TextRange| line[range.start().to_usize()..range.end().to_usize()].to_owned();
        return Some((text(compare.left.range()), text(compare.comparators[0].range())));
    }
    // unittest's `1 != 2`.
    let line = message.lines().next()?.trim();
    let (left, right) = line.split_once(" != ")?;
    Some((left.to_owned(), right.split(" : ").next().unwrap_or(right).to_owned()))
}

/// Values that are written out, the largest first.
struct Literals<'a> {
    found: Vec<&'a Expr>,
}

impl<'a> Visitor<'a> for Literals<'a> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        if is_portable(expr) {
            self.found.push(expr);
        }
        deep(|| walk_expr(self, expr));
    }
}

// Exceptions.

/// One `raise`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Raise {
    exception: String,
    texts: Vec<String>,
}

/// Code raises something else now: the test's `raises` and its literals follow.
fn raised(site: &Site<'_>, cause: &Cause, difference: &Difference<'_>) -> Option<OracleChange> {
    let changes = difference.changes;
    let place = changes.new.defined(&cause.subject)?;
    let from = changes.matching.symbols.iter().find(|(_, to)| to.to == place).map(|(&from, _)| from)?;
    let (before, after) = (&changes.old.symbols[from], &changes.new.symbols[place]);
    let old = raises(difference.old.file(&before.file)?, before.range);
    let new = raises(difference.new.file(&after.file)?, after.range);
    let gone: Vec<&Raise> = old.iter().filter(|raise| !new.contains(raise)).collect();
    let come: Vec<&Raise> = new.iter().filter(|raise| !old.contains(raise)).collect();
    let ([gone], [come]) = (gone.as_slice(), come.as_slice()) else { return None };
    let mut look = Expectations::default();
    site.function.body.iter().for_each(|stmt| look.visit_stmt(stmt));
    site.function.decorator_list.iter().for_each(|decorator| look.visit_expr(&decorator.expression));
    if gone.exception != come.exception && gone.texts == come.texts {
        let expected: Vec<&Expr> = look
            .raises
            .iter()
            .filter_map(|call| call.arguments.args.first())
            .filter(|expr| last_name(expr) == Some(gone.exception.as_str()))
            .collect();
        let [only] = expected.as_slice() else { return None };
        let range = match only {
            Expr::Attribute(attribute) => attribute.attr.range,
            Expr::Name(name) if is_known(site, &come.exception) => name.range,
            _ => return None,
        };
        let mut edits = Edits::default();
        edits.replace(range, come.exception.clone());
        let explanation =
            format!("{} raises {} in place of {}", cause.subject, come.exception, gone.exception);
        return made(site, &edits, Oracle::Exception, explanation);
    }
    if gone.exception != come.exception || gone.texts.len() != come.texts.len() {
        return None;
    }
    let mut edits = Edits::default();
    let mut shown = None;
    for (old, new) in gone.texts.iter().zip(&come.texts).filter(|(old, new)| old != new) {
        for text in &look.texts {
            if let Some((at, replacement)) = within(site.file, text, old, new) {
                edits.replace(at, replacement);
                shown = Some((old, new));
            }
        }
    }
    let (old, new) = shown?;
    let explanation = format!("{} says {new:?} in place of {old:?}", cause.subject);
    made(site, &edits, Oracle::Message, explanation)
}

/// Whether a name can be used where the test stands: a built-in exception, or one that the file knows.
fn is_known(site: &Site<'_>, name: &str) -> bool {
    const BUILT_IN: &[&str] = &[
        "ArithmeticError",
        "AssertionError",
        "AttributeError",
        "BufferError",
        "EOFError",
        "FileExistsError",
        "FileNotFoundError",
        "ImportError",
        "IndexError",
        "InterruptedError",
        "KeyError",
        "LookupError",
        "MemoryError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "OSError",
        "OverflowError",
        "PermissionError",
        "RecursionError",
        "ReferenceError",
        "RuntimeError",
        "StopIteration",
        "SyntaxError",
        "SystemError",
        "TimeoutError",
        "TypeError",
        "UnboundLocalError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnicodeError",
        "ValueError",
        "ZeroDivisionError",
    ];
    let imported = site.file.parsed.syntax().body.iter().any(|stmt| match stmt {
        Stmt::ImportFrom(import) => {
            import.names.iter().any(|alias| alias.asname.as_ref().unwrap_or(&alias.name).id.as_str() == name)
        }
        _ => false,
    });
    BUILT_IN.contains(&name) || imported
}

/// Where the literal says a piece of `old`, or more than it, as it is or with a pattern's escapes, and what to put there.
fn within(
    file: &SourceFile,
    literal: &ExprStringLiteral,
    old: &str,
    new: &str,
) -> Option<(TextRange, String)> {
    let [part] = literal.value.as_slice() else { return None };
    let range = part.content_range();
    let source = &file.text[range.start().to_usize()..range.end().to_usize()];
    if new.contains(['"', '\'', '\n', '\r', '\\']) {
        return None;
    }
    let plain = unescaped(source);
    let is_pattern = plain != source;
    let made = if plain.contains(old) { plain.replacen(old, new, 1) } else { piece(&plain, old, new)? };
    (plain.len() >= SHORTEST && made != plain)
        .then(|| (range, if is_pattern { escaped(&made) } else { made }))
}

/// What the piece of `old` has become in `new`, if it covers all that differs between the two, or nothing of it.
fn piece(part: &str, old: &str, new: &str) -> Option<String> {
    let at = old.find(part)?;
    let common = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| -> usize {
        a.zip(b).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum()
    };
    let front = common(&mut old.chars(), &mut new.chars());
    let (old_rest, new_rest) = (&old[front..], &new[front..]);
    let back = common(&mut old_rest.chars().rev(), &mut new_rest.chars().rev());
    let moved = |place: usize| {
        if place <= front {
            Some(place)
        } else if place >= old.len() - back {
            Some(place + new.len() - old.len())
        } else {
            None
        }
    };
    Some(new.get(moved(at)?..moved(at + part.len())?)?.to_owned())
}

fn unescaped(pattern: &str) -> String {
    let mut result = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        result.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    result
}

/// With the escapes that a pattern needs.
fn escaped(text: &str) -> String {
    let mut result = String::new();
    for c in text.chars() {
        if "()[]{}?*+-|^$\\.".contains(c) {
            result.push('\\');
        }
        result.push(c);
    }
    result
}

fn raises(file: &SourceFile, range: TextRange) -> Vec<Raise> {
    let mut found = Raises { range, found: Vec::new() };
    file.parsed.syntax().body.iter().for_each(|stmt| found.visit_stmt(stmt));
    found.found
}

struct Raises {
    range: TextRange,
    found: Vec<Raise>,
}

impl<'a> Visitor<'a> for Raises {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if stmt.range().intersect(self.range).is_none() {
            return;
        }
        if let Stmt::Raise(raise) = stmt
            && self.range.contains_range(stmt.range())
            && self.found.len() < MAX_RAISES
            && let Some(exception) = raise.exc.as_deref().and_then(last_name)
        {
            let mut texts = Texts::default();
            if let Some(Expr::Call(call)) = raise.exc.as_deref() {
                call.arguments.args.iter().for_each(|argument| texts.visit_expr(argument));
            }
            self.found.push(Raise { exception: exception.to_owned(), texts: texts.0 });
        }
        walk_stmt(self, stmt);
    }
}

/// The fixed pieces of a text.
#[derive(Default)]
struct Texts(Vec<String>);

impl<'a> Visitor<'a> for Texts {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::StringLiteral(text) => self.0.push(text.value.to_str().to_owned()),
            Expr::FString(text) => {
                for part in text.value.elements() {
                    if let Some(literal) = part.as_literal() {
                        self.0.push(literal.value.to_string());
                    }
                }
            }
            _ => deep(|| walk_expr(self, expr)),
        }
    }
}

/// What a test expects of exceptions.
#[derive(Default)]
struct Expectations<'a> {
    raises: Vec<&'a ExprCall>,
    texts: Vec<&'a ExprStringLiteral>,
}

impl<'a> Visitor<'a> for Expectations<'a> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Call(call)
                if matches!(last_name(&call.func), Some("raises" | "assertRaises" | "assertRaisesRegex")) =>
            {
                self.raises.push(call);
            }
            Expr::StringLiteral(text) => self.texts.push(text),
            _ => {}
        }
        deep(|| walk_expr(self, expr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::explain;
    use crate::changes::Changes;
    use crate::gates::{Rule, cheats};
    use crate::tree::SourceTree;

    fn tree(code: &str, test: &str) -> SourceTree {
        let files = [("shop.py", code), ("test_shop.py", test)];
        SourceTree::new(files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))).unwrap()
    }

    /// Changes the code, says how the test failed, and compares what the test would become.
    #[track_caller]
    fn check(code: (&str, &str), said: (&str, &str), test: &str, expect: Option<&str>) {
        let (old, new) = (tree(code.0, test), tree(code.1, test));
        let changes = Changes::between(&old, &new);
        let difference = Difference { old: &old, new: &new, changes: &changes };
        let symptom = Symptom {
            test: "test_shop.py::test_it",
            kind: if said.0 == "AssertionError" { "assertion" } else { "exception" },
            phase: "call",
            exception: said.0,
            message: said.1,
            fixture: None,
        };
        let cause = explain(&symptom, Some(&difference)).expect("the cause is found");
        let change = propose(&symptom, &cause, &difference);
        assert_eq!(change.as_ref().map(|change| change.file.text.as_str()), expect, "{cause:?}");
        if let Some(change) = change {
            let objections: Vec<Rule> =
                cheats("test_shop.py", Some(test), Some(&change.file.text), str::to_owned)
                    .into_iter()
                    .map(|violation| violation.rule)
                    .collect();
            assert!(objections.is_empty(), "{objections:?}");
        }
    }

    #[test]
    fn a_constant_with_another_value_is_expected_where_the_test_says_the_old_one() {
        let (old, new) = (
            "RATE = 17\n\ndef bill(n):\n    return n * RATE\n",
            "RATE = 19\n\ndef bill(n):\n    return n * RATE\n",
        );
        let test = "import shop\n\ndef test_it():\n    assert shop.bill(1) == 17\n";
        let said = ("AssertionError", "assert 19 == 17\n +  where 19 = bill(1)");
        check((old, new), said, test, Some(&test.replace("17", "19")));
        let rows = "import pytest, shop\n\n@pytest.mark.parametrize('n, price', [(1, 17), (0, 0)])\ndef test_it(n, price):\n    assert shop.bill(n) == price\n";
        check((old, new), said, rows, Some(&rows.replace("17", "19")));
        // Where the value stands twice, or nowhere, it is not known what to change.
        let twice = "import shop\n\ndef test_it():\n    assert shop.bill(1) == 17\n    assert shop.bill(2) == 17 + 17\n";
        check((old, new), said, twice, None);
    }

    #[test]
    fn another_text_or_type_of_an_exception_is_taken_from_the_code() {
        let code = "def bill(n):\n    if n < 0:\n        raise ValueError(f'{n} is too few (of all)')\n    return n\n";
        let test = "import pytest, shop\n\ndef test_it():\n    with pytest.raises(ValueError, match=r'too few \\(of all\\)'):\n        shop.bill(-1)\n";
        check(
            (code, &code.replace("too few (of all)", "too small (of all)")),
            (
                "AssertionError",
                "Regex pattern did not match.\n Regex: 'too few \\\\(of all\\\\)'\n Input: '-1 is too small (of all)'",
            ),
            test,
            Some(&test.replace("few", "small")),
        );
        let plain = test.replace(" \\(of all\\)", "");
        let (old, new) = (code.replace(" (of all)", ""), code.replace("too few (of all)", "too small"));
        let message = "Regex pattern did not match.\n Regex: 'too few'\n Input: '-1 is too small'";
        check(
            (&old, &new),
            ("AssertionError", message),
            &plain.replace("too few", " is too few"),
            Some(&plain.replace("too few", " is too small")),
        );
        let typed = plain.replace(", match=r'too few'", "");
        check(
            (&old, &old.replace("ValueError", "KeyError")),
            ("KeyError", "'-1 is too few'"),
            &typed,
            Some(&typed.replace("ValueError", "KeyError")),
        );
    }

    #[test]
    fn code_that_does_something_else_is_not_followed() {
        let old = "def bill(n):\n    return n * 17\n";
        let test = "import shop\n\ndef test_it():\n    assert shop.bill(2) == 34\n";
        check(
            (old, "def bill(n):\n    return n * 17 + n\n"),
            ("AssertionError", "assert 36 == 34"),
            test,
            None,
        );
    }
}
