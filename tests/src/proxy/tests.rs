use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::*;

/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server that greets each client with `greeting`, then says again what it is told.
fn echo(greeting: Vec<u8>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, greeting) = (client.unwrap(), greeting.clone());
            thread::spawn(move || {
                let _gone = client.write_all(&greeting);
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = client.read(&mut buffer) {
                    let _gone = client.write_all(&buffer[..count]);
                }
            });
        }
    });
    port
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn hear(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Makes sure that nothing is to be read now.
fn says_nothing(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let error = stream.read(&mut [0; 16]).expect_err("nothing is said");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn what_is_said_passes_in_both_directions() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut client = connect(&proxy);
    assert_eq!(hear(&mut client, 5), b"hello");
    client.write_all(b"you").unwrap();
    assert_eq!(hear(&mut client, 3), b"you");
}

#[test]
fn a_port_that_refuses_listens_again_after_it() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut open = connect(&proxy);
    hear(&mut open, 5);
    proxy.fail(Fault::Refuse);
    let refused = TcpStream::connect(proxy.address()).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let broken = open.read(&mut [0; 1]).expect_err("the open one is reset");
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    proxy.heal();
    assert_eq!(hear(&mut connect(&proxy), 5), b"hello");
}

#[test]
fn no_more_than_so_many_bytes_reach_the_server_until_it_is_healed() {
    let proxy = Proxy::start(echo(Vec::new()));
    let (mut one, mut other) = (connect(&proxy), connect(&proxy));
    one.write_all(b"abc").unwrap();
    assert_eq!(hear(&mut one, 3), b"abc");
    proxy.until_taken(3);
    proxy.fail(Fault::Takes { bytes: 4 });
    one.write_all(b"defghi").unwrap();
    assert_eq!(hear(&mut one, 4), b"defg");
    proxy.until_taken(7);
    other.write_all(b"j").unwrap();
    says_nothing(&mut one);
    says_nothing(&mut other);
    assert_eq!(proxy.taken(), 7);
    proxy.heal();
    assert_eq!(
        (hear(&mut one, 2), hear(&mut other, 1)),
        (b"hi".to_vec(), b"j".to_vec())
    );
}

#[test]
fn silence_holds_back_all_that_is_said_meanwhile() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut open = connect(&proxy);
    hear(&mut open, 5);
    proxy.fail(Fault::Silence);
    let mut new = connect(&proxy);
    open.write_all(b"still there?").unwrap();
    says_nothing(&mut open);
    says_nothing(&mut new);
    proxy.heal();
    assert_eq!(hear(&mut open, 12), b"still there?");
    assert_eq!(hear(&mut new, 5), b"hello");
}

#[test]
fn a_stall_lets_as_many_bytes_pass_as_it_is_told_to() {
    let proxy = Proxy::start(echo(vec![b'x'; 100_000]));
    proxy.fail(Fault::Stall { after: 70_000 });
    let mut client = connect(&proxy);
    hear(&mut client, 70_000);
    says_nothing(&mut client);
    proxy.heal();
    hear(&mut client, 30_000);
}

#[test]
fn a_trickle_gives_single_bytes() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    proxy.fail(Fault::Trickle);
    let mut client = connect(&proxy);
    let mut buffer = [0; 16];
    assert_eq!(client.read(&mut buffer).unwrap(), 1);
    proxy.heal();
    assert_eq!(hear(&mut client, 4), b"ello");
}

#[test]
fn a_reset_breaks_open_and_new_connections_off() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut open = connect(&proxy);
    hear(&mut open, 5);
    proxy.fail(Fault::Reset);
    for mut stream in [open, connect(&proxy)] {
        let broken = stream.read(&mut [0; 1]).expect_err("it is reset");
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_cut_ends_in_order_in_the_middle() {
    let proxy = Proxy::start(echo(vec![b'x'; 100_000]));
    proxy.fail(Fault::Cut { after: 70_000 });
    let mut client = connect(&proxy);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 70_000);
}

#[test]
fn corruption_changes_bytes_and_not_their_number() {
    let proxy = Proxy::start(echo(vec![b'x'; 100_000]));
    proxy.fail(Fault::Corrupt { after: 70_000 });
    let bytes = hear(&mut connect(&proxy), 100_000);
    assert!(bytes[..70_000].iter().all(|byte| *byte == b'x'));
    let changed = bytes[70_000..].iter().filter(|byte| **byte != b'x').count();
    assert_eq!(changed, 29);
}

#[test]
fn connections_can_be_led_to_another_server_for_a_while() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut open = connect(&proxy);
    hear(&mut open, 5);
    proxy.fail(Fault::Elsewhere {
        port: echo(b"who are you".to_vec()),
    });
    assert_eq!(open.read(&mut [0; 1]).unwrap(), 0, "the open one is closed");
    let mut led = connect(&proxy);
    assert_eq!(hear(&mut led, 11), b"who are you");
    proxy.heal();
    assert_eq!(
        led.read(&mut [0; 1]).unwrap(),
        0,
        "the one that led elsewhere is closed"
    );
    assert_eq!(hear(&mut connect(&proxy), 5), b"hello");
}

#[test]
fn http_requests_are_answered_in_the_servers_place() {
    let proxy = Proxy::start(echo(Vec::new()));
    proxy.fail(Fault::Answer {
        status: 503,
        retry_after: Some(7),
    });
    let mut client = connect(&proxy);
    for _ in 0..2 {
        client
            .write_all(b"PROPFIND / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody")
            .unwrap();
        let answer = b"HTTP/1.1 503 On Purpose\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n";
        assert_eq!(hear(&mut client, answer.len()), answer);
    }
    assert_eq!(proxy.answered(), 2);
}

#[test]
fn a_network_loses_packets_and_mends() {
    let namespace = Arc::new(Namespace::make());
    let proxy = Proxy::start_within(&namespace, echo(b"hello".to_vec()), false);
    let mut client = connect(&proxy);
    assert_eq!(hear(&mut client, 5), b"hello");
    namespace.drop_packets(true);
    client.write_all(b"you").unwrap();
    let lost = TcpStream::connect_timeout(&proxy.address(), Duration::from_millis(300)).expect_err("no answer comes");
    assert_eq!(lost.kind(), ErrorKind::TimedOut);
    says_nothing(&mut client);
    namespace.drop_packets(false);
    assert_eq!(hear(&mut client, 3), b"you");
}

#[test]
fn a_request_of_a_kind_reaches_the_server_and_is_not_answered() {
    let proxy = Proxy::start(echo(b"hello".to_vec()));
    let mut client = connect(&proxy);
    hear(&mut client, 5);
    proxy.fail(Fault::Unanswered { request: b"PUT " });
    client.write_all(b"GET /").unwrap();
    assert_eq!(hear(&mut client, 5), b"GET /", "of another kind");
    client.write_all(b"PUT /").unwrap();
    client.write_all(b"GET /").unwrap();
    assert_eq!(hear(&mut connect(&proxy), 5), b"hello", "another connection");
    says_nothing(&mut client);
    proxy.heal();
    let broken = client.read(&mut [0; 1]).expect_err("it is reset");
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
}
