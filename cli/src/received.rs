//! What the daemon writes for us, as a file: under its name only when it is whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use banger_sdk::{Export, types};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::progress::Progress;

/// Where an export goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Our standard output.
    Output,
    /// A file.
    File { path: PathBuf, part: PathBuf },
}

/// A file that goes again unless it is kept.
struct Part<'a>(&'a Path);

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // One that was kept is not there any more.
        let _ = std::fs::remove_file(self.0);
    }
}

impl Target {
    /// A file, or `-` for standard output.
    ///
    /// # Errors
    /// When the file is there and must not be replaced.
    pub(crate) fn new(path: &Path, replace: bool) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Output);
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(Failure::FileExists {
                path: path.to_owned(),
            });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self::File {
            path: path.to_owned(),
            part: path.with_file_name(format!(".{name}.{}.part", std::process::id())),
        })
    }

    /// Takes all of `export`.
    pub(crate) async fn take(
        self,
        export: &mut Export,
        progress: &Progress,
    ) -> Result<(), Failure> {
        match self {
            Self::Output => copy(export, &mut io::stdout().lock(), progress).await,
            Self::File { path, part } => {
                let failed = |source| Failure::WriteFile {
                    path: path.clone(),
                    source,
                };
                let mut file = std::fs::File::create_new(&part).map_err(failed)?;
                let guard = Part(&part);
                let copied = copy(export, &mut file, progress).await;
                copied.map_err(|failure| match failure {
                    Failure::Write(source) => failed(source),
                    other => other,
                })?;
                file.sync_all().map_err(failed)?;
                std::fs::rename(&part, &path).map_err(failed)?;
                drop(guard);
                Ok(())
            }
        }
    }
}

async fn copy(
    export: &mut Export,
    to: &mut impl Write,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut signals = Interrupts::new()?;
    let now = Timestamp::now();
    let mut stage = types::Stage {
        name: "export".into(),
        start_time: Some(types::Timestamp {
            seconds: now.as_second(),
            nanos: 0,
        }),
        ..types::Stage::default()
    };
    let copied = loop {
        let chunk = tokio::select! {
            // dropped when it loses, and with it the export
            chunk = export.next() => chunk,
            // cancel-safe
            signal = signals.end() => break Err(Failure::Interrupted { signal }),
        };
        match chunk {
            Ok(Some(bytes)) => {
                if let Err(error) = to.write_all(&bytes) {
                    break Err(Failure::write(error));
                }
                stage.done_bytes += i64::try_from(bytes.len()).unwrap_or(0);
                progress.stage(&stage);
            }
            Ok(None) => break to.flush().map_err(Failure::write),
            Err(error) => break Err(error.into()),
        }
    };
    progress.clear();
    copied
}
