//! Identifiers: one newtype per resource, each a UUIDv7, so that ids sort by creation time.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A text that is not a UUID where an id was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id (a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057)")]
pub struct ParseIdError {
    /// What was given, cut to 64 characters.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later in order than all made before it by this process.
            #[must_use]
            #[allow(clippy::new_without_default)] // a default id would be a surprise: each call differs
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// When it was made, by the clock of who made it, in whole milliseconds; the epoch where it does not tell.
            #[must_use]
            pub fn made_at(self) -> crate::Timestamp {
                let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
                let seconds = i64::try_from(seconds).unwrap_or_default();
                let nanos = i32::try_from(nanos).unwrap_or_default();
                crate::Timestamp::new(seconds, nanos).unwrap_or_default()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                // Only the hyphenated form: one resource, one spelling.
                match (text.len(), Uuid::try_parse(text)) {
                    (36, Ok(uuid)) => Ok(Self(uuid)),
                    _ => Err(ParseIdError { text: text.chars().take(64).collect() }),
                }
            }
        }
    };
}

id! {
    /// Identifies a VM for as long as its row exists.
    VmId
}
id! {
    /// Identifies an image as banger keeps it: one base disk with its configuration.
    ImageId
}
id! {
    /// Identifies a kernel with its modules.
    KernelId
}
id! {
    /// Identifies a volume for as long as its row exists.
    VolumeId
}
id! {
    /// Identifies a session within the whole host, not only within its VM.
    SessionId
}
id! {
    /// Identifies a writer of a session, on whatever connection.
    WriterId
}
id! {
    /// Identifies an operation.
    OperationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text() {
        let id = VmId::new();
        assert_eq!(id.to_string().parse::<VmId>().unwrap(), id);
    }

    #[test]
    fn ids_sort_by_creation() {
        let (first, second) = (VmId::new(), VmId::new());
        assert!(first < second);
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let before = crate::Timestamp::now().as_millisecond();
        let made = VmId::new().made_at().as_millisecond();
        assert!((before..=crate::Timestamp::now().as_millisecond()).contains(&made));
        let untold = "01890a5d-ac96-474b-bcce-b302099a8057";
        let untold: VmId = untold.parse().unwrap();
        assert_eq!(untold.made_at(), crate::Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for text in [
            "",
            "x",
            "01890a5dac96774bbcceb302099a8057",
            "../../etc/passwd",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
        ] {
            assert!(text.parse::<VmId>().is_err(), "{text}");
        }
    }
}
