use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::*;
use crate::Timestamp;

/// A source in memory, which lists a few names at a time, in no order that helps.
#[derive(Debug)]
struct Store {
    able: Capabilities,
    objects: Mutex<BTreeMap<Vec<u8>, Bytes>>,
}

impl Store {
    fn metadata(bytes: &Bytes) -> Metadata {
        Metadata {
            kind: Kind::File,
            size: bytes.len() as u64,
            modified: Some(Timestamp(1)),
            changed: None,
            created: None,
            mode: None,
            owner: None,
            links: 1,
            device: 0,
            version: Version::from_id(blake3::hash(bytes).as_bytes()),
            identity: None,
        }
    }
}

#[async_trait]
impl Backend for Store {
    fn name(&self) -> &'static str {
        "test://store"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.able
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        let objects = self.objects.lock();
        let found = objects.get(path.as_bytes()).map(Self::metadata);
        Ok(found.map_or(Presence::Absent, Presence::Found))
    }

    async fn list(&self, _directory: &ObjectPath) -> Result<Presence<Listing>> {
        let objects = self.objects.lock();
        let children: Vec<_> = objects
            .iter()
            .rev()
            .map(|(name, bytes)| Child {
                name: name.clone(),
                metadata: Self::metadata(bytes),
            })
            .collect();
        let pages: Vec<_> = children.chunks(2).map(|page| Ok(page.to_vec())).collect();
        Ok(Presence::Found(stream::iter(pages).boxed()))
    }

    async fn read(&self, path: &ObjectPath, _version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        let objects = self.objects.lock();
        let bytes = objects.get(path.as_bytes()).cloned();
        Ok(bytes.map_or(Presence::Absent, |bytes| {
            Presence::Found(bytes.slice(range.start as usize..range.end as usize))
        }))
    }

    async fn read_link(&self, _path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        Ok(Presence::Absent)
    }

    async fn put(&self, path: &ObjectPath, body: &dyn Body, expected: &Expected) -> Result<Metadata> {
        if !expected.holds(&self.stat(path).await?) {
            let why = "something else is there";
            return Err(Error::new(
                ErrorKind::Conflict,
                Operation::Put,
                self.name(),
                path.clone(),
                why,
            ));
        }
        let bytes = body.read(0..body.size()).await.expect("the body is there");
        let metadata = Self::metadata(&bytes);
        self.objects.lock().insert(path.as_bytes().to_vec(), bytes);
        Ok(metadata)
    }

    async fn remove_file(&self, path: &ObjectPath, _expected: &Expected) -> Result<Presence<()>> {
        let removed = self.objects.lock().remove(path.as_bytes());
        Ok(removed.map_or(Presence::Absent, |_| Presence::Found(())))
    }

    async fn rename(&self, from: &ObjectPath, to: &ObjectPath, _replace: bool) -> Result<Presence<Metadata>> {
        let mut objects = self.objects.lock();
        let Some(bytes) = objects.remove(from.as_bytes()) else {
            return Ok(Presence::Absent);
        };
        let metadata = Self::metadata(&bytes);
        objects.insert(to.as_bytes().to_vec(), bytes);
        Ok(Presence::Found(metadata))
    }
}

fn store(objects: &[(&str, &[u8])]) -> (Arc<Store>, LinkObjects) {
    let store = Arc::new(Store {
        able: Capabilities {
            block_size: 1 << 16,
            read_size_max: 1 << 16,
            concurrency: 1,
            posix_attributes: false,
            identities: false,
            implicit_directories: true,
            lists_may_be_cut: false,
            tells_minutes: false,
            writes: None,
        },
        objects: Mutex::default(),
    });
    for (name, bytes) in objects {
        let bytes = Bytes::copy_from_slice(bytes);
        store.objects.lock().insert(name.as_bytes().to_vec(), bytes);
    }
    let links = LinkObjects::over(Arc::clone(&store) as Arc<dyn Backend>);
    (store, links)
}

fn path(path: &str) -> ObjectPath {
    ObjectPath::from_bytes(path)
}

/// Names as they are listed, those of links with an arrow, sorted.
async fn names(links: &LinkObjects) -> Vec<String> {
    let Presence::Found(pages) = links.list(&ObjectPath::root()).await.expect("a listing") else {
        panic!("the root is there");
    };
    let pages: Vec<_> = pages.map(|page| page.expect("a page")).collect().await;
    let mut names: Vec<_> = pages
        .into_iter()
        .flatten()
        .map(|child| {
            let arrow = if child.metadata.kind == Kind::Symlink { "->" } else { "" };
            format!("{}{arrow}", String::from_utf8_lossy(&child.name))
        })
        .collect();
    names.sort();
    names
}

fn raw(store: &Store) -> Vec<String> {
    let objects = store.objects.lock();
    objects
        .keys()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[tokio::test]
async fn links_are_listed_and_whatever_cannot_be_one_is_shown_as_it_is() {
    let long = vec![b'x'; 4_096];
    let (_, links) = store(&[
        ("a.rclonelink", b"target"),
        ("b", b"plain"),
        ("b.rclonelink", b"beside it"),
        ("empty.rclonelink", b""),
        ("long.rclonelink", &long),
        ("longest.rclonelink", &long[1..]),
        (".rclonelink", b"no name"),
        ("z", b""),
    ]);
    let expected = [
        ".rclonelink",
        "a->",
        "b",
        "b.rclonelink",
        "empty.rclonelink",
        "long.rclonelink",
        "longest->",
        "z",
    ];
    assert_eq!(names(&links).await, expected);
    for (name, kind) in [("a", Kind::Symlink), ("b", Kind::File), ("b.rclonelink", Kind::File)] {
        let seen = links.stat(&path(name)).await.expect("an answer");
        assert!(matches!(seen, Presence::Found(it) if it.kind == kind), "{name}");
    }
    assert_eq!(links.stat(&path("empty")).await.expect("an answer"), Presence::Absent);
    let target = links.read_link(&path("a")).await.expect("an answer");
    assert_eq!(target, Presence::Found(b"target".to_vec()));
}

#[tokio::test]
async fn a_link_is_made_once_and_goes_under_its_name() {
    let (store, links) = store(&[("taken", b"")]);
    let made = links.make_link(&path("l"), b"../where").await.expect("a link");
    assert_eq!((made.kind, made.size), (Kind::Symlink, 8));
    assert_eq!(&store.objects.lock()[&b"l.rclonelink"[..]][..], b"../where");
    for (name, target, kind) in [
        ("l", &b"again"[..], ErrorKind::Exists),
        ("taken", b"x", ErrorKind::Exists),
        ("new", b"", ErrorKind::InvalidArgument),
        ("new.rclonelink", b"x", ErrorKind::InvalidArgument),
    ] {
        let refused = links.make_link(&path(name), target).await.expect_err(name);
        assert_eq!(refused.kind(), kind, "{name}");
    }
    let body = Bytes::from_static(b"not a link");
    let put = links.put(&path("f.rclonelink"), &body, &Expected::Absent).await;
    assert_eq!(put.expect_err("it would be a link").kind(), ErrorKind::BadPath);
    let removed = links.remove_file(&path("l"), &Expected::Anything).await;
    assert_eq!(removed.expect("an answer"), Presence::Found(()));
    let again = links.remove_file(&path("l"), &Expected::Anything).await;
    assert_eq!(again.expect("an answer"), Presence::Absent);
    assert_eq!(raw(&store), ["taken"]);
}

#[tokio::test]
async fn whatever_a_name_is_given_to_is_alone_under_it() {
    let (store, links) = store(&[("f", b"file"), ("l.rclonelink", b"f"), ("m.rclonelink", b"l")]);
    let rename = async |from: &str, to: &str| {
        let renamed = links.rename(&path(from), &path(to), true).await.expect("an answer");
        match renamed {
            Presence::Found(metadata) => metadata.kind,
            Presence::Absent => panic!("{from} is not there"),
        }
    };
    assert_eq!(rename("m", "l").await, Kind::Symlink);
    assert_eq!(raw(&store), ["f", "l.rclonelink"]);
    let refused = links.rename(&path("f"), &path("l"), false).await;
    assert_eq!(refused.expect_err("it is taken").kind(), ErrorKind::Exists);
    assert_eq!(rename("l", "f").await, Kind::Symlink);
    assert_eq!(raw(&store), ["f.rclonelink"]);
    store.objects.lock().insert(b"g".to_vec(), Bytes::from_static(b"file"));
    assert_eq!(rename("g", "f").await, Kind::File);
    assert_eq!(raw(&store), ["f"]);
    let link = links.make_link(&path("k"), b"f").await.expect("a link");
    let (body, seen) = (Bytes::from_static(b"file"), Expected::Version(link.version));
    links.put(&path("k"), &body, &seen).await.expect("it replaces the link");
    assert_eq!(raw(&store), ["f", "k"]);
    let conflict = links.put(&path("new"), &body, &seen).await;
    assert_eq!(conflict.expect_err("nothing is there").kind(), ErrorKind::Conflict);
    let gone = links.rename(&path("l"), &path("x"), true).await.expect("an answer");
    assert_eq!(gone, Presence::Absent);
}
