//! The reference model: a library over a folder of this machine and one other source, and whatever can happen to it. Files
//! are made, changed, renamed and removed behind the mount; sources go away and come back; the daemon is killed and
//! restarted; and others look at all this through the mount and through the control socket.
//!
//! What must hold is written down without a cache, a catalog or a clock (`model/truth.rs`): each path is shown as its source
//! had it at some time since the last scan that is known to have seen it, and as it is once one has; what nobody touched
//! is shown as it was, whatever state its source is in; a handle reads the one version that it opened; an inode number is
//! of one file for good.
//!
//! A case is made from a seed, and made smaller when it fails. `MANIFOLD_TESTS_SEED` begins with another seed than 1, and
//! `MANIFOLD_MODEL_CASES` says how many follow it.

#![allow(clippy::print_stdout, reason = "what happened is shown with the case that failed")]

#[path = "model/bytes.rs"]
mod bytes;
#[path = "model/change.rs"]
mod change;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/control.rs"]
mod control;
#[path = "model/ground.rs"]
mod ground;
#[path = "model/handle.rs"]
mod handle;
#[path = "model/look.rs"]
mod look;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/source.rs"]
mod source;
#[path = "model/truth.rs"]
mod truth;
#[path = "model/world.rs"]
mod world;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use ground::{Ground, Kind};

/// How many cases there are of each kind of source, unless that is set.
const CASES: u64 = 5;
/// The same for SFTP, where each session takes its time to begin.
const SFTP_CASES: u64 = 2;
/// The most operations of a case.
const OPERATIONS_MAX: usize = 40;
/// How long a case that failed is made smaller, in milliseconds: well within the time that a test may take.
const SHRINK_MS_MAX: u32 = 120_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("it is a number"))
}

/// Lets cases happen, each from a seed of its own, so that it can be repeated alone.
fn many_cases(kind: Kind) {
    let far = Ground::start(kind);
    let first = number("MANIFOLD_TESTS_SEED", 1);
    let cases = if kind == Kind::Sftp { SFTP_CASES } else { CASES };
    for seed in first..first + number("MANIFOLD_MODEL_CASES", cases) {
        println!("seed {seed}");
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_time: SHRINK_MS_MAX,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let run = runner.run(&operation::case(OPERATIONS_MAX), |case| {
            world::live(&Ground::start(Kind::Local), &far, &case);
            Ok(())
        });
        if let Err(error) = run {
            panic!("seed {seed}, repeated by MANIFOLD_TESTS_SEED={seed} MANIFOLD_MODEL_CASES=1: {error}");
        }
    }
}

#[test]
fn whatever_happens_beside_an_smb_share_the_mount_keeps_its_promises() {
    many_cases(Kind::Smb);
}

#[test]
fn whatever_happens_beside_a_bucket_the_mount_keeps_its_promises() {
    many_cases(Kind::S3);
}

#[test]
fn whatever_happens_beside_webdav_the_mount_keeps_its_promises() {
    many_cases(Kind::Webdav);
}

#[test]
fn whatever_happens_beside_webdav_without_tags_the_mount_keeps_its_promises() {
    many_cases(Kind::WebdavNginx);
}

#[test]
fn whatever_happens_beside_sftp_the_mount_keeps_its_promises() {
    many_cases(Kind::Sftp);
}
