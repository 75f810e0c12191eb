use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
        if let Some(name) = target.strip_prefix("unix-abstract:").filter(|name| !name.is_empty()) {
            return Ok(Self::UnixAbstract(name.to_owned()));
        }
        if let Some(path) = target.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).to_owned()));
        }
        let lower = target.to_ascii_lowercase();
        if lower.starts_with("http:") || lower.starts_with("https:") {
            // It isn't shown: web addresses may hold passwords.
            return Err(ConfigError::new(
                "the target is a web address: write it as host:port, without http".to_owned(),
            ));
        }
        host_and_port(target.strip_prefix("dns:///").unwrap_or(target)).ok_or_else(|| {
            // What holds an @ may hold a password.
            let shown = if target.contains('@') { String::new() } else { format!(" {target:?}") };
            ConfigError::new(format!(
                "target{shown} is neither host:port nor unix:path. Write an IPv6 address as [address]:port"
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
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match inner {
        Some(address) => address.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6).map(|_| address)?,
        None => host,
    };
    let named = inner.is_some() || !host.contains(|character: char| ":/[]@?#".contains(character));
    let visible = !host.is_empty() && host.chars().all(|character| character.is_ascii_graphic());
    let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    (named && visible).then(|| Target::Tcp(host.to_owned(), port))
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
            let kind = match Target::parse(target) {
                Ok(target) if target.is_local() => "local",
                Ok(_) => "remote",
                Err(_) => "error",
            };
            assert_eq!(row["kind"], kind, "{target}");
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
        for target in ["https://user:secret@10.0.0.1", "user:secret@10.0.0.1:1"] {
            let shown = Target::parse(target).unwrap_err().to_string();
            assert!(shown.contains("host:port") && !shown.contains("secret"), "{shown}");
        }
        for text in ["user@10.0.0.1:1", "a:70000", "a:+1", "a b:1", "unix:", "[localhost]:1"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
