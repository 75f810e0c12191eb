//! Makes the Rust code of the contract, whose descriptors come on standard input: the client for the crate, and the server for
//! its tests.

use std::error::Error;
use std::io::Read;

use prost::Message;

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let descriptors = prost_types::FileDescriptorSet::decode(&*bytes)?;
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(format!("{CRATE}/src/generated"))
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".agenta.ai.v1", "::agenta_ai::v1")
        .out_dir(format!("{CRATE}/tests/generated"))
        .compile_fds(descriptors)?;
    Ok(())
}
