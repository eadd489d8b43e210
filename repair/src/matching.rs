//! Which symbol of the old tree is which one of the new. A pair is taken where the evidence is clear and
//! nothing else comes near; the rest is named, never guessed.
//!
//! Evidence: the tokens of the definitions (Dice's coefficient over the two bags,
//! 2·|A ∩ B| / (|A| + |B|)), the same place or the same name, similar names (Jaro-Winkler), and what the
//! unchanged code around says: where a function that kept its name now uses `b` as often as it used `a`
//! before, `a` has become `b`.

use crate::python::symbols::{Bag, Kind, SymbolTable, join};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Score from which a pair is taken.
const ENOUGH: f64 = 0.75;
/// How far the next best must be behind.
const MARGIN: f64 = 0.08;
/// Score from which a pair is taken that is the only one in its place and kind.
const ENOUGH_ALONE: f64 = 0.6;
/// What the same module or class adds, or the same name in another one.
const SAME: f64 = 0.15;
/// What names that are alike add at most.
const SIMILAR_NAMES: f64 = 0.1;
/// What uses elsewhere add that changed from one name to the other.
const USED_INSTEAD: f64 = 0.2;
/// Most pairs that are compared token by token; beyond it only symbols of one module or one name are.
const MAX_PAIRS: usize = 250_000;

/// One symbol's other self.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Its place in the new table.
    pub to: usize,
    /// How alike they are; 1 and more for the same name in the same place.
    pub score: f64,
}

/// Which is which.
#[derive(Debug, Default)]
pub struct Matching {
    /// Modules of the old tree by name, with their names in the new one.
    pub modules: BTreeMap<String, String>,
    /// Symbols by their places in the old table.
    pub symbols: HashMap<usize, Match>,
    /// Symbols that are in the old tree alone, and of which it is not known what became of them.
    pub lost: Vec<usize>,
    /// Symbols that are in the new tree alone.
    pub found: Vec<usize>,
}

impl Matching {
    /// Compares two tables.
    pub fn between(old: &SymbolTable, new: &SymbolTable) -> Self {
        let mut matching = Self { modules: modules(old, new), ..Self::default() };
        matching.same_names(old, new, |symbol| !old.symbols[symbol].is_member());
        let evidence = used_instead(old, new, &matching);
        matching.leftovers(old, new, &evidence, Level::Top);
        matching.same_names(old, new, |symbol| old.symbols[symbol].is_member());
        let evidence = used_instead(old, new, &matching);
        matching.leftovers(old, new, &evidence, Level::Members);
        let taken: HashSet<usize> = matching.symbols.values().map(|found| found.to).collect();
        // What cannot be read any more is not gone.
        matching.lost = (0..old.symbols.len())
            .filter(|place| {
                !matching.symbols.contains_key(place) && !new.unread.contains(&old.symbols[*place].file)
            })
            .collect();
        matching.found = (0..new.symbols.len()).filter(|place| !taken.contains(place)).collect();
        matching
    }

    /// Where the old symbol would stand in the new tree if only what is around it had changed: the path of
    /// its module or class there.
    fn place_in_new(&self, old: &SymbolTable, new: &SymbolTable, symbol: usize) -> Option<String> {
        let symbol = &old.symbols[symbol];
        if symbol.owner.is_empty() {
            return self.modules.get(&symbol.module).cloned();
        }
        let class = old.defined(&join(&symbol.module, &symbol.owner))?;
        self.symbols.get(&class).map(|found| new.symbols[found.to].path())
    }

    fn same_names(&mut self, old: &SymbolTable, new: &SymbolTable, wanted: impl Fn(usize) -> bool) {
        // Classes come before their members, so that members find the class they are in.
        for place in (0..old.symbols.len()).filter(|&place| wanted(place)) {
            let Some(around) = self.place_in_new(old, new, place) else { continue };
            if let Some(to) = new.defined(&join(&around, &old.symbols[place].name)) {
                let score = 1.0 + dice(&old.symbols[place].bag, &new.symbols[to].bag);
                self.symbols.insert(place, Match { to, score });
            }
        }
    }

    fn leftovers(
        &mut self,
        old: &SymbolTable,
        new: &SymbolTable,
        evidence: &HashMap<(String, String), u32>,
        level: Level,
    ) {
        let taken: HashSet<usize> = self.symbols.values().map(|found| found.to).collect();
        let gone: Vec<usize> = (0..old.symbols.len())
            .filter(|place| level.covers(old, *place) && !self.symbols.contains_key(place))
            .filter(|place| !new.unread.contains(&old.symbols[*place].file))
            .collect();
        let come: Vec<usize> = (0..new.symbols.len())
            .filter(|place| level.covers(new, *place) && !taken.contains(place))
            .collect();
        let narrow = gone.len().saturating_mul(come.len()) > MAX_PAIRS;
        let mut pairs: Vec<Pair> = Vec::new();
        for &from in &gone {
            let before = &old.symbols[from];
            let around = self.place_in_new(old, new, from);
            for &to in &come {
                let after = &new.symbols[to];
                let here = join(&after.module, &after.owner);
                let same_place = around.as_deref() == Some(here.as_str());
                let same_name = before.name == after.name;
                if before.kind != after.kind
                    || (narrow && !same_place && !same_name)
                    // Members that move to another class are another matter than renamed ones.
                    || (level == Level::Members && !same_place)
                {
                    continue;
                }
                let instead = evidence.contains_key(&(before.name.clone(), after.name.clone()));
                let mut score = dice(&before.bag, &after.bag);
                // A value says little: `3` became `3` in every other place, too.
                if before.kind == Kind::Variable && !same_name {
                    score *= 0.75;
                }
                score += if same_place { SAME } else { 0.0 };
                score += if same_name {
                    SAME
                } else {
                    SIMILAR_NAMES * strsim::jaro_winkler(&before.name, &after.name)
                };
                score += if instead { USED_INSTEAD } else { 0.0 };
                pairs.push(Pair { from, to, score, same_place });
            }
        }
        self.take(&pairs, old);
    }

    /// The best pair first, as long as neither side has another that is nearly as good.
    fn take(&mut self, pairs: &[Pair], old: &SymbolTable) {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|&a, &b| {
            pairs[b]
                .score
                .total_cmp(&pairs[a].score)
                .then(pairs[a].from.cmp(&pairs[b].from))
                .then(pairs[a].to.cmp(&pairs[b].to))
        });
        let mut of_from: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut of_to: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, pair) in pairs.iter().enumerate() {
            of_from.entry(pair.from).or_default().push(number);
            of_to.entry(pair.to).or_default().push(number);
        }
        let (mut from_taken, mut to_taken) = (HashSet::new(), HashSet::new());
        for number in order {
            let pair = &pairs[number];
            if pair.score < ENOUGH_ALONE || from_taken.contains(&pair.from) || to_taken.contains(&pair.to) {
                continue;
            }
            let rivals = || {
                of_from[&pair.from].iter().chain(&of_to[&pair.to]).filter(|&&other| {
                    other != number
                        && !from_taken.contains(&pairs[other].from)
                        && !to_taken.contains(&pairs[other].to)
                })
            };
            let next = rivals().map(|&other| pairs[other].score).fold(0.0, f64::max);
            // Alone: neither of the two could be anything else in that place.
            let alone = pair.same_place && !rivals().any(|&other| pairs[other].same_place);
            let enough =
                if alone && old.symbols[pair.from].kind != Kind::Variable { ENOUGH_ALONE } else { ENOUGH };
            if pair.score >= enough && pair.score - next >= MARGIN {
                from_taken.insert(pair.from);
                to_taken.insert(pair.to);
                self.symbols.insert(pair.from, Match { to: pair.to, score: pair.score });
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    Members,
}

impl Level {
    fn covers(self, table: &SymbolTable, place: usize) -> bool {
        table.symbols[place].is_member() == (self == Level::Members)
    }
}

struct Pair {
    from: usize,
    to: usize,
    score: f64,
    same_place: bool,
}

/// Dice's coefficient over two bags; 1 for two empty ones.
pub fn dice(a: &Bag, b: &Bag) -> f64 {
    let size = |bag: &Bag| bag.values().map(|&count| u64::from(count)).sum::<u64>();
    let total = size(a) + size(b);
    if total == 0 {
        return 1.0;
    }
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let common: u64 = small
        .iter()
        .map(|(token, &count)| u64::from(count.min(large.get(token).copied().unwrap_or(0))))
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
    let coefficient = 2.0 * common as f64 / total as f64;
    coefficient
}

fn modules(old: &SymbolTable, new: &SymbolTable) -> BTreeMap<String, String> {
    let mut same: BTreeMap<String, String> = old
        .modules
        .keys()
        .filter(|name| new.modules.contains_key(*name))
        .map(|name| (name.clone(), name.clone()))
        .collect();
    let read = |name: &&String| !new.unread.contains(&old.modules[*name].file);
    let gone: Vec<&String> =
        old.modules.keys().filter(|name| !new.modules.contains_key(*name)).filter(read).collect();
    let come: Vec<&String> = new.modules.keys().filter(|name| !old.modules.contains_key(*name)).collect();
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let parent = |name: &str| name.rsplit_once('.').map_or(String::new(), |(parent, _)| parent.to_owned());
    let mut pairs: Vec<(f64, &String, &String)> = Vec::new();
    for from in &gone {
        for to in &come {
            let (before, after) = (&old.modules[*from].bag, &new.modules[*to].bag);
            // Empty modules (packages, mostly) are told by their names alone.
            let mut score = if before.is_empty() && after.is_empty() { 0.5 } else { dice(before, after) };
            score += if last(from) == last(to) { SAME } else { 0.0 };
            score += if parent(from) == parent(to) { SAME } else { 0.0 };
            score += SIMILAR_NAMES * strsim::jaro_winkler(from, to);
            pairs.push((score, from, to));
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)).then(a.2.cmp(b.2)));
    let mut taken = HashSet::new();
    for (score, from, to) in pairs {
        if score >= ENOUGH && !same.contains_key(from) && !taken.contains(to) {
            taken.insert(to.clone());
            same.insert(from.clone(), to.clone());
        }
    }
    same
}

/// How many functions that are known in both trees use the second name as often as they used the first.
fn used_instead(old: &SymbolTable, new: &SymbolTable, matching: &Matching) -> HashMap<(String, String), u32> {
    let mut found: HashMap<(String, String), u32> = HashMap::new();
    let names =
        |table: &SymbolTable| table.symbols.iter().map(|symbol| symbol.name.clone()).collect::<HashSet<_>>();
    let (old_names, new_names) = (names(old), names(new));
    for (&from, to) in &matching.symbols {
        let (before, after) = (&old.symbols[from].bag, &new.symbols[to.to].bag);
        if old.symbols[from].kind != Kind::Function {
            continue;
        }
        let less: Vec<(&String, u32)> =
            difference(before, after).filter(|(name, _)| old_names.contains(*name)).collect();
        let more: Vec<(&String, u32)> =
            difference(after, before).filter(|(name, _)| new_names.contains(*name)).collect();
        if less.len() > 8 || more.len() > 8 {
            continue;
        }
        for (gone, count) in &less {
            for (come, _) in more.iter().filter(|(_, other)| other == count) {
                *found.entry(((*gone).clone(), (*come).clone())).or_default() += 1;
            }
        }
    }
    found
}

/// Tokens that `a` has oftener than `b`, and by how much.
fn difference<'a>(a: &'a Bag, b: &'a Bag) -> impl Iterator<Item = (&'a String, u32)> {
    a.iter().filter_map(|(token, &count)| {
        let more = count.saturating_sub(b.get(token).copied().unwrap_or(0));
        (more > 0).then_some((token, more))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SourceTree;

    fn table(files: &[(&str, &str)]) -> SymbolTable {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        SymbolTable::read(&SourceTree::new(files).unwrap())
    }

    #[track_caller]
    fn check(old: &[(&str, &str)], new: &[(&str, &str)], path: &str, expect: Option<&str>) {
        let (old, new) = (table(old), table(new));
        let matching = Matching::between(&old, &new);
        let from = old.defined(path).expect("the path is in the old tree");
        let to = matching.symbols.get(&from).map(|found| new.symbols[found.to].path());
        assert_eq!(to.as_deref(), expect, "{matching:?}");
    }

    const BODY: &str =
        "    total = 0\n    for item in items:\n        total += item.price * item.count\n    return total\n";

    #[test]
    fn renamed_and_moved_symbols_are_recognised() {
        let old = format!("def total(items):\n{BODY}def other(x):\n    return [x]\n");
        let renamed = format!("def grand_total(items):\n{BODY}def other(x):\n    return [x]\n");
        check(&[("m.py", &old)], &[("m.py", &renamed)], "m.total", Some("m.grand_total"));
        check(&[("m.py", &old)], &[("m.py", &renamed)], "m.other", Some("m.other"));
        let rest = "def other(x):\n    return [x]\n";
        let moved = format!("def total(items):\n{BODY}");
        check(&[("m.py", &old)], &[("m.py", rest), ("n.py", &moved)], "m.total", Some("n.total"));
        check(&[("p/a.py", &old)], &[("p/b.py", &old)], "p.a.total", Some("p.b.total"));
    }

    #[test]
    fn members_follow_their_class() {
        let old = "class Cart:\n    def add(self, item):\n        self.items.append(item)\n    def drop(self, item):\n        self.items.remove(item)\n";
        let new = "class Basket:\n    def put(self, item):\n        self.items.append(item)\n    def drop(self, item):\n        self.items.remove(item)\n";
        check(&[("m.py", old)], &[("m.py", new)], "m.Cart.drop", Some("m.Basket.drop"));
        check(&[("m.py", old)], &[("m.py", new)], "m.Cart.add", Some("m.Basket.put"));
    }

    #[test]
    fn uses_tell_twins_apart() {
        let old = "A = 1\nB = 1\ndef f():\n    return A\ndef g():\n    return B\n";
        let new = "ALPHA = 1\nBETA = 1\ndef f():\n    return ALPHA\ndef g():\n    return BETA\n";
        check(&[("m.py", old)], &[("m.py", new)], "m.A", Some("m.ALPHA"));
        check(&[("m.py", old)], &[("m.py", new)], "m.B", Some("m.BETA"));
    }

    #[test]
    fn what_is_not_clear_is_not_guessed() {
        let old = "def f(x):\n    return x + 1\n";
        let new = "def g(x):\n    return x + 1\ndef h(x):\n    return x + 1\n";
        check(&[("m.py", old)], &[("m.py", new)], "m.f", None);
        check(
            &[("m.py", old)],
            &[("m.py", "def other(a, b, c):\n    while a:\n        b = c(a)\n")],
            "m.f",
            None,
        );
    }
}
