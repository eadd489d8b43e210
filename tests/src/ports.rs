//! Ports for servers that a test starts: a process that is to listen cannot be handed a socket, so its port is chosen
//! before, and must still be free when it listens.

use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::sync::Mutex;

/// Below those that the kernel takes for outgoing connections and for whoever does not care (32768 on), beside those of
/// the services of `deploy/dev`.
const FIRST: u16 = 22_000;
const NUMBER: u16 = 10_000;

/// What this process has reserved; the locks end with it.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of this machine's that nobody listens on, and that no other test is given while this process lives.
///
/// # Panics
/// When there is none.
pub fn reserve() -> u16 {
    let locks = std::env::temp_dir().join("flakefarm-test-ports");
    std::fs::create_dir_all(&locks).expect("the temporary directory can be written");
    // Processes begin at different places.
    let start = std::process::id() as u16 % NUMBER;
    for step in 0..NUMBER {
        let port = FIRST + (start + step) % NUMBER;
        let lock =
            File::create(locks.join(port.to_string())).expect("the temporary directory can be written");
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => panic!("a file cannot be locked: {error}"),
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            RESERVED.lock().expect("nobody panics with it").push(lock);
            return port;
        }
    }
    panic!("no port is free");
}

#[test]
fn no_port_is_given_twice() {
    let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| reserve()).collect();
    assert_eq!(ports.len(), 50);
}
