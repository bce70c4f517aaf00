//! The values of settings: checked, and brought to one spelling.
//!
//! A message of this file never holds the value itself: what was meant to be a harmless setting may be a password
//! that went astray.

use std::time::Duration;

use url::Url;

use super::table::ValueKind;

const BLOCK_SIZE_MIN: u32 = 64 * 1024;
const BLOCK_SIZE_MAX: u32 = 16 * 1024 * 1024;

/// Checks a value and gives its one spelling, or says what was expected.
pub(super) fn canonical(kind: ValueKind, value: &str) -> Result<String, String> {
    match kind {
        ValueKind::Text if value.is_empty() => Err("it is empty".into()),
        ValueKind::Text if value.chars().any(char::is_control) => Err("it holds a control character".into()),
        ValueKind::Flag => match value {
            "true" | "false" => Ok(value.into()),
            _ => Err("expected `true` or `false`".into()),
        },
        ValueKind::Count(least, most) => match value.parse::<u32>() {
            Ok(count) if (least..=most).contains(&count) => Ok(count.to_string()),
            _ => Err(format!("expected a whole number from {least} to {most}")),
        },
        ValueKind::BlockSize => block_size(value)
            .map(|bytes| bytes.to_string())
            .ok_or_else(|| "expected a power of two from 64KiB to 16MiB".into()),
        ValueKind::Duration => match duration(value) {
            Some(_) => Ok(value.into()),
            None => Err("expected a number and a unit, as in `30s`, `5m`, `2h` or `1d`".into()),
        },
        ValueKind::Url => address(value),
        ValueKind::Path if !value.starts_with('/') => Err("expected an absolute path".into()),
        ValueKind::Path if value.contains('\0') => Err("it holds a NUL".into()),
        ValueKind::Text | ValueKind::Path => Ok(value.into()),
        ValueKind::Choice(words) => {
            if words.contains(&value) {
                Ok(value.into())
            } else {
                Err(format!("expected one of: {}", words.join(", ")))
            }
        }
    }
}

/// Reads `512KiB`, `1MiB` or a number of bytes, where it is a power of two within the bounds.
pub(super) fn block_size(value: &str) -> Option<u32> {
    let (digits, unit) = split_unit(value);
    let factor: u32 = match unit {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    let bytes = digits.parse::<u32>().ok()?.checked_mul(factor)?;
    (bytes.is_power_of_two() && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&bytes)).then_some(bytes)
}

/// Reads `30s`, `5m`, `2h` or `1d`; at least a second, at most ten years.
pub(super) fn duration(value: &str) -> Option<Duration> {
    const MOST_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;
    let (digits, unit) = split_unit(value);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=MOST_SECONDS)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

fn split_unit(value: &str) -> (&str, &str) {
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(end);
    (digits, unit.trim_start())
}

fn address(value: &str) -> Result<String, String> {
    let url = Url::parse(value).map_err(|error| format!("expected an http:// or https:// address ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("expected an http:// or https:// address".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address takes no user or password; give them as settings of their own".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an address takes no `?` or `#`".into());
    }
    Ok(url.as_str().trim_end_matches('/').into())
}
