//! A test function in its file, and the edits that repairs have in common: a fixture of its own, a statement
//! at its beginning, an import.

use crate::adapt::FileAdaptation;
use crate::edits::Edits;
use crate::tree::{SourceFile, SourceTree};
use ruff_python_ast::{Stmt, StmtClassDef, StmtFunctionDef};
use ruff_text_size::{Ranged, TextSize};
use std::collections::BTreeSet;

/// One test function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) file: &'a SourceFile,
    pub(crate) function: &'a StmtFunctionDef,
}

/// A fixture to be written.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    /// Its name.
    pub(super) name: String,
    /// What it takes: other fixtures.
    pub(super) takes: &'static str,
    /// Its lines, indented by four spaces a level.
    pub(super) body: Vec<String>,
}

impl<'a> Site<'a> {
    /// Finds the function of a pytest node id (`path::Class::name[parameters]`).
    pub(crate) fn find(tree: &'a SourceTree, id: &str) -> Option<Self> {
        let plain = id.split('[').next().unwrap_or(id);
        let mut parts = plain.split("::");
        let path = parts.next()?;
        let file = tree
            .file(path)
            .or_else(|| tree.test_files().find(|file| file.path.ends_with(&format!("/{path}"))))?;
        let names: Vec<&str> = parts.collect();
        let (name, classes) = names.split_last()?;
        let mut body: &[Stmt] = &file.parsed.syntax().body;
        for class in classes {
            body = body.iter().find_map(|stmt| match stmt {
                Stmt::ClassDef(StmtClassDef { name, body, .. }) if name.id.as_str() == *class => {
                    Some(body.as_slice())
                }
                _ => None,
            })?;
        }
        body.iter().find_map(|stmt| match stmt {
            Stmt::FunctionDef(function) if function.name.id.as_str() == *name => {
                Some(Self { file, function })
            }
            _ => None,
        })
    }

    /// The source at a range.
    pub(super) fn text(&self, ranged: &impl Ranged) -> &'a str {
        &self.file.text[ranged.start().to_usize()..ranged.end().to_usize()]
    }

    pub(super) fn line_end(&self) -> &'static str {
        line_end(self.file)
    }

    /// The white space before a byte on its line.
    pub(super) fn indent(&self, at: TextSize) -> &'a str {
        let text = &self.file.text;
        let line = text[..at.to_usize()].rfind('\n').map_or(0, |found| found + 1);
        let rest = &text[line..];
        &rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()]
    }

    /// The first statement that is no docstring.
    pub(super) fn first(&self) -> &'a Stmt {
        let body = &self.function.body;
        match body.as_slice() {
            [Stmt::Expr(doc), next, ..] if doc.value.is_string_literal_expr() => next,
            _ => &body[0],
        }
    }

    /// Puts statements at the beginning of the test.
    pub(super) fn begin_with(&self, lines: &[String], edits: &mut Edits) {
        let at = self.first().start();
        let indent = self.indent(at);
        let end = self.line_end();
        let text: String = lines.iter().map(|line| format!("{line}{end}{indent}")).collect();
        edits.insert(at, text);
    }

    /// Has the test use a fixture, by a mark: that works for functions, methods and `unittest` alike.
    pub(super) fn use_fixture(&self, name: &str, edits: &mut Edits) {
        let start = self.function.start();
        let indent = self.indent(start);
        edits.insert(start, format!("@pytest.mark.usefixtures(\"{name}\"){}{indent}", self.line_end()));
    }
}

/// Writes fixtures after a file's imports, and what they need imported.
pub(super) fn write_fixtures(
    file: &SourceFile,
    fixtures: &[Fixture],
    imports: &BTreeSet<String>,
    edits: &mut Edits,
) {
    let mut all = imports.clone();
    all.insert("pytest".to_owned());
    import(file, &all, edits);
    let end = line_end(file);
    let at = after_imports(file);
    let mut text = String::new();
    for fixture in fixtures {
        text.push_str(&format!(
            "{end}{end}@pytest.fixture{end}def {}({}):{end}",
            fixture.name, fixture.takes
        ));
        for line in &fixture.body {
            if line.is_empty() { text.push_str(end) } else { text.push_str(&format!("    {line}{end}")) }
        }
    }
    edits.insert(at, text);
}

/// Imports modules that the file does not import yet.
pub(super) fn import(file: &SourceFile, modules: &BTreeSet<String>, edits: &mut Edits) {
    let body = &file.parsed.syntax().body;
    let known = |module: &str| {
        body.iter().any(|stmt| match stmt {
            Stmt::Import(import) => {
                import.names.iter().any(|alias| alias.name.id.as_str() == module && alias.asname.is_none())
            }
            _ => false,
        })
    };
    let end = line_end(file);
    let text: String = modules
        .iter()
        .filter(|module| !known(module))
        .map(|module| format!("import {module}{end}"))
        .collect();
    if text.is_empty() {
        return;
    }
    let is_future = |stmt: &&Stmt| matches!(stmt, Stmt::ImportFrom(import) if import.module.as_ref().is_some_and(|module| module.id.as_str() == "__future__"));
    let first =
        body.iter().find(|stmt| matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_)) && !is_future(stmt));
    match first {
        Some(first) => edits.insert(first.start(), text),
        None => edits.insert(after_imports(file), text),
    }
}

/// The beginning of the line after the last import at the top; after the docstring where there is none.
fn after_imports(file: &SourceFile) -> TextSize {
    let mut last = None;
    for (number, stmt) in file.parsed.syntax().body.iter().enumerate() {
        match stmt {
            Stmt::Import(_) | Stmt::ImportFrom(_) => last = Some(stmt.end()),
            Stmt::Expr(doc) if number == 0 && doc.value.is_string_literal_expr() => last = Some(stmt.end()),
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => break,
            _ => {}
        }
    }
    // Without any: before the first statement, behind what stands at the top of a file (a byte order mark, the line
    // that says the encoding).
    let Some(last) = last else {
        let first = file.parsed.syntax().body.first().map_or(file.text.len(), |stmt| stmt.start().to_usize());
        let line = file.text[..first].rfind('\n').map_or(first, |at| at + 1);
        return TextSize::try_from(line).expect("files are bounded");
    };
    let rest = &file.text[last.to_usize()..];
    let line = rest.find('\n').map_or(rest.len(), |at| at + 1);
    TextSize::try_from(last.to_usize() + line).expect("files are bounded")
}

fn line_end(file: &SourceFile) -> &'static str {
    file.line_end()
}

/// The file with the edits made; nothing if there are none, or if they contradict each other.
pub(super) fn edited(file: &SourceFile, edits: &Edits) -> Option<FileAdaptation> {
    if edits.is_empty() {
        return None;
    }
    let text = edits.apply(&file.text).ok()?;
    (text != file.text).then(|| FileAdaptation { path: file.path.clone(), text })
}
