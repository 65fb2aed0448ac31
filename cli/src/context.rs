//! What every command is given: the daemon to talk to and how to print.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use banger_sdk::{Client, Credentials, Host, HostError};

use crate::args::{Format, Global};
use crate::failure::Failure;
use crate::output::Printer;
use crate::progress::{Progress, Style};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    host: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    /// How to print what was read.
    pub(crate) format: Format,
    /// Ids or names only, and no progress.
    pub(crate) quiet: bool,
    /// The time of each stage.
    pub(crate) verbose: bool,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            host: global.host.clone(),
            cert: global.tls_cert.clone().map(PathBuf::from),
            key: global.tls_key.clone().map(PathBuf::from),
            ca: global.tls_ca.clone().map(PathBuf::from),
            format: global.output,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// Which daemon to talk to.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        Ok(self.find().map_err(banger_sdk::Error::from)?)
    }

    fn find(&self) -> Result<Host, HostError> {
        let host: Host = match &self.host {
            Some(text) if !text.is_empty() => text.parse()?,
            _ => return Ok(Host::local()),
        };
        if host.is_local() {
            return Ok(host);
        }
        let given = Credentials::given(self.cert.clone(), self.key.clone(), self.ca.clone())?;
        Ok(match given {
            Some(credentials) => host.with_credentials(credentials),
            None => host,
        })
    }

    /// Whether the daemon was named, and is not the one that is there.
    pub(crate) fn has_host(&self) -> bool {
        self.host.as_ref().is_some_and(|text| !text.is_empty())
    }

    /// Connects to the daemon.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.host()?).await?)
    }

    /// What prints results.
    pub(crate) const fn printer(&self) -> Printer {
        Printer::new(self.format, self.quiet)
    }

    /// What shows progress.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(if self.is_silent() {
            Style::None
        } else {
            Style::All
        })
    }

    /// What shows progress beside a command's own output: without a terminal, lines only of what takes
    /// long, since `--verbose` ends with a table of all stages.
    pub(crate) fn quiet_progress(&self) -> Progress {
        Progress::new(if self.is_silent() {
            Style::None
        } else {
            Style::Items
        })
    }

    /// Whether nothing but errors may be on standard error: a program reads them there.
    pub(crate) fn is_silent(&self) -> bool {
        self.quiet || (self.format == Format::Json && !std::io::stderr().is_terminal())
    }

    /// Tells of a failure, and returns its exit code.
    pub(crate) fn report(&self, failure: &Failure) -> u8 {
        let text = match (failure, self.format) {
            (Failure::BrokenPipe, _) => return failure.exit_code(),
            (_, Format::Json) => failure.json(),
            (_, Format::Table) => failure.text(),
        };
        // Where errors cannot be told there is the exit code.
        let _ = writeln!(std::io::stderr(), "{text}");
        failure.exit_code()
    }
}
