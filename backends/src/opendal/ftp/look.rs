//! Looks at one name.
//!
//! By the listing of its directory, since there is no other question that all servers answer, and none else that tells a link or a
//! directory from a file. Whether a file that was read is still the one that was read is asked of it alone: of its size (`SIZE`,
//! RFC 3659, 4) and time (`MDTM`), both at once.

use ::opendal::Metadata as Seen;
use ::opendal::MetadataBuilder;

use super::{Ftp, Precisely, Proof, within};
use crate::opendal::source::Source;
use crate::{ObjectPath, Operation, Presence, Result};

impl Ftp {
    /// Looks for a name in its directory.
    pub(in crate::opendal) async fn find(
        &self,
        source: &Source,
        operation: Operation,
        path: &ObjectPath,
        raw: &str,
    ) -> Result<Presence<Seen>> {
        if operation == Operation::Read
            && let Some(seen) = self.glance(source, path, raw).await?
        {
            return Ok(Presence::Found(seen));
        }
        let raw = raw.trim_end_matches('/');
        let (directory, name) = match raw.rfind('/') {
            Some(slash) => raw.split_at(slash + 1),
            None => ("/", raw),
        };
        let look = (directory, Precisely::One(name));
        let Presence::Found(lines) = self.lines(source, operation, path, look).await? else {
            return Ok(Presence::Absent);
        };
        let found = lines.into_iter().find(|line| line.name == name);
        Ok(found.map_or(Presence::Absent, |line| Presence::Found(line.metadata())))
    }

    /// Looks at what was a file when it was read. `None`: it is none any more, or the server cannot tell so; then its directory does.
    async fn glance(&self, source: &Source, path: &ObjectPath, raw: &str) -> Result<Option<Seen>> {
        if raw.contains(['\r', '\n']) {
            return Ok(None);
        }
        let operation = Operation::Read;
        let (_permit, mut ready) = self
            .line(&self.listings, source, operation, path, Proof::Answered)
            .await?;
        let told = loop {
            let asked = self.seconds.of_one((&mut ready.line, self.tls), raw);
            match within(source.patience, asked).await {
                Ok(told) => break told,
                Err(failed) if failed.is_loss() && !ready.proven => ready = self.anew(source, operation, path).await?,
                Err(failed) => return Err(self.error(source, operation, path, failed)),
            }
        };
        self.keep(ready.line);
        Ok(told.map(|(size, modified)| {
            let mut seen = MetadataBuilder::file(size);
            seen.last_modified(modified);
            seen.build()
        }))
    }
}
