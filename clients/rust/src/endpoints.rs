//! The addresses of a target, each with a connection of its own, as gRPC's `round_robin` has them. `Channel::balance_channel` of
//! tonic takes no connector, and prefers addresses that are dead, because these have nothing to do.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use tower::ServiceExt;

use crate::connection::{lost, unreachable};
use crate::credentials::BoxError;
use crate::errors::ConfigError;
use crate::outcome::Failure;
use crate::target::Target;

/// How long the addresses of a name are good for.
const REFRESH: Duration = Duration::from_secs(30);
/// How long an address that couldn't be reached is left alone while there are others.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to a target: its addresses are looked up again and again, and calls go to one after the other.
pub(crate) struct Endpoints {
    target: Target,
    endpoint: Endpoint,
    plaintext: bool,
    proxy: Option<Intercept>,
    known: Mutex<Known>,
    /// An attempt to connect has ended.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    routes: Vec<Route>,
    looked_up: Option<Instant>,
    next: usize,
}

/// One way to the target.
struct Route {
    /// None: not an address of ours, but a socket or what a proxy leads to.
    address: Option<SocketAddr>,
    state: State,
}

enum State {
    Idle,
    Connecting,
    Ready(Arc<Channel>),
    Down { until: Instant, error: Arc<TransportError> },
}

enum Turn {
    Ready(Arc<Channel>),
    Connecting,
    Down(Arc<TransportError>),
    NoAddress,
}

impl Endpoints {
    /// Takes the endpoint with all its options, TLS among them unless it is to be in plaintext.
    pub(crate) fn new(target: Target, endpoint: Endpoint, plaintext: bool) -> Result<Self, ConfigError> {
        let proxy = proxy(&target, &endpoint, &Matcher::from_env())?;
        Ok(Self { target, endpoint, plaintext, proxy, known: Mutex::default(), changed: Notify::new() })
    }

    /// The next connection in turn, of those that are there. Waits for the first.
    pub(crate) async fn next(self: &Arc<Self>) -> Result<Arc<Channel>, Failure> {
        if self.refresh() {
            self.look_up().await?;
        }
        let mut again = true;
        loop {
            let changed = self.changed.notified();
            match self.turn(again) {
                Turn::Ready(channel) => return Ok(channel),
                Turn::Connecting => {
                    changed.await;
                    // Lets a runtime that is shutting down end this.
                    yield_now().await;
                }
                Turn::Down(error) => return Err(self.unreachable(error)),
                Turn::NoAddress => return Err(unresolved(&self.target, "it has no addresses").into()),
            }
            again = false;
        }
    }

    /// Forgets a connection that was lost. Returns how many addresses there are.
    pub(crate) fn lost(&self, channel: &Arc<Channel>) -> usize {
        let mut known = self.known();
        for route in &mut known.routes {
            if matches!(&route.state, State::Ready(ready) if Arc::ptr_eq(ready, channel)) {
                route.state = State::Idle;
            }
        }
        known.routes.len()
    }

    /// Drops the connections.
    pub(crate) fn close(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks the addresses up in the background when it is time to. Returns whether there are none yet.
    fn refresh(self: &Arc<Self>) -> bool {
        let mut known = self.known();
        if known.routes.is_empty() {
            return true;
        }
        let now = Instant::now();
        if known.looked_up.is_none_or(|at| now > at + REFRESH) {
            known.looked_up = Some(now);
            let endpoints = self.clone();
            // What was found before is good enough meanwhile, and if this finds nothing.
            tokio::spawn(async move { endpoints.look_up().await.ok() });
        }
        false
    }

    /// Connects to the addresses that aren't known to be dead, and chooses a connection that is there. If all addresses are
    /// dead, they may be tried `again` at once.
    fn turn(self: &Arc<Self>, again: bool) -> Turn {
        let mut known = self.known();
        let now = Instant::now();
        let all_down = known.routes.iter().all(|route| route.is_down(now));
        let mut due = Vec::new();
        for route in &mut known.routes {
            let is_due = match route.state {
                State::Idle => true,
                State::Down { .. } => !route.is_down(now) || (all_down && again),
                State::Connecting | State::Ready(_) => false,
            };
            if is_due {
                route.state = State::Connecting;
                due.push(route.address);
            }
        }
        let (first, count) = (known.next, known.routes.len());
        let mut found = Turn::NoAddress;
        for turn in (0..count).map(|turn| (first + turn) % count) {
            match &known.routes[turn].state {
                State::Ready(channel) => {
                    found = Turn::Ready(channel.clone());
                    known.next = turn + 1;
                    break;
                }
                State::Down { error, .. } if !matches!(found, Turn::Connecting) => found = Turn::Down(error.clone()),
                State::Down { .. } => {}
                State::Idle | State::Connecting => found = Turn::Connecting,
            }
        }
        // A runtime that is shutting down drops what it is to spawn, which needs the lock.
        drop(known);
        for address in due {
            self.begin(address);
        }
        found
    }

    /// Connects in the background, so that a call that is cancelled or has another connection to use doesn't matter.
    fn begin(self: &Arc<Self>, address: Option<SocketAddr>) {
        let connecting = Connecting { endpoints: self.clone(), address };
        tokio::spawn(async move {
            let outcome = connecting.endpoints.connect(address).await;
            connecting.end(match outcome {
                Ok(channel) => State::Ready(Arc::new(channel)),
                Err(error) => State::Down { until: Instant::now() + PAUSE, error: Arc::new(error) },
            });
        });
    }

    async fn look_up(&self) -> Result<(), Failure> {
        let addresses = self.addresses().await?;
        self.keep(addresses);
        Ok(())
    }

    /// Drops the ways to other addresses than these, and adds those that are missing.
    fn keep(&self, addresses: Vec<Option<SocketAddr>>) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut known.routes);
        for address in addresses {
            let route = match before.iter().position(|route| route.address == address) {
                Some(kept) => before.swap_remove(kept),
                None => Route { address, state: State::Idle },
            };
            known.routes.push(route);
        }
        known.looked_up = Some(Instant::now());
    }

    async fn addresses(&self) -> Result<Vec<Option<SocketAddr>>, Failure> {
        let (Target::Tcp(host, port), None) = (&self.target, &self.proxy) else {
            return Ok(vec![None]);
        };
        let found = lookup_host((host.as_str(), *port)).await.map_err(|error| Failure {
            status: unresolved(&self.target, &error.to_string()),
            source: Some(error.into()),
        })?;
        let mut addresses: Vec<_> = found.collect();
        addresses.dedup();
        // Whatever a name may resolve to.
        if self.plaintext && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(Status::unavailable(
                "The target leads to another machine, to which nothing is sent in plaintext: use TLS",
            )
            .into());
        }
        Ok(addresses.into_iter().map(Some).collect())
    }

    async fn connect(&self, address: Option<SocketAddr>) -> Result<Channel, TransportError> {
        match (address, &self.target, &self.proxy) {
            (Some(address), ..) => self.open(tcp(address)).await,
            (None, _, Some(proxy)) => self.open(tunnel(proxy.clone(), self.endpoint.clone())).await,
            (None, target, None) => self.open(socket(target.clone())).await,
        }
    }

    /// Opens one connection. tonic's channel would open others, but makes its calls wait for these one after the other.
    async fn open<T, F>(&self, connected: F) -> Result<Channel, TransportError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Result<TokioIo<T>, BoxError>> + Send + 'static,
    {
        let mut connected = Some(connected);
        let once = tower::service_fn(move |_| {
            let connected = connected.take();
            async move { connected.ok_or("the connection was closed")?.await }
        });
        self.endpoint.connect_with_connector(once).await
    }

    fn unreachable(&self, error: Arc<TransportError>) -> Failure {
        let Some(proxy) = self.proxy.as_ref().map(Intercept::uri) else {
            return lost(Box::new(error), false);
        };
        let port = proxy.port().map_or_else(String::new, |port| format!(":{port}"));
        unreachable(Box::new(error), &format!("{}{port}", proxy.host().unwrap_or_default()))
    }
}

impl Route {
    fn is_down(&self, now: Instant) -> bool {
        matches!(self.state, State::Down { until, .. } if now < until)
    }
}

/// An attempt to connect. Its end is noticed even if its runtime ends first.
struct Connecting {
    endpoints: Arc<Endpoints>,
    address: Option<SocketAddr>,
}

impl Connecting {
    fn end(&self, state: State) {
        let mut known = self.endpoints.known();
        if matches!(state, State::Down { .. }) {
            // It may have moved.
            known.looked_up = None;
        }
        let connecting = |route: &&mut Route| route.address == self.address && matches!(route.state, State::Connecting);
        if let Some(route) = known.routes.iter_mut().find(connecting) {
            route.state = state;
        }
        drop(known);
        self.endpoints.changed.notify_waiters();
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.end(State::Idle);
    }
}

async fn tcp(address: SocketAddr) -> Result<TokioIo<TcpStream>, BoxError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

async fn tunnel(proxy: Intercept, endpoint: Endpoint) -> Result<TokioIo<TcpStream>, BoxError> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
    if let Some(secret) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(secret.clone());
    }
    Ok(tunnel.oneshot(endpoint.uri().clone()).await?)
}

/// The proxy that the environment names for a target on another machine: `HTTPS_PROXY`, `ALL_PROXY`, and `NO_PROXY`.
fn proxy(target: &Target, endpoint: &Endpoint, environment: &Matcher) -> Result<Option<Intercept>, ConfigError> {
    if target.is_local() {
        return Ok(None);
    }
    let found = environment.intercept(endpoint.uri());
    match found.as_ref().and_then(|proxy| proxy.uri().scheme_str()) {
        None | Some("http") => Ok(found),
        Some(scheme) => Err(ConfigError::new(format!(
            "HTTPS_PROXY names a proxy of the kind {scheme}, and only http is possible: change it, or add the target to NO_PROXY"
        ))),
    }
}

#[cfg(unix)]
async fn socket(target: Target) -> Result<TokioIo<tokio::net::UnixStream>, BoxError> {
    use tokio::net::UnixStream;

    let stream = match target {
        #[cfg(target_os = "linux")]
        Target::UnixAbstract(name) => {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixStream as Blocking};

            // A socket on this machine doesn't block: it connects or fails.
            let stream = Blocking::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)?
        }
        Target::Unix(path) => UnixStream::connect(path).await?,
        other => return Err(unsupported(&other)),
    };
    Ok(TokioIo::new(stream))
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "as on Unix")]
async fn socket(target: Target) -> Result<TokioIo<TcpStream>, BoxError> {
    Err(unsupported(&target))
}

fn unsupported(target: &Target) -> BoxError {
    io::Error::new(io::ErrorKind::Unsupported, format!("{target:?} isn't possible here")).into()
}

fn unresolved(target: &Target, why: &str) -> Status {
    Status::unavailable(format!("cannot find the addresses of {}: {why}", target.authority()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpSocket};
    use tonic::transport::{Channel, Endpoint};

    use super::{Endpoints, PAUSE, REFRESH, State, Turn, proxy};
    use crate::errors::ConfigError;
    use crate::target::Target;

    type Address = Option<SocketAddr>;

    /// Begins to connect to nowhere, so that a test says when an address is there.
    fn endpoints(addresses: &[Address]) -> Arc<Endpoints> {
        let target = Target::parse("127.0.0.1:1").unwrap();
        let endpoints = Endpoints::new(target, Endpoint::from_static("http://127.0.0.1:1"), true).unwrap();
        endpoints.keep(addresses.to_vec());
        Arc::new(endpoints)
    }

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, Some(address))
    }

    /// A socket that refuses connections until it listens, and its address, which nobody else can take.
    fn nobody() -> (TcpSocket, Address) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, Some(address))
    }

    async fn next(endpoints: &Arc<Endpoints>) -> Arc<Channel> {
        endpoints.next().await.ok().unwrap()
    }

    fn set(endpoints: &Endpoints, address: Address, state: State) {
        endpoints.known().routes.iter_mut().find(|route| route.address == address).unwrap().state = state;
    }

    /// Whether there is a connection to an address.
    fn is_ready(endpoints: &Endpoints, address: Address) -> bool {
        endpoints.known().routes.iter().any(|route| route.address == address && matches!(route.state, State::Ready(_)))
    }

    async fn ready(endpoints: &Arc<Endpoints>, addresses: &[Address]) {
        while !addresses.iter().all(|address| is_ready(endpoints, *address)) {
            let changed = endpoints.changed.notified();
            endpoints.turn(true);
            if !addresses.iter().all(|address| is_ready(endpoints, *address)) {
                changed.await;
            }
        }
    }

    #[tokio::test]
    async fn calls_take_turns() {
        let ((_first, first), (_second, second)) = (listener().await, listener().await);
        let endpoints = endpoints(&[first, second]);
        ready(&endpoints, &[first, second]).await;
        let (one, other) = (next(&endpoints).await, next(&endpoints).await);
        assert!(!Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(&one, &next(&endpoints).await));
        assert!(Arc::ptr_eq(&other, &next(&endpoints).await));
    }

    #[tokio::test]
    async fn calls_do_not_wait_for_an_address_that_does_not_answer() {
        let ((_there, there), (_silent, silent)) = (listener().await, listener().await);
        let endpoints = endpoints(&[silent, there]);
        set(&endpoints, silent, State::Connecting);
        let first = next(&endpoints).await;
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&first, &next(&endpoints).await));
        }
    }

    #[tokio::test]
    async fn dead_addresses_are_left_alone_for_a_while() {
        let ((_there, there), (_nobody, dead)) = (listener().await, nobody());
        let endpoints = endpoints(&[dead, there]);
        ready(&endpoints, &[there]).await;
        let is_down = || matches!(endpoints.known().routes[0].state, State::Down { .. });
        while !is_down() {
            tokio::task::yield_now().await;
        }
        assert!(endpoints.known().looked_up.is_none(), "it may have moved");
        assert!(matches!(endpoints.turn(true), Turn::Ready(_)) && is_down());
        tokio::time::pause();
        tokio::time::advance(PAUSE).await;
        assert!(matches!(endpoints.turn(true), Turn::Ready(_)) && !is_down());
    }

    #[tokio::test]
    async fn addresses_are_tried_again_if_all_are_dead() {
        let (socket, dead) = nobody();
        let endpoints = endpoints(&[dead]);
        assert!(endpoints.next().await.is_err());
        endpoints.keep(vec![dead]); // or it is looked up
        let _there = socket.listen(1).unwrap();
        next(&endpoints).await;
    }

    #[tokio::test]
    async fn connections_that_were_lost_are_replaced() {
        let (_there, there) = listener().await;
        let endpoints = endpoints(&[there]);
        let first = next(&endpoints).await;
        assert_eq!(endpoints.lost(&first), 1);
        let second = next(&endpoints).await;
        endpoints.lost(&first);
        assert!(!Arc::ptr_eq(&first, &second) && is_ready(&endpoints, there));
    }

    fn by_proxy(address: &str) -> Result<Arc<Endpoints>, ConfigError> {
        let target = Target::parse("agenta.example:443").unwrap();
        let endpoint = Endpoint::from_static("http://agenta.example:443");
        let proxy = proxy(&target, &endpoint, &Matcher::builder().all(address).build())?;
        Ok(Arc::new(Endpoints { proxy, ..Endpoints::new(target, endpoint, false)? }))
    }

    #[tokio::test]
    async fn proxies_are_asked_for_a_tunnel() {
        let (listener, address) = listener().await;
        let endpoints = by_proxy(&format!("http://user:secret@{}", address.unwrap())).unwrap();
        let asked = tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut head = String::new();
            while stream.read_line(&mut head).await.unwrap() > 2 {}
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            (head, stream)
        });
        next(&endpoints).await;
        let (head, _stream) = asked.await.unwrap();
        assert!(head.starts_with("CONNECT agenta.example:443 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{head}");
    }

    #[tokio::test]
    async fn proxies_that_cannot_be_used() {
        let (_nobody, address) = nobody();
        let address = address.unwrap();
        let failure = by_proxy(&format!("http://user:secret@{address}")).unwrap().next().await.err().unwrap();
        let said = failure.status.message();
        assert!(said.starts_with(&format!("no connection through the proxy {address} of HTTPS_PROXY")), "{said}");
        assert!(!said.contains("secret") && !said.contains("agenta-ai-server"), "{said}");
        let error = by_proxy("socks5://user:secret@127.0.0.1:1").err().unwrap().to_string();
        assert!(error.contains("of the kind socks5") && !error.contains("secret"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_looked_up_again() {
        let (_there, there) = listener().await;
        let endpoints = endpoints(&[there]);
        tokio::time::advance(REFRESH * 2).await;
        let begun = tokio::time::Instant::now();
        assert!(!endpoints.refresh());
        assert_eq!(endpoints.known().looked_up, Some(begun), "once is enough");
        endpoints.look_up().await.ok().unwrap();
        let known: Vec<_> = endpoints.known().routes.iter().map(|route| route.address).collect();
        assert_eq!(known, [Some(([127, 0, 0, 1], 1).into())]);
    }
}
