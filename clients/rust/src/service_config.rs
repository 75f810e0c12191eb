//! What `service_config.json` says, the file that the clients of all languages share. tonic knows no service config, so neither
//! an option nor a record in the DNS can replace this one.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tonic::Code;

use crate::connection::CALL_TOOL;
use crate::typed::is_typed;

const FILE: &str = include_str!("service_config.json");

/// How a call is sent again if the server is unavailable, or the connection breaks, or the server stops before it has begun,
/// which comes as CANCELLED. A call of a tool keeps its `request_id` then, so that the server runs it once.
#[derive(Debug)]
pub(crate) struct RetryPolicy {
    method: String,
    pub(crate) max_attempts: u64,
    initial_backoff: Duration,
    max_backoff: Duration,
    multiplier: f64,
    codes: Vec<String>,
}

impl RetryPolicy {
    /// The one of a method, such as `/agenta.ai.v1.ToolService/CallTool`, which also holds for those that tools have of their
    /// own.
    pub(crate) fn of(path: &str) -> Option<&'static Self> {
        static POLICIES: LazyLock<Vec<RetryPolicy>> = LazyLock::new(read);
        let method = if is_typed(path) { CALL_TOOL } else { path };
        POLICIES.iter().find(|policy| policy.method == method)
    }

    pub(crate) fn repeats(&self, code: Code) -> bool {
        self.codes.iter().any(|name| match name.as_str() {
            "UNAVAILABLE" => code == Code::Unavailable,
            "CANCELLED" => code == Code::Cancelled,
            _ => false,
        })
    }

    /// The time before the attempt after so many, give or take a fifth.
    pub(crate) fn backoff(&self, attempts: u64) -> Duration {
        let exponent = i32::try_from(attempts - 1).unwrap_or(i32::MAX);
        let backoff = self.initial_backoff.as_secs_f64() * self.multiplier.powi(exponent);
        Duration::from_secs_f64(backoff.min(self.max_backoff.as_secs_f64()) * (0.8 + 0.4 * fastrand::f64()))
    }
}

fn read() -> Vec<RetryPolicy> {
    let config: Value = serde_json::from_str(FILE).expect("service_config.json is JSON");
    let methods = config["methodConfig"].as_array().expect("it has methodConfig");
    methods.iter().flat_map(|method| list(&method["name"]).map(|name| policy(name, &method["retryPolicy"]))).collect()
}

fn policy(name: &Value, policy: &Value) -> RetryPolicy {
    RetryPolicy {
        method: format!("/{}/{}", text(&name["service"]), text(&name["method"])),
        max_attempts: policy["maxAttempts"].as_u64().expect("maxAttempts is a number"),
        initial_backoff: seconds(&policy["initialBackoff"]),
        max_backoff: seconds(&policy["maxBackoff"]),
        multiplier: policy["backoffMultiplier"].as_f64().expect("backoffMultiplier is a number"),
        codes: list(&policy["retryableStatusCodes"]).map(|code| text(code).to_owned()).collect(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("it is a text")
}

fn seconds(value: &Value) -> Duration {
    let seconds = text(value).strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs_f64(seconds.expect("it is a number of seconds"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::RetryPolicy;

    #[test]
    fn is_read() {
        for (method, attempts) in [("Status", 4), ("ListTools", 4), ("CallTool", 5), ("CallToolStream", 5)] {
            let policy = RetryPolicy::of(&format!("/agenta.ai.v1.ToolService/{method}")).unwrap();
            assert_eq!(policy.max_attempts, attempts);
            assert_eq!(policy.codes, ["UNAVAILABLE", "CANCELLED"]);
            assert!(policy.repeats(Code::Unavailable) && policy.repeats(Code::Cancelled));
            assert!(!policy.repeats(Code::Internal));
            for (attempt, millis) in [(1, 100), (2, 200), (3, 400), (60, 2000)] {
                let backoff = policy.backoff(attempt);
                assert!(backoff >= Duration::from_millis(millis * 8 / 10), "{attempt}: {backoff:?}");
                assert!(backoff <= Duration::from_millis(millis * 12 / 10), "{attempt}: {backoff:?}");
            }
        }
        assert!(RetryPolicy::of("/agenta.ai.v1.ToolService/Other").is_none());
    }
}
