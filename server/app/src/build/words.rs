//! Words of a Dockerfile: quotes, escapes and variables, by the rules of its reference ("Environment
//! replacement").

use std::collections::BTreeMap;

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Longest value that replacing variables may make: a word that doubles itself line by line ends here.
const EXPANDED_BYTES_MAX: usize = 1 << 20;
/// Nested `${…:-${…}}`.
const NESTING_MAX: usize = 32;
/// Parameters of a shell that a Dockerfile does not have: they are empty.
const SPECIAL: &str = "@*#?-$!0123456789";

/// Reads words with one escape character.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) escape: char,
    pub(super) variables: &'a Variables,
}

impl Words<'_> {
    /// One word with its quotes removed and its variables replaced.
    pub(super) fn expand(&self, word: &str) -> Result<String, String> {
        let mut reader = Reader {
            words: self,
            rest: word,
            depth: 0,
        };
        let mut out = String::new();
        reader.until(&mut out, None)?;
        Ok(out)
    }

    /// A text whose variables are replaced and whose quotes stay: a here-document.
    pub(super) fn expand_text(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut reader = Reader {
            words: self,
            rest: text,
            depth: 0,
        };
        while let Some(c) = reader.next() {
            match c {
                '$' => reader.dollar(&mut out)?,
                c if c == self.escape && reader.rest.starts_with(['$', self.escape]) => {
                    out.extend(reader.next());
                }
                c => out.push(c),
            }
            check(&out)?;
        }
        Ok(out)
    }

    /// The words of a line, quotes and all: white space inside quotes, and escaped, does not separate.
    pub(super) fn split(&self, line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut quote = None;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            if c == self.escape && quote != Some('\'') {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    continue;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                _ => {}
            }
            word.push(c);
        }
        if !word.is_empty() {
            words.push(word);
        }
        words
    }

    /// `NAME=value` pairs, or the old form `NAME the rest of the line`.
    pub(super) fn pairs(&self, line: &str) -> Result<Vec<(String, String)>, String> {
        let words = self.split(line);
        let Some(first) = words.first() else {
            return Err("has no name".into());
        };
        if !first.contains('=') {
            let (name, value) = line
                .trim_start()
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("gives `{first}` no value"))?;
            return Ok(vec![(self.expand(name)?, self.expand(value.trim())?)]);
        }
        let pair = |word: &String| {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("has `{word}`, which is no NAME=value"))?;
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(format!("has `{word}`, which has no name"));
            }
            Ok((name, self.expand(value)?))
        };
        words.iter().map(pair).collect()
    }
}

struct Reader<'a> {
    words: &'a Words<'a>,
    rest: &'a str,
    depth: usize,
}

fn check(out: &str) -> Result<(), String> {
    if out.len() > EXPANDED_BYTES_MAX {
        return Err(format!("becomes longer than {EXPANDED_BYTES_MAX} bytes"));
    }
    Ok(())
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads to `end`, or to the end of the word.
    fn until(&mut self, out: &mut String, end: Option<char>) -> Result<(), String> {
        loop {
            check(out)?;
            match self.next() {
                None if end.is_some() => return Err("has a `${` without its `}`".into()),
                None => return Ok(()),
                Some(c) if Some(c) == end => return Ok(()),
                Some('\'') => match self.rest.split_once('\'') {
                    Some((text, rest)) => {
                        out.push_str(text);
                        self.rest = rest;
                    }
                    None => return Err("has a `'` without its other".into()),
                },
                Some('"') => self.double_quoted(out)?,
                Some('$') => self.dollar(out)?,
                Some(c) if c == self.words.escape => out.extend(self.next()),
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                None => return Err("has a `\"` without its other".into()),
                Some('"') => return Ok(()),
                Some('$') => self.dollar(out)?,
                Some(c) if c == self.words.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == c => out.push(next),
                    next => {
                        out.push(c);
                        out.extend(next);
                    }
                },
                Some(c) => out.push(c),
            }
            check(out)?;
        }
    }

    fn name(&mut self) -> String {
        let is_name = |(at, c): &(usize, char)| {
            c.is_ascii_alphabetic() || *c == '_' || (*at > 0 && c.is_ascii_digit())
        };
        let length = self.rest.char_indices().take_while(is_name).count();
        let length = match self.rest.chars().next() {
            Some(c) if length == 0 && SPECIAL.contains(c) => 1,
            _ => length,
        };
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name.to_owned()
    }

    fn dollar(&mut self, out: &mut String) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            return self.braced(out);
        }
        let name = self.name();
        match name.as_str() {
            "" => out.push('$'),
            name => out.push_str(self.words.variables.get(name).map_or("", |value| value)),
        }
        Ok(())
    }

    fn braced(&mut self, out: &mut String) -> Result<(), String> {
        let name = self.name();
        if name.is_empty() {
            return Err("has a `${` without a name".into());
        }
        let value = self.words.variables.get(&name);
        let is_strict = self.rest.starts_with(':');
        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
        // With the colon, a value that is empty counts as none.
        let value = value.filter(|value| !(is_strict && value.is_empty()));
        match self.next() {
            Some('}') if !is_strict => {
                out.push_str(value.map_or("", |value| value));
                return Ok(());
            }
            Some(operator @ ('-' | '+' | '?')) => {
                let mut word = String::new();
                self.depth += 1;
                if self.depth > NESTING_MAX {
                    return Err("nests variables too deeply".into());
                }
                self.until(&mut word, Some('}'))?;
                self.depth -= 1;
                match (operator, value) {
                    ('-', Some(value)) => out.push_str(value),
                    ('-', None) | ('+', Some(_)) => out.push_str(&word),
                    ('?', Some(value)) => out.push_str(value),
                    ('?', None) if word.is_empty() => {
                        return Err(format!("needs a value for `{name}`"));
                    }
                    ('?', None) => return Err(format!("needs a value for `{name}`: {word}")),
                    _ => {}
                }
                return Ok(());
            }
            _ => {}
        }
        Err(format!(
            "has `${{{name}` with an ending that is not supported: `:-`, `-`, `:+`, `+`, `:?` and `?` are"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(work: impl FnOnce(Words<'_>) -> T) -> T {
        let variables = [("A", "one"), ("EMPTY", ""), ("PATH", "/bin")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        work(Words {
            escape: '\\',
            variables: &variables.into(),
        })
    }

    fn expand(word: &str) -> Result<String, String> {
        with(|words| words.expand(word))
    }

    #[test]
    fn variables_are_replaced_as_the_reference_says() {
        for (word, expected) in [
            ("$A", "one"),
            ("${A}x$A", "onexone"),
            ("$Ax", ""),
            ("\\$A", "$A"),
            ("'$A'", "$A"),
            ("\"$A $PATH\"", "one /bin"),
            ("\"\\$A \\\\ \\x\"", "$A \\ \\x"),
            ("${NO:-fallback}", "fallback"),
            ("${EMPTY:-fallback}", "fallback"),
            ("${EMPTY-fallback}", ""),
            ("${A:+there}", "there"),
            ("${NO:+there}", ""),
            ("${EMPTY:+there}", ""),
            ("${EMPTY+there}", "there"),
            ("${NO:-${A:-x}/$PATH}", "one//bin"),
            ("${A:?why}", "one"),
            ("a$", "a$"),
            ("$1$@", ""),
            ("two\\ words", "two words"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_refused() {
        for word in [
            "${A",
            "${}",
            "'a",
            "\"a",
            "${A%b}",
            "${A:}",
            "${NO:?why}",
            "${A:-${A}",
        ] {
            assert!(expand(word).is_err(), "{word}");
        }
        assert!(
            expand("${NO?no such thing}")
                .unwrap_err()
                .contains("no such thing")
        );
    }

    #[test]
    fn pairs_are_split_outside_of_quotes() {
        let pairs = |line| with(|words| words.pairs(line));
        let owned = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            Ok(owned.collect())
        };
        assert_eq!(
            pairs("X=1 Y=\"two words\" Z=a\\ b W='$A' V=$A"),
            owned(&[
                ("X", "1"),
                ("Y", "two words"),
                ("Z", "a b"),
                ("W", "$A"),
                ("V", "one")
            ])
        );
        assert_eq!(pairs("OLD the  rest"), owned(&[("OLD", "the  rest")]));
        for line in ["X", "X=1 Y", "=1", ""] {
            assert!(pairs(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_value_that_explodes_is_refused() {
        let mut variables = Variables::from([("A".to_owned(), "x".repeat(1 << 10))]);
        let mut grown = Ok(());
        for _ in 0..4 {
            let words = Words {
                escape: '\\',
                variables: &variables,
            };
            match words.expand(&"$A".repeat(32)) {
                Ok(value) => variables.insert("A".into(), value),
                Err(why) => {
                    grown = Err(why);
                    break;
                }
            };
        }
        assert!(grown.unwrap_err().contains("longer"));
    }

    #[test]
    fn a_text_keeps_its_quotes() {
        let text = with(|words| words.expand_text("say \"$A\" '$A' \\$A\n"));
        assert_eq!(text.as_deref(), Ok("say \"one\" 'one' $A\n"));
    }
}
