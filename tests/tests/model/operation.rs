//! What can happen: the operations, and how a case of them is made up and made smaller.
//!
//! Always true: each operation can be done whenever it comes, since what it is done to is chosen among what there is then
//! ([`Pick`]); so any part of a case is a case.

use proptest::prelude::*;
use proptest::sample::Index;

/// One run: how the library is set up, and what happens.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Whether the kernel may read local files by itself.
    pub(crate) passthrough: bool,
    /// Whether there is a disk cache.
    pub(crate) disk_cache: bool,
    /// Whether what is looked at is listed again after a second; else only what tells of itself, or is asked for.
    pub(crate) refresh: bool,
    /// What happens, in this order.
    pub(crate) operations: Vec<Operation>,
}

/// Which source: the folder of this machine, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Disk,
    Far,
}

/// Chooses one of however many there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick(Index);

impl Pick {
    /// Gives the one that is chosen; none of none.
    pub(crate) fn of<T>(self, all: &[T]) -> Option<&T> {
        (!all.is_empty()).then(|| self.0.get(all))
    }

    /// Gives a number of at most `most`.
    pub(crate) fn up_to(self, most: usize) -> usize {
        self.0.index(most + 1)
    }
}

/// How a file gets another version.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// Written anew in place.
    InPlace,
    /// Written anew in place, as long as it was.
    InPlaceSameSize,
    /// Another file is renamed over it.
    ByRename,
    /// Bytes are added.
    Append,
    /// It is cut.
    Truncate,
}

/// How a source that is away fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ailment {
    Refuses,
    Silent,
    HangsUp,
    Resets,
    Stalls,
}

/// What is done to a library, its sources, and by those who look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    // Behind the mount.
    Create(Site, Pick, Pick, usize),
    Replace(Site, Pick, Way, usize),
    Rename(Site, Pick, Pick, Pick),
    Remove(Site, Pick),
    MakeDirectory(Site, Pick, Pick),
    MoveDirectory(Site, Pick, Pick, Pick),
    RemoveDirectory(Site, Pick),
    /// A file of one source is copied to the other.
    Copy(Site, Pick, Pick, Pick),
    // Through the mount.
    Open(Site, Pick),
    ReadHandle(Pick, Pick, Pick),
    Close(Pick),
    ReadFile(Site, Pick),
    List(Site, Pick),
    Stat(Site, Pick),
    StatAbsent(Site, Pick),
    // Through the control socket.
    ListByControl(Site, Pick),
    StatByControl(Site, Pick),
    Hash(Site, Pick),
    // To the sources and the daemon.
    FallIll(Site, Ailment),
    GetWell(Site),
    KillDaemon,
    RestartDaemon,
    Scan(Site, Pick),
    Settle,
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<Index>().prop_map(Pick)
}

fn site() -> impl Strategy<Value = Site> {
    prop_oneof![2 => Just(Site::Disk), 3 => Just(Site::Far)]
}

/// Sizes about the bounds of lines, pages and blocks.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0_usize),
        4 => 1_usize..200,
        4 => 3_000_usize..9_000,
        4 => 60_000_usize..300_000,
        1 => 1_000_000_usize..3_000_000,
    ]
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        Just(Way::InPlace),
        Just(Way::InPlaceSameSize),
        Just(Way::ByRename),
        Just(Way::Append),
        Just(Way::Truncate),
    ]
}

fn ailment() -> impl Strategy<Value = Ailment> {
    prop_oneof![
        3 => Just(Ailment::Refuses),
        1 => Just(Ailment::Silent),
        1 => Just(Ailment::HangsUp),
        2 => Just(Ailment::Resets),
        1 => Just(Ailment::Stalls),
    ]
}

fn change() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    prop_oneof![
        4 => (site(), pick(), pick(), size()).prop_map(|(site, folder, name, size)| Op::Create(site, folder, name, size)),
        8 => (site(), pick(), way(), size()).prop_map(|(site, file, way, size)| Op::Replace(site, file, way, size)),
        4 => (site(), pick(), pick(), pick()).prop_map(|(site, file, to, name)| Op::Rename(site, file, to, name)),
        2 => (site(), pick()).prop_map(|(site, file)| Op::Remove(site, file)),
        1 => (site(), pick(), pick()).prop_map(|(site, folder, name)| Op::MakeDirectory(site, folder, name)),
        2 => (site(), pick(), pick(), pick()).prop_map(|(site, it, to, name)| Op::MoveDirectory(site, it, to, name)),
        1 => (site(), pick()).prop_map(|(site, folder)| Op::RemoveDirectory(site, folder)),
        1 => (site(), pick(), pick(), pick()).prop_map(|(site, file, to, name)| Op::Copy(site, file, to, name)),
    ]
}

fn look() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    prop_oneof![
        4 => (site(), pick()).prop_map(|(site, file)| Op::Open(site, file)),
        6 => (pick(), pick(), pick()).prop_map(|(handle, at, length)| Op::ReadHandle(handle, at, length)),
        1 => pick().prop_map(Op::Close),
        4 => (site(), pick()).prop_map(|(site, file)| Op::ReadFile(site, file)),
        2 => (site(), pick()).prop_map(|(site, folder)| Op::List(site, folder)),
        2 => (site(), pick()).prop_map(|(site, path)| Op::Stat(site, path)),
        1 => (site(), pick()).prop_map(|(site, folder)| Op::StatAbsent(site, folder)),
        1 => (site(), pick()).prop_map(|(site, folder)| Op::ListByControl(site, folder)),
        1 => (site(), pick()).prop_map(|(site, path)| Op::StatByControl(site, path)),
        1 => (site(), pick()).prop_map(|(site, file)| Op::Hash(site, file)),
    ]
}

fn event() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    prop_oneof![
        3 => (site(), ailment()).prop_map(|(site, ailment)| Op::FallIll(site, ailment)),
        3 => site().prop_map(Op::GetWell),
        1 => Just(Op::KillDaemon),
        1 => Just(Op::RestartDaemon),
        3 => (site(), pick()).prop_map(|(site, folder)| Op::Scan(site, folder)),
        2 => Just(Op::Settle),
    ]
}

/// Makes up a case of at most so many operations.
pub(crate) fn case(operations_max: usize) -> impl Strategy<Value = Case> {
    let operation = prop_oneof![4 => change(), 5 => look(), 2 => event()];
    let operations = prop::collection::vec(operation, operations_max / 2..=operations_max);
    (any::<bool>(), any::<bool>(), any::<bool>(), operations).prop_map(
        |(passthrough, disk_cache, refresh, operations)| Case {
            passthrough,
            disk_cache,
            refresh,
            operations,
        },
    )
}
