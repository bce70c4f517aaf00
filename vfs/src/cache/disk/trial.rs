//! Whether the disk takes anything again, after it has refused something: it is tried when somebody asks.
//!
//! Always true: what it was tried with is gone again, also after a crash: it has no name when it is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::Instant;

use super::{DiskTier, PAUSE, Shared};

/// The name of what the disk is tried with, for the moment before it has none.
const NAME: &str = "trial";
/// How much it has to take, in bytes: about a block.
const LENGTH: usize = 1 << 20;

impl DiskTier {
    /// Says what the disk refuses, if it does: it is tried again, where it was so. Blocks the thread.
    pub(crate) fn why_failing(&self) -> Option<String> {
        let shared = &self.shared;
        self.failing()?;
        {
            let mut ledger = shared.ledger.lock();
            match shared.try_again() {
                Ok(()) => shared.works_again(&mut ledger),
                Err(error) => {
                    ledger.paused_until = Some(Instant::now() + PAUSE);
                    shared.report("write", &error);
                }
            }
        }
        self.failing()
    }

    fn failing(&self) -> Option<String> {
        self.shared.failing.lock().clone()
    }
}

impl Shared {
    fn try_again(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(NAME);
        let mut file = File::create(&path)?;
        fs::remove_file(&path)?;
        // A file system may keep zeroes for nothing.
        file.write_all(&vec![0xA5; LENGTH])?;
        file.sync_data()
    }
}
