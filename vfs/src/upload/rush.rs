//! A rush: small files that are closed one right after the other, as by `cp -r`. Their uploads begin when it pauses, so that
//! they do not take the processor from whoever writes, and go together then.
//!
//! Always true: no file waits for the end of a rush for longer than [`GATHERED_MAX`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{SETTLE, Uploads};

/// Files up to this length, in bytes, wait for each other.
pub(super) const SMALL_MAX: u64 = 1 << 20;
/// How long a file waits at most for the others of its rush, after its time has come.
const GATHERED_MAX: Duration = Duration::from_secs(15);
/// So many closed files in a row are a rush.
const IN_A_ROW: u32 = 16;
/// Files are closed in a row if no more than this lies between them.
const GAP: Duration = Duration::from_millis(100);

/// Whether there is a rush.
#[derive(Debug)]
pub(super) struct Rush {
    row: Mutex<Row>,
    is_on: watch::Sender<bool>,
}

/// Files that were closed in a row.
#[derive(Debug)]
struct Row {
    count: u32,
    last: Instant,
}

impl Default for Rush {
    fn default() -> Self {
        let last = Instant::now();
        Self {
            row: Mutex::new(Row { count: 0, last }),
            is_on: watch::Sender::new(false),
        }
    }
}

impl Rush {
    /// Takes note that a file was closed. Tells whether a rush begins with that, whose end is to be [seen to](Self::see_to_end).
    fn note(&self) -> bool {
        let mut row = self.row.lock();
        let now = Instant::now();
        row.count = if now - row.last <= GAP {
            row.count.saturating_add(1)
        } else {
            1
        };
        row.last = now;
        // Those who wait are not to be woken by each file.
        row.count >= IN_A_ROW && self.is_on.send_if_modified(|is_on| !std::mem::replace(is_on, true))
    }

    /// Ends the rush once nothing was closed for a while.
    async fn see_to_end(&self) {
        loop {
            let end = self.row.lock().last + SETTLE;
            if Instant::now() >= end {
                let row = self.row.lock();
                if Instant::now() >= row.last + SETTLE {
                    self.is_on.send_replace(false);
                    return;
                }
                continue;
            }
            sleep_until(end).await;
        }
    }

    /// Waits until there is no rush, for a file whose time came at `due`.
    pub(super) async fn over(&self, due: Instant) {
        let mut is_on = self.is_on.subscribe();
        let over = is_on.wait_for(|is_on| !is_on);
        // One that has waited long enough goes.
        let _in_time = timeout_at(due + GATHERED_MAX, over).await;
    }
}

impl Uploads {
    /// Takes note that a file was closed.
    pub(super) fn note_closed(self: &Arc<Self>) {
        if self.rush.note() {
            let uploads = Arc::clone(self);
            self.fetcher
                .runtime
                .spawn(async move { uploads.rush.see_to_end().await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closes so many files in a row.
    async fn close(rush: &Rush, count: u32) -> u32 {
        let mut begun = 0;
        for _ in 0..count {
            begun += u32::from(rush.note());
            tokio::time::sleep(GAP / 2).await;
        }
        begun
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_closed_in_a_row_waits_until_that_pauses_but_not_for_long() {
        let rush = Rush::default();
        assert_eq!(close(&rush, IN_A_ROW - 1).await, 0);
        let due = Instant::now();
        rush.over(due).await;
        assert_eq!(Instant::now(), due, "few files are no rush");
        tokio::time::sleep(GAP * 2).await;
        assert_eq!(close(&rush, IN_A_ROW - 1).await, 0, "it is counted anew after a pause");
        assert_eq!(close(&rush, 5).await, 1, "it begins once");
        let mut waiting = rush.is_on.subscribe();
        waiting.borrow_and_update();
        close(&rush, 5).await;
        assert!(!waiting.has_changed().unwrap(), "each file wakes all that wait");
        let (due, last) = (Instant::now(), rush.row.lock().last);
        tokio::join!(rush.over(due), rush.see_to_end());
        assert_eq!(Instant::now(), last + SETTLE);
        // One that does not end.
        assert_eq!(close(&rush, IN_A_ROW).await, 1);
        let due = Instant::now();
        rush.over(due).await;
        assert_eq!(Instant::now(), due + GATHERED_MAX);
        rush.over(due).await;
        assert_eq!(Instant::now(), due + GATHERED_MAX, "it has waited");
    }
}
