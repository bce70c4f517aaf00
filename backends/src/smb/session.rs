//! One connection: a socket, a session and the share, and the exchanges that are made over it.
//!
//! `smb2` multiplexes: any number of exchanges run at once over one session, bounded by the credits that the server
//! grants. Its own reconnecting is left off, so that a session here never changes under its handles: when the
//! connection is lost, the session is [`lost`](Session::is_lost) for good, and the pool makes another.
//!
//! Always true: a handle is only ever used on the session that opened it.

mod making;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use smb2::client::connection::Connection;
use smb2::client::watcher::Watcher;
use smb2::crypto::encryption::Cipher;
use smb2::msg::close::{CloseRequest, CloseResponse, SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB};
use smb2::msg::ioctl::{IoctlRequest, IoctlResponse, SMB2_0_IOCTL_IS_FSCTL};
use smb2::msg::query_directory::{FileInformationClass, QueryDirectoryFlags, QueryDirectoryRequest};
use smb2::msg::query_info::{InfoType, QueryInfoRequest};
use smb2::msg::read::{ReadRequest, SMB2_CHANNEL_NONE};
use smb2::msg::set_info::SetInfoRequest;
use smb2::pack::{Pack, ReadCursor, Unpack};
use smb2::types::flags::Capabilities;
use smb2::types::status::NtStatus;
use smb2::types::{Command, CreditCharge, FileId};
use smb2::{CompoundOp, Frame, Tree};
use tokio::time::Instant;

use super::facts::Facts;
use super::failure::{Failure, Left};
use super::handshake;
use super::listing::Page;
use super::patience::Patience;
use super::settings::{Protection, Settings};
use super::wire::{self, LinkTarget, Open};
use crate::{ErrorKind, Secret};

pub(super) use making::First;

/// What one credit pays for (MS-SMB2 3.2.4.1.5), in bytes.
const CREDIT_BYTES: u32 = 64 * 1024;

/// How much of a directory is asked for at once: some two thousand entries.
const PAGE_BYTES: u32 = 256 * 1024;

/// A connection that is set up.
pub(super) struct Session {
    connection: Connection,
    patience: Patience,
    tree: Tree,
    /// `host\share\`, which a share of a DFS tree wants before each name (MS-SMB2 3.2.4.3).
    prefix: Vec<u16>,
    read_max: u32,
    write_max: u32,
    page_max: u32,
    made: Instant,
    lost: AtomicBool,
    without_index: AtomicBool,
    /// Exchanges under way; the pool chooses by it.
    pub(super) busy: AtomicU32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("share", &self.tree.share_name)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects, logs in and enters the share.
    pub(super) async fn set_up(settings: &Settings) -> Result<Self, Failure> {
        let (mut connection, line) = handshake::connect(settings).await?;
        let password = settings.password.as_ref().map_or("", Secret::expose);
        let session = smb2::Session::setup(&mut connection, &settings.user, password, &settings.domain).await?;
        if settings.encryption == Protection::Required {
            encrypt(&mut connection, &session)?;
        }
        if settings.signing == Protection::Required && !session.should_sign && !connection.should_encrypt() {
            return Err(Failure::new(
                ErrorKind::Settings,
                "the server does not sign what it sends to a guest; give user and password, or set signing = auto",
            ));
        }
        let tree = Tree::connect(&mut connection, &settings.share).await?;
        if tree.encrypt_data {
            encrypt(&mut connection, &session)?;
        }
        let parameters = connection
            .params()
            .ok_or_else(|| Failure::lost(ErrorKind::Nonsense, "the connection has no parameters"))?;
        let prefix = if tree.is_dfs {
            format!("{}\\{}\\", connection.server_name(), tree.share_name)
                .encode_utf16()
                .collect()
        } else {
            Vec::new()
        };
        Ok(Self {
            read_max: parameters.max_read_size.max(CREDIT_BYTES),
            write_max: parameters.max_write_size.max(CREDIT_BYTES),
            page_max: parameters.max_transact_size.clamp(CREDIT_BYTES, PAGE_BYTES),
            prefix,
            connection,
            patience: Patience::with(line, settings.request_timeout),
            tree,
            made: Instant::now(),
            lost: AtomicBool::new(false),
            without_index: AtomicBool::new(false),
            busy: AtomicU32::new(0),
        })
    }

    /// Tells whether the connection is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.connection.is_disconnected()
    }

    /// Tells when the connection was made.
    pub(super) fn made(&self) -> Instant {
        self.made
    }

    /// Takes the connection out of use if `failure` says that nothing of it is left.
    pub(super) fn note(&self, failure: &Failure) {
        if failure.left() == Left::Nothing {
            self.give_up();
        }
    }

    /// Takes the connection out of use. What is under way on it goes on.
    pub(super) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Asks for the attributes of what stands at `name`, the link itself if it is one.
    ///
    /// They come with the answer to the closing. While a file is open, Samba tells everyone else who asks, in a listing
    /// too, the times that it had when it was opened, whatever a program on the server did to it since.
    pub(super) async fn stat(&self, name: &[u16]) -> Result<Facts, Failure> {
        self.surely(name, || self.stat_once(name)).await
    }

    async fn stat_once(&self, name: &[u16]) -> Result<Facts, Failure> {
        let name = self.full_name(name);
        let open = Open {
            name: &name,
            access: wire::READ_ATTRIBUTES,
            options: wire::OPEN_REPARSE_POINT,
            disposition: wire::FILE_OPEN,
        };
        let (all, tag) = (
            query(FileId::SENTINEL, wire::ALL_INFORMATION),
            query(FileId::SENTINEL, wire::ATTRIBUTE_TAG_INFORMATION),
        );
        let close = CloseRequest {
            flags: SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB,
            file_id: FileId::SENTINEL,
        };
        let frames = self
            .compound(&[
                (Command::Create, &open),
                (Command::QueryInfo, &all),
                (Command::QueryInfo, &tag),
                (Command::Close, &close),
            ])
            .await?;
        let [created, all, tag, closed] = frames;
        let handle = file_id(&created?)?;
        let facts = all.and_then(|frame| facts_of(&frame));
        let Ok(closed) = closed else {
            // A server that fails the rest of a compound with its first failure leaves the handle open.
            self.close(handle).await?;
            let text = "the server could not close what it had opened";
            return Err(facts.err().unwrap_or_else(|| Failure::new(ErrorKind::Nonsense, text)));
        };
        let mut facts = facts?;
        take_last(&mut facts, &closed)?;
        if facts.attributes & Facts::REPARSE_POINT != 0 {
            facts.tag = wire::reparse_tag(wire::output_buffer(&tag?.body)?)?;
        }
        Ok(facts)
    }

    /// Opens the file at `name` for reading, and says what it is.
    pub(super) async fn open(&self, name: &[u16]) -> Result<(FileId, Facts), Failure> {
        self.surely(name, || self.open_once(name)).await
    }

    async fn open_once(&self, name: &[u16]) -> Result<(FileId, Facts), Failure> {
        let name = self.full_name(name);
        let open = Open {
            name: &name,
            access: wire::READ_FILE,
            options: wire::NON_DIRECTORY_FILE,
            disposition: wire::FILE_OPEN,
        };
        let all = query(FileId::SENTINEL, wire::ALL_INFORMATION);
        let [created, all] = self
            .compound(&[(Command::Create, &open), (Command::QueryInfo, &all)])
            .await?;
        let handle = file_id(&created?)?;
        match all.and_then(|frame| facts_of(&frame)) {
            Ok(facts) => Ok((handle, facts)),
            Err(failure) => {
                if failure.left() != Left::Nothing {
                    self.close(handle).await?;
                }
                Err(failure)
            }
        }
    }

    /// Asks what an open file is now.
    pub(super) async fn query(&self, handle: FileId) -> Result<Facts, Failure> {
        let frame = self
            .single(Command::QueryInfo, &query(handle, wire::ALL_INFORMATION), 1)
            .await?;
        facts_of(&frame)
    }

    /// Gives the longest read that the server takes, of those up to `wish`.
    pub(super) fn read_size(&self, wish: u32) -> u32 {
        self.affordable(wish.min(self.read_max))
    }

    /// Reads up to `length` bytes; fewer only if the server chooses so, none never.
    pub(super) async fn read(&self, handle: FileId, offset: u64, length: u32) -> Result<Bytes, Failure> {
        let request = ReadRequest {
            padding: 0x50,
            flags: 0,
            length,
            offset,
            file_id: handle,
            minimum_count: 1,
            channel: SMB2_CHANNEL_NONE,
            remaining_bytes: 0,
            read_channel_info: Vec::new(),
        };
        let frame = self
            .single(Command::Read, &request, length.div_ceil(CREDIT_BYTES).max(1) as u16)
            .await?;
        let data = wire::read_data(frame.body)?;
        if data.is_empty() {
            return Err(Failure::of_status(NtStatus::END_OF_FILE, Command::Read));
        }
        if data.len() > length as usize {
            return Err(Failure::new(
                ErrorKind::Nonsense,
                "the server sent more than was asked for",
            ));
        }
        Ok(data)
    }

    /// Opens or makes what stands at `name`.
    pub(super) async fn open_as(
        &self,
        name: &[u16],
        access: u32,
        options: u32,
        disposition: u32,
    ) -> Result<FileId, Failure> {
        let full = self.full_name(name);
        let open = Open {
            name: &full,
            access,
            options,
            disposition,
        };
        let ask = || async { file_id(&self.single(Command::Create, &open, 1).await?) };
        if disposition == wire::FILE_OPEN {
            self.surely(name, ask).await
        } else {
            ask().await
        }
    }

    /// Gives the longest write that the server takes, of those up to `wish`.
    pub(super) fn write_size(&self, wish: u32) -> u32 {
        self.affordable(wish.min(self.write_max))
    }

    /// Writes all of `data`, as much at once as the server takes by now: it may have shown since that it grants fewer credits than
    /// were hoped for.
    pub(super) async fn write(&self, handle: FileId, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let _writing = self.patience.writing();
        let mut written = 0;
        while written < data.len() {
            let end = data.len().min(written + self.write_size(u32::MAX) as usize);
            let request = wire::Write {
                handle,
                offset: offset + written as u64,
                bytes: &data[written..end],
            };
            let charge = (request.bytes.len() as u32).div_ceil(CREDIT_BYTES).max(1) as u16;
            let frame = self.single(Command::Write, &request, charge).await?;
            written += making::taken(&frame, request.bytes.len())?;
        }
        Ok(())
    }

    /// Changes something of what is open.
    pub(super) async fn set(&self, handle: FileId, class: u8, information: Vec<u8>) -> Result<(), Failure> {
        let request = setting(handle, class, information);
        self.single(Command::SetInfo, &request, 1).await.map(drop)
    }

    /// Gives another name to what is open.
    pub(super) async fn rename(&self, handle: FileId, to: &[u16], replace: bool) -> Result<(), Failure> {
        // Within a tree of DFS, too, the new name is one of the share.
        let information = wire::rename_information(to, replace);
        self.set(handle, wire::RENAME_INFORMATION, information).await
    }

    /// Says whether what is open is to go when it is closed.
    pub(super) async fn set_doomed(&self, handle: FileId, doomed: bool) -> Result<(), Failure> {
        self.set(handle, wire::DISPOSITION_INFORMATION, vec![u8::from(doomed)])
            .await
    }

    /// Closes a handle.
    pub(super) async fn close(&self, handle: FileId) -> Result<(), Failure> {
        let request = CloseRequest {
            flags: 0,
            file_id: handle,
        };
        self.single(Command::Close, &request, 1).await.map(drop)
    }

    /// Opens the directory at `name` for listing.
    pub(super) async fn open_directory(&self, name: &[u16]) -> Result<FileId, Failure> {
        self.open_as(name, wire::LIST_DIRECTORY, wire::DIRECTORY_FILE, wire::FILE_OPEN)
            .await
    }

    /// Gives the next page of an open directory; `None` at its end.
    pub(super) async fn next_page(&self, handle: FileId, first: bool) -> Result<Option<Page>, Failure> {
        self.page(handle, "*", first).await
    }

    /// Gives a page of what matches the pattern.
    pub(super) async fn page(&self, handle: FileId, pattern: &str, first: bool) -> Result<Option<Page>, Failure> {
        loop {
            let with_index = !self.without_index.load(Ordering::Relaxed);
            let length = self.affordable(self.page_max);
            let request = QueryDirectoryRequest {
                file_information_class: if with_index {
                    FileInformationClass::FileIdBothDirectoryInformation
                } else {
                    FileInformationClass::FileBothDirectoryInformation
                },
                flags: QueryDirectoryFlags(if first { QueryDirectoryFlags::RESTART_SCANS } else { 0 }),
                file_index: 0,
                file_id: handle,
                output_buffer_length: length,
                file_name: pattern.to_owned(),
            };
            let charge = CreditCharge(length.div_ceil(CREDIT_BYTES).max(1) as u16);
            let frame = self
                .connection
                .execute_with_credits(Command::QueryDirectory, &request, Some(self.tree.tree_id), charge)
                .await?;
            return match frame.header.status {
                NtStatus::SUCCESS => Ok(Some(wire::directory_page(
                    wire::output_buffer(&frame.body)?,
                    with_index,
                )?)),
                NtStatus::NO_MORE_FILES => Ok(None),
                // Nothing matches; the answer of some servers for a directory without even dots.
                NtStatus::NO_SUCH_FILE if first => Ok(None),
                NtStatus::INVALID_INFO_CLASS | NtStatus::NOT_SUPPORTED if first && with_index => {
                    self.without_index.store(true, Ordering::Relaxed);
                    continue;
                }
                // Nothing is absent here: the directory is open.
                status => match Failure::of_status(status, Command::QueryDirectory) {
                    Failure::Absent => Err(Failure::new(
                        ErrorKind::Other,
                        format!("the listing broke off: the server answered {status}"),
                    )),
                    failure @ Failure::Failed { .. } => Err(failure),
                },
            };
        }
    }

    /// Watches a directory of the share and all beneath it. The path is as `smb2` has it: UTF-8, with slashes.
    pub(super) async fn watch(&self, path: &str) -> Result<Watcher, Failure> {
        let mut connection = self.connection.clone();
        Ok(self.tree.watch(&mut connection, path, true).await?)
    }

    /// Reads where the link at `name` points. `Unsupported` if it is no link.
    pub(super) async fn read_link(&self, name: &[u16]) -> Result<LinkTarget, Failure> {
        let (access, options) = (wire::READ_ATTRIBUTES, wire::OPEN_REPARSE_POINT);
        let handle = self.open_as(name, access, options, wire::FILE_OPEN).await?;
        let request = IoctlRequest {
            ctl_code: wire::FSCTL_GET_REPARSE_POINT,
            file_id: handle,
            max_input_response: 0,
            max_output_response: CREDIT_BYTES,
            flags: SMB2_0_IOCTL_IS_FSCTL,
            input_data: Vec::new(),
        };
        let answer = self.single(Command::Ioctl, &request, 1).await;
        self.close(handle).await?;
        let not_a_link = || Failure::new(ErrorKind::Unsupported, "this is not a symbolic link that can be read");
        let frame = match answer {
            Ok(frame) => frame,
            Err(Failure::Failed { left: Left::All, .. } | Failure::Absent) => return Err(not_a_link()),
            Err(failure) => return Err(failure),
        };
        let response = IoctlResponse::unpack(&mut ReadCursor::new(&frame.body))?;
        wire::link_target(&response.output_data)?.ok_or_else(not_a_link)
    }

    /// What half of the credits pay for, once the server has shown how many it grants; a longer request would wait for
    /// credits that never come.
    fn affordable(&self, wish: u32) -> u32 {
        match self.connection.credit_ceiling() {
            Some(ceiling) => wish.min(u32::from(ceiling / 2).max(1).saturating_mul(CREDIT_BYTES)),
            None => wish,
        }
    }

    pub(super) fn full_name(&self, name: &[u16]) -> Vec<u16> {
        let mut full = self.prefix.clone();
        full.extend_from_slice(name);
        if name.is_empty() {
            full.pop();
        }
        full
    }

    pub(super) async fn single(&self, command: Command, body: &dyn Pack, charge: u16) -> Result<Frame, Failure> {
        let frame = self
            .connection
            .execute_with_credits(command, body, Some(self.tree.tree_id), CreditCharge(charge))
            .await?;
        accept(frame, command)
    }

    /// Sends several requests as one, all on the handle that the first opens or names.
    async fn compound<const N: usize>(
        &self,
        requests: &[(Command, &dyn Pack); N],
    ) -> Result<[Result<Frame, Failure>; N], Failure> {
        let answers = self.chain(requests).await?;
        answers
            .try_into()
            .map_err(|_| Failure::new(ErrorKind::Nonsense, "the server left a request unanswered"))
    }

    /// As [`compound`](Self::compound), of any number. A loss of the connection in the middle is the failure of the whole.
    async fn chain(&self, requests: &[(Command, &dyn Pack)]) -> Result<Vec<Result<Frame, Failure>>, Failure> {
        let operations: Vec<CompoundOp<'_>> = requests
            .iter()
            .map(|(command, body)| CompoundOp::new(*command, *body, Some(self.tree.tree_id)))
            .collect();
        let mut answers = Vec::with_capacity(requests.len());
        for (frame, (command, _)) in self
            .connection
            .execute_compound(&operations)
            .await?
            .into_iter()
            .zip(requests)
        {
            answers.push(match frame {
                Ok(frame) => accept(frame, *command),
                Err(error) => Err(error.into()),
            });
        }
        if let Some(Err(failure)) = answers
            .iter()
            .find(|answer| answer.as_ref().is_err_and(|failure| failure.left() == Left::Nothing))
        {
            return Err(failure.clone());
        }
        Ok(answers)
    }
}

/// Turns encryption on for all that follows.
fn encrypt(connection: &mut Connection, session: &smb2::Session) -> Result<(), Failure> {
    if connection.should_encrypt() {
        return Ok(());
    }
    let refuse = |why: &str| Failure::new(ErrorKind::Settings, format!("the exchange cannot be encrypted: {why}"));
    if !session.should_sign {
        return Err(refuse("a guest has no key; give user and password"));
    }
    let (Some(encryption), Some(decryption), Some(parameters)) =
        (&session.encryption_key, &session.decryption_key, connection.params())
    else {
        return Err(refuse("the server speaks no SMB 3"));
    };
    let cipher = match parameters.cipher {
        Some(cipher) => cipher,
        // SMB 3.0 knows one cipher and does not name it.
        None if parameters.capabilities.contains(Capabilities::ENCRYPTION) => Cipher::Aes128Ccm,
        None => return Err(refuse("the server does not offer it")),
    };
    connection.activate_encryption(encryption.clone(), decryption.clone(), cipher);
    Ok(())
}

fn accept(frame: Frame, command: Command) -> Result<Frame, Failure> {
    // An answer that was cut to fit still begins with what was asked for.
    if frame.header.status.is_success_or_partial() {
        Ok(frame)
    } else {
        Err(Failure::of_status(frame.header.status, command))
    }
}

pub(super) fn file_id(created: &Frame) -> Result<FileId, Failure> {
    let response = smb2::msg::create::CreateResponse::unpack(&mut ReadCursor::new(&created.body))?;
    Ok(response.file_id)
}

/// Takes over what the answer to a closing tells, if it does.
fn take_last(facts: &mut Facts, closed: &Frame) -> Result<bool, Failure> {
    let closed = CloseResponse::unpack(&mut ReadCursor::new(&closed.body))?;
    let tells = closed.flags & SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB != 0;
    if tells {
        facts.created = closed.creation_time.0;
        facts.modified = closed.last_write_time.0;
        facts.changed = closed.change_time.0;
        facts.size = closed.end_of_file;
        facts.attributes = closed.file_attributes;
    }
    Ok(tells)
}

fn facts_of(frame: &Frame) -> Result<Facts, Failure> {
    Ok(wire::all_information(wire::output_buffer(&frame.body)?)?)
}

fn setting(file_id: FileId, class: u8, information: Vec<u8>) -> SetInfoRequest {
    SetInfoRequest {
        info_type: InfoType::File,
        file_info_class: class,
        additional_information: 0,
        file_id,
        buffer: information,
    }
}

fn query(file_id: FileId, class: u8) -> QueryInfoRequest {
    QueryInfoRequest {
        info_type: InfoType::File,
        file_info_class: class,
        output_buffer_length: CREDIT_BYTES,
        additional_information: 0,
        flags: 0,
        file_id,
        input_buffer: Vec::new(),
    }
}
