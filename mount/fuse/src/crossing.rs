//! The crossing from the kernel's threads into the runtime, and the answer's way back.
//!
//! What the file system knows is answered on the thread that read the request: a task for each hit would double the cost.
//! What it has to fetch goes into a task together with its reply, so that the thread is free for the next request.
//!
//! Always true: every request is answered once. A panic, in the handler or in the task, becomes EIO for that request and
//! touches no other; a task that is dropped with the runtime drops its reply, and fuser answers a dropped reply with EIO.
//! The number of requests in tasks is bounded; beyond the bound a request that would have to wait is refused, while those
//! that need not wait go on being answered.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use fuser::Errno;
use futures::FutureExt;
use manifold_vfs::{Answer, Error};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::Instrument;

use crate::{errno, requester, watchdog::InFlight};

/// Requests that wait for a source at one time. The kernel holds a thread of some application for nearly each of them,
/// so this is far above what a working machine has, and 4,096 tasks of about 1 KiB do not hurt.
const WAITING_MAX: usize = 4096;

/// What a request is called in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    /// The kernel's number of the request, unique while it lasts.
    pub(crate) id: u64,
    pub(crate) op: &'static str,
    pub(crate) ino: u64,
    /// The thread that asked, as far as this process can see it; else 0.
    pub(crate) pid: u32,
    /// It may take as long as a disk of this machine takes: no watchdog looks at it.
    pub(crate) patient: bool,
}

/// A reply of any kind: all can carry an error.
pub(crate) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ident),*) => {$(
        impl Refuse for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Where requests cross over.
pub(crate) struct Crossing {
    runtime: Handle,
    gate: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
}

impl Crossing {
    pub(crate) fn new(runtime: Handle, in_flight: Arc<InFlight>) -> Self {
        Self {
            runtime,
            gate: Arc::new(Semaphore::new(WAITING_MAX)),
            in_flight,
        }
    }

    /// Asks, and answers by `respond`, which turns the result into what the kernel wants; now or when it has come.
    pub(crate) fn answer<T, R>(
        &self,
        ticket: Ticket,
        reply: R,
        ask: impl FnOnce() -> Answer<T>,
        respond: impl FnOnce(R, Ticket, Result<T, Error>) + Send + 'static,
    ) where
        T: Send + 'static,
        R: Send + 'static + Refuse,
    {
        let _inline = self.in_flight.inline();
        let span = tracing::debug_span!("request", id = ticket.id, op = ticket.op, ino = ticket.ino);
        let entered = span.enter();
        // The reply is inside: if this unwinds, dropping it answers.
        let crossed = catch_unwind(AssertUnwindSafe(|| match ask() {
            Answer::Ready(result) => respond(reply, ticket, result),
            Answer::Pending(result) => {
                let Ok(place) = Arc::clone(&self.gate).try_acquire_owned() else {
                    tracing::warn!(
                        ?ticket,
                        "{WAITING_MAX} requests are waiting for sources; this one is refused"
                    );
                    return reply.refuse(Errno::EAGAIN);
                };
                let (waiting, given_up) = self.in_flight.waiting(ticket);
                if waiting.is_first() {
                    self.runtime
                        .spawn(requester::look_after(Arc::downgrade(&self.in_flight)));
                }
                let task = async move {
                    let answered = AssertUnwindSafe(async {
                        tokio::select! {
                            biased;
                            result = result => respond(reply, ticket, result),
                            Ok(()) = given_up => {
                                tracing::debug!(?ticket, "nobody waits for the answer any more");
                                reply.refuse(Errno::EINTR);
                            }
                        }
                    })
                    .catch_unwind()
                    .await;
                    drop((place, waiting));
                    if let Err(panic) = answered {
                        ticket.panicked(panic.as_ref());
                    }
                };
                self.runtime.spawn(task.instrument(span.clone()));
            }
        }));
        drop(entered);
        if let Err(panic) = crossed {
            ticket.panicked(panic.as_ref());
        }
    }

    /// Where else work can be done.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Runs a handler that never waits.
    pub(crate) fn now(&self, ticket: Ticket, handle: impl FnOnce()) {
        let _inline = self.in_flight.inline();
        let _entered = tracing::debug_span!("request", id = ticket.id, op = ticket.op, ino = ticket.ino).entered();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(handle)) {
            ticket.panicked(panic.as_ref());
        }
    }
}

impl Ticket {
    /// Gives the errno for `error`, and writes what nobody expected to the log; the message holds the whole chain of causes.
    pub(crate) fn failed(self, error: &Error) -> Errno {
        let Self { id, op, ino, .. } = self;
        let errno = errno(error);
        if matches!(error, Error::Io(..)) {
            tracing::error!(id, op, ino, error = %error, "request failed");
        } else {
            tracing::debug!(id, op, ino, error = %error, "request failed");
        }
        errno
    }

    fn panicked(self, panic: &(dyn Any + Send)) {
        let Self { id, op, ino, .. } = self;
        let said = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(
            id,
            op,
            ino,
            said,
            "a request ended in a panic and was answered with EIO: this is a bug"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reply that tells what came of it, and EIO if nobody answered it, as fuser's do.
    struct Told(Option<Sender<i32>>);

    impl Told {
        fn new() -> (Self, Receiver<i32>) {
            let (sender, receiver) = channel();
            (Self(Some(sender)), receiver)
        }

        fn send(&mut self, code: i32) {
            if let Some(sender) = self.0.take() {
                sender.send(code).expect("the test listens");
            }
        }
    }

    impl Refuse for Told {
        fn refuse(mut self, errno: Errno) {
            self.send(errno.code());
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.send(Errno::EIO.code());
        }
    }

    const TICKET: Ticket = Ticket {
        id: 1,
        op: "test",
        ino: 2,
        pid: 0,
        patient: false,
    };
    const WELL: i32 = 0;

    fn respond(mut reply: Told, ticket: Ticket, result: Result<(), Error>) {
        match result {
            Ok(()) => reply.send(WELL),
            Err(error) => reply.refuse(ticket.failed(&error)),
        }
    }

    fn crossing() -> (tokio::runtime::Runtime, Crossing) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        let crossing = Crossing::new(runtime.handle().clone(), InFlight::new(1));
        (runtime, crossing)
    }

    #[test]
    fn answers_come_through_now_or_later() {
        let (_runtime, crossing) = crossing();
        for answer in [|| Answer::Ready(Ok(())), || Answer::Pending(Box::pin(async { Ok(()) }))] {
            let (reply, told) = Told::new();
            crossing.answer(TICKET, reply, answer, respond);
            assert_eq!(told.recv(), Ok(WELL));
        }
        let (reply, told) = Told::new();
        crossing.answer(TICKET, reply, || Answer::Ready(Err(Error::Stale)), respond);
        assert_eq!(told.recv(), Ok(Errno::ESTALE.code()));
    }

    #[test]
    fn a_panic_anywhere_is_eio_for_that_request_only() {
        let (_runtime, crossing) = crossing();
        let asks: [fn() -> Answer<()>; 2] = [
            || panic!("while asking"),
            || Answer::Pending(Box::pin(async { panic!("while waiting") })),
        ];
        for ask in asks {
            let (reply, told) = Told::new();
            crossing.answer(TICKET, reply, ask, respond);
            assert_eq!(told.recv(), Ok(Errno::EIO.code()));
        }
        let answers: [fn() -> Answer<()>; 2] =
            [|| Answer::Ready(Ok(())), || Answer::Pending(Box::pin(async { Ok(()) }))];
        for answer in answers {
            let (reply, told) = Told::new();
            crossing.answer(TICKET, reply, answer, |_reply, _, _| panic!("while answering"));
            assert_eq!(told.recv(), Ok(Errno::EIO.code()));
        }
        let (reply, told) = Told::new();
        crossing.now(TICKET, || {
            let _reply = reply;
            panic!("while handling")
        });
        assert_eq!(told.recv(), Ok(Errno::EIO.code()));

        let (reply, told) = Told::new();
        crossing.answer(TICKET, reply, || Answer::Ready(Ok(())), respond);
        assert_eq!(told.recv(), Ok(WELL), "the next is answered as ever");
    }

    #[test]
    fn beyond_the_bound_who_would_wait_is_refused_and_who_need_not_is_answered() {
        let (_runtime, crossing) = crossing();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let (reply, told) = Told::new();
                crossing.answer(
                    TICKET,
                    reply,
                    || Answer::Pending(Box::pin(std::future::pending())),
                    respond,
                );
                told
            })
            .collect();
        let (reply, told) = Told::new();
        crossing.answer(TICKET, reply, || Answer::Pending(Box::pin(async { Ok(()) })), respond);
        assert_eq!(told.recv(), Ok(Errno::EAGAIN.code()));
        let (reply, told) = Told::new();
        crossing.answer(TICKET, reply, || Answer::Ready(Ok(())), respond);
        assert_eq!(told.recv(), Ok(WELL));
        assert!(
            waiting.iter().all(|told| told.try_recv().is_err()),
            "those within the bound go on waiting"
        );
    }

    #[test]
    fn a_request_whose_process_is_gone_is_answered_and_let_go_and_others_are_not() {
        let (_runtime, crossing) = crossing();
        let mut gone = std::process::Command::new("true").spawn().expect("true");
        gone.wait().expect("it was ours");
        let (let_go, was_let_go) = channel::<()>();
        let ask = |pid, held: Sender<()>| {
            let (reply, told) = Told::new();
            let pending = async move {
                let _held = held;
                std::future::pending().await
            };
            crossing.answer(
                Ticket { pid, ..TICKET },
                reply,
                || Answer::Pending(Box::pin(pending)),
                respond,
            );
            told
        };
        let alive = Ticket {
            id: 2,
            pid: std::process::id(),
            ..TICKET
        };
        let (reply, stays) = Told::new();
        crossing.answer(
            alive,
            reply,
            || Answer::Pending(Box::pin(std::future::pending())),
            respond,
        );
        let told = ask(gone.id(), let_go);
        assert_eq!(told.recv(), Ok(Errno::EINTR.code()));
        assert!(was_let_go.recv().is_err(), "nothing is fetched for it any more");
        assert!(stays.try_recv().is_err());
    }

    #[test]
    fn what_waits_when_the_runtime_ends_is_answered() {
        let (runtime, crossing) = crossing();
        let (reply, told) = Told::new();
        crossing.answer(
            TICKET,
            reply,
            || Answer::Pending(Box::pin(std::future::pending())),
            respond,
        );
        drop(runtime);
        assert_eq!(told.recv(), Ok(Errno::EIO.code()));
        let (reply, told) = Told::new();
        crossing.answer(
            TICKET,
            reply,
            || Answer::Pending(Box::pin(std::future::pending())),
            respond,
        );
        assert_eq!(
            told.recv(),
            Ok(Errno::EIO.code()),
            "nor is what comes after left waiting"
        );
    }
}
