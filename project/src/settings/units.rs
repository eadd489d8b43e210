//! Durations and sizes as people write them. A bare number is refused: nobody knows its unit.

use bytesize::ByteSize;
use std::str::FromStr;
use std::time::Duration;

/// `500ms`, `60s`, `1h30m`, `1.5 s`, `2 days`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// `512MiB`, `2 GB`, `1.5GiB`; `512m` and `2g` as in Docker, in powers of two.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
    let number = text[..text.len() - unit.len()].trim_end();
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => return None,
        "k" | "m" | "g" | "t" => format!("{unit}iB"),
        _ => unit.to_owned(),
    };
    let ByteSize(bytes) = format!("{number}{unit}").parse().ok()?;
    (bytes < 1 << 62).then_some(bytes)
}

/// A number of things, of which there must be one at least.
pub fn counted<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| match text.trim().parse::<u64>() {
        Ok(0) => "must be at least 1".to_owned(),
        Ok(_) => format!("{text} is too large"),
        Err(_) => format!("`{text}` is not a whole number"),
    })
}

/// A text that [`parse_duration`] reads back.
pub fn duration_text(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string().replace(' ', "")
}

/// The shortest text that [`parse_size`] reads back to the byte, which `bytesize` rounds.
pub fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// The same for people: two digits or more, and none that nobody reads.
pub fn size_about(bytes: u64) -> String {
    let shift = [30, 20, 10].into_iter().find(|shift| bytes >= 10 << shift).unwrap_or(0);
    size_text(bytes >> shift << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people_have_few_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (9_999, "9999B"),
            (9_076_071, "8863KiB"),
            (45_000_000_000, "41GiB"),
            (20 << 30, "20GiB"),
        ] {
            assert_eq!(size_about(bytes), text);
        }
    }

    #[test]
    fn durations_need_units() {
        for (text, millis) in [
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5 s", Some(1_500)),
            ("250ms", Some(250)),
            ("30min", Some(1_800_000)),
            ("1d", Some(86_400_000)),
            ("60", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn sizes_need_units() {
        for (text, bytes) in [
            ("2GiB", Some(2 << 30)),
            ("512 mib", Some(512 << 20)),
            ("512m", Some(512 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2GB", Some(2_000_000_000)),
            ("7B", Some(7)),
            ("7", None),
            ("GiB", None),
            ("1e30GiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn texts_read_back() {
        for millis in [1, 500, 60_000, 1_800_000, 3_600_000, 90_000, 5_400_000] {
            let text = duration_text(millis);
            assert_eq!(parse_duration(&text).map(|d| d.as_millis() as u64), Some(millis), "{text}");
        }
        for bytes in [1, 512 << 20, 2 << 30, 3 << 29, 1_000_000] {
            let text = size_text(bytes);
            assert_eq!(parse_size(&text), Some(bytes), "{text}");
        }
    }
}
