//! Makes the code of the tools from what "agenta-ai-server tools proto --out protos" has written. The contract is in the crate.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=protos/tools.binpb");
    let descriptors = prost_types::FileDescriptorSet::decode(&*std::fs::read("protos/tools.binpb")?)?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".agenta.ai.v1", "::agenta_ai::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
