//! What a put asks for, in as few messages as servers take it in.
//!
//! Always true: what a server may answer later than at once (a flush, a rename) ends its message. Anywhere else servers may refuse it
//! (MS-SMB2 3.3.5.2.7), and of a flush there Samba up to 4.15 dies.

use bytes::Bytes;
use smb2::Frame;
use smb2::msg::close::{CloseRequest, SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB};
use smb2::msg::flush::FlushRequest;
use smb2::msg::write::WriteResponse;
use smb2::pack::{Pack, ReadCursor, Unpack};
use smb2::types::{Command, FileId};

use super::{Session, facts_of, file_id, query, setting, take_last};
use crate::ErrorKind;
use crate::smb::facts::Facts;
use crate::smb::failure::Failure;
use crate::smb::wire::{self, Open};

/// What a new file is begun with.
pub(in crate::smb) enum First {
    /// All there is to it, no more than one credit pays for, and the time of its last change. It reaches the disk at once.
    Whole { bytes: Bytes, modified: Option<u64> },
    /// Its length.
    Length(u64),
    /// Its length; and it stays when it is closed. It may be there already.
    Kept(u64),
}

impl Session {
    /// Makes a file, where nothing has its name, that goes when it is closed, unless it is [kept](First::Kept). Gives its handle, and
    /// what became of what it was to begin with.
    pub(in crate::smb) async fn make(
        &self,
        name: &[u16],
        first: &First,
    ) -> Result<(FileId, Result<(), Failure>), Failure> {
        let full = self.full_name(name);
        let is_kept = matches!(first, First::Kept(_));
        let open = Open {
            name: &full,
            access: wire::WRITE_FILE,
            options: wire::NON_DIRECTORY_FILE | if is_kept { wire::OPEN_REPARSE_POINT } else { 0 },
            disposition: if is_kept { wire::FILE_OPEN_IF } else { wire::FILE_CREATE },
        };
        let handle = FileId::SENTINEL;
        let mut requests: Vec<(Command, Box<dyn Pack + '_>)> = vec![(Command::Create, Box::new(open))];
        if !is_kept {
            requests.push((Command::SetInfo, Box::new(doom(handle, true))));
        }
        let offset = 0;
        let mut sent = &[][..];
        match first {
            First::Whole { bytes, modified } => {
                sent = bytes;
                if !bytes.is_empty() {
                    requests.push((Command::Write, Box::new(wire::Write { handle, offset, bytes })));
                }
                if let Some(modified) = *modified {
                    requests.push((Command::SetInfo, Box::new(times(handle, modified))));
                }
                requests.push((Command::Flush, Box::new(FlushRequest { file_id: handle })));
            }
            First::Length(length) | First::Kept(length) => {
                let length = length.to_le_bytes().to_vec();
                let length = setting(handle, wire::END_OF_FILE_INFORMATION, length);
                requests.push((Command::SetInfo, Box::new(length)));
            }
        }
        let requests: Vec<(Command, &dyn Pack)> = requests.iter().map(|(command, body)| (*command, &**body)).collect();
        let _writing = self.patience.writing();
        let mut answers = self.chain(&requests).await?.into_iter();
        let created = answers.next().unwrap_or_else(|| Err(unanswered()))?;
        let handle = file_id(&created)?;
        Ok((handle, self.begun(handle, &requests[1..], answers, sent).await))
    }

    /// Looks what became of the requests that followed on the making of a file, and writes what the server did not take.
    async fn begun(
        &self,
        handle: FileId,
        requests: &[(Command, &dyn Pack)],
        mut answers: impl Iterator<Item = Result<Frame, Failure>>,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let mut count = bytes.len();
        for (command, _) in requests {
            let frame = answers.next().unwrap_or_else(|| Err(unanswered()))?;
            if *command == Command::Write {
                count = taken(&frame, bytes.len())?;
            }
        }
        if count < bytes.len() {
            self.write(handle, count as u64, &bytes[count..]).await?;
            self.complete(handle, None).await?;
        }
        Ok(())
    }

    /// Has what was written reach the disk, after the file was given the time of its last change.
    pub(in crate::smb) async fn complete(&self, handle: FileId, modified: Option<u64>) -> Result<(), Failure> {
        let flush = FlushRequest { file_id: handle };
        let Some(modified) = modified else {
            return self.single(Command::Flush, &flush, 1).await.map(drop);
        };
        let times = times(handle, modified);
        let [set, flushed] = self
            .compound(&[(Command::SetInfo, &times), (Command::Flush, &flush)])
            .await?;
        set.and(flushed).map(drop)
    }

    /// Lets a file stay that was to go when it is closed, and gives it another name.
    pub(in crate::smb) async fn keep_as(&self, handle: FileId, to: &[u16], replace: bool) -> Result<(), Failure> {
        let keep = doom(handle, false);
        // Within a tree of DFS, too, the new name is one of the share.
        let rename = setting(handle, wire::RENAME_INFORMATION, wire::rename_information(to, replace));
        let [kept, named] = self
            .compound(&[(Command::SetInfo, &keep), (Command::SetInfo, &rename)])
            .await?;
        match (kept, named) {
            (Err(_), Ok(_)) => {
                // It has its name, with which it must not go. While it is open, it does not.
                let lost = |failure: Failure| Failure::lost(ErrorKind::Other, failure.to_string());
                self.set_doomed(handle, false).await.map_err(lost)
            }
            (kept, named) => kept.and(named).map(drop),
        }
    }

    /// Closes a file that was written, and says what it was then, and what it is from then on, if the server tells: only when it is
    /// closed does one tell its last times.
    pub(in crate::smb) async fn close_asking(&self, handle: FileId) -> Result<(Facts, Option<Facts>), Failure> {
        let ask = query(handle, wire::ALL_INFORMATION);
        let close = CloseRequest {
            flags: SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB,
            file_id: handle,
        };
        let [asked, closed] = self
            .compound(&[(Command::QueryInfo, &ask), (Command::Close, &close)])
            .await?;
        let asked = asked.and_then(|frame| facts_of(&frame));
        let Ok(closed) = closed else {
            // A server may fail the rest with what came first.
            self.close(handle).await?;
            return Ok((asked?, None));
        };
        let asked = asked?;
        let mut last = asked;
        Ok((asked, take_last(&mut last, &closed)?.then_some(last)))
    }
}

/// Says how many of so many bytes a server has taken.
pub(super) fn taken(answer: &Frame, sent: usize) -> Result<usize, Failure> {
    let count = WriteResponse::unpack(&mut ReadCursor::new(&answer.body))?.count as usize;
    if count == 0 || count > sent {
        let text = format!("the server took {count} of {sent} bytes");
        return Err(Failure::new(ErrorKind::Nonsense, text));
    }
    Ok(count)
}

fn doom(handle: FileId, doomed: bool) -> smb2::msg::set_info::SetInfoRequest {
    setting(handle, wire::DISPOSITION_INFORMATION, vec![u8::from(doomed)])
}

fn times(handle: FileId, modified: u64) -> smb2::msg::set_info::SetInfoRequest {
    setting(handle, wire::BASIC_INFORMATION, wire::basic_information(modified))
}

fn unanswered() -> Failure {
    Failure::new(ErrorKind::Nonsense, "the server left a request unanswered")
}
