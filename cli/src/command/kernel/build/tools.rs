//! What a build needs of the machine.

use std::path::Path;

use super::error::BuildError;
use super::options::Options;
use super::run::{Runner, tool};

/// Programs, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 9] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];
/// What every kernel's own tools are compiled with.
const ELF: (&str, &str) = ("gelf.h", "libelf-dev");
/// What signing tools are compiled with, where options ask for them.
const SSL: (&str, &str) = ("openssl/opensslv.h", "libssl-dev");
const SIGNING: [&str; 3] = [
    "CONFIG_MODULE_SIG",
    "CONFIG_SYSTEM_TRUSTED_KEYRING",
    "CONFIG_SECONDARY_TRUSTED_KEYRING",
];

/// Sees that everything is there, and names all that is not.
pub(super) async fn check(runner: &mut Runner, options: &Options) -> Result<(), BuildError> {
    let mut missing: Vec<(&str, &str)> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !is_program(program))
        .collect();
    let headers = [Some(ELF), options.want_any(&SIGNING).then_some(SSL)];
    // Without a compiler nothing tells.
    let has_compiler = !missing.contains(&("gcc", "gcc"));
    for header in headers.into_iter().flatten().filter(|_| has_compiler) {
        if !has_header(runner, header.0).await? {
            missing.push(header);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&'static str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(BuildError::ToolsMissing {
        missing: missing.iter().map(|(what, _)| (*what).to_owned()).collect(),
        packages,
    })
}

fn is_program(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| is_executable(&directory.join(name)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

async fn has_header(runner: &mut Runner, header: &str) -> Result<bool, BuildError> {
    let mut compiler = tool("gcc");
    compiler
        .args(["-E", "-include", header])
        .args(["-x", "c", "/dev/null", "-o", "/dev/null"]);
    match runner.quick(compiler).await {
        Ok(_) => Ok(true),
        Err(BuildError::Tool { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
