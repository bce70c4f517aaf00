//! Random changes, crashes and troubles of the source, side by side with a map from names to bytes: what is read here is what the map
//! holds, after each step, and in the end the source holds the same. `MANIFOLD_MODEL_CASES` says how many such lives there are.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const FAR: u64 = 150_000;

#[derive(Clone, Debug)]
enum Step {
    /// Opens, writes at an offset, and closes.
    Write(usize, u64, Vec<u8>),
    Append(usize, Vec<u8>),
    Truncate(usize, u64),
    Rename(usize, usize),
    Unlink(usize),
    /// The daemon dies and comes back.
    Die,
    Cue(Cue),
    Quiet,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (1..3_000_u64, any::<u64>()).prop_map(|(length, seed)| pattern(length, seed))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let step = prop_oneof![
        5 => (name(), 0..FAR, bytes()).prop_map(|(name, at, bytes)| Step::Write(name, at, bytes)),
        3 => (name(), bytes()).prop_map(|(name, bytes)| Step::Append(name, bytes)),
        2 => (name(), 0..FAR).prop_map(|(name, size)| Step::Truncate(name, size)),
        3 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => name().prop_map(Step::Unlink),
        1 => Just(Step::Die),
        2 => prop_oneof![Just(Cue::Does), Just(Cue::Holds), Just(Cue::LosesAnswers)].prop_map(Step::Cue),
        1 => Just(Step::Quiet),
    ];
    proptest::collection::vec(step, 4..20)
}

async fn write(world: &World, known: bool, name: &str, at: WriteAt, bytes: &[u8]) {
    let handle = if known {
        world.open(&format!("s/{name}"), Access::Write).await
    } else {
        world.create(name).await
    };
    world.write(handle, at, bytes).await.unwrap();
    world.close(handle).await.unwrap();
}

async fn take(world: World, model: &mut BTreeMap<&'static str, Vec<u8>>, step: Step) -> World {
    match step {
        Step::Write(name, at, bytes) => {
            let name = NAMES[name];
            write(&world, model.contains_key(name), name, WriteAt::Offset(at), &bytes).await;
            let (file, end) = (model.entry(name).or_default(), at as usize + bytes.len());
            file.resize(file.len().max(end), 0);
            file[at as usize..end].copy_from_slice(&bytes);
        }
        Step::Append(name, bytes) => {
            let name = NAMES[name];
            write(&world, model.contains_key(name), name, WriteAt::Append, &bytes).await;
            model.entry(name).or_default().extend_from_slice(&bytes);
        }
        Step::Truncate(name, size) => {
            if let Some(file) = model.get_mut(NAMES[name]) {
                let id = world.library.find(&format!("s/{}", NAMES[name])).await.unwrap();
                let change = AttributeChange {
                    size: Some(size),
                    ..AttributeChange::default()
                };
                let changed = world.library.vfs.set_attributes(id, None, change, ME);
                assert_eq!(changed.wait().await.unwrap().size, size);
                file.resize(size as usize, 0);
            }
        }
        Step::Rename(from, to) => {
            let renamed = world.rename(NAMES[from], NAMES[to]).await;
            match model.remove(NAMES[from]) {
                Some(file) => {
                    renamed.unwrap();
                    model.insert(NAMES[to], file);
                }
                None => assert!(matches!(renamed, Err(Error::NotFound)), "{renamed:?}"),
            }
        }
        Step::Unlink(name) => {
            let removed = world.unlink(NAMES[name]).await;
            match model.remove(NAMES[name]) {
                Some(_) => removed.unwrap(),
                None => assert!(matches!(removed, Err(Error::NotFound)), "{removed:?}"),
            }
        }
        Step::Die => return world.die_and_come_back().await,
        Step::Cue(cue) => world.shelf.set_cue(cue),
        Step::Quiet => {
            world.shelf.set_cue(Cue::Does);
            world.until_quiet().await;
        }
    }
    world
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new();
    let mut model = BTreeMap::new();
    world.shelf.place("a", &pattern(200_000, 9));
    model.insert("a", pattern(200_000, 9));
    for step in steps {
        world = take(world, &mut model, step).await;
        for name in NAMES {
            match model.get(name) {
                Some(file) => assert!(
                    world.read_path(&format!("s/{name}")).await == *file,
                    "{name} is another"
                ),
                None => assert!(
                    world.library.find(&format!("s/{name}")).await.is_err(),
                    "{name} is there"
                ),
            }
        }
    }
    world.shelf.set_cue(Cue::Does);
    world.until_quiet().await;
    let there: BTreeMap<_, _> = world
        .shelf
        .files()
        .into_iter()
        .map(|name| (name.clone(), world.shelf.bytes(&name).unwrap()))
        .collect();
    let names: Vec<_> = there.keys().collect();
    assert!(
        there
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes))
            .eq(model.iter().map(|(name, bytes)| (*name, bytes))),
        "there: {names:?}"
    );
    assert!(world.events.lock().is_empty(), "no conflict, and nothing refused");
}

fn cases() -> u32 {
    std::env::var("MANIFOLD_MODEL_CASES").map_or(12, |text| text.parse().expect("it is a number"))
}

proptest! {
    #![proptest_config(Config { cases: cases(), ..Config::default() })]

    #[test]
    fn it_is_a_file_system_whatever_becomes_of_the_source_and_of_us(steps in steps()) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run(steps));
    }
}
