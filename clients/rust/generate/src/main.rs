//! Makes the Rust code of the contract and of our own tools, whose descriptors come on standard input: the clients for the
//! crate, and the server for its tests.

use std::error::Error;
use std::io::Read;

use prost::Message;

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const TOOLS: &str = "agenta.ai.tools.";

/// The files whose packages are wanted.
fn only(all: &prost_types::FileDescriptorSet, wanted: impl Fn(&str) -> bool) -> prost_types::FileDescriptorSet {
    prost_types::FileDescriptorSet { file: all.file.iter().filter(|file| wanted(file.package())).cloned().collect() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let all = prost_types::FileDescriptorSet::decode(&*bytes)?;
    let descriptors = only(&all, |package| !package.starts_with(TOOLS));
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(format!("{CRATE}/src/generated"))
        .compile_fds(descriptors.clone())?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".agenta.ai.v1", "crate::v1")
        .out_dir(format!("{CRATE}/src/generated"))
        .compile_fds(only(&all, |package| package.starts_with(TOOLS)))?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".agenta.ai.v1", "::agenta_ai::v1")
        .out_dir(format!("{CRATE}/tests/generated"))
        .compile_fds(descriptors)?;
    Ok(())
}
