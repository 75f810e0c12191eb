//! Makes the Rust code of the contract and of our own tools, whose descriptors come on standard input: the clients for the
//! crate, the server for its tests, and the descriptors of the tools for the conformance program.

use std::error::Error;
use std::io::Read;

use prost::Message;

const CRATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The contract may add values to its enums without a new major version.
const GROWS: &str = "#[non_exhaustive]";

const TOOLS: &str = "agenta.ai.tools.";

/// The files of the contract, with those that it imports, and the files of the tools, without their comments.
fn divided(all: &prost_types::FileDescriptorSet) -> (prost_types::FileDescriptorSet, prost_types::FileDescriptorSet) {
    let (mut tools, mut contract): (Vec<_>, Vec<_>) =
        all.file.iter().cloned().partition(|file| file.package().starts_with(TOOLS));
    for file in &mut tools {
        file.source_code_info = None;
    }
    for location in
        contract.iter_mut().filter_map(|file| file.source_code_info.as_mut()).flat_map(|info| &mut info.location)
    {
        location.leading_comments = location.leading_comments.as_deref().map(unindented);
    }
    (prost_types::FileDescriptorSet { file: contract }, prost_types::FileDescriptorSet { file: tools })
}

/// A comment whose indented JSON is not taken for Rust, which is tested.
fn unindented(comment: &str) -> String {
    comment.lines().fold(String::new(), |lines, line| match line.trim() {
        json if line.starts_with("     ") && json.starts_with('{') => format!("{lines} `{json}`\n"),
        _ => format!("{lines}{line}\n"),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let all = prost_types::FileDescriptorSet::decode(&*bytes)?;
    let (descriptors, tools) = divided(&all);
    std::fs::write(format!("{CRATE}/conformance/src/tools.binpb"), tools.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .enum_attribute(".", GROWS)
        .out_dir(format!("{CRATE}/src/generated"))
        .compile_fds(descriptors.clone())?;
    // Makes the contract once more, because the tools refer to it.
    let apart = std::env::temp_dir().join(format!("agenta-ai-tools-{}", std::process::id()));
    std::fs::create_dir_all(&apart)?;
    tonic_prost_build::configure()
        .build_server(false)
        .enum_attribute(".", GROWS)
        .extern_path(".agenta.ai.v1", "crate::v1")
        .out_dir(&apart)
        .compile_fds(all)?;
    for made in std::fs::read_dir(&apart)? {
        let name = made?.file_name().to_string_lossy().into_owned();
        if name.starts_with(TOOLS) {
            std::fs::copy(apart.join(&name), format!("{CRATE}/src/generated/{name}"))?;
        }
    }
    std::fs::remove_dir_all(&apart)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".agenta.ai.v1", "::agenta_ai::v1")
        .out_dir(format!("{CRATE}/tests/generated"))
        .compile_fds(descriptors)?;
    Ok(())
}
