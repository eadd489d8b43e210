//! What somebody may have meant.

/// The known word that `word` most likely is a misspelling of, if it is near one.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let alike = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(&alike, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        for (word, expect) in [
            ("memroy", Some("memory")),
            ("test-timeout", Some("test_timeout")),
            ("colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &["memory", "test_timeout", "cpus"]), expect, "{word}");
        }
    }
}
