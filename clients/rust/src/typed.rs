//! The methods that tools have of their own, of code that was generated from the files of `agenta-ai-server tools proto`.

use prost::Message;
use tonic::codegen::Bytes;
use uuid::Uuid;

use crate::connection::PREFIX_BYTES;

/// What their paths begin with.
const PREFIX: &str = "/agenta.ai.tools.";

/// What the requests of all tools have.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "2")]
    request_id: String,
}

/// Whether a tool has this method of its own.
pub(crate) fn is_typed(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// A request, as it is sent, with a new `request_id` if it has none: such calls are sent again. A field that is appended to a
/// message is part of it.
pub(crate) fn named(framed: Bytes) -> Bytes {
    let Some((&[compressed @ 0, ..], message)) = framed.split_first_chunk::<PREFIX_BYTES>() else {
        return framed; // compressed, or no message
    };
    if Named::decode(message).is_ok_and(|named| !named.request_id.is_empty()) {
        return framed;
    }
    let name = Named { request_id: Uuid::new_v4().to_string() }.encode_to_vec();
    let Ok(size) = u32::try_from(message.len() + name.len()) else {
        return framed;
    };
    [&[compressed], &size.to_be_bytes()[..], message, &name].concat().into()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{Named, is_typed, named};

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn requests_are_named_once() {
        let other = [0x0a, 0x01, 0x78]; // field 1
        let sent = named(framed(&other).into());
        assert_eq!(sent[..5], framed(&[0; 41])[..5]);
        assert_eq!(sent[5..8], other);
        assert_eq!(Named::decode(&sent[5..]).unwrap().request_id.len(), 36);
        assert_eq!(named(sent.clone()), sent);
    }

    #[test]
    fn methods_of_tools_are_known() {
        assert!(is_typed("/agenta.ai.tools.acme.support.v1.SupportToolsService/ClassifyTicket"));
        assert!(!is_typed("/agenta.ai.v1.ToolService/CallTool"));
    }
}
