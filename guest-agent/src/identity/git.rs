//! The name on git commits: in the system-wide configuration, which every user's own comes before.

use std::path::Path;

use super::file::{failed, inside, read, write};
use crate::refusal::Refusal;

/// git-config(1): `$(prefix)/etc/gitconfig`, which distributions have here.
const CONFIG: &str = "/etc/gitconfig";
/// Everybody may read it.
const MODE: u32 = 0o644;
/// Mode of /etc, if there is none.
const DIRECTORIES: u32 = 0o755;

/// Adds the keys that are not there. Empty ones are none.
pub(super) fn set(root: &Path, name: &str, email: &str) -> Result<(), Refusal> {
    let path = inside(root, CONFIG);
    if name.is_empty() && email.is_empty() {
        return Ok(());
    }
    let text = read(&path).map_err(|error| failed(CONFIG, "reading", &error))?;
    match extended(&text, name, email) {
        None => Ok(()),
        Some(text) => write(&path, DIRECTORIES, MODE, None, text.as_bytes())
            .map_err(|error| failed(CONFIG, "writing", &error)),
    }
}

/// The new content; none where nothing is to be added.
fn extended(text: &str, name: &str, email: &str) -> Option<String> {
    let wanted = [("name", name), ("email", email)];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|(key, value)| !value.is_empty() && !has(text, key))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let mut new = text.to_owned();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str("[user]\n");
    for (key, value) in missing {
        new.push_str(&format!("\t{key} = {}\n", quoted(value)));
    }
    Some(new)
}

/// Whether a configuration sets `user.<key>`. Names are of any case, and a key may stand behind its section's name.
fn has(text: &str, key: &str) -> bool {
    let mut is_user = false;
    for line in text.lines() {
        let mut line = line.trim();
        if let Some((section, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']'))
        {
            is_user = section.trim().eq_ignore_ascii_case("user");
            line = rest.trim();
        }
        let name = line.split(['=', ' ', '\t', '#', ';']).next().unwrap_or("");
        if is_user && name.eq_ignore_ascii_case(key) {
            return true;
        }
    }
    false
}

fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added() {
        let text = extended("", "Ann \"A\" \\ Lee", "ann@example.com").unwrap();
        assert_eq!(
            text,
            "[user]\n\tname = \"Ann \\\"A\\\" \\\\ Lee\"\n\temail = \"ann@example.com\"\n"
        );
        assert_eq!(extended(&text, "Ann", "ann@example.com"), None);
    }

    #[test]
    fn what_the_image_sets_stays() {
        let image = "[core]\n\tname = x\n[User] NAME = Image\n[user \"sub\"]\n\temail = x";
        let text = extended(image, "Ann", "ann@example.com").unwrap();
        assert_eq!(
            text,
            format!("{image}\n[user]\n\temail = \"ann@example.com\"\n")
        );
    }

    #[test]
    fn an_empty_value_is_not_set() {
        assert_eq!(
            extended("", "", "a@b").unwrap(),
            "[user]\n\temail = \"a@b\"\n"
        );
    }
}
