//! Puts in parts, one for each block: what has arrived stays until the put has ended, or somebody ends it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use manifold_backends::{
    Body, Error, ErrorKind, ObjectPath, Operation, PartLog, PartUpload, Presence, Result, SentPart,
};

use super::{BLOCK, Cue, Shelf};

/// What was begun, and how many bytes of parts have arrived since the start.
#[derive(Debug, Default)]
pub(super) struct Begun {
    uploads: BTreeMap<String, Vec<u8>>,
    count: u64,
    arrived: u64,
}

/// A put in parts that is under way.
pub(super) struct UnderWay {
    log: Arc<dyn PartLog>,
    id: Option<String>,
}

impl Begun {
    /// What was begun beneath a directory goes with it.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        let beneath = [from, b"/"].concat();
        for path in self.uploads.values_mut().filter(|path| path.starts_with(&beneath)) {
            *path = [to, &path[from.len()..]].concat();
        }
    }
}

impl Shelf {
    /// Counts the bytes that have arrived in parts since the start.
    pub(crate) fn arrived(&self) -> u64 {
        self.state.lock().parts.arrived
    }

    /// Lists the paths to which a put was begun that has not ended.
    pub(crate) fn begun(&self) -> Vec<String> {
        let state = self.state.lock();
        let paths = state.parts.uploads.values();
        paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    /// Forgets what has arrived of puts that have not ended, as a source may after a while.
    pub(crate) fn forget_parts(&self) {
        self.state.lock().parts.uploads.clear();
    }

    pub(super) async fn take_in(&self, path: &ObjectPath, body: &dyn Body) -> Result<(Vec<u8>, Option<UnderWay>)> {
        let failed = |error: io::Error| Error::new(ErrorKind::Other, Operation::Put, self.name, path.clone(), error);
        let log = body.parts().filter(|_| body.size() > u64::from(BLOCK));
        let mut left = match &log {
            Some(log) => log.broken_off().await.map_err(failed)?,
            None => None,
        };
        if let Some(upload) = &left
            && self.state.lock().parts.uploads.get(&upload.id).map(Vec::as_slice) != Some(path.as_bytes())
        {
            left = None;
            if let Some(log) = &log {
                log.ended().await.map_err(failed)?;
            }
        }
        let id = left.as_ref().map(|upload| upload.id.clone());
        let mut put = log.map(|log| UnderWay { log, id });
        let (mut bytes, mut arrived) = (Vec::new(), 0);
        while (bytes.len() as u64) < body.size() {
            let at = bytes.len() as u64;
            let part = body
                .read(at..(at + u64::from(BLOCK)).min(body.size()))
                .await
                .map_err(failed)?;
            if let Some(put) = &mut put {
                let sum = *blake3::hash(&part).as_bytes().first_chunk().unwrap();
                let part = SentPart {
                    number: (at / u64::from(BLOCK)) as u32 + 1,
                    length: part.len() as u64,
                    sum,
                    tag: format!("\"{}\"", u64::from_le_bytes(*sum.first_chunk().unwrap())),
                };
                if !left.iter().any(|left: &PartUpload| left.parts.contains(&part)) {
                    self.send(path, put, part, &mut arrived).await?;
                }
            }
            bytes.extend_from_slice(&part);
        }
        Ok((bytes, put))
    }

    async fn send(&self, path: &ObjectPath, put: &mut UnderWay, part: SentPart, arrived: &mut u64) -> Result<()> {
        let failed = |error: io::Error| Error::new(ErrorKind::Other, Operation::Put, self.name, path.clone(), error);
        let cue = *self.cue.borrow();
        let refused = match cue {
            Cue::BreaksOff { after, kind } if *arrived >= after => Some(kind),
            Cue::IsAway => Some(ErrorKind::Unreachable),
            _ => None,
        };
        if let Some(kind) = refused {
            return Err(self.error(kind, Operation::Put, path));
        }
        if put.id.is_none() {
            let id = {
                let mut state = self.state.lock();
                state.parts.count += 1;
                let id = format!("upload/{}", state.parts.count);
                state.parts.uploads.insert(id.clone(), path.as_bytes().to_vec());
                id
            };
            put.log.begun(&id).await.map_err(failed)?;
            put.id = Some(id);
        }
        *arrived += part.length;
        self.state.lock().parts.arrived += part.length;
        put.log.sent(part).await.map_err(failed)?;
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(super) async fn put_together(&self, path: &ObjectPath, put: Option<UnderWay>) -> Result<()> {
        let Some(UnderWay { log, id: Some(id) }) = put else {
            return Ok(());
        };
        self.state.lock().parts.uploads.remove(&id);
        self.changed.send_modify(|count| *count += 1);
        let ended = log.ended().await;
        ended.map_err(|error| Error::new(ErrorKind::Other, Operation::Put, self.name, path.clone(), error))
    }

    pub(super) fn end(&self, path: &ObjectPath, upload: &str) -> Result<Presence<()>> {
        self.refuse(Operation::Put, path)?;
        if *self.cue.borrow() == Cue::EndsNothing {
            return Err(self.error(ErrorKind::TimedOut, Operation::Put, path));
        }
        let mut state = self.state.lock();
        let lies_there = state.parts.uploads.get(upload).map(Vec::as_slice) == Some(path.as_bytes());
        let ended = lies_there.then(|| state.parts.uploads.remove(upload));
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        Ok(ended.map_or(Presence::Absent, |_| Presence::Found(())))
    }
}
