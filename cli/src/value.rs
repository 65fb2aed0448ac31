//! Values of options, as people write them.

use std::time::{Duration, SystemTime};

use banger_sdk::{ArchiveFormat, NetworkMode, PullSource, Resource, RestartPolicy};
use clap::ValueEnum;
use jiff::Timestamp;
use parse_size::Config;

/// One MiB.
const MIB: u64 = 1 << 20;

/// A size such as `512M` or `2G`, powers of 1024; a bare number counts MiB. In MiB, rounded up.
pub(crate) fn mib(text: &str) -> Result<i64, String> {
    let example = || format!("`{text}` is no size: write 512M or 2G");
    let text = text.trim();
    let bytes = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(MIB))
            .ok_or_else(example)?
    } else {
        Config::new()
            .with_binary()
            .parse_size(text)
            .map_err(|_| example())?
    };
    i64::try_from(bytes.div_ceil(MIB)).map_err(|_| example())
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// `KEY=VALUE`, or `KEY` for the value that it has here.
pub(crate) fn env(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return pair(text);
    }
    let value = std::env::var(text).map_err(|_| format!("`{text}` is not set here"))?;
    Ok((text.to_owned(), value))
}

/// A volume in a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) volume: String,
    pub(crate) path: String,
    pub(crate) read_only: bool,
}

/// `VOLUME:PATH`, or `VOLUME:PATH:ro`.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    let wrong = || format!("`{text}` is not VOLUME:PATH or VOLUME:PATH:ro");
    let (volume, place) = text.split_once(':').ok_or_else(wrong)?;
    let (path, read_only) = match place.rsplit_once(':') {
        Some((path, "ro")) => (path, true),
        Some((path, "rw")) => (path, false),
        _ => (place, false),
    };
    if volume.is_empty() || !path.starts_with('/') {
        return Err(wrong());
    }
    Ok(Mount {
        volume: volume.to_owned(),
        path: path.to_owned(),
        read_only,
    })
}

/// A limit of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) resource: Resource,
    /// What applies; nothing is no limit.
    pub(crate) soft: Option<i64>,
    /// How far it may be raised.
    pub(crate) hard: Option<i64>,
}

/// `NAME=SOFT[:HARD]`, a side being a number or `unlimited`; the hard side is the soft one by itself.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    const FORM: &str = "give NAME=SOFT or NAME=SOFT:HARD, e.g. nofile=1024 or core=0:unlimited";
    let (name, sides) = text.split_once('=').ok_or(FORM)?;
    let resource = Resource::from_str_name(&format!("RESOURCE_{}", name.to_ascii_uppercase()));
    let resource = resource.filter(|known| *known != Resource::Unspecified);
    let resource = resource.ok_or_else(|| format!("`{name}` is no resource"))?;
    let side = |text: &str| match text {
        "unlimited" => Ok(None),
        number => match number.parse::<i64>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => Err(FORM.to_owned()),
        },
    };
    let (soft, hard) = sides.split_once(':').unwrap_or((sides, sides));
    let (soft, hard) = (side(soft)?, side(hard)?);
    if soft.unwrap_or(i64::MAX) > hard.unwrap_or(i64::MAX) {
        return Err("the soft side is above the hard one".to_owned());
    }
    Ok(Limit {
        resource,
        soft,
        hard,
    })
}

/// Nine permission bits in octal.
pub(crate) fn umask(text: &str) -> Result<u16, String> {
    let bits = u16::from_str_radix(text, 8).ok();
    let bits = bits.filter(|&bits| bits <= 0o777);
    bits.ok_or_else(|| "give up to three octal digits, e.g. 077".to_owned())
}

/// A time: a moment such as `2026-01-31T12:00:00Z`, or how long ago, such as `10m`.
pub(crate) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.into());
    }
    let ago = long_duration(text).map_err(|_| {
        "give a moment such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned()
    })?;
    let before = SystemTime::now().checked_sub(ago);
    before.ok_or_else(|| "it is too long ago".to_owned())
}

/// A time such as `90s`, `5m` or `1h 30m`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let example = || format!("`{text}` is no time: write 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| example())?;
    Duration::try_from(parsed).map_err(|_| example())
}

/// A time after which something happens by itself, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(pub(crate) Option<Duration>);

/// `never`, or what [`long_duration`] takes.
pub(crate) fn life(text: &str) -> Result<Life, String> {
    match text {
        "never" => Ok(Life(None)),
        time => long_duration(time).map(|time| Life(Some(time))),
    }
}

/// What happens when a VM ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// It stays as it is
    Never,
    /// It is started again if it ended by a fault
    OnFailure,
    /// It is started again, however it ended
    Always,
}

impl From<Restart> for RestartPolicy {
    fn from(policy: Restart) -> Self {
        match policy {
            Restart::Never => Self::Never,
            Restart::OnFailure => Self::OnFailure,
            Restart::Always => Self::Always,
        }
    }
}

/// A time such as `90d`, `2w` or what [`duration`] takes.
pub(crate) fn long_duration(text: &str) -> Result<Duration, String> {
    let units = [("d", 24 * 3600), ("w", 7 * 24 * 3600)];
    for (unit, seconds) in units {
        if let Some(number) = text
            .strip_suffix(unit)
            .and_then(|number| number.parse::<u64>().ok())
        {
            let example = || format!("`{text}` is too long a time");
            return number
                .checked_mul(seconds)
                .map(Duration::from_secs)
                .ok_or_else(example);
        }
    }
    duration(text)
}

/// The names of the signals on Linux, by number from 1 (signal(7), x86 and Arm).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal: `INT`, `SIGINT` or `2`.
pub(crate) fn signal(text: &str) -> Result<i32, String> {
    let unknown = || format!("`{text}` is no signal: write TERM, SIGTERM or 15");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let index = SIGNALS
        .iter()
        .position(|known| *known == name)
        .ok_or_else(unknown)?;
    i32::try_from(index + 1).map_err(|_| unknown())
}

/// The name of a signal, else its number.
pub(crate) fn signal_name(number: i32) -> String {
    let index = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    match index.and_then(|index| SIGNALS.get(index)) {
        Some(name) => format!("SIG{name}"),
        None => number.to_string(),
    }
}

/// The network of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// No interface
    None,
    /// Outgoing connections through the VMM
    User,
}

impl From<Network> for NetworkMode {
    fn from(network: Network) -> Self {
        match network {
            Network::None => Self::None,
            Network::User => Self::User,
        }
    }
}

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageSource {
    /// In the catalogs only
    Catalog,
    /// In the registry only
    Registry,
}

impl From<ImageSource> for PullSource {
    fn from(source: ImageSource) -> Self {
        match source {
            ImageSource::Catalog => Self::Catalog,
            ImageSource::Registry => Self::Registry,
        }
    }
}

/// The format of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportFormat {
    /// A tar of an OCI image layout
    OciLayout,
    /// What `docker save` writes
    DockerArchive,
    /// A tar of a root filesystem
    RootfsTar,
    /// What `banger image export` writes
    Bundle,
    /// An ext4 file system
    Ext4,
}

impl From<ImportFormat> for ArchiveFormat {
    fn from(archive: ImportFormat) -> Self {
        match archive {
            ImportFormat::OciLayout => Self::OciLayout,
            ImportFormat::DockerArchive => Self::DockerArchive,
            ImportFormat::RootfsTar => Self::RootfsTar,
            ImportFormat::Bundle => Self::Bundle,
            ImportFormat::Ext4 => Self::Ext4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_round_up_to_mebibytes() {
        assert_eq!(mib("512M"), Ok(512));
        assert_eq!(mib("2G"), Ok(2048));
        assert_eq!(mib("2GiB"), Ok(2048));
        assert_eq!(mib("512"), Ok(512));
        assert_eq!(mib("1500k"), Ok(2));
        for wrong in ["", "x", "-1", "1Q", "99999999999999999999"] {
            assert!(mib(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_name_a_resource_and_one_or_two_sides() {
        let both = |soft, hard| {
            Ok(Limit {
                resource: Resource::Nofile,
                soft,
                hard,
            })
        };
        assert_eq!(limit("nofile=1024"), both(Some(1024), Some(1024)));
        assert_eq!(limit("nofile=0:unlimited"), both(Some(0), None));
        assert_eq!(limit("nofile=unlimited"), both(None, None));
        for wrong in [
            "nofile",
            "nofile=",
            "nofile=-1",
            "nofile=2:1",
            "nofile=unlimited:1",
            "unspecified=1",
            "x=1",
        ] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
        assert_eq!(umask("077"), Ok(0o077));
        for wrong in ["", "8", "1000", "-1"] {
            assert!(umask(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_moment_or_how_long_ago() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(since("1970-01-02T00:00:00Z"), Ok(moment));
        let then = since("10m").unwrap();
        let ago = SystemTime::now().duration_since(then).unwrap();
        assert!((600..660).contains(&ago.as_secs()), "{ago:?}");
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn long_times_are_days_and_weeks_too() {
        assert_eq!(long_duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(long_duration("2w"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(long_duration("12h"), Ok(Duration::from_secs(12 * 3600)));
        assert!(long_duration("d").is_err());
        assert!(long_duration("99999999999999999999d").is_err());
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["2", "INT", "sigint"] {
            assert_eq!(signal(text), Ok(2));
        }
        assert_eq!(signal("TERM"), Ok(15));
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "40");
        for wrong in ["0", "65", "-1", "FOO", ""] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-3s").is_err());
        assert!(duration("soon").is_err());
    }

    #[test]
    fn mounts_are_volumes_at_paths() {
        let mounted = |volume: &str, path: &str, read_only| {
            Ok(Mount {
                volume: volume.into(),
                path: path.into(),
                read_only,
            })
        };
        assert_eq!(mount("data:/data"), mounted("data", "/data", false));
        assert_eq!(mount("data:/data:ro"), mounted("data", "/data", true));
        assert_eq!(mount("data:/data:rw"), mounted("data", "/data", false));
        assert_eq!(mount("data:/a:b"), mounted("data", "/a:b", false));
        for wrong in ["data", ":/data", "data:", "data:data", "data:ro"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_need_a_key_and_keep_later_equals_signs() {
        assert_eq!(pair("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("A="), Ok(("A".to_owned(), String::new())));
        assert!(pair("=b").is_err());
        assert!(pair("A").is_err());
        assert!(env("SURELY_NOT_SET_ANYWHERE").is_err());
    }
}
