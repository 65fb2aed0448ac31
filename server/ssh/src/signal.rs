//! Signals: by name in ssh (RFC 4254, section 6.10), by number everywhere else.

use russh::Sig;

/// The names that are known, and their numbers on Linux.
const SIGNALS: [(&str, i32); 27] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("WINCH", 28),
    ("PWR", 30),
    ("SYS", 31),
];

/// What is sent to a process whose client has gone.
pub(crate) const HUP: i32 = 1;

/// The number of a signal that a client names, if it is one.
pub(crate) fn number(signal: &Sig) -> Option<i32> {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name.split('@').next().unwrap_or_default(),
    };
    let found = SIGNALS.iter().find(|(known, _)| *known == name);
    found.map(|&(_, number)| number)
}

/// The name of a signal that ended a process; those without a name have one of banger's own, as the protocol asks for.
pub(crate) fn name(number: i32) -> Sig {
    let found = SIGNALS.iter().find(|&&(_, known)| known == number);
    match found {
        Some((name, _)) => Sig::Custom((*name).to_owned()),
        None => Sig::Custom(format!("{number}@banger.dev")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_number_and_each_number_its_name() {
        for (text, expected) in SIGNALS {
            assert_eq!(number(&Sig::Custom(text.into())), Some(expected));
            assert!(matches!(name(expected), Sig::Custom(name) if name == text));
        }
        assert_eq!(number(&Sig::TERM), Some(15));
        assert_eq!(number(&Sig::Custom("NONE".into())), None);
        assert!(matches!(name(64), Sig::Custom(name) if name == "64@banger.dev"));
    }
}
