//! The programs under test: where they are.

use std::path::{Path, PathBuf};

/// The directory with `bangerd`, `banger` and `banger-agent`.
const VARIABLE: &str = "BANGER_DIST";

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The daemon.
    pub bangerd: PathBuf,
    /// The command.
    pub banger: PathBuf,
    /// Process 1 of the guests, static.
    pub agent: PathBuf,
}

impl Binaries {
    /// The programs in `BANGER_DIST`, else in `target/dist-test`.
    ///
    /// # Errors
    /// With what is missing.
    pub fn find() -> Result<Self, String> {
        let directory = match std::env::var_os(VARIABLE) {
            Some(directory) => std::path::absolute(directory).map_err(|error| error.to_string())?,
            None => workspace().join("target/dist-test"),
        };
        let program = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(format!("{} is missing: run `make test`", path.display()))
            }
        };
        Ok(Self {
            bangerd: program("bangerd")?,
            banger: program("banger")?,
            agent: program("banger-agent")?,
        })
    }
}

/// The root of the source tree.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
