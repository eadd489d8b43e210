//! Moments as reports write them.

use flakefarm_shared::UnixMicros;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// The moment that a text names, in UTC where it names no zone; none if it names none, or one that no
/// clock shows.
pub(super) fn parse(text: &str) -> Option<UnixMicros> {
    let text = text.trim();
    if text.len() < 19 || text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| without_zone(text))?;
    micros(moment.unix_timestamp_nanos() / 1_000)
}

/// A moment in microseconds since the epoch, if it is one between 2000 and 2100.
pub(super) fn micros(at: i128) -> Option<UnixMicros> {
    const FROM: UnixMicros = 946_684_800_000_000;
    const TO: UnixMicros = 4_102_444_800_000_000;
    UnixMicros::try_from(at).ok().filter(|at| (FROM..TO).contains(at))
}

fn without_zone(text: &str) -> Option<OffsetDateTime> {
    let seconds = text.get(..19)?.replace(' ', "T");
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    PrimitiveDateTime::parse(&seconds, format).ok().map(PrimitiveDateTime::assume_utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_reports_write_them() {
        let ten = 1_793_527_200_000_000;
        let check = |text: &str, expect: Option<UnixMicros>| assert_eq!(parse(text), expect, "{text}");
        check("2026-11-01T10:00:00", Some(ten));
        check("2026-11-01T10:00:00Z", Some(ten));
        check("2026-11-01T11:00:00+01:00", Some(ten));
        check("2026-11-01T10:00:00.5", Some(ten));
        check("2026-11-01T10:00:00.500Z", Some(ten + 500_000));
        check("2026-11-01 10:00:00", Some(ten));
        check("9999-01-01T00:00:00Z", None);
        check("1970-01-01T00:00:00Z", None);
        check("2026-13-01T10:00:00", None);
        check("yesterday at about ten", None);
        check("", None);
    }
}
