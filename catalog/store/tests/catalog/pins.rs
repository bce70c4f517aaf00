//! Pins and their policies.

use manifold_catalog::{Error, Pin, PolicyId};

use crate::support::{Scratch, With, add_source, file, folder, id, list, pin};

#[test]
fn a_policy_is_kept_changed_and_removed_with_the_pins_that_it_made() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(&catalog, source.root, vec![file("a"), file("b"), file("c")]);
    let [a, b, c] = ["/s/a", "/s/b", "/s/c"].map(|path| id(&catalog, path));
    let first = catalog.add_pin_policy(b"first").unwrap();
    let second = catalog.add_pin_policy(b"second").unwrap();
    let made = [pin(a, Some(first)), pin(b, Some(second)), pin(c, None)];
    assert_eq!(catalog.pin(&made).unwrap(), 3);
    assert!(catalog.remove_pin_policy(first).unwrap());
    assert!(!catalog.remove_pin_policy(first).unwrap());
    catalog.set_pin_policy(second, b"changed").unwrap();
    assert_eq!(catalog.pins(None, 9).unwrap(), made[1..]);
    let gone = catalog.pin(&[pin(a, Some(first))]).unwrap_err();
    assert!(matches!(gone, Error::NoPolicy(policy) if policy == first), "{gone:?}");
    assert!(matches!(catalog.set_pin_policy(first, b""), Err(Error::NoPolicy(_))));
    let catalog = scratch.checked(catalog);
    assert_eq!(catalog.pin_policies().unwrap(), [(second, b"changed".to_vec())]);
    assert!(catalog.remove_pin_policy(second).unwrap());
    let third = catalog.add_pin_policy(b"third").unwrap();
    assert_eq!(third, PolicyId(3), "an id was given twice");
    scratch.check(catalog);
}

#[test]
fn what_lies_beneath_is_pinned_with_its_directory_wherever_it_goes() {
    let scratch = Scratch::new();
    let catalog = scratch.open();
    let source = add_source(&catalog, "/s");
    list(
        &catalog,
        source.root,
        vec![folder("d").identity(1), file("f").identity(2)],
    );
    let (directory, plain) = (id(&catalog, "/s/d"), id(&catalog, "/s/f"));
    list(&catalog, directory, vec![folder("in")]);
    list(&catalog, id(&catalog, "/s/d/in"), vec![file("deep")]);
    let deep = id(&catalog, "/s/d/in/deep");
    assert_eq!(catalog.pin_of(deep).unwrap(), None);
    let flat = Pin {
        recursive: false,
        ..pin(source.root, None)
    };
    catalog.pin(&[pin(directory, None), flat]).unwrap();
    assert_eq!(catalog.pin_of(deep).unwrap(), Some(pin(directory, None)));
    assert_eq!(
        catalog.pin_of(plain).unwrap(),
        None,
        "only the directory itself is pinned"
    );
    assert_eq!(catalog.pin_of(source.root).unwrap(), Some(flat));
    let moved = folder("elsewhere").identity(1).adopt(directory);
    list(&catalog, source.root, vec![moved, file("f").identity(2)]);
    assert_eq!(catalog.pin_of(deep).unwrap(), Some(pin(directory, None)));
    assert_eq!(catalog.pins(Some(source.root), 9).unwrap(), [pin(directory, None)]);
    assert_eq!(catalog.unpin(&[directory, plain]).unwrap(), 1);
    assert_eq!(catalog.pin_of(deep).unwrap(), None);
    scratch.check(catalog);
}
