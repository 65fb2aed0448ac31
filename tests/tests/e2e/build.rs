//! Builds: a Dockerfile in real VMs, what is kept of it, what fails and what is given up.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use banger_e2e::command::{ended, until};
use banger_e2e::web::WebServer;
use banger_e2e::{Case, Lane, Verdict};

use crate::suite::{LONG, Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_dockerfile_is_built_and_its_image_is_what_its_steps_saw",
            lane: Lane::Shared,
            test: dockerfile,
        },
        Case {
            name: "a_step_that_fails_tells_its_line_and_its_last_output",
            lane: Lane::Shared,
            test: failing,
        },
        Case {
            name: "a_build_that_is_interrupted_leaves_nothing",
            lane: Lane::Shared,
            test: interrupted,
        },
        Case {
            name: "the_network_of_run_is_the_one_that_is_asked_for",
            lane: Lane::Shared,
            test: network,
        },
        Case {
            name: "a_debian_root_filesystem_is_made_with_the_packages_that_are_named",
            lane: Lane::Shared,
            test: debian,
        },
    ]
}

/// Every path of a root filesystem with what a layer must keep of it. Names and name servers are lent to
/// steps, so they are not looked at; neither are the directories that the listing itself or a mount touches.
const LISTING: &str = "find / -xdev ! -path /etc/hosts ! -path /etc/resolv.conf ! -path '/proc*' \
     ! -path '/sys*' ! -path '/dev*' ! -path '/run*' ! -path / \
     -exec stat -c 'entry %n %f %u %g' '{}' + | sort; \
     find /app /usr/local /data -xdev -type f -exec md5sum '{}' + | sort | sed 's/^/entry /'";

/// Nearly every instruction, in stages; one of them is needed by nobody and must not be built.
const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
ARG BASE
FROM ${BASE} AS unused
RUN exit 42

FROM ${BASE} AS tool
WORKDIR /tool
COPY src/ ./
RUN cat main.txt > made && mkdir -p out/deep && cp made out/deep/made && ln -s made out/link \
    # a comment in between
    && ln made out/hard && chown -R 12:34 out

FROM ${BASE} AS base
ENV GREETING="hello world" DIR=/app
ARG VERSION=1
LABEL version=$VERSION purpose="a test"
WORKDIR $DIR

FROM base
ARG VERSION
COPY --chown=app:extra --chmod=4755 run.sh /usr/local/bin/run
COPY *.txt [ab].conf ./conf/
COPY --from=tool /tool/out /app/out/
ADD archive.tar.gz /app/unpacked/
COPY <<END /app/inline
version=$VERSION $GREETING
END
RUN <<'END'
echo "$GREETING in $PWD as $(id -u)" > said
rm -rf /opaque /etc/replaced
mkdir /opaque && echo new > /opaque/new
mv /home/app /home/moved
touch /tmp/left
chmod 777 /tmp
END
USER app
RUN ["sh", "-c", "id -u > /tmp/who; test ! -w /etc/passwd"]
USER root
SHELL ["/bin/sh", "-ec"]
RUN echo "$VERSION" > version; LISTING
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
USER app
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /app/said"]
"#;

fn context(suite: &Suite, name: &str) -> PathBuf {
    let dir = suite.scratch.dir(name);
    for (path, content) in [
        (
            "Dockerfile",
            DOCKERFILE.replace("LISTING", LISTING).as_str(),
        ),
        (
            ".dockerignore",
            "*.secret\nsrc/ignored\n!src/ignored/kept.txt\n",
        ),
        ("run.sh", "#!/bin/sh\necho run\n"),
        ("one.txt", "one\n"),
        ("a.conf", "a\n"),
        ("c.conf", "c\n"),
        ("key.secret", "secret\n"),
        ("src/main.txt", "main\n"),
        ("src/ignored/dropped.txt", "dropped\n"),
        ("src/ignored/kept.txt", "kept\n"),
    ] {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    symlink("/etc/passwd", dir.join("src/link")).unwrap();
    let inner = dir.join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), "from the archive\n").unwrap();
    fs::set_permissions(inner.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let archive = dir.join("archive.tar.gz");
    suite
        .scratch
        .run("tar")
        .args(["--owner=7", "--group=8", "-czf", archive.to_str().unwrap()])
        .args(["-C", inner.to_str().unwrap(), "."])
        .ok();
    dir
}

/// The lines of a listing, whoever printed it.
fn entries(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.split_once("entry "));
    let mut entries: Vec<String> = lines.map(|(_, entry)| entry.trim().to_owned()).collect();
    // The instruction itself is shown too.
    entries.retain(|entry| !entry.contains("%n"));
    entries
}

fn build(suite: &Suite, dir: &Path, tag: &str) -> banger_e2e::Run {
    let base = format!("BASE={}", suite.reference());
    suite
        .banger(["image", "build", "-t", tag, "--memory", "256M"])
        .args(["--network", "none", "--build-arg", &base])
        .args(["--build-arg", "VERSION=7"])
        .arg(dir)
        .timeout(LONG * 3)
}

/// What root sees in a fresh VM of an image.
fn seen(suite: &Suite, image: &str, script: &str) -> String {
    suite
        .banger(["run", "--memory", "256M", "--network", "none"])
        .args(["--user", "root", image, "--", "sh", "-c", script])
        .timeout(LONG)
        .ok()
        .out()
}

fn inspect(suite: &Suite, image: &str) -> serde_json::Value {
    suite
        .banger(["image", "inspect", image, "--output", "json"])
        .ok()
        .json()
}

fn dockerfile(suite: &Suite) -> Verdict {
    let dir = context(suite, "build");
    let log = build(suite, &dir, "built:1").ok().err();
    assert!(log.contains("HEALTHCHECK is ignored"), "{log}");
    assert!(
        !log.contains("RUN exit 42"),
        "a stage that nobody needs was built: {log}"
    );
    let built = entries(&log);
    assert!(built.len() > 100, "{log}");

    let image = inspect(suite, "built:1");
    assert_eq!(image["layers"].as_array().unwrap().len(), 4, "{image}");
    let config = &image["config"];
    assert_eq!(config["labels"]["version"], "7");
    assert_eq!(config["labels"]["test.purpose"], "e2e");
    assert_eq!(config["user"], "app");
    assert_eq!(config["working_dir"], "/app");
    assert_eq!(config["stop_signal"], "SIGINT");

    // What a guest of the image sees is what the last step saw.
    let said = "cat /app/said /app/inline /app/version /tmp/who; ls /app/conf; \
                cat /app/unpacked/file; stat -c '%u:%g %a' /usr/local/bin/run /app/unpacked/file \
                /app/out/deep; ls -A /opaque /home; ls /app/out";
    let out = seen(suite, "built:1", &format!("{LISTING}; {said}"));
    let image_entries = entries(&out);
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        let missing = some.iter().filter(|entry| !others.contains(entry));
        missing.cloned().collect()
    };
    let added = only(&image_entries, &built);
    assert!(added.is_empty(), "only in the image: {added:#?}");
    let lost = only(&built, &image_entries);
    assert!(lost.is_empty(), "only in the build: {lost:#?}");
    for expected in [
        "hello world in /app as 0\n",
        "version=7 hello world\n",
        "\n1000\n",
        "a.conf\none.txt\n",
        "from the archive\n",
        "1000:2000 4755\n7:8 600\n12:34 755\n",
        "moved\n",
        "deep\nhard\nlink",
    ] {
        assert!(out.contains(expected), "{expected:?} in {out}");
    }
    for absent in ["c.conf", "secret", "dropped"] {
        assert!(!out.contains(absent), "{absent:?} in {out}");
    }
    layout(suite, "built:1");
    layout(suite, &suite.reference());
    cached(suite, &dir, &image);
    for tag in ["built:3", "built:2", "built:1"] {
        suite.banger(["image", "remove", tag]).ok();
    }
    Verdict::Passed
}

/// An image's layout is one that another tool reads, copies and finds the same digests in.
fn layout(suite: &Suite, image: &str) {
    let file = suite.scratch.dir("layout").join("image.tar");
    suite
        .banger([
            "image",
            "export",
            "--format",
            "oci-layout",
            "--replace",
            image,
        ])
        .arg(&file)
        .ok();
    let archive = format!("oci-archive:{}", file.display());
    let told = suite
        .scratch
        .run("skopeo")
        .args(["inspect", &archive])
        .ok()
        .json();
    let known = inspect(suite, image);
    let layers: Vec<_> = known["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["digest"].clone())
        .collect();
    assert_eq!(told["Layers"].as_array().unwrap(), &layers);
    let copy = suite.scratch.dir("layout-copy");
    let to = format!("dir:{}", copy.join("image").display());
    banger_e2e::image::copy(&suite.scratch, &archive, &to);
    // Decompressed and unpacked by a tool that believes nothing.
    let unpacked = copy.join("layout");
    let oci = format!("oci:{}:x", unpacked.display());
    banger_e2e::image::copy(&suite.scratch, &archive, &oci);
    let image = format!("{}:x", unpacked.display());
    suite
        .scratch
        .run("umoci")
        .args(["unpack", "--rootless", "--image", &image])
        .arg(copy.join("bundle"))
        .ok();
    fs::remove_dir_all(copy).unwrap();
}

fn cached(suite: &Suite, dir: &Path, image: &serde_json::Value) {
    // The same again boots nothing, and is the same image.
    let log = build(suite, dir, "built:2").ok().err();
    assert!(log.contains("CACHED the image"), "{log}");
    assert!(log.matches("CACHED").count() > 8, "{log}");
    assert_eq!(inspect(suite, "built:2")["digest"], image["digest"]);
    // Another content goes on from the last step that still holds.
    fs::write(dir.join("one.txt"), "two\n").unwrap();
    let log = build(suite, dir, "built:3").ok().err();
    assert!(log.contains("CACHED COPY --chown=app:extra"), "{log}");
    assert!(!log.contains("CACHED COPY *.txt"), "{log}");
    assert_ne!(inspect(suite, "built:3")["digest"], image["digest"]);
}

fn failing(suite: &Suite) -> Verdict {
    let dir = suite.scratch.dir("build-fails");
    let dockerfile = |text: &str| {
        let text = format!("FROM {}\n{text}", suite.reference());
        fs::write(dir.join("Dockerfile"), text).unwrap();
        suite
            .banger(["image", "build", "-t", "fails:1", "--memory", "256M"])
            .args(["--network", "none"])
            .arg(&dir)
            .timeout(LONG)
    };
    let run = dockerfile("\nRUN echo about to fail; echo why >&2; exit 3\n");
    let error = refused(run, 125, "BUILD_STEP_FAILED");
    let message = error["message"].as_str().unwrap();
    for part in ["Dockerfile:3", "exit code 3", "why"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    // Mistakes are told before anything boots.
    let run = dockerfile("RUN --mount=type=cache,target=/x y\n");
    refused(run, 125, "DOCKERFILE_UNSUPPORTED");
    let run = dockerfile("COPY ../../etc/passwd /\n");
    refused(run, 125, "BUILD_SOURCE_MISSING");
    Verdict::Passed
}

fn interrupted(suite: &Suite) -> Verdict {
    let dir = suite.scratch.dir("build-interrupted");
    let text = format!("FROM {}\nRUN echo begun; sleep 1000\n", suite.reference());
    fs::write(dir.join("Dockerfile"), text).unwrap();
    let mut child = suite
        .banger(["image", "build", "-t", "interrupted:1", "--memory", "256M"])
        .args(["--network", "none"])
        .arg(&dir)
        .spawn();
    let has_vm = || {
        let vms = suite.daemon().vms();
        vms.iter().any(|vm| vm.starts_with("build-"))
    };
    until("the build's VM exists", LONG, has_vm);
    let pid = child.id().to_string();
    suite.scratch.run("kill").args(["-INT", &pid]).ok();
    let status = ended(&mut child, LONG).expect("the command ends");
    assert_eq!(status.code(), Some(130));
    assert!(!has_vm(), "the VM of a cancelled build");
    let listed = suite
        .banger(["image", "list", "--output", "json"])
        .ok()
        .out();
    assert!(!listed.contains("interrupted"), "{listed}");
    Verdict::Passed
}

/// By QEMU's user network a guest reaches what listens on the host's loopback, as 10.0.2.2; without a network, nothing.
fn network(suite: &Suite) -> Verdict {
    let dir = suite.scratch.dir("build-network");
    let served = suite.scratch.dir("build-network-served");
    fs::write(served.join("word"), "from the host\n").unwrap();
    let server = WebServer::serve(&suite.scratch, &served);
    let (_, port) = server.url.trim_end_matches('/').rsplit_once(':').unwrap();
    let text = format!(
        "FROM {}\nRUN printf 'GET /word HTTP/1.0\\r\\n\\r\\n' | nc -w 20 10.0.2.2 {port} > /fetched && \
         tail -n 1 /fetched | grep from\n",
        suite.reference()
    );
    fs::write(dir.join("Dockerfile"), text).unwrap();
    let build = |tag: &str, options: &[&str]| {
        suite
            .banger(["image", "build", "-t", tag, "--memory", "256M"])
            .args(options.iter().copied())
            .arg(&dir)
            .timeout(LONG)
    };
    for (tag, options) in [
        ("fetched:1", &["--network", "user"][..]),
        ("fetched:2", &[]),
    ] {
        // Each runs the step: what is kept of the first is not asked for.
        build(tag, &[&["--no-cache"][..], options].concat()).ok();
        let fetched = seen(suite, tag, "tail -n 1 /fetched");
        assert_eq!(fetched.trim_end(), "from the host", "{tag}");
    }
    // Not taken from what is kept of a build that had a network, either.
    refused(
        build("fetched:3", &["--network", "none"]),
        125,
        "BUILD_STEP_FAILED",
    );
    for tag in ["fetched:1", "fetched:2"] {
        suite.banger(["image", "remove", tag]).ok();
    }
    Verdict::Passed
}

fn debian(suite: &Suite) -> Verdict {
    if !Path::new("/usr/bin/mmdebstrap").exists() {
        return Verdict::Skipped("mmdebstrap is not installed".into());
    }
    // As the documentation has it.
    suite
        .banger(["image", "build", "--debian", "bookworm"])
        .args(["--include", "git,python3", "dev:1"])
        .timeout(LONG * 4)
        .ok();
    let script = "set -e; cat /etc/debian_version; git init -q /work; cd /work; \
         python3 -c 'open(\"made\", \"w\").write(str(6 * 7))'; git add made; \
         git -c user.name=a -c user.email=a@b commit -q -m 'by git'; \
         git log --format=%s; git show HEAD:made";
    let said = seen(suite, "dev:1", script);
    let [version, rest @ ..] = &said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    assert!(version.starts_with("12."), "{said}");
    assert_eq!(rest, ["by git", "42"], "{said}");
    suite.banger(["image", "remove", "dev:1"]).ok();
    Verdict::Passed
}
