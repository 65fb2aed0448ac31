//! `banger cert`: a small authority for those who have none, kept in a directory.

mod authority;
mod error;
mod record;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use futures::stream;
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::Failure;
use crate::view;
use authority::{Authority, Order};
pub(crate) use error::CertError;
use record::Kind;

/// Days that certificates are valid for.
const DAYS: u32 = 365;
/// Days that an authority is valid for.
const AUTHORITY_DAYS: u32 = 3650;
/// The most days: what is valid longer than this outlives its reason.
const DAYS_MAX: i64 = 36_500;

/// Make the certificates by which a daemon and its clients on other hosts know each other
#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    Init(Init),
    Issue(Issue),
    #[command(visible_alias = "ls")]
    List(List),
    Revoke(Revoke),
}

impl Cert {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Init(init) => init.run(context),
            Self::Issue(issue) => issue.run(context),
            Self::List(list) => list.run(context).await,
            Self::Revoke(revoke) => revoke.run(context).await,
        }
    }
}

/// Where the authority is.
#[derive(Debug, Args)]
struct Place {
    /// The authority's directory; by itself /etc/banger/pki as root, and $XDG_CONFIG_HOME/banger/pki otherwise
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Place {
    fn path(self) -> Result<PathBuf, Failure> {
        let path = self.dir.or_else(usual).ok_or_else(|| Failure::Usage {
            problem: "there is no home directory: name the authority's directory with --dir".into(),
        })?;
        std::path::absolute(&path).map_err(|source| Failure::ReadFile { path, source })
    }
}

fn usual() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/etc/banger/pki".into());
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
    Some(config.join("banger/pki"))
}

/// Make an authority
#[derive(Debug, Args)]
#[command(after_help = "\
Makes a directory for you alone, with the authority's certificate ca.crt, its key ca.key, and the list ca.crl of what it \
revoked. Keep the key: who has it can name itself whoever it likes. It need not be on the daemon's host, which needs \
ca.crt and ca.crl alone.

Examples:
  banger cert init
  banger cert init --dir ~/lab-pki --name 'Lab authority' --days 1825")]
pub(crate) struct Init {
    #[command(flatten)]
    place: Place,
    /// What the authority calls itself
    #[arg(long, default_value = "banger authority", value_name = "NAME")]
    name: String,
    /// How many days it is valid for
    #[arg(long, default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX), value_name = "DAYS")]
    days: u32,
}

impl Init {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let path = self.place.path()?;
        let made = Authority::make(&path, &self.name, self.days)?;
        context.printer().changed(&view::Authority {
            directory: path.display().to_string(),
            name: self.name,
            not_after: made,
        })
    }
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Reads.
    Viewer,
    /// Its own VMs.
    User,
    /// All VMs.
    Operator,
    /// Images, kernels, catalogs and the host, too.
    Admin,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Issue a certificate to a client, or to a daemon
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the directory that was made. A client's has client.crt, client.key and ca.crt: take it to the client's host by a \
way that nobody else can read, and name it there with --tls-cert or BANGER_CERT. A daemon's has server.crt, server.key \
and ca.crt. What has the name already stays unless --replace is given; the certificate that it replaces is not revoked.

Examples:
  banger cert issue ci --role user
  banger cert issue ann --role admin --days 30 --out ./ann
  banger cert issue --server sandbox.example.com --san 10.0.0.7
  BANGER_HOST=https://sandbox.example.com banger --tls-cert ./ann vm list")]
pub(crate) struct Issue {
    /// Whom: 1 to 64 letters, digits and `.`, `_`, `-`, `@`; for a daemon its DNS name or address
    name: String,
    /// What the client may do
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        required_unless_present = "server",
        conflicts_with = "server"
    )]
    role: Option<Role>,
    /// Issue to a daemon
    #[arg(long)]
    server: bool,
    /// Another DNS name or address by which clients reach the daemon
    #[arg(long = "san", value_name = "NAME", requires = "server")]
    sans: Vec<String>,
    /// How many days it is valid for
    #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX), value_name = "DAYS")]
    days: u32,
    /// The directory to make; by itself clients/NAME or servers/NAME in the authority's
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Replace the files in a directory that is there
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: Place,
}

impl Issue {
    fn run(self, context: &Context) -> Result<u8, Failure> {
        let authority = Authority::open(&self.place.path()?)?;
        let kind = match self.role {
            Some(role) => Kind::Client {
                role: role.as_str().to_owned(),
            },
            None => Kind::Server,
        };
        let order = Order {
            name: self.name,
            kind,
            sans: self.sans,
            days: self.days,
            out: self.out,
            replace: self.replace,
        };
        let (entry, directory) = authority.issue(order)?;
        context.printer().changed(&view::Issued {
            certificate: entry.view(Timestamp::now()),
            directory: directory.display().to_string(),
        })
    }
}

/// List the certificates that were issued, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger cert list
  banger cert list --expiring 30 --output json")]
pub(crate) struct List {
    #[command(flatten)]
    place: Place,
    /// Only those that are valid, and end within this many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=DAYS_MAX))]
    expiring: Option<u32>,
}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let now = Timestamp::now();
        let mut entries = Authority::open(&self.place.path()?)?.entries();
        entries.reverse();
        if let Some(days) = self.expiring {
            entries.retain(|entry| entry.ends_within(now, days));
        }
        let rows = entries.into_iter().map(Ok);
        let view = |entry: record::Entry| entry.view(now);
        context.printer().list(stream::iter(rows), view).await
    }
}

/// Revoke certificates: daemons that watch the list let their holders in no longer
#[derive(Debug, Args)]
#[command(after_help = "\
Writes the list ca.crl anew. A daemon whose tcp.crl_files names that file reads it by itself, and closes what is open \
with the certificate; on another host, copy the list there.

Examples:
  banger cert revoke ci
  banger cert revoke 0f3a5c7e9b1d2f4a6c8e0a1b2c3d4e5f")]
pub(crate) struct Revoke {
    /// A serial number, or a name: then all certificates that it has
    certificate: String,
    #[command(flatten)]
    place: Place,
}

impl Revoke {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let now = Timestamp::now();
        let revoked = Authority::open(&self.place.path()?)?.revoke(&self.certificate)?;
        let rows = revoked.into_iter().map(Ok);
        let view = |entry: record::Entry| entry.view(now);
        context.printer().list(stream::iter(rows), view).await
    }
}
