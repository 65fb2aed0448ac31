//! Users and groups, read from the image's own `/etc/passwd` and `/etc/group`.
//!
//! The agent is statically linked, so there is no name service to ask. Both files belong to the guest:
//! what is too long or malformed is passed over.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::refusal::Refusal;

/// Bytes of a database that are read; what comes after is not seen.
const DATABASE_MAX_BYTES: u64 = 4 << 20;
/// Supplementary groups of a process, NGROUPS_MAX of the kernel being far above.
const GROUPS_MAX: usize = 1024;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, the first one included.
    pub groups: Vec<u32>,
    /// Login name; the number where there is none.
    pub name: String,
    /// Home directory; `/` where none is known.
    pub home: String,
}

/// The two databases.
#[derive(Debug, Clone, Default)]
pub struct Users {
    passwd: String,
    group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Users {
    /// Reads `etc/passwd` and `etc/group` under `root`; one that is missing is empty.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        Self {
            passwd: database(&root.join("etc/passwd")),
            group: database(&root.join("etc/group")),
        }
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or("/");
            Some(Account {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    /// Name, id and members of each group.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }

    /// Resolves `user`, `uid`, `user:group` or `uid:gid`; empty means root. A name wins over a number, and
    /// a number needs no entry. A group that is given replaces the supplementary groups, as with `docker
    /// run --user`.
    ///
    /// # Errors
    /// [`Refusal::UnknownUser`].
    pub fn resolve(&self, user: &str) -> Result<Identity, Refusal> {
        let unknown = || Refusal::UnknownUser {
            user: user.to_owned(),
        };
        let (user_part, group_part) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let user_part = if user_part.is_empty() { "0" } else { user_part };
        let account = self
            .accounts()
            .find(|account| account.name == user_part)
            .or_else(|| {
                let uid: u32 = user_part.parse().ok()?;
                self.accounts().find(|account| account.uid == uid)
            });
        let mut identity = match account {
            Some(account) => Identity {
                uid: account.uid,
                gid: account.gid,
                groups: self.memberships(account.name, account.gid),
                name: account.name.to_owned(),
                home: account.home.to_owned(),
            },
            None => {
                let uid = id(user_part).ok_or_else(unknown)?;
                Identity {
                    uid,
                    gid: 0,
                    groups: vec![0],
                    name: if uid == 0 { "root" } else { user_part }.to_owned(),
                    home: if uid == 0 { "/root" } else { "/" }.to_owned(),
                }
            }
        };
        if let Some(group) = group_part {
            let named = self.groups().find(|(name, ..)| *name == group);
            let gid = named.map(|(_, gid, _)| gid).or_else(|| id(group));
            identity.gid = gid.ok_or_else(unknown)?;
            identity.groups = vec![identity.gid];
        }
        Ok(identity)
    }

    /// The name of a user id; empty where there is none.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> String {
        let found = self.accounts().find(|account| account.uid == uid);
        found.map_or_else(String::new, |account| account.name.to_owned())
    }

    /// The name of a group id; empty where there is none.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> String {
        let found = self.groups().find(|(_, found, _)| *found == gid);
        found.map_or_else(String::new, |(name, ..)| name.to_owned())
    }

    fn memberships(&self, name: &str, first: u32) -> Vec<u32> {
        let mut groups = vec![first];
        for (_, gid, members) in self.groups() {
            let is_member = members.split(',').any(|member| member == name);
            if is_member && !groups.contains(&gid) && groups.len() < GROUPS_MAX {
                groups.push(gid);
            }
        }
        groups
    }
}

/// A numeric id. The highest one means "none" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

fn database(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What could be read is used; a database that cannot be read is empty.
        let _ = file.take(DATABASE_MAX_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\n\
                     bad line\n\
                     web:x:1000:1000::/home/web:/bin/sh\n\
                     1001:x:7:7::/odd:/bin/sh\n"
                .into(),
            group: "root:x:0:\nweb:x:1000:\nvideo:x:44:root,web\nsudo:x:27:web\n".into(),
        }
    }

    #[test]
    fn a_name_brings_its_groups() {
        let identity = users().resolve("web").unwrap();
        assert_eq!((identity.uid, identity.gid), (1000, 1000));
        assert_eq!(identity.groups, [1000, 44, 27]);
        assert_eq!(identity.home, "/home/web");
    }

    #[test]
    fn nothing_means_root() {
        assert_eq!(users().resolve("").unwrap().name, "root");
        let bare = Users::default().resolve("").unwrap();
        assert_eq!((bare.uid, bare.home.as_str()), (0, "/root"));
    }

    #[test]
    fn numbers_need_no_entry_and_names_win() {
        assert_eq!(users().resolve("4242").unwrap().uid, 4242);
        assert_eq!(users().resolve("1000").unwrap().name, "web");
        assert_eq!(users().resolve("1001").unwrap().uid, 7);
    }

    #[test]
    fn a_group_replaces_the_supplementary_ones() {
        let identity = users().resolve("web:video").unwrap();
        assert_eq!((identity.gid, identity.groups), (44, vec![44]));
        assert_eq!(users().resolve("5:6").unwrap().gid, 6);
    }

    #[test]
    fn unknown_names_are_refused() {
        for user in ["nobody", "web:nothing", "-1", "4294967295", "web:-3"] {
            let refusal = users().resolve(user).unwrap_err();
            assert_eq!(refusal.to_string(), format!("user `{user}` does not exist"));
        }
    }
}
