//! The addresses of a target, each with a channel of its own. `Channel::balance_channel` of tonic takes no connector, and
//! prefers addresses that are dead, because these have nothing to do.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

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
}

#[derive(Default)]
struct Known {
    routes: Vec<Route>,
    looked_up: Option<Instant>,
    next: usize,
}

/// One way to the target, which a call can take.
#[derive(Clone)]
pub(crate) struct Route {
    /// None: not an address of ours, but a socket or what a proxy leads to.
    address: Option<SocketAddr>,
    channel: Channel,
    down: Option<Instant>,
}

impl Route {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn is_down(&self, now: Instant) -> bool {
        self.down.is_some_and(|until| now < until)
    }
}

impl Endpoints {
    /// Takes the endpoint with all its options, TLS among them unless it is to be in plaintext.
    pub(crate) fn new(target: Target, endpoint: Endpoint, plaintext: bool) -> Result<Self, ConfigError> {
        let proxy = proxy(&target, &endpoint)?;
        Ok(Self { target, endpoint, plaintext, proxy, known: Mutex::default() })
    }

    /// The next way in turn, of those that aren't known to be dead.
    pub(crate) async fn next(self: &Arc<Self>) -> Result<Route, Failure> {
        let (route, stale) = self.turn();
        let Some(route) = route else {
            self.look_up().await?;
            return self.turn().0.ok_or_else(|| unresolved(&self.target, "it has no addresses").into());
        };
        if stale {
            let endpoints = self.clone();
            // What was found before is good enough meanwhile, and if this finds nothing.
            tokio::spawn(async move { endpoints.look_up().await.ok() });
        }
        Ok(route)
    }

    /// Leaves an address alone for a while, because a connection to it failed. Returns whether there are others.
    pub(crate) fn failed(&self, route: &Route) -> bool {
        let mut known = self.known();
        let now = Instant::now();
        for each in known.routes.iter_mut().filter(|each| each.address == route.address) {
            each.down = Some(now + PAUSE);
        }
        // It may have moved.
        known.looked_up = None;
        known.routes.iter().any(|each| !each.is_down(now))
    }

    /// Drops the connections.
    pub(crate) fn close(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way, and whether it is time to look for others.
    fn turn(&self) -> (Option<Route>, bool) {
        let mut known = self.known();
        let now = Instant::now();
        let stale = known.looked_up.is_none_or(|at| now > at + REFRESH);
        if stale {
            known.looked_up = Some(now);
        }
        let count = known.routes.len();
        let turns = (0..count).map(|turn| (known.next + turn) % count);
        let found = turns.clone().find(|turn| !known.routes[*turn].is_down(now)).or(turns.clone().next());
        if let Some(found) = found {
            known.next = found + 1;
        }
        (found.map(|found| known.routes[found].clone()), stale)
    }

    async fn look_up(&self) -> Result<(), Failure> {
        let addresses = self.addresses().await?;
        self.keep(addresses);
        Ok(())
    }

    /// Drops the ways to other addresses than these, and makes those that are missing.
    fn keep(&self, addresses: Vec<Option<SocketAddr>>) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut known.routes);
        for address in addresses {
            let route = match before.iter().position(|route| route.address == address) {
                Some(kept) => before.swap_remove(kept),
                None => Route { address, channel: self.connect(address), down: None },
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

    /// Must be called in a runtime of Tokio.
    fn connect(&self, address: Option<SocketAddr>) -> Channel {
        match (address, &self.target, &self.proxy) {
            (Some(address), ..) => self.endpoint.connect_with_connector_lazy(tower::service_fn(move |_| async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            })),
            (None, _, Some(proxy)) => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
                if let Some(secret) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(secret.clone());
                }
                self.endpoint.connect_with_connector_lazy(tunnel)
            }
            (None, target, None) => {
                let target = target.clone();
                self.endpoint.connect_with_connector_lazy(tower::service_fn(move |_| socket(target.clone())))
            }
        }
    }
}

/// The proxy that the environment names for a target on another machine: `HTTPS_PROXY`, `ALL_PROXY`, and `NO_PROXY`.
fn proxy(target: &Target, endpoint: &Endpoint) -> Result<Option<Intercept>, ConfigError> {
    if target.is_local() {
        return Ok(None);
    }
    let found = Matcher::from_env().intercept(endpoint.uri());
    match found.as_ref().and_then(|proxy| proxy.uri().scheme_str()) {
        None | Some("http") => Ok(found),
        Some(scheme) => Err(ConfigError::new(format!(
            "HTTPS_PROXY names a proxy of the kind {scheme}, and only http is possible: change it, or add the target to NO_PROXY"
        ))),
    }
}

#[cfg(unix)]
async fn socket(target: Target) -> io::Result<TokioIo<tokio::net::UnixStream>> {
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
        other => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{other:?} isn't possible here"))),
    };
    Ok(TokioIo::new(stream))
}

#[cfg(not(unix))]
async fn socket(target: Target) -> io::Result<TokioIo<TcpStream>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("{target:?} isn't possible here")))
}

fn unresolved(target: &Target, why: &str) -> Status {
    Status::unavailable(format!("cannot find the addresses of {}: {why}", target.authority()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use tonic::transport::Endpoint;

    use super::{Endpoints, PAUSE, REFRESH};
    use crate::target::Target;

    fn addresses(ports: &[u16]) -> Vec<Option<SocketAddr>> {
        ports.iter().map(|port| Some(([127, 0, 0, 1], *port).into())).collect()
    }

    fn endpoints(ports: &[u16]) -> Arc<Endpoints> {
        let target = Target::parse("127.0.0.1:1").unwrap();
        let endpoints = Endpoints::new(target, Endpoint::from_static("http://127.0.0.1:1"), true).unwrap();
        endpoints.keep(addresses(ports));
        Arc::new(endpoints)
    }

    async fn turns(endpoints: &Arc<Endpoints>, count: usize) -> Vec<u16> {
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(endpoints.next().await.ok().unwrap().address.unwrap().port());
        }
        ports
    }

    #[tokio::test]
    async fn calls_take_turns() {
        assert_eq!(turns(&endpoints(&[1, 2, 3]), 6).await, [1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn dead_addresses_are_left_alone_for_a_while() {
        let endpoints = endpoints(&[1, 2]);
        let first = endpoints.next().await.ok().unwrap();
        assert!(endpoints.failed(&first));
        assert!(endpoints.known().looked_up.is_none(), "it may have moved");
        endpoints.keep(addresses(&[1, 2]));
        assert_eq!(turns(&endpoints, 2).await, [2, 2]);
        let second = endpoints.next().await.ok().unwrap();
        assert!(!endpoints.failed(&second), "no other is left");
        endpoints.keep(addresses(&[1, 2]));
        tokio::time::advance(PAUSE).await;
        let mut both = turns(&endpoints, 2).await;
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_looked_up_again() {
        let endpoints = endpoints(&[8, 9]);
        assert!(!endpoints.turn().1);
        tokio::time::advance(REFRESH * 2).await;
        assert!(endpoints.turn().1);
        // Once is enough.
        assert!(!endpoints.turn().1);
        endpoints.look_up().await.ok().unwrap();
        assert_eq!(turns(&endpoints, 2).await, [1, 1]);
    }
}
