//! The answers as JUnit XML: what makes the job fail is a failure, the rest passes and says why.

use super::answers::{Answer, Answered};
use super::render::Checked;
use std::fmt::Write as _;

/// Writes it.
pub(super) fn render(checked: &Checked) -> String {
    let failing = |answered: &&Answered| matches!(answered.answer, Answer::Broken | Answer::Flaky);
    let skipped = |answered: &&Answered| matches!(answered.answer, Answer::Quarantined | Answer::CouldNotRun);
    let (failures, skips) =
        (checked.answers.iter().filter(failing).count(), checked.answers.iter().filter(skipped).count());
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"flakefarm check\" \
         tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skips}\">\n",
        checked.answers.len()
    );
    for answered in &checked.answers {
        let (class, name) = class_and_name(&answered.id);
        let (evidence, message) = (text(&checked.evidence(answered)), text(&answered.message));
        let words = answered.answer.words();
        write!(xml, "    <testcase classname=\"{}\" name=\"{}\">", text(&class), text(name))
            .expect("writing to memory");
        let body = match answered.answer {
            Answer::Broken | Answer::Flaky => {
                format!("<failure type=\"{words}\" message=\"{words}: {evidence}\">{message}</failure>")
            }
            Answer::Quarantined | Answer::CouldNotRun => {
                format!("<skipped message=\"{words}: {evidence}\"/>")
            }
            Answer::Before | Answer::NotReproduced => {
                format!("<system-out>{words}: {evidence}</system-out>")
            }
        };
        writeln!(xml, "{body}</testcase>").expect("writing to memory");
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// As pytest names them: the file as a module, with classes.
fn class_and_name(id: &str) -> (String, &str) {
    // Parameters may hold anything, `::` too.
    let bare = id.find('[').map_or(id, |bracket| &id[..bracket]);
    match bare.rfind("::") {
        Some(place) => {
            let class = id[..place].replace(".py::", ".").replace("::", ".").replace('/', ".");
            (class.trim_end_matches(".py").to_owned(), &id[place + 2..])
        }
        None => (String::new(), id),
    }
}

/// Text that neither ends an attribute nor an element, of characters that XML allows.
fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_their_framework_spells_them_and_stay_names() {
        let split = |id: &str| {
            let (class, name) = class_and_name(id);
            (class, name.to_owned())
        };
        assert_eq!(split("tests/test_a.py::test_x"), ("tests.test_a".to_owned(), "test_x".to_owned()));
        assert_eq!(
            split("tests/test_a.py::TestB::test_x[a::b]"),
            ("tests.test_a.TestB".to_owned(), "test_x[a::b]".to_owned())
        );
        assert_eq!(text("a\"b<c>&\u{1b}"), "a&quot;b&lt;c&gt;&amp;\u{fffd}");
    }
}
