//! An authority of a case's own, made by `banger cert`, and what it issues.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::scratch::Scratch;

/// How long a command may take: keys are made by a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// An authority, with a certificate for a daemon on the loopback.
#[derive(Debug)]
pub struct Pki<'a> {
    scratch: &'a Scratch,
    binaries: &'a Binaries,
    place: PathBuf,
}

impl<'a> Pki<'a> {
    /// Makes one in a directory of the run.
    #[must_use]
    pub fn make(scratch: &'a Scratch, binaries: &'a Binaries, name: &str) -> Self {
        let pki = Self {
            scratch,
            binaries,
            place: scratch.dir(name),
        };
        pki.cert(&["init"]);
        let tls = pki.path("tls");
        pki.cert(&[
            "issue",
            "--server",
            "127.0.0.1",
            "--out",
            tls.to_str().unwrap(),
        ]);
        pki
    }

    /// `banger cert` with these words.
    pub fn cert(&self, words: &[&str]) {
        let pki = self.path("pki");
        self.scratch
            .run(&self.binaries.banger)
            .arg("cert")
            .args(words)
            .args(["--dir".as_ref(), pki.as_os_str()])
            .timeout(PATIENCE)
            .ok();
    }

    /// A client's directory.
    #[must_use]
    pub fn client(&self, name: &str, role: &str) -> PathBuf {
        let out = self.path(name);
        self.cert(&[
            "issue",
            name,
            "--role",
            role,
            "--out",
            out.to_str().unwrap(),
        ]);
        out
    }

    /// What a daemon's configuration needs to serve TCP on a port of the loopback that the kernel chooses.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}listen = [\"127.0.0.1:0\"]\n", self.tls())
    }

    /// The same without an address.
    #[must_use]
    pub fn tls(&self) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "[tcp]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_files = [{:?}]\ncrl_files = [{:?}]\n",
            path("tls/server.crt"),
            path("tls/server.key"),
            path("tls/ca.crt"),
            path("pki/ca.crl"),
        )
    }

    /// Where all of it is.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }
}
