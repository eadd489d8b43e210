//! Signatures, and how one became another.

use ruff_python_ast::{Expr, ParameterWithDefault, Parameters};
use ruff_text_size::{Ranged, TextRange};
use std::collections::HashMap;

/// How a parameter takes its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// By position only.
    PositionalOnly,
    /// By position or by name.
    Normal,
    /// `*args`.
    Variadic,
    /// By name only.
    KeywordOnly,
    /// `**kwargs`.
    Keywords,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// How it takes its argument.
    pub kind: ParamKind,
    /// The source of its default, if it has one.
    pub default: Option<String>,
    /// The source of its annotation, if it has one.
    pub annotation: Option<String>,
}

impl Param {
    /// Whether an argument by position may reach it.
    pub fn is_positional(&self) -> bool {
        matches!(self.kind, ParamKind::PositionalOnly | ParamKind::Normal)
    }

    /// Whether an argument by name may reach it.
    pub fn is_named(&self) -> bool {
        matches!(self.kind, ParamKind::Normal | ParamKind::KeywordOnly)
    }

    /// Whether a call must give it.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && (self.is_positional() || self.kind == ParamKind::KeywordOnly)
    }
}

/// The parameters of a function as its callers see them: without `self` and `cls`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// In order.
    pub params: Vec<Param>,
}

/// Whether the first parameter is bound by the attribute access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// `self` or `cls`.
    Bound,
    /// A parameter like the others.
    Free,
}

impl Signature {
    /// The names of the parameters, for people.
    pub fn names(&self) -> String {
        self.params.iter().map(|param| param.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Reads a parameter list of a file's `text`.
    pub fn read(parameters: &Parameters, text: &str, first: First) -> Self {
        let source = |range: TextRange| text[range.start().to_usize()..range.end().to_usize()].to_owned();
        let usual = |parameter: &ParameterWithDefault, kind| Param {
            name: parameter.name().id.to_string(),
            kind,
            default: parameter.default().map(|expr| source(expr.range())),
            annotation: parameter.annotation().map(|expr| source(expr.range())),
        };
        let bare = |name: &str, kind| Param { name: name.to_owned(), kind, default: None, annotation: None };
        let mut params: Vec<Param> =
            parameters.posonlyargs.iter().map(|param| usual(param, ParamKind::PositionalOnly)).collect();
        params.extend(parameters.args.iter().map(|param| usual(param, ParamKind::Normal)));
        if first == First::Bound && params.first().is_some_and(Param::is_positional) {
            params.remove(0);
        }
        if let Some(variadic) = &parameters.vararg {
            params.push(bare(&variadic.name.id, ParamKind::Variadic));
        }
        params.extend(parameters.kwonlyargs.iter().map(|param| usual(param, ParamKind::KeywordOnly)));
        if let Some(keywords) = &parameters.kwarg {
            params.push(bare(&keywords.name.id, ParamKind::Keywords));
        }
        Self { params }
    }

    /// The place of the parameter called `name`.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.name == name)
    }

    /// The places that arguments by position fill, in order.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.params.iter().enumerate().filter(|(_, param)| param.is_positional()).map(|(place, _)| place)
    }

    /// Whether there is a parameter of this kind.
    pub fn has(&self, kind: ParamKind) -> bool {
        self.params.iter().any(|param| param.kind == kind)
    }
}

/// How the callers of an old signature reach a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureChange {
    /// The old parameters.
    pub old: Signature,
    /// The new ones.
    pub new: Signature,
    /// For each old place the new one; none: the parameter is gone.
    pub places: Vec<Option<usize>>,
    /// New required parameters by place, with the source of the value that callers are to give where the
    /// new code itself shows one.
    pub added: Vec<(usize, Option<String>)>,
}

impl SignatureChange {
    /// What the old parameter `name` is called now, if it is still there.
    pub fn new_name(&self, name: &str) -> Option<&str> {
        let to = self.places[self.old.place(name)?]?;
        Some(&self.new.params[to].name)
    }

    /// What became of the parameters of `old`, or nothing if no call can tell the two apart. `uses_old` and
    /// `uses_new` count how often each name occurs in the bodies: a renamed parameter is used as often as
    /// before.
    pub fn between(
        old: &Signature,
        new: &Signature,
        uses_old: &HashMap<String, u32>,
        uses_new: &HashMap<String, u32>,
    ) -> Option<Self> {
        let mut places: Vec<Option<usize>> = old
            .params
            .iter()
            .map(|param| new.place(&param.name).filter(|&place| alike(param, &new.params[place])))
            .collect();
        let mut free: Vec<usize> =
            (0..new.params.len()).filter(|place| !places.contains(&Some(*place))).collect();
        let lost: Vec<usize> = (0..places.len()).filter(|&place| places[place].is_none()).collect();
        for &place in &lost {
            let param = &old.params[place];
            let best = free
                .iter()
                .copied()
                .filter(|&other| alike(param, &new.params[other]))
                .map(|other| (kinship(old, place, new, other, uses_old, uses_new), other))
                .max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            let enough = if lost.len() == 1 && free.len() == 1 { 2 } else { 3 };
            if let Some((kinship, other)) = best
                && kinship >= enough
            {
                places[place] = Some(other);
                free.retain(|&left| left != other);
            }
        }
        let added = free
            .into_iter()
            .filter(|&place| new.params[place].is_required())
            .map(|place| (place, None))
            .collect();
        let change = Self { old: old.clone(), new: new.clone(), places, added };
        change.matters().then_some(change)
    }

    /// Whether some call that was right before is not any more, or means something else.
    fn matters(&self) -> bool {
        if !self.added.is_empty() {
            return true;
        }
        let positions: Vec<usize> = self.new.positions().collect();
        let moved = self
            .old
            .positions()
            .enumerate()
            .any(|(nth, place)| self.places[place].is_none_or(|new| positions.get(nth) != Some(&new)));
        let renamed = self.old.params.iter().enumerate().any(|(place, param)| match self.places[place] {
            None => true,
            Some(new) => {
                param.is_named()
                    && (self.new.params[new].name != param.name || !self.new.params[new].is_named())
            }
        });
        moved || renamed
    }
}

fn alike(old: &Param, new: &Param) -> bool {
    let usual = |param: &Param| param.is_positional() || param.kind == ParamKind::KeywordOnly;
    if usual(old) { usual(new) } else { old.kind == new.kind }
}

/// How much speaks for the old parameter being the new one under another name, 0 to 5.
fn kinship(
    old: &Signature,
    place: usize,
    new: &Signature,
    other: usize,
    uses_old: &HashMap<String, u32>,
    uses_new: &HashMap<String, u32>,
) -> u32 {
    let (before, after) = (&old.params[place], &new.params[other]);
    let count = |uses: &HashMap<String, u32>, name: &str| uses.get(name).copied().unwrap_or(0);
    let used_alike = count(uses_old, &before.name) == count(uses_new, &after.name)
        && count(uses_new, &before.name) <= count(uses_old, &after.name);
    let same_place = place == other;
    let same_default = before.default == after.default;
    let same_annotation = before.annotation == after.annotation;
    u32::from(used_alike) * 2
        + u32::from(same_place)
        + u32::from(same_default)
        + u32::from(same_annotation && before.annotation.is_some())
}

/// Whether the source of a value means the same anywhere: literals, and containers of them.
pub fn is_portable(expr: &Expr) -> bool {
    match expr {
        Expr::StringLiteral(_)
        | Expr::BytesLiteral(_)
        | Expr::NumberLiteral(_)
        | Expr::BooleanLiteral(_)
        | Expr::NoneLiteral(_)
        | Expr::EllipsisLiteral(_) => true,
        Expr::UnaryOp(unary) => is_portable(&unary.operand),
        Expr::Tuple(tuple) => tuple.elts.iter().all(is_portable),
        Expr::List(list) => list.elts.iter().all(is_portable),
        Expr::Set(set) => set.elts.iter().all(is_portable),
        Expr::Dict(dict) => dict
            .items
            .iter()
            .all(|item| item.key.as_ref().is_some_and(is_portable) && is_portable(&item.value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruff_python_ast::Stmt;

    fn signature(source: &str) -> Signature {
        let text = format!("def f({source}): pass\n");
        let parsed = ruff_python_parser::parse_module(&text).unwrap();
        let Stmt::FunctionDef(function) = &parsed.syntax().body[0] else { panic!("a function") };
        Signature::read(&function.parameters, &text, First::Free)
    }

    fn change(old: &str, new: &str) -> Option<(Vec<Option<usize>>, Vec<usize>)> {
        let none = HashMap::new();
        SignatureChange::between(&signature(old), &signature(new), &none, &none)
            .map(|change| (change.places, change.added.into_iter().map(|(place, _)| place).collect()))
    }

    #[test]
    fn what_became_of_parameters() {
        assert_eq!(change("a, b", "a, b"), None);
        assert_eq!(change("a, b", "a, b, c=1"), None, "callers need not know");
        assert_eq!(change("a, b", "b, a"), Some((vec![Some(1), Some(0)], vec![])));
        assert_eq!(change("a, b", "a, c"), Some((vec![Some(0), Some(1)], vec![])), "renamed in its place");
        assert_eq!(change("a, b", "a"), Some((vec![Some(0), None], vec![])));
        assert_eq!(change("a, b", "a, *, b"), Some((vec![Some(0), Some(1)], vec![])));
        assert_eq!(change("a", "a, b"), Some((vec![Some(0)], vec![1])));
        assert_eq!(change("a, b=1", "a, c=0, b=1"), Some((vec![Some(0), Some(2)], vec![])));
    }
}
