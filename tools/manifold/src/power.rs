//! What this machine runs on, for scans that are to wait: its battery, and a network that is paid for by what goes over it.
//!
//! Always true: where nothing is known (no battery, no `NetworkManager`), nothing waits.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_index::{Indexer, ScanHold};
use tokio::time::{sleep, timeout};
use zbus::proxy::CacheProperties;
use zbus::{Connection, Proxy};

use crate::settings::{RunOrWait, Scan};

/// Where the kernel lists batteries and mains.
const SUPPLIES: &str = "/sys/class/power_supply";
/// How often both are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the bus may take to answer.
const BUS_PATIENCE: Duration = Duration::from_secs(3);

/// Holds scans while the settings say that they are to wait. Ends at once where they never do, else never.
pub(crate) async fn hold_scans(indexer: Arc<Indexer>, settings: Scan) {
    let waits = |setting| setting == RunOrWait::Wait;
    if !waits(settings.on_battery) && !waits(settings.on_metered) {
        return;
    }
    let mut bus = None;
    loop {
        let hold = ScanHold {
            battery: waits(settings.on_battery) && on_battery(Path::new(SUPPLIES)),
            metered: waits(settings.on_metered) && is_metered(&mut bus).await,
        };
        indexer.hold_scans(hold);
        sleep(LOOK_EVERY).await;
    }
}

/// Tells whether a battery of this machine is being emptied, and nothing feeds it.
fn on_battery(supplies: &Path) -> bool {
    let Ok(entries) = fs::read_dir(supplies) else {
        return false;
    };
    let mut emptied = false;
    for supply in entries.flatten().map(|entry| entry.path()) {
        let read = |name: &str| fs::read_to_string(supply.join(name)).unwrap_or_default();
        match read("type").trim() {
            // Batteries of mice and the like say that they are a device's.
            "Battery" if read("scope").trim() != "Device" => emptied |= read("status").trim() == "Discharging",
            "Mains" | "USB" if read("online").trim() == "1" => return false,
            _ => {}
        }
    }
    emptied
}

/// Tells whether the network is metered. Keeps the connection to the bus for the next time.
async fn is_metered(bus: &mut Option<Connection>) -> bool {
    let asked = async {
        let connection = match bus.take() {
            Some(connection) => connection,
            None => Connection::system().await?,
        };
        let metered = metered(&connection).await?;
        *bus = Some(connection);
        zbus::Result::Ok(metered)
    };
    match timeout(BUS_PATIENCE, asked).await {
        Ok(Ok(metered)) => metered,
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot tell whether the network is metered");
            false
        }
        Err(_) => false,
    }
}

/// Asks `NetworkManager`.
async fn metered(connection: &Connection) -> zbus::Result<bool> {
    const NAME: &str = "org.freedesktop.NetworkManager";
    /// `NM_METERED_YES` and `NM_METERED_GUESS_YES`.
    const METERED: [u32; 2] = [1, 3];
    let proxy: Proxy<'_> = zbus::proxy::Builder::new(connection)
        .destination(NAME)?
        .path("/org/freedesktop/NetworkManager")?
        .interface(NAME)?
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let told: u32 = proxy.get_property("Metered").await?;
    Ok(METERED.contains(&told))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn supply(folder: &Path, name: &str, facts: &[(&str, &str)]) {
        let supply = folder.join(name);
        fs::create_dir_all(&supply).expect("a folder");
        for (fact, value) in facts {
            fs::write(supply.join(fact), format!("{value}\n")).expect("a file");
        }
    }

    #[test]
    fn on_battery_is_one_that_is_emptied_while_nothing_feeds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        assert!(!on_battery(&at.join("none")), "no such thing here");
        supply(
            at,
            "mouse",
            &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")],
        );
        assert!(!on_battery(at));
        supply(at, "BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        supply(at, "AC", &[("type", "Mains"), ("online", "0")]);
        assert!(on_battery(at));
        supply(at, "AC", &[("online", "1")]);
        assert!(!on_battery(at));
        supply(at, "AC", &[("online", "0")]);
        supply(at, "BAT0", &[("status", "Not charging")]);
        assert!(!on_battery(at));
    }

    /// A bus of its own.
    struct Bus(Child);

    impl Drop for Bus {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    struct NetworkManager(u32);

    #[zbus::interface(name = "org.freedesktop.NetworkManager")]
    impl NetworkManager {
        #[zbus(property)]
        fn metered(&self) -> u32 {
            self.0
        }
    }

    #[tokio::test]
    async fn the_network_is_metered_when_network_manager_says_or_guesses_so() {
        use std::io::{BufRead, BufReader};
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed");
        let stdout = daemon.stdout.take().expect("a pipe");
        let _bus = Bus(daemon);
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).expect("it says where");
        let connect = || zbus::connection::Builder::address(address.trim()).expect("an address");
        let asking = connect().build().await.expect("a connection");
        assert!(metered(&asking).await.is_err(), "nobody is there to ask");
        let path = "/org/freedesktop/NetworkManager";
        let manager = connect()
            .name("org.freedesktop.NetworkManager")
            .expect("a name")
            .serve_at(path, NetworkManager(0))
            .expect("a path");
        let manager = manager.build().await.expect("it serves");
        let served = manager.object_server().interface::<_, NetworkManager>(path).await;
        let served = served.expect("it is served");
        for (told, is) in [(0, false), (1, true), (2, false), (3, true), (4, false)] {
            served.get_mut().await.0 = told;
            assert_eq!(metered(&asking).await.expect("it answers"), is, "{told}");
        }
    }
}
