//! Makes the empty gRPC call that the master's rates are compared with.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/empty.proto");
    let descriptors = protox::compile(["proto/empty.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
