//! The name under which a file is kept whose place was taken by another version.

use std::time::Duration;

/// The longest name, in bytes.
const NAME_MAX: usize = 255;
/// The longest part of a host's name that is shown, in bytes.
const HOST_MAX: usize = 64;
const DAY: Duration = Duration::from_hours(24);

/// Gives `name (conflict YYYY-MM-DD host).ext`, with a number behind the host from the second try on.
pub(crate) fn name(name: &[u8], now_ns: i64, host: &str, attempt: u32) -> Vec<u8> {
    let day = day(now_ns);
    let host: String = host.chars().filter(|it| !it.is_control() && *it != '/').collect();
    let host = cut(host.as_bytes(), HOST_MAX);
    let number = if attempt > 1 {
        format!(" {attempt}")
    } else {
        String::new()
    };
    let mark = [format!(" (conflict {day} ").as_bytes(), host, number.as_bytes(), b")"].concat();
    // A dot at the front begins no extension.
    let dot = name.iter().skip(1).rposition(|byte| *byte == b'.').map(|at| at + 1);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let extension = if extension.len() + mark.len() < NAME_MAX {
        extension
    } else {
        &[]
    };
    let stem = cut(stem, NAME_MAX - mark.len() - extension.len());
    [stem, &mark, extension].concat()
}

/// Tells whether a name may be one under which a file of another name is kept.
pub(crate) fn may_be_kept_as(name: &[u8], kept_as: &[u8]) -> bool {
    const MARK: &[u8] = b" (conflict ";
    let marks = kept_as.windows(MARK.len()).enumerate();
    let mut marks = marks
        .filter(|(at, window)| *at > 0 && *window == MARK)
        .map(|(at, _)| at);
    marks.any(|at| {
        let (stem, rest) = kept_as.split_at(at);
        let Some(end) = rest.iter().rposition(|byte| *byte == b')') else {
            return false;
        };
        let extension = &rest[end + 1..];
        // Of a long name, only the beginning is kept: not a character more would fit.
        let was_cut = kept_as.len() + 4 > NAME_MAX && name.len() > stem.len() + extension.len();
        [stem, extension].concat() == name || was_cut && name.starts_with(stem) && name.ends_with(extension)
    })
}

/// Gives the day of a time, in UTC, as `YYYY-MM-DD`.
pub(crate) fn day(now_ns: i64) -> String {
    let (year, month, day) = date(now_ns.div_euclid(DAY.as_nanos() as i64));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Shortens text, not in the middle of a character.
fn cut(text: &[u8], length: usize) -> &[u8] {
    if text.len() <= length {
        return text;
    }
    let mut end = length;
    while end > 0 && text[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    &text[..end]
}

/// Gives the date of a day counted from 1970-01-01, after Howard Hinnant's `civil_from_days`.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_under_which_a_file_is_kept_is_recognised() {
        let long = ["x".repeat(250), ".txt".to_owned()].concat();
        for own in ["f.txt", "f", ".hidden", "a (b).tar", &long] {
            let kept_as = name(own.as_bytes(), 0, "host", 2);
            assert!(may_be_kept_as(own.as_bytes(), &kept_as), "{own}");
            for other in ["", "readme.txt", "f.jpg", "ff.txt", ".h"] {
                assert!(!may_be_kept_as(other.as_bytes(), &kept_as), "{other} {own}");
            }
        }
        assert!(!may_be_kept_as(b"f", b"f"));
    }

    const NOON: i64 = 1_709_208_000_000_000_000; // 2024-02-29 12:00 UTC

    fn named(text: &str, attempt: u32) -> String {
        String::from_utf8(name(text.as_bytes(), NOON, "desk", attempt)).unwrap()
    }

    #[test]
    fn the_mark_stands_before_the_extension() {
        assert_eq!(named("a.tar.gz", 1), "a.tar (conflict 2024-02-29 desk).gz");
        assert_eq!(named("notes", 1), "notes (conflict 2024-02-29 desk)");
        assert_eq!(named(".profile", 2), ".profile (conflict 2024-02-29 desk 2)");
    }

    #[test]
    fn days_before_1970_and_leap_days_have_their_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(-1), (1969, 12, 31));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(-719_468), (0, 3, 1));
    }

    #[test]
    fn the_name_is_never_too_long_nor_cut_within_a_character() {
        for text in [
            "ä".repeat(127),
            "x".repeat(255),
            format!("a.{}", "y".repeat(253)),
            "d".repeat(250) + ".ext",
        ] {
            let long = name(text.as_bytes(), NOON, &"höst/".repeat(30), 1_000);
            assert!(long.len() <= NAME_MAX && !long.contains(&b'/'), "{}", long.len());
            assert!(String::from_utf8(long).is_ok());
        }
        assert!(named(&("d".repeat(250) + ".ext"), 1).ends_with("desk).ext"));
    }
}
