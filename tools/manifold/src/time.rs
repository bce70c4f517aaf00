//! The clock, and times for people: RFC 3339 in JSON, short in tables.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Gives the nanoseconds since 1970-01-01 UTC.
pub(crate) fn now_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// Writes a time as RFC 3339 in UTC.
pub(crate) fn rfc3339(ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| format!("{ns} ns"), |time| time.to_string())
}

/// Writes a time of 0 as unknown: a source did not tell.
pub(crate) fn told(ns: i64) -> Option<String> {
    (ns != 0).then(|| rfc3339(ns))
}

/// Shortens a time for a table: local, to the minute.
pub(crate) fn short(rfc3339: &str) -> String {
    rfc3339.parse::<Timestamp>().map_or_else(
        |_| rfc3339.to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

/// Shortens a time of today: local, to the second.
pub(crate) fn clock(rfc3339: &str) -> String {
    rfc3339.parse::<Timestamp>().map_or_else(
        |_| rfc3339.to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string(),
    )
}

/// Gives the beginning of a day written as `YYYY-MM-DD`, in UTC.
pub(crate) fn day_ns(day: &str) -> Option<i64> {
    let is_written_so = day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date: Date = day.parse().ok().filter(|_| is_written_so)?;
    let begins = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    i64::try_from(begins.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_at_both_ends_can_be_written() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(i64::MIN), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(told(0), None);
    }
}
