//! Proves that the committed code is what the protos generate. To write it anew after a change of a proto:
//! `BANGER_REGENERATE=1 cargo test -p banger-proto`.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

const PACKAGES: [(&str, &[&str]); 3] = [
    (
        "banger.v1",
        &[
            "banger/v1/catalog_service.proto",
            "banger/v1/file_service.proto",
            "banger/v1/host_service.proto",
            "banger/v1/image_service.proto",
            "banger/v1/kernel_service.proto",
            "banger/v1/operation_service.proto",
            "banger/v1/session_service.proto",
            "banger/v1/tunnel_service.proto",
            "banger/v1/vm_service.proto",
            "banger/v1/volume_service.proto",
            "banger/v1/workspace_service.proto",
        ],
    ),
    (
        "banger.workspace.v1",
        &["banger/workspace/v1/snapshot.proto"],
    ),
    (
        "banger.guest.v1",
        &[
            "banger/guest/v1/agent_service.proto",
            "banger/guest/v1/file_service.proto",
            "banger/guest/v1/workspace_service.proto",
        ],
    ),
];

fn generate(root: &Path, out: &Path) {
    let files = PACKAGES.iter().flat_map(|(_, files)| files.iter());
    let descriptors = protox::compile(files, [root]).expect("the protos compile");
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())
        .expect("the folder is writable");
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .build_transport(false)
        .btree_map(".")
        .extern_path(".google.rpc", "::tonic_types")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)
        .expect("the code generates");
}

fn generated_files() -> impl Iterator<Item = String> {
    let packages = PACKAGES.iter().map(|(package, _)| format!("{package}.rs"));
    packages.chain(["descriptors.bin".to_owned()])
}

#[test]
fn the_committed_code_is_what_the_protos_generate() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated");
    if std::env::var_os("BANGER_REGENERATE").is_some() {
        fs::create_dir_all(&committed).unwrap();
        generate(&root, &committed);
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(&root, fresh.path());
    for file in generated_files() {
        let (old, new) = (
            fs::read(committed.join(&file)).unwrap(),
            fs::read(fresh.path().join(&file)).unwrap(),
        );
        assert!(
            old == new,
            "{file} is stale: run BANGER_REGENERATE=1 cargo test -p banger-proto"
        );
    }
}

#[test]
fn every_service_file_is_generated() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for (package, files) in PACKAGES {
        let folder = root.join(package.replace('.', "/"));
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with("_service.proto") {
                let path = format!("{}/{name}", package.replace('.', "/"));
                assert!(files.contains(&path.as_str()), "{path} is not in PACKAGES");
            }
        }
    }
}
