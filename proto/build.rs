//! Makes the Rust types and services from the `.proto` files, without a protoc binary.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["common", "namespace", "chunkservers", "admin", "data", "raft", "watch"].map(|n| format!("proto/{n}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
