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
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "nosuid",
    "nodev",
    "suid",
    "dev",
    "exec",
    "noexec",
    "async",
    "noatime",
    "relatime",
    "atime",
    "nodiratime",
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Run `manifold` with these arguments.
    Mount(Vec<OsString>),
    /// `-f`: only pretend.
    Nothing,
}

/// Turns a call by mount(8) into one of `manifold`; `None` where it is none.
pub(crate) fn translate(arguments: &[OsString]) -> Option<Result<Call>> {
    let (program, rest) = arguments.split_first()?;
    (Path::new(program).file_name() == Some(OsStr::new(NAME))).then(|| read(program, rest))
}

fn read(program: &OsStr, arguments: &[OsString]) -> Result<Call> {
    let mut named = Vec::new();
    let mut options = Vec::new();
    let mut pretend = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-o") => options.extend(rest.next()),
            Some("-t" | "-N") => drop(rest.next()),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                if let Some(unknown) = flags.chars().skip(1).find(|flag| !"sfnvrw".contains(*flag)) {
                    return Err(Failure::usage(format!("{NAME} has no flag -{unknown}")));
                }
                pretend |= flags.contains('f');
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
    ]
    .map(Into::into)
    .into();
    let (mut user, mut group) = (None, None);
    for option in options {
        let option = option
            .to_str()
            .ok_or_else(|| Failure::usage("a mount option is not UTF-8"))?;
        for option in option.split(',').filter(|option| !option.is_empty()) {
            let number = |text: &str| {
                text.parse::<u32>().map_err(|_| {
                    Failure::usage(format!("the mount option '{option}' needs a number, such as uid=1000"))
                })
            };
            match option.split_once('=') {
                None if option == "allow_other" => call.push("--allow-other".into()),
                None if option == "ro" => call.push("--read-only".into()),
                Some(("uid", text)) => user = Some(number(text)?),
                Some(("gid", text)) => group = Some(number(text)?),
                _ if IGNORED.contains(&option) || option.starts_with("x-") || option.starts_with("comment=") => {}
                _ => {
                    return Err(Failure::usage(format!("unknown mount option '{option}'")).hint(
                        "known are allow_other, ro, uid=NUMBER and gid=NUMBER; all else stands in the library's settings",
                    ));
                }
            }
        }
    }
    if let Some(user) = user.or(group.map(|_| 0)) {
        call.extend(["--owner".into(), format!("{user}:{}", group.unwrap_or(user)).into()]);
    }
    Ok(if pretend { Call::Nothing } else { Call::Mount(call) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Option<Result<Call>> {
        translate(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_of_fstab_becomes_a_call() {
        let line =
            "/sbin/mount.manifold /var/lib/films /srv/films -n -o rw,_netdev,allow_other,uid=1000,x-systemd.automount";
        let Some(Ok(Call::Mount(call))) = call(line) else {
            panic!("it is a call")
        };
        let words: Vec<_> = call.iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(
            words.join(" "),
            "/sbin/mount.manifold --library /var/lib/films mount /srv/films --background --allow-other --owner 1000:1000"
        );
    }

    #[test]
    fn a_line_that_says_ro_lets_nothing_be_changed() {
        let Some(Ok(Call::Mount(call))) = call("mount.manifold /var/lib/films /srv/films -o ro,nofail") else {
            panic!("it is a call")
        };
        assert_eq!(call.last().and_then(|word| word.to_str()), Some("--read-only"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(call("manifold mount").is_none());
        assert_eq!(call("mount.manifold a b -f"), Some(Ok(Call::Nothing)));
        for bad in [
            "mount.manifold a",
            "mount.manifold a b -o cache=full",
            "mount.manifold a b -o uid=ada",
            "mount.manifold a b -z",
        ] {
            let Some(Err(failure)) = call(bad) else { panic!("{bad}") };
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
