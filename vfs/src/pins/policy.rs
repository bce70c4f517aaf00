//! Policies: which files are pinned without being named one by one.

use manifold_catalog::Entry;

use super::glob::Glob;

const VERSION: u8 = 1;
const LARGER: u8 = 1;
const SMALLER: u8 = 2;
const NEWER: u8 = 4;

/// What a file must be to be pinned. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinPolicy {
    /// A pattern for its path in the tree, or, without a `/`, for its name: `*`, `?`, `[a-z]`, and `**` across folders.
    pub glob: Vec<u8>,
    /// It has more bytes than this.
    pub larger: Option<u64>,
    /// It has fewer bytes than this.
    pub smaller: Option<u64>,
    /// It was changed within so many seconds.
    pub newer_s: Option<u64>,
}

impl PinPolicy {
    /// Says what is wrong with the pattern, if anything is.
    ///
    /// # Errors
    /// Why the pattern makes no sense.
    pub fn check(&self) -> Result<(), &'static str> {
        Glob::parse(&self.glob).map(drop)
    }

    /// Gives the form in which the catalog keeps it: a version, flags, the numbers that there are, and the pattern.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [(LARGER, self.larger), (SMALLER, self.smaller), (NEWER, self.newer_s)];
        let flags = numbers.iter().filter(|it| it.1.is_some()).map(|it| it.0).sum();
        let mut bytes = vec![VERSION, flags];
        for number in numbers.into_iter().filter_map(|it| it.1) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.glob);
        bytes
    }

    /// Reads that form; `None`: it is of a newer version, or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, flags], mut rest) = bytes.split_first_chunk()? else {
            return None;
        };
        if flags & !(LARGER | SMALLER | NEWER) != 0 {
            return None;
        }
        let mut number = |flag| {
            if flags & flag == 0 {
                return Some(None);
            }
            let (number, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(Some(u64::from_le_bytes(*number)))
        };
        let (larger, smaller, newer_s) = (number(LARGER)?, number(SMALLER)?, number(NEWER)?);
        Some(Self {
            glob: rest.to_vec(),
            larger,
            smaller,
            newer_s,
        })
    }
}

/// A policy that is ready to be applied at one time.
pub(super) struct Applied {
    glob: Glob,
    sizes: (u64, u64),
    since_ns: i64,
}

impl Applied {
    /// Gets a policy ready; `None` if its pattern makes no sense.
    pub(super) fn new(policy: &PinPolicy, now_ns: i64) -> Option<Self> {
        let age_ns = policy
            .newer_s
            .map(|s| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
        Some(Self {
            glob: Glob::parse(&policy.glob).ok()?,
            sizes: (
                policy.larger.map_or(0, |it| it.saturating_add(1)),
                policy.smaller.map_or(u64::MAX, |it| it.saturating_sub(1)),
            ),
            since_ns: age_ns.map_or(i64::MIN, |age| now_ns.saturating_sub(age)),
        })
    }

    /// Gives the names of the folders beneath which all files lie that it can mean.
    pub(super) fn folders(&self) -> Vec<Vec<u8>> {
        self.glob.folders()
    }

    /// Tells whether it means a file.
    pub(super) fn means(&self, entry: &Entry, path: &[u8]) -> bool {
        (self.sizes.0..=self.sizes.1).contains(&entry.size)
            && entry.modified_ns >= self.since_ns
            && self.glob.matches(path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_foreign_form_is_not_read() {
        for bytes in [&[][..], &[1], &[2, 0, b'*'], &[1, 8, b'*'], &[1, 1, 0, 0]] {
            assert_eq!(PinPolicy::decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(
            glob in any::<Vec<u8>>(),
            larger in any::<Option<u64>>(),
            smaller in any::<Option<u64>>(),
            newer_s in any::<Option<u64>>(),
        ) {
            let policy = PinPolicy { glob, larger, smaller, newer_s };
            prop_assert_eq!(PinPolicy::decode(&policy.encode()), Some(policy));
        }
    }
}
