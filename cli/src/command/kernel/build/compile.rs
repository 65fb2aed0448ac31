//! Configuring and compiling.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::error::BuildError;
use super::options::Options;
use super::place::{Place, remove};
use super::run::{Runner, tool};
use super::show::Show;

/// For making the configuration, which compiles the tools for it.
const CONFIGURE: Duration = Duration::from_secs(15 * 60);
/// For compiling on the slowest of machines.
const COMPILE: Duration = Duration::from_secs(6 * 60 * 60);
/// For copying the kernel without its symbols.
const STRIP: Duration = Duration::from_secs(5 * 60);
/// What make says of a whole build with the built-in options, in lines; a first guess.
const LINES_GUESSED: u64 = 2100;
/// Where the lines of the last whole build are kept.
const LINES: &str = "lines";
/// Where the lines of a build that was cut off are kept: the next one counts on.
const COUNTED: &str = "counted";

/// What was built.
#[derive(Debug)]
pub(super) struct Built {
    /// The kernel, an ELF file without symbols.
    pub(super) vmlinux: PathBuf,
    /// Its whole configuration.
    pub(super) config: PathBuf,
}

/// Makes the configuration of `options`, unless it is there, and sees that it kept all of them.
pub(super) async fn configure(
    runner: &mut Runner,
    place: &Place,
    sources: &Path,
    options: &Options,
) -> Result<(), BuildError> {
    const STEP: &str = "configure";
    let config = place.at("build").join(".config");
    if !place.is_done(STEP, options.text()) || !config.is_file() {
        place.undone(STEP)?;
        remove(&place.at(COUNTED))?;
        let build = place.at("build");
        fs::create_dir_all(&build).map_err(BuildError::files("make the directory", &build))?;
        fs::write(&config, options.text()).map_err(BuildError::files("write", &config))?;
        let mut make = make(place, sources);
        make.arg("olddefconfig");
        runner.work(make, CONFIGURE).await?;
        let made = fs::read_to_string(&config).map_err(BuildError::files("read", &config))?;
        options.check(&made)?;
        place.done(STEP, options.text())?;
    }
    Ok(())
}

/// Compiles what is not compiled yet.
pub(super) async fn compile(
    runner: &mut Runner,
    place: &Place,
    sources: &Path,
    jobs: usize,
    show: &Show,
) -> Result<Built, BuildError> {
    runner.log_to(place.at("build.log"))?;
    let total = number(place, LINES).unwrap_or(LINES_GUESSED);
    let mut step = show.step("compile", Some(total));
    let mut make = make(place, sources);
    make.arg(format!("-j{jobs}")).arg("vmlinux");
    let mut count = number(place, COUNTED).unwrap_or(0);
    let counted = |line: &str| {
        if let Some(item) = item_of(line) {
            count += 1;
            step.at(count, total, item);
        }
    };
    if let Err(error) = runner.make(make, COMPILE, counted).await {
        keep(place, COUNTED, count)?;
        return Err(error);
    }
    step.done();
    remove(&place.at(COUNTED))?;
    // One that compiled only what was changed says fewer lines than there are.
    if count > total / 2 {
        keep(place, LINES, count)?;
    }
    strip(runner, place).await
}

fn number(place: &Place, name: &str) -> Option<u64> {
    let text = fs::read_to_string(place.at(name)).ok()?;
    text.trim().parse().ok()
}

fn keep(place: &Place, name: &str, number: u64) -> Result<(), BuildError> {
    let path = place.at(name);
    fs::write(&path, number.to_string()).map_err(BuildError::files("write", &path))
}

/// The kernel without the symbols, which only debuggers read.
async fn strip(runner: &mut Runner, place: &Place) -> Result<Built, BuildError> {
    let build = place.at("build");
    let built = Built {
        vmlinux: place.at("vmlinux"),
        config: build.join(".config"),
    };
    let mut strip = tool("strip");
    strip
        .arg("-o")
        .arg(&built.vmlinux)
        .arg(build.join("vmlinux"));
    runner.work(strip, STRIP).await?;
    Ok(built)
}

/// `make`, so that the same sources and options make the same kernel, whoever builds it, where and when.
fn make(place: &Place, sources: &Path) -> tokio::process::Command {
    let mut make = tool("make");
    make.arg("-C").arg(sources);
    make.arg(format!("O={}", place.at("build").display()));
    make.args([
        "ARCH=x86_64",
        "KBUILD_BUILD_USER=banger",
        "KBUILD_BUILD_HOST=banger",
        "KBUILD_BUILD_VERSION=1",
    ]);
    make.arg(format!("KBUILD_BUILD_TIMESTAMP={}", time_of(sources)));
    make
}

/// When the sources were made: the time of a file that is in all of them.
fn time_of(sources: &Path) -> String {
    let modified = sources
        .join("Makefile")
        .metadata()
        .and_then(|metadata| metadata.modified());
    let time = modified
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%a %b %d %H:%M:%S UTC %Y").to_string()
}

/// What a line of make's says it works on: `  CC      fs/ext4/super.o`.
fn item_of(line: &str) -> Option<&str> {
    let (verb, item) = line.strip_prefix("  ")?.split_once(' ')?;
    let is_verb = !verb.is_empty()
        && verb
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'+'));
    let item = item.trim();
    (is_verb && !item.is_empty()).then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_work_are_counted_and_others_are_not() {
        assert_eq!(
            item_of("  CC      fs/ext4/super.o"),
            Some("fs/ext4/super.o")
        );
        assert_eq!(item_of("  AR      built-in.a"), Some("built-in.a"));
        for line in [
            "",
            "make[1]: Entering directory '/x'",
            "  ",
            "  CC",
            "  note: x",
            "arch/x86/kernel/x.c:1: warning: y",
        ] {
            assert_eq!(item_of(line), None, "{line}");
        }
    }
}
