//! Durations and sizes as people write them.

use std::time::Duration;

/// `500ms`, `60s`, `30m`, `1h30m`. A bare number is refused: nobody knows its unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let seconds = match &after[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after[unit_end..].trim_start();
    }
    Some(total)
}

/// `512MiB`, `2GiB`, `2 GB`, `1.5GiB`; `m` and `g` as in Docker.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes < 2f64.powi(62)).then_some(bytes as u64)
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// The shortest text that [`parse_duration`] reads back.
pub(super) fn duration_text(millis: u64) -> String {
    match millis {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 && m > 60_000 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m => format!("{m}ms"),
    }
}

/// The shortest text that [`parse_size`] reads back.
pub(super) fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units() {
        for (text, millis) in [
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5 s", Some(1_500)),
            ("250ms", Some(250)),
            ("30min", Some(1_800_000)),
            ("60", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
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
