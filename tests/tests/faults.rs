//! What a library shows and gives while its sources fail in every way that they can: each ailment of the table befalls every
//! kind of source, through a real mount.
//!
//! Needs root, /dev/fuse, and the servers of `tests/servers/install`.

#[path = "faults/bytes.rs"]
mod bytes;
#[path = "faults/drill.rs"]
mod drill;
#[path = "faults/looks.rs"]
mod looks;
#[path = "faults/others.rs"]
mod others;
#[path = "faults/readers.rs"]
mod readers;
#[path = "faults/served.rs"]
mod served;

use std::thread;
use std::time::Duration;

use looks::Looks;
use manifold_tests::estate::{AILMENTS, Estate, Kind};
use readers::{DEADLINE, read_of, recovery_of};
use served::Served;

/// Short deadlines, so that the test is short; yet a well source has to answer within that of data on two cores that start over
/// to ten servers at once.
const SETTINGS: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"4 s\"\nmetadata = \"2 s\"\n";
/// Rounds of looks before a fault, and during it.
const ROUNDS: usize = 5;
/// The most rounds during a fault, on a machine that has too much to do: one of looks that wait for a source takes long every time.
const ROUNDS_MAX: usize = 40;
/// How long a round usually takes at most: the deadline of metadata, which is the least that a look waits behind a request to a
/// source that is silent. It is ten times what a round takes where nothing else runs.
const USUAL_MAX: Duration = Duration::from_secs(2);
/// How many more requests the looks may cost during a fault than before: what the kernel has been told stays good.
const REQUESTS_MAX: f64 = 1.1;
/// Readers of each source during a fault.
const READERS: usize = 2;

#[test]
fn the_tree_stays_and_readers_are_answered_whatever_befalls_the_sources() {
    // Listings are asked for again and again, so that a fault meets them too.
    let estate = Estate::start(&Kind::ALL, SETTINGS, "1s");
    let at = estate.library.at();
    let truth = Looks::take(&at);
    let mut unread = 0..;
    for ailment in AILMENTS {
        let start = Served::by(&estate.library);
        let before: Vec<_> = (0..ROUNDS).map(|_| Looks::take(&at)).collect();
        let well = Served::by(&estate.library);
        let looks_before = well.must_not_have_waited_since(&start, "well");
        let befallen = |kind: Kind| ailment.befalls(kind);
        for site in estate.sites.iter().filter(|site| befallen(site.kind)) {
            ailment.begin(site);
        }
        let numbers: Vec<usize> = unread.by_ref().take(READERS).collect();
        let (mut during, answers) = thread::scope(|scope| {
            let readers: Vec<_> = estate
                .sites
                .iter()
                .flat_map(|site| numbers.iter().map(move |number| (site, *number)))
                .map(|(site, number)| (site, scope.spawn(move || read_of(site, number))))
                .collect();
            let during: Vec<_> = (0..ROUNDS).map(|_| Looks::take(&at)).collect();
            let answers: Vec<_> = readers
                .into_iter()
                .map(|(site, reader)| (site.kind, reader.join().expect("a reader ends well")))
                .collect();
            (during, answers)
        });
        while looks::usual(&during) >= USUAL_MAX && during.len() < ROUNDS_MAX {
            during.push(Looks::take(&at));
        }
        let ill = Served::by(&estate.library);
        for round in before.iter().chain(&during) {
            round.must_show(&truth, ailment.name);
        }
        let looks_during = ill.must_not_have_waited_since(&well, ailment.name);
        must_cost_no_more((looks_before, &before), (looks_during, &during), ailment.name);
        for (kind, answer) in &answers {
            println!(
                "    {}: a reader is told {:?} after {:?}",
                kind.name(),
                answer.told,
                answer.after
            );
        }
        for (kind, answer) in &answers {
            let what = format!("{}, {}", ailment.name, kind.name());
            match answer.told {
                Err(errno) if befallen(*kind) => {
                    assert!(
                        ailment.errors.contains(&errno),
                        "{what}: {errno}\n{}",
                        estate.library.log()
                    );
                    assert!(answer.after < DEADLINE, "{what}: {:?}", answer.after);
                }
                Ok(()) if befallen(*kind) && !ailment.can_be_survived => panic!("{what}: bytes came that nobody gave"),
                told => assert_eq!(told, Ok(()), "{what}: well, and not read\n{}", estate.library.log()),
            }
        }
        for site in estate.sites.iter().filter(|site| befallen(site.kind)) {
            ailment.end(site);
        }
        let number = unread.next().expect("an endless range");
        let recoveries = thread::scope(|scope| {
            let recoveries: Vec<_> = estate
                .sites
                .iter()
                .map(|site| {
                    (
                        site.kind,
                        scope.spawn(move || recovery_of(site, number, ailment.recovery_max())),
                    )
                })
                .collect();
            let joined = recoveries.into_iter();
            joined
                .map(|(kind, it)| (kind, it.join().expect("a reader ends well")))
                .collect::<Vec<_>>()
        });
        for (kind, recovery) in recoveries {
            println!("    {}: back after {recovery:?}", kind.name());
            assert!(
                recovery < ailment.recovery_max(),
                "{}, {}: {recovery:?}",
                ailment.name,
                kind.name()
            );
        }
        Looks::take(&at).must_show(&truth, ailment.name);
    }
}

/// Makes sure that looks cost no more during a fault than before, each given by the kernel's requests and the rounds.
fn must_cost_no_more(before: (u64, &[Looks]), during: (u64, &[Looks]), when: &str) {
    let each = |(requests, rounds): (u64, &[Looks])| requests as f64 / rounds.len() as f64;
    let (usual, before, during) = (looks::usual(during.1), each(before), each(during));
    assert!(
        during <= before * REQUESTS_MAX,
        "{when}: {during} requests a round, and {before} before"
    );
    assert!(usual < USUAL_MAX, "{when}: the looks take {usual:?}");
}
