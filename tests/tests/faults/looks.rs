//! Everything that looks at the tree and must not wait for a source: what it shows, and how long it takes.
//!
//! How long is told by a comparison with the same looks at a plain folder of the same tree, one after the other, since other
//! tests share the machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The longest that a round may take. No look has a deadline of its own that it could end with: one that waits for a
/// source waits for seconds.
const ROUND_MAX: Duration = Duration::from_secs(3);

/// What shells do when somebody asks for completion in each folder.
const COMPLETION: &str = r#"shopt -s globstar; for folder in "$1"/**/; do compgen -f -- "$folder"; done"#;

/// The looks; the mount point follows as the last argument.
const COMMANDS: [(&str, &[&str]); 5] = [
    ("find", &[]),
    ("ls", &["-lR"]),
    ("sh", &["-c", STAT, "sh"]),
    // How much of the disk beneath is used changes, whatever becomes of the sources.
    ("df", &["--output=size,fstype"]),
    ("bash", &["-c", COMPLETION, "bash"]),
];
const STAT: &str = r#"find "$1" -printf '%P %y %i %s %T@\n'; stat -c '%n %s %Y %i' "$1"/* "$1"/*/*"#;

/// The mount, and a plain folder that holds the same tree.
pub(crate) struct Views<'a> {
    mount: &'a Path,
    plain: tempfile::TempDir,
}

impl<'a> Views<'a> {
    /// Makes the plain folder.
    pub(crate) fn of(mount: &'a Path) -> Self {
        let plain = tempfile::tempdir().expect("make a temporary folder");
        copy_tree(mount, plain.path());
        Self { mount, plain }
    }

    /// Looks at both.
    pub(crate) fn look(&self) -> Round {
        let plain = Looks::take(self.plain.path()).took;
        let looks = Looks::take(self.mount);
        Round { looks, plain }
    }
}

/// One round of looks at the mount, and how much longer they took than those at the plain folder.
pub(crate) struct Round {
    looks: Looks,
    plain: Duration,
}

impl Round {
    fn longer_ms(&self) -> f64 {
        self.looks.took.as_secs_f64() * 1e3 - self.plain.as_secs_f64() * 1e3
    }

    /// Makes sure that it shows the same as another round, and that nothing was waited for.
    pub(crate) fn must_show(&self, truth: &Looks, when: &str) {
        self.looks.must_show(truth, when);
        let took = self.looks.took;
        assert!(took < ROUND_MAX, "{when}: the looks took {took:?}");
    }
}

/// Gives how much longer the looks at the mount take, in the middle of these rounds, in milliseconds.
pub(crate) fn longer_ms(rounds: &[Round]) -> f64 {
    let mut all: Vec<_> = rounds.iter().map(Round::longer_ms).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Makes the same folders and files, without what is in the files.
fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("look into a folder") {
        let entry = entry.expect("look into a folder");
        let (metadata, copy) = (entry.metadata().expect("look at an entry"), to.join(entry.file_name()));
        if metadata.is_dir() {
            fs::create_dir(&copy).expect("make a folder");
            copy_tree(&entry.path(), &copy);
        } else {
            let file = fs::File::create(&copy).expect("make a file");
            file.set_len(metadata.len()).expect("make it as long");
        }
    }
}

/// One round of looks at a whole tree.
pub(crate) struct Looks {
    shown: Vec<(&'static str, String)>,
    took: Duration,
}

impl Looks {
    /// Takes one round.
    pub(crate) fn take(at: &Path) -> Self {
        let begun = Instant::now();
        let shown = COMMANDS.map(|(program, arguments)| {
            let output = Command::new(program)
                .args(arguments)
                .arg(at)
                .env("LC_ALL", "C")
                .output()
                .expect("run a command");
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                text.push_str(&String::from_utf8_lossy(&output.stderr));
            }
            (program, text)
        });
        Self {
            shown: shown.into(),
            took: begun.elapsed(),
        }
    }

    fn must_show(&self, truth: &Self, when: &str) {
        for ((name, shown), (_, truth)) in self.shown.iter().zip(&truth.shown) {
            if shown != truth {
                let missing: Vec<_> = truth
                    .lines()
                    .filter(|line| !shown.lines().any(|it| it == *line))
                    .collect();
                let strange: Vec<_> = shown
                    .lines()
                    .filter(|line| !truth.lines().any(|it| it == *line))
                    .collect();
                panic!("{when}: {name} misses {missing:#?}\nand shows {strange:#?}");
            }
        }
    }
}
