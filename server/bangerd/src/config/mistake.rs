//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or the line where the file is not TOML.
    pub at: String,
    /// What is wrong there.
    pub problem: String,
}

impl Mistake {
    /// A mistake in a key.
    #[must_use]
    pub fn new(key: &str, problem: &str) -> Self {
        Self {
            at: format!("`{key}`"),
            problem: problem.to_owned(),
        }
    }

    /// A key whose value does not fit, or that is none.
    #[must_use]
    pub fn of_key(key: &str, error: &toml::de::Error) -> Self {
        // All keys there are would hide the mistakes.
        let told = error.message();
        let is_unknown = told.starts_with("unknown field");
        Self::new(key, if is_unknown { "is no setting" } else { told })
    }

    /// A file that is not TOML.
    #[must_use]
    pub fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = text
            .bytes()
            .take(start)
            .filter(|&byte| byte == b'\n')
            .count()
            + 1;
        Self {
            at: format!("line {line}"),
            problem: error.message().to_owned(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration file `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can, and is wrong.
    #[error("{}", list(path.as_ref(), mistakes))]
    Mistakes {
        /// Which file; absent where file and command line together are wrong.
        path: Option<PathBuf>,
        /// All of them.
        mistakes: Vec<Mistake>,
    },
}

fn list(path: Option<&PathBuf>, mistakes: &[Mistake]) -> String {
    let place = path.map_or_else(String::new, |path| format!(" file `{}`", path.display()));
    let lines: Vec<String> = mistakes
        .iter()
        .map(|mistake| format!("\n  {mistake}"))
        .collect();
    format!(
        "the configuration{place} has {} mistake(s):{}",
        mistakes.len(),
        lines.concat()
    )
}
