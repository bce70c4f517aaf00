//! Case folding of names, for kernels that look names up without regard to case.

/// Folds a name so that names that differ only in case become equal.
///
/// For UTF-8 this is Unicode's simple folding, one character to one: to upper case and back to lower, where each is a
/// single character (so `ß` stays itself, as in NTFS). Bytes that are not UTF-8 are folded as ASCII.
pub(crate) fn fold(name: &[u8]) -> Vec<u8> {
    match str::from_utf8(name) {
        Ok(text) => text.chars().map(fold_char).collect::<String>().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

fn fold_char(char: char) -> char {
    let upper = single(char.to_uppercase()).unwrap_or(char);
    single(upper.to_lowercase()).unwrap_or(upper)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_fold_alike() {
        for (a, b) in [
            ("Photos", "pHOTOS"),
            ("ÄÖÜ", "äöü"),
            ("ΣΑΣ", "σας"),
            ("Ǆ", "ǅ"),
            ("K", "K"),
        ] {
            assert_eq!(fold(a.as_bytes()), fold(b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn other_differences_remain() {
        for (a, b) in [("a", "ä"), ("ß", "ss"), ("a ", "a"), ("é", "e\u{301}")] {
            assert_ne!(fold(a.as_bytes()), fold(b.as_bytes()), "{a} {b}");
        }
        assert_eq!(fold(b"\xffA"), b"\xffa");
    }
}
