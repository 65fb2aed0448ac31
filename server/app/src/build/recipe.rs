//! A Dockerfile as it is written: stages and instructions, which stages a target needs, and what their
//! bases are. Nothing here looks at a context or an image.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::image::Platform;
use parse_dockerfile::{Command, HereDoc, Instruction, JsonOrStringArray, Source};

use super::error::BuildError;
use super::words::{Variables, Words};

/// Stages of one Dockerfile.
const STAGES_MAX: usize = 256;
/// Instructions of one Dockerfile.
const INSTRUCTIONS_MAX: usize = 4096;
/// Bytes of a Dockerfile; the request's own limit is larger.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Arguments that need no declaration before a command may see them, as the reference lists them.
pub(super) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What was asked to be built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerfileRequest {
    /// Its text.
    pub text: String,
    /// Its name, for messages.
    pub name: String,
    /// Values for its ARGs.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; empty means the last.
    pub target: String,
}

/// A Dockerfile, checked as far as that goes without its base images.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) file: String,
    pub(super) escape: char,
    pub(super) stages: Vec<Stage>,
    pub(super) target: usize,
    /// The stages that the target needs, lowest first, itself last.
    pub(super) needed: Vec<usize>,
    /// ARGs before the first FROM, with their values.
    pub(super) globals: Variables,
    pub(super) build_args: BTreeMap<String, String>,
    /// What was ignored, for people.
    pub(super) warnings: Vec<String>,
}

/// One stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: Option<String>,
    pub(super) base: Base,
    pub(super) instructions: Vec<Line>,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    /// A reference.
    Image(String),
}

/// An instruction and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u32,
    /// As written, on one line.
    pub(super) text: String,
    pub(super) what: What,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Exec(Vec<String>),
    Shell(String),
}

/// An instruction of a stage, its words not yet expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Arg(String),
    Env(String),
    Label(String),
    Run(Form),
    Copy(Copying),
    Workdir(String),
    User(String),
    Shell(Vec<String>),
    Entrypoint(Form),
    Cmd(Form),
    Expose(Vec<String>),
    StopSignal(String),
    Volume(Vec<String>),
}

/// What COPY and ADD say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copying {
    pub(super) keyword: &'static str,
    pub(super) from: From,
    pub(super) sources: Vec<String>,
    /// A here-document instead of sources, and whether its variables are replaced.
    pub(super) inline: Option<(String, bool)>,
    pub(super) dest: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
}

/// Where COPY takes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Context,
    Stage(usize),
    Image(String),
}

impl Recipe {
    /// Reads a Dockerfile.
    pub(super) fn parse(request: &DockerfileRequest) -> Result<Self, BuildError> {
        let file = match request.name.as_str() {
            "" => "Dockerfile".to_owned(),
            name => name.chars().take(200).collect(),
        };
        Reader {
            file,
            text: &request.text,
            escape: '\\',
            warnings: Vec::new(),
        }
        .read(request)
    }

    /// References of images that the needed stages begin with or copy from.
    pub(super) fn images(&self) -> BTreeSet<&str> {
        let mut images = BTreeSet::new();
        for &number in &self.needed {
            let stage = &self.stages[number];
            if let Base::Image(reference) = &stage.base {
                images.insert(reference.as_str());
            }
            for line in &stage.instructions {
                if let What::Copy(copying) = &line.what
                    && let From::Image(reference) = &copying.from
                {
                    images.insert(reference);
                }
            }
        }
        images
    }
}

/// The arguments that every build has, by the host's platform.
pub(super) fn automatic(platform: &Platform) -> Variables {
    let mut found = Variables::new();
    for side in ["TARGET", "BUILD"] {
        found.insert(format!("{side}PLATFORM"), platform.to_string());
        found.insert(format!("{side}OS"), platform.os.clone());
        found.insert(format!("{side}ARCH"), platform.architecture.clone());
        let variant = platform.variant.clone().unwrap_or_default();
        found.insert(format!("{side}VARIANT"), variant);
    }
    found
}

struct Reader<'a> {
    file: String,
    text: &'a str,
    escape: char,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn syntax(&self, line: u32, problem: impl Into<String>) -> BuildError {
        BuildError::Syntax {
            file: self.file.clone(),
            line,
            problem: problem.into(),
        }
    }

    fn unsupported(&self, line: u32, instruction: &str, problem: impl Into<String>) -> BuildError {
        BuildError::Unsupported {
            file: self.file.clone(),
            line,
            instruction: instruction.to_owned(),
            problem: problem.into(),
        }
    }

    fn line_of(&self, offset: usize) -> u32 {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let lines = before.iter().filter(|&&byte| byte == b'\n').count();
        u32::try_from(lines + 1).unwrap_or(u32::MAX)
    }

    fn read(mut self, request: &DockerfileRequest) -> Result<Recipe, BuildError> {
        let text = self.text.strip_prefix('\u{feff}').unwrap_or(self.text);
        self.text = text;
        if text.len() > TEXT_BYTES_MAX {
            return Err(self.syntax(1, format!("the file is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let parsed = parse_dockerfile::parse(text).map_err(|error| {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
            let hint = if text.contains("<<") {
                " (here-documents are read only directly after RUN, COPY or ADD)"
            } else {
                ""
            };
            self.syntax(line, format!("{error}{hint}"))
        })?;
        if parsed.instructions.len() > INSTRUCTIONS_MAX || parsed.stages().len() > STAGES_MAX {
            let problem = format!(
                "there are more than {INSTRUCTIONS_MAX} instructions or {STAGES_MAX} stages"
            );
            return Err(self.syntax(1, problem));
        }
        if let Some(escape) = &parsed.parser_directives.escape {
            self.escape = escape.value.value;
        }
        let globals = self.globals(&parsed, &request.build_args)?;
        let mut stages: Vec<Stage> = Vec::new();
        for stage in parsed.stages() {
            let line = self.line_of(stage.from.from.span.start);
            let base = self.base(line, stage.from, &globals, &stages)?;
            let name = stage
                .from
                .as_
                .as_ref()
                .map(|(_, name)| name.value.to_lowercase());
            let mut instructions = Vec::new();
            for instruction in stage.instructions {
                instructions.extend(self.line(instruction, &stages)?);
            }
            stages.push(Stage {
                name,
                base,
                instructions,
            });
        }
        let target = self.target(&stages, &request.target)?;
        let needed = needed(&stages, target);
        Ok(Recipe {
            file: self.file,
            escape: self.escape,
            stages,
            target,
            needed,
            globals,
            build_args: request.build_args.clone(),
            warnings: self.warnings,
        })
    }

    fn globals(
        &self,
        parsed: &parse_dockerfile::Dockerfile<'_>,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Variables, BuildError> {
        let mut variables = automatic(&Platform::host());
        for arg in parsed.global_args() {
            let line = self.line_of(arg.arg.span.start);
            for (name, default) in declared(&arg.arguments.value, self.escape, &variables)
                .map_err(|problem| self.syntax(line, format!("ARG {problem}")))?
            {
                let given = build_args.get(&name).cloned();
                if let Some(value) = given.or(default) {
                    variables.insert(name, value);
                }
            }
        }
        Ok(variables)
    }

    fn base(
        &self,
        line: u32,
        from: &parse_dockerfile::FromInstruction<'_>,
        globals: &Variables,
        stages: &[Stage],
    ) -> Result<Base, BuildError> {
        let words = Words {
            escape: self.escape,
            variables: globals,
        };
        let expand = |word: &str| {
            words
                .expand(word)
                .map_err(|problem| self.syntax(line, format!("FROM {problem}")))
        };
        for flag in &from.options {
            let value = flag.value.as_ref().map(|value| value.value.as_ref());
            match (flag.name.value.as_ref(), value) {
                ("platform", Some(platform)) => {
                    let platform = expand(platform)?;
                    let host = Platform::host();
                    let wanted = platform.parse::<Platform>().ok();
                    if !wanted.is_some_and(|wanted| {
                        (wanted.os, wanted.architecture)
                            == (host.os.clone(), host.architecture.clone())
                    }) {
                        let problem = format!("--platform={platform} cannot be built on {host}");
                        return Err(self.unsupported(line, "FROM", problem));
                    }
                }
                (name, _) => return Err(self.unsupported(line, "FROM", format!("--{name}"))),
            }
        }
        let image = expand(&from.image.value)?;
        match image.as_str() {
            "" => Err(self.syntax(line, "FROM names no image: a variable in it is empty")),
            "scratch" => Ok(Base::Scratch),
            name => Ok(find(stages, name, Numbers::Refused)
                .map_or(Base::Image(image.clone()), Base::Stage)),
        }
    }

    fn target(&self, stages: &[Stage], target: &str) -> Result<usize, BuildError> {
        match target {
            "" => Ok(stages.len() - 1),
            name => find(stages, name, Numbers::Taken).ok_or_else(|| BuildError::UnknownStage {
                file: self.file.clone(),
                stage: name.chars().take(200).collect(),
            }),
        }
    }

    /// The text of a span on one line, continued lines joined and comments among them left out.
    fn joined(&self, text: &str) -> String {
        let mut joined = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let trimmed = line.trim_end();
            match trimmed.strip_suffix(self.escape) {
                Some(start) if lines.peek().is_some() => {
                    joined.push_str(start);
                    while lines.peek().is_some_and(|next| {
                        next.trim().is_empty() || next.trim_start().starts_with('#')
                    }) {
                        lines.next();
                    }
                }
                _ => {
                    joined.push_str(line);
                    if lines.peek().is_some() {
                        joined.push('\n');
                    }
                }
            }
        }
        joined
    }

    fn form(&self, command: &Command<'_>) -> Form {
        match command {
            Command::Exec(words) => Form::Exec(
                words
                    .value
                    .iter()
                    .map(|word| word.value.to_string())
                    .collect(),
            ),
            Command::Shell(text) => Form::Shell(self.joined(text.value)),
            _ => Form::Shell(String::new()),
        }
    }

    fn line(
        &mut self,
        instruction: &Instruction<'_>,
        stages: &[Stage],
    ) -> Result<Option<Line>, BuildError> {
        let (start, what) = match instruction {
            Instruction::Arg(arg) => (&arg.arg, What::Arg(arg.arguments.value.to_string())),
            Instruction::Env(env) => (&env.env, What::Env(env.arguments.value.to_string())),
            Instruction::Label(label) => {
                (&label.label, What::Label(label.arguments.value.to_string()))
            }
            Instruction::Workdir(dir) => {
                (&dir.workdir, What::Workdir(dir.arguments.value.to_string()))
            }
            Instruction::User(user) => (&user.user, What::User(user.arguments.value.to_string())),
            Instruction::Shell(shell) => {
                let words = shell.arguments.iter().map(|word| word.value.to_string());
                (&shell.shell, What::Shell(words.collect()))
            }
            Instruction::Entrypoint(entry) => (
                &entry.entrypoint,
                What::Entrypoint(self.form(&entry.arguments)),
            ),
            Instruction::Cmd(cmd) => (&cmd.cmd, What::Cmd(self.form(&cmd.arguments))),
            Instruction::Expose(expose) => {
                let ports = expose.arguments.iter().map(|port| port.value.to_string());
                (&expose.expose, What::Expose(ports.collect()))
            }
            Instruction::Stopsignal(signal) => (
                &signal.stopsignal,
                What::StopSignal(signal.arguments.value.to_string()),
            ),
            Instruction::Volume(volume) => {
                let paths = match &volume.arguments {
                    JsonOrStringArray::Json(paths) => paths.value.iter(),
                    JsonOrStringArray::String(paths) => paths.iter(),
                };
                let paths = paths.map(|path| path.value.to_string());
                (&volume.volume, What::Volume(paths.collect()))
            }
            Instruction::Run(run) => (&run.run, What::Run(self.run(run)?)),
            Instruction::Copy(copy) => {
                let line = self.line_of(copy.copy.span.start);
                let (from, sources, dest) = (&copy.options, &copy.src, &copy.dest.value);
                (
                    &copy.copy,
                    What::Copy(self.copying(line, "COPY", from, sources, dest, stages)?),
                )
            }
            Instruction::Add(add) => {
                let line = self.line_of(add.add.span.start);
                let (from, sources, dest) = (&add.options, &add.src, &add.dest.value);
                (
                    &add.add,
                    What::Copy(self.copying(line, "ADD", from, sources, dest, stages)?),
                )
            }
            Instruction::Healthcheck(check) => {
                return Ok(self.ignored(
                    &check.healthcheck,
                    "HEALTHCHECK",
                    "VMs have no health checks",
                ));
            }
            Instruction::Maintainer(who) => {
                return Ok(self.ignored(
                    &who.maintainer,
                    "MAINTAINER",
                    "use LABEL org.opencontainers.image.authors=…",
                ));
            }
            Instruction::Onbuild(onbuild) => {
                let line = self.line_of(onbuild.onbuild.span.start);
                return Err(self.unsupported(line, "ONBUILD", "is not supported"));
            }
            _ => return Err(self.syntax(1, "an instruction is unknown")),
        };
        let number = self.line_of(start.span.start);
        Ok(Some(Line {
            number,
            text: self.shown(start.span.start),
            what,
        }))
    }

    fn ignored(
        &mut self,
        keyword: &parse_dockerfile::Keyword,
        name: &str,
        why: &str,
    ) -> Option<Line> {
        let line = self.line_of(keyword.span.start);
        self.warnings
            .push(format!("{}:{line}: {name} is ignored: {why}", self.file));
        None
    }

    /// An instruction as people are shown it: its first line, continued ones joined.
    fn shown(&self, start: usize) -> String {
        let mut text = String::new();
        for line in self.text[start..].lines() {
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            match line.strip_suffix(self.escape) {
                Some(part) => {
                    text.push_str(part.trim_end());
                    text.push(' ');
                }
                None => {
                    text.push_str(line);
                    break;
                }
            }
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ")
    }

    fn run(&self, run: &parse_dockerfile::RunInstruction<'_>) -> Result<Form, BuildError> {
        let line = self.line_of(run.run.span.start);
        for flag in &run.options {
            let value = flag.value.as_ref().map_or("", |value| value.value.as_ref());
            match (flag.name.value.as_ref(), value) {
                ("network", "default") => {}
                (name, value) => {
                    let problem = format!("--{name}={value} is not supported");
                    return Err(self.unsupported(line, "RUN", problem));
                }
            }
        }
        let form = self.form(&run.arguments);
        let form = match (run.here_docs.first(), form) {
            (None, form) => form,
            (Some(script), Form::Shell(rest)) if rest.trim().is_empty() => {
                if script.value.starts_with("#!") {
                    let problem = "with an interpreter line in its here-document is not supported: \
                                   call the interpreter";
                    return Err(self.unsupported(line, "RUN", problem));
                }
                Form::Shell(script.value.to_string())
            }
            (Some(script), Form::Shell(rest)) => Form::Shell(with_here_document(&rest, script)),
            (Some(_), form) => form,
        };
        let is_empty = match &form {
            Form::Exec(words) => words.first().is_none_or(String::is_empty),
            Form::Shell(text) => text.trim().is_empty(),
        };
        if is_empty {
            return Err(self.syntax(line, "RUN has no command"));
        }
        Ok(form)
    }

    fn copying(
        &self,
        line: u32,
        keyword: &'static str,
        options: &[parse_dockerfile::Flag<'_>],
        sources: &[Source<'_>],
        dest: &str,
        stages: &[Stage],
    ) -> Result<Copying, BuildError> {
        let mut copying = Copying {
            keyword,
            from: From::Context,
            sources: Vec::new(),
            inline: None,
            dest: dest.to_owned(),
            chown: None,
            chmod: None,
        };
        for flag in options {
            let value = flag.value.as_ref().map(|value| value.value.to_string());
            match (flag.name.value.as_ref(), value) {
                ("from", Some(name)) if keyword == "COPY" => {
                    copying.from = match find(stages, &name, Numbers::Taken) {
                        Some(stage) => From::Stage(stage),
                        None => From::Image(name),
                    };
                }
                ("chown", Some(owner)) => copying.chown = Some(owner),
                ("chmod", Some(mode)) => copying.chmod = Some(mode),
                // A build makes one layer: there is nothing to link.
                ("link", None) => {}
                ("link", Some(value)) if value == "true" || value == "false" => {}
                (name, _) => {
                    let problem = format!("--{name} is not supported");
                    return Err(self.unsupported(line, keyword, problem));
                }
            }
        }
        for source in sources {
            match source {
                Source::Path(path) if keyword == "ADD" && is_remote(&path.value) => {
                    let problem = format!(
                        "does not fetch `{}`: fetch it in a RUN, or put it into the context",
                        path.value
                    );
                    return Err(self.unsupported(line, keyword, problem));
                }
                Source::Path(path) => copying.sources.push(path.value.to_string()),
                Source::HereDoc(text) if sources.len() == 1 && !dest.ends_with('/') => {
                    copying.inline = Some((text.value.to_string(), text.expand));
                }
                _ => {
                    let problem = "takes one here-document, with the name of a file to write it to";
                    return Err(self.unsupported(line, keyword, problem));
                }
            }
        }
        Ok(copying)
    }
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git@", "ftp://", "ssh://", "git://"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
}

/// A command that reads a here-document, as one text for the shell.
fn with_here_document(rest: &str, script: &HereDoc<'_>) -> String {
    let mut mark = "BANGER_END".to_owned();
    while script.value.lines().any(|line| line == mark) {
        mark.push('_');
    }
    let quote = if script.expand { "" } else { "'" };
    let end = if script.value.ends_with('\n') || script.value.is_empty() {
        ""
    } else {
        "\n"
    };
    format!(
        "{rest} <<{quote}{mark}{quote}\n{}{end}{mark}\n",
        script.value
    )
}

/// Whether a stage may be named by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Taken,
    Refused,
}

fn find(stages: &[Stage], name: &str, numbers: Numbers) -> Option<usize> {
    let name = name.to_lowercase();
    let by_name = stages
        .iter()
        .position(|stage| stage.name.as_ref() == Some(&name));
    by_name.or_else(|| {
        let number: usize = name.parse().ok().filter(|_| numbers == Numbers::Taken)?;
        (number < stages.len()).then_some(number)
    })
}

/// The stages that `target` needs, each after what it needs itself.
fn needed(stages: &[Stage], target: usize) -> Vec<usize> {
    let mut wanted = BTreeSet::from([target]);
    // A stage needs only earlier ones, so one pass downwards finds all.
    for number in (0..=target).rev() {
        if !wanted.contains(&number) {
            continue;
        }
        if let Base::Stage(base) = stages[number].base {
            wanted.insert(base);
        }
        for line in &stages[number].instructions {
            if let What::Copy(copying) = &line.what
                && let From::Stage(from) = copying.from
            {
                wanted.insert(from);
            }
        }
    }
    wanted.into_iter().collect()
}

/// The names and defaults of an ARG.
pub(super) fn declared(
    line: &str,
    escape: char,
    variables: &Variables,
) -> Result<Vec<(String, Option<String>)>, String> {
    let words = Words { escape, variables };
    let mut found = Vec::new();
    for word in words.split(line) {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(words.expand(default)?)),
            None => (word.as_str(), None),
        };
        let name = words.expand(name)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("has `{word}`, which has no name"));
        }
        found.push((name, default));
    }
    Ok(found)
}
