//! Numbers, times and ids, both ways.

use std::str::FromStr;
use std::time::Duration;

use banger_core::Timestamp;

use crate::grpc::request::RequestError;

/// The most bytes in one piece of an upload or of standard input.
pub(crate) const CHUNK_MAX: usize = 1 << 20;
/// The most bytes of the text that names a resource: a reference with a digest is the longest.
const NAMED_MAX: usize = 512;
/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// A count or size as the API has it. What does not fit is as large as can be.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A small count as the API has it.
pub(crate) fn small(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A number that must not be negative.
pub(crate) fn natural<T: TryInto<U> + std::fmt::Display + Copy, U>(
    field: &'static str,
    value: T,
) -> Result<U, RequestError> {
    value
        .try_into()
        .map_err(|_| RequestError::invalid(field, format!("is {value}, which is out of range")))
}

/// A time as the API has it.
pub(crate) fn time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.as_nanosecond();
    prost_types::Timestamp {
        seconds: i64::try_from(nanos.div_euclid(NANOS)).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos.rem_euclid(NANOS)).unwrap_or(0),
    }
}

/// A span as the API has it.
pub(crate) fn span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: int(span.as_secs()),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A span that a caller gives: longer than nothing.
pub(crate) fn positive_span(
    field: &'static str,
    span: &prost_types::Duration,
) -> Result<Duration, RequestError> {
    let seconds = u64::try_from(span.seconds);
    let nanos = u32::try_from(span.nanos);
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if (seconds, nanos) > (0, 0) && i128::from(nanos) < NANOS => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(RequestError::invalid(
            field,
            "is not a duration longer than nothing",
        )),
    }
}

/// The id of a resource that has no other name.
pub(crate) fn id<I: FromStr>(field: &'static str, text: &str) -> Result<I, RequestError>
where
    I::Err: std::fmt::Display,
{
    let text = named(field, text)?;
    text.parse()
        .map_err(|error| RequestError::invalid(field, format!("is wrong: {error}")))
}

/// What names a resource: an id, a name, a reference. The service finds out which.
pub(crate) fn named<'t>(field: &'static str, text: &'t str) -> Result<&'t str, RequestError> {
    match text.len() {
        0 => Err(RequestError::missing(field)),
        length if length > NAMED_MAX => Err(RequestError::invalid(
            field,
            format!("has {length} bytes, and may have {NAMED_MAX}"),
        )),
        _ => Ok(text),
    }
}

/// One piece of bytes.
pub(crate) fn chunk(
    field: &'static str,
    bytes: bytes::Bytes,
) -> Result<bytes::Bytes, RequestError> {
    match bytes.len() {
        length if length > CHUNK_MAX => Err(RequestError::invalid(
            field,
            format!("has {length} bytes, and may have {CHUNK_MAX}"),
        )),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::VmId;

    use super::*;

    #[test]
    fn times_before_the_epoch_keep_their_nanoseconds_positive() {
        let before = Timestamp::from_nanosecond(-1).unwrap();
        assert_eq!(
            time(before),
            prost_types::Timestamp {
                seconds: -1,
                nanos: 999_999_999
            }
        );
        let after = Timestamp::from_nanosecond(1_500_000_000).unwrap();
        assert_eq!(
            time(after),
            prost_types::Timestamp {
                seconds: 1,
                nanos: 500_000_000
            }
        );
    }

    #[test]
    fn numbers_that_do_not_fit_are_as_large_as_can_be() {
        assert_eq!(int(u64::MAX), i64::MAX);
        assert_eq!(small(usize::MAX), i32::MAX);
    }

    #[test]
    fn negative_numbers_are_refused_by_field() {
        let refused = natural::<i64, u64>("spec.memory_mib", -1).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "spec.memory_mib is -1, which is out of range"
        );
    }

    #[test]
    fn only_positive_spans_are_spans() {
        let proto = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(positive_span("t", &proto(1, 5)), Ok(Duration::new(1, 5)));
        for (seconds, nanos) in [(0, 0), (-1, 0), (0, -1), (1, 1_000_000_000)] {
            assert!(
                positive_span("t", &proto(seconds, nanos)).is_err(),
                "{seconds} {nanos}"
            );
        }
    }

    #[test]
    fn names_are_bounded_and_ids_are_ids() {
        assert_eq!(named("vm", "").unwrap_err().to_string(), "vm is missing");
        assert!(named("vm", &"x".repeat(513)).is_err());
        assert!(
            id::<VmId>("vm", "x")
                .unwrap_err()
                .to_string()
                .starts_with("vm is wrong: `x` is not an id")
        );
    }
}
