//! A server's address with a switch: what goes through a relay can be cut and mended without
//! touching the server, which other tests use at the same time.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// One end of a connection.
trait End: io::Read + io::Write + Send + Sized + 'static {
    fn twin(&self) -> io::Result<Self>;
    fn shut(&self, how: Shutdown);
}

macro_rules! end {
    ($stream:ty) => {
        impl End for $stream {
            fn twin(&self) -> io::Result<Self> {
                self.try_clone()
            }
            fn shut(&self, how: Shutdown) {
                // The other side may have been quicker.
                let _gone = self.shutdown(how);
            }
        }
    };
}
end!(TcpStream);
end!(UnixStream);

/// The switch of a relay; connections made through it end when it is cut.
#[derive(Clone, Default)]
pub struct Relay(Arc<Switch>);

#[derive(Default)]
struct Switch {
    cut: AtomicBool,
    refused: AtomicUsize,
    cutters: Mutex<Vec<Box<dyn Fn() + Send>>>,
    /// Ends of connections that are open.
    open: AtomicUsize,
    /// What was cut, refused or held since the last fault.
    felt: AtomicUsize,
    frozen: Mutex<bool>,
    thawed: Condvar,
}

impl Switch {
    /// Passes bytes on until either side ends, none while it is frozen.
    fn pass(&self, from: &mut impl io::Read, to: &mut impl io::Write) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        loop {
            let read = from.read(&mut bytes)?;
            let mut frozen = self.frozen.lock().expect("nobody panics with it");
            if *frozen {
                self.felt.fetch_add(1, Ordering::SeqCst);
            }
            while *frozen {
                frozen = self.thawed.wait(frozen).expect("nobody panics with it");
            }
            drop(frozen);
            if read == 0 {
                return Ok(());
            }
            to.write_all(&bytes[..read])?;
        }
    }

    fn thaw(&self) {
        *self.frozen.lock().expect("nobody panics with it") = false;
        self.thawed.notify_all();
    }
}

impl Relay {
    /// Relays to a TCP server; also the address to connect to.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn tcp(server: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let relay = Self::default();
        let switch = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                switch.join(client, || TcpStream::connect(server));
            }
        });
        (relay, address)
    }

    /// Relays a Unix socket, made at `here`, to the one at `server`.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn unix(server: &Path, here: &Path) -> Self {
        let listener = UnixListener::bind(here).expect("a socket can be made");
        let server = server.to_owned();
        let relay = Self::default();
        let switch = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                switch.join(client, || UnixStream::connect(&server));
            }
        });
        relay
    }

    fn join<E: End>(&self, client: E, connect: impl FnOnce() -> io::Result<E>) {
        if self.0.cut.load(Ordering::SeqCst) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
            self.0.felt.fetch_add(1, Ordering::SeqCst);
            return client.shut(Shutdown::Both);
        }
        let Ok(server) = connect() else { return client.shut(Shutdown::Both) };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(mut from), Ok(mut to)) = (from.twin(), to.twin()) else { return };
            let switch = self.0.clone();
            switch.open.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                // An error ends the connection, which is all there is to it.
                let _ended = switch.pass(&mut from, &mut to);
                to.shut(Shutdown::Write);
                switch.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let cutter = move || {
            client.shut(Shutdown::Both);
            server.shut(Shutdown::Both);
        };
        self.0.cutters.lock().expect("nobody panics with it").push(Box::new(cutter));
    }

    /// Ends every connection and refuses new ones.
    ///
    /// # Panics
    /// Never: nobody panics while holding the lock.
    pub fn cut(&self) {
        self.0.felt.store(self.0.open.load(Ordering::SeqCst), Ordering::SeqCst);
        self.0.cut.store(true, Ordering::SeqCst);
        for cut in self.0.cutters.lock().expect("nobody panics with it").drain(..) {
            cut();
        }
        self.0.thaw();
    }

    /// Connections that it has refused so far: somebody has felt that it is cut.
    pub fn refused(&self) -> usize {
        self.0.refused.load(Ordering::SeqCst)
    }

    /// Passes nothing on, and ends nothing: a peer that is half open.
    ///
    /// # Panics
    /// Never: nobody panics while holding the lock.
    pub fn freeze(&self) {
        self.0.felt.store(0, Ordering::SeqCst);
        *self.0.frozen.lock().expect("nobody panics with it") = true;
    }

    /// Whether anybody has felt the last fault: was cut off, refused or left without an answer.
    pub fn was_felt(&self) -> bool {
        self.0.felt.load(Ordering::SeqCst) > 0
    }

    /// Takes connections again, and passes on what it held.
    pub fn mend(&self) {
        self.0.cut.store(false, Ordering::SeqCst);
        self.0.thaw();
    }
}
