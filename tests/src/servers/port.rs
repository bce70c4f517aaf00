//! Loopback ports that no other test process takes meanwhile.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};

/// Below the range that the kernel hands out for outgoing connections, so that a server can be started again on its
/// own port.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

/// One port, held by a lock file for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that is free now and that no other test process holds.
    pub(crate) fn take() -> Self {
        let folder = std::env::temp_dir().join("manifold-test-ports");
        fs::create_dir_all(&folder).expect("make the folder of port locks");
        let span = u32::from(LAST - FIRST);
        // Processes start their search in different places, so that they seldom meet.
        let start = std::process::id().wrapping_mul(7_919) % span;
        for step in 0..span {
            let number = FIRST + ((start + step) % span) as u16;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()));
            let Ok(lock) = lock else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {LAST}");
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
