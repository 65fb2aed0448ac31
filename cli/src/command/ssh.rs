//! `banger ssh-config`, and what the lines that it prints have ssh run: ssh to VMs by name, though no image has an sshd.

use std::env;
use std::path::{self, Path};

use banger_sdk::TunnelTarget;
use clap::{Args, ValueHint};

use super::vm::forward::stdio;
use crate::args::Format;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::view::SshConfigItem;

/// What a VM's name ends with where it stands for a host.
const DOMAIN: &str = ".vm";

/// Print the lines of ~/.ssh/config by which ssh, scp, sftp and rsync reach VMs as NAME.vm
#[derive(Debug, Args)]
#[command(after_help = "\
The ssh server is banger's own: the image needs no sshd, the VM no network, and the host opens no
port. Who may use the daemon's socket may log in as any user of the VM; a VM that was created with
--ssh-key asks for one of those keys too. ssh knows each VM by a host key that it asks the daemon
for, so there is no question at the first connection and no warning about a VM that was made again.

Without --user, NAME.vm logs in as root; ssh app@NAME.vm logs in as app.

Examples:
  banger ssh-config >> ~/.ssh/config
  ssh web.vm
  scp -r ./src web.vm:work
  rsync -a ./src/ web.vm:work/
  ssh -L 8080:localhost:80 web.vm
  git push ssh://web.vm/root/repo.git main
  banger ssh-config --user app --start > vms.conf && ssh -F vms.conf web.vm")]
pub(crate) struct SshConfig {
    /// Log in as this user where none is named
    #[arg(long, value_name = "NAME", default_value = "root")]
    user: String,
    /// Offer this key alone
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    identity: Option<String>,
    /// Start a VM that is stopped
    #[arg(long)]
    start: bool,
}

impl SshConfig {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Failure> {
        let program = env::current_exe().map_err(|source| Failure::Runtime { source })?;
        let mut banger = word(&program)?;
        if context.has_host() {
            // ssh may be run from anywhere.
            let absolute =
                |path: &Path| path::absolute(path).map_err(|source| Failure::Runtime { source });
            let host = context.host()?;
            let place = match host.path() {
                Some(socket) => absolute(socket)?,
                None => host.to_string().into(),
            };
            banger = format!("{banger} --host {}", word(&place)?);
            if let Some(shown) = host.credentials() {
                for (option, file) in [
                    ("--tls-cert", &shown.cert_file),
                    ("--tls-key", &shown.key_file),
                    ("--tls-ca", &shown.ca_file),
                ] {
                    banger = format!("{banger} {option} {}", word(&absolute(file)?)?);
                }
            }
        }
        let start = if self.start { " --start" } else { "" };
        let mut options = vec![
            ("User", value(&self.user)?),
            ("ProxyCommand", format!("{banger} ssh-proxy{start} %h")),
            ("KnownHostsCommand", format!("{banger} ssh-host-key %H")),
            ("UserKnownHostsFile", "/dev/null".into()),
            ("GlobalKnownHostsFile", "/dev/null".into()),
            ("StrictHostKeyChecking", "yes".into()),
            ("UpdateHostKeys", "no".into()),
            ("CheckHostIP", "no".into()),
        ];
        if let Some(identity) = &self.identity {
            options.push(("IdentityFile", word(Path::new(identity))?));
            options.push(("IdentitiesOnly", "yes".into()));
        }
        let config = SshConfigItem::new(format!("*{DOMAIN}"), options);
        match context.format {
            Format::Json => output::json(&config)?,
            Format::Table => output::lines(config.lines())?,
        }
        Ok(0)
    }
}

/// A path as ssh_config(5) and a shell both take it.
fn word(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().unwrap_or("\n");
    if text.contains(['"', '\\', '$', '`', '\n']) {
        return Err(Failure::Usage {
            problem: format!(
                "`{}` cannot be written into a configuration of ssh: give it a name of letters, digits and the like",
                path.display()
            ),
        });
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// A user's name as ssh_config(5) takes it.
fn value(user: &str) -> Result<String, Failure> {
    let is_word = !user.is_empty() && !user.contains(|c: char| c.is_whitespace() || c == '"');
    is_word.then(|| user.to_owned()).ok_or(Failure::Usage {
        problem: format!("`{user}` is no user's name"),
    })
}

/// Carry one connection to a VM's ssh server between standard input and output
#[derive(Debug, Args)]
#[command(after_help = "\
What the ProxyCommand of banger ssh-config runs.

Examples:
  ssh -o ProxyCommand='banger ssh-proxy %h' root@web.vm")]
pub(crate) struct SshProxy {
    /// NAME.vm, or the VM's name or id
    #[arg(value_name = "HOST")]
    vm: String,
    /// Start the VM if it is stopped
    #[arg(long)]
    start: bool,
}

impl SshProxy {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let vm = vm_of(&self.vm);
        if self.start {
            client.vms().start(vm).await?;
        }
        stdio(client.tunnels().open(vm, TunnelTarget::Ssh).await?).await
    }
}

/// Print the host key of a VM's ssh server as a line of known_hosts
#[derive(Debug, Args)]
#[command(after_help = "\
What the KnownHostsCommand of banger ssh-config runs. The key comes over the same socket as every
answer of the daemon; it belongs to the VM, and is gone with it.

Examples:
  banger ssh-host-key web.vm")]
pub(crate) struct SshHostKey {
    /// NAME.vm, [NAME.vm]:PORT, or the VM's name or id
    #[arg(value_name = "HOST")]
    vm: String,
}

impl SshHostKey {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-.[]:_".contains(c);
        if !self.vm.chars().all(is_host) {
            let problem = format!("`{}` is no host of a VM: write NAME{DOMAIN}", self.vm);
            return Err(Failure::Usage { problem });
        }
        let client = context.client().await?;
        let key = client.vms().ssh_host_key(vm_of(&self.vm)).await?;
        output::lines([format!("{} {key}", self.vm)]).map(|()| 0)
    }
}

/// The VM that a host of ssh stands for.
fn vm_of(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let name = bare.map_or(host, |(name, _)| name);
    name.strip_suffix(DOMAIN).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stands_for_a_vm() {
        for host in ["web", "web.vm", "[web.vm]:2222", "[web]:22"] {
            assert_eq!(vm_of(host), "web", "{host}");
        }
    }

    #[test]
    fn paths_are_quoted_or_refused() {
        assert_eq!(word(Path::new("/a b/50%")).unwrap(), "\"/a b/50%%\"");
        for wrong in ["/a\"b", "/a$b", "/a\nb", "/a`b`"] {
            assert!(word(Path::new(wrong)).is_err(), "{wrong:?}");
        }
        assert!(value("app").is_ok());
        assert!(value("a b").is_err());
    }
}
