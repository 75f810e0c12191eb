//! Refines a prompt, and shows the progress.

use std::env;
use std::error::Error;

use agenta_ai::{Client, ToolEvent, request, unpack};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Refined {
    summary: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::to(&env::var("AGENTA_AI_TARGET").unwrap_or("127.0.0.1:50051".into()))
        .api_key(env::var("AGENTA_AI_API_KEY").unwrap_or_default())
        .build()?;
    let prompt = r#"{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}"#;
    let request = request("tools.agenta.api.refine_prompt", &json!({"prompt_template_json": prompt}))?;
    let mut events = client.stream_tool(request).await?;
    while let Some(event) = events.message().await? {
        match event {
            ToolEvent::Progress(progress) => eprintln!("{}", progress.text),
            ToolEvent::Result(result) => println!("{}", unpack::<Refined>(result.structured_content)?.summary),
            _ => {} // of a later version
        }
    }
    Ok(())
}
