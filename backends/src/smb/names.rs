//! Names, in their three forms: the bytes of an [`ObjectPath`], the UTF-16 of the wire, and the path of an `OpenDAL`
//! service.
//!
//! - **Wire.** SMB forbids `" * : < > ? \ |`, control characters and a space or a full stop at the end of a name. They
//!   travel as U+F001 to U+F029, as every client since Services for Macintosh sends them ([`smb2::name`]).
//! - **Bytes.** UTF-8 of the mapped name. A server may hold names that are not UTF-16 (a surrogate without its other
//!   half); such a name is not mapped, and its surrogate is encoded as UTF-8 would encode it (WTF-8), so that it can be
//!   listed and opened like any other.
//! - **`OpenDAL`.** A `str` that the operator trims and normalises. White space, control characters, `%` and what is
//!   not UTF-8 are percent-encoded there, so that it arrives as it was sent.
//!
//! Always true: a name that came from the wire goes back to the wire as it came, in one of at most two forms.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use crate::ObjectPath;

/// The longest path, in bytes: SMB counts the bytes of a path's UTF-16 in 16 bits, and an entry of `OpenDAL` holds at
/// most 64 KiB. Samba and Windows stop earlier.
const PATH_BYTES_MAX: usize = 31 * 1024;

/// The longest path in its `OpenDAL` form, with room left for what else an entry holds.
const OPENDAL_BYTES_MAX: usize = 48 * 1024;

/// A path that no SMB server can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadName {
    /// A part is empty, `.` or `..`.
    #[error("a name is empty, `.` or `..`")]
    Special,
    /// A NUL is in it.
    #[error("a name holds a NUL")]
    Nul,
    /// It is neither UTF-8 nor an encoded surrogate.
    #[error("a name is not Unicode, which SMB demands")]
    NotUnicode,
    /// It is longer than any server takes.
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

/// Gives the wire form of a path: names joined by `\`, empty for the root.
pub(super) fn to_wire(path: &ObjectPath) -> Result<Vec<u16>, BadName> {
    to_wire_with(path, Ends::Mapped)
}

/// Gives the other wire form of a path in which a name ends with a space or a full stop: as it is. Samba lets programs on
/// the server make such names, and sends and takes them so.
pub(super) fn to_wire_with_plain_ends(path: &ObjectPath) -> Option<Vec<u16>> {
    let mut names = path.as_bytes().split(|&byte| byte == b'/');
    let plain = names.any(|name| name.ends_with(b" ") || name.ends_with(b"."));
    plain.then(|| to_wire_with(path, Ends::Plain).ok()).flatten()
}

/// Gives a name as it would travel if nothing in it were mapped, if that is another form. No server opens it; but one that
/// maps nothing either (Samba with `mangled names = no`) lists it.
pub(super) fn unmapped(name: &[u8]) -> Option<Vec<u16>> {
    let name = std::str::from_utf8(name).ok()?;
    (smb2::encode_name(name) != name).then(|| name.encode_utf16().collect())
}

/// What becomes of a space or a full stop at the end of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Mapped,
    Plain,
}

fn to_wire_with(path: &ObjectPath, ends: Ends) -> Result<Vec<u16>, BadName> {
    if path.as_bytes().len() > PATH_BYTES_MAX {
        return Err(BadName::TooLong);
    }
    let mut wire = Vec::with_capacity(path.as_bytes().len());
    if path.is_root() {
        return Ok(wire);
    }
    for (index, name) in path.as_bytes().split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            wire.push(u16::from(b'\\'));
        }
        match name {
            b"" | b"." | b".." => return Err(BadName::Special),
            name if name.contains(&0) => return Err(BadName::Nul),
            name => match std::str::from_utf8(name) {
                Ok(name) if ends == Ends::Plain && name.ends_with([' ', '.']) => {
                    let (name, end) = name.split_at(name.len() - 1);
                    // With something after it, the end of the rest is no end.
                    wire.extend(smb2::encode_name(&format!("{name}x")).encode_utf16());
                    wire.pop();
                    wire.extend(end.encode_utf16());
                }
                Ok(name) => wire.extend(smb2::encode_name(name).encode_utf16()),
                Err(_) => from_wtf8(name, &mut wire)?,
            },
        }
    }
    Ok(wire)
}

/// Gives the bytes of one name of the wire.
pub(super) fn from_wire(name: &[u16]) -> Vec<u8> {
    match String::from_utf16(name) {
        Ok(name) => {
            let plain = smb2::decode_name(&name);
            // The mapping loses a mapped space or full stop that is not the last character, and makes two names that
            // are none out of mapped full stops. Such a name stays mapped, so that it can be opened.
            let back = smb2::encode_name(&plain);
            let plain_end = name.ends_with([' ', '.']) && plain == name;
            if (back == name || plain_end) && plain != "." && plain != ".." {
                plain.into_owned().into_bytes()
            } else {
                name.into_bytes()
            }
        }
        Err(_) => to_wtf8(name),
    }
}

/// Gives the `OpenDAL` path of an object: percent-encoded, with a slash at its end if it is to be a directory.
pub(super) fn to_opendal(path: &ObjectPath, directory: bool) -> Result<String, BadName> {
    if path.is_root() {
        return Ok("/".to_owned());
    }
    let mut text = String::with_capacity(path.as_bytes().len() + 1);
    for chunk in path.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '%' || character.is_whitespace() || character.is_control() {
                escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    if directory {
        text.push('/');
    }
    if text.len() > OPENDAL_BYTES_MAX {
        Err(BadName::TooLong)
    } else {
        Ok(text)
    }
}

/// Takes back what [`to_opendal`] gave; more leniently, any path whose `%` are encoded.
pub(super) fn from_opendal(path: &str) -> ObjectPath {
    let bytes: Vec<u8> = percent_decode_str(path.trim_matches('/')).collect();
    ObjectPath::from_bytes(bytes)
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        write!(text, "%{byte:02X}").expect("invariant: writing to a string cannot fail");
    }
}

/// Encodes UTF-16 that may hold lone surrogates.
fn to_wtf8(name: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() * 3);
    for unit in char::decode_utf16(name.iter().copied()) {
        match unit {
            Ok(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                bytes.push(0xE0 | (unit >> 12) as u8);
                bytes.push(0x80 | (unit >> 6 & 0x3F) as u8);
                bytes.push(0x80 | (unit & 0x3F) as u8);
            }
        }
    }
    bytes
}

/// Decodes what [`to_wtf8`] gave.
fn from_wtf8(name: &[u8], wire: &mut Vec<u16>) -> Result<(), BadName> {
    let mut rest = name;
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                wire.extend(valid.encode_utf16());
                return Ok(());
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                wire.extend(String::from_utf8_lossy(valid).encode_utf16());
                match broken {
                    [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, tail @ ..] => {
                        wire.push(0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F));
                        rest = tail;
                    }
                    _ => return Err(BadName::NotUnicode),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(bytes: &[u8]) -> ObjectPath {
        ObjectPath::from_bytes(bytes)
    }

    #[test]
    fn forbidden_characters_travel_mapped_and_come_back() {
        for name in [
            "who?",
            "a*b",
            "\"quoted\"",
            "a:b",
            "a\\b",
            "a<b>|",
            "tail.",
            "tail ",
            "\u{1}bell",
        ] {
            let wire = to_wire(&path(name.as_bytes())).expect("a name");
            let illegal = "\"*:<>?\\|".encode_utf16().collect::<Vec<_>>();
            assert!(
                wire.iter().all(|unit| *unit >= 0x20 && !illegal.contains(unit)),
                "{name:?}: {wire:x?}"
            );
            assert_eq!(from_wire(&wire), name.as_bytes());
        }
    }

    #[test]
    fn a_name_with_a_plain_end_can_be_sent_as_it_came() {
        for name in ["...", "tail ", "a?b.", "Inc./x"] {
            let plain = to_wire_with_plain_ends(&path(name.as_bytes())).expect("another form");
            let expected: Vec<u16> = name
                .replace('/', "\\")
                .replace('?', "\u{f025}")
                .encode_utf16()
                .collect();
            assert_eq!(plain, expected);
        }
        assert_eq!(to_wire_with_plain_ends(&path(b"no end")), None);
        let wire: Vec<u16> = "Inc. ".encode_utf16().collect();
        assert_eq!(from_wire(&wire), b"Inc. ");
    }

    #[test]
    fn only_a_name_that_is_mapped_has_an_unmapped_form() {
        assert_eq!(unmapped(b"who?"), Some("who?".encode_utf16().collect()));
        assert_eq!(unmapped(b"back\\slash"), Some("back\\slash".encode_utf16().collect()));
        assert_eq!(unmapped("plain é".as_bytes()), None);
        assert_eq!(unmapped(b"caf\xe9"), None);
    }

    #[test]
    fn a_mapped_name_that_would_be_no_name_stays_mapped() {
        for name in ["\u{f029}", ".\u{f029}", "a\u{f028}b"] {
            let wire: Vec<u16> = name.encode_utf16().collect();
            assert_eq!(from_wire(&wire), name.as_bytes());
            assert_eq!(to_wire(&path(name.as_bytes())), Ok(wire));
        }
    }

    #[test]
    fn a_lone_surrogate_is_listed_and_can_be_sent_back() {
        let wire = [0x61, 0xD83D, 0x62, 0xDE00];
        let name = from_wire(&wire);
        assert!(std::str::from_utf8(&name).is_err());
        assert_eq!(to_wire(&path(&name)).expect("a name"), wire);
        assert_eq!(
            from_opendal(&to_opendal(&path(&name), false).expect("a short path")),
            path(&name)
        );
    }

    #[test]
    fn names_that_no_server_can_hold_are_refused() {
        assert_eq!(to_wire(&path(b"a/../b")), Err(BadName::Special));
        assert_eq!(to_wire(&path(b"a//b")), Err(BadName::Special));
        assert_eq!(to_wire(&path(b"a\0b")), Err(BadName::Nul));
        assert_eq!(to_wire(&path(b"caf\xe9")), Err(BadName::NotUnicode));
        assert_eq!(to_wire(&path(&vec![b'a'; PATH_BYTES_MAX + 1])), Err(BadName::TooLong));
    }

    #[test]
    fn an_operator_leaves_an_encoded_path_as_it_is() {
        for name in [" lead", "tail ", "\u{a0}\u{3000}", "100%25", "tab\t", "a b/ c /d\n"] {
            let text = to_opendal(&path(name.as_bytes()), true).expect("a short path");
            assert_eq!(opendal::raw::normalize_path(&text), text);
            assert_eq!(from_opendal(&text), path(name.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn a_name_from_the_wire_goes_back_as_it_came(
            units in proptest::collection::vec(prop_oneof![
                0x20u16..0x7F, 0xD7F0u16..0xE010, 0xF001u16..0xF02B, any::<u16>(),
            ], 1..40),
        ) {
            // What the protocol itself forbids in a name never comes from the wire.
            let forbidden = |unit: &u16| *unit < 0x20 || "\"*:<>?\\|/".encode_utf16().any(|one| one == *unit);
            prop_assume!(!units.iter().any(forbidden));
            prop_assume!(!matches!(units.last(), Some(0x20 | 0x2E)));
            let name = from_wire(&units);
            prop_assert_eq!(to_wire(&path(&name)), Ok(units));
        }

        #[test]
        fn any_path_comes_back_from_opendal(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let object = path(&bytes);
            prop_assume!(!bytes.starts_with(b"/") && !bytes.ends_with(b"/"));
            prop_assert_eq!(from_opendal(&to_opendal(&object, false).expect("a short path")), object.clone());
            prop_assert_eq!(from_opendal(&to_opendal(&object, true).expect("a short path")), object);
        }
    }
}
