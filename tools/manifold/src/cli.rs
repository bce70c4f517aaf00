//! The command line: one definition, from which help, man pages and completions are made.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::settings::values;

const EXAMPLES: &str = "\
Examples:
  manifold up ~/Pictures ~/Music          Mount two folders at ~/Manifold, until Ctrl-C
  manifold up smb://ada@nas.local/media   The same with a share of a NAS; asks for the password
  manifold up                             Mount again what was mounted before
  manifold status                         Is everything all right?

Sources are kept in a library, so each is named once. `manifold source add --help` tells which
kinds there are. Folders of this machine can be changed through the mount; other sources can where
their setting `write` allows it: manifold source set NAME write=back";

const UP_EXAMPLES: &str = "\
Examples:
  manifold up ~/Pictures
  manifold up ~/Pictures smb://ada@nas.local/media --at /mnt/all
  manifold up 's3://photos?endpoint=https://s3.example.org' --set access_key_id=env:AWS_ACCESS_KEY_ID
  manifold up

Each folder or URI appears under its own last name: ~/Pictures as /Pictures. A second one of the same
name becomes `Pictures 2`. What was added stays in the library; `manifold source remove` takes it out.
A source that does not answer is shown as last known; a new one that does not is refused.";

const ADD_EXAMPLES: &str = "\
Examples:
  manifold source add ~/Pictures --at /photos
  manifold source add smb://ada@nas.local/media/films
  manifold source add s3://archive --set region=eu-west-1 \\
      --set access_key_id=env:AWS_ACCESS_KEY_ID --set secret_access_key=env:AWS_SECRET_ACCESS_KEY
  manifold source add webdavs://ada@cloud.example.org/remote.php/dav/files/ada
  manifold source add sftp://ada@server.example.org/srv/media --set key=/home/ada/.ssh/id_ed25519
  pass show nas | manifold source add smb://ada@nas.local/media --secret-stdin password

Passwords, keys and tokens are never given on the command line, where every process can read them.
They are asked for on the terminal, or taken from stdin, or a reference says where they are:
password=env:NAME, password=file:/path.";

const PIN_EXAMPLES: &str = "\
Examples:
  manifold pin /music/albums /books/manual.pdf
  manifold pin /photos/2024 --wait
  manifold pin --policy '/documents/**' --smaller '50 MiB' --newer '90 d'
  manifold pin --policy '*.epub'

What is pinned is fetched in the background and again when it changes at its source, and does not count against the
limit of the cache (see the setting cache.pinned_bytes). In a pattern * and ? stand for characters of one name, [a-z] for
one of these, and ** for any folders.";

const METRICS_HELP: &str = "\
They count from when the daemon started. The setting metrics.listen has the daemon answer Prometheus itself, at
http://127.0.0.1:9469/metrics or another address of this machine alone.";

const SET_EXAMPLES: &str = "\
Examples:
  manifold source set /media password                       Ask for the new password
  pass show nas | manifold source set /media --secret-stdin password
  manifold source set /archive secret_access_key=file:/run/secrets/s3
  manifold source set /archive concurrency=4 refresh=5m
  manifold source set /archive concurrency=                 Back to the default

It is tried out first, and stays as it was if it cannot be used so. What makes it another source, such as the
address or the user, cannot be changed: add that one.";

/// One drive over everything you store: local folders, NAS shares, buckets, servers and cloud drives.
#[derive(Debug, Parser)]
#[command(
    name = "manifold",
    version,
    about,
    long_about = "One drive over everything you store: local folders, NAS shares, buckets, servers and cloud drives.\n\n\
        Browsing is instant, and works while a source is away; files are fetched when they are read, and kept in a cache.",
    after_help = EXAMPLES,
    max_term_width = 110,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The library to use: a name, or a folder (with a / in it) that holds it
    #[arg(long, global = true, value_name = "NAME|DIR")]
    pub(crate) library: Option<OsString>,

    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add folders and URIs to the library, mount it, and show progress until Ctrl-C
    #[command(after_help = UP_EXAMPLES)]
    Up(Up),
    /// Add, list, test, change, scan and remove sources
    #[command(subcommand)]
    Source(Source),
    /// Mount the library, and serve it until it is unmounted
    Mount(Mount),
    /// Unmount the library, and end its daemon
    Unmount {
        /// The mount point; without it, the mount of the library
        mountpoint: Option<PathBuf>,
    },
    /// Say whether everything is all right
    Status,
    /// Follow what happens in the mounted library: states of sources, scans; with --json, an object on each line
    Events,
    /// List a directory of the library
    Ls {
        /// Its path in the library
        #[arg(default_value = "/", value_parser = tree_path())]
        path: OsString,
        /// Show kind, size and time too
        #[arg(short, long)]
        long: bool,
    },
    /// Show all that is known of an entry
    Stat {
        /// Its path in the library
        #[arg(value_parser = tree_path())]
        path: OsString,
    },
    /// Keep files and folders whole on this machine, so that they can be read with no network
    #[command(after_help = PIN_EXAMPLES)]
    Pin(Pin),
    /// Keep them no longer; what was fetched stays until room is needed
    Unpin {
        /// Their paths in the library
        #[arg(required_unless_present_any = ["policy", "gone"], value_parser = tree_path())]
        paths: Vec<OsString>,
        /// A policy, by its number
        #[arg(long, value_name = "NUMBER")]
        policy: Vec<u64>,
        /// All pins of what is gone from the tree
        #[arg(long)]
        gone: bool,
    },
    /// List what is pinned, and how much of it is here
    Pins,
    /// List what was written and is not at its source yet, and what had to make way
    Uploads {
        /// Instead of listing
        #[command(subcommand)]
        action: Option<Uploads>,
    },
    /// List what was removed from sources that keep it (their setting `trash`), put it back, or delete it for good
    Trash {
        /// Instead of listing
        #[command(subcommand)]
        action: Option<Trash>,
    },
    /// Read files in full, and print the BLAKE3 of their bytes
    ///
    /// What was found is kept, and not read again until the file changes. Files that are found to hold the same bytes stand
    /// in for one another when a source fails or is slow.
    Hash {
        /// Files and directories, by their paths in the library
        #[arg(required = true, value_name = "PATH", value_parser = tree_path())]
        paths: Vec<OsString>,
    },
    /// List a part of the library anew now, and wait until the mount shows it
    Scan {
        /// Its path in the library
        #[arg(default_value = "/", value_parser = tree_path())]
        path: OsString,
        /// Return at once, and let the daemon go on
        #[arg(long)]
        background: bool,
    },
    /// Show, clear and verify the cache
    #[command(subcommand)]
    Cache(Cache),
    /// Print the metrics of the mounted library, in the text format of Prometheus
    #[command(after_help = METRICS_HELP)]
    Metrics {
        /// Print the page that describes each metric instead
        #[arg(long)]
        reference: bool,
    },
    /// Examine the catalog and the settings, without changing them
    Check,
    /// Show the settings in force, and where they are
    Settings {
        /// Print a file with every setting, its meaning and its default instead
        #[arg(long)]
        defaults: bool,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Look after the mount of the daemon that starts this
    #[command(hide = true)]
    Guard,
    /// Write the man pages into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folders and URIs to add; those that are there already are fine
    #[arg(value_name = "DIR_OR_URI", value_parser = named())]
    pub(crate) places: Vec<OsString>,
    /// Where to mount [default: ~/Manifold, or the setting mount.point]
    #[arg(long, value_name = "MOUNTPOINT")]
    pub(crate) at: Option<PathBuf>,
    /// A setting of the source; only with a single `DIR_OR_URI`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Add a source although it cannot be reached now
    #[arg(long)]
    pub(crate) force: bool,
    /// Let other users in, each to what its permissions let them
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Let nothing be changed, whatever the sources allow
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Source {
    /// Try a source out, and add it to the library
    #[command(after_help = ADD_EXAMPLES)]
    Add(Add),
    /// List the sources
    List,
    /// Try a source out, and say in words what is wrong with it
    Test {
        /// A source of the library, by its path or URI; or any folder or URI
        #[arg(value_parser = named())]
        source: OsString,
        /// A setting, where it is not a source of the library
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Change settings or secrets of a source, and connect it anew at once; the mount goes on
    #[command(after_help = SET_EXAMPLES)]
    Set(Set),
    /// Take a source out of the library; nothing is deleted at the source
    Remove {
        /// The source, by its path or URI
        #[arg(value_parser = named())]
        source: OsString,
    },
    /// List everything of a source anew, in the background
    Scan {
        /// The source, by its path or URI; all without it
        #[arg(value_parser = named())]
        source: Option<OsString>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What to add
    #[arg(value_name = "DIR_OR_URI", value_parser = named())]
    pub(crate) place: OsString,
    /// Where in the library it appears [default: its last name]
    #[arg(long, value_name = "PATH", value_parser = tree_path())]
    pub(crate) at: Option<OsString>,
    /// A setting; a secret only as a reference, as in password=env:NAME or password=file:/path
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Read this secret from stdin
    #[arg(long, value_name = "KEY")]
    pub(crate) secret_stdin: Option<String>,
    /// Add it although it cannot be reached now
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The source, by its path or URI
    #[arg(value_parser = named())]
    pub(crate) source: OsString,
    /// A setting and its value, none for its default; or a secret that is to be asked for
    #[arg(value_name = "KEY=VALUE|KEY=|SECRET", required_unless_present = "secret_stdin")]
    pub(crate) changes: Vec<String>,
    /// Read this secret from stdin
    #[arg(long, value_name = "KEY")]
    pub(crate) secret_stdin: Option<String>,
    /// Change it although it cannot be reached now
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Mount {
    /// Where [default: ~/Manifold, or the setting mount.point]
    pub(crate) mountpoint: Option<PathBuf>,
    /// Return as soon as it is mounted, and go on in the background
    #[arg(long)]
    pub(crate) background: bool,
    /// Let other users in, each to what its permissions let them
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Let nothing be changed, whatever the sources allow
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Who owns what has no owner at its source: user and group id
    #[arg(long, value_name = "UID:GID", value_parser = owner)]
    pub(crate) owner: Option<(u32, u32)>,
    /// Set by `--background` for the process that stays
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    /// Do nothing where the library is mounted at that place already, as `mount -a` wants it
    #[arg(long, hide = true, requires = "mountpoint")]
    pub(crate) unless_mounted: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Say what is cached, and where
    Show,
    /// Forget what is cached; it is fetched again when it is read
    Clear {
        /// Only of this source, by its path or URI
        #[arg(value_parser = named())]
        source: Option<OsString>,
        /// What is pinned, too; it is fetched again
        #[arg(long)]
        pinned: bool,
    },
    /// Read everything that is cached on disk, and drop what is damaged
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// Their paths in the library; a folder counts with all that is in it, now and later
    #[arg(required_unless_present = "policy", value_parser = tree_path())]
    pub(crate) paths: Vec<OsString>,
    /// Pin every file whose path matches, or, without a / in the pattern, whose name does
    #[arg(long, value_name = "GLOB")]
    pub(crate) policy: Option<OsString>,
    /// The policy means only files larger than this
    #[arg(long, value_name = "SIZE", requires = "policy", value_parser = size)]
    pub(crate) larger: Option<u64>,
    /// The policy means only files smaller than this
    #[arg(long, value_name = "SIZE", requires = "policy", value_parser = size)]
    pub(crate) smaller: Option<u64>,
    /// The policy means only files that were changed within this time
    #[arg(long, value_name = "AGE", requires = "policy", value_parser = age)]
    pub(crate) newer: Option<Duration>,
    /// Wait until everything is here, and show how far it is
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Takes a path in the library. One that says nothing, as a variable of the shell that was never set, does not mean everything.
fn tree_path() -> impl TypedValueParser<Value = OsString> {
    not_empty("an empty path means nothing; write / for the whole library")
}

/// Takes what names a source, a folder or a server.
fn named() -> impl TypedValueParser<Value = OsString> {
    not_empty("an empty name means no source and no folder")
}

fn not_empty(otherwise: &'static str) -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(move |path| if path.is_empty() { Err(otherwise) } else { Ok(path) })
}

fn size(text: &str) -> Result<u64, String> {
    values::size(text).ok_or_else(|| "expected a size, as in \"10 MiB\" or 1GB".to_owned())
}

fn age(text: &str) -> Result<Duration, String> {
    values::duration(text).ok_or_else(|| "expected a time, as in \"30 d\" or 12h".to_owned())
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    parsed.ok_or_else(|| "expected two numbers, as in 1000:1000".to_owned())
}

/// What is done about uploads.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Uploads {
    /// Try again now what failed or was refused
    Retry,
}

/// What is done with what was removed.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Trash {
    /// Put back what was removed last of a file or folder; nothing is replaced by it
    Restore {
        /// Where it stood in the library
        #[arg(required = true, value_name = "PATH", value_parser = tree_path())]
        paths: Vec<OsString>,
        /// Not the last, but what was removed on this day, as it is listed
        #[arg(long, value_name = "DAY")]
        day: Option<String>,
    },
    /// Delete for good what was removed
    Empty {
        /// Only what was removed at least so long ago
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<Duration>,
        /// Do it; without this it is only said what would be deleted
        #[arg(long)]
        yes: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_empty_path_does_not_mean_the_whole_library() {
        for command in ["ls", "stat", "pin", "unpin", "hash", "scan"] {
            let refused = Cli::try_parse_from(["manifold", command, ""]).expect_err(command);
            assert!(
                refused.to_string().contains("write / for the whole library"),
                "{refused}"
            );
        }
        assert!(Cli::try_parse_from(["manifold", "trash", "restore", ""]).is_err());
        assert!(Cli::try_parse_from(["manifold", "source", "add", "/mnt", "--at", ""]).is_err());
        for command in ["add", "remove", "test", "scan"] {
            assert!(
                Cli::try_parse_from(["manifold", "source", command, ""]).is_err(),
                "{command}"
            );
        }
        assert!(Cli::try_parse_from(["manifold", "source", "set", "", "write=back"]).is_err());
        assert!(Cli::try_parse_from(["manifold", "up", ""]).is_err());
        assert!(Cli::try_parse_from(["manifold", "pin", "/"]).is_ok());
    }

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!(owner("1000:100"), Ok((1000, 100)));
        assert!(owner("ada:users").is_err());
        assert!(owner("1000").is_err());
    }
}
