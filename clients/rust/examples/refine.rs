//! Refines a prompt.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use agenta_ai::{Client, request, unpack};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Refined {
    prompt_template_json: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match refined().await {
        Ok(prompt) => {
            println!("{prompt}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Says what happened, whether the tool may have run, and what to do.
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn refined() -> Result<String, Box<dyn Error>> {
    // Plaintext to this machine, TLS to any other. One client serves a whole program.
    let client = Client::to(&env::var("AGENTA_AI_TARGET").unwrap_or("127.0.0.1:50051".into()))
        .api_key(env::var("AGENTA_AI_API_KEY").unwrap_or_default())
        .wait_for_limit()
        .build()?;
    // The request has a new request_id, and keeps it if it is sent again.
    let request = request(
        "tools.agenta.api.refine_prompt",
        &json!({
            "prompt_template_json": r#"{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}"#,
            "guidelines": "Be brief.",
        }),
    )?;
    let response = client.call_tool(request).await?; // within 90 seconds
    Ok(unpack::<Refined>(response.structured_content)?.prompt_template_json)
}
