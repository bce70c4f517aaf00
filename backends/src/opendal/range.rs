//! Whether an answer holds the part of an object that was asked for, and no other.
//!
//! The bytes of an answer say nothing of where they come from: those of another part, of the right length, would be taken for
//! the ones that were wanted, and cached.

use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, StatusCode};

/// Finds out why an answer to a request with these headers cannot be believed; `None` if it can.
///
/// The number of bytes is for whoever takes them to compare.
pub(super) fn contradiction(asked: &HeaderMap, status: StatusCode, said: &HeaderMap) -> Option<String> {
    let (first, last) = asked
        .get(RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let first: u64 = first.parse().ok()?;
    // Without an end, all that follows was asked for.
    let last: u64 = last.parse().unwrap_or(u64::MAX);
    match status {
        // All of it, from its beginning.
        StatusCode::OK if first == 0 => None,
        StatusCode::OK => Some(format!(
            "the whole object came back where its part from byte {first} on was asked for"
        )),
        StatusCode::PARTIAL_CONTENT => {
            let told = said.get(CONTENT_RANGE).and_then(|it| it.to_str().ok());
            match told.map(content_range) {
                // The last part of an object may be shorter.
                Some(Some((from, to))) if from == first && (from..=last).contains(&to) => None,
                Some(Some((from, to))) => Some(format!(
                    "bytes {from} to {to} came back where those from {first} to {last} were asked for"
                )),
                Some(None) => Some("which part of the object came back cannot be understood".to_owned()),
                None => Some("the answer does not say which part of the object came back".to_owned()),
            }
        }
        _ => None,
    }
}

/// Reads the first and the last byte of `bytes 0-99/1234`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, _whole) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (from, to) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contradicts(asked: &str, status: u16, said: Option<&str>) -> bool {
        let headers = |name, value: Option<&str>| {
            let pairs = value.map(|value| (name, value.parse().unwrap()));
            pairs.into_iter().collect::<HeaderMap>()
        };
        let status = StatusCode::from_u16(status).unwrap();
        contradiction(&headers(RANGE, Some(asked)), status, &headers(CONTENT_RANGE, said)).is_some()
    }

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        let asked = "bytes=100-199";
        assert!(!contradicts(asked, 206, Some("bytes 100-199/1000")));
        assert!(!contradicts(asked, 206, Some("bytes 100-199/*")));
        assert!(
            !contradicts(asked, 206, Some("bytes 100-149/150")),
            "the object ends there"
        );
        for other in [
            "bytes 0-99/1000",
            "bytes 101-200/1000",
            "bytes 100-299/1000",
            "bytes 100-99/1000",
            "bytes */1000",
            "items 100-199/1000",
            "100-199",
        ] {
            assert!(contradicts(asked, 206, Some(other)), "{other}");
        }
        assert!(contradicts(asked, 206, None), "RFC 9110 asks for the header");
    }

    #[test]
    fn a_whole_object_is_taken_only_where_its_beginning_was_asked_for() {
        assert!(!contradicts("bytes=0-99", 200, None));
        assert!(contradicts("bytes=100-199", 200, None));
        assert!(contradicts("bytes=100-", 200, None));
    }

    #[test]
    fn what_holds_no_part_is_for_others_to_judge() {
        assert!(!contradicts("bytes=100-199", 404, None));
        assert!(!contradicts("bytes=100-199", 416, Some("bytes */50")));
        assert_eq!(
            contradiction(&HeaderMap::new(), StatusCode::OK, &HeaderMap::new()),
            None
        );
    }
}
