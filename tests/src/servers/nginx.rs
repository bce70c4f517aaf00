//! nginx as a `WebDAV` server without entity tags in its listings, and without a password.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::port::Port;
use super::{Daemon, Server, data_folder, is_root, program, subfolder, write};

const DAV_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so";

/// A `WebDAV` server whose listings bring size and time alone.
pub struct Nginx {
    daemon: Daemon,
    port: Port,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts the server.
    pub fn start() -> Self {
        let folder = data_folder();
        let root = subfolder(folder.path(), "files");
        let state = subfolder(folder.path(), "state");
        let port = Port::take();
        assert!(
            Path::new(DAV_MODULE).is_file(),
            "libnginx-mod-http-dav-ext is not installed; run: sudo tests/servers/install"
        );
        let user = if is_root() { "user www-data;\n" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", state.display()))
            .concat();
        let text = format!(
            "load_module {DAV_MODULE};\n{user}daemon off;\nmaster_process on;\nworker_processes 1;\npid {state}/pid;\n\
             error_log stderr warn;\nevents {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}\
             keepalive_requests 1000000;\nclient_max_body_size 0;\nserver {{\nlisten 127.0.0.1:{port};\nroot {root};\n\
             location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS; }}\n}}\n}}\n",
            state = state.display(),
            root = root.display(),
            port = port.number(),
        );
        let conf = folder.path().join("nginx.conf");
        write(&conf, &text);
        let arguments = vec![
            "-e".to_owned(),
            "stderr".to_owned(),
            "-p".to_owned(),
            folder.path().display().to_string(),
            "-c".to_owned(),
            conf.display().to_string(),
        ];
        let daemon = Daemon::start(program("nginx"), arguments, &[], port.number(), folder.path(), || true);
        Self {
            daemon,
            port,
            root,
            _folder: folder,
        }
    }
}

impl Server for Nginx {
    fn uri(&self) -> String {
        format!("webdav://127.0.0.1:{}", self.port.number())
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn secrets(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}
