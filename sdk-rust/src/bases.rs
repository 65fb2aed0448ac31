//! The images that a Dockerfile names, as far as that can be told here: which logins a build may need.
//!
//! The daemon alone knows what a Dockerfile means. A name that cannot be told here gets no login of this client's.

use std::collections::{BTreeMap, BTreeSet};

/// The values of variables before the first stage, by name; absent for one that has none.
type Variables<'a> = BTreeMap<&'a str, Option<String>>;

/// The references behind `FROM` and `--from`, with the values that `build_args` and the defaults of `ARG` give.
pub(crate) fn bases(text: &str, build_args: &BTreeMap<String, String>) -> BTreeSet<String> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut variables = Variables::new();
    let (mut found, mut stages) = (BTreeSet::new(), BTreeSet::new());
    let mut is_in_stage = false;
    for line in joined.lines() {
        let mut words = line.split_whitespace();
        let Some(word) = words.next() else { continue };
        match word.to_ascii_uppercase().as_str() {
            // Those of a stage name no image.
            "ARG" if !is_in_stage => variables.extend(
                words
                    .map(|word| declared(word, build_args, &variables))
                    .collect::<Variables<'_>>(),
            ),
            "FROM" => {
                is_in_stage = true;
                let mut words = words.filter(|word| !word.starts_with("--"));
                let base = words.next().and_then(|word| replaced(word, &variables));
                let is_image =
                    |base: &String| base != "scratch" && !stages.contains(&base.to_lowercase());
                found.extend(base.filter(is_image));
                if let (Some(word), Some(name)) = (words.next(), words.next())
                    && word.eq_ignore_ascii_case("as")
                {
                    stages.insert(name.to_lowercase());
                }
            }
            "COPY" | "ADD" => {
                let from = words.find_map(|word| word.strip_prefix("--from="));
                let from = from.and_then(|word| replaced(word, &variables));
                let is_image = |from: &String| {
                    from.parse::<usize>().is_err() && !stages.contains(&from.to_lowercase())
                };
                found.extend(from.filter(is_image));
            }
            _ => {}
        }
    }
    found
}

/// What an `ARG` declares: the caller's value goes before its own.
fn declared<'a>(
    word: &'a str,
    build_args: &BTreeMap<String, String>,
    variables: &Variables<'_>,
) -> (&'a str, Option<String>) {
    let (name, default) = match word.split_once('=') {
        Some((name, default)) => (name, Some(default)),
        None => (word, None),
    };
    let given = build_args.get(name).cloned();
    (name, given.or_else(|| replaced(default?, variables)))
}

/// A word without quotes and with its variables replaced; none where one has no value, or another form than `$NAME`,
/// `${NAME}` and `${NAME:-default}`.
fn replaced(word: &str, variables: &Variables<'_>) -> Option<String> {
    let mut rest = word.trim_matches(['"', '\'']);
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let (name, default, left) = match after.strip_prefix('{') {
            Some(braced) => {
                let (inside, left) = braced.split_once('}')?;
                match inside.split_once(":-") {
                    Some((name, default)) => (name, Some(default), left),
                    None => (inside, None, left),
                }
            }
            None => {
                let end = after.find(|c: char| !is_of_name(c)).unwrap_or(after.len());
                (&after[..end], None, &after[end..])
            }
        };
        if name.is_empty() || !name.chars().all(is_of_name) {
            return None;
        }
        let value = variables.get(name).cloned().flatten();
        text.push_str(
            &value
                .filter(|value| !value.is_empty())
                .or_else(|| default.map(str::to_owned))?,
        );
        rest = left;
    }
    text.push_str(rest);
    (!text.is_empty()).then_some(text)
}

const fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let build_args = [("TAG", "7"), ("UNUSED", "x")];
        let build_args = build_args.map(|(name, value)| (name.to_owned(), value.to_owned()));
        bases(text, &build_args.into_iter().collect())
            .into_iter()
            .collect()
    }

    #[test]
    fn every_base_image_that_can_be_told_is_told() {
        let text = "# FROM commented:1\n\
            ARG REGISTRY=reg:5000 TAG=1\n\
            ARG NAME\n\
            FROM --platform=linux/amd64 ${REGISTRY}/base:$TAG AS Build\n\
            ARG REGISTRY=elsewhere\n\
            COPY --from=build /a /b\n\
            COPY --chown=1 --from=reg.example/tool \\\n   /x /y\n\
            COPY --from=0 /a /b\n\
            from build\n\
            FROM scratch\n\
            FROM \"${NAME:-debian}:12\"\n\
            FROM $NAME/unknown\n\
            FROM ${TAG#7}x\n";
        assert_eq!(
            told(text),
            ["debian:12", "reg.example/tool", "reg:5000/base:7"]
        );
    }

    #[test]
    fn what_is_no_dockerfile_names_nothing() {
        for text in [
            "",
            "FROM",
            "FROM $",
            "FROM ${",
            "FROM ${}",
            "COPY --from=",
            "ARG =\nFROM $",
            "ARG\n",
        ] {
            assert_eq!(told(text), Vec::<String>::new(), "{text:?}");
        }
    }
}
