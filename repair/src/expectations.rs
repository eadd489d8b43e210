//! Whether a changed test still asks for what it asked for: a conservative look at its tokens. What it finds kept may
//! be applied by itself, as far as everything else speaks for it; what it does not is for a person to see.

use ruff_python_ast::token::TokenKind;
use ruff_python_parser::parse_module;
use ruff_text_size::Ranged as _;

/// What stands for every name: renamed things are not asked for differently.
const NAME: &str = "N";

/// Whether every line of `before` that asserts, expects an exception or lists parameters stands in `after` with
/// other names at most, in the same order, and no literal elsewhere is gone or another one. False where either
/// cannot be read.
pub fn are_kept(before: &str, after: &str) -> bool {
    let (Some(old), Some(new)) = (Asked::read(before), Asked::read(after)) else { return false };
    is_within(&old.lines, &new.lines) && is_within(&old.literals, &new.literals)
}

/// What a file asks for.
struct Asked {
    /// Its logical lines that do, with every name replaced.
    lines: Vec<String>,
    /// All literals of the file.
    literals: Vec<String>,
}

impl Asked {
    fn read(text: &str) -> Option<Self> {
        let parsed = parse_module(text).ok()?;
        let mut asked = Self { lines: Vec::new(), literals: Vec::new() };
        let (mut line, mut asks) = (String::new(), false);
        for token in parsed.tokens() {
            let piece = &text[token.range()];
            match token.kind() {
                TokenKind::Comment | TokenKind::NonLogicalNewline | TokenKind::Indent | TokenKind::Dedent => {
                }
                TokenKind::Newline | TokenKind::EndOfFile => {
                    let done = std::mem::take(&mut line);
                    if asks {
                        asked.lines.push(done);
                    }
                    asks = false;
                }
                TokenKind::Name => {
                    asks |= piece.starts_with("assert")
                        || matches!(piece, "raises" | "warns" | "parametrize" | "match" | "fail");
                    // Which exception is expected is an expectation, too.
                    let is_exception =
                        ["Error", "Exception", "Warning", "Exit"].iter().any(|end| piece.ends_with(end));
                    line.push_str(if is_exception { piece } else { NAME });
                    line.push(' ');
                }
                kind => {
                    asks |= kind == TokenKind::Assert;
                    if matches!(
                        kind,
                        TokenKind::Int
                            | TokenKind::Float
                            | TokenKind::Complex
                            | TokenKind::String
                            | TokenKind::FStringMiddle
                            | TokenKind::True
                            | TokenKind::False
                            | TokenKind::None
                    ) {
                        asked.literals.push(piece.to_owned());
                    }
                    line.push_str(piece);
                    line.push(' ');
                }
            }
        }
        Some(asked)
    }
}

/// Whether all of `few` are among `many`, in their order.
fn is_within(few: &[String], many: &[String]) -> bool {
    let mut rest = many.iter();
    few.iter().all(|one| rest.any(|other| other == one))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "import shop\nimport pytest\n\nRATE = 3\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_a(n):\n    result = shop.total([n], 2)  # twice\n    assert result == n * 2\n    with pytest.raises(ValueError, match='no'):\n        shop.total(None)\n";

    #[track_caller]
    fn check(from: &str, to: &str, expect: bool) {
        assert!(TEXT.contains(from), "{from}");
        assert_eq!(are_kept(TEXT, &TEXT.replacen(from, to, 1)), expect, "{from} -> {to}");
    }

    #[test]
    fn names_and_additions_are_kept_and_expectations_are_not_touched() {
        check("shop.total([n], 2)", "shop.sum_up([n], 2)", true);
        check("shop.total([n], 2)", "shop.total([n], 2, unit=None)", true);
        check("import shop\n", "import os\nimport store as shop\n", true);
        check("# twice", "# three times", true);
        check("    result =", "    import random; random.seed(7)\n    result =", true);
        check("raises(ValueError,", "raises(TypeError,", false);
        check("== n * 2", "== n * 3", false);
        check("== n * 2", "== 2 * n", false);
        check("== n * 2", ">= n * 2", false);
        check("match='no'", "match='yes'", false);
        check("[1, 2])\ndef", "[1, 3])\ndef", false);
        check("RATE = 3", "RATE = 4", false);
        check("[n], 2)", "[n], 4)", false);
        check("    assert result == n * 2\n", "", false);
        check("def test_a", "def (", false);
    }
}
