//! Raw name ⇄ shown name: what a source calls a child, and what the tree may show.
//!
//! Most names pass as they are. A tree cannot show an empty name, `.`, `..`, a name that holds `/` or NUL, one of more
//! than 255 bytes, or two children of one name; such names are escaped with the mark `␛` (U+241B, *symbol for
//! escape*), which hardly any real name holds:
//!
//! | raw | shown |
//! | --- | --- |
//! | the byte `/` or NUL, and each `.` of the names `.` and `..` | `␛2F`, `␛00`, `␛2E␛2E` |
//! | the mark itself | `␛␛` |
//! | the empty name | `␛empty` |
//! | a file beside a directory of its name | the shown name and `␛file` |
//! | more than 255 bytes once shown | its first bytes, `␛~` and 32 hex digits of the BLAKE3 of name and side |
//!
//! Always true: different names of one listing are shown under different names; what [`escape`] gives is a name that
//! every kernel takes; and [`unescape`] gives the raw name back, but for the hashed ones, whose raw name only the
//! catalog's `raw_name` knows.

use std::borrow::Cow;

/// The longest name that a kernel takes, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// U+241B in UTF-8.
const MARK: &[u8] = "\u{241B}".as_bytes();
const EMPTY: &[u8] = b"empty";
const FILE: &[u8] = b"file";
const HASHED: u8 = b'~';
const HASH_DIGITS: usize = 32;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Which of two children of one raw name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The only child of that name, or the directory of the two: shown under the plain name.
    Plain,
    /// The file (or link) that stands beside a directory of its name.
    FileBesideDirectory,
}

/// Gives the name to show for a raw name; borrowed where it can be shown as it is.
pub fn escape(raw: &[u8], side: Side) -> Cow<'_, [u8]> {
    let shown = match side {
        Side::Plain if is_plain(raw) => Cow::Borrowed(raw),
        Side::Plain => Cow::Owned(escape_bytes(raw)),
        Side::FileBesideDirectory => {
            let mut shown = escape_bytes(raw);
            shown.extend_from_slice(MARK);
            shown.extend_from_slice(FILE);
            Cow::Owned(shown)
        }
    };
    if shown.len() <= NAME_BYTES_MAX {
        shown
    } else {
        Cow::Owned(shorten(&shown, raw, side))
    }
}

/// Takes a shown name apart again. `None` where the raw name cannot be told from it: a shortened name, or one that
/// [`escape`] never gives.
pub fn unescape(shown: &[u8]) -> Option<(Vec<u8>, Side)> {
    let mut raw = Vec::with_capacity(shown.len());
    let mut rest = shown;
    let mut side = Side::Plain;
    while let Some(&first) = rest.first() {
        let Some(after) = rest.strip_prefix(MARK) else {
            raw.push(first);
            rest = &rest[1..];
            continue;
        };
        if let Some(after) = after.strip_prefix(MARK) {
            raw.extend_from_slice(MARK);
            rest = after;
        } else if after == FILE {
            side = Side::FileBesideDirectory;
            rest = &[];
        } else if let Some(after) = after.strip_prefix(EMPTY) {
            rest = after;
        } else {
            raw.push(byte_of(after)?);
            rest = &after[2..];
        }
    }
    (escape(&raw, side).as_ref() == shown).then_some((raw, side))
}

/// Tells whether a raw name can be shown as it is, its length apart.
fn is_plain(raw: &[u8]) -> bool {
    // The first byte of the mark is rare in most scripts, so the window search hardly ever runs.
    let may_hold_mark = || raw.contains(&MARK[0]) && raw.windows(MARK.len()).any(|window| window == MARK);
    !raw.is_empty()
        && raw != b"."
        && raw != b".."
        && !raw.iter().any(|&byte| byte == b'/' || byte == 0)
        && !may_hold_mark()
}

fn escape_bytes(raw: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(raw.len() + 16);
    if raw.is_empty() {
        shown.extend_from_slice(MARK);
        shown.extend_from_slice(EMPTY);
    }
    let only_dots = raw == b"." || raw == b"..";
    let mut rest = raw;
    while let Some(&first) = rest.first() {
        if let Some(after) = rest.strip_prefix(MARK) {
            shown.extend_from_slice(MARK);
            shown.extend_from_slice(MARK);
            rest = after;
            continue;
        }
        if first == b'/' || first == 0 || only_dots {
            shown.extend_from_slice(MARK);
            shown.push(HEX[usize::from(first >> 4)]);
            shown.push(HEX[usize::from(first & 15)]);
        } else {
            shown.push(first);
        }
        rest = &rest[1..];
    }
    shown
}

/// Keeps as many first bytes as leave room for the hash, cut where a character ends if the name is UTF-8.
fn shorten(shown: &[u8], raw: &[u8], side: Side) -> Vec<u8> {
    let room = NAME_BYTES_MAX - MARK.len() - 1 - HASH_DIGITS;
    let is_continuation = |at: usize| shown[at] & 0xC0 == 0x80;
    let mut cut = room;
    while cut > room - 4 && is_continuation(cut) {
        cut -= 1;
    }
    if is_continuation(cut) {
        cut = room; // Not UTF-8: four continuation bytes in a row.
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(side == Side::FileBesideDirectory)]);
    hasher.update(raw);
    let hash = hasher.finalize();
    let mut name = shown[..cut].to_vec();
    name.extend_from_slice(MARK);
    name.push(HASHED);
    for byte in &hash.as_bytes()[..HASH_DIGITS / 2] {
        name.push(HEX[usize::from(byte >> 4)]);
        name.push(HEX[usize::from(byte & 15)]);
    }
    name
}

fn byte_of(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| HEX.iter().position(|&hex| hex == digit);
    let (&high, &low) = (digits.first()?, digits.get(1)?);
    u8::try_from(value(high)? * 16 + value(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(raw: &[u8]) -> String {
        String::from_utf8(escape(raw, Side::Plain).into_owned()).unwrap()
    }

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        for name in [
            "a",
            "...",
            ".hidden",
            "..a",
            "späti.txt",
            "new\nline",
            "%2F",
            "\u{241A}",
        ] {
            assert!(matches!(escape(name.as_bytes(), Side::Plain), Cow::Borrowed(same) if same == name.as_bytes()));
        }
        assert!(
            matches!(escape(b"\xFF\xFE", Side::Plain), Cow::Borrowed(_)),
            "names are bytes, not text"
        );
    }

    #[test]
    fn names_that_a_tree_cannot_show_are_escaped() {
        assert_eq!(shown(b""), "␛empty");
        assert_eq!(shown(b"."), "␛2E");
        assert_eq!(shown(b".."), "␛2E␛2E");
        assert_eq!(shown(b"a/b\0c"), "a␛2Fb␛00c");
        assert_eq!(shown("␛2F".as_bytes()), "␛␛2F");
    }

    #[test]
    fn a_file_beside_a_directory_of_its_name_is_told_from_a_file_that_is_called_so() {
        assert_eq!(escape(b"a", Side::FileBesideDirectory).as_ref(), "a␛file".as_bytes());
        assert_eq!(shown("a␛file".as_bytes()), "a␛␛file");
        assert_eq!(
            unescape("a␛file".as_bytes()),
            Some((b"a".to_vec(), Side::FileBesideDirectory))
        );
    }

    #[test]
    fn long_names_are_cut_at_a_character_and_stay_distinct() {
        let fits = vec![b'x'; NAME_BYTES_MAX];
        assert_eq!(escape(&fits, Side::Plain).as_ref(), fits);
        let long = "ü".repeat(200);
        let name = shown(long.as_bytes());
        assert!(name.len() <= NAME_BYTES_MAX && name.starts_with("üü"), "{name}");
        assert_ne!(name, shown(format!("{long}x").as_bytes()));
        assert_ne!(
            name.as_bytes(),
            escape(long.as_bytes(), Side::FileBesideDirectory).as_ref()
        );
        assert_eq!(unescape(name.as_bytes()), None);
        // 250 bytes fit, but not with the suffix.
        let beside = escape(&fits[..250], Side::FileBesideDirectory).into_owned();
        assert!(beside.len() <= NAME_BYTES_MAX);
        assert!(
            escape(&[0x80; 300], Side::Plain).len() <= NAME_BYTES_MAX,
            "bytes that are no text at all"
        );
    }

    #[test]
    fn what_escape_never_gives_is_not_unescaped() {
        for name in ["␛", "␛2", "␛2f", "␛41", "␛emptya", "a␛empty", "␛filex", "a/b"] {
            assert_eq!(unescape(name.as_bytes()), None, "{name}");
        }
    }

    /// Names made of the pieces that matter, so that collisions would be met.
    fn raw_name() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("␛".as_bytes().to_vec()),
            Just(b"/".to_vec()),
            Just(b"\0".to_vec()),
            Just(b".".to_vec()),
            Just(b"2F".to_vec()),
            Just(b"empty".to_vec()),
            Just(b"file".to_vec()),
            Just(b"\xE2".to_vec()),
            Just(b"\x90\x9B".to_vec()),
            Just(b"a".to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn side() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::Plain), Just(Side::FileBesideDirectory)]
    }

    proptest! {
        #[test]
        fn unescape_undoes_escape(raw in raw_name(), side in side()) {
            let name = escape(&raw, side).into_owned();
            prop_assert_eq!(unescape(&name), Some((raw, side)));
        }

        #[test]
        fn different_names_are_shown_differently(one in raw_name(), other in raw_name(), a in side(), b in side()) {
            prop_assume!((&one, a) != (&other, b));
            prop_assert_ne!(escape(&one, a), escape(&other, b));
        }

        #[test]
        fn what_is_shown_is_a_name(raw in prop::collection::vec(any::<u8>(), 0..600), side in side()) {
            let name = escape(&raw, side).into_owned();
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            prop_assert!(name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0));
        }
    }
}
