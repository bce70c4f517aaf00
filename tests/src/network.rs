//! A network of its own between the program under test and a server, in which packets can be lost.
//!
//! It is a network namespace, joined to this one by a pair of virtual Ethernet devices. It lives in a process of its own,
//! so that it is gone with the tests, whatever becomes of them. Needs root and iproute2.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::mounted::expect_success;
use crate::servers::Port;

/// A network namespace with one address, which this process can reach.
pub struct Namespace {
    keeper: Child,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
    dropping: Mutex<bool>,
    /// Its number makes the addresses this namespace's own.
    port: Port,
}

impl Namespace {
    /// Makes a namespace.
    pub fn make() -> Self {
        // `cat` ends when this process does, and the namespace with it.
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo made && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run unshare");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().expect("its output is a pipe"))
            .read_line(&mut said)
            .expect("hear from the namespace");
        assert_eq!(said, "made\n", "a network namespace needs root");
        let port = Port::take();
        // Four addresses for each port number.
        let network = 0x0AD0_0000 + u32::from(port.number()) * 4;
        let made = Self {
            keeper,
            outside: (network + 1).into(),
            inside: (network + 2).into(),
            dropping: Mutex::new(false),
            port,
        };
        let (device, pid) = (made.device(), made.keeper.id().to_string());
        ip(&[
            "link", "add", &device, "type", "veth", "peer", "name", "outward", "netns", &pid,
        ]);
        ip(&["addr", "add", &format!("{}/30", made.outside), "dev", &device]);
        ip(&["link", "set", &device, "up"]);
        made.ip_inside(&["addr", "add", &format!("{}/30", made.inside), "dev", "outward"]);
        made.ip_inside(&["link", "set", "outward", "up"]);
        made
    }

    /// Gives the address within.
    pub fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// Loses every packet that leaves the namespace, or none.
    pub fn drop_packets(&self, drop: bool) {
        let mut dropping = self.dropping.lock().expect("nobody panicked over this lock");
        if *dropping != drop {
            let verb = if drop { "add" } else { "del" };
            self.ip_inside(&["rule", verb, "from", &self.inside.to_string(), "blackhole"]);
            *dropping = drop;
        }
    }

    /// Loses every packet that leaves the namespace on a TCP connection that is open now, for good: as where a packet filter
    /// has forgotten it. Neither end is told, what the client says still comes in, and new connections pass. Gives their
    /// number.
    pub fn forget_connections(&self) -> usize {
        let inside = self.inside.to_string();
        let said = expect_success(self.within("ss").args(["-Htn", "state", "established", "src", &inside]));
        let port = |end: &str| end.rsplit_once(':').expect("an address with a port").1.to_owned();
        let connections = said.lines().map(|line| {
            let mut ends = line.split_whitespace().skip(2).map(port);
            let mut end = || ends.next().expect("two ends of a connection");
            (end(), end())
        });
        let mut count = 0;
        for (from, to) in connections {
            let connection = ["from", &inside, "ipproto", "tcp", "sport", &from, "dport", &to];
            self.ip_inside(&[&["rule", "add"][..], &connection, &["blackhole"]].concat());
            count += 1;
        }
        count
    }

    /// Does something on a thread within the namespace. A socket that is made there stays there.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.keeper.id())).expect("open the namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the namespace, which needs root");
                act()
            });
            thread.join().expect("the thread within the namespace ends well")
        })
    }

    /// A device's name has at most 15 characters.
    fn device(&self) -> String {
        format!("manifold{}", self.port.number())
    }

    fn ip_inside(&self, arguments: &[&str]) {
        expect_success(self.within("ip").args(arguments));
    }

    /// Gives a program, to be run within.
    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.keeper.id().to_string(), "-n", program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Sockets may keep the namespace alive for a while; the device goes at once.
        let _gone = Command::new("ip").args(["link", "del", &self.device()]).status();
        let _gone = self.keeper.kill();
        let _gone = self.keeper.wait();
    }
}

fn ip(arguments: &[&str]) {
    expect_success(Command::new("ip").args(arguments));
}
