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

/// A request as it is sent and its `request_id`, a new one if it calls a tool and has none: such calls are sent again. A field
/// that is appended to a message is part of it. The id is empty if the request calls no tool or can't be read.
pub(crate) fn named(path: &str, framed: Bytes) -> (Bytes, String) {
    let Some((&[compressed @ 0, ..], message)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return (framed, String::new()); // compressed, or no message
    };
    let given = match path {
        _ if is_typed(path) => Typed::decode(message).map(|typed| typed.request_id),
        CALL_TOOL | CALL_TOOL_STREAM => Generic::decode(message).map(|generic| generic.request_id),
        _ => return (framed, String::new()),
    };
    match given {
        Err(_) => return (framed, String::new()),
        Ok(given) if !given.is_empty() => return (framed, given),
        Ok(_) => {}
    }
    let made = Uuid::new_v4().to_string();
    let field = if is_typed(path) {
        Typed { request_id: made.clone() }.encode_to_vec()
    } else {
        Generic { request_id: made.clone() }.encode_to_vec()
    };
    let Ok(size) = u32::try_from(message.len() + field.len()) else {
        return (framed, String::new());
    };
    ([&[compressed], &size.to_be_bytes()[..], message, &field].concat().into(), made)
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
            let (sent, request_id) = named(path, framed(&other).into());
            assert_eq!(request_id.len(), 36);
            assert_eq!(sent[..5], framed(&[0; 41])[..5]);
            assert_eq!(sent[5..8], other);
            assert_eq!(named(path, sent.clone()), (sent, request_id));
            let unreadable = framed(&[0xff]);
            assert_eq!(named(path, unreadable.clone().into()), (unreadable.into(), String::new()));
        }
        let (sent, request_id) = named(typed, framed(&[]).into());
        assert_eq!(Typed::decode(&sent[5..]).unwrap().request_id, request_id);
        let (sent, request_id) = named(CALL_TOOL, framed(&[]).into());
        assert_eq!(Generic::decode(&sent[5..]).unwrap().request_id, request_id);
        let status = named("/agenta.ai.v1.ToolService/Status", framed(&other).into());
        assert_eq!(status, (framed(&other).into(), String::new()));
    }

    #[test]
    fn methods_of_tools_are_known() {
        assert!(is_typed("/agenta.ai.tools.acme.support.v1.SupportToolsService/ClassifyTicket"));
        assert!(!is_typed("/agenta.ai.v1.ToolService/CallTool"));
    }
}
