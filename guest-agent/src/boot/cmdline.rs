//! Words on the kernel's command line that are for us: `banger.<name>=<value>`, percent-encoded.

/// The value of `key`, which ends in `=`, as it stands on the line.
pub(crate) fn value<'line>(line: &'line str, key: &str) -> Option<&'line str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key))
}

/// Percent-decodes; what is no valid escape stays as it is.
pub(crate) fn decode(word: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| byte == b'%');
        let decoded = escape
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_among_other_words() {
        assert_eq!(value("quiet banger.x=1 panic=-1", "banger.x="), Some("1"));
        assert_eq!(value("quiet", "banger.x="), None);
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(decode("a%20b%2c"), "a b,");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
