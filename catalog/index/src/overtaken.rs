//! Looks that were overtaken: something was changed through the mount while the source was being asked, so that the
//! answer may be older than what the catalog knows. The source is asked again, for a while.
//!
//! What is still overtaken then is left as the catalog has it, which is no worse than before; it is noted as stale, and
//! looked at again with the next occasion.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a source is asked at most before it is left alone.
const TRIES_MAX: u32 = 8;
/// How long after the first overtaken answer it is asked again; doubled each time.
const PAUSE: Duration = Duration::from_millis(5);
/// After that long no further try is begun: a large directory is not listed again and again while it is written to.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts the tries of one look.
#[derive(Debug)]
pub(crate) struct Tries {
    began: Instant,
    made: u32,
}

impl Tries {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            made: 0,
        }
    }

    /// Takes note that a try was overtaken. Waits a little and gives true if there is to be another one.
    pub(crate) async fn again(&mut self) -> bool {
        self.made += 1;
        if self.made >= TRIES_MAX || self.began.elapsed() >= PATIENCE {
            return false;
        }
        sleep(PAUSE * (1 << (self.made - 1))).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_the_tries_and_to_the_time_for_them() {
        let mut tries = Tries::begin();
        let mut made = 1;
        while tries.again().await {
            made += 1;
        }
        assert_eq!(made, TRIES_MAX);
        let mut tries = Tries::begin();
        tokio::time::advance(PATIENCE).await;
        assert!(!tries.again().await, "the first took all the time there was");
    }
}
