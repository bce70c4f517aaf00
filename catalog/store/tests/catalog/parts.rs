//! Uploads in parts that were begun.

use manifold_catalog::{Catalog, EntryId, Error, PartUpload, PartUploadId, SentPart, SourceId, WhenStaged};

use crate::support::{Scratch, add_source, file, folder, id, list};

fn upload(source: SourceId, entry: EntryId, name: &str) -> PartUpload {
    PartUpload {
        source,
        entry,
        size: 100,
        written_ns: -3,
        path: b"a/b".to_vec(),
        name: name.as_bytes().to_vec(),
    }
}

fn part(number: u32, tag: &str) -> SentPart {
    SentPart {
        number,
        length: 50,
        sum: [number as u8; 16],
        tag: tag.as_bytes().to_vec(),
    }
}

fn numbers(catalog: &Catalog, id: PartUploadId) -> Vec<u32> {
    let parts = catalog.sent_parts(id).unwrap();
    parts.iter().map(|part| part.number).collect()
}

#[test]
fn an_upload_in_parts_is_known_until_it_has_ended_whatever_becomes_of_its_entry() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![file("f")]);
    let f = id(&catalog, "/s/f");
    let (one, other) = (upload(source.id, f, "one"), upload(source.id, f, "other"));
    let [first, second] = [&one, &other].map(|one| catalog.begin_part_upload(one).unwrap());
    // That it began outlives a loss of power.
    let crashed = scratch.as_after_a_crash();
    let after = crashed.open();
    assert_eq!(
        after.part_uploads().unwrap(),
        [(first, one.clone()), (second, other.clone())]
    );
    crashed.check(after);
    for (id, number) in [(first, 300), (second, 1), (first, 2), (first, 2)] {
        catalog.note_sent_part(id, &part(number, "tag")).unwrap();
    }
    // What has arrived outlives the process.
    let killed = scratch.as_after_a_crash();
    let after = killed.open();
    assert_eq!(
        (numbers(&after, first), numbers(&after, second)),
        (vec![2, 300], vec![1])
    );
    killed.check(after);
    list(&catalog, source.root, vec![]);
    catalog.end_part_upload(first).unwrap();
    catalog.end_part_upload(first).unwrap();
    // One that was on its way comes too late.
    catalog.note_sent_part(first, &part(7, "late")).unwrap();
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.part_uploads().unwrap(), [(second, other)]);
    assert_eq!(numbers(&catalog, first), [0_u32; 0]);
    assert_eq!(catalog.sent_parts(second).unwrap(), [part(1, "tag")]);
    let third = catalog.begin_part_upload(&one).unwrap();
    assert!(third > second && third != first, "numbers are not given twice");
    scratch.check(catalog);
}

#[test]
fn uploads_in_parts_go_with_their_source() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (gone, stays) = (add_source(&catalog, "/gone"), add_source(&catalog, "/stays"));
    let [of_gone, of_stays] = [&gone, &stays].map(|source| {
        let id = catalog
            .begin_part_upload(&upload(source.id, source.root, "up"))
            .unwrap();
        catalog.note_sent_part(id, &part(1, "tag")).unwrap();
        id
    });
    catalog.remove_source(gone.id, WhenStaged::Refuse).unwrap();
    let left: Vec<_> = catalog.part_uploads().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!((left, numbers(&catalog, of_gone)), (vec![of_stays], vec![]));
    let refused = catalog.begin_part_upload(&upload(gone.id, gone.root, "up"));
    assert!(matches!(refused, Err(Error::NoSource(_))));
    for odd in [String::new(), "x".repeat((1 << 16) + 1)] {
        let refused = catalog.begin_part_upload(&upload(stays.id, stays.root, &odd));
        assert!(matches!(refused, Err(Error::Refused { .. })));
    }
    scratch.check(catalog);
}

#[test]
fn uploads_into_a_directory_follow_it_when_the_source_has_renamed_it_and_not_ahead_of_that() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let (source, other) = (add_source(&catalog, "/s"), add_source(&catalog, "/other"));
    list(&catalog, source.root, vec![folder("a"), folder("ab")]);
    let begin = |source, path: &str| {
        let upload = PartUpload {
            path: path.as_bytes().to_vec(),
            ..upload(source, EntryId::ROOT, "name")
        };
        catalog.begin_part_upload(&upload).unwrap();
    };
    let paths = || -> Vec<String> {
        let uploads = catalog.part_uploads().unwrap().into_iter();
        uploads
            .map(|(_, upload)| String::from_utf8(upload.path).unwrap())
            .collect()
    };
    for path in ["a/b", "a/deep/er", "ab/c", "a"] {
        begin(source.id, path);
    }
    begin(other.id, "a/b");
    let rename = |from: &[u8], to: &[u8]| {
        let (from, to) = ((source.root, from), (source.root, to));
        catalog.follow_moved(from, to, None, None, 7).unwrap()
    };
    rename(b"a", b"new");
    let followed = ["new/b", "new/deep/er", "ab/c", "a", "a/b"];
    assert_eq!(paths(), followed);
    let (from, to) = ((source.root, &b"new"[..]), (source.root, &b"ahead"[..]));
    catalog.follow_moved_ahead(from, to, None, 8).unwrap();
    assert_eq!(paths(), followed);
    scratch.check(catalog);
}
