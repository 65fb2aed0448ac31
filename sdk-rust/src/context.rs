//! A build's context: a directory without what `.dockerignore` names, by Docker's rules. Patterns are
//! relative to the context, `*` stands for no slash and `**` for any number of directories; what matches a
//! directory matches all in it; of several patterns the last one that matches counts, and one with `!`
//! takes a path back in.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A directory to be sent.
#[derive(Debug)]
pub struct BuildContext {
    directory: PathBuf,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    paths: GlobSet,
    takes_back: bool,
}

impl BuildContext {
    /// The directory, without what the lines of `ignored` name.
    #[must_use]
    pub fn new(directory: &Path, ignored: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            rules: ignored
                .trim_start_matches('\u{feff}')
                .lines()
                .filter_map(rule)
                .collect(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a path, relative to the context, is left out.
    fn ignores(&self, path: &Path) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            // With itself and all directories above it.
            let above = path
                .ancestors()
                .filter(|above| !above.as_os_str().is_empty());
            if rule.takes_back == ignored && above.into_iter().any(|path| rule.paths.is_match(path))
            {
                ignored = !rule.takes_back;
            }
        }
        ignored
    }

    /// Writes the context as a tar: the same files, in the same order.
    pub(crate) fn write_tar(&self, writer: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(writer);
        tar.follow_symlinks(false);
        self.append(&mut tar, Path::new(""))?;
        tar.finish()
    }

    fn append(&self, tar: &mut tar::Builder<impl Write>, directory: &Path) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory.join(directory))? {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let path = directory.join(name);
            let full = self.directory.join(&path);
            let kind = fs::symlink_metadata(&full)?.file_type();
            let ignored = self.ignores(&path);
            if kind.is_dir() {
                if !ignored {
                    tar.append_dir(&path, &full)?;
                }
                // What is in an ignored directory may be taken back.
                if !ignored || self.rules.iter().any(|rule| rule.takes_back) {
                    self.append(tar, &path)?;
                }
            } else if !ignored && (kind.is_file() || kind.is_symlink()) {
                tar.append_path_with_name(&full, &path)?;
            }
        }
        Ok(())
    }
}

fn rule(line: &str) -> Option<Rule> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (line, takes_back) = match line.strip_prefix('!') {
        Some(rest) => (rest.trim(), true),
        None => (line, false),
    };
    let names: Vec<&str> = line
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    if names.is_empty() {
        return None;
    }
    let mut paths = GlobSetBuilder::new();
    for pattern in spelled(&names) {
        // A pattern that is none matches nothing.
        paths.add(
            GlobBuilder::new(&pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .ok()?,
        );
    }
    let paths = paths.build().ok()?;
    Some(Rule { paths, takes_back })
}

/// The patterns that say the same in the words of the matcher, where `**` is a whole name and braces mean
/// something.
fn spelled(names: &[&str]) -> Vec<String> {
    let mut patterns = vec![String::new()];
    for name in names {
        let name = name.replace('{', "\\{").replace('}', "\\}");
        let variants = match name.split_once("**") {
            None => vec![name],
            Some(("", "")) => vec!["**".to_owned()],
            // Inside a name it stands for letters, or for directories too.
            Some((before, after)) => {
                let (before, after) = (before.to_owned(), after.replace("**", "*"));
                vec![
                    format!("{before}*{after}"),
                    format!("{before}*/**/*{after}"),
                ]
            }
        };
        let join = |pattern: &String, variant: &String| match pattern.as_str() {
            "" => variant.clone(),
            pattern => format!("{pattern}/{variant}"),
        };
        patterns = patterns
            .iter()
            .flat_map(|pattern| variants.iter().map(move |variant| join(pattern, variant)))
            .collect();
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignores(rules: &str, path: &str) -> bool {
        BuildContext::new(Path::new("/"), rules).ignores(Path::new(path))
    }

    #[test]
    fn patterns_match_as_docker_has_them() {
        for (rules, path, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "sub/a.log", false),
            ("**/*.log", "a.log", true),
            ("**/*.log", "sub/deep/a.log", true),
            ("sub", "sub/deep/a", true),
            ("/sub/", "sub/a", true),
            ("./sub", "sub", true),
            ("sub/**", "sub/a", true),
            ("s?b", "sub/a", true),
            ("[a-c]at", "bat", true),
            ("# sub", "sub", false),
            ("a**z", "abc/xyz", true),
            ("a**z", "abcz", true),
            ("{a}", "a", false),
            ("{a}", "{a}", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("*\n!keep/this", "keep/this/file", false),
            ("*\n!keep/this", "keep/that", true),
            ("!a\na", "a", true),
            ("a\n!a\na", "a", true),
            ("**", "any/thing", true),
            ("", "a", false),
            (".", "a", false),
        ] {
            assert_eq!(ignores(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn the_tar_has_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("a", "a"),
            ("node_modules/x/y", "y"),
            ("keep/in", "in"),
            ("keep/out", "out"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        let context = BuildContext::new(dir.path(), "node_modules\nkeep\n!keep/in\n");
        let mut bytes = Vec::new();
        context.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a", "keep/in", "link"]);
    }
}
