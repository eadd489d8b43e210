//! What is Python's: what a tree defines, what its names stand for, how calls bind to signatures.

pub mod calls;
pub mod scopes;
pub mod signature;
pub mod symbols;
pub mod types;
pub mod walk;

use ruff_python_ast::Expr;

/// The names of a chain `a.b.c`, if the expression is one.
pub fn dotted(expr: &Expr) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Attribute(attribute) => {
                names.push(attribute.attr.id.as_str());
                at = &attribute.value;
            }
            Expr::Name(name) => {
                names.push(name.id.as_str());
                names.reverse();
                return Some(names);
            }
            _ => return None,
        }
    }
}

/// The last name of a chain: what a decorator or a base class is called, wherever it comes from.
pub fn last_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Attribute(attribute) => Some(attribute.attr.id.as_str()),
        Expr::Name(name) => Some(name.id.as_str()),
        Expr::Call(call) => last_name(&call.func),
        Expr::Subscript(subscript) => last_name(&subscript.value),
        _ => None,
    }
}

/// Runs `work` with room on the stack for deeply nested sources.
pub fn deep<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(128 << 10, 2 << 20, work)
}
