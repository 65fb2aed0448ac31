//! From a Dockerfile's text to its stages.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::image::Platform;
use parse_dockerfile::Command;

use super::{Base, DockerfileRequest, Form, From, Recipe, Stage, What, automatic, declared};
use crate::build::error::BuildError;
use crate::build::words::{Variables, Words};

/// Stages of one Dockerfile.
const STAGES_MAX: usize = 256;
/// Instructions of one Dockerfile.
const INSTRUCTIONS_MAX: usize = 4096;
/// Bytes of a Dockerfile; the request's own limit is larger.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A Dockerfile being read.
pub(super) struct Reader<'a> {
    pub(super) file: String,
    pub(super) text: &'a str,
    pub(super) escape: char,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn syntax(&self, line: u32, problem: impl Into<String>) -> BuildError {
        BuildError::Syntax {
            file: self.file.clone(),
            line,
            problem: problem.into(),
        }
    }

    pub(super) fn unsupported(
        &self,
        line: u32,
        instruction: &str,
        problem: impl Into<String>,
    ) -> BuildError {
        BuildError::Unsupported {
            file: self.file.clone(),
            line,
            instruction: instruction.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn line_of(&self, offset: usize) -> u32 {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let lines = before.iter().filter(|&&byte| byte == b'\n').count();
        u32::try_from(lines + 1).unwrap_or(u32::MAX)
    }

    pub(super) fn read(mut self, request: &DockerfileRequest) -> Result<Recipe, BuildError> {
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

    pub(super) fn base(
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

    pub(super) fn form(&self, command: &Command<'_>) -> Form {
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
}

/// Whether a stage may be named by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Taken,
    Refused,
}

pub(super) fn find(stages: &[Stage], name: &str, numbers: Numbers) -> Option<usize> {
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
