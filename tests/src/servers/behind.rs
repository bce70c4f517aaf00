//! A server that stands behind a fault proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{Daemon, Server};
use crate::network::Namespace;
use crate::proxy::Proxy;

/// A server whose source is reached through a [`Proxy`]; objects are put past it.
pub struct Behind {
    server: Box<dyn Server>,
    proxy: Proxy,
}

impl Behind {
    /// Puts a proxy before a server.
    pub fn proxy(server: impl Server + 'static) -> Self {
        let port = server.daemon().port();
        let proxy = if speaks_ftp(&server) {
            Proxy::start_ftp(port)
        } else {
            Proxy::start(port)
        };
        Self {
            server: Box::new(server),
            proxy,
        }
    }

    /// Puts a proxy before a server whose other side lies in a network of its own.
    pub fn network(server: impl Server + 'static, namespace: &Arc<Namespace>) -> Self {
        let proxy = Proxy::start_within(namespace, server.daemon().port(), speaks_ftp(&server));
        Self {
            server: Box::new(server),
            proxy,
        }
    }

    /// Gives the proxy.
    pub fn line(&self) -> &Proxy {
        &self.proxy
    }

    /// Names the proxy where the server names itself.
    fn through(&self, text: &str) -> String {
        let own = format!("127.0.0.1:{}", self.proxy.upstream());
        text.replace(&own, &self.proxy.address().to_string())
    }
}

fn speaks_ftp(server: &impl Server) -> bool {
    server.uri().starts_with("ftp")
}

impl Server for Behind {
    fn uri(&self) -> String {
        self.through(&self.server.uri())
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let settings = self.server.settings().into_iter();
        settings.map(|(key, value)| (key, self.through(&value))).collect()
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        self.server.secrets()
    }

    fn root(&self) -> Option<&Path> {
        self.server.root()
    }

    fn put(&self, path: &[u8], bytes: &[u8]) {
        self.server.put(path, bytes);
    }

    fn make_directory(&self, path: &[u8]) {
        self.server.make_directory(path);
    }

    fn unfinished(&self) -> Vec<String> {
        self.server.unfinished()
    }

    fn has(&self, path: &[u8]) -> bool {
        self.server.has(path)
    }

    fn remove(&self, path: &[u8]) {
        self.server.remove(path);
    }

    fn daemon(&self) -> &Daemon {
        self.server.daemon()
    }

    fn kill9(&self) {
        self.server.kill9();
    }

    fn can_be_paused(&self) -> bool {
        self.server.can_be_paused()
    }

    fn pause(&self) {
        self.server.pause();
    }

    fn resume(&self) {
        self.server.resume();
    }

    fn restart(&self) {
        self.server.restart();
    }
}
