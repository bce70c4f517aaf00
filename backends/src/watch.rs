//! Being told of changes that others make at a source, where the source can tell.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{ObjectPath, Result};

/// Which directory something was noticed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// One that is [covered](Watch::cover).
    Covered {
        /// The number under which it is.
        number: u64,
        /// The watch's own mark of it.
        mark: i32,
    },
    /// Its path.
    Path(ObjectPath),
}

/// What a watch tells. It only ever says where to look; what is there is for the source to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// The watch stands from now on. What happened before is not known.
    Began,
    /// Other names stand in the directory than before, or other things under them.
    Names(Where),
    /// The bytes or attributes of one child are different.
    Child {
        /// The directory.
        directory: Where,
        /// The child, as the source calls it.
        name: Vec<u8>,
    },
    /// The attributes of the directory itself are different.
    Attributes(Where),
    /// The file system that the directory is on was unmounted.
    Unmounted(Where),
    /// Something was missed: anything may be different.
    Missed,
}

/// How much of a source is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All of it, as long as the connection stands.
    Whole {
        /// Whether it stands.
        standing: bool,
    },
    /// Directory by directory.
    Directories {
        /// How many are watched.
        watched: u64,
        /// What the system allows, if that was too little for some directory.
        short_of: Option<u64>,
    },
    /// What is told cannot be relied on: others change a network file system without this machine knowing.
    OwnChangesOnly,
}

/// A watch over one source.
#[async_trait]
pub trait Watch: Debug + Send + Sync {
    /// Sees to it that a directory is watched, under a number of the caller's. To be called before the directory is
    /// listed, so that nothing falls in between. Where the whole source is watched there is nothing to do.
    async fn cover(&self, directory: &ObjectPath, number: u64) -> Result<()>;

    /// Ends the watch over a directory that is not wanted any more.
    fn uncover(&self, place: &Where);

    /// Waits until something is noticed, and adds it. Dropping the future loses nothing.
    ///
    /// After an error nothing is watched until it is called again; then the first that it tells is
    /// [`Noticed::Began`].
    async fn next(&self, noticed: &mut Vec<Noticed>) -> Result<()>;

    /// Says how much is watched.
    fn coverage(&self) -> Coverage;
}
