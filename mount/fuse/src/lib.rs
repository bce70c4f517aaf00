//! Mounts a library on Linux: `fuser` on one side, [`manifold_vfs::Vfs`] on the other, and nothing else.
//!
//! [`mount`] takes the mount point and starts the session; [`Mount`] is its end in the hands of the daemon, and [`Grip`] what
//! another process can end it by. Within:
//!
//! - `mountpoint` looks at the place, takes it and leaves it (mount(2), fusermount3, the mount table);
//! - `session` binds all together and lasts as long as the mount;
//! - `adaptor` has one function for each operation of the kernel;
//! - `crossing` answers at once what is known, and carries into the runtime what has to be fetched;
//! - `modes` and `listings` keep the kernel's own reading and caching right;
//! - `notify` takes back what the kernel was told, when it is no longer so;
//! - `meter` counts what the kernel asks, and what becomes of it;
//! - `watchdog` ends a mount in which a request hangs.
//!
//! Invariant: no operation of the file system is decided here. What the kernel asks is put to the `Vfs`, and its answer is
//! put into the kernel's words.

mod adaptor;
mod attributes;
mod crossing;
mod errno;
mod error;
mod everything;
mod listings;
mod meter;
mod modes;
mod mountpoint;
mod notify;
mod options;
mod requester;
mod session;
mod shared;
mod watchdog;

pub use errno::errno;
pub use error::MountError;
pub use meter::{Meter, OperationFacts};
pub use mountpoint::grip::Grip;
pub use options::MountOptions;
pub use session::{Ended, Mount, Unmounted, mount};
