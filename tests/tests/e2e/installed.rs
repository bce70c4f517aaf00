//! The installed program as a machine uses it: `/etc/fstab` at boot, a systemd user manager at login.

use std::path::Path;
use std::process::Command;

use manifold_tests::mounted::manifold;

/// Needs root, for a mount namespace of its own.
#[test]
fn fstab_and_systemd_mount_an_installed_library() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh"])
        .arg(here.join("tests/e2e/installed.sh"))
        .arg(here.join("../packaging"))
        .arg(manifold())
        .arg(folder.path())
        .output()
        .expect("run unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim_end().ends_with("all good"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
