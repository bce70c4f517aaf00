//! Everything that looks at the tree and must not wait for a source, and what it shows. Whether it has waited is told by counts
//! ([`Served`](crate::served::Served)); how long it took tells only a look that waits in the kernel, behind a request that waits for a source.

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

/// Gives how long a round takes, in the middle of these.
pub(crate) fn usual(rounds: &[Looks]) -> Duration {
    let mut all: Vec<_> = rounds.iter().map(|looks| looks.took).collect();
    all.sort_unstable();
    all[all.len() / 2]
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

    /// Makes sure that it shows the same as another round, and that nothing was waited for.
    pub(crate) fn must_show(&self, truth: &Self, when: &str) {
        assert!(self.took < ROUND_MAX, "{when}: the looks took {:?}", self.took);
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
