//! Import statements, and what the names they bind stand for afterwards.

use crate::adapt::Context;
use crate::changes::Changes;
use crate::edits::Edits;
use crate::python::symbols::{Target, absolute, join};
use crate::python::walk::{Handler, Into, Place};
use ruff_python_ast::{Alias, Expr, Stmt, StmtImport, StmtImportFrom};
use ruff_text_size::{Ranged, TextSize};
use std::collections::{BTreeSet, HashMap};

/// What a bound name stands for in the rewritten file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rebound {
    /// What it is called there.
    pub(super) name: String,
    /// The dotted path it stands for.
    pub(super) path: String,
    /// After which byte a further import may be put, and the white space before it.
    pub(super) after: (TextSize, String),
}

/// By scope and old name.
pub(super) type Bindings = HashMap<(usize, String), Rebound>;

/// Reads and rewrites the imports of one file.
pub(super) struct Imports<'a, 'c> {
    context: &'c Context<'a>,
    changes: &'c Changes,
    edits: Edits,
    bindings: Bindings,
    /// Names that renamed imports have taken.
    taken: BTreeSet<String>,
}

impl<'a, 'c> Imports<'a, 'c> {
    pub(super) fn new(context: &'c Context<'a>, changes: &'c Changes) -> Self {
        Self { context, changes, edits: Edits::default(), bindings: Bindings::new(), taken: BTreeSet::new() }
    }

    /// The edits go to `edits`; what names stand for is given back.
    pub(super) fn finish(self, edits: &mut Edits) -> Bindings {
        edits.extend(self.edits);
        self.bindings
    }

    /// The new path of something imported; its own if it is not of the code under test.
    fn new_path(&self, path: &str) -> String {
        if let Some(now) = self.changes.new_path(path) {
            return now;
        }
        // Not defined as far as can be seen (made at run time, say): it went where its module went.
        if self.changes.old.resolve(path).is_none()
            && let Some((module, name)) = path.rsplit_once('.')
            && let Some(Target::Module(module)) = self.changes.old.resolve(module)
            && let Some(now) = self.changes.matching.modules.get(&module)
            && *now != module
        {
            return join(now, name);
        }
        path.to_owned()
    }

    fn plain(&mut self, import: &StmtImport, place: &Place<'_>) {
        let after = self.after(import.range.start(), import.range.end());
        for alias in &import.names {
            let path = alias.name.id.as_str();
            let now = self.new_path(path);
            if now != path {
                self.edits.replace(alias.name.range, now.clone());
            }
            let first = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
            let (local, name, stands_for) = match &alias.asname {
                Some(asname) => (asname.id.to_string(), asname.id.to_string(), now),
                None => (first(path), first(&now), first(&now)),
            };
            self.bindings
                .insert((place.scope, local), Rebound { name, path: stands_for, after: after.clone() });
        }
    }

    /// What the import of `new` is to be called in the file, where the name bound so far is `old`.
    fn local_name(&mut self, old: &str, new: &str) -> String {
        if old == new {
            return old.to_owned();
        }
        if self.context.scopes.binds(new) && !self.taken.contains(new) {
            return old.to_owned();
        }
        self.taken.insert(new.to_owned());
        new.to_owned()
    }

    fn from(&mut self, import: &StmtImportFrom, place: &Place<'_>) {
        let written = import.module.as_ref().map(|module| module.id.as_str());
        let Some(from) = absolute(&self.context.package, import.level, written) else { return };
        let after = self.after(import.range.start(), import.range.end());
        if import.names.first().is_some_and(|alias| alias.name.id.as_str() == "*") {
            let now = self.new_path(&from);
            if now != from {
                self.module(import, &now);
            }
            return;
        }
        let mut parts: Vec<Part<'_>> = Vec::new();
        for alias in &import.names {
            let name = alias.name.id.as_str();
            let now = self.new_path(&join(&from, name));
            let (module, new_name) = match now.rsplit_once('.') {
                Some((module, name)) => (module.to_owned(), name.to_owned()),
                None => (String::new(), now.clone()),
            };
            let local = match &alias.asname {
                Some(asname) => asname.id.to_string(),
                None => self.local_name(name, &new_name),
            };
            let old_local = alias.asname.as_ref().map_or(name, |asname| asname.id.as_str());
            self.bindings.insert(
                (place.scope, old_local.to_owned()),
                Rebound { name: local.clone(), path: now, after: after.clone() },
            );
            parts.push(Part { alias, module, name: new_name, local });
        }
        let modules: Vec<&str> = parts.iter().fold(Vec::new(), |mut seen, part| {
            if !seen.contains(&part.module.as_str()) {
                seen.push(&part.module);
            }
            seen
        });
        if let [only] = modules.as_slice()
            && !only.is_empty()
        {
            if *only != from {
                let only = (*only).to_owned();
                self.module(import, &only);
            }
            for part in &parts {
                part.edit(&mut self.edits);
            }
            return;
        }
        // Several modules hold now what one held: one statement for each, what stayed first.
        let mut order = modules.clone();
        order.sort_by_key(|module| *module != from);
        let statements: Vec<String> = order
            .iter()
            .map(|module| {
                let names: Vec<String> =
                    parts.iter().filter(|part| part.module == *module).map(Part::text).collect();
                if module.is_empty() {
                    return format!("import {}", names.join(", "));
                }
                format!("from {} import {}", self.spelled(import, &from, module), names.join(", "))
            })
            .collect();
        let separator = format!("{}{}", self.line_end(), after.1);
        self.edits.replace(import.range, statements.join(&separator));
    }

    /// Puts another module into the statement.
    fn module(&mut self, import: &StmtImportFrom, now: &str) {
        let written = import.module.as_ref().map(|module| module.id.as_str());
        let from = absolute(&self.context.package, import.level, written).unwrap_or_default();
        let text = self.spelled(import, &from, now);
        // From the first dot or name after `from` up to `import`.
        let source = &self.context.file.text;
        let start = import.range.start().to_usize();
        let begin = start + "from".len() + source[start + "from".len()..].len()
            - source[start + "from".len()..].trim_start_matches([' ', '\t', '\\', '\n', '\r']).len();
        let end = match &import.module {
            Some(module) => module.range.end().to_usize(),
            None => {
                let dots = source[begin..].bytes().take_while(|byte| *byte == b'.' || *byte == b' ').count();
                begin + source[begin..begin + dots].trim_end().len()
            }
        };
        let at = |byte: usize| TextSize::try_from(byte).expect("files are bounded");
        self.edits.replace(ruff_text_size::TextRange::new(at(begin), at(end)), text);
    }

    /// `module` as the statement would write it: relative, if it was.
    fn spelled(&self, import: &StmtImportFrom, from: &str, module: &str) -> String {
        if module == from || import.level == 0 {
            return if import.level == 0 {
                module.to_owned()
            } else {
                format!(
                    "{}{}",
                    ".".repeat(import.level as usize),
                    import.module.as_ref().map_or("", |name| name.id.as_str())
                )
            };
        }
        let package: Vec<&str> = self.context.package.split('.').filter(|part| !part.is_empty()).collect();
        let parts: Vec<&str> = module.split('.').collect();
        let common = package.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        if common == 0 {
            return module.to_owned();
        }
        format!("{}{}", ".".repeat(package.len() - common + 1), parts[common..].join("."))
    }

    fn line_end(&self) -> &'static str {
        self.context.file.line_end()
    }

    fn after(&self, start: TextSize, end: TextSize) -> (TextSize, String) {
        let text = &self.context.file.text;
        let line = text[..start.to_usize()].rfind('\n').map_or(0, |at| at + 1);
        let indent: String =
            text[line..start.to_usize()].chars().take_while(|c| *c == ' ' || *c == '\t').collect();
        (end, indent)
    }
}

struct Part<'a> {
    alias: &'a Alias,
    module: String,
    name: String,
    local: String,
}

impl Part<'_> {
    fn text(&self) -> String {
        if self.name == self.local { self.name.clone() } else { format!("{} as {}", self.name, self.local) }
    }

    fn edit(&self, edits: &mut Edits) {
        if self.alias.asname.is_some() || self.name == self.local {
            if self.name != self.alias.name.id.as_str() {
                edits.replace(self.alias.name.range, self.name.clone());
            }
        } else {
            edits.replace(self.alias.range(), self.text());
        }
    }
}

impl<'a> Handler<'a> for Imports<'a, '_> {
    fn expr(&mut self, _: &'a Expr, _: &Place<'a>) -> Into {
        Into::Past
    }

    fn stmt(&mut self, stmt: &'a Stmt, place: &Place<'a>) {
        match stmt {
            Stmt::Import(import) => self.plain(import, place),
            Stmt::ImportFrom(import) => self.from(import, place),
            _ => {}
        }
    }
}
