//! What a list says of a session whose command or environment is long: a thousand sessions with megabytes of arguments
//! each would be a message that nobody takes.

use std::collections::BTreeMap;

use banger_proto::guest::v1::SessionSpec;

/// Bytes of a command that a list has, and bytes of an environment.
const BRIEF_BYTES: usize = 4 << 10;
/// What a word or a variable counts beside its bytes.
const WORD_COST: usize = 8;

/// `spec` with its command and its environment cut, and whether something of them is missing.
pub(super) fn spec(spec: SessionSpec) -> (SessionSpec, bool) {
    let (command, is_command_cut) = command(spec.command);
    let (env, is_env_cut) = environment(spec.env);
    let spec = SessionSpec {
        command,
        env,
        ..spec
    };
    (spec, is_command_cut || is_env_cut)
}

/// The first words, the last of them cut where it does not fit. One is left in any case.
fn command(words: Vec<String>) -> (Vec<String>, bool) {
    let mut left = BRIEF_BYTES;
    let mut kept = Vec::new();
    for mut word in words {
        let cost = word.len() + WORD_COST;
        if cost > left {
            let room = left.saturating_sub(WORD_COST);
            word.truncate(word.floor_char_boundary(room));
            if kept.is_empty() || !word.is_empty() {
                kept.push(word);
            }
            return (kept, true);
        }
        left -= cost;
        kept.push(word);
    }
    (kept, false)
}

/// Whole variables, as many as fit.
fn environment(all: BTreeMap<String, String>) -> (BTreeMap<String, String>, bool) {
    let mut left = BRIEF_BYTES;
    let count = all.len();
    let fits = |(name, value): &(String, String)| {
        let cost = name.len() + value.len() + WORD_COST;
        let fits = cost <= left;
        if fits {
            left -= cost;
        }
        fits
    };
    let kept: BTreeMap<_, _> = all.into_iter().filter(fits).collect();
    let is_cut = kept.len() < count;
    (kept, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: Vec<String>, env: &[(&str, String)]) -> (SessionSpec, bool) {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        spec(SessionSpec {
            command,
            env: env.collect(),
            ..SessionSpec::default()
        })
    }

    #[test]
    fn what_is_short_stays_whole() {
        let words = vec!["sh".to_owned(), "-c".to_owned(), "x".repeat(3000)];
        let (brief, is_cut) = of(words.clone(), &[("A", "b".into())]);
        assert_eq!((brief.command, is_cut), (words, false));
        assert_eq!(brief.env["A"], "b");
    }

    #[test]
    fn what_is_long_is_cut_within_a_character_and_says_so() {
        let words = vec!["sh".to_owned(), "é".repeat(1 << 20), "last".to_owned()];
        let (brief, is_cut) = of(
            words,
            &[("LONG", "v".repeat(1 << 20)), ("SHORT", "v".into())],
        );
        assert!(is_cut);
        assert_eq!(brief.command.len(), 2);
        assert!(brief.command[1].len() <= BRIEF_BYTES && brief.command[1].ends_with('é'));
        assert_eq!(brief.env.keys().collect::<Vec<_>>(), ["SHORT"]);
        let (brief, is_cut) = of(vec![String::new(); 1 << 20], &[]);
        assert!(is_cut && brief.command.len() <= BRIEF_BYTES / WORD_COST + 1);
    }
}
