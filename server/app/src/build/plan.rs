//! From a stage's instructions to what is done: variables replaced, paths joined, the configuration that
//! results. Everything is known before the first step runs, because no step changes a variable.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::image::{ImageConfig, Platform};
use serde::Serialize;

use super::error::BuildError;
use super::recipe::{Copying, Form, From, Line, PROXIES, Recipe, What, automatic, declared};
use super::words::{Variables, Words};

/// The shell of commands in shell form, unless SHELL says another.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What a stage's image will be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) config: ImageConfig,
    pub(super) volumes: BTreeSet<String>,
    /// For commands in shell form; empty means the usual one.
    pub(super) shell: Vec<String>,
    /// What made it, in order.
    pub(super) history: Vec<History>,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    pub(super) text: String,
    /// Whether it changed files.
    pub(super) changes: bool,
}

/// What is done in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) line: u32,
    /// As people are shown it.
    pub(super) text: String,
    pub(super) action: Action,
}

/// What a step does. Its serialised form is part of the step's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) enum Action {
    Run {
        command: Vec<String>,
        env: BTreeMap<String, String>,
        user: String,
        working_dir: String,
    },
    Copy(Copy),
    Workdir {
        path: String,
        user: String,
    },
}

/// What is copied where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Copy {
    pub(super) keyword: &'static str,
    pub(super) from: CopyFrom,
    pub(super) sources: Vec<String>,
    /// Absolute; with a slash at its end where it is a directory.
    pub(super) dest: String,
    /// `user` or `user:group`; absent means root.
    pub(super) owner: Option<String>,
    pub(super) mode: Option<u16>,
}

/// Where is copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) enum CopyFrom {
    Context,
    Stage(usize),
    Image(String),
    /// The Dockerfile itself.
    Inline(String),
}

/// A stage ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StagePlan {
    pub(super) steps: Vec<Step>,
    pub(super) settings: Settings,
}

/// Reads one stage's instructions in their order.
struct Planner<'a> {
    recipe: &'a Recipe,
    settings: Settings,
    /// ARGs declared so far.
    args: Variables,
    steps: Vec<Step>,
    cmd_is_own: bool,
    used: &'a mut BTreeSet<String>,
}

impl StagePlan {
    /// The plan of a stage that begins with `base`. `used` collects the build arguments that were declared.
    pub(super) fn new(
        recipe: &Recipe,
        stage: usize,
        base: Settings,
        used: &mut BTreeSet<String>,
    ) -> Result<Self, BuildError> {
        let mut planner = Planner {
            recipe,
            settings: base,
            args: Variables::new(),
            steps: Vec::new(),
            cmd_is_own: false,
            used,
        };
        for line in &recipe.stages[stage].instructions {
            planner.line(line)?;
        }
        Ok(Self {
            steps: planner.steps,
            settings: planner.settings,
        })
    }
}

impl Planner<'_> {
    fn variables(&self) -> Variables {
        let mut variables = self.args.clone();
        variables.extend(self.settings.config.env.iter().cloned());
        variables
    }

    fn line(&mut self, line: &Line) -> Result<(), BuildError> {
        let steps = self.steps.len();
        self.what(line).map_err(|problem| BuildError::Syntax {
            file: self.recipe.file.clone(),
            line: line.number,
            problem: format!("{}: {problem}", keyword(&line.text)),
        })?;
        self.settings.history.push(History {
            text: line.text.clone(),
            changes: self.steps.len() > steps,
        });
        Ok(())
    }

    fn what(&mut self, line: &Line) -> Result<(), String> {
        let variables = self.variables();
        let words = Words {
            escape: self.recipe.escape,
            variables: &variables,
        };
        let config = &mut self.settings.config;
        match &line.what {
            What::Arg(text) => return self.arg(text),
            What::Env(text) => {
                for (name, value) in words.pairs(text)? {
                    set(&mut config.env, name, value);
                }
            }
            What::Label(text) => config.labels.extend(words.pairs(text)?),
            What::User(user) => config.user = non_empty(words.expand(user)?)?,
            What::Shell(shell) => self.settings.shell.clone_from(shell),
            What::Cmd(form) => {
                self.settings.config.cmd = self.settings.command(form);
                self.cmd_is_own = true;
            }
            What::Entrypoint(form) => {
                // The base's arguments are for the base's program.
                if !self.cmd_is_own {
                    config.cmd.clear();
                }
                self.settings.config.entrypoint = self.settings.command(form);
            }
            What::Expose(ports) => {
                for port in ports {
                    for port in words.expand(port)?.split_whitespace() {
                        config.exposed_ports.extend(exposed(port)?);
                    }
                }
            }
            What::StopSignal(signal) => config.stop_signal = non_empty(words.expand(signal)?)?,
            What::Volume(paths) => {
                for path in paths {
                    self.settings.volumes.insert(words.expand(path)?);
                }
            }
            What::Workdir(path) => {
                let path = absolute(&config.working_dir, &non_empty(words.expand(path)?)?);
                config.working_dir.clone_from(&path);
                let user = config.user.clone();
                self.step(line, Action::Workdir { path, user });
            }
            What::Run(form) => self.run(line, form),
            What::Copy(copying) => {
                let copy = self.copy(copying, words)?;
                self.step(line, Action::Copy(copy));
            }
        }
        Ok(())
    }

    fn step(&mut self, line: &Line, action: Action) {
        self.steps.push(Step {
            line: line.number,
            text: line.text.clone(),
            action,
        });
    }

    fn arg(&mut self, text: &str) -> Result<(), String> {
        let variables = self.variables();
        let automatic = automatic(&Platform::host());
        for (name, default) in declared(text, self.recipe.escape, &variables)? {
            let given = self.recipe.build_args.get(&name).cloned();
            // A default of the declaration wins over one before the first FROM.
            let global = || self.recipe.globals.get(&name).cloned();
            let value = given
                .or(default)
                .or_else(global)
                .or_else(|| automatic.get(&name).cloned());
            self.used.insert(name.clone());
            if let Some(value) = value {
                self.args.insert(name, value);
            }
        }
        Ok(())
    }

    fn run(&mut self, line: &Line, form: &Form) {
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        for proxy in PROXIES {
            if let Some(value) = self.recipe.build_args.get(proxy) {
                self.used.insert(proxy.to_owned());
                env.insert(proxy.to_owned(), value.clone());
            }
        }
        env.extend(self.variables());
        let action = Action::Run {
            command: self.settings.command(form),
            env,
            user: self.settings.config.user.clone(),
            working_dir: self.settings.config.working_dir.clone(),
        };
        self.step(line, action);
    }

    fn copy(&self, copying: &Copying, words: Words<'_>) -> Result<Copy, String> {
        let expand = |word: &String| words.expand(word);
        let sources = copying.sources.iter().map(expand);
        let from = match (&copying.inline, &copying.from) {
            (Some((text, true)), _) => CopyFrom::Inline(words.expand_text(text)?),
            (Some((text, false)), _) => CopyFrom::Inline(text.clone()),
            (None, From::Context) => CopyFrom::Context,
            (None, From::Stage(stage)) => CopyFrom::Stage(*stage),
            (None, From::Image(image)) => CopyFrom::Image(image.clone()),
        };
        let dest = non_empty(words.expand(&copying.dest)?)?;
        let is_directory = dest.ends_with('/') || dest == "." || dest.ends_with("/.");
        let mut absolute = absolute(&self.settings.config.working_dir, &dest);
        if is_directory && absolute != "/" {
            absolute.push('/');
        }
        if copying.sources.len() > 1 && !is_directory {
            return Err("with several sources needs a destination that ends with `/`".into());
        }
        let mode = copying.chmod.as_ref().map(|mode| {
            let mode = words.expand(mode)?;
            let parsed = u16::from_str_radix(&mode, 8)
                .ok()
                .filter(|&mode| mode <= 0o7777);
            parsed.ok_or_else(|| format!("has --chmod={mode}, which is no octal mode"))
        });
        Ok(Copy {
            keyword: copying.keyword,
            from,
            sources: sources.collect::<Result<_, _>>()?,
            dest: absolute,
            owner: copying.chown.as_ref().map(expand).transpose()?,
            mode: mode.transpose()?,
        })
    }
}

impl Settings {
    /// What a stage begins with that begins with nothing.
    pub(super) fn scratch() -> Self {
        let mut settings = Self::default();
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        settings.config.env.push(("PATH".into(), path.into()));
        settings
    }

    fn command(&self, form: &Form) -> Vec<String> {
        match form {
            Form::Exec(words) => words.clone(),
            Form::Shell(text) if self.shell.is_empty() => {
                let shell = SHELL.map(str::to_owned);
                shell.into_iter().chain([text.clone()]).collect()
            }
            Form::Shell(text) => self.shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }
}

fn keyword(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(known, _)| *known == name) {
        Some(known) => known.1 = value,
        None => env.push((name, value)),
    }
}

fn non_empty(word: String) -> Result<String, String> {
    if word.is_empty() {
        return Err("is empty: a variable in it has no value".into());
    }
    Ok(word)
}

/// `path` as seen from `dir`, without `.`, and with `..` that stops at the root.
pub(super) fn absolute(dir: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{dir}/{path}")
    };
    format!("/{}", clean(&whole))
}

/// The names of a path joined again, without empty ones, `.` and `..`, which stops at the top.
pub(super) fn clean(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// A port or a range of ports, as an image's configuration has it.
fn exposed(port: &str) -> Result<Vec<String>, String> {
    let bad = || format!("has `{port}`, which is no port");
    let (numbers, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first == 0 || last < first {
        return Err(bad());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}
