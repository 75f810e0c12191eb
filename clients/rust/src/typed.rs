//! The methods that call tools: those that tools have of their own, of code that was generated from the files of
//! `agenta-ai-server tools proto`, and those of the contract.

use prost::Message;
use tonic::codegen::Bytes;
use uuid::Uuid;

use crate::connection::{CALL_TOOL, CALL_TOOL_STREAM, PREFIX_BYTES};

/// What their paths begin with.
const PREFIX: &str = "/agenta.ai.tools.";

/// What the requests of all tools have in common.
#[derive(Clone, PartialEq, Message)]
struct Typed {
    #[prost(string, tag = "2")]
    request_id: String,
}

/// What `CallToolRequest` and `CallToolStreamRequest` have in common.
#[derive(Clone, PartialEq, Message)]
struct Generic {
    #[prost(string, tag = "3")]
    request_id: String,
}

/// Whether a tool has this method of its own.
pub(crate) fn is_typed(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// A request as it is sent, with a new `request_id` if it calls a tool and has none: such calls are sent again. A field that is
/// appended to a message is part of it.
pub(crate) fn named(path: &str, framed: Bytes) -> Bytes {
    let Some((&[compressed @ 0, ..], message)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return framed; // compressed, or no message
    };
    let request_id = Uuid::new_v4().to_string();
    let (named, name) = match path {
        _ if is_typed(path) => {
            (Typed::decode(message).map(|typed| typed.request_id), Typed { request_id }.encode_to_vec())
        }
        CALL_TOOL | CALL_TOOL_STREAM => {
            (Generic::decode(message).map(|generic| generic.request_id), Generic { request_id }.encode_to_vec())
        }
        _ => return framed,
    };
    if named.is_ok_and(|request_id| !request_id.is_empty()) {
        return framed;
    }
    let Ok(size) = u32::try_from(message.len() + name.len()) else {
        return framed;
    };
    [&[compressed], &size.to_be_bytes()[..], message, &name].concat().into()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{Generic, Typed, is_typed, named};
    use crate::connection::CALL_TOOL;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn requests_are_named_once() {
        let other = [0x0a, 0x01, 0x78]; // field 1
        let typed = "/agenta.ai.tools.acme.v1.X/Y";
        for path in [typed, CALL_TOOL] {
            let sent = named(path, framed(&other).into());
            assert_eq!(sent[..5], framed(&[0; 41])[..5]);
            assert_eq!(sent[5..8], other);
            assert_eq!(named(path, sent.clone()), sent);
        }
        assert_eq!(Typed::decode(&named(typed, framed(&[]).into())[5..]).unwrap().request_id.len(), 36);
        assert_eq!(Generic::decode(&named(CALL_TOOL, framed(&[]).into())[5..]).unwrap().request_id.len(), 36);
        assert_eq!(named("/agenta.ai.v1.ToolService/Status", framed(&other).into()), framed(&other));
    }

    #[test]
    fn methods_of_tools_are_known() {
        assert!(is_typed("/agenta.ai.tools.acme.support.v1.SupportToolsService/ClassifyTicket"));
        assert!(!is_typed("/agenta.ai.v1.ToolService/CallTool"));
    }
}
