//! The same path in several sources: found as far as it leads through directories of that source, and not known where nobody has looked.

use manifold_catalog::{Branch, EntryId};

use crate::support::{Scratch, add_source, file, folder, id, list};

fn names(path: &str) -> Vec<Box<[u8]>> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .map(|name| name.as_bytes().into())
        .collect()
}

#[test]
fn a_path_is_followed_through_directories_of_the_source_and_no_further() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let one = add_source(&catalog, "/u/one");
    let branch = |path: &str| catalog.branch(one.root, &names(path)).unwrap();
    assert_eq!(branch("d"), Branch::Unlisted(one.root));
    list(&catalog, one.root, vec![folder("d"), file("f")]);
    let d = id(&catalog, "/u/one/d");
    assert_eq!(branch("").directory().map(|it| it.id), Some(one.root));
    assert_eq!(branch("f"), Branch::Absent);
    assert_eq!(branch("none/deeper"), Branch::Absent);
    list(&catalog, d, vec![folder("e")]);
    add_source(&catalog, "/u/one/d/other");
    assert_eq!(
        branch("d/other"),
        Branch::Absent,
        "what is attached there is another source's"
    );
    assert_eq!(
        branch("d/e").directory().map(|it| it.id),
        Some(id(&catalog, "/u/one/d/e"))
    );
    assert_eq!(branch("d/e/x"), Branch::Unlisted(id(&catalog, "/u/one/d/e")));
    assert_eq!(catalog.branch(EntryId(999), &names("d")).unwrap(), Branch::Absent);
}

#[test]
fn the_names_that_lead_to_an_entry_begin_at_the_root_of_its_source() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let one = add_source(&catalog, "/u/one");
    list(&catalog, one.root, vec![folder("d")]);
    let d = id(&catalog, "/u/one/d");
    list(&catalog, d, vec![file("f")]);
    let found = |id| catalog.names_beneath_root(id).unwrap();
    assert_eq!(found(id(&catalog, "/u/one/d/f")), Some(names("d/f")));
    assert_eq!(found(one.root), Some(Vec::new()));
    assert_eq!(found(id(&catalog, "/u")), None, "it is the library's own");
    list(&catalog, one.root, vec![]);
    assert_eq!(found(d), None, "it has left the tree");
}
