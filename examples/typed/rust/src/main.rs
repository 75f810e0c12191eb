//! Calls the three tools of examples/tools.toml by clients that were generated from their .proto files. In this folder:
//!
//!     agenta-ai-server tools proto --file ../../tools.toml --out protos
//!     agenta-ai-server dev --tools ../../tools.toml -- cargo run

use std::error::Error;

use agenta_ai::{CallError, Client, ToolError};
use sales::extract_order_response::Outcome as Extracted;
use support::classify_ticket_response::Outcome as Classified;
use text::summarize_response::Outcome as Summarized;

mod sales {
    tonic::include_proto!("agenta.ai.tools.examples.sales.v1");
}

mod support {
    tonic::include_proto!("agenta.ai.tools.examples.support.v1");
}

mod text {
    tonic::include_proto!("agenta.ai.tools.examples.text.v1");
}

const ORDER: &str = "Two blue mugs and a teapot to Ada Lovelace, 12 St James's Square, London.";
const MEETING: &str = "The meeting on Monday was moved to Tuesday at ten, because the room is taken.";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::var("AGENTA_AI_TARGET").unwrap_or_else(|_| "127.0.0.1:50051".to_owned());
    // The connection adds the credential, a time-out, a request_id and retries to each call.
    let client = Client::to(&target).api_key(std::env::var("AGENTA_AI_API_KEY").unwrap_or_default()).build()?;

    let arguments = support::classify_ticket_request::Arguments {
        ticket: Some("My invoice is wrong.".to_owned()),
        ..Default::default()
    };
    let request = support::ClassifyTicketRequest { arguments: Some(arguments), ..Default::default() };
    let mut tickets = support::support_tools_service_client::SupportToolsServiceClient::new(client.connection());
    let answer = tickets.classify_ticket(request).await.map_err(CallError::from)?.into_inner();
    match answer.outcome {
        Some(Classified::Result(result)) => println!("{}, urgency {}", result.queue(), result.urgency()),
        Some(Classified::Error(error)) => return Err(ToolError::new(error, answer.content, answer.meta).into()),
        None => {}
    }

    let arguments = sales::extract_order_request::Arguments { text: Some(ORDER.to_owned()) };
    let request = sales::ExtractOrderRequest { arguments: Some(arguments), ..Default::default() };
    let mut orders = sales::sales_tools_service_client::SalesToolsServiceClient::new(client.connection());
    let answer = orders.extract_order(request).await.map_err(CallError::from)?.into_inner();
    match answer.outcome {
        Some(Extracted::Result(result)) => {
            let items: Vec<_> =
                result.items.iter().map(|item| format!("{} {}", item.quantity(), item.product())).collect();
            let customer = result.customer.unwrap_or_default();
            let address = customer.address.clone().unwrap_or_default();
            println!("{} for {}, {}", items.join(", "), customer.name(), address.city());
        }
        Some(Extracted::Error(error)) => return Err(ToolError::new(error, answer.content, answer.meta).into()),
        None => {}
    }

    let arguments = text::summarize_request::Arguments { text: Some(MEETING.to_owned()), ..Default::default() };
    let request = text::SummarizeRequest { arguments: Some(arguments), ..Default::default() };
    let mut texts = text::text_tools_service_client::TextToolsServiceClient::new(client.connection());
    let answer = texts.summarize(request).await.map_err(CallError::from)?.into_inner();
    match answer.outcome {
        Some(Summarized::Result(result)) => println!("{}", result.text()),
        Some(Summarized::Error(error)) => return Err(ToolError::new(error, answer.content, answer.meta).into()),
        None => {}
    }
    Ok(())
}
