//! Changes on the drives, whose doubles keep a tree in memory.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

/// What a drive holds, by path: files with their bytes and the number of the write, and folders.
#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, Option<(String, u32)>>,
    writes: u32,
}

impl Tree {
    fn with_folder() -> Mutex<Self> {
        let mut tree = Self::default();
        tree.nodes.insert("/f".to_owned(), None);
        Mutex::new(tree)
    }

    fn put(&mut self, path: &str, bytes: &str) {
        self.writes += 1;
        self.nodes
            .insert(path.to_owned(), Some((bytes.to_owned(), self.writes)));
    }

    fn move_to(&mut self, from: &str, to: &str) {
        let beneath = format!("{from}/");
        let moved: Vec<String> = self
            .nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&beneath))
            .cloned()
            .collect();
        for path in moved {
            let node = self.nodes.remove(&path).expect("it is there");
            self.nodes.insert(path.replacen(from, to, 1), node);
        }
    }

    fn remove(&mut self, path: &str) {
        let beneath = format!("{path}/");
        self.nodes
            .retain(|known, _| known != path && !known.starts_with(&beneath));
    }

    fn children(&self, path: &str) -> Vec<String> {
        let beneath = format!("{path}/");
        let direct = |known: &&String| known.strip_prefix(&beneath).is_some_and(|name| !name.contains('/'));
        self.nodes.keys().filter(direct).cloned().collect()
    }
}

fn json_said(status: u16, body: &Value) -> Said {
    let kind = vec![("Content-Type", "application/json".to_owned())];
    (status, kind, body.to_string().into_bytes())
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The time of a write, so that each is another version.
fn time(write: u32) -> String {
    format!("2024-01-02T03:04:{:02}Z", write % 60)
}

fn dropbox(tree: &Mutex<Tree>, asked: &Asked) -> Said {
    let mut tree = tree.lock();
    let entry = |tree: &Tree, path: &str| match tree.nodes.get(path) {
        None => None,
        Some(None) => Some(json!({".tag": "folder", "name": base(path), "path_display": path, "id": path})),
        Some(Some((bytes, write))) => Some(json!({
            ".tag": "file", "name": base(path), "path_display": path, "size": bytes.len(), "id": path,
            "client_modified": time(*write), "server_modified": time(*write), "rev": write.to_string(),
        })),
    };
    let header = asked.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("dropbox-api-arg")
            .then(|| value.trim().to_owned())
    });
    let arguments: Value = serde_json::from_str(header.as_deref().unwrap_or(&asked.body)).unwrap_or_default();
    let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
    let missing = || {
        json_said(
            409,
            &json!({"error_summary": "path/not_found/..", "error": {".tag": "path"}}),
        )
    };
    let path = text("path");
    match asked.target.as_str() {
        "/2/files/get_metadata" => entry(&tree, &path).map_or_else(missing, |entry| json_said(200, &entry)),
        "/2/files/list_folder" if tree.nodes.get(&path) == Some(&None) => {
            let entries: Vec<Value> = tree
                .children(&path)
                .iter()
                .filter_map(|path| entry(&tree, path))
                .collect();
            json_said(200, &json!({"entries": entries, "cursor": "c", "has_more": false}))
        }
        "/2/files/upload" => {
            tree.put(&path, &asked.body);
            json_said(200, &entry(&tree, &path).expect("it was put"))
        }
        "/2/files/create_folder_v2" => {
            tree.nodes.insert(path.clone(), None);
            json_said(200, &json!({"metadata": entry(&tree, &path)}))
        }
        "/2/files/delete_v2" => {
            let gone = entry(&tree, &path);
            tree.remove(&path);
            gone.map_or_else(missing, |gone| json_said(200, &json!({"metadata": gone})))
        }
        "/2/files/move_v2" => {
            // It never replaces anything, and says so.
            if tree.nodes.contains_key(&text("to_path")) {
                return json_said(
                    409,
                    &json!({"error_summary": "to/conflict/file/..", "error": {".tag": "to"}}),
                );
            }
            tree.move_to(&text("from_path"), &text("to_path"));
            json_said(200, &json!({"metadata": entry(&tree, &text("to_path"))}))
        }
        _ => missing(),
    }
}

fn onedrive(tree: &Mutex<Tree>, asked: &Asked) -> Said {
    let mut tree = tree.lock();
    let item = |tree: &Tree, path: &str| {
        let (facet, size, write) = match tree.nodes.get(path)? {
            None => ("folder", 0, 0),
            Some((bytes, write)) => ("file", bytes.len(), *write),
        };
        let facet_value = if facet == "folder" {
            json!({"childCount": 1})
        } else {
            json!({"mimeType": "text/plain"})
        };
        Some(json!({
            "id": path, "name": base(path), "lastModifiedDateTime": time(write), "eTag": format!("\"{path},{write}\""),
            "size": size, "parentReference": {"path": "/drive/root:", "driveId": "d", "id": parent(path)},
            facet: facet_value,
        }))
    };
    let missing = || {
        json_said(
            404,
            &json!({"error": {"code": "itemNotFound", "message": "Item not found"}}),
        )
    };
    let target = percent_encoding::percent_decode_str(&asked.target)
        .decode_utf8_lossy()
        .into_owned();
    let target = target.split('?').next().unwrap_or_default().to_owned();
    let Some(rest) = target.strip_prefix("/v1.0/me/drive/root:") else {
        return missing();
    };
    let (path, action) = rest.split_once(':').unwrap_or((rest, ""));
    let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    match (asked.method.as_str(), action) {
        ("GET", "") => item(&tree, path).map_or_else(missing, |item| json_said(200, &item)),
        ("GET", "/children") => {
            let items: Vec<Value> = tree
                .children(path)
                .iter()
                .filter_map(|path| item(&tree, path))
                .collect();
            json_said(200, &json!({"@odata.count": items.len(), "value": items}))
        }
        ("PUT", "/content") => {
            tree.put(path, &asked.body);
            json_said(201, &item(&tree, path).expect("it was put"))
        }
        ("POST", "/children") => {
            let made = format!("{path}/{}", body["name"].as_str().unwrap_or_default());
            tree.nodes.insert(made.clone(), None);
            json_said(201, &item(&tree, &made).expect("it was made"))
        }
        ("DELETE", "") => {
            tree.remove(path);
            (204, vec![], vec![])
        }
        ("PATCH", "") => {
            let folder = body["parentReference"]["id"].as_str().unwrap_or_default();
            let to = format!("{folder}/{}", body["name"].as_str().unwrap_or_default());
            tree.move_to(path, &to);
            json_said(200, &item(&tree, &to).expect("it was moved"))
        }
        _ => missing(),
    }
}

fn at(path: &str) -> ObjectPath {
    ObjectPath::from_bytes(path)
}

/// Holds a drive to what every source does in writing, within its folder `f`.
async fn is_written(uri: &str, answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
    let spec = SourceSpec::parse(uri, &BTreeMap::new()).expect("a good source");
    let secrets = Secrets::from([("access_token".to_owned(), Secret::new("token".to_owned()))]);
    let backend = OpendalBackend::build(&spec, &secrets, &Limits::default(), Some(&serve(answer))).expect("a backend");
    let kind_of = |answer: Result<Metadata>| answer.map(|_| ()).expect_err("it is refused").kind();
    let (hello, other) = (Bytes::from_static(b"hello"), Bytes::from_static(b"others"));

    let first = backend.put(&at("a"), &hello, &Expected::Absent).await.expect("a put");
    assert_eq!(first.size, 5);
    assert_eq!(
        backend.stat(&at("a")).await.expect("a look"),
        Presence::Found(first.clone())
    );
    assert_eq!(
        kind_of(backend.put(&at("a"), &other, &Expected::Absent).await),
        ErrorKind::Conflict
    );
    let second = backend
        .put(&at("a"), &other, &Expected::Version(first.version.clone()))
        .await
        .expect("a put over it");
    assert_eq!(second.size, 6);
    let late = backend.put(&at("a"), &hello, &Expected::Version(first.version)).await;
    assert_eq!(kind_of(late), ErrorKind::Conflict);
    let lost = backend.put(&at("nowhere/a"), &hello, &Expected::Absent).await;
    assert_eq!(kind_of(lost), ErrorKind::NotADirectory);
    let listed = children(&backend, "").await.expect("a listing");
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(
        listed[0].metadata.version, second.version,
        "a listing tells what the put gave"
    );

    let made = backend.create_directory(&at("d")).await.expect("a directory");
    assert_eq!(made.kind, Kind::Directory);
    assert_eq!(kind_of(backend.create_directory(&at("d")).await), ErrorKind::Exists);
    let taken = backend
        .rename(&at("a"), &at("d"), false)
        .await
        .expect_err("it is taken");
    assert_eq!(taken.kind(), ErrorKind::Exists);
    let Presence::Found(moved) = backend.rename(&at("a"), &at("b"), false).await.expect("a new name") else {
        panic!("it is absent")
    };
    assert_eq!(moved.size, 6);
    assert_eq!(backend.stat(&at("a")).await.expect("a look"), Presence::Absent);
    backend
        .put(&at("d/c"), &hello, &Expected::Anything)
        .await
        .expect("a put within");
    let full = backend.remove_directory(&at("d")).await.expect_err("it is not empty");
    assert_eq!(full.kind(), ErrorKind::NotEmpty);
    let removed = backend.remove_file(&at("d/c"), &Expected::Anything).await;
    assert_eq!(removed.expect("a removal"), Presence::Found(()));
    assert_eq!(
        backend.remove_directory(&at("d")).await.expect("a removal"),
        Presence::Found(())
    );
    assert_eq!(
        backend.remove_directory(&at("d")).await.expect("a look"),
        Presence::Absent
    );
    let left = children(&backend, "").await.expect("a listing");
    assert_eq!(names(&left), [("b", Kind::File)]);
    let large = Huge;
    assert_eq!(
        kind_of(backend.put(&at("huge"), &large, &Expected::Absent).await),
        ErrorKind::TooLarge
    );
}

/// More bytes than a drive takes.
struct Huge;

#[async_trait]
impl Body for Huge {
    fn size(&self) -> u64 {
        1 << 40
    }

    async fn read(&self, _: Range<u64>) -> std::io::Result<Bytes> {
        Err(std::io::Error::other("nobody has so much"))
    }
}

#[tokio::test]
async fn dropbox_is_written() {
    let tree = Tree::with_folder();
    is_written("dropbox:///f", move |asked| dropbox(&tree, asked)).await;
}

#[tokio::test]
async fn onedrive_is_written() {
    let tree = Tree::with_folder();
    is_written("onedrive:///f", move |asked| onedrive(&tree, asked)).await;
}

#[tokio::test]
async fn google_drive_is_only_read() {
    let spec = SourceSpec::parse("gdrive:///f", &BTreeMap::new()).expect("a good source");
    let secrets = Secrets::from([("access_token".to_owned(), Secret::new("token".to_owned()))]);
    let origin = serve(|_| panic!("nothing is asked of it"));
    let backend = OpendalBackend::build(&spec, &secrets, &Limits::default(), Some(&origin)).expect("a backend");
    assert_eq!(backend.capabilities().writes, None);
    let nothing = Bytes::new();
    let errors = [
        backend.put(&at("a"), &nothing, &Expected::Anything).await.err(),
        backend.create_directory(&at("a")).await.err(),
        backend.remove_file(&at("a"), &Expected::Anything).await.err(),
        backend.remove_directory(&at("a")).await.err(),
        backend.rename(&at("a"), &at("b"), true).await.err(),
    ];
    for error in errors {
        assert_eq!(error.expect("it is refused").kind(), ErrorKind::Unsupported);
    }
}
