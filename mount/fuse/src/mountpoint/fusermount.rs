//! fusermount3, the set-user-id helper that mounts for ordinary users.
//!
//! It hands back the device over a socket whose number stands in `_FUSE_COMMFD` (libfuse, `lib/mount.c`). The socket is
//! given to it as its standard input, so that no descriptor has to be made inheritable in a process with many threads.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::Left;
use crate::{MountError, MountOptions};

const PROGRAM: &str = "fusermount3";

pub(super) fn mount(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let system = |cause| MountError::System {
        doing: "talk to fusermount3",
        point: point.to_owned(),
        cause,
    };
    let (ours, theirs) = UnixStream::pair().map_err(system)?;
    let child = start(
        Command::new(PROGRAM)
            .arg("-o")
            .arg(option_string(options))
            .arg("--")
            .arg(point)
            .env("_FUSE_COMMFD", "0")
            // Dropped with the command at the end of this statement: if the helper ends without a word, the socket closes.
            .stdin(OwnedFd::from(theirs)),
        point,
    );
    let child = child?;
    let received = receive(&ours);
    let (success, said) = finish(child, point)?;
    match received.map_err(system)? {
        Some(device) if success => Ok(device),
        _ if said.contains("user_allow_other") => Err(MountError::AllowOtherForbidden),
        _ => Err(MountError::Fusermount {
            point: point.to_owned(),
            said,
        }),
    }
}

/// [`Left::Detached`] stands for "busy" where `lazily` is false.
pub(super) fn unmount(point: &Path, lazily: bool) -> Result<Left, MountError> {
    let mut command = Command::new(PROGRAM);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let child = start(command.arg("--").arg(point).stdin(Stdio::null()), point)?;
    let (success, said) = finish(child, point)?;
    if success {
        Ok(Left::Unmounted)
    } else if !lazily && said.contains("busy") {
        Ok(Left::Detached)
    } else {
        Err(MountError::Fusermount {
            point: point.to_owned(),
            said,
        })
    }
}

fn option_string(options: &MountOptions) -> String {
    // A comma would begin the next option.
    let name = options.fs_name.replace('\\', "\\\\").replace(',', "\\,");
    let flags: Vec<_> = super::flags(options).map(|(name, _)| name).collect();
    format!(
        "{},fsname={name},subtype=manifold,{}",
        flags.join(","),
        super::permissions(options)
    )
}

fn start(command: &mut Command, point: &Path) -> Result<Child, MountError> {
    // Its messages are searched for a word, so they have to be in English.
    command
        .env("LC_ALL", "C")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => MountError::NoFusermount,
            _ => MountError::System {
                doing: "run fusermount3",
                point: point.to_owned(),
                cause,
            },
        })
}

fn finish(child: Child, point: &Path) -> Result<(bool, String), MountError> {
    let output = child.wait_with_output().map_err(|cause| MountError::System {
        doing: "wait for fusermount3",
        point: point.to_owned(),
        cause,
    })?;
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// The device, or `None` if the other side hung up without sending one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => break,
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_comma_cannot_bring_in_an_option() {
        for (read_only, changes) in [(false, "rw"), (true, "ro")] {
            let options = MountOptions {
                fs_name: "a,dev\\,suid".to_owned(),
                read_only,
                ..MountOptions::default()
            };
            let name = "a\\,dev\\\\\\,suid";
            assert_eq!(
                option_string(&options),
                format!("nosuid,nodev,{changes},fsname={name},subtype=manifold,default_permissions")
            );
        }
    }

    #[test]
    fn what_the_kernel_sees_to_is_asked_for_by_its_name() {
        let options = MountOptions {
            read_only: true,
            no_exec: true,
            no_atime: true,
            no_diratime: true,
            ..MountOptions::default()
        };
        let asked = option_string(&options);
        assert!(
            asked.starts_with("nosuid,nodev,ro,noexec,noatime,nodiratime,fsname="),
            "{asked}"
        );
    }

    #[test]
    fn a_helper_that_hangs_up_gives_no_device() {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        drop(theirs);
        assert!(receive(&ours).expect("the end of the stream is not an error").is_none());
    }
}
