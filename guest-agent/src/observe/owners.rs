//! Which processes have sockets open: by the links in `/proc/<pid>/fd`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Instant;

use banger_proto::guest::v1::ListeningProcess;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By the socket's inode: the process with the lowest number.
    pub(super) processes: HashMap<u64, ListeningProcess>,
    /// Time ran out before all were found.
    pub(super) is_truncated: bool,
}

/// The processes that have these sockets open. One that ends meanwhile is passed over, as is a socket that
/// nobody has open (the kernel's own).
pub(super) fn find(inodes: &[u64], until: Instant) -> Owners {
    let mut wanted: HashSet<u64> = inodes.iter().copied().collect();
    let mut owners = Owners::default();
    for pid in processes() {
        if wanted.is_empty() {
            break;
        }
        if Instant::now() >= until {
            owners.is_truncated = true;
            break;
        }
        owners.look(pid, &mut wanted, until);
    }
    owners
}

impl Owners {
    fn look(&mut self, pid: i32, wanted: &mut HashSet<u64>, until: Instant) {
        let mut process = None;
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            if Instant::now() >= until {
                self.is_truncated = true;
                return;
            }
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode = link.to_str().and_then(socket);
            if let Some(inode) = inode.filter(|inode| wanted.remove(inode)) {
                let process = process.get_or_insert_with(|| describe(pid));
                self.processes.insert(inode, process.clone());
            }
        }
    }
}

fn processes() -> Vec<i32> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries.filter_map(number).filter(|&pid| pid > 0).collect();
    pids.sort_unstable();
    pids
}

/// The inode in `socket:[12345]`.
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn describe(pid: i32) -> ListeningProcess {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ListeningProcess {
        pid,
        name: String::from_utf8_lossy(&name).trim_end().to_owned(),
        uid: effective_uid(&status).unwrap_or_default(),
    }
}

/// Of the four in `Uid:`, the second.
fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;

    fn inode(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        super::socket(fs::read_link(path).unwrap().to_str().unwrap()).unwrap()
    }

    #[test]
    fn a_socket_is_traced_to_the_process_that_has_it_open() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = inode(&listener);
        let owners = find(
            &[socket, u64::MAX],
            Instant::now() + Duration::from_secs(60),
        );
        let process = &owners.processes[&socket];
        assert_eq!(process.pid, i32::try_from(std::process::id()).unwrap());
        assert!(!process.name.is_empty());
        assert_eq!(process.uid, rustix::process::geteuid().as_raw());
        assert_eq!(owners.processes.len(), 1, "{owners:?}");
    }

    #[test]
    fn a_search_that_is_out_of_time_says_so() {
        let owners = find(&[1], Instant::now());
        assert!(owners.is_truncated && owners.processes.is_empty());
        assert!(!find(&[], Instant::now()).is_truncated);
    }

    #[test]
    fn links_and_ids_are_read_as_the_kernel_writes_them() {
        assert_eq!(socket("socket:[12]"), Some(12));
        assert_eq!(socket("pipe:[12]"), None);
        assert_eq!(
            effective_uid("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\n"),
            Some(2)
        );
    }
}
