//! What systemd is told: ready, alive, stopping. Nothing happens where it is not listening (no `NOTIFY_SOCKET`).

use std::future::pending;

use sd_notify::NotifyState;

/// Says that the library is mounted and answers.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("unmounting")]);
}

/// Says again and again that this runtime is alive, where the unit asks for it (`WatchdogSec=`). Never ends.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let mut ticks = tokio::time::interval(limit / 2);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told how the daemon is");
    }
}
