//! The command tree. Options that several commands share are here; a command's own are in its file.

use std::ffi::OsString;

use banger_sdk::{CERTIFICATE_VARIABLES, HOST_VARIABLE};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::command;

const AFTER_HELP: &str = "\
Examples:
  banger run debian:bookworm -- uname -a
  banger image pull debian:bookworm
  banger vm create debian:bookworm --name web && banger vm shell web
  banger cp -r ./src web:work
  banger workspace prepare web . && banger workspace export web
  banger ssh-config >> ~/.ssh/config && ssh web.vm
  banger vm list --output json

Exit codes:
  0      done; for `run`, `vm exec`, `session attach` and `session wait`: the command's own code
  1      `doctor` found problems, `workspace` left something behind or met conflicts
  124    the command ran longer than its --timeout
  125    banger itself failed, or was used wrongly
  126    the command exists and cannot be executed
  127    the command does not exist
  128+n  the command was ended by signal n, or banger was

Environment:
  BANGER_HOST  the daemon's socket: unix:///path or a path. Without it, root talks to
               /run/banger/bangerd.sock, others to $XDG_RUNTIME_DIR/banger/bangerd.sock if there.
               A daemon on another host: https://HOST:PORT, port 7443 if none is given
  BANGER_CERT, BANGER_KEY, BANGER_CA
               PEM files of the client's certificate and key, and of the daemon's authority, for
               a daemon on another host; or BANGER_CERT alone, the directory of banger cert issue.
               The options --tls-cert, --tls-key and --tls-ca of every command are the same";

/// Real virtual machines as sandboxes.
#[derive(Debug, Parser)]
#[command(name = "banger", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The daemon: unix:///path/to/bangerd.sock or the path; https://HOST:PORT on another host
    #[arg(long, global = true, env = HOST_VARIABLE, hide_env = true, value_name = "HOST", help_heading = "Global options")]
    pub(crate) host: Option<String>,
    /// For another host: the client's certificate (PEM), or the directory of banger cert issue, which has all three
    #[arg(long, global = true, env = CERTIFICATE_VARIABLES[0], hide_env = true, hide = true, value_name = "PATH", value_hint = ValueHint::AnyPath, help_heading = "Global options")]
    pub(crate) tls_cert: Option<OsString>,
    /// For another host: the certificate's key (PEM)
    #[arg(long, global = true, env = CERTIFICATE_VARIABLES[1], hide_env = true, hide = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub(crate) tls_key: Option<OsString>,
    /// For another host: the authority of the daemon's certificate (PEM)
    #[arg(long, global = true, env = CERTIFICATE_VARIABLES[2], hide_env = true, hide = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub(crate) tls_ca: Option<OsString>,
    /// How to print what is read, and errors; JSON keeps its shape from version to version
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
    /// Print ids or names only, and no progress
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Print the time of each stage
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "quiet",
        help_heading = "Global options"
    )]
    pub(crate) verbose: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one document, or one line per item for streams.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<command::run::Run>),
    #[command(subcommand, visible_alias = "images")]
    Image(command::image::Image),
    #[command(subcommand, visible_alias = "kernels")]
    Kernel(command::kernel::Kernel),
    #[command(subcommand, visible_alias = "catalogs")]
    Catalog(command::catalog::Catalog),
    #[command(subcommand, visible_alias = "vms")]
    Vm(command::vm::Vm),
    #[command(subcommand, visible_alias = "volumes")]
    Volume(command::volume::Volume),
    #[command(subcommand, visible_alias = "sessions")]
    Session(command::session::Session),
    Cp(command::cp::Cp),
    #[command(subcommand, visible_alias = "files")]
    File(command::file::File),
    #[command(subcommand, visible_alias = "ws")]
    Workspace(command::workspace::Workspace),
    SshConfig(command::ssh::SshConfig),
    /// Carry one ssh connection; what ssh runs
    #[command(hide = true)]
    SshProxy(command::ssh::SshProxy),
    /// Print the host key of a VM; what ssh runs
    #[command(hide = true)]
    SshHostKey(command::ssh::SshHostKey),
    #[command(subcommand, visible_alias = "operations")]
    Operation(command::operation::Operation),
    Events(command::event::Events),
    #[command(subcommand)]
    Host(command::host::Host),
    #[command(subcommand, visible_alias = "certs")]
    Cert(command::cert::Cert),
    Doctor(command::doctor::Doctor),
    Completion(command::completion::Completion),
}
