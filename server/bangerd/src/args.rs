//! The command line: where to find the configuration, and the few settings that may be said twice.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

use crate::config::{Config, ConfigError, Place};
use crate::listen::reload::Reread;
use crate::logging::LogFormat;

/// The banger daemon: runs virtual machines as sandboxes behind one gRPC API on a Unix socket.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "bangerd",
    version,
    max_term_width = 100,
    after_help = "Examples:
  bangerd                                         serve with the defaults of this user
  bangerd --config /etc/banger/bangerd.toml --check-config
  bangerd --state-dir /tmp/b --socket /tmp/b/s    serve from a scratch directory"
)]
pub struct Args {
    /// The configuration file; by default /etc/banger/bangerd.toml as root and
    /// $XDG_CONFIG_HOME/banger/bangerd.toml otherwise, neither of which must exist
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where everything is kept; overrides `state_dir` of the configuration
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// The socket to serve on; overrides `socket` of the configuration
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// The static agent binary; overrides `agent` of the configuration
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,

    /// How to log; overrides `log_format` of the configuration
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to log: a level, or targets with levels; overrides `log_level` of the configuration
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Check the configuration, tell every mistake, and end: with 0 or 64
    #[arg(long)]
    pub check_config: bool,
}

impl Args {
    /// The configuration file, if there is one.
    fn file(&self) -> Option<PathBuf> {
        let place = Place::of_this_process();
        self.config
            .clone()
            .or_else(|| place.config_file().map(PathBuf::from))
    }

    /// How a daemon that was started so reads its configuration again.
    #[must_use]
    pub fn reread(&self) -> Reread {
        let args = self.clone();
        let file = self.file();
        Reread {
            file: file.and_then(|file| std::path::absolute(file).ok()),
            read: Arc::new(move || args.load_config()),
        }
    }

    /// The configuration file with the command line on top, checked.
    ///
    /// # Errors
    /// With every mistake of the file, or of what came together.
    pub fn load_config(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.file().as_deref())?;
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let set = |setting: &mut PathBuf, path: &Option<PathBuf>| {
            if let Some(path) = path {
                *setting = absolute(path);
            }
        };
        set(&mut config.state_dir, &self.state_dir);
        set(&mut config.socket, &self.socket);
        set(&mut config.agent, &self.agent);
        if let Some(format) = self.log_format {
            config.log_format = format;
        }
        if let Some(level) = &self.log_level {
            config.log_level.clone_from(level);
        }
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(
            &file,
            "state_dir = \"/a\"\nlog_level = \"warn\"\nmax_vms = 3\n",
        )
        .unwrap();
        let args = Args::parse_from([
            "bangerd",
            "--config",
            file.to_str().unwrap(),
            "--state-dir",
            "/b",
            "--log-format",
            "json",
        ]);
        let config = args.load_config().unwrap();
        assert_eq!(config.state_dir, PathBuf::from("/b"));
        assert_eq!(config.log_level, "warn");
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.max_vms, 3);
    }

    #[test]
    fn a_named_file_must_exist() {
        let args = Args::parse_from(["bangerd", "--config", "/nonexistent/c.toml"]);
        assert!(matches!(args.load_config(), Err(ConfigError::Read { .. })));
    }
}
