//! What Python and its test frameworks say when something is missing or not as expected, read from the
//! exception and its message. Wordings of CPython 3.8 to 3.14, `unittest.mock` and pytest; whatever else is said is
//! [`Said::Other`]: nothing is concluded from words that are not known.

/// What one failure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A module cannot be found: its dotted name.
    NoModule(String),
    /// A module lacks a name.
    CannotImport {
        /// The name.
        name: String,
        /// The module, if it is said.
        module: Option<String>,
    },
    /// Something lacks an attribute.
    NoAttribute {
        /// The module, or the type of the object, as said.
        owner: String,
        /// The attribute.
        name: String,
        /// Whether it was to be replaced by a mock.
        patched: bool,
    },
    /// A call does not fit the function's parameters: its qualified name.
    BadCall(String),
    /// A coroutine stands where its result was wanted, or the other way about: the function's name, if it is said.
    Coroutine(Option<String>),
    /// No such name.
    NoName(String),
    /// No such fixture.
    NoFixture(String),
    /// An exception was expected and did not come.
    DidNotRaise,
    /// An exception came with another message than expected.
    OtherMessage,
    /// No such program.
    NoProgram(String),
    /// No such file or directory.
    NoFile(String),
    /// Permission was refused.
    Denied,
    /// The disk is full.
    DiskFull,
    /// The network, or a service on it, cannot be reached.
    NoNetwork,
    /// Memory ended.
    NoMemory,
    /// Time ended.
    TooLong,
    /// The source cannot be parsed.
    NotParsed,
    /// Two values differ, or something is not true.
    Unequal,
    /// Something else.
    Other,
}

/// Reads the last exception (its full type name) and its message.
pub fn said(exception: &str, message: &str) -> Said {
    let name = exception.rsplit('.').next().unwrap_or(exception);
    let text = message.trim();
    match name {
        "ModuleNotFoundError" | "ImportError" => import(text),
        "AttributeError" => attribute(text),
        "TypeError" => call(text),
        "NameError" | "UnboundLocalError" => quoted_after(text, "name ").map_or(Said::Other, Said::NoName),
        "SyntaxError" | "IndentationError" | "TabError" => Said::NotParsed,
        "MemoryError" => Said::NoMemory,
        "TimeoutError" | "TimeoutExpired" | "CancelledError" => Said::TooLong,
        "FileNotFoundError" => no_file(text),
        "PermissionError" => Said::Denied,
        "gaierror"
        | "herror"
        | "ConnectionRefusedError"
        | "ConnectionResetError"
        | "ConnectionError"
        | "ConnectTimeout"
        | "ConnectError"
        | "URLError"
        | "NewConnectionError"
        | "MaxRetryError" => Said::NoNetwork,
        "OSError" => os_error(text),
        "FixtureLookupError" => quoted_after(text, "fixture ").map_or(Said::Other, Said::NoFixture),
        "AssertionError" | "ComparisonFailure" => assertion(text),
        // pytest's own.
        "Failed" if text.starts_with("DID NOT RAISE") => Said::DidNotRaise,
        "Failed" if text.contains("Timeout") => Said::TooLong,
        _ if text.starts_with("fixture '") => {
            quoted_after(text, "fixture ").map_or(Said::Other, Said::NoFixture)
        }
        _ => Said::Other,
    }
}

/// Reads the report of a file that could not be imported: the last line that names an exception counts.
pub fn said_in_report(report: &str) -> Said {
    let told = report.lines().rev().find_map(|line| {
        let line = line.trim_start_matches("E ").trim();
        let (exception, message) = line.split_once(':')?;
        let is_name = !exception.is_empty()
            && exception.chars().all(|letter| letter.is_alphanumeric() || letter == '.' || letter == '_')
            && exception.rsplit('.').next()?.chars().next()?.is_uppercase();
        let found = is_name.then(|| said(exception, message))?;
        (found != Said::Other).then_some(found)
    });
    told.unwrap_or(Said::Other)
}

fn import(text: &str) -> Said {
    if let Some(name) = quoted_after(text, "cannot import name ") {
        return Said::CannotImport { name, module: quoted_after(text, " from ") };
    }
    quoted_after(text, "No module named ").map_or(Said::Other, Said::NoModule)
}

fn attribute(text: &str) -> Said {
    // unittest.mock: <module 'a.b' from '/x/a/b.py'> does not have the attribute 'c'
    if let (Some(name), true) = (quoted_after(text, "does not have the attribute "), text.starts_with('<')) {
        let owner = quoted_after(text, "<module ").or_else(|| quoted_after(text, "<class "));
        let owner = owner.unwrap_or_default();
        return Said::NoAttribute { owner, name, patched: true };
    }
    let Some(name) = quoted_after(text, "has no attribute ") else { return Said::Other };
    let owner = ["module ", "type object ", ""].iter().find_map(|before| quoted_at(text, before));
    let owner = owner.unwrap_or_default();
    if owner == "coroutine" {
        return Said::Coroutine(None);
    }
    Said::NoAttribute { owner, name, patched: false }
}

fn call(text: &str) -> Said {
    const MISFITS: [&str; 6] = [
        "got an unexpected keyword argument",
        "got multiple values for argument",
        "got some positional-only arguments passed as keyword",
        "missing ",
        "takes ",
        "expected ",
    ];
    if let Some((function, rest)) = text.split_once("() ")
        && MISFITS.iter().any(|misfit| rest.starts_with(misfit))
        && function.chars().all(|letter| letter.is_alphanumeric() || "._<>".contains(letter))
    {
        return Said::BadCall(function.to_owned());
    }
    let awaited = ["can't be used in 'await' expression", "object is not awaitable", "was expected, got"];
    if awaited.iter().any(|words| text.contains(words)) || text.contains("'coroutine'") {
        return Said::Coroutine(None);
    }
    Said::Other
}

fn assertion(text: &str) -> Said {
    if text.starts_with("Regex pattern") || (text.contains("Regex:") && text.contains("Input:")) {
        return Said::OtherMessage;
    }
    if text.contains("not raised") {
        return Said::DidNotRaise;
    }
    if let Some(after) = text.split("<coroutine object ").nth(1) {
        let name = after.split([' ', '>']).next().unwrap_or_default();
        return Said::Coroutine(Some(name.to_owned()).filter(|name| !name.is_empty()));
    }
    Said::Unequal
}

fn no_file(text: &str) -> Said {
    let Some(path) = quoted_after(text, "No such file or directory: ") else { return Said::Other };
    // What `subprocess` cannot start is said by its bare name.
    let is_program = !path.contains('/') && !path.contains('.');
    if is_program { Said::NoProgram(path) } else { Said::NoFile(path) }
}

fn os_error(text: &str) -> Said {
    let number = text.strip_prefix("[Errno ").and_then(|rest| rest.split(']').next());
    match number {
        Some("28" | "122") => Said::DiskFull,
        Some("101" | "110" | "111" | "113") => Said::NoNetwork,
        Some("12") => Said::NoMemory,
        Some("13" | "1") => Said::Denied,
        _ => Said::Other,
    }
}

/// What stands in quotes right after the first `words`.
fn quoted_after(text: &str, words: &str) -> Option<String> {
    let (_, after) = text.split_once(words)?;
    quoted_at(after, "")
}

/// What stands in quotes after `words` at the beginning.
fn quoted_at(text: &str, words: &str) -> Option<String> {
    let rest = text.strip_prefix(words)?;
    let quote = rest.chars().next().filter(|letter| matches!(letter, '\'' | '"'))?;
    let (inside, _) = rest[1..].split_once(quote)?;
    Some(inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_says_is_read() {
        let no_attribute = |owner: &str, name: &str, patched| Said::NoAttribute {
            owner: owner.to_owned(),
            name: name.to_owned(),
            patched,
        };
        let cases = [
            (
                "builtins.ModuleNotFoundError",
                "No module named 'shop.cart'",
                Said::NoModule("shop.cart".into()),
            ),
            (
                "builtins.ImportError",
                "cannot import name 'total' from 'shop.cart' (/work/shop/cart.py)",
                Said::CannotImport { name: "total".into(), module: Some("shop.cart".into()) },
            ),
            (
                "builtins.AttributeError",
                "module 'shop' has no attribute 'x'",
                no_attribute("shop", "x", false),
            ),
            (
                "builtins.AttributeError",
                "'Cart' object has no attribute 'add'",
                no_attribute("Cart", "add", false),
            ),
            (
                "builtins.AttributeError",
                "type object 'Cart' has no attribute 'of'. Did you mean: 'off'?",
                no_attribute("Cart", "of", false),
            ),
            (
                "builtins.AttributeError",
                "<module 'shop.cart' from '/work/shop/cart.py'> does not have the attribute 'fetch'",
                no_attribute("shop.cart", "fetch", true),
            ),
            ("builtins.AttributeError", "'coroutine' object has no attribute 'price'", Said::Coroutine(None)),
            (
                "builtins.TypeError",
                "Cart.add() got an unexpected keyword argument 'n'",
                Said::BadCall("Cart.add".into()),
            ),
            (
                "builtins.TypeError",
                "total() missing 1 required positional argument: 'rate'",
                Said::BadCall("total".into()),
            ),
            ("builtins.TypeError", "object int can't be used in 'await' expression", Said::Coroutine(None)),
            ("builtins.TypeError", "unsupported operand type(s) for +: 'int' and 'str'", Said::Other),
            (
                "builtins.AssertionError",
                "assert <coroutine object total at 0x7f> == 3",
                Said::Coroutine(Some("total".into())),
            ),
            ("builtins.AssertionError", "assert 3 == 4", Said::Unequal),
            ("builtins.AssertionError", "Regex pattern did not match.", Said::OtherMessage),
            ("_pytest.outcomes.Failed", "DID NOT RAISE <class 'ValueError'>", Said::DidNotRaise),
            (
                "builtins.FileNotFoundError",
                "[Errno 2] No such file or directory: 'git'",
                Said::NoProgram("git".into()),
            ),
            (
                "builtins.FileNotFoundError",
                "[Errno 2] No such file or directory: 'data/a.json'",
                Said::NoFile("data/a.json".into()),
            ),
            ("builtins.OSError", "[Errno 28] No space left on device", Said::DiskFull),
            ("socket.gaierror", "[Errno -3] Temporary failure in name resolution", Said::NoNetwork),
            ("builtins.NameError", "name 'totl' is not defined", Said::NoName("totl".into())),
            ("shop.Error", "anything", Said::Other),
        ];
        for (exception, message, expected) in cases {
            assert_eq!(said(exception, message), expected, "{exception}: {message}");
        }
    }

    #[test]
    fn a_report_says_what_its_last_exception_does() {
        let report = "tests/test_a.py:1: in <module>\n    from shop import total\nE   ImportError: cannot import name 'total' from 'shop' (/work/shop/__init__.py)\n";
        assert_eq!(
            said_in_report(report),
            Said::CannotImport { name: "total".into(), module: Some("shop".into()) }
        );
        assert_eq!(said_in_report("nothing: here\n\u{1b}[31mX\n"), Said::Other);
    }

    #[test]
    fn nothing_is_read_out_of_nonsense() {
        for text in
            ["", "'", "No module named '", "() takes ", "has no attribute '", "é'é has no attribute 'é'"]
        {
            for name in
                ["ImportError", "AttributeError", "TypeError", "FileNotFoundError", "OSError", "NameError"]
            {
                let _read = said(name, text);
            }
        }
    }
}
