//! Reads the tables of `docs/statistics.md`, so that its numbers cannot drift from the code.

/// The rows of the first table under the heading that ends with `heading`, as cells of text.
pub(crate) fn rows(heading: &str) -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/statistics.md");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| !(line.starts_with('#') && line.ends_with(heading)))
        .skip_while(|line| !line.starts_with("|--"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "{path} has no table under `{heading}`");
    rows
}

/// `5 %` as 0.05.
pub(crate) fn percent(cell: &str) -> f64 {
    let number = cell.strip_suffix(" %").unwrap_or_else(|| panic!("`{cell}` is not a percentage"));
    number.parse::<f64>().unwrap() / 100.0
}
