//! Changes on behalf of somebody: what is made belongs to whoever asked, as on any file system.
//!
//! The kernel's id for file systems and the mask for new files are those of one thread, and are given back before the
//! calls return: nothing is awaited in between. The permissions themselves are the kernel's business, which has checked
//! them at the mount before it asked; here they are not checked a second time, since a thread does not have all the groups
//! that the asker has.
//!
//! Always true: when a call returns, its thread is again who it was.

use std::cell::Cell;
use std::sync::OnceLock;

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The user to whom what is made belongs, where this process may give files away.
    pub uid: u32,
    /// The group, unless the directory says otherwise.
    pub gid: u32,
    /// The permissions that what is made is not to have, unless the directory has default ACLs.
    pub umask: u32,
}

/// What this process may do.
struct Powers {
    uid: u32,
    gid: u32,
    /// `None`: files belong to this process's own user, whoever asked.
    may_give: Option<CapabilitySets>,
    /// With rights that nobody else has who asks, if it has one of them.
    privileged: Option<CapabilitySets>,
}

/// The rights to keep set-user-ID bits through a write, and to have more than quotas allow and what a disk reserves.
const PRIVILEGES: CapabilitySet = CapabilitySet::FSETID.union(CapabilitySet::SYS_RESOURCE);

thread_local! {
    /// Whether this thread has a mask of its own; else it is the whole process's.
    static OWN_MASK: Cell<Option<bool>> = const { Cell::new(None) };
}

fn powers() -> &'static Powers {
    static POWERS: OnceLock<Powers> = OnceLock::new();
    POWERS.get_or_init(|| {
        let sets = rustix::thread::capabilities(None).ok();
        let with = |needed| sets.filter(|sets| sets.effective.contains(needed));
        Powers {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            may_give: with(CapabilitySet::SETUID | CapabilitySet::SETGID),
            privileged: sets.filter(|sets| sets.effective.intersects(PRIVILEGES)),
        }
    })
}

/// Makes calls that make something, which gets `mode`.
pub(super) fn making<T>(asker: Asker, mode: u32, calls: impl FnOnce(Mode) -> Result<T, Errno>) -> Result<T, Errno> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    let mask = Mode::from_raw_mode(asker.umask & 0o777);
    let mode = if has_own_mask() {
        rustix::process::umask(mask);
        mode
    } else {
        mode - mask
    };
    let powers = powers();
    let _disguise = match powers.may_give {
        Some(sets) if (asker.uid, asker.gid) != (powers.uid, powers.gid) => {
            Some(Disguise::put_on(asker, powers, sets)?)
        }
        _ => None,
    };
    calls(mode)
}

/// Makes calls that change bytes for somebody who may not keep a file's set-user-ID bits through that, and has a quota.
pub(super) fn dropping_privileges<T>(calls: impl FnOnce() -> T) -> T {
    let Some(sets) = powers().privileged else {
        return calls();
    };
    if rustix::thread::set_capabilities(None, without(sets, PRIVILEGES)).is_err() {
        return calls();
    }
    let _restored = Capable(sets);
    calls()
}

fn without(sets: CapabilitySets, rights: CapabilitySet) -> CapabilitySets {
    CapabilitySets {
        effective: sets.effective - rights,
        ..sets
    }
}

/// Gives a thread a mask for itself alone, once.
fn has_own_mask() -> bool {
    if let Some(known) = OWN_MASK.get() {
        return known;
    }
    let unshared = nix::sched::unshare(CloneFlags::CLONE_FS)
        .inspect_err(|error| tracing::debug!(%error, "default ACLs are cut by the asker's mask"))
        .is_ok();
    OWN_MASK.set(Some(unshared));
    unshared
}

/// While it is there, what the thread makes belongs to somebody else.
struct Disguise {
    uid: Uid,
    gid: Gid,
    sets: CapabilitySets,
}

impl Disguise {
    fn put_on(asker: Asker, powers: &Powers, sets: CapabilitySets) -> Result<Self, Errno> {
        let disguise = Self {
            uid: Uid::from_raw(powers.uid),
            gid: Gid::from_raw(powers.gid),
            sets,
        };
        setfsgid(Gid::from_raw(asker.gid));
        setfsuid(Uid::from_raw(asker.uid));
        // Neither call tells whether it did it, but each tells what was so before.
        let is = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if is != (Uid::from_raw(asker.uid), Gid::from_raw(asker.gid)) {
            return Err(Errno::PERM);
        }
        // With another user's id go the rights over files (capabilities(7)), which the mount has checked already. Who is not this process's
        // user keeps to his quota.
        let sets = if asker.uid == powers.uid {
            sets
        } else {
            without(sets, CapabilitySet::SYS_RESOURCE)
        };
        rustix::thread::set_capabilities(None, sets)?;
        Ok(disguise)
    }
}

impl Drop for Disguise {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        drop(Capable(self.sets));
    }
}

/// Gives a thread its capabilities back.
struct Capable(CapabilitySets);

impl Drop for Capable {
    fn drop(&mut self) {
        if let Err(error) = rustix::thread::set_capabilities(None, self.0) {
            tracing::error!(%error, "a thread did not get its capabilities back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective() -> CapabilitySet {
        rustix::thread::capabilities(None).expect("capabilities").effective
    }

    /// As root. Who has no rights to lose keeps none.
    #[test]
    fn who_asks_has_a_quota_and_the_thread_has_its_rights_back() {
        let before = effective();
        let other = Asker {
            uid: 65_534,
            gid: 65_534,
            umask: 0,
        };
        if powers().may_give.is_some() {
            let during = making(other, 0o600, |_| Ok(effective())).expect("a disguise");
            assert_eq!(during, before - CapabilitySet::SYS_RESOURCE);
            assert_eq!(effective(), before);
        }
        assert_eq!(dropping_privileges(effective), before - PRIVILEGES);
        assert_eq!(effective(), before);
    }
}
