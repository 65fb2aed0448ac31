//! `kernel build`, with a make and a compiler that only pretend.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::fake::Fake;
use super::*;

/// What pretends to be make: keeps the options, compiles three files, each once.
const MAKE: &str = r#"#!/bin/sh
set -eu
for word in "$@"; do
    case $word in
        O=*) out=${word#O=} ;;
        olddefconfig|vmlinux) goal=$word ;;
    esac
done
echo "$goal" >>"$CALLS"
case $goal in
olddefconfig)
    if [ -n "${LOSES:-}" ]; then sed -i "s/^$LOSES=.*/# $LOSES is not set/" "$out/.config"; fi
    echo "CONFIG_X86_64=y" >>"$out/.config" ;;
vmlinux)
    for file in a b c; do
        if [ -e "$out/$file.o" ]; then continue; fi
        if [ "$file" = "${FAILS:-}" ]; then echo "$file.c:1: error: no such thing" >&2; exit 2; fi
        if [ "$file" = "${HANGS:-}" ]; then echo $$ >"$PIDS"; sleep 1000; fi
        echo "  CC      $file.o"
        : >"$out/$file.o"
    done
    echo kernel >"$out/vmlinux" ;;
esac
"#;

/// A machine on which a kernel can be built.
struct Machine {
    fake: Fake,
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            fake: Fake::start(),
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(machine.at("bin")).unwrap();
        machine.program("make", MAKE);
        machine.program("strip", "#!/bin/sh\ncp \"$3\" \"$2\"\n");
        for name in ["gcc", "ld", "flex", "bison", "bc"] {
            machine.program(name, "#!/bin/sh\nexit 0\n");
        }
        fs::create_dir_all(machine.at("linux-6.1")).unwrap();
        for file in ["Makefile", "Kconfig"] {
            fs::write(machine.at("linux-6.1").join(file), "all:\n").unwrap();
        }
        let packed = Command::new("tar")
            .args(["-cJf", "linux.tar.xz", "linux-6.1"])
            .current_dir(machine.directory.path())
            .status();
        assert!(packed.unwrap().success());
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn build(&self, arguments: &[&str]) -> Command {
        let source = self.at("linux.tar.xz");
        let mut all = vec!["kernel", "build", "--source", source.to_str().unwrap()];
        all.extend(arguments);
        let mut command = banger(&self.fake, &all);
        let system = ["/usr/bin", "/bin"].map(PathBuf::from);
        let paths = [self.at("bin")].into_iter().chain(system);
        command
            .env("PATH", std::env::join_paths(paths).unwrap())
            .env("XDG_CACHE_HOME", self.at("cache"))
            .env("CALLS", self.at("calls"))
            .env("PIDS", self.at("pids"));
        command
    }

    fn to_file(&self) -> Command {
        let file = self.at("vmlinux");
        self.build(&["--output-file", file.to_str().unwrap()])
    }

    /// What make was asked for, in order.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn build_directory(&self) -> PathBuf {
        let cache = self.at("cache/banger/kernel");
        let mut places = fs::read_dir(cache).unwrap();
        places.next().unwrap().unwrap().path()
    }
}

/// The error as programs read it.
fn failure(mut command: Command) -> serde_json::Value {
    let output = command.args(["--output", "json"]).output().unwrap();
    assert_ne!(code(&output), 0);
    serde_json::from_slice(&output.stderr).unwrap()
}

#[test]
fn a_kernel_is_built_step_by_step_and_not_twice() {
    let machine = Machine::new();
    let output = machine.to_file().output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    for step in ["fetch", "unpack", "configure", "compile"] {
        assert!(text(&output.stderr).contains(step), "{output:?}");
    }
    assert_eq!(fs::read(machine.at("vmlinux")).unwrap(), b"kernel\n");
    assert_eq!(machine.calls(), ["olddefconfig", "vmlinux"]);
    // The sources are not unpacked again, nor configured; make finds nothing to do.
    let marker = machine.build_directory().join("source/marker");
    fs::write(&marker, "").unwrap();
    assert_eq!(code(&machine.to_file().output().unwrap()), 0);
    assert_eq!(machine.calls(), ["olddefconfig", "vmlinux", "vmlinux"]);
    assert!(marker.exists());
    let log = fs::read_to_string(machine.build_directory().join("build.log")).unwrap();
    assert_eq!(log, "", "nothing was compiled twice");
}

#[test]
fn other_options_are_configured_again() {
    let machine = Machine::new();
    let options = machine.at("options");
    for (text, calls) in [
        ("CONFIG_A=y\n", 2),
        ("CONFIG_A=y\n", 3),
        ("CONFIG_B=y\n", 5),
    ] {
        fs::write(&options, text).unwrap();
        let mut command = machine.to_file();
        command.arg("--options").arg(&options);
        assert_eq!(code(&command.output().unwrap()), 0);
        assert_eq!(machine.calls().len(), calls, "{:?}", machine.calls());
    }
}

#[test]
fn an_option_that_does_not_survive_stops_the_build() {
    let machine = Machine::new();
    let mut command = machine.to_file();
    command.env("LOSES", "CONFIG_VIRTIO_MMIO");
    let error = failure(command);
    assert_eq!(error["reason"], "KERNEL_OPTIONS_LOST");
    assert_eq!(error["metadata"]["options"], "CONFIG_VIRTIO_MMIO=y");
    assert_eq!(machine.calls(), ["olddefconfig"]);
    // And the next build does not take the configuration for done.
    assert_eq!(code(&machine.to_file().output().unwrap()), 0);
    assert_eq!(machine.calls(), ["olddefconfig", "olddefconfig", "vmlinux"]);
}

#[test]
fn a_build_that_failed_goes_on_where_it_was() {
    let machine = Machine::new();
    let mut command = machine.to_file();
    command.env("FAILS", "c");
    let error = failure(command);
    assert_eq!(error["reason"], "KERNEL_BUILD_FAILED");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("c.c:1: error: no such thing"),
        "{error}"
    );
    let log = PathBuf::from(error["metadata"]["log"].as_str().unwrap());
    assert!(fs::read_to_string(&log).unwrap().contains("CC      a.o"));
    assert!(!machine.at("vmlinux").exists());
    let counted = machine.build_directory().join("counted");
    assert_eq!(fs::read_to_string(&counted).unwrap(), "2");
    assert_eq!(code(&machine.to_file().output().unwrap()), 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "  CC      c.o\n");
    assert!(!counted.exists());
}

#[test]
fn an_interrupt_ends_the_compiler_and_the_next_build_goes_on() {
    let machine = Machine::new();
    let mut command = machine.to_file();
    command.env("HANGS", "b").stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid_file = machine.at("pids");
    let pid = || {
        fs::read_to_string(&pid_file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    };
    wait_until("make hangs", || pid().is_some());
    let make = PathBuf::from("/proc").join(pid().unwrap().trim());
    let busy = failure(machine.to_file());
    assert_eq!(busy["reason"], "BUILD_IN_PROGRESS");
    let banger = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(banger, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("the next build goes on from here"),
        "{output:?}"
    );
    let is_gone = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    wait_until("make is gone", || is_gone(&make));
    assert_eq!(code(&machine.to_file().output().unwrap()), 0);
    let log = fs::read_to_string(machine.build_directory().join("build.log")).unwrap();
    assert_eq!(log, "  CC      b.o\n  CC      c.o\n");
}

#[test]
fn every_missing_tool_is_named_with_its_package() {
    let machine = Machine::new();
    for name in ["flex", "bison"] {
        fs::remove_file(machine.at("bin").join(name)).unwrap();
    }
    machine.program("gcc", "#!/bin/sh\necho no gelf.h >&2\nexit 1\n");
    let mut command = machine.to_file();
    // Without the system's own.
    for name in ["make", "ld", "strip", "bc", "tar", "xz"] {
        machine.program(name, "#!/bin/sh\nexit 0\n");
    }
    command.env("PATH", machine.at("bin"));
    let error = failure(command);
    assert_eq!(error["reason"], "BUILD_TOOLS_MISSING");
    assert_eq!(error["metadata"]["missing"], "flex,bison,gelf.h");
    assert_eq!(
        error["remedy"],
        "Install them: apt-get install flex bison libelf-dev"
    );
    assert!(machine.calls().is_empty());
}

#[test]
fn what_holds_no_sources_is_refused() {
    let machine = Machine::new();
    fs::remove_file(machine.at("linux-6.1/Kconfig")).unwrap();
    let directory = machine.at("linux-6.1");
    let arguments = ["kernel", "build", "--source", directory.to_str().unwrap()];
    let mut command = machine.build(&[]);
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    command = banger(&machine.fake, &arguments);
    command.envs(environment);
    let error = failure(command);
    assert_eq!(error["reason"], "KERNEL_SOURCE_INVALID");
    // Something that is no archive is left to tar to refuse.
    fs::write(machine.at("linux.tar.xz"), "text").unwrap();
    assert_eq!(failure(machine.to_file())["reason"], "BUILD_TOOL_FAILED");
}

#[test]
fn the_options_are_shown_as_they_are_built_in() {
    let fake = Fake::start();
    let shown = output(&fake, &["kernel", "build", "--show-options"]);
    assert_eq!(code(&shown), 0);
    let built_in = include_str!("../../../deploy/kernel/guest.config");
    assert_eq!(text(&shown.stdout), built_in);
}
