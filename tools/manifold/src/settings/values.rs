//! Sizes and times as people write them: `10 GiB`, `500 MB`, `10 s`, `2 min`.

use std::time::Duration;

const SIZES: &[(&str, u64)] = &[
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const MILLISECONDS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a number of bytes: `10 GiB`, `1.5 GB`, `4096`. `None` if it is none, or more than fits.
pub(crate) fn size(text: &str) -> Option<u64> {
    match text.trim().parse::<u64>() {
        Ok(bytes) => Some(bytes),
        Err(_) => scaled(text, SIZES),
    }
}

/// Reads a span of time, whose unit must be there: `10 s`, `500 ms`, `1.5 h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    scaled(text, MILLISECONDS).map(Duration::from_millis)
}

/// Writes bytes with the largest unit that needs no fraction.
pub(super) fn show_size(bytes: u64) -> String {
    let exact = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match exact {
        Some((unit, shift)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// Writes a span of time with the largest unit that needs no fraction.
pub(crate) fn show_duration(span: Duration) -> String {
    let ms = span.as_millis();
    let (unit, length) = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)]
        .into_iter()
        .find(|(_, length)| ms > 0 && ms.is_multiple_of(*length))
        .unwrap_or(("ms", 1));
    format!("{} {unit}", ms / length)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    let total = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale) + part;
    u64::try_from(total).ok()
}
