use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn parse(uri: &str) -> SourceSpec {
    SourceSpec::parse(uri, &BTreeMap::new()).unwrap_or_else(|error| panic!("{uri}: {error}"))
}

fn refuse(uri: &str, pairs: &[(&str, &str)]) -> SpecError {
    SourceSpec::parse(uri, &settings(pairs)).expect_err(uri)
}

const KEY_ID: (&str, &str) = ("access_key_id", "AKIA");

#[test]
fn every_scheme_has_one_row_and_no_key_stands_twice_in_it() {
    use Scheme::*;
    let all = [
        Local, Smb, S3, Webdav, Sftp, Ftp, Azblob, Gcs, Dropbox, Gdrive, Onedrive,
    ];
    assert_eq!(schemes().len(), all.len());
    for scheme in all {
        let info = scheme.info();
        let mut names: Vec<_> = info.all_keys().map(|key| key.name).collect();
        names.extend(info.secrets.iter().map(|secret| secret.key));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{scheme:?}");
        for key in info.all_keys() {
            if let Some(default) = key.default {
                let canonical = values::canonical(key.value, default);
                assert_eq!(canonical.as_deref(), Ok(default), "{scheme:?} {}", key.name);
            }
        }
    }
}

#[test]
fn the_examples_of_the_table_are_sources() {
    for info in schemes() {
        let spec = parse(info.example);
        assert_eq!(spec.scheme(), info.scheme);
    }
}

#[test]
fn two_spellings_of_one_place_have_one_name() {
    for (one, other) in [
        ("smb://Host/Share/", "smb://host/share"),
        ("SMB://nas:445//media//films/.", "smb://nas/media/films"),
        ("smb://nas.local./x", "smb://nas.local/x"),
        ("webdavs://h:443/a%41", "webdavs://h/aA"),
        ("sftp://[0:0:0:0:0:0:0:1]:22/x", "sftp://[::1]/x"),
        ("file:///a/b/", "/a//b"),
        ("file://localhost/a%20b", "/a b"),
        ("gs://bucket/x?anonymous=true", "gcs://bucket/x?anonymous=true"),
        ("dropbox://", "dropbox:///"),
    ] {
        assert_eq!(parse(one).name(), parse(other).name());
    }
    let by_setting = SourceSpec::parse("smb://nas/media", &settings(&[("user", "ada")])).unwrap();
    assert_eq!(by_setting, parse("smb://ada@nas/media"));
    let own = SourceSpec::parse(
        "s3://b",
        &settings(&[KEY_ID, ("endpoint", "https://s3.amazonaws.com/")]),
    )
    .unwrap();
    assert_eq!(own.name(), "s3://b");
}

#[test]
fn places_that_differ_have_different_names() {
    let at = |endpoint| SourceSpec::parse("s3://b", &settings(&[KEY_ID, ("endpoint", endpoint)])).unwrap();
    assert_eq!(
        at("http://127.0.0.1:9000").name(),
        "s3://b?endpoint=http://127.0.0.1:9000"
    );
    assert_ne!(at("http://127.0.0.1:9000").name(), at("http://127.0.0.1:9001").name());
    assert_ne!(parse("webdav://h/x").name(), parse("webdavs://h/x").name());
    assert_ne!(parse("smb://h/x/A").name(), parse("smb://h/x/a").name());
    assert_ne!(
        parse("gdrive://?account=home").name(),
        parse("gdrive://?account=work").name()
    );
}

#[test]
fn the_pieces_of_a_uri_reach_the_backend() {
    let smb = parse("smb://ada%40corp@[fe80::1]:1445/Media/sub%20folder/%C3%A4?domain=CORP");
    assert_eq!(
        (smb.host(), smb.port(), smb.user()),
        (Some("fe80::1"), Some(1445), Some("ada@corp"))
    );
    assert_eq!(
        (smb.container(), smb.prefix().as_bytes()),
        (Some("media"), "sub folder/ä".as_bytes())
    );
    assert_eq!(smb.setting("domain"), Some("CORP"));
    assert_eq!(smb.name(), "smb://ada%40corp@[fe80::1]:1445/media/sub%20folder/ä");

    let dav = parse("webdavs://cloud.example.org/remote.php/dav");
    assert!(dav.tls() && dav.container().is_none());
    assert_eq!(dav.prefix().as_bytes(), b"remote.php/dav");

    let s3 = SourceSpec::parse("s3://photos/2024", &settings(&[KEY_ID])).unwrap();
    assert_eq!((s3.container(), s3.prefix().as_bytes()), (Some("photos"), &b"2024"[..]));
    assert_eq!(s3.setting("region"), Some("us-east-1"), "a default holds");
    assert_eq!(parse("/").local_root(), Some(Path::new("/")));
}

#[test]
fn local_paths_may_hold_any_byte() {
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/a \xff\n?#%41"));
    let spec = SourceSpec::from_path(path, &BTreeMap::new()).unwrap();
    assert_eq!(spec.local_root(), Some(path));
    assert_eq!(spec.name(), "file:///a%20%FF%0A%3F%23%2541");
    assert_eq!(parse(spec.name()), spec);
    assert_eq!(
        parse("/a%41").local_root(),
        Some(Path::new("/a%41")),
        "a plain path is not decoded"
    );
}

#[test]
fn a_password_in_a_uri_is_refused_and_not_repeated() {
    for uri in [
        "smb://ada:hunter2@nas/media",
        "smb://ada:hun/ter2@nas/media",
        "webdavs://ada:hun@ter2@h/x",
        "sftp://ada:@h/x",
        "s3://AKIA:hunter2@bucket",
        "dropbox://ada:hunter2@/x",
    ] {
        assert_eq!(refuse(uri, &[]), SpecError::PasswordInUri, "{uri}");
    }
    // A password with a slash leaves half of itself where the port stands.
    let stray = refuse("smb://ada:hunter2/share", &[]).to_string();
    assert!(!stray.contains("hunter2") && stray.contains("port"), "{stray}");
}

#[test]
fn a_secret_among_the_settings_is_refused_and_not_repeated() {
    let error = refuse("smb://ada@nas/media", &[("password", "hunter2")]);
    assert_eq!(error, SpecError::PlainSecret { key: "password" });
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let error = refuse("smb://ada@nas/media?password=hunter2", &[]);
    assert_eq!(error, SpecError::PlainSecret { key: "password" });
    let error = refuse("smb://ada@nas/media", &[("pasword", "hunter2")]).to_string();
    assert_eq!(error, "unknown setting `pasword` for smb; did you mean `password`?");
    for reference in ["env:NAS_PASSWORD", "file:/run/secrets/nas", "store"] {
        let spec = SourceSpec::parse("smb://ada@nas/media", &settings(&[("password", reference)])).unwrap();
        assert_eq!(spec.settings()["password"], reference);
        assert!(!spec.name().contains("password"));
    }
}

#[test]
fn unknown_and_missing_settings_are_named_with_the_nearest() {
    let error = refuse("s3://b", &[KEY_ID, ("endpont", "http://x")]).to_string();
    assert_eq!(error, "unknown setting `endpont` for s3; did you mean `endpoint`?");
    let error = refuse("s3://b", &[]).to_string();
    assert_eq!(
        error,
        "s3 needs the setting `access_key_id`: the id of the access key; needed unless `anonymous`"
    );
    let error = refuse("azblob://c", &[]).to_string();
    assert_eq!(error, "azblob needs the setting `account_name`: the storage account");
    let error = refuse("ftps://h", &[("password", "env:P")]).to_string();
    assert!(error.starts_with("ftp needs the setting `user`"), "{error}");
    assert_eq!(
        refuse("smbb://h/x", &[]).to_string(),
        "unknown kind of source `smbb://`; did you mean `smb://`?"
    );
    assert_eq!(
        refuse("https://h/x", &[]).to_string(),
        "unknown kind of source `https://`; did you mean `webdavs://`?"
    );
    let all = refuse("gopher://h/x", &[]).to_string();
    assert!(
        all.starts_with("unknown kind of source `gopher://`; there are folders of this machine, and ")
            && all.contains("smb://, s3://, webdav://, webdavs://"),
        "{all}"
    );
    for (given, says) in [
        (
            "env:",
            "no variable of the environment: write its name, as in env:NAS_PASSWORD",
        ),
        ("env:MY-PASSWORD", "letters, digits and `_` alone"),
        ("file:nas-password", "write its absolute path"),
    ] {
        let error = refuse("smb://ada@h/x", &[("password", given)]).to_string();
        assert!(error.contains("`password`") && error.contains(says), "{error}");
        assert!(!error.contains("MY-PASSWORD"), "{error}");
    }
    let far = refuse("/a", &[("zzz", "1")]).to_string();
    assert_eq!(far, "unknown setting `zzz` for file");
}

#[test]
fn bad_places_are_refused() {
    for uri in [
        "",
        "relative",
        "./x",
        "~/x",
        "C:\\x",
        "://x",
        "smb://",
        "smb://nas",
        "smb:///share",
        "smb://nas:0/x",
        "smb://nas:70000/x",
        "smb://na s/x",
        "smb://a..b/x",
        "smb://nas../x",
        "smb://[::1/x",
        "smb://[zz]/x",
        "smb://@nas/x",
        "smb://nas/x/%2e%2e/y",
        "/a/../b",
        "smb://nas/x/%zz",
        "smb://nas/x/a%2Fb",
        "smb://nas/x/%00",
        "smb://nas/x/%FF",
        "smb://nas/x#y",
        "smb://nas/x?y",
        "file://nas/x",
        "s3://",
        "s3:///x",
        "s3://a%20b",
        "dropbox://x/y",
        "/a\0b",
    ] {
        assert!(SourceSpec::parse(uri, &BTreeMap::new()).is_err(), "{uri:?}");
    }
    let conflict = refuse("smb://ada@nas/x", &[("user", "bob")]);
    assert_eq!(conflict, SpecError::Conflict { key: "user".into() });
}

#[test]
fn values_are_checked_and_have_one_spelling() {
    let spec = |key, value| SourceSpec::parse("/x", &settings(&[(key, value)]));
    assert_eq!(spec("block_size", "1MiB").unwrap().block_size(), Some(1 << 20));
    assert_eq!(
        spec("block_size", "1MiB").unwrap(),
        spec("block_size", "1024 KiB").unwrap()
    );
    assert_eq!(spec("refresh", "5m").unwrap().refresh(), Duration::from_mins(5));
    assert_eq!(parse("/x").refresh(), Duration::from_mins(1));
    assert_eq!(spec("concurrency", "8").unwrap().concurrency(), Some(8));
    assert!(spec("read_only", "true").unwrap().read_only() && !parse("/x").read_only());
    for (key, value) in [
        ("block_size", "3MiB"),
        ("block_size", "32MiB"),
        ("block_size", "4KiB"),
        ("block_size", "99999999999"),
        ("refresh", "0s"),
        ("refresh", "60"),
        ("refresh", "-1s"),
        ("refresh", "18446744073709551615d"),
        ("concurrency", "0"),
        ("concurrency", "257"),
        ("read_only", "yes"),
        ("root_id", ""),
    ] {
        assert!(
            matches!(spec(key, value), Err(SpecError::BadValue { .. })),
            "{key}={value}"
        );
    }
    for endpoint in ["ftp://h", "h", "http://", "http://u:p@h", "http://h?x", ""] {
        assert!(
            SourceSpec::parse("s3://b", &settings(&[KEY_ID, ("endpoint", endpoint)])).is_err(),
            "{endpoint}"
        );
    }
}

#[test]
fn a_source_is_attached_under_its_last_name() {
    for (uri, name) in [
        ("/home/ada/Pictures/", "Pictures"),
        ("/", "root"),
        ("smb://nas/media", "media"),
        ("smb://nas/media/films", "films"),
        ("sftp://server.example.org", "server.example.org"),
        ("gdrive://", "gdrive"),
        ("gdrive://?account=work", "work"),
        ("gcs://bucket?anonymous=true", "bucket"),
    ] {
        assert_eq!(parse(uri).default_attach_name(), name.as_bytes(), "{uri}");
    }
}

#[test]
fn secrets_are_asked_for_as_the_settings_demand() {
    let missing = |spec: &SourceSpec| -> Vec<&str> {
        spec.missing_secrets(&Secrets::new())
            .iter()
            .map(|secret| secret.key)
            .collect()
    };
    assert_eq!(missing(&parse("smb://ada@nas/media")), ["password"]);
    assert!(missing(&parse("smb://nas/media")).is_empty(), "a guest has no password");
    assert_eq!(
        missing(&SourceSpec::parse("s3://b", &settings(&[KEY_ID])).unwrap()),
        ["secret_access_key"]
    );
    assert!(missing(&parse("s3://b?anonymous=true")).is_empty());
    assert_eq!(missing(&parse("azblob://c?account_name=a")), ["account_key"]);
    assert_eq!(missing(&parse("dropbox://")), ["access_token"]);
    let given = Secrets::from([("sas_token".into(), crate::Secret::new("s".into()))]);
    assert!(
        parse("azblob://c?account_name=a").missing_secrets(&given).is_empty(),
        "one of the two is enough"
    );
}

#[test]
fn a_stored_source_comes_back_the_same() {
    let given = settings(&[
        KEY_ID,
        ("secret_access_key", "env:S"),
        ("endpoint", "http://h:1"),
        ("refresh", "5m"),
    ]);
    let spec = SourceSpec::parse("s3://b/x y", &given).unwrap();
    let stored = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<SourceSpec>(&stored).unwrap(), spec);
    assert!(serde_json::from_str::<SourceSpec>(r#"{"uri":"nonsense"}"#).is_err());
    let changed = spec.with_setting("refresh", "1h").unwrap();
    assert_eq!(
        (changed.name(), changed.refresh()),
        (spec.name(), Duration::from_hours(1))
    );
}

fn uri_like() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(
        schemes()
            .iter()
            .flat_map(|info| info.uri_schemes)
            .map(|scheme| format!("{scheme}://"))
            .collect::<Vec<_>>(),
    );
    let piece = prop_oneof![
        "[a-zA-Z0-9.~ äΣİ_-]{0,6}",
        prop::sample::select(vec![
            "/",
            "//",
            "@",
            ":",
            "%",
            "%41",
            "%2F",
            "%FF",
            "%00",
            "%2e%2e",
            "..",
            "?",
            "#",
            "&",
            "=",
            "[::1]",
            ":445",
            "account=x",
            "anonymous=true",
            "account_name=n",
            "access_key_id=k",
            "endpoint=http://H:80/",
            "user=u",
        ])
        .prop_map(String::from),
        any::<char>().prop_map(String::from),
    ];
    (
        prop_oneof![8 => scheme, 1 => Just("/".to_owned()), 1 => Just(String::new())],
        prop::collection::vec(piece, 0..8),
    )
        .prop_map(|(scheme, pieces)| scheme + &pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics_and_a_name_names_itself(
        uri in uri_like(),
        pairs in prop::collection::btree_map("(anonymous|account_name|access_key_id|refresh|[a-z_]{0,12})", "(true|x|5m|.{0,8})", 0..3),
    ) {
        if let Ok(spec) = SourceSpec::parse(&uri, &pairs) {
            let again = SourceSpec::parse(spec.name(), spec.settings());
            prop_assert_eq!(again.as_ref(), Ok(&spec));
            prop_assert!(!spec.name().contains(char::is_control));
            prop_assert!(!spec.default_attach_name().is_empty());
            let stored = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(serde_json::from_str::<SourceSpec>(&stored).unwrap(), spec);
        }
    }

    #[test]
    fn any_absolute_path_names_itself(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut path = b"/".to_vec();
        path.extend(bytes);
        let path = Path::new(std::ffi::OsStr::from_bytes(&path));
        if let Ok(spec) = SourceSpec::from_path(path, &BTreeMap::new()) {
            prop_assert_eq!(SourceSpec::parse(spec.name(), &BTreeMap::new()).unwrap(), spec);
        }
    }
}
