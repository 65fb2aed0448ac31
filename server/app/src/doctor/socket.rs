//! The socket of the API: who may use it can do whatever the daemon can.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use banger_core::doctor::Finding;

use super::check::{Check, Right};
use super::host::{Host, MendError};

/// Rights of all others on a file: any of them lets everybody connect.
const WORLD: u32 = 0o007;
/// The right of all others to make and remove files in a directory.
const WORLD_WRITES: u32 = 0o002;
/// Only owners remove files in such a directory.
const STICKY: u32 = 0o1000;

pub(super) const CHECKS: [Check; 2] = [
    Check::files(
        "SOCKET_MODE",
        "Only those who should may use the API's socket",
        mode,
    )
    .mended_by(Right::Daemon, set_mode),
    Check::files(
        "SOCKET_DIRECTORY",
        "Nobody else can put a socket in its place",
        directory,
    )
    .mended_by(Right::Daemon, close_directory),
];

/// The group whose members may use the socket: root's alone is given to one.
fn group(host: &Host) -> Option<u32> {
    let text = host.read("/etc/group").ok()?;
    let id = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?;
        (name == host.socket_group).then(|| id.parse().ok())?
    });
    id.filter(|_| host.is_root)
}

fn mode(host: &Host) -> Finding {
    let path = host.socket.display();
    let metadata = match fs::symlink_metadata(&host.socket) {
        Ok(metadata) if metadata.file_type().is_socket() => metadata,
        Ok(_) => {
            return Finding::problem(
                format!("{path} is not a socket"),
                "Another program put something in its place, and no new client reaches the daemon.",
            )
            .remedy("Remove it and start the daemon anew: VMs run on.")
            .command("systemctl restart bangerd");
        }
        Err(error) => {
            return Finding::problem(
                format!("{path}: {error}"),
                "It was removed while the daemon serves: who is connected stays, and nobody else comes in.",
            )
            .remedy("Start the daemon anew: VMs run on.")
            .command("systemctl restart bangerd");
        }
    };
    let mode = metadata.permissions().mode() & 0o777;
    let found = format!("{path} {mode:04o}, group {}", metadata.gid());
    let remedy = "Set what the daemon sets at its start.";
    if mode & WORLD != 0 {
        return Finding::problem(
            found,
            "Everybody on this host can do whatever the daemon can.",
        )
        .remedy(remedy)
        .command("banger doctor --fix");
    }
    match group(host) {
        Some(group) if mode & 0o060 == 0o060 && metadata.gid() != group => Finding::problem(
            found,
            format!(
                "Another group than `{}` can do whatever the daemon can.",
                host.socket_group
            ),
        )
        .remedy(remedy)
        .command("banger doctor --fix"),
        Some(_) if mode & 0o060 != 0o060 => Finding::warning(
            found,
            format!(
                "Members of the group `{}` cannot use the daemon.",
                host.socket_group
            ),
        )
        .remedy(remedy)
        .command("banger doctor --fix"),
        _ => Finding::ok(found),
    }
}

fn set_mode(host: &Host) -> Result<String, MendError> {
    let failed = |step: &str| {
        let step = format!("{step} of {}", host.socket.display());
        move |source| MendError::Step { step, source }
    };
    let is_socket =
        fs::symlink_metadata(&host.socket).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Err(MendError::Hopeless {
            why: "the socket is not there, and only a start of the daemon makes it",
        });
    }
    let group = group(host);
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    // Nobody may connect between the two.
    fs::set_permissions(&host.socket, fs::Permissions::from_mode(0o600))
        .map_err(failed("set the mode"))?;
    if group.is_some() {
        std::os::unix::fs::chown(&host.socket, None, group).map_err(failed("set the group"))?;
    }
    fs::set_permissions(&host.socket, fs::Permissions::from_mode(mode))
        .map_err(failed("set the mode"))?;
    Ok(format!("set {} to mode {mode:04o}", host.socket.display()))
}

fn directory(host: &Host) -> Finding {
    let Some(dir) = host.socket.parent() else {
        return Finding::skipped("the socket is in no directory");
    };
    let mode = match fs::metadata(dir) {
        Ok(metadata) => metadata.permissions().mode() & 0o7777,
        Err(error) => {
            return Finding::problem(
                format!("{}: {error}", dir.display()),
                "No client finds the socket.",
            )
            .remedy("Start the daemon anew: VMs run on.")
            .command("systemctl restart bangerd");
        }
    };
    let found = format!("{} {mode:04o}", dir.display());
    if mode & WORLD_WRITES != 0 && mode & STICKY == 0 {
        return Finding::problem(
            found,
            "Everybody on this host can put another socket there, and is then believed to be the daemon.",
        )
        .remedy("Close the directory for others.")
        .command(format!("chmod o-w {}", dir.display()));
    }
    Finding::ok(found)
}

fn close_directory(host: &Host) -> Result<String, MendError> {
    let dir = host.socket.parent().ok_or(MendError::Hopeless {
        why: "the socket is in no directory",
    })?;
    let closed = || -> std::io::Result<u32> {
        let mode = fs::metadata(dir)?.permissions().mode() & 0o7777 & !WORLD_WRITES;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        Ok(mode)
    };
    let mode = closed().map_err(|source| MendError::Step {
        step: format!("set the mode of {}", dir.display()),
        source,
    })?;
    Ok(format!("set {} to mode {mode:04o}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    fn chmod(path: &std::path::Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_socket_for_everybody_is_a_problem_and_closed() {
        let (_dir, mut host) = laid_out::host(&[]);
        host.is_root = false;
        fs::create_dir(host.socket.parent().unwrap()).unwrap();
        assert!(mode(&host).command.contains("restart"));
        assert!(set_mode(&host).is_err());
        let _listener = UnixListener::bind(&host.socket).unwrap();
        chmod(&host.socket, 0o666);
        assert_eq!(mode(&host).verdict, Verdict::Problem);
        assert!(set_mode(&host).unwrap().ends_with("0600"));
        assert_eq!(mode(&host).verdict, Verdict::Ok);
        fs::remove_file(&host.socket).unwrap();
        fs::write(&host.socket, "").unwrap();
        assert!(mode(&host).found.ends_with("is not a socket"));
    }

    #[test]
    fn roots_socket_is_its_groups() {
        let own = rustix::process::getegid().as_raw();
        let groups = format!("root:x:0:\nbanger:x:{own}:me\n");
        let (dir, mut host) = laid_out::host(&[("/etc/group", &groups)]);
        host.is_root = true;
        fs::create_dir(host.socket.parent().unwrap()).unwrap();
        let _listener = UnixListener::bind(&host.socket).unwrap();
        chmod(&host.socket, 0o600);
        let narrow = mode(&host);
        assert_eq!(narrow.verdict, Verdict::Warning);
        assert!(narrow.cause.contains("`banger`"));
        assert!(set_mode(&host).unwrap().ends_with("0660"));
        assert_eq!(mode(&host).verdict, Verdict::Ok);
        laid_out::write(dir.path(), "/etc/group", "banger:x:54321:\n");
        assert_eq!(mode(&host).verdict, Verdict::Problem);
    }

    #[test]
    fn a_directory_that_everybody_writes_to_is_closed() {
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(directory(&host).verdict, Verdict::Problem);
        assert!(close_directory(&host).is_err());
        let dir = host.socket.parent().unwrap();
        fs::create_dir(dir).unwrap();
        chmod(dir, 0o1777);
        assert_eq!(directory(&host).verdict, Verdict::Ok);
        chmod(dir, 0o777);
        assert_eq!(directory(&host).verdict, Verdict::Problem);
        assert!(close_directory(&host).unwrap().ends_with("0775"));
        assert_eq!(directory(&host).verdict, Verdict::Ok);
    }
}
