//! A TCP proxy in front of a server, which makes the network misbehave.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Result;
use crate::error::Context;

/// A direction of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: answers.
    FromServer,
}

/// What the network does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    #[default]
    None,
    /// Every piece of data arrives this much later, in both directions.
    Delay(Duration),
    /// After this many more bytes in one direction, counted over all connections, every connection that sends on is
    /// cut. Zero bytes from the server: requests arrive, their answers never do.
    CutAfter(Side, usize),
    /// Nothing arrives, nobody notices; what was sent arrives when the fault ends.
    Hold,
    /// The server's end is closed and the client's stays open, also for new connections: what is sent is lost and
    /// nothing is answered. When the fault ends, these connections are closed.
    HalfOpen,
    /// Every connection is closed, and so is every new one.
    Refuse,
}

/// A running proxy on a loopback port; its connections are closed when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of the server on this loopback port.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start(server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(|| "cannot bind a port".to_owned())?;
        let port = listener.local_addr().context(|| "cannot read the proxy's port".to_owned())?.port();
        let shared = Arc::new(Shared {
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, server_port)),
            fault: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            links: Mutex::default(),
        });
        let accepting = spawn("proxy-accept", {
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        let accepting = Some(accepting.context(|| "cannot start the proxy's thread".to_owned())?);
        Ok(Self { port, shared, accepting })
    }

    /// The proxy's own port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server with the proxy's port in place of the server's.
    #[must_use]
    pub fn url(&self, server_url: &str) -> String {
        server_url.replacen(&format!(":{}", self.shared.server.port()), &format!(":{}", self.port), 1)
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Makes the network behave like this from now on.
    pub fn set(&self, fault: Fault) {
        let before = std::mem::replace(&mut *self.shared.fault(), fault);
        self.shared.changed.notify_all();
        match fault {
            Fault::Refuse => self.cut(),
            Fault::HalfOpen => self.shared.each_link(Link::close_server),
            _ if before == Fault::HalfOpen => self.cut(),
            _ => {}
        }
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// Closes every connection that is open now.
    pub fn cut(&self) {
        self.shared.each_link(Link::close);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.heal();
        // The accepting thread sits in `accept`; a connection of our own wakes it.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
        let links = std::mem::take(&mut *self.shared.links());
        for pump in links.into_iter().flat_map(|link| link.pumps) {
            let _ = pump.join();
        }
    }
}

struct Shared {
    server: SocketAddr,
    fault: Mutex<Fault>,
    changed: Condvar,
    ended: AtomicBool,
    accepted: AtomicUsize,
    links: Mutex<Vec<Link>>,
}

/// One connection: its two ends, and the threads that carry bytes between them.
struct Link {
    client: TcpStream,
    server: Option<TcpStream>,
    pumps: Vec<JoinHandle<()>>,
}

impl Link {
    // A socket that its peer has closed already cannot be shut down; that is no matter.
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        self.close_server();
    }

    fn close_server(&self) {
        if let Some(server) = &self.server {
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each_link(&self, act: impl Fn(&Link)) {
        self.links().iter().for_each(act);
    }

    /// The fault as it stands, once it is no longer `Hold`.
    fn fault_after_hold(&self) -> Fault {
        let held = |fault: &mut Fault| *fault == Fault::Hold;
        *self.changed.wait_while(self.fault(), held).unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these bytes may pass before the connection is cut; `None` if it is not cut.
    fn take_budget(&self, side: Side, bytes: usize) -> Option<usize> {
        match &mut *self.fault() {
            Fault::CutAfter(cut, left) if *cut == side => {
                let allowed = bytes.min(*left);
                *left -= allowed;
                (allowed < bytes || *left == 0).then_some(allowed)
            }
            _ => None,
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(io::Result::ok) {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        // Dropping the client's socket is all that a failed connection to the server can do.
        if let Ok(link) = connect(client, shared) {
            let mut links = shared.links();
            links.retain(|link| link.pumps.iter().any(|pump| !pump.is_finished()));
            links.push(link);
        }
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) -> io::Result<Link> {
    let server = match *shared.fault() {
        Fault::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
        Fault::HalfOpen => None,
        _ => Some(TcpStream::connect(shared.server)?),
    };
    client.set_nodelay(true)?;
    let mut pumps = vec![pump(Side::ToServer, shared, client.try_clone()?, server.as_ref())?];
    if let Some(server) = &server {
        server.set_nodelay(true)?;
        pumps.push(pump(Side::FromServer, shared, server.try_clone()?, Some(&client))?);
    }
    Ok(Link { client, server, pumps })
}

fn pump(side: Side, shared: &Arc<Shared>, from: TcpStream, to: Option<&TcpStream>) -> io::Result<JoinHandle<()>> {
    let to = to.map(TcpStream::try_clone).transpose()?;
    let shared = Arc::clone(shared);
    spawn("proxy-pump", move || {
        // An error means that one end is closed, as does the end of the data.
        let _ = carry(side, &shared, &from, to.as_ref());
        if *shared.fault() == Fault::HalfOpen {
            return;
        }
        for end in [Some(&from), to.as_ref()].into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    })
}

fn carry(side: Side, shared: &Shared, mut from: &TcpStream, to: Option<&TcpStream>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let fault = shared.fault_after_hold();
        if let Fault::Delay(delay) = fault {
            thread::sleep(delay);
        }
        let (Some(mut to), false) = (to, fault == Fault::HalfOpen) else { continue };
        if let Some(allowed) = shared.take_budget(side, count) {
            return to.write_all(bytes.get(..allowed).unwrap_or_default());
        }
        to.write_all(bytes)?;
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::{Fault, Proxy, Side};
    use std::io::{self, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    /// A server that sends back what it gets, and a proxy in front of it.
    fn echo() -> Result<Proxy, Box<dyn std::error::Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        super::spawn("echo", move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                let _ = super::spawn("echo-one", move || drop(io::copy(&mut &stream, &mut &stream)));
            }
        })?;
        Ok(Proxy::start(port)?)
    }

    fn client(proxy: &Proxy) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
    }

    /// What a question meets that nobody answers.
    fn silence(client: &TcpStream, word: [u8; 4]) -> io::Result<io::ErrorKind> {
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        let met = ask(client, word).err().map_or(io::ErrorKind::Other, |error| error.kind());
        client.set_read_timeout(None)?;
        Ok(met)
    }

    fn ask(mut client: &TcpStream, word: [u8; 4]) -> io::Result<[u8; 4]> {
        client.write_all(&word)?;
        answer(client)
    }

    fn answer(mut client: &TcpStream) -> io::Result<[u8; 4]> {
        let mut said = [0; 4];
        client.read_exact(&mut said)?;
        Ok(said)
    }

    #[test]
    fn bytes_pass_and_late_ones_when_delayed() -> Tested {
        let proxy = echo()?;
        let client = client(&proxy)?;
        assert_eq!(ask(&client, *b"ping")?, *b"ping");
        proxy.set(Fault::Delay(Duration::from_millis(30)));
        let start = std::time::Instant::now();
        assert_eq!(ask(&client, *b"late")?, *b"late");
        assert!(start.elapsed() >= Duration::from_millis(60));
        Ok(())
    }

    #[test]
    fn held_bytes_arrive_when_the_fault_ends() -> Tested {
        let proxy = echo()?;
        let client = client(&proxy)?;
        proxy.set(Fault::Hold);
        assert_eq!(silence(&client, *b"held")?, io::ErrorKind::WouldBlock);
        proxy.heal();
        assert_eq!(answer(&client)?, *b"held");
        Ok(())
    }

    #[test]
    fn a_connection_is_cut_after_so_many_bytes() -> Tested {
        let proxy = echo()?;
        let first = client(&proxy)?;
        proxy.set(Fault::CutAfter(Side::FromServer, 6));
        assert_eq!(ask(&first, *b"fits")?, *b"fits");
        let mut rest = Vec::new();
        (&first).write_all(b"over")?;
        // The cut shows as an end or as a reset; what passed before it is two bytes in both cases.
        let _ = (&first).read_to_end(&mut rest);
        assert_eq!(rest, b"ov");
        proxy.heal();
        assert_eq!(ask(&client(&proxy)?, *b"next")?, *b"next");
        Ok(())
    }

    #[test]
    fn a_half_open_connection_is_silent_and_then_closed() -> Tested {
        let proxy = echo()?;
        let old = client(&proxy)?;
        assert_eq!(ask(&old, *b"ping")?, *b"ping");
        proxy.set(Fault::HalfOpen);
        let new = client(&proxy)?;
        for client in [&old, &new] {
            assert_eq!(silence(client, *b"lost")?, io::ErrorKind::WouldBlock);
        }
        proxy.heal();
        assert!(matches!((&old).read(&mut [0; 4]), Ok(0) | Err(_)));
        assert_eq!(ask(&client(&proxy)?, *b"next")?, *b"next");
        Ok(())
    }

    #[test]
    fn refused_connections_are_closed_at_once() -> Tested {
        let proxy = echo()?;
        let old = client(&proxy)?;
        assert_eq!(ask(&old, *b"ping")?, *b"ping");
        proxy.set(Fault::Refuse);
        assert!(ask(&old, *b"gone").is_err());
        assert!(ask(&client(&proxy)?, *b"gone").is_err());
        assert_eq!(proxy.accepted(), 2);
        Ok(())
    }
}
