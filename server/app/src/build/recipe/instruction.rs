//! The instructions of a stage: what is known of them, and what is refused.

use parse_dockerfile::{HereDoc, Instruction, JsonOrStringArray, Source};

use super::read::{Numbers, Reader, find};
use super::{Copying, Form, From, Line, Stage, What};
use crate::build::error::BuildError;

impl Reader<'_> {
    pub(super) fn line(
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
