//! `mount.manifold`: how mount(8), and with it /etc/fstab, mounts a library.
//!
//! mount(8) calls `mount.TYPE LIBRARY MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`; the program under that name is
//! a link to `manifold`. It ends when the library is mounted.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::failure::{Failure, Result};

const NAME: &str = "mount.manifold";

/// Options that are for mount(8) and systemd, or that are so anyway.
const IGNORED: &[&str] = &[
    "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "nosuid", "nodev",
    "async", "relatime", "silent",
];
/// Options that ask for what no such mount does, and why not.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("suid", "the mount is nosuid in any case"),
    ("dev", "the mount is nodev in any case"),
    ("strictatime", "reading moves no access times here"),
    ("lazytime", "times are kept at once where they are set"),
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Run `manifold` with these arguments. What was asked for and has no effect is told first.
    Mount {
        arguments: Vec<OsString>,
        notes: Vec<String>,
    },
    /// `-f`: only pretend.
    Nothing,
}

/// What the options of one call ask for. Of two that exclude one another the later holds, as with mount(8).
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of mount(8)")]
struct Asked {
    allow_other: bool,
    read_only: bool,
    no_exec: bool,
    no_atime: bool,
    no_diratime: bool,
    user: Option<u32>,
    group: Option<u32>,
    notes: Vec<String>,
}

impl Asked {
    fn take(&mut self, option: &str) -> Result<()> {
        let number = |text: &str| {
            text.parse::<u32>()
                .map(Some)
                .map_err(|_| Failure::usage(format!("the mount option '{option}' needs a number, such as uid=1000")))
        };
        match option.split_once('=') {
            Some(("uid", text)) => self.user = number(text)?,
            Some(("gid", text)) => self.group = number(text)?,
            Some(("comment", _)) => {}
            _ if option.starts_with("x-") || IGNORED.contains(&option) => {}
            _ => match option {
                "allow_other" => self.allow_other = true,
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "noexec" => self.no_exec = true,
                "exec" => self.no_exec = false,
                "noatime" => self.no_atime = true,
                "atime" => self.no_atime = false,
                "nodiratime" => self.no_diratime = true,
                "diratime" => self.no_diratime = false,
                _ => {
                    let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(name, _)| *name == option) else {
                        return Err(Failure::usage(format!("unknown mount option '{option}'")).hint(
                            "known are allow_other, ro, noexec, noatime, nodiratime, uid=NUMBER and gid=NUMBER; all else stands in the \
                             library's settings",
                        ));
                    };
                    self.notes
                        .push(format!("the mount option '{option}' has no effect: {why}"));
                }
            },
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<OsString> {
        let switches = [
            (self.allow_other, "--allow-other"),
            (self.read_only, "--read-only"),
            (self.no_exec, "--noexec"),
            (self.no_atime, "--noatime"),
            (self.no_diratime, "--nodiratime"),
        ];
        let set = switches.into_iter().filter(|(is_set, _)| *is_set);
        let mut arguments: Vec<OsString> = set.map(|(_, switch)| switch.into()).collect();
        if let Some(user) = self.user.or(self.group.map(|_| 0)) {
            let owner = format!("{user}:{}", self.group.unwrap_or(user));
            arguments.extend(["--owner".into(), owner.into()]);
        }
        arguments
    }
}

/// Turns a call by mount(8) into one of `manifold`; `None` where it is none.
pub(crate) fn translate(arguments: &[OsString]) -> Option<Result<Call>> {
    let (program, rest) = arguments.split_first()?;
    (Path::new(program).file_name() == Some(OsStr::new(NAME))).then(|| read(program, rest))
}

fn read(program: &OsStr, arguments: &[OsString]) -> Result<Call> {
    let mut named = Vec::new();
    let mut asked = Asked::default();
    let mut pretend = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-o") => {
                let options = rest.next().map(|options| options.to_str());
                let options = options
                    .unwrap_or_default()
                    .ok_or_else(|| Failure::usage("a mount option is missing, or not UTF-8"))?;
                for option in options.split(',').filter(|option| !option.is_empty()) {
                    asked.take(option)?;
                }
            }
            Some("-t" | "-N") => drop(rest.next()),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                for flag in flags.chars().skip(1) {
                    match flag {
                        'f' => pretend = true,
                        'r' => asked.take("ro")?,
                        'w' => asked.take("rw")?,
                        's' | 'n' | 'v' => {}
                        _ => return Err(Failure::usage(format!("{NAME} has no flag -{flag}"))),
                    }
                }
            }
            _ => named.push(argument),
        }
    }
    let [library, point] = named.as_slice() else {
        return Err(Failure::usage(format!("usage: {NAME} LIBRARY MOUNTPOINT [-o OPTIONS]"))
            .hint("in /etc/fstab: /var/lib/manifold/films /srv/films manifold _netdev,nofail,allow_other 0 0"));
    };
    let mut call: Vec<OsString> = [
        program,
        OsStr::new("--library"),
        library,
        OsStr::new("mount"),
        point,
        OsStr::new("--background"),
        // `mount -a` calls for each line, also for those that are mounted.
        OsStr::new("--unless-mounted"),
    ]
    .map(Into::into)
    .into();
    call.extend(asked.arguments());
    Ok(if pretend {
        Call::Nothing
    } else {
        Call::Mount {
            arguments: call,
            notes: asked.notes,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Option<Result<Call>> {
        translate(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    /// The words of the call, and the notes.
    fn mounting(line: &str) -> (String, Vec<String>) {
        let Some(Ok(Call::Mount { arguments, notes })) = call(line) else {
            panic!("it is a call: {line}")
        };
        let words: Vec<_> = arguments.iter().filter_map(|word| word.to_str()).collect();
        (words.join(" "), notes)
    }

    #[test]
    fn a_line_of_fstab_becomes_a_call() {
        let line =
            "/sbin/mount.manifold /var/lib/films /srv/films -n -o rw,_netdev,allow_other,uid=1000,x-systemd.automount";
        assert_eq!(
            mounting(line).0,
            "/sbin/mount.manifold --library /var/lib/films mount /srv/films --background --unless-mounted --allow-other --owner 1000:1000"
        );
    }

    #[test]
    fn what_the_kernel_can_see_to_is_asked_of_it_and_the_later_of_two_holds() {
        for (options, switches) in [
            ("ro,nofail", " --read-only"),
            ("rw,noexec,noatime,nodiratime", " --noexec --noatime --nodiratime"),
            ("ro,rw,noexec,exec,noatime,atime,nodiratime,diratime", ""),
            ("users,noexec,nosuid,nodev,relatime", " --noexec"),
        ] {
            let line = format!("mount.manifold /var/lib/films /srv/films -o {options}");
            let (words, notes) = mounting(&line);
            assert!(
                words.ends_with(&format!("--unless-mounted{switches}")),
                "{options}: {words}"
            );
            assert_eq!(notes, [""; 0], "{options}");
        }
        assert!(mounting("mount.manifold a b -r").0.ends_with(" --read-only"));
    }

    #[test]
    fn what_no_such_mount_does_is_told() {
        let (words, notes) = mounting("mount.manifold a b -o rw,suid,dev,exec,strictatime");
        assert!(words.ends_with("--unless-mounted"), "{words}");
        assert_eq!(
            notes,
            [
                "the mount option 'suid' has no effect: the mount is nosuid in any case",
                "the mount option 'dev' has no effect: the mount is nodev in any case",
                "the mount option 'strictatime' has no effect: reading moves no access times here",
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(call("manifold mount").is_none());
        assert_eq!(call("mount.manifold a b -f"), Some(Ok(Call::Nothing)));
        for bad in [
            "mount.manifold a",
            "mount.manifold a b -o cache=full",
            "mount.manifold a b -o uid=ada",
            "mount.manifold a b -o sync",
            "mount.manifold a b -o",
            "mount.manifold a b -z",
        ] {
            let Some(Err(failure)) = call(bad) else { panic!("{bad}") };
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
