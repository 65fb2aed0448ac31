//! Catalogs: made from what one host has, served by a real web server, used by a host that has nothing.

use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::web::WebServer;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "an_image_and_its_kernel_go_through_a_catalog_to_another_host",
            lane: Lane::Own,
            test: round_trip,
        },
        Case {
            name: "a_catalog_that_was_tampered_with_or_rolled_back_is_refused",
            lane: Lane::Own,
            test: attacks,
        },
    ]
}

/// A catalog under construction on the shared host.
struct Maker<'a> {
    suite: &'a Suite,
    directory: PathBuf,
    key: PathBuf,
}

impl<'a> Maker<'a> {
    fn new(suite: &'a Suite, name: &str) -> Self {
        let home = suite.scratch.dir(name);
        Self {
            suite,
            directory: home.join("catalog"),
            key: home.join("key"),
        }
    }

    /// Builds it again, with what the options say.
    fn build(&self, options: &[&str]) -> Value {
        let words = [
            "catalog",
            "build",
            path(&self.directory),
            "--key",
            path(&self.key),
            "--output",
            "json",
        ];
        let words = words.into_iter().chain(options.iter().copied());
        self.suite.banger(words).ok().json()
    }

    fn index(&self) -> PathBuf {
        self.directory.join("catalog.json")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The name of the shared host's kernel.
fn kernel(suite: &Suite) -> String {
    let kernels = suite
        .banger(["kernel", "list", "--output", "json"])
        .ok()
        .json();
    let is_default = |kernel: &&Value| kernel["is_default"] == true;
    let kernel = kernels.as_array().unwrap().iter().find(is_default).unwrap();
    kernel["name"].as_str().unwrap().to_owned()
}

/// A daemon with nothing.
fn bare(suite: &Suite, name: &str) -> Daemon {
    let options = DaemonOptions {
        config: suite.tried(),
        ..DaemonOptions::default()
    };
    Daemon::start(&suite.scratch, &suite.binaries, name, options)
}

fn round_trip(suite: &Suite) -> Verdict {
    let (maker, kernel) = (Maker::new(suite, "catalog"), kernel(suite));
    suite
        .banger(["image", "pull", &suite.reference(), "--kernel", &kernel])
        .ok();
    suite
        .banger(["image", "tag", &suite.reference(), "demo:1.0"])
        .ok();
    let built = maker.build(&["--name", "e2e", "--image", "demo:1.0"]);
    let key = built["public_key"].as_str().unwrap();
    assert_eq!(
        (&built["images"], &built["kernels"]),
        (&1.into(), &1.into())
    );
    let server = WebServer::serve(&suite.scratch, &maker.directory);

    let other = bare(suite, "own-catalog");
    other
        .banger(["catalog", "add", &server.url, "--key", key])
        .ok();
    let found = other
        .banger(["catalog", "search", "demo", "--quiet"])
        .ok()
        .out();
    assert_eq!(found.trim(), "demo:1.0");
    let image = other
        .banger(["image", "pull", "demo", "--output", "json"])
        .timeout(LONG)
        .ok()
        .json();
    assert_eq!(image["kernel"], kernel.as_str());
    assert_eq!(image["origin"], "catalog e2e: demo:1.0");
    assert_eq!(image["config"]["working_dir"], "/work");
    let again = other
        .banger(["image", "pull", "demo", "--output", "json"])
        .ok()
        .json();
    assert_eq!(again["id"], image["id"]);

    let words = ["run", "demo", "--", "sh", "-c", "echo from a catalog"];
    let said = other.banger(words).timeout(LONG * 2).ok().out();
    assert_eq!(said.trim(), "from a catalog");

    // What came by a bundle goes on as the same bytes.
    let exported = suite.scratch.dir("catalog-export").join("demo.tar.zst");
    let words = [
        "image",
        "export",
        "demo",
        path(&exported),
        "--name",
        "demo",
        "--version",
        "1.0",
    ];
    other.banger(words).ok();
    let served = fs::read_dir(maker.directory.join("images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(fs::read(&exported).unwrap() == fs::read(served.path()).unwrap());
    let imported = other
        .banger([
            "image",
            "import",
            path(&exported),
            "again:1",
            "--output",
            "json",
        ])
        .ok()
        .json();
    assert_eq!(imported["id"], image["id"]);
    other.clear();
    assert_eq!(other.temporary(), Vec::<PathBuf>::new());
    suite.banger(["image", "remove", "demo:1.0"]).ok();
    Verdict::Passed
}

fn attacks(suite: &Suite) -> Verdict {
    let (maker, kernel) = (Maker::new(suite, "catalog-attacked"), kernel(suite));
    let built = maker.build(&["--name", "e2e", "--kernel", &kernel]);
    let key = built["public_key"].as_str().unwrap().to_owned();
    let server = WebServer::serve(&suite.scratch, &maker.directory);
    let other = bare(suite, "own-catalog-attacked");
    let stranger = Maker::new(suite, "catalog-stranger");
    let strange = stranger.build(&["--name", "e2e", "--kernel", &kernel]);
    let strange = strange["public_key"].as_str().unwrap();
    refused(
        other.banger(["catalog", "add", &server.url, "--key", strange]),
        125,
        "CATALOG_WRONG_KEY",
    );
    other
        .banger(["catalog", "add", &server.url, "--key", &key])
        .ok();
    let first = fs::read(maker.index()).unwrap();
    let second = maker.build(&["--kernel", &kernel]);
    assert_eq!(second["version"], 2);
    other.banger(["catalog", "refresh"]).ok();

    let refresh = |reason| refused(other.banger(["catalog", "refresh", "e2e"]), 125, reason);
    let good = fs::read(maker.index()).unwrap();
    fs::write(maker.index(), &first).unwrap();
    refresh("CATALOG_ROLLED_BACK");
    let mut tampered = good.clone();
    // A character of the payload.
    tampered[200] = if tampered[200] == b'A' { b'B' } else { b'A' };
    fs::write(maker.index(), &tampered).unwrap();
    refresh("CATALOG_TAMPERED");
    fs::write(maker.index(), fs::read(stranger.index()).unwrap()).unwrap();
    refresh("CATALOG_WRONG_KEY");
    fs::remove_file(maker.index()).unwrap();
    refresh("CATALOG_FILE_MISSING");
    let kept = other
        .banger(["catalog", "inspect", "e2e", "--output", "json"])
        .ok()
        .json();
    assert_eq!(kept["version"], 2);
    assert_eq!(kept["refresh_error"]["reason"], "CATALOG_FILE_MISSING");

    // What it lists is still used, and a file that is not the listed one is refused and leaves nothing.
    let file = fs::read_dir(maker.directory.join("kernels"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let right = fs::read(&file).unwrap();
    let mut wrong = right.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    fs::write(&file, wrong).unwrap();
    refused(
        other.banger(["kernel", "pull", &kernel]),
        125,
        "BUNDLE_FILE_DIGEST",
    );
    assert_eq!(other.entries("kernels"), Vec::<String>::new());
    fs::write(&file, right).unwrap();
    other.banger(["kernel", "pull", &kernel]).timeout(LONG).ok();
    other.clear();
    assert_eq!(other.temporary(), Vec::<PathBuf>::new());
    Verdict::Passed
}
