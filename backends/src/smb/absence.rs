//! What it takes to believe that nothing stands at a name.

use smb2::types::Command;

use super::failure::Failure;
use super::session::{Session, file_id};
use super::wire::{self, Open};
use crate::ErrorKind;

/// How often something that its directory lists is asked for, before it is said to be busy.
const LOOKS: usize = 3;

impl Session {
    /// Asks for what stands at `name`, and believes that nothing does only if its directory does not list it either.
    ///
    /// Samba finds a name, then opens it. Where another file takes the name between the two, it answers that there is none,
    /// though there was never a moment without one. The directory tells the truth.
    pub(super) async fn surely<T, R>(&self, name: &[u16], ask: impl Fn() -> R) -> Result<T, Failure>
    where
        R: Future<Output = Result<T, Failure>>,
    {
        for _ in 0..LOOKS {
            match ask().await {
                Err(Failure::Absent) if self.lists(name).await? => {}
                answer => return answer,
            }
        }
        Err(Failure::new(
            ErrorKind::Busy,
            "the server lists the name and does not open it; it is being replaced or removed",
        ))
    }

    /// Tells whether the directory of `name` lists it. It does not where it may not be listed, or where the name is
    /// not Unicode and cannot be asked for.
    async fn lists(&self, name: &[u16]) -> Result<bool, Failure> {
        let separator = u16::from(b'\\');
        let (directory, last) = match name.iter().rposition(|&unit| unit == separator) {
            Some(at) => (&name[..at], &name[at + 1..]),
            None => (&name[..0], name),
        };
        let Ok(pattern) = String::from_utf16(last) else {
            return Ok(false);
        };
        if pattern.is_empty() {
            return Ok(false);
        }
        let directory = self.full_name(directory);
        let open = Open {
            name: &directory,
            access: wire::LIST_DIRECTORY,
            options: wire::DIRECTORY_FILE,
            disposition: wire::FILE_OPEN,
        };
        let handle = match self.single(Command::Create, &open, 1).await {
            Ok(frame) => file_id(&frame)?,
            Err(
                Failure::Absent
                | Failure::Failed {
                    kind: ErrorKind::NotADirectory | ErrorKind::PermissionDenied,
                    ..
                },
            ) => return Ok(false),
            Err(failure) => return Err(failure),
        };
        let page = self.page(handle, &pattern, true).await;
        self.close(handle).await?;
        // A server may also list what has this name in other letters, or as its short name.
        Ok(page?.is_some_and(|page| page.iter().any(|(listed, _)| listed == last)))
    }
}
