//! Calls: which argument fills which parameter, and what a call must look like for another signature.

use crate::edits::{Edits, Piece};
use crate::python::signature::{Param, ParamKind, Signature, SignatureChange};
use crate::tree::SourceFile;
use ruff_python_ast::token::TokenKind;
use ruff_python_ast::{Arguments, Expr, ExprCall};
use ruff_text_size::{Ranged, TextRange, TextSize};

/// One argument of a call as it stands in the source.
#[derive(Debug, Clone)]
pub struct Argument<'a> {
    /// The name it is given by, if it is.
    pub keyword: Option<&'a str>,
    /// What is given.
    pub value: &'a Expr,
    /// The whole of it, parentheses included.
    pub range: TextRange,
}

/// The arguments in the order of the source; nothing for a call that unpacks (`*a`, `**k`) or that holds
/// a bare generator.
pub fn arguments<'a>(call: &'a ExprCall, file: &SourceFile) -> Option<Vec<Argument<'a>>> {
    let ranges = elements(&call.arguments, file);
    let mut found: Vec<(TextSize, Option<&str>, &Expr)> = Vec::new();
    for value in &call.arguments.args {
        if matches!(value, Expr::Starred(_))
            || matches!(value, Expr::Generator(generator) if !generator.parenthesized)
        {
            return None;
        }
        found.push((value.start(), None, value));
    }
    for keyword in &call.arguments.keywords {
        let name = keyword.arg.as_ref()?;
        found.push((keyword.range.start(), Some(name.id.as_str()), &keyword.value));
    }
    found.sort_by_key(|(start, ..)| *start);
    if found.len() != ranges.len() {
        return None;
    }
    let whole =
        found.into_iter().zip(ranges).map(|((_, keyword, value), range)| Argument { keyword, value, range });
    Some(whole.collect())
}

/// What stands between the commas of an argument list, comments left out.
fn elements(arguments: &Arguments, file: &SourceFile) -> Vec<TextRange> {
    let mut depth = 0u32;
    let mut found: Vec<TextRange> = Vec::new();
    let mut open: Option<TextRange> = None;
    for token in file.parsed.tokens().in_range(arguments.range) {
        let kind = token.kind();
        match kind {
            TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    continue;
                }
            }
            TokenKind::Comma if depth == 1 => {
                found.extend(open.take());
                continue;
            }
            _ => {}
        }
        if kind.is_trivia() || kind.is_any_newline() {
            continue;
        }
        open = Some(open.map_or(token.range(), |range| range.cover(token.range())));
    }
    found.extend(open);
    found
}

/// The parameter that each argument fills, by place; nothing if the call does not fit.
pub fn bind(signature: &Signature, arguments: &[Argument<'_>]) -> Option<Vec<usize>> {
    let mut positions = signature.positions();
    let variadic = signature.params.iter().position(|param| param.kind == ParamKind::Variadic);
    let keywords = signature.params.iter().position(|param| param.kind == ParamKind::Keywords);
    arguments
        .iter()
        .map(|argument| match argument.keyword {
            None => positions.next().or(variadic),
            Some(name) => {
                signature.place(name).filter(|&place| signature.params[place].is_named()).or(keywords)
            }
        })
        .collect()
}

/// What is given for one parameter of the new signature.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    /// The name it is given by, if it is.
    name: Option<String>,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// That of this argument of the old call.
    Of(usize),
    /// A new one.
    New(String),
}

/// Whether all that was needed to rewrite a call was in the code itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// It was.
    Shown,
    /// A value had to be made up: `None`.
    Assumed,
}

/// Rewrites the arguments of `call` for the new signature. Nothing if that cannot be told, or if there is
/// nothing to rewrite.
pub fn rewrite(
    change: &SignatureChange,
    call: &ExprCall,
    file: &SourceFile,
    edits: &mut Edits,
) -> Option<Ground> {
    let arguments = arguments(call, file)?;
    let places = bind(&change.old, &arguments)?;
    let mut ground = Ground::Shown;
    let by_position = |number: usize| arguments[number].keyword.is_none();

    // What is given for each parameter of the new signature. What goes through `*args` and `**kwargs` stays.
    let mut by_place: Vec<Option<Value>> = vec![None; change.new.params.len()];
    let mut in_order: Vec<(usize, usize)> = Vec::new();
    for (number, &place) in places.iter().enumerate() {
        let Some(to) = change.places[place] else { continue };
        in_order.push((number, to));
        if !matches!(change.new.params[to].kind, ParamKind::Variadic | ParamKind::Keywords) {
            by_place[to] = Some(Value::Of(number));
        }
    }
    for (place, value) in &change.added {
        if value.is_none() {
            ground = Ground::Assumed;
        }
        by_place[*place] = Some(Value::New(value.clone().unwrap_or_else(|| "None".to_owned())));
    }

    // By position as many as come without a gap and were given so before; the others by name.
    let mut result: Vec<Given> = Vec::new();
    let mut done: Vec<bool> = vec![false; change.new.params.len()];
    for place in change.new.positions() {
        let Some(value) = &by_place[place] else { break };
        if matches!(value, Value::Of(number) if !by_position(*number)) {
            break;
        }
        result.push(Given { name: None, value: value.clone() });
        done[place] = true;
    }
    let through_variadic = in_order.iter().any(|&(_, to)| change.new.params[to].kind == ParamKind::Variadic);
    let gap = change.new.positions().any(|place| !done[place]);
    for &(number, to) in &in_order {
        let param = &change.new.params[to];
        let value = Value::Of(number);
        match param.kind {
            ParamKind::Variadic if gap => return None,
            ParamKind::Variadic => result.push(Given { name: None, value }),
            ParamKind::Keywords => {
                result.push(Given { name: arguments[number].keyword.map(str::to_owned), value });
            }
            _ if done[to] => {}
            _ if through_variadic && by_position(number) => return None,
            _ => {
                result.push(Given { name: Some(name_of(param)?), value });
                done[to] = true;
            }
        }
    }
    for (place, _) in &change.added {
        if !done[*place] {
            let value = by_place[*place].clone()?;
            result.push(Given { name: Some(name_of(&change.new.params[*place])?), value });
        }
    }
    emit(&arguments, &result, call, edits).then_some(ground)
}

fn name_of(param: &Param) -> Option<String> {
    param.is_named().then(|| param.name.clone())
}

impl Given {
    /// How it is written: what stays keeps its spelling.
    fn pieces(&self, arguments: &[Argument<'_>]) -> Vec<Piece> {
        match (&self.value, &self.name) {
            (Value::New(text), None) => vec![Piece::Text(text.clone())],
            (Value::New(text), Some(name)) => vec![Piece::Text(format!("{name}={text}"))],
            (Value::Of(number), name) => {
                let argument = &arguments[*number];
                match (argument.keyword, name) {
                    (Some(old), Some(new)) if old != new => {
                        let length = TextSize::try_from(old.len()).expect("files are bounded");
                        let rest = TextRange::new(argument.range.start() + length, argument.range.end());
                        vec![Piece::Text(new.clone()), Piece::source(rest)]
                    }
                    (None, Some(new)) => vec![Piece::Text(format!("{new}=")), Piece::source(argument.range)],
                    _ => vec![Piece::source(argument.range)],
                }
            }
        }
    }
}

/// Turns the old arguments into `result` with as few changes as possible; false if they are the same.
fn emit(arguments: &[Argument<'_>], result: &[Given], call: &ExprCall, edits: &mut Edits) -> bool {
    let written: Vec<Vec<Piece>> = result.iter().map(|given| given.pieces(arguments)).collect();
    let stays = |(new, old): (&Vec<Piece>, &Argument<'_>)| *new == [Piece::source(old.range)];
    let front = written.iter().zip(arguments).all(stays);
    if front && written.len() == arguments.len() {
        return false;
    }
    let in_its_place = |(number, given): (usize, &Given)| given.value == Value::Of(number);
    if written.len() == arguments.len() && result.iter().enumerate().all(in_its_place) {
        for (new, old) in written.into_iter().zip(arguments) {
            if !stays((&new, old)) {
                edits.compose(old.range, new);
            }
        }
        return true;
    }
    if written.len() == arguments.len() {
        // They change places; what stands between them stays.
        let mut pieces: Vec<Piece> = Vec::new();
        for (number, new) in written.into_iter().enumerate() {
            if number > 0 {
                let between =
                    TextRange::new(arguments[number - 1].range.end(), arguments[number].range.start());
                pieces.push(Piece::source(between));
            }
            pieces.extend(new);
        }
        let last = arguments.len() - 1;
        edits.compose(TextRange::new(arguments[0].range.start(), arguments[last].range.end()), pieces);
        return true;
    }
    let joined = |items: &[Vec<Piece>]| {
        let mut pieces: Vec<Piece> = Vec::new();
        for item in items {
            if !pieces.is_empty() {
                pieces.push(Piece::Text(", ".to_owned()));
            }
            pieces.extend(item.iter().cloned());
        }
        pieces
    };
    match arguments.last() {
        Some(last) if front && written.len() > arguments.len() => {
            let mut more = vec![Piece::Text(", ".to_owned())];
            more.extend(joined(&written[arguments.len()..]));
            edits.compose(TextRange::empty(last.range.end()), more);
        }
        Some(last) if !written.is_empty() => {
            edits.compose(TextRange::new(arguments[0].range.start(), last.range.end()), joined(&written));
        }
        Some(_) | None => {
            let mut pieces = vec![Piece::Text("(".to_owned())];
            pieces.extend(joined(&written));
            pieces.push(Piece::Text(")".to_owned()));
            edits.compose(call.arguments.range, pieces);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::signature::First;
    use crate::tree::SourceTree;
    use ruff_python_ast::Stmt;
    use std::collections::HashMap;

    fn signature(source: &str) -> Signature {
        let text = format!("def f({source}): pass\n");
        let parsed = ruff_python_parser::parse_module(&text).unwrap();
        let Stmt::FunctionDef(function) = &parsed.syntax().body[0] else { panic!("a function") };
        Signature::read(&function.parameters, &text, First::Free)
    }

    #[track_caller]
    fn check(old: &str, new: &str, call: &str, expect: Option<&str>) {
        let none = HashMap::new();
        let change = SignatureChange::between(&signature(old), &signature(new), &none, &none).unwrap();
        let tree = SourceTree::new([("t.py".to_owned(), format!("{call}\n").into_bytes())]).unwrap();
        let file = tree.file("t.py").unwrap();
        let Stmt::Expr(stmt) = &file.parsed.syntax().body[0] else { panic!("an expression") };
        let Expr::Call(found) = stmt.value.as_ref() else { panic!("a call") };
        let mut edits = Edits::default();
        let ground = rewrite(&change, found, file, &mut edits);
        let got = ground.map(|_| edits.apply(&file.text).unwrap().trim_end().to_owned());
        assert_eq!(got.as_deref(), expect, "{change:?}");
    }

    #[test]
    fn calls_follow_the_signature() {
        check("a, b", "b, a", "f(1, 2)", Some("f(2, 1)"));
        check("a, b", "b, a", "f(1, b=2)", Some("f(a=1, b=2)"));
        check("a, b", "b, a", "f(a=1, b=2)", None);
        check("a, b", "b, a", "f((1 +\n  2), 3)", Some("f(3, (1 +\n  2))"));
        check("a, b=1", "a, c=0, b=1", "f(1, 2)", Some("f(1, b=2)"));
        check("a, b", "a", "f(1, 2)", Some("f(1)"));
        check("a", "", "f(1,)", Some("f()"));
        check("a, b", "a, *, b", "f(1, 2)", Some("f(1, b=2)"));
        check("a, b", "a, other", "f(1, b = 2)", Some("f(1, other = 2)"));
        check("a", "a, b", "f(1)", Some("f(1, None)"));
        check("a", "a, b", "f(a=1)", Some("f(a=1, b=None)"));
        check("a, c=1", "a, b, c=1", "f(1, 2)", Some("f(1, None, 2)"));
        check("", "b", "f()", Some("f(None)"));
        check("a, b", "b, a", "f(*x)", None);
        check("a, b", "b, a", "f(1, **x)", None);
        check("a, b", "a", "f(1, 2)  # kept", Some("f(1)  # kept"));
    }
}
