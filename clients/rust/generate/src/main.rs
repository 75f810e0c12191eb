//! Makes src/v1.rs: the Rust code of the contract, whose descriptors come on standard input.

use std::error::Error;
use std::io::Read;

use prost::Message;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/generated");

fn main() -> Result<(), Box<dyn Error>> {
    let mut descriptors = Vec::new();
    std::io::stdin().read_to_end(&mut descriptors)?;
    tonic_prost_build::configure()
        .build_server(true)
        .out_dir(FOLDER)
        .compile_fds(prost_types::FileDescriptorSet::decode(&*descriptors)?)?;
    Ok(())
}
