//! Puts whose line is cut, after each byte of what they say: a server has all of the object then, or nothing of it.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{Expected, Presence};
use manifold_tests::proxy::Fault;
use manifold_tests::servers::{Apache, Azurite, Behind, FakeGcs, Samba, SeaweedFs, Server, Sshd};

use crate::content::Content;
use crate::subject::{Subject, within};
use crate::writing::{path, put, read, workplace};

const SIZE: u64 = 40;
/// Where the object's own bytes are not on the line, it is cut after each so many.
const STEP: usize = 61;

/// The pause between two looks at what has come.
const MOMENT: Duration = Duration::from_millis(1);

fn content() -> Content {
    Content::new(SIZE, 60)
}

/// A server behind a line that can be cut, and a backend over it.
pub(crate) struct Line {
    server: Arc<Behind>,
    subject: Subject,
}

impl Line {
    pub(crate) async fn smb() -> Self {
        Self::to("SMB", Samba::start()).await
    }

    pub(crate) async fn s3() -> Self {
        Self::to("S3", SeaweedFs::start()).await
    }

    pub(crate) async fn webdav() -> Self {
        Self::to("WebDAV", Apache::start()).await
    }

    pub(crate) async fn sftp() -> Self {
        Self::to("SFTP", Sshd::start()).await
    }

    pub(crate) async fn azblob() -> Self {
        Self::to("Azure", Azurite::start_in_memory()).await
    }

    pub(crate) async fn gcs() -> Self {
        Self::to("Google Cloud Storage", FakeGcs::start()).await
    }

    async fn to(name: &'static str, server: impl Server + 'static) -> Self {
        let server = Arc::new(Behind::proxy(server));
        let subject = Subject::over(name, Arc::<Behind>::clone(&server)).await;
        Self { server, subject }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.subject.name()
    }

    /// Cuts the line when so many bytes of a put have reached the server.
    async fn cut(&self, name: &str, bytes: u64) {
        let line = self.server.line();
        let goal = line.taken() + bytes;
        line.fail(Fault::Takes { bytes });
        let (backend, object) = (Arc::clone(&self.subject.backend), path(name));
        let putting = tokio::spawn(async move { backend.put(&object, &content(), &Expected::Absent).await });
        while line.taken() < goal && !putting.is_finished() {
            tokio::time::sleep(MOMENT).await;
        }
        // The connection is closed in order, as of a program that is killed; what is asked anew is answered.
        line.fail(Fault::Elsewhere { port: line.upstream() });
        // It may have had its answer before.
        let _told = within(putting).await;
        line.heal();
    }

    /// Tells whether an object is there, which must be whole then.
    async fn has_whole(&self, name: &str) -> bool {
        let looked = within(self.subject.backend.stat(&path(name))).await;
        match looked.unwrap_or_else(|error| panic!("{name}: {error}")) {
            Presence::Absent => false,
            Presence::Found(metadata) => {
                assert_eq!(metadata.size, SIZE, "{name} is there in part");
                assert!(read(&self.subject, name, &metadata).await == content().all(), "{name}");
                true
            }
        }
    }
}

pub(crate) async fn a_put_whose_line_is_cut_at_any_byte_leaves_all_or_nothing(line: &Line) {
    workplace(&line.subject, "cut").await;
    // The first asks more than those that follow.
    put(&line.subject, "cut/first", &content(), &Expected::Absent).await;
    let before = line.server.line().taken();
    put(&line.subject, "cut/other", &content(), &Expected::Absent).await;
    let whole = line.server.line().taken() - before;
    let mut numbers = 0..;
    let mut cut = async |bytes| {
        let name = format!("cut/{:05}", numbers.next().expect("numbers do not end"));
        line.cut(&name, bytes).await;
        (line.has_whole(&name).await, name)
    };
    let mut names = Vec::new();
    // With how many bytes it is there, which ends with its own where one request makes it.
    let (mut absent, mut there) = (0, whole);
    while absent + 1 < there {
        let bytes = absent.midpoint(there);
        let (is_there, name) = cut(bytes).await;
        (absent, there) = if is_there { (absent, bytes) } else { (bytes, there) };
        names.push(name);
    }
    let last = there.saturating_sub(SIZE + 2)..=there;
    for bytes in (0..whole).step_by(STEP).chain(last) {
        names.push(cut(bytes).await.1);
    }
    for name in names {
        line.has_whole(&name).await;
    }
}
