//! Files of a running VM: copied in and out, read and written, with the rights of its users.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use banger_e2e::command::{ended, until};
use banger_e2e::layer::digest;
use banger_e2e::{Case, Lane, Verdict};
use banger_sdk::types::file_event::Kind;
use banger_sdk::{Client, WatchEvent};

use crate::suite::{LONG, Suite, VM, block, refused};

/// Enough to fill every buffer on the way.
const BULK_BYTES: usize = 24 << 20;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_tree_goes_in_and_comes_back_as_it_was",
            lane: Lane::Shared,
            test: tree,
        },
        Case {
            name: "a_copied_file_lies_where_cp_would_put_it",
            lane: Lane::Shared,
            test: places,
        },
        Case {
            name: "streams_of_any_bytes_are_copied_both_ways",
            lane: Lane::Shared,
            test: streams,
        },
        Case {
            name: "files_are_used_with_the_rights_of_their_user",
            lane: Lane::Shared,
            test: rights,
        },
        Case {
            name: "what_comes_out_of_a_vm_stays_beneath_its_destination",
            lane: Lane::Shared,
            test: beneath,
        },
        Case {
            name: "an_interrupted_copy_leaves_no_half_file",
            lane: Lane::Shared,
            test: interrupted,
        },
        Case {
            name: "files_are_made_changed_and_removed",
            lane: Lane::Shared,
            test: commands,
        },
        Case {
            name: "files_are_listed_by_pages_and_completed",
            lane: Lane::Shared,
            test: lists,
        },
        Case {
            name: "a_watcher_sees_what_a_process_in_the_vm_does",
            lane: Lane::Shared,
            test: watch,
        },
        Case {
            name: "what_cannot_be_done_with_a_file_says_why_and_what_was_written",
            lane: Lane::Shared,
            test: refusals,
        },
    ]
}

/// A path in the shared VM.
fn in_vm(path: &str) -> String {
    format!("{VM}:{path}")
}

/// A directory of this case's own, here.
fn scratch(suite: &Suite, name: &str) -> PathBuf {
    let path = suite.scratch.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tree(suite: &Suite) -> Verdict {
    suite.vm();
    let dir = scratch(suite, "cp-tree");
    let from = dir.join("from");
    fs::create_dir_all(from.join("sub/empty")).unwrap();
    fs::write(from.join("sub/file"), "content").unwrap();
    fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(from.join("sub/file"), from.join("again")).unwrap();
    symlink("sub/file", from.join("link")).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(256 << 20).unwrap();
    sparse.write_all_at(b"data", 100 << 20).unwrap();
    for number in 0..300 {
        fs::write(
            from.join(format!("sub/small-{number}")),
            format!("{number}"),
        )
        .unwrap();
    }
    let copied = suite
        .banger([
            "cp",
            "-r",
            text(&from),
            &in_vm("/work/tree"),
            "--output",
            "json",
        ])
        .ok()
        .json();
    assert_eq!(copied["entries"], 307, "{copied}");
    let seen = suite
        .sh("cd /work/tree && cat again && stat -c %a sub/file && stat -c %h again && readlink link \
             && stat -c %s sparse && du -k sparse | cut -f1 && ls sub | wc -l && stat -c %U again")
        .ok()
        .out();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(
        (seen[0], seen[1], seen[2], seen[3], seen[5]),
        ("content751", "2", "sub/file", "268435456", "302"),
        "{seen:?}"
    );
    assert!(
        seen[4].trim().parse::<u64>().unwrap() < 4096,
        "holes: {seen:?}"
    );
    let to = dir.join("to");
    suite
        .banger(["cp", "-r", &in_vm("/work/tree"), text(&to)])
        .ok();
    let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    let before = |path: &str| fs::symlink_metadata(from.join(path)).unwrap();
    for path in ["", "sub", "sub/file", "sub/empty", "sparse", "sub/small-7"] {
        let told = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(told(&meta(path)), told(&before(path)), "{path}");
    }
    assert_eq!(meta("again").ino(), meta("sub/file").ino());
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("sub/file")
    );
    assert_eq!(meta("sparse").len(), 256 << 20);
    assert!(meta("sparse").blocks() < 8192, "holes");
    let mut data = [0; 4];
    fs::File::open(to.join("sparse"))
        .unwrap()
        .read_exact_at(&mut data, 100 << 20)
        .unwrap();
    assert_eq!(&data, b"data");
    assert_eq!(fs::read_dir(to.join("sub")).unwrap().count(), 302);
    suite
        .banger(["file", "remove", "-r", &in_vm("/work/tree")])
        .ok();
    fs::remove_dir_all(dir).unwrap();
    Verdict::Passed
}

fn places(suite: &Suite) -> Verdict {
    suite.vm();
    let dir = scratch(suite, "cp-places");
    let file = dir.join("file");
    fs::write(&file, "x").unwrap();
    suite.banger(["file", "mkdir", &in_vm("/work/into")]).ok();
    for (to, lies) in [
        ("/work/into", "/work/into/file"),
        ("/work/into/", "/work/into/file"),
        ("/work/name", "/work/name"),
        ("/work/name", "/work/name"),
        ("at-home", "/root/at-home"),
        ("~/again", "/root/again"),
        ("/work/into/../plain", "/work/plain"),
    ] {
        suite.banger(["cp", text(&file), &in_vm(to)]).ok();
        assert_eq!(
            suite.sh(&format!("cat {lies} && rm {lies}")).ok().out(),
            "x",
            "{to}"
        );
    }
    refused(
        suite.banger(["cp", text(&file), &in_vm("/work/none/")]),
        125,
        "FILE_NOT_FOUND",
    );
    refused_usage(suite, &[text(&dir), &in_vm("/work/d")], "copy it with -r");
    refused_usage(suite, &[&in_vm("/etc"), text(&dir)], "copy it with -r");
    refused_usage(suite, &[text(&file), text(&dir)], "neither is in a VM");
    suite
        .banger([
            "cp",
            "-r",
            &format!("{}/.", text(&dir)),
            &in_vm("/work/content"),
        ])
        .ok();
    assert_eq!(suite.sh("ls /work/content").ok().out(), "file");
    let here = dir.join("here");
    fs::create_dir(&here).unwrap();
    suite
        .banger(["cp", &in_vm("/work/content/file"), text(&here)])
        .ok();
    assert_eq!(fs::read(here.join("file")).unwrap(), b"x");
    suite
        .banger([
            "cp",
            "-r",
            &in_vm("/work/content/."),
            text(&dir.join("flat")),
        ])
        .ok();
    assert_eq!(fs::read(dir.join("flat/file")).unwrap(), b"x");
    suite.sh("rm -r /work/into /work/content").ok();
    fs::remove_dir_all(dir).unwrap();
    Verdict::Passed
}

fn refused_usage(suite: &Suite, paths: &[&str], problem: &str) {
    let words = ["cp"].iter().chain(paths);
    let error = suite
        .banger(words)
        .args(["--output", "json"])
        .done()
        .refused(125);
    assert_eq!(error["reason"], "USAGE");
    assert!(
        error["message"].as_str().unwrap().contains(problem),
        "{error}"
    );
}

/// A pipe that is named is written and read as it is, and stays one.
fn pipes(suite: &Suite, bytes: &[u8]) {
    let dir = scratch(suite, "cp-pipes");
    let pipe = dir.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::thread::scope(|threads| {
        let read = threads.spawn(|| fs::read(&pipe).unwrap());
        suite.banger(["cp", &in_vm("/work/bulk"), text(&pipe)]).ok();
        assert!(read.join().unwrap() == bytes, "the bytes that came out");
        threads.spawn(|| fs::write(&pipe, "by a pipe").unwrap());
        suite
            .banger(["cp", text(&pipe), &in_vm("/work/piped/made/file")])
            .ok();
    });
    let piped = suite.sh("cat /work/piped/made/file && rm -r /work/piped");
    assert_eq!(piped.ok().out(), "by a pipe");
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());
    fs::remove_dir_all(dir).unwrap();
}

fn streams(suite: &Suite) -> Verdict {
    suite.vm();
    let bytes: Vec<u8> = (0..BULK_BYTES)
        .map(|at| u8::try_from(at * at % 251).unwrap())
        .collect();
    suite
        .banger(["cp", "-", &in_vm("/work/bulk")])
        .stdin(bytes.clone())
        .ok();
    let sum = suite.sh("sha256sum /work/bulk | cut -c1-64").ok().out();
    assert_eq!(sum, digest(&bytes).trim_start_matches("sha256:"));
    for option in [None, Some("--in-place")] {
        let words = ["cp"].iter().chain(&option);
        let to = in_vm("/work/new/dir/file");
        suite.banger(words.chain(&["-", &to])).stdin(*b"x").ok();
        let made = suite.sh("cat /work/new/dir/file && rm -r /work/new");
        assert_eq!(made.ok().out(), "x", "{option:?}");
    }
    let back = suite.banger(["cp", &in_vm("/work/bulk"), "-"]).ok();
    assert!(back.stdout == bytes, "the bytes that came back");
    pipes(suite, &bytes);
    let part = suite
        .banger([
            "file",
            "read",
            &in_vm("/work/bulk"),
            "--offset",
            "1000",
            "--length",
            "77",
        ])
        .ok();
    assert_eq!(part.stdout, &bytes[1000..1077]);
    let end = suite
        .banger(["file", "cat", &in_vm("/work/bulk"), "--offset", "-5"])
        .ok();
    assert_eq!(end.stdout, &bytes[BULK_BYTES - 5..]);
    suite
        .sh("mkdir /work/pack && cp /etc/passwd /work/pack")
        .ok();
    let archive = suite
        .banger(["cp", "-r", &in_vm("/work/pack"), "-"])
        .ok()
        .stdout;
    let mut tar = tar::Archive::new(&archive[..]);
    let names: Vec<String> = tar
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["pack/", "pack/passwd"]);
    suite
        .banger(["cp", "-r", "-", &in_vm("/work/unpacked")])
        .stdin(archive)
        .ok();
    suite.sh("cmp /etc/passwd /work/unpacked/pack/passwd && rm -r /work/pack /work/unpacked /work/bulk").ok();
    Verdict::Passed
}

fn rights(suite: &Suite) -> Verdict {
    suite
        .sh("echo secret > /work/secret && chmod 600 /work/secret")
        .ok();
    let app = |words: &[&str]| suite.banger(words.iter().copied().chain(["--user", "app"]));
    let denied = refused(
        app(&["file", "read", &in_vm("/work/secret")]),
        125,
        "FILE_ACCESS_DENIED",
    );
    assert_eq!(denied["metadata"]["written"], "no");
    refused(
        app(&["file", "write", &in_vm("/work/new"), "--content", "x"]),
        125,
        "FILE_ACCESS_DENIED",
    );
    refused(
        app(&["file", "rm", &in_vm("/work/secret")]),
        125,
        "FILE_ACCESS_DENIED",
    );
    refused(
        app(&["file", "update", &in_vm("/etc/passwd"), "--mode", "666"]),
        125,
        "FILE_ACCESS_DENIED",
    );
    // Some files of the kernel's ask for more than the rights to a file.
    let printk = [
        "file",
        "write",
        &in_vm("/proc/sys/kernel/printk"),
        "--content",
        "7",
        "--in-place",
    ];
    refused(app(&printk), 125, "FILE_ACCESS_DENIED");
    refused(
        app(&["file", "read", &in_vm("/proc/1/environ")]),
        125,
        "FILE_ACCESS_DENIED",
    );
    refused(
        app(&["file", "read", &in_vm("/proc/self/mem")]),
        125,
        "FILE_ACCESS_DENIED",
    );
    app(&["file", "write", &in_vm("notes"), "--content", "mine"]).ok();
    let seen = suite
        .sh("stat -c '%U %G %a' /home/app/notes && cat /home/app/notes")
        .ok()
        .out();
    assert_eq!(seen, "app app 644\nmine");
    let unknown = suite.banger(["file", "ls", &in_vm("/"), "--user", "nobody-here"]);
    refused(unknown, 125, "USER_NOT_FOUND");
    suite.sh("rm /work/secret /home/app/notes").ok();
    Verdict::Passed
}

fn beneath(suite: &Suite) -> Verdict {
    let dir = scratch(suite, "cp-beneath");
    fs::create_dir(dir.join("outside")).unwrap();
    suite
        .sh(&format!(
            "mkdir -p /work/trap/d && cd /work/trap && ln -s {} out && ln -s ../../../../etc/passwd up \
             && echo x > d/f && chmod 6777 d/f && chmod 3777 d && mkfifo pipe && mknod null c 1 3 \
             && touch \"$(printf 'a\\033[2Jb')\" && touch -- '-rf'",
            text(&dir.join("outside"))
        ))
        .ok();
    let copied = suite
        .banger([
            "cp",
            "-r",
            &in_vm("/work/trap"),
            text(&dir.join("got")),
            "--output",
            "json",
        ])
        .ok();
    assert_eq!(copied.json()["skipped"], 2, "{}", copied.said());
    assert!(
        copied.err().contains("got/null, got/pipe"),
        "{}",
        copied.said()
    );
    assert!(!copied.err().contains('\u{1b}'));
    let got = dir.join("got");
    let mode = |path: &str| fs::metadata(got.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d/f"), mode("d")), (0o777, 0o777));
    assert!(!got.join("null").exists() && !got.join("pipe").exists());
    assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 0);
    // What is there already and leads elsewhere is not followed.
    fs::remove_dir_all(got.join("d")).unwrap();
    symlink(dir.join("outside"), got.join("d")).unwrap();
    let again = suite.banger(["cp", "-r", &in_vm("/work/trap/."), text(&got)]);
    refused(again, 125, "FILE_NOT_WRITTEN");
    assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 0);
    let small = ["cp", "--max-size", "1M", &in_vm("/work/large"), text(&dir)];
    suite.sh("truncate -s 2M /work/large").ok();
    refused(suite.banger(small), 125, "DOWNLOAD_UNSAFE");
    assert!(!dir.join("large").exists());
    suite.sh("rm -r /work/trap /work/large").ok();
    fs::remove_dir_all(dir).unwrap();
    Verdict::Passed
}

/// Names in a directory that are not those of finished files.
fn unfinished(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap();
    names
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".banger")
        })
        .count()
}

fn interrupt(child: &mut std::process::Child) -> i32 {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = ended(child, LONG).expect("it ends after an interrupt");
    status.code().unwrap()
}

fn interrupted(suite: &Suite) -> Verdict {
    let dir = scratch(suite, "cp-interrupted");
    // As slow as it must be to be caught in the middle.
    suite
        .sh("dd if=/dev/urandom of=/work/much bs=1M count=64 2>/dev/null")
        .ok();
    let words = ["cp", &in_vm("/work/much"), text(&dir)];
    let mut child = suite.banger(words).spawn();
    until("a download that has begun", LONG, || {
        unfinished(&dir) > 0 || dir.join("much").exists()
    });
    let code = interrupt(&mut child);
    let is_there = dir.join("much").exists();
    assert!(
        code == 130 && !is_there || code == 0 && is_there,
        "{code} {is_there}"
    );
    assert_eq!(unfinished(&dir), 0);
    let much = dir.join("up");
    fs::write(&much, vec![7; 256 << 20]).unwrap();
    let words = ["cp", text(&much), &in_vm("/work/up")];
    let mut child = suite.banger(words).spawn();
    let begun = "ls -A /work | grep -q '^.banger-\\|^up$'";
    until("an upload that has begun", LONG, || {
        suite.sh(begun).done().code() == 0
    });
    let code = interrupt(&mut child);
    until("no half file", LONG, || {
        suite.sh("ls -A /work | grep -q '^.banger-'").done().code() != 0
    });
    let is_there = suite.sh("test -e /work/up").done().code() == 0;
    assert!(
        code == 130 && !is_there || code == 0 && is_there,
        "{code} {is_there}"
    );
    suite.sh("rm -f /work/much /work/up").ok();
    fs::remove_dir_all(dir).unwrap();
    Verdict::Passed
}

fn commands(suite: &Suite) -> Verdict {
    suite.vm();
    let file = |words: &[&str]| suite.banger(["file"].iter().chain(words));
    file(&["mkdir", "--parents", "--mode", "750", &in_vm("/work/f/a/b")]).ok();
    file(&["write", &in_vm("/work/f/one"), "--content", "1"]).ok();
    file(&["write", &in_vm("/work/f/one"), "--content", "2", "--append"]).ok();
    file(&[
        "write",
        &in_vm("/work/f/one"),
        "--content",
        "X",
        "--offset",
        "0",
    ])
    .ok();
    assert_eq!(file(&["read", &in_vm("/work/f/one")]).ok().out(), "X2");
    refused(
        file(&[
            "write",
            &in_vm("/work/f/one"),
            "--content",
            "3",
            "--if-absent",
        ]),
        125,
        "FILE_EXISTS",
    );
    file(&["link", &in_vm("/work/f/l"), "one"]).ok();
    file(&["mv", &in_vm("/work/f/one"), &in_vm("/work/f/a/two")]).ok();
    file(&[
        "update",
        &in_vm("/work/f/a/two"),
        "--mode",
        "4640",
        "--owner",
        "app:extra",
        "--mtime",
        "2001-02-03T04:05:06Z",
    ])
    .ok();
    let seen = file(&["inspect", &in_vm("/work/f/a/two"), "--output", "json"])
        .ok()
        .json();
    for (key, value) in [
        ("mode", "4640"),
        ("user", "app"),
        ("group", "extra"),
        ("kind", "file"),
        ("mtime", "2001-02-03T04:05:06Z"),
    ] {
        assert_eq!(seen[key], value, "{seen}");
    }
    assert_eq!(seen["size_bytes"], 2);
    file(&["rm", "-r", &in_vm("/work/f")]).ok();
    refused(file(&["rm", &in_vm("/work/f")]), 125, "FILE_NOT_FOUND");
    file(&["rm", "-f", &in_vm("/work/f")]).ok();
    Verdict::Passed
}

fn lists(suite: &Suite) -> Verdict {
    suite
        .sh("mkdir -p /work/f/a/b && cd /work/f && touch a/two && ln -s one l")
        .ok();
    let file = |words: &[&str]| suite.banger(["file"].iter().chain(words));
    let list = file(&[
        "list",
        &in_vm("/work/f"),
        "--depth",
        "3",
        "--output",
        "json",
    ])
    .ok()
    .json();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "a/b", "a/two", "l"]);
    // More than one page.
    suite
        .sh("mkdir /work/f/many && cd /work/f/many && seq 1 1234 | xargs touch")
        .ok();
    let list = file(&["list", "--quiet", &in_vm("/work/f/many")])
        .ok()
        .out();
    assert_eq!(list.lines().count(), 1234);
    let complete = suite
        .banger(["--", "banger", "file", "ls", &in_vm("/work/f/")])
        .env("BANGER_COMPLETE", "fish")
        .env("BANGER_HOST", suite.daemon().socket())
        .ok()
        .out();
    assert!(complete.contains("shared:/work/f/a/"), "{complete}");
    suite.sh("rm -r /work/f").ok();
    Verdict::Passed
}

fn watch(suite: &Suite) -> Verdict {
    suite.sh("mkdir -p /work/w/sub").ok();
    block(async {
        let host = suite.daemon().socket().to_str().unwrap().parse().unwrap();
        let client = Client::connect(host).await.unwrap();
        let mut watcher = client
            .files(VM)
            .watch("/work/w")
            .recursive()
            .open()
            .await
            .unwrap();
        let started = watcher.next().await.unwrap();
        assert_eq!(started, Some(WatchEvent::Started { directories: 2 }));
        suite.sh("echo x > /work/w/sub/x; mkdir /work/w/new; echo y > /work/w/new/y; mv /work/w/sub/x /work/w/z; rm -r /work/w").ok();
        let mut seen = Vec::new();
        while let Some(event) = watcher.next().await.unwrap() {
            if let WatchEvent::Changed(event) = event {
                seen.push((event.kind(), event.path));
            }
        }
        for (kind, path) in [
            (Kind::Written, "sub/x"),
            (Kind::Created, "new"),
            (Kind::MovedFrom, "sub/x"),
            (Kind::MovedTo, "z"),
            (Kind::Removed, "z"),
            (Kind::RootGone, ""),
        ] {
            assert!(
                seen.contains(&(kind, path.to_owned())),
                "{kind:?} {path} in {seen:?}"
            );
        }
    });
    Verdict::Passed
}

fn refusals(suite: &Suite) -> Verdict {
    suite.vm();
    let file = |words: &[&str]| suite.banger(["file"].iter().chain(words));
    refused(file(&["read", &in_vm("/none")]), 125, "FILE_NOT_FOUND");
    refused(file(&["read", &in_vm("/etc")]), 125, "FILE_IS_DIRECTORY");
    refused(
        file(&["read", &in_vm("/dev/zero")]),
        125,
        "FILE_NOT_REGULAR",
    );
    refused(
        file(&["ls", &in_vm("/etc/passwd")]),
        125,
        "FILE_NOT_DIRECTORY",
    );
    refused(file(&["rm", &in_vm("/etc")]), 125, "DIRECTORY_NOT_EMPTY");
    refused(file(&["mkdir", &in_vm("/work")]), 125, "FILE_EXISTS");
    let long = format!("/{}", "x".repeat(300));
    refused(
        file(&["write", &in_vm(&long), "--content", "x"]),
        125,
        "FILE_NAME_TOO_LONG",
    );
    refused(file(&["ls", "none:/"]), 125, "VM_NOT_FOUND");
    // A full disk, of a size that fills at once.
    suite
        .sh("mkdir /work/small && mount -t tmpfs -o size=1m none /work/small")
        .ok();
    // A copy makes directories too, which may be there then; a write makes the file alone.
    for (words, written) in [(["cp", "-"], "maybe"), (["file", "write"], "no")] {
        let full = suite
            .banger(words)
            .arg(in_vm("/work/small/x"))
            .stdin(vec![7; 4 << 20]);
        let full = refused(full, 125, "VM_DISK_FULL");
        assert_eq!(full["metadata"]["written"], written);
    }
    assert_eq!(suite.sh("ls -A /work/small").ok().out(), "");
    refused(
        file(&["mv", &in_vm("/etc/passwd"), &in_vm("/work/small/p")]),
        125,
        "FILE_OTHER_FILE_SYSTEM",
    );
    suite.sh("umount /work/small && rmdir /work/small").ok();
    let bad = suite
        .banger(["cp", "-r", "-", &in_vm("/work/bad")])
        .stdin(vec![b'x'; 4096]);
    refused(bad, 125, "ARCHIVE_INVALID");
    Verdict::Passed
}
