//! Patterns for paths of the tree: `*` and `?` within a name, `**` across folders, `[a-z]` and `[!a-z]` for one character.
//!
//! A pattern without a `/` is for the last name, wherever it stands; one with a `/` is for the whole path from the root. Always
//! true: matching takes time in proportion to pattern times path, whatever the pattern.

use std::ops::RangeInclusive;

/// A pattern, ready to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
    /// Whether it is for whole paths.
    whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    One(u32),
    /// Any character but `/`.
    Any,
    /// One of these, or, if negated, none of these and not `/`.
    Set(Vec<RangeInclusive<u32>>, bool),
    /// Any number of characters but `/`.
    Star,
    /// Any number of characters.
    Deep,
    /// Any number of names with a `/` behind each.
    Folders,
}

const SLASH: u32 = '/' as u32;

impl Glob {
    /// Reads a pattern.
    pub(crate) fn parse(pattern: &[u8]) -> Result<Self, &'static str> {
        let whole = pattern.contains(&b'/');
        let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
        let chars: Vec<_> = characters(pattern).collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        let is = |at: usize, c: char| chars.get(at) == Some(&u32::from(c));
        while at < chars.len() {
            if is(at, '*') && is(at + 1, '*') {
                let begins_a_name = at == 0 || chars[at - 1] == SLASH;
                at += 2;
                if begins_a_name && is(at, '/') {
                    tokens.push(Token::Folders);
                    at += 1;
                } else {
                    tokens.push(Token::Deep);
                }
                continue;
            }
            match char::from_u32(chars[at]) {
                Some('*') => tokens.push(Token::Star),
                Some('?') => tokens.push(Token::Any),
                Some('[') => tokens.push(set(&chars, &mut at)?),
                Some('\\') => {
                    at += 1;
                    tokens.push(Token::One(*chars.get(at).ok_or("nothing follows the last \\")?));
                }
                _ => tokens.push(Token::One(chars[at])),
            }
            at += 1;
        }
        if tokens.is_empty() {
            return Err("it is empty");
        }
        Ok(Self { tokens, whole })
    }

    /// Gives the names of the folders that every path of the pattern begins with.
    pub(super) fn folders(&self) -> Vec<Vec<u8>> {
        let mut folders = Vec::new();
        let mut name = String::new();
        for token in &self.tokens {
            match token {
                Token::One(SLASH) => folders.push(std::mem::take(&mut name).into_bytes()),
                Token::One(c) => match char::from_u32(*c) {
                    Some(c) => name.push(c),
                    None => break,
                },
                _ => break,
            }
        }
        if self.whole { folders } else { Vec::new() }
    }

    /// Compares a path of the tree, from the root and without a `/` in front.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let mut states = vec![false; self.tokens.len() + 1];
        self.enter(&mut states, 0, true);
        for c in characters(if self.whole { path } else { name }) {
            let mut next = vec![false; states.len()];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
                match token {
                    Token::One(wanted) if *wanted == c => self.enter(&mut next, at + 1, c == SLASH),
                    Token::Any if c != SLASH => self.enter(&mut next, at + 1, false),
                    Token::Set(ranges, negated)
                        if c != SLASH && ranges.iter().any(|it| it.contains(&c)) != *negated =>
                    {
                        self.enter(&mut next, at + 1, false);
                    }
                    Token::Star if c != SLASH => self.enter(&mut next, at, false),
                    Token::Deep => self.enter(&mut next, at, false),
                    Token::Folders => self.enter(&mut next, at, c == SLASH),
                    _ => {}
                }
            }
            states = next;
        }
        states[self.tokens.len()]
    }

    /// Enters a state, and those behind it that need no character. `fresh`: a name may begin here.
    fn enter(&self, states: &mut [bool], mut at: usize, fresh: bool) {
        loop {
            states[at] = true;
            match self.tokens.get(at) {
                Some(Token::Star | Token::Deep) => at += 1,
                Some(Token::Folders) if fresh => at += 1,
                _ => return,
            }
        }
    }
}

/// Reads what stands between brackets; leaves `at` on the closing one.
fn set(chars: &[u32], at: &mut usize) -> Result<Token, &'static str> {
    const OPEN: &str = "a [ is not closed";
    let mut read = || {
        *at += 1;
        chars.get(*at).copied().ok_or(OPEN)
    };
    let mut ranges = Vec::new();
    let mut c = read()?;
    let negated = c == u32::from('!') || c == u32::from('^');
    if negated {
        c = read()?;
    }
    loop {
        let first = c;
        c = read()?;
        if c == u32::from('-') {
            let last = read()?;
            if last == u32::from(']') {
                ranges.extend([first..=first, c..=c]);
                return Ok(Token::Set(ranges, negated));
            }
            ranges.push(first..=last);
            c = read()?;
        } else {
            ranges.push(first..=first);
        }
        if c == u32::from(']') {
            return Ok(Token::Set(ranges, negated));
        }
    }
}

/// Gives the characters, and for bytes that are none, numbers that no character has.
fn characters(text: &[u8]) -> impl Iterator<Item = u32> + '_ {
    const BEYOND: u32 = 0x0011_0000;
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(u32::from);
        valid.chain(chunk.invalid().iter().map(|byte| BEYOND + u32::from(*byte)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern.as_bytes()).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn a_pattern_without_a_slash_is_for_the_last_name() {
        for (pattern, path, expected) in [
            ("*.jpg", "photos/a.jpg", true),
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "a.jpg/b", false),
            ("a?c", "x/aüc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[a-]", "-", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} and {path}");
        }
    }

    #[test]
    fn a_pattern_with_a_slash_is_for_the_whole_path() {
        for (pattern, path, expected) in [
            ("/photos/*", "photos/a.jpg", true),
            ("/photos/*", "photos/2024/a.jpg", false),
            ("photos/**", "photos/2024/a.jpg", true),
            ("/photos/**/*.jpg", "photos/a.jpg", true),
            ("/photos/**/*.jpg", "photos/2024/05/a.jpg", true),
            ("/photos/**/*.jpg", "photos/2024/05/a.png", false),
            ("/photos/**/x", "photos/ax", false),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("/x", "a/x", false),
            ("/a/**b", "a/c/db", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} and {path}");
        }
    }

    #[test]
    fn the_folders_in_front_are_told() {
        for (pattern, folders) in [
            ("/photos/2024/**/*.jpg", vec!["photos", "2024"]),
            ("/photos/20*/x", vec!["photos"]),
            ("*.jpg", vec![]),
            ("/x", vec![]),
        ] {
            let names: Vec<_> = folders.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(Glob::parse(pattern.as_bytes()).unwrap().folders(), names, "{pattern}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for pattern in ["", "/", "[a", "[", "[a-", "x\\"] {
            assert!(Glob::parse(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_path_matches_itself_alone(path in "[a-c/*?\\[]{1,12}", other in "[a-c/*?\\[]{1,12}") {
            let path = format!("x/{path}");
            let quoted: String = path.chars().flat_map(|c| ['\\', c]).collect();
            let glob = Glob::parse(quoted.as_bytes()).unwrap();
            prop_assert!(glob.matches(path.as_bytes()));
            prop_assert_eq!(glob.matches(other.as_bytes()), other == path);
        }

        #[test]
        fn any_pattern_is_read_or_refused(pattern in any::<Vec<u8>>(), path in any::<Vec<u8>>()) {
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches(&path);
                glob.folders();
            }
        }
    }
}
