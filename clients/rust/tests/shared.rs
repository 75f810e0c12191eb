//! What the clients of all languages have in common: files of the repository, which the package doesn't have.

use std::fs::read_to_string;

use serde_json::Value;
use target::Target;

#[allow(dead_code, reason = "only what names a target is played")]
#[path = "../src/target.rs"]
mod target;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");

#[test]
fn service_config_is_that_of_all_clients() {
    let shared = read_to_string(format!("{ROOT}client/agenta_ai/service_config.json")).unwrap();
    assert_eq!(shared, include_str!("../src/service_config.json"));
}

#[test]
fn targets_are_as_the_table_says() {
    let table = read_to_string(format!("{ROOT}tests/conformance/targets.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&table).unwrap();
    assert!(rows.len() > 80, "{}", rows.len());
    for row in rows {
        let target = row["target"].as_str().unwrap();
        let supported = row["clients"].as_array().is_none_or(|clients| clients.iter().any(|client| client == "rust"));
        let kind = match Target::parse(target) {
            Ok(target) if target.is_local() => "local",
            Ok(_) => "remote",
            Err(said) => {
                let shown = !target.contains('@') && !target.to_lowercase().starts_with("http");
                assert!(said.contains(": give host:port") && !said.contains("secret"), "{said}");
                assert!(!shown || said.contains(&format!("{target:?}")), "{said}");
                "error"
            }
        };
        assert_eq!(kind, if supported { row["kind"].as_str().unwrap() } else { "error" }, "{target}");
    }
}
