//! Progress on standard error: bars where there is a terminal, lines where there is none.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_sdk::types;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::view::Stage;

/// How often a bar without news is drawn.
const TICK: Duration = Duration::from_millis(120);

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing.
    None,
    /// Without a terminal, only stages that have items, such as layers.
    Items,
    /// Every stage.
    All,
}

/// What shows the progress of operations. Clones show in the same place.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    shown: Arc<Mutex<Shown>>,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Lines {
        all: bool,
        told: HashMap<Key, ()>,
    },
    Bars {
        all: MultiProgress,
        bars: HashMap<Key, ProgressBar>,
    },
}

/// Which stage: its name and its item.
type Key = (String, String);

impl Progress {
    pub(crate) fn new(style: Style) -> Self {
        let shown = match style {
            Style::None => Shown::Nothing,
            _ if io::stderr().is_terminal() => Shown::Bars {
                all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
                bars: HashMap::new(),
            },
            style => Shown::Lines {
                all: style == Style::All,
                told: HashMap::new(),
            },
        };
        Self {
            shown: Arc::new(Mutex::new(shown)),
        }
    }

    /// What the SDK calls with each change of an operation.
    pub(crate) fn callback(&self) -> impl FnMut(&types::Operation) + Send + use<> {
        let shown = Arc::clone(&self.shown);
        move |operation| {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            for stage in &operation.stages {
                shown.show(stage);
            }
        }
    }

    /// Shows one stage of work of our own.
    pub(crate) fn stage(&self, stage: &types::Stage) {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .show(stage);
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Shown::Bars { all, bars } = &mut *shown {
            for (_, bar) in bars.drain() {
                bar.finish_and_clear();
            }
            // A terminal that cannot be cleared shows old bars.
            let _ = all.clear();
        }
    }
}

impl Shown {
    fn show(&mut self, stage: &types::Stage) {
        let key = (stage.name.clone(), stage.item.clone());
        match self {
            Self::Nothing => {}
            Self::Lines { all, told } => {
                let wanted = *all || !stage.item.is_empty();
                if wanted && stage.end_time.is_some() && told.insert(key, ()).is_none() {
                    let line = Stage::from(stage.clone()).cells().join("  ");
                    // Progress that cannot be shown is no fault.
                    let _ = writeln!(io::stderr(), "{}", line.trim_end());
                }
            }
            Self::Bars { all, bars } => {
                let bar = bars.entry(key).or_insert_with(|| bar_for(stage, all));
                update(bar, stage);
            }
        }
    }
}

fn bar_for(stage: &types::Stage, all: &MultiProgress) -> ProgressBar {
    // Among the others before it is drawn: alone, it would draw where they stand.
    let bar = all.add(ProgressBar::hidden());
    bar.set_style(style(stage));
    bar.set_message(printable(&format!("{} {}", stage.name, stage.item)));
    bar.enable_steady_tick(TICK);
    bar
}

fn style(stage: &types::Stage) -> ProgressStyle {
    let template = if stage.total_bytes.is_some() {
        "{spinner} {msg:28} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}"
    } else if stage.done_bytes > 0 {
        "{spinner} {msg:28} {binary_bytes}"
    } else {
        "{spinner} {msg:28} {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn update(bar: &ProgressBar, stage: &types::Stage) {
    if bar.is_finished() {
        return;
    }
    if let Some(total) = stage
        .total_bytes
        .and_then(|total| u64::try_from(total).ok())
    {
        bar.set_length(total);
    }
    bar.set_style(style(stage));
    bar.set_position(u64::try_from(stage.done_bytes).unwrap_or(0));
    if stage.end_time.is_some() {
        let [what, took, moved] =
            <[String; 3]>::try_from(Stage::from(stage.clone()).cells()).unwrap_or_default();
        if let Ok(done) = ProgressStyle::with_template("✓ {msg}") {
            bar.set_style(done);
        }
        bar.finish_with_message(printable(&format!("{what:28} {took:>12}  {moved}")));
    }
}

/// Without control characters, which would move the terminal's cursor.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .collect::<String>()
        .trim_end()
        .to_owned()
}
