//! The drives, whose addresses are fixed, through doubles of a few lines.

use super::*;

fn json(status: u16, body: impl Into<String>) -> Said {
    (
        status,
        vec![("Content-Type", "application/json".to_owned())],
        body.into().into_bytes(),
    )
}

/// Holds a drive to what every source does; its folder `f` holds the file `a b.txt` with `hello` and the folder `sub`.
async fn holds(uri: &str, answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
    let spec = SourceSpec::parse(uri, &BTreeMap::new()).expect("a good source");
    let secrets = Secrets::from([("access_token".to_owned(), Secret::new("token".to_owned()))]);
    let backend = OpendalBackend::build(&spec, &secrets, &Limits::default(), Some(&serve(answer))).expect("a backend");
    backend.check().await.expect("a good drive");
    let Presence::Found(pages) = backend.list(&ObjectPath::root()).await.expect("a listing") else {
        panic!("absent")
    };
    let mut listed: Vec<Child> = pages.try_collect::<Vec<_>>().await.expect("all pages").concat();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(names(&listed), [("a b.txt", Kind::File), ("sub", Kind::Directory)]);
    let path = ObjectPath::from_bytes("a b.txt");
    let Presence::Found(metadata) = backend.stat(&path).await.expect("a look") else {
        panic!("absent")
    };
    assert_eq!(metadata, listed[0].metadata, "listing and look agree");
    let read = backend.read(&path, &metadata.version, 1..4).await.expect("a read");
    assert_eq!(read, Presence::Found(Bytes::from_static(b"ell")));
    let missing = ObjectPath::from_bytes("nothing");
    assert_eq!(backend.stat(&missing).await.expect("a look"), Presence::Absent);
    assert!(matches!(
        backend.list(&missing).await.expect("a listing"),
        Presence::Absent
    ));
}

/// Answers every question with a refusal of the token.
async fn refuses(uri: &str) {
    let spec = SourceSpec::parse(uri, &BTreeMap::new()).expect("a good source");
    let secrets = Secrets::from([("access_token".to_owned(), Secret::new("old-token".to_owned()))]);
    let origin = serve(|_| {
        json(
            401,
            r#"{"error":{"code":401,"message":"Invalid Credentials: old-token"}}"#,
        )
    });
    let backend = OpendalBackend::build(&spec, &secrets, &Limits::default(), Some(&origin)).expect("a backend");
    let path = ObjectPath::from_bytes("a");
    let errors = [
        backend.check().await.err(),
        backend.stat(&path).await.err(),
        backend.list(&ObjectPath::root()).await.err(),
        backend.read(&path, &Version::default(), 0..1).await.err(),
    ];
    for error in errors {
        let error = error.expect("an error");
        assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{error}");
        assert!(!error.to_string().contains("old-token"), "{error}");
    }
}

#[tokio::test]
async fn an_expired_token_is_named() {
    for uri in ["dropbox:///f", "gdrive:///f", "onedrive:///f"] {
        refuses(uri).await;
    }
}

#[tokio::test]
async fn dropbox_keeps_the_contract() {
    let file = r#"{".tag":"file","name":"a b.txt","path_display":"/f/a b.txt","size":5,
        "client_modified":"2024-01-02T03:04:05Z","server_modified":"2024-01-02T03:04:05Z","rev":"1","id":"id:1"}"#;
    holds("dropbox:///f", move |asked| {
        let of = |path: &str| asked.body.contains(&format!(r#""path":"{path}""#));
        match asked.target.as_str() {
            "/2/files/list_folder" if of("/f") => {
                let folder = r#"{".tag":"folder","name":"sub","path_display":"/f/sub","id":"id:2"}"#;
                json(
                    200,
                    format!(r#"{{"entries":[{file},{folder}],"cursor":"c","has_more":false}}"#),
                )
            }
            "/2/files/get_metadata" if of("/f/a b.txt") => json(200, file),
            "/2/files/get_metadata" if of("/f") => {
                json(200, r#"{".tag":"folder","name":"f","path_display":"/f","id":"id:3"}"#)
            }
            "/2/files/download" => (206, vec![], b"ell".to_vec()),
            _ => json(409, r#"{"error_summary":"path/not_found/..","error":{".tag":"path"}}"#),
        }
    })
    .await;
}

#[tokio::test]
async fn google_drive_keeps_the_contract() {
    const FOLDER: &str = "application/vnd.google-apps.folder";
    let file = r#"{"id":"A","name":"a b.txt","mimeType":"text/plain","size":"5",
        "modifiedTime":"2024-01-02T03:04:05.678Z","parents":["F"]}"#;
    let folder = |id: &str, name: &str| {
        format!(
            r#"{{"id":"{id}","name":"{name}","mimeType":"{FOLDER}","modifiedTime":"2024-01-02T03:04:05Z","parents":["F"]}}"#
        )
    };
    // A document that exists only in a browser has no bytes, and spoils nothing.
    let document = r#"{"id":"D","name":"essay","mimeType":"application/vnd.google-apps.document",
        "modifiedTime":"2024-01-02T03:04:05Z","parents":["F"]}"#;
    holds("gdrive:///f", move |asked| {
        let target = percent_encoding::percent_decode_str(&asked.target)
            .decode_utf8_lossy()
            .into_owned();
        let found = |files: String| json(200, format!(r#"{{"files":[{files}]}}"#));
        if target.contains("name = 'f'") {
            found(folder("F", "f"))
        } else if target.contains("name = 'a b.txt'") && !target.contains(FOLDER) {
            found(file.to_owned())
        } else if target.contains("name = 'essay'") {
            found(document.to_owned())
        } else if target.contains("name = ") {
            found(String::new())
        } else if target.contains("'F' in parents") {
            found(format!("{file},{},{document}", folder("S", "sub")))
        } else if target.starts_with("/drive/v3/files/A") && target.contains("alt=media") {
            (206, vec![], b"ell".to_vec())
        } else if target.starts_with("/drive/v3/files/A") {
            json(200, file)
        } else if target.starts_with("/drive/v3/files/D") {
            json(200, document)
        } else if target.starts_with("/drive/v3/files/F") {
            json(200, folder("F", "f"))
        } else {
            json(404, r#"{"error":{"code":404,"message":"File not found"}}"#)
        }
    })
    .await;
}

#[tokio::test]
async fn onedrive_keeps_the_contract() {
    let item = |name: &str, size: u64, facet: &str| {
        format!(
            r#"{{"id":"{name}","name":"{name}","lastModifiedDateTime":"2024-01-02T03:04:05Z","eTag":"\"{name},1\"",
                "size":{size},"parentReference":{{"path":"/drive/root:/f","driveId":"d","id":"p"}},{facet}}}"#
        )
    };
    let file = move || item("a b.txt", 5, r#""file":{"mimeType":"text/plain"}"#);
    let folder = move |name: &str| item(name, 0, r#""folder":{"childCount":1}"#);
    holds("onedrive:///f", move |asked| {
        let target = percent_encoding::percent_decode_str(&asked.target)
            .decode_utf8_lossy()
            .into_owned();
        let path = target.split('?').next().unwrap_or_default();
        match path {
            "/v1.0/me/drive/root:/f" => json(200, folder("f")),
            "/v1.0/me/drive/root:/f:/children" => json(
                200,
                format!(r#"{{"@odata.count":2,"value":[{},{}]}}"#, file(), folder("sub")),
            ),
            "/v1.0/me/drive/root:/f/a b.txt" => json(200, file()),
            "/v1.0/me/drive/root:/f/a b.txt:/content" => (206, vec![], b"ell".to_vec()),
            _ => json(404, r#"{"error":{"code":"itemNotFound","message":"Item not found"}}"#),
        }
    })
    .await;
}
