use std::net::{Ipv4Addr, Ipv6Addr};

use crate::errors::ConfigError;

/// Where a server is: the same table for the clients of all languages, tests/conformance/targets.json.
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
    pub(crate) fn parse(target: &str) -> Result<Self, ConfigError> {
        let lower = target.to_ascii_lowercase();
        if lower.starts_with("http:") || lower.starts_with("https:") {
            // It isn't shown: web addresses may hold passwords.
            return Err(ConfigError::new("the target is a web address: give host:port, without http".to_owned()));
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
            ConfigError::new(format!(
                "{shown} is not an address that this client can connect to: give host:port with a port from 1 to 65535, \
                 [address]:port for IPv6, or unix:path"
            ))
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
    use serde_json::Value;

    use super::Target;

    #[test]
    fn targets_are_as_the_table_says() {
        // The folder of all clients isn't part of the package.
        let table = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/targets.json");
        let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(table).unwrap()).unwrap();
        for row in rows {
            let target = row["target"].as_str().unwrap();
            let clients = row["clients"].as_array();
            let kind = match Target::parse(target) {
                Ok(target) if target.is_local() => "local",
                Ok(_) => "remote",
                Err(error) => {
                    let said = error.to_string();
                    let shown = !target.contains('@') && !target.to_lowercase().starts_with("http");
                    assert!(said.contains(": give host:port"), "{said}");
                    assert!(!shown || said.contains(&format!("{target:?}")), "{said}");
                    assert!(!said.contains("secret"), "{said}");
                    "error"
                }
            };
            let supported = clients.is_none_or(|names| names.iter().any(|name| name == "rust"));
            assert_eq!(if supported { row["kind"].as_str().unwrap() } else { "error" }, kind, "{target}");
        }
    }

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
