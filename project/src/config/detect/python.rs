//! What Python's version specifiers and source say, read without an interpreter.

/// Whether Python 3.`minor` satisfies a version specifier (`>=3.9,<3.13`, `^3.8`). A part that is
/// not understood is taken as satisfied.
pub(super) fn satisfies(minor: u32, specifier: &str) -> bool {
    let version = (3, minor);
    specifier.split(',').all(|part| {
        let part = part.trim();
        let digits = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        let (operator, rest) = (part[..digits].trim(), &part[digits..]);
        let mut numbers = rest.split('.').map(|number| number.trim().parse::<u32>());
        let Some(Ok(major)) = numbers.next() else { return true };
        let minor = numbers.next().and_then(Result::ok);
        let patched = numbers.next().is_some_and(|patch| patch.is_ok_and(|patch| patch > 0));
        let wanted = (major, minor.unwrap_or(0));
        match operator {
            ">=" | "^" => version >= wanted && (operator != "^" || version.0 == major),
            // The newest patch of an image's version is greater than any named here.
            ">" => version > wanted || (version == wanted && patched),
            "<=" => version <= wanted,
            // `<3.12.4` leaves no room for the newest 3.12.
            "<" => version < wanted,
            "~=" | "~" if minor.is_some() && (operator == "~" || rest.matches('.').count() > 1) => {
                version == wanted
            }
            "~=" | "~" => version >= wanted && version.0 == major,
            "==" | "===" | "" => version.0 == major && minor.is_none_or(|minor| version.1 == minor),
            "!=" => patched || minor.is_none_or(|minor| version != (major, minor)),
            _ => true,
        }
    })
}

/// The value of `keyword="..."` in Python source, where it is a plain string.
pub(super) fn keyword(source: &str, keyword: &str) -> Option<String> {
    source.match_indices(keyword).find_map(|(at, _)| {
        let starts_word = !source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        let value = source[at + keyword.len()..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| starts_word && matches!(c, '\'' | '"'))?;
        let text = &value[1..];
        let end = text.find(quote)?;
        (end > 0 && !text[..end].contains('\n')).then(|| text[..end].to_owned())
    })
}

/// The names that `extras_require` of a `setup.py` seems to declare, with the text of each.
pub(super) fn extras(source: &str) -> Vec<(String, String)> {
    let Some(at) = source.find("extras_require") else { return Vec::new() };
    let rest = &source[at..];
    let end = rest.find('}').unwrap_or(rest.len());
    let mut found = Vec::new();
    let mut pieces = rest[..end].split(['\'', '"']);
    let mut name = String::new();
    let mut text = String::new();
    // Every second piece stands in quotes; a name is followed by a colon.
    pieces.next();
    while let (Some(quoted), Some(after)) = (pieces.next(), pieces.next()) {
        if after.trim_start().starts_with(':') {
            if !name.is_empty() {
                found.push((std::mem::take(&mut name), std::mem::take(&mut text)));
            }
            name = quoted.to_owned();
        } else {
            text.push_str(quoted);
            text.push('\n');
        }
    }
    if !name.is_empty() {
        found.push((name, text));
    }
    found
}

/// The plain strings of `keyword=[...]`.
pub(super) fn list(source: &str, keyword: &str) -> Vec<String> {
    let Some(at) = source.find(&format!("{keyword}=")).or_else(|| source.find(&format!("{keyword} =")))
    else {
        return Vec::new();
    };
    let value = source[at + keyword.len()..].trim_start().trim_start_matches('=').trim_start();
    let Some(end) = value.strip_prefix(['[', '(']).and_then(|value| value.find([']', ')'])) else {
        return Vec::new();
    };
    value[1..=end].split(['\'', '"']).skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::MINORS;
    use super::*;

    #[test]
    fn the_image_follows_the_required_python() {
        for (required, minor) in [
            ("", 12),
            (">=3.8", 12),
            (">=3.13", 13),
            (">3.12", 13),
            (">=3.9,<3.12", 11),
            (">=3.9, <3.11, !=3.10.*", 9),
            ("<4", 12),
            ("^3.8", 12),
            ("~=3.10", 12),
            ("~=3.10.0", 10),
            ("==3.11.*", 11),
            ("<=3.10", 10),
            ("3.9.*", 9),
            ("nonsense", 12),
            (">=2.7, !=3.0.*, !=3.1.*", 12),
            ("<3", 12),
        ] {
            let found = MINORS.into_iter().find(|minor| satisfies(*minor, required)).unwrap_or(MINORS[0]);
            assert_eq!(found, minor, "{required}");
        }
    }

    #[test]
    fn setup_py_is_read_without_being_run() {
        let source = "setup(\n  name = 'thing', filename='no', python_requires=\">=3.9\",\n  extras_require={\"test\": ['x', 'y'], 'docs' : []},\n tests_require=['pytest-mock'])";
        assert_eq!(keyword(source, "name").as_deref(), Some("thing"));
        assert_eq!(keyword(source, "python_requires").as_deref(), Some(">=3.9"));
        assert_eq!(keyword("name=NAME", "name"), None);
        let extra = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(extras(source), [extra("test", "x\ny\n"), extra("docs", "")]);
        assert_eq!(list(source, "tests_require"), ["pytest-mock"]);
        assert_eq!(list("tests_require=REQUIRED", "tests_require"), Vec::<String>::new());
    }
}
