//! How many processes of git it takes: in a VM whose processor is emulated each costs more than what it does.

use std::io;
use std::sync::Mutex;

use super::*;
use crate::command::{Launcher, Plan, Running};

/// Starts git, and notes which of its commands.
#[derive(Debug, Default)]
struct Counting(Mutex<Vec<String>>);

impl Launcher for Counting {
    fn launch(&self, plan: Plan) -> io::Result<Running> {
        let mut words = plan.arguments.iter().skip(2);
        let mut command = words.next();
        while command.is_some_and(|word| word == "-c") {
            command = words.nth(1);
        }
        let command = command.unwrap().to_string_lossy().into_owned();
        self.0.lock().unwrap().push(command);
        HostLauncher.launch(plan)
    }
}

/// The commands that `work` runs.
fn counted(path: &Path, work: impl FnOnce(&Place)) -> Vec<String> {
    let counting = Arc::new(Counting::default());
    work(&Place {
        launcher: Arc::<Counting>::clone(&counting),
        ..place(path)
    });
    std::mem::take(&mut counting.0.lock().unwrap())
}

fn prepared(path: &Path, request: &Restore, parts: &[Part]) -> Vec<String> {
    counted(path, |place| {
        let mut parts: VecDeque<Part> = parts.iter().cloned().collect();
        let mut next = move || parts.pop_front();
        restore(place, request, &mut next, &mut |_| true).unwrap();
    })
}

#[test]
fn few_processes_of_git_are_enough() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    let parts = told(&from, &Export::default());
    let request = Restore {
        overwrite: true,
        author_name: "Ann".to_owned(),
        author_email: "ann@example.com".to_owned(),
        ..Restore::default()
    };
    let first = prepared(&to, &request, &parts);
    assert!(first.len() <= 20, "{} {first:?}", first.len());
    let known = base(&parts);
    write(from.join("a"), "more\n");
    git(&from, &["commit", "-q", "-a", "-m", "fourth"]);
    let again = Export {
        base: known.clone(),
        ..Export::default()
    };
    let second = prepared(&to, &request, &told(&from, &again));
    assert!(second.len() <= 36, "{} {second:?}", second.len());
    work(&to);
    let request = Export {
        base: known.clone(),
        had_git: true,
        max_bytes: 0,
    };
    let brought = counted(&to, |place| export(place, &request, &mut |_| true).unwrap());
    assert!(brought.len() <= 14, "{} {brought:?}", brought.len());
    let request = StatusRequest {
        base: known,
        had_git: true,
    };
    let looked = counted(&to, |place| drop(status(place, &request).unwrap()));
    assert!(looked.len() <= 18, "{} {looked:?}", looked.len());
}
