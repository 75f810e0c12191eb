use std::net::{Ipv4Addr, Ipv6Addr};

/// Where a server is. tests/shared.rs plays the table of the clients of all languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host, a name or an address without brackets, and its port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(String),
    /// The name of a Unix socket in Linux's abstract namespace.
    UnixAbstract(String),
}

impl Target {
    /// Reads a target, or says what is wrong with it.
    pub(crate) fn parse(target: &str) -> Result<Self, String> {
        let lower = target.to_ascii_lowercase();
        if lower.starts_with("http:") || lower.starts_with("https:") {
            // It isn't shown: web addresses may hold passwords.
            return Err("the target is a web address: give host:port, without http".to_owned());
        }
        let found = match target.split_once(':') {
            Some(("dns", rest)) => host_and_port(rest.strip_prefix("///").unwrap_or(rest)),
            Some(("unix", rest)) => path(rest).map(Self::Unix),
            Some(("unix-abstract", rest)) => Some(rest.to_owned()).filter(|name| is_path(name)).map(Self::UnixAbstract),
            _ => host_and_port(target),
        };
        found.ok_or_else(|| {
            // What holds an @ may hold a password.
            let shown = if target.contains('@') { "the target".to_owned() } else { format!("target {target:?}") };
            format!(
                "{shown} is not an address that this client can connect to: give host:port with a port from 1 to 65535, \
                 [address]:port for IPv6, or unix:path"
            )
        })
    }

    /// Whether it is this machine by its name alone, so that it needs no TLS.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(host, _) => {
                host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost")
                    || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
                    || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
            }
            Self::Unix(_) | Self::UnixAbstract(_) => true,
        }
    }

    /// The host and port as a web address has them.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tcp(host, port) if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]:{port}"),
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Unix(_) | Self::UnixAbstract(_) => "localhost".to_owned(),
        }
    }
}

fn host_and_port(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(|_| address)?,
        None => Some(host).filter(|host| !host.is_empty() && host.bytes().all(is_of_name))?,
    };
    // No sign, and no zeros before it.
    let number = port.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == port)?;
    Some(Target::Tcp(host.to_owned(), number))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The path of a Unix socket, with two slashes before an absolute one or none.
fn path(text: &str) -> Option<String> {
    let path = text.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(text);
    is_path(path).then(|| path.to_owned())
}

fn is_path(text: &str) -> bool {
    !text.trim_start_matches('/').is_empty() && !text.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn parts_of_a_target() {
        for (text, target, authority) in [
            ("[::1]:5", Target::Tcp("::1".into(), 5), "[::1]:5"),
            ("dns:///agenta.example:443", Target::Tcp("agenta.example".into(), 443), "agenta.example:443"),
            ("unix:///run/s", Target::Unix("/run/s".into()), "localhost"),
            ("unix:s", Target::Unix("s".into()), "localhost"),
        ] {
            let parsed = Target::parse(text).unwrap();
            assert_eq!((parsed.authority().as_str(), parsed), (authority, target));
        }
    }
}
