//! The changes that are made to both sides, by chance.

use manifold_tests::chance::Chance;

/// How many files may be open at once.
pub(crate) const SLOTS: usize = 4;
/// The longest write.
const BYTES_MAX: usize = 20_000;
/// How far into a file it may lie.
const OFFSET_MAX: usize = 60_000;

/// One change, or one question. Paths are beneath the side's root.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Open {
        slot: usize,
        path: String,
        flags: &'static [Flag],
        mode: u32,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        offset: u64,
        length: usize,
    },
    Write {
        slot: usize,
        offset: u64,
        length: usize,
        seed: u8,
    },
    Append {
        slot: usize,
        length: usize,
        seed: u8,
    },
    Truncate {
        slot: usize,
        size: u64,
    },
    TruncatePath {
        path: String,
        size: u64,
    },
    Sync {
        slot: usize,
        data_only: bool,
    },
    Allocate {
        slot: usize,
        mode: u32,
        offset: u64,
        length: u64,
    },
    Seek {
        slot: usize,
        hole: bool,
        offset: u64,
    },
    Copy {
        from: usize,
        offset: u64,
        to: usize,
        target: u64,
        length: usize,
    },
    HandleMode {
        slot: usize,
        mode: u32,
    },
    HandleTimes {
        slot: usize,
        seconds: i64,
    },
    HandleLook {
        slot: usize,
    },
    MakeDirectory {
        path: String,
        mode: u32,
    },
    MakeFifo {
        path: String,
        mode: u32,
    },
    MakeSymlink {
        path: String,
        target: String,
    },
    Link {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    RemoveDirectory {
        path: String,
    },
    Rename {
        from: String,
        to: String,
        how: How,
    },
    Mode {
        path: String,
        mode: u32,
    },
    Owner {
        path: String,
        uid: u32,
        gid: u32,
    },
    Times {
        path: String,
        seconds: i64,
        nanoseconds: u32,
        follow: bool,
    },
    SetXattr {
        path: String,
        name: &'static str,
        length: usize,
        flags: u32,
    },
    GetXattr {
        path: String,
        name: &'static str,
    },
    RemoveXattr {
        path: String,
        name: &'static str,
    },
    Look {
        path: String,
    },
    List {
        path: String,
    },
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Read,
    Write,
    Both,
    Create,
    Exclusive,
    Truncate,
    Append,
    NoFollow,
    Directory,
}

/// What a rename does with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Replace,
    NoReplace,
    Exchange,
}

const OPENINGS: [&[Flag]; 12] = [
    &[Flag::Read],
    &[Flag::Read],
    &[Flag::Write],
    &[Flag::Both],
    &[Flag::Both, Flag::Create],
    &[Flag::Both, Flag::Create],
    &[Flag::Write, Flag::Create, Flag::Exclusive],
    &[Flag::Both, Flag::Create, Flag::Truncate],
    &[Flag::Write, Flag::Append, Flag::Create],
    &[Flag::Both, Flag::Append],
    &[Flag::Read, Flag::NoFollow],
    &[Flag::Read, Flag::Directory],
];
const MODES: [u32; 7] = [0o644, 0o600, 0o755, 0o4755, 0o2775, 0o1777, 0o666];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const XATTRS: [&str; 3] = ["user.one", "user.two", "user.three"];
/// `fallocate(2)`: plain, keep the size, punch a hole, zero a range, zero it and keep the size.
const ALLOCATIONS: [u32; 5] = [0, 1, 3, 0x10, 0x11];

fn path(chance: &mut Chance) -> String {
    // Most things stand where they can be found again.
    let depth = [1, 1, 1, 2, 2, 3][chance.below(6)];
    let parts: Vec<_> = (0..depth).map(|_| NAMES[chance.below(NAMES.len())]).collect();
    parts.join("/")
}

fn one_of<T: Copy>(chance: &mut Chance, all: &[T]) -> T {
    all[chance.below(all.len())]
}

impl Change {
    /// `keeps_bits`: whether bits that are set on a file that is open stay when root writes to it. They do not where the
    /// kernel writes by itself (`docs/semantics.md`), so none are set there then.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of change")]
    pub(crate) fn by_chance(chance: &mut Chance, keeps_bits: bool) -> Self {
        let slot = chance.below(SLOTS);
        let offset = chance.below(OFFSET_MAX) as u64;
        let length = 1 + chance.below(BYTES_MAX);
        let seed = chance.below(256) as u8;
        let mode = one_of(chance, &MODES);
        let changed_mode = if keeps_bits { mode } else { mode & 0o1777 };
        match chance.below(60) {
            0..=8 => Self::Open {
                slot,
                path: path(chance),
                flags: one_of(chance, &OPENINGS),
                mode: changed_mode,
            },
            9 | 10 => Self::Close { slot },
            11..=13 => Self::Read { slot, offset, length },
            14..=18 => Self::Write {
                slot,
                offset,
                length,
                seed,
            },
            19 => Self::Append { slot, length, seed },
            20 | 21 => Self::Truncate { slot, size: offset },
            22 => Self::TruncatePath {
                path: path(chance),
                size: offset,
            },
            23 => Self::Sync {
                slot,
                data_only: seed.is_multiple_of(2),
            },
            24 | 25 => {
                let mode = one_of(chance, &ALLOCATIONS);
                Self::Allocate {
                    slot,
                    mode,
                    offset,
                    length: length as u64,
                }
            }
            26 => Self::Seek {
                slot,
                hole: seed.is_multiple_of(2),
                offset,
            },
            27 | 28 => {
                let (to, target) = (chance.below(SLOTS), chance.below(OFFSET_MAX) as u64);
                Self::Copy {
                    from: slot,
                    offset,
                    to,
                    target,
                    length,
                }
            }
            29 => Self::HandleMode {
                slot,
                mode: changed_mode,
            },
            30 => Self::HandleTimes {
                slot,
                seconds: offset as i64,
            },
            31 => Self::HandleLook { slot },
            32..=36 => Self::MakeDirectory {
                path: path(chance),
                mode,
            },
            37 => Self::MakeFifo {
                path: path(chance),
                mode,
            },
            38 | 39 => Self::MakeSymlink {
                path: path(chance),
                target: path(chance),
            },
            40 | 41 => Self::Link {
                from: path(chance),
                to: path(chance),
            },
            42 | 43 => Self::Remove { path: path(chance) },
            44 => Self::RemoveDirectory { path: path(chance) },
            45..=49 => {
                let how = one_of(
                    chance,
                    &[How::Replace, How::Replace, How::Replace, How::NoReplace, How::Exchange],
                );
                Self::Rename {
                    from: path(chance),
                    to: path(chance),
                    how,
                }
            }
            50 => Self::Mode {
                path: path(chance),
                mode: changed_mode,
            },
            51 => Self::Owner {
                path: path(chance),
                uid: 1000 + u32::from(seed % 3),
                gid: 2000 + u32::from(seed % 2),
            },
            52 => {
                let (seconds, nanoseconds) = (offset as i64 - 1_000, chance.below(1_000_000_000) as u32);
                Self::Times {
                    path: path(chance),
                    seconds,
                    nanoseconds,
                    follow: seed.is_multiple_of(2),
                }
            }
            53 => Self::SetXattr {
                path: path(chance),
                name: one_of(chance, &XATTRS),
                length: length % 500,
                flags: u32::from(seed % 3),
            },
            54 => Self::GetXattr {
                path: path(chance),
                name: one_of(chance, &XATTRS),
            },
            55 => Self::RemoveXattr {
                path: path(chance),
                name: one_of(chance, &XATTRS),
            },
            56 | 57 => Self::Look { path: path(chance) },
            _ => Self::List { path: path(chance) },
        }
    }
}
