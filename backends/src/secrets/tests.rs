use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::keyring::Keyring;
use super::vault::{Record, Records, Vault};
use super::*;

const SOURCE: &str = "smb://ada@nas/media";

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

/// A keyring that does as it is told.
#[derive(Debug, Default)]
struct TestKeyring {
    kept: Mutex<BTreeMap<String, Secret>>,
    locked: Mutex<bool>,
}

impl TestKeyring {
    fn refuse_if_locked(&self) -> Result<(), String> {
        if *self.locked.lock().unwrap() {
            Err("it is locked".into())
        } else {
            Ok(())
        }
    }
}

impl Keyring for TestKeyring {
    fn get(&self, account: &str) -> Result<Option<Secret>, String> {
        self.refuse_if_locked()?;
        Ok(self.kept.lock().unwrap().get(account).cloned())
    }

    fn set(&self, account: &str, secret: &Secret) -> Result<(), String> {
        self.refuse_if_locked()?;
        self.kept.lock().unwrap().insert(account.into(), secret.clone());
        Ok(())
    }

    fn remove(&self, account: &str) -> Result<(), String> {
        self.refuse_if_locked()?;
        self.kept.lock().unwrap().remove(account);
        Ok(())
    }
}

/// A keyring that waits for a person, until the test is over.
#[derive(Debug, Default)]
struct HangingKeyring {
    over: Mutex<bool>,
    changed: Condvar,
    asked: Mutex<u32>,
}

impl HangingKeyring {
    fn hang(&self) -> String {
        *self.asked.lock().unwrap() += 1;
        let mut over = self.over.lock().unwrap();
        while !*over {
            over = self.changed.wait(over).unwrap();
        }
        "the test is over".into()
    }
}

impl Keyring for HangingKeyring {
    fn get(&self, _: &str) -> Result<Option<Secret>, String> {
        Err(self.hang())
    }
    fn set(&self, _: &str, _: &Secret) -> Result<(), String> {
        Err(self.hang())
    }
    fn remove(&self, _: &str) -> Result<(), String> {
        Err(self.hang())
    }
}

fn options(folder: &Path) -> StoreOptions {
    StoreOptions {
        file: folder.join("secrets"),
        key_file: folder.join("secrets.key"),
        keyring: None,
    }
}

fn file_store(folder: &Path) -> SecretStore {
    SecretStore::new(options(folder))
}

fn keyring_store(folder: &Path, keyring: &Arc<impl Keyring + 'static>) -> SecretStore {
    let bounded = StoreOptions {
        keyring: Some(Duration::from_mins(1)),
        ..options(folder)
    };
    SecretStore::with_keyring(bounded, Arc::clone(keyring) as Arc<dyn Keyring>)
}

#[test]
fn a_secret_is_never_printed() {
    let secrets = Secrets::from([("password".into(), secret("hunter2"))]);
    assert_eq!(format!("{secrets:?}"), r#"{"password": Secret(..)}"#);
    assert!(!format!("{:?}", Record::Here(secret("hunter2"))).contains("hunter2"));
}

#[test]
fn references_read_back_as_written() {
    for text in ["env:NAS_PASSWORD", "file:/run/x y", "store"] {
        assert_eq!(SecretReference::parse(text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "hunter2",
        "env:",
        "env:A B",
        "file:relative",
        "file:",
        "ENV:X",
        "store ",
    ] {
        assert_eq!(SecretReference::parse(text), None, "{text}");
    }
}

#[test]
fn the_file_keeps_secrets_encrypted_and_for_its_owner_alone() {
    let folder = TempDir::new().unwrap();
    let store = file_store(folder.path());
    assert_eq!(store.get(SOURCE, "password").unwrap(), None);
    assert_eq!(store.set(SOURCE, "password", &secret("hunter2")).unwrap(), Place::File);
    assert_eq!(
        store.set("s3://b", "secret_access_key", &secret("")).unwrap(),
        Place::File
    );
    let again = file_store(folder.path());
    assert_eq!(again.get(SOURCE, "password").unwrap(), Some(secret("hunter2")));
    assert_eq!(again.get("s3://b", "secret_access_key").unwrap(), Some(secret("")));
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{entry:?}");
        assert!(
            !bytes.windows(SOURCE.len()).any(|window| window == SOURCE.as_bytes()),
            "{entry:?}"
        );
    }
    store.remove(SOURCE).unwrap();
    assert_eq!(again.get(SOURCE, "password").unwrap(), None);
    assert_eq!(again.get("s3://b", "secret_access_key").unwrap(), Some(secret("")));
}

#[test]
fn files_that_others_can_read_are_refused_with_the_remedy() {
    let folder = TempDir::new().unwrap();
    let store = file_store(folder.path());
    store.set(SOURCE, "password", &secret("hunter2")).unwrap();
    for name in ["secrets", "secrets.key"] {
        let path = folder.path().join(name);
        for mode in [0o640, 0o604, 0o660, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = store.get(SOURCE, "password").unwrap_err();
            assert!(matches!(error, SecretError::Permissions { .. }), "{error}");
            assert!(
                error.to_string().ends_with(&format!("chmod 600 {}", path.display())),
                "{error}"
            );
            assert!(store.set(SOURCE, "password", &secret("other")).is_err());
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(store.get(SOURCE, "password").unwrap(), Some(secret("hunter2")));
    }
}

#[test]
fn a_crash_between_writing_and_renaming_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let store = file_store(folder.path());
    store.set(SOURCE, "password", &secret("hunter2")).unwrap();
    std::fs::write(folder.path().join("secrets.new"), b"half of it").unwrap();
    assert_eq!(store.get(SOURCE, "password").unwrap(), Some(secret("hunter2")));
    store.set(SOURCE, "password", &secret("hunter3")).unwrap();
    assert_eq!(store.get(SOURCE, "password").unwrap(), Some(secret("hunter3")));
    assert!(!folder.path().join("secrets.new").exists());
}

#[test]
fn a_newer_file_and_a_missing_key_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let store = file_store(folder.path());
    store.set(SOURCE, "password", &secret("hunter2")).unwrap();
    let path = folder.path().join("secrets");
    let good = std::fs::read(&path).unwrap();
    let mut newer = good.clone();
    newer[8] = 2;
    std::fs::write(&path, &newer).unwrap();
    assert!(matches!(
        store.get(SOURCE, "password"),
        Err(SecretError::NewerVersion { found: 2, known: 1, .. })
    ));
    assert!(store.set(SOURCE, "password", &secret("x")).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), newer);

    std::fs::write(&path, &good).unwrap();
    std::fs::remove_file(folder.path().join("secrets.key")).unwrap();
    assert!(matches!(
        store.get(SOURCE, "password"),
        Err(SecretError::Damaged { .. })
    ));
    assert!(matches!(
        store.set(SOURCE, "password", &secret("x")),
        Err(SecretError::Damaged { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), good);
    assert!(
        !folder.path().join("secrets.key").exists(),
        "no new key hides that the old one is gone"
    );
}

#[test]
fn a_named_pipe_in_place_of_a_file_is_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("secrets");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(
        file_store(folder.path()).get(SOURCE, "password"),
        Err(SecretError::Unusable { .. })
    ));
}

#[test]
fn writers_at_once_lose_no_secret() {
    let folder = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = file_store(folder.path());
            scope.spawn(move || {
                store
                    .set(&format!("smb://nas/{writer}"), "password", &secret("x"))
                    .unwrap()
            });
        }
    });
    for writer in 0..8 {
        let kept = file_store(folder.path())
            .get(&format!("smb://nas/{writer}"), "password")
            .unwrap();
        assert_eq!(kept, Some(secret("x")));
    }
}

#[test]
fn the_keyring_is_used_where_it_answers() {
    let folder = TempDir::new().unwrap();
    let keyring = Arc::new(TestKeyring::default());
    let store = keyring_store(folder.path(), &keyring);
    assert_eq!(
        store.set(SOURCE, "password", &secret("hunter2")).unwrap(),
        Place::Keyring
    );
    assert_eq!(store.get(SOURCE, "password").unwrap(), Some(secret("hunter2")));
    let names: Vec<_> = keyring.kept.lock().unwrap().keys().cloned().collect();
    assert_eq!(names, ["password of smb://ada@nas/media"]);

    *keyring.locked.lock().unwrap() = true;
    let error = store.get(SOURCE, "password").unwrap_err().to_string();
    assert!(
        error.contains("`password`") && error.ends_with("it is locked"),
        "{error}"
    );
    assert!(
        store.remove(SOURCE).is_err(),
        "what the keyring still has is not forgotten"
    );
    assert_eq!(
        store.get("smb://other/x", "password").unwrap(),
        None,
        "what was never kept needs no keyring"
    );
    assert_eq!(
        store.set("smb://other/x", "password", &secret("x")).unwrap(),
        Place::File
    );
    assert_eq!(store.get("smb://other/x", "password").unwrap(), Some(secret("x")));

    *keyring.locked.lock().unwrap() = false;
    store.remove(SOURCE).unwrap();
    assert_eq!(store.get(SOURCE, "password").unwrap(), None);
    assert!(keyring.kept.lock().unwrap().is_empty());
}

#[test]
fn a_keyring_that_waits_for_a_person_is_given_up() {
    let folder = TempDir::new().unwrap();
    let keyring = Arc::new(HangingKeyring::default());
    let bounded = StoreOptions {
        keyring: Some(Duration::from_millis(20)),
        ..options(folder.path())
    };
    let store = SecretStore::with_keyring(bounded, Arc::clone(&keyring) as Arc<dyn Keyring>);
    for name in ["a", "b", "c"] {
        assert_eq!(store.set(SOURCE, name, &secret("hunter2")).unwrap(), Place::File);
        assert_eq!(store.get(SOURCE, name).unwrap(), Some(secret("hunter2")));
    }
    let asked = || *keyring.asked.lock().unwrap();
    assert!(asked() <= 1, "it is not asked again");
    *keyring.over.lock().unwrap() = true;
    keyring.changed.notify_all();
    // Somebody has unlocked it: it may be asked again, without a new start.
    while asked() < 3 {
        assert_eq!(store.set(SOURCE, "a", &secret("hunter2")).unwrap(), Place::File);
    }
}

#[test]
fn references_are_followed() {
    let folder = TempDir::new().unwrap();
    let store = file_store(folder.path());
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let with =
        |reference: &str| SourceSpec::parse(SOURCE, &BTreeMap::from([("password".into(), reference.into())])).unwrap();
    let environment = |name: &str| (name == "NAS").then(|| "hunter3".to_owned());
    let password =
        |spec: &SourceSpec| resolve(spec, &environment, &store).map(|mut secrets| secrets.remove("password"));

    assert_eq!(password(&with("env:NAS")).unwrap(), Some(secret("hunter3")));
    let error = password(&with("env:OTHER")).unwrap_err().to_string();
    assert!(error.contains("OTHER, which is not set"), "{error}");
    let by_file = with(&format!("file:{}", file.display()));
    assert_eq!(password(&by_file).unwrap(), Some(secret("hunter2")));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = password(&by_file).unwrap_err().to_string();
    assert!(error.contains("chmod 600") && !error.contains("hunter2"), "{error}");
    assert!(password(&with("file:/nowhere/at/all")).is_err());

    assert_eq!(password(&with("store")).unwrap(), None);
    store.set(SOURCE, "password", &secret("hunter4")).unwrap();
    assert_eq!(password(&with("store")).unwrap(), Some(secret("hunter4")));
    assert_eq!(
        password(&SourceSpec::parse(SOURCE, &BTreeMap::new()).unwrap()).unwrap(),
        Some(secret("hunter4"))
    );
}

#[test]
fn an_access_key_id_can_be_a_reference_too() {
    let folder = TempDir::new().unwrap();
    let given = BTreeMap::from([
        ("access_key_id".into(), "env:ID".into()),
        ("secret_access_key".into(), "env:KEY".into()),
    ]);
    let spec = SourceSpec::parse("s3://b", &given).unwrap();
    assert_eq!(spec.setting("access_key_id"), None);
    let secrets = resolve(
        &spec,
        &|name| Some(format!("value of {name}")),
        &file_store(folder.path()),
    )
    .unwrap();
    assert_eq!(secrets["access_key_id"].expose(), "value of ID");
    assert_eq!(secrets["secret_access_key"].expose(), "value of KEY");
}

#[test]
fn a_file_of_the_first_format_can_still_be_read() {
    let folder = TempDir::new().unwrap();
    let files: [(&str, &[u8]); 2] = [
        ("secrets", include_bytes!("fixtures/format-1.secrets")),
        ("secrets.key", include_bytes!("fixtures/format-1.key")),
    ];
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let vault = Vault {
        path: folder.path().join("secrets"),
        key_path: folder.path().join("secrets.key"),
    };
    assert_eq!(vault.read().unwrap(), records());
}

/// What the fixture holds.
fn records() -> Records {
    Records::from([
        ((SOURCE.into(), "password".into()), Record::Here(secret("hunter2"))),
        (("s3://b".into(), "secret_access_key".into()), Record::InKeyring),
    ])
}

/// Files for the damage tests, written once: each case copies them.
fn written() -> (Vec<u8>, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let vault = Vault {
        path: folder.path().join("secrets"),
        key_path: folder.path().join("key"),
    };
    vault.update(|now| now.extend(records())).unwrap();
    assert_eq!(vault.read().unwrap(), records());
    (
        std::fs::read(&vault.path).unwrap(),
        std::fs::read(&vault.key_path).unwrap(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_told_and_never_written_over(
        in_key in any::<bool>(),
        damage in prop_oneof![
            (any::<prop::sample::Index>(), 1..=255u8).prop_map(|(at, flip)| (Some(at), flip)),
            any::<u8>().prop_map(|length| (None, length)),
        ],
    ) {
        static WRITTEN: std::sync::LazyLock<(Vec<u8>, Vec<u8>)> = std::sync::LazyLock::new(written);
        let folder = TempDir::new().unwrap();
        let (mut file, mut key) = WRITTEN.clone();
        let target = if in_key { &mut key } else { &mut file };
        match damage {
            (Some(at), flip) => {
                let at = at.index(target.len());
                target[at] ^= flip;
            }
            (None, length) => target.truncate(usize::from(length) % target.len()),
        }
        for (name, bytes) in [("secrets", &file), ("key", &key)] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let options = StoreOptions {
            file: folder.path().join("secrets"), key_file: folder.path().join("key"), keyring: None,
        };
        let store = SecretStore::new(options);
        for error in [
            store.get(SOURCE, "password").unwrap_err(),
            store.set(SOURCE, "password", &secret("x")).unwrap_err(),
            store.remove(SOURCE).unwrap_err(),
        ] {
            prop_assert!(
                matches!(error, SecretError::Damaged { .. } | SecretError::NewerVersion { .. }), "{}", error
            );
        }
        prop_assert_eq!(std::fs::read(folder.path().join("secrets")).unwrap(), file);
        prop_assert_eq!(std::fs::read(folder.path().join("key")).unwrap(), key);
    }
}
