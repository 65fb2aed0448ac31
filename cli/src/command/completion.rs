//! `banger completion`: a script for the shell, which asks banger itself for names.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::complete::VARIABLE;
use crate::failure::Failure;
use crate::output;

/// bash takes `VM:PATH` for three words, unless it is told that a colon ends none.
const WHOLE_WORDS: &str = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}";

/// Print a script that teaches a shell to complete banger's commands and the names of VMs and images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo 'source <(banger completion bash)' >> ~/.bashrc
  echo 'source <(banger completion zsh)' >> ~/.zshrc
  banger completion fish > ~/.config/fish/completions/banger.fish")]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

impl Completion {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let completer: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let mut script = Vec::new();
        completer
            .write_registration(VARIABLE, "banger", "banger", "banger", &mut script)
            .map_err(Failure::Write)?;
        let script = String::from_utf8_lossy(&script).trim_end().to_owned();
        let more = matches!(self.shell, Shell::Bash).then(|| WHOLE_WORDS.to_owned());
        output::lines([script].into_iter().chain(more))?;
        Ok(0)
    }
}
