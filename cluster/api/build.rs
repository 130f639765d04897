//! Generates messages and services from `proto/`, in Rust alone: no `protoc` is needed. etcd's
//! messages have their JSON form, too. The descriptors are kept for those who ask a server what it speaks.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "etcdserverpb/rpc.proto",
        "v3lockpb/v3lock.proto",
        "v3electionpb/v3election.proto",
        "revfs/v1/revfs.proto",
        "revfs/v1/members.proto",
        "revfs/peer/v1/peer.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let encoded = descriptors.encode_to_vec();
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&[".mvccpb", ".authpb", ".etcdserverpb", ".v3lockpb", ".v3electionpb"])?;
    std::fs::write(out.join("descriptors.bin"), encoded)?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::wire::codec::Codec")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
