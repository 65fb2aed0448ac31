//! A Dockerfile as it is written: stages and instructions, which stages a target needs, and what their
//! bases are. Nothing here looks at a context or an image.

use std::collections::{BTreeMap, BTreeSet};

use banger_core::image::Platform;

mod instruction;
mod read;

use self::read::Reader;
use super::error::BuildError;
use super::words::{Variables, Words};

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

    /// References of images that the needed stages begin with.
    pub(super) fn bases(&self) -> BTreeSet<&str> {
        let bases = self.needed.iter().map(|&number| &self.stages[number].base);
        bases
            .filter_map(|base| match base {
                Base::Image(reference) => Some(reference.as_str()),
                Base::Scratch | Base::Stage(_) => None,
            })
            .collect()
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
