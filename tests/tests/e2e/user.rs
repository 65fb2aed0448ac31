//! The whole path as an ordinary user, with the places of the XDG specification.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use banger_e2e::command::{ended, until};
use banger_e2e::scratch::MARK;
use banger_e2e::{Case, Lane, Run, Verdict};
use rustix::process::{Pid, Signal, kill_process};

use crate::suite::{LONG, Suite};

/// `nobody` and `nogroup` of Debian.
const USER: (u32, u32) = (65534, 65534);

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "an_ordinary_user_does_all_of_it",
        lane: Lane::Own,
        test: whole_path,
    }]
}

/// Copies a program to where every user finds it.
fn publish(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A user's places: programs, home, runtime directory.
struct Account {
    directory: PathBuf,
    mark: String,
}

impl Account {
    fn make(suite: &Suite) -> Self {
        let account = Self {
            directory: suite.scratch.dir("own/user"),
            mark: suite.scratch.mark().to_owned(),
        };
        let config = account.home().join(".config/banger");
        let programs = account.directory.join("bin");
        for path in [&config, &programs, &account.runtime()] {
            fs::create_dir_all(path).unwrap();
        }
        let from = &suite.binaries;
        for (program, name) in [
            (&from.bangerd, "bangerd"),
            (&from.banger, "banger"),
            (&from.agent, "banger-agent"),
        ] {
            publish(program, &programs.join(name));
        }
        fs::write(config.join("bangerd.toml"), suite.tried()).unwrap();
        fs::copy(&suite.kernel().bzimage, account.kernel()).unwrap();
        for path in [account.home(), account.runtime(), account.kernel()] {
            chown(path, Some(USER.0), Some(USER.1)).unwrap();
        }
        account
    }

    fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn runtime(&self) -> PathBuf {
        self.directory.join("run")
    }

    fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.runtime().join("banger/bangerd.sock")
    }

    fn daemon(&self) -> Child {
        let log = fs::File::create(self.directory.join("log")).unwrap();
        let mut command = Command::new(self.directory.join("bin/bangerd"));
        command.uid(USER.0).gid(USER.1).process_group(0);
        command.current_dir("/").stdin(Stdio::null());
        command
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.runtime())
            .env(MARK, &self.mark);
        command
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME");
        let mut daemon = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        until("the user's daemon serves", LONG, || {
            assert!(
                daemon.try_wait().unwrap().is_none(),
                "bangerd ended: {}",
                self.log()
            );
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
        daemon
    }

    fn banger(&self, words: &[&str]) -> Run {
        let run = Run::new(self.directory.join("bin/banger")).as_user(USER.0, USER.1);
        let run = run
            .timeout(LONG)
            .args(words)
            .in_dir(Path::new("/"))
            .env(MARK, &self.mark);
        let run = run
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.runtime());
        run.without_env("BANGER_HOST")
    }
}

fn whole_path(suite: &Suite) -> Verdict {
    if !rustix::process::geteuid().is_root() {
        return Verdict::Skipped("the whole suite runs as an ordinary user".into());
    }
    let account = Account::make(suite);
    let mut daemon = account.daemon();
    let (kernel, modules) = (account.kernel(), suite.few_modules());
    let words = [
        "kernel",
        "import",
        kernel.to_str().unwrap(),
        "--modules",
        modules.to_str().unwrap(),
    ];
    account.banger(&words).ok();
    account.banger(&["image", "pull", &suite.reference()]).ok();
    let script = "id -u; cat /etc/replaced; exit 3";
    let done = account
        .banger(&["run", &suite.reference(), "--", "sh", "-c", script])
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (3, "0\nnew".into()),
        "{}\n{}",
        done.said(),
        account.log()
    );
    let state = account.home().join(".local/state/banger");
    assert!(state.join("banger.db").is_file());
    let mode = fs::metadata(&state).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else looks into a user's state");
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert!(
        ended(&mut daemon, LONG).expect("bangerd stops").success(),
        "{}",
        account.log()
    );
    assert!(!account.socket().exists());
    Verdict::Passed
}
