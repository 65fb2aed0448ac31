//! Execs, each of which leaves a mark when it runs: what is said of it is compared with that.

use banger_e2e::Daemon;
use banger_sdk::{CodeRan, Command, Error};

use super::done::Done;
use super::pieced::Pieced;
use super::{LENGTH_MAX, Slot, VM, add, numbers, passes};
use crate::suite::LONG;

/// Makes the mark, and fails where there is one: nothing may run twice.
const MARKED: &str = r#"mkdir "/tmp/ran/$0" && exec "$@""#;
/// After how many of a hundred events the caller stalls.
const STALLS_PERCENT: u32 = 20;

/// What is known of an exec.
#[derive(Debug)]
pub(super) struct Mark {
    name: String,
    ran: CodeRan,
    /// Its output has begun, so the mark was made.
    has_output: bool,
}

impl Slot<'_> {
    /// One exec, which writes by itself or says what it is told. It is right and whole, or an error tells what is known of it.
    pub(super) async fn exec(&self) {
        let seed = self.random.borrow_mut().u64(..);
        let length = self.up_to(LENGTH_MAX);
        let is_echo = self.chance(50);
        let name = format!("{}-{seed}", self.number);
        let told = format!("exec {name}, {length} bytes, echo {is_echo}");
        let words = ["sh", "-c", MARKED, &name].map(str::to_owned).into_iter();
        let command = if is_echo {
            Command::new(words.chain(["cat".to_owned()])).stdin()
        } else {
            let torrent = "/tmp/torrent".to_owned();
            Command::new(words.chain([torrent, seed.to_string(), length.to_string()]))
        };
        let mut pieced = Pieced::new(seed);
        let input = is_echo.then(|| numbers::bytes(seed, 0, length));
        let ended = self.run(command, input, &mut pieced, &told).await;
        let has_output = pieced.next > 0;
        let ran = match ended {
            Ok(()) => {
                pieced.check_whole(seed, length, &told);
                add(&self.done.execs, 1);
                CodeRan::Yes
            }
            Err(error) => {
                passes(&error, &told);
                add(&self.done.ended_by_error, 1);
                if has_output {
                    let lost = error.lost_process().map(|process| process.output_offset);
                    assert_eq!(
                        lost.and_then(|offset| u64::try_from(offset).ok()),
                        Some(pieced.next),
                        "{told}: the error tells how much came"
                    );
                }
                self.rest().await;
                error.code_ran()
            }
        };
        self.done.marks.borrow_mut().push(Mark {
            name,
            ran,
            has_output,
        });
    }

    async fn run(
        &self,
        command: Command,
        bytes: Option<Vec<u8>>,
        pieced: &mut Pieced,
        told: &str,
    ) -> Result<(), Error> {
        let mut process = self.client.sessions().exec(VM, command).await?;
        let input = process.input();
        let write = async {
            if let Some(bytes) = bytes {
                // None is taken where the process has ended, which its exit tells.
                let _ = input.write(bytes).await;
                input.close();
            }
            std::future::pending::<()>().await;
        };
        let read = async {
            loop {
                let event = process.next().await?;
                if pieced.take(event.expect("an exit comes first"), told) {
                    return Ok::<_, Error>(process.reconnects());
                }
                if self.chance(STALLS_PERCENT) {
                    self.rest().await;
                }
            }
        };
        let reconnects = tokio::select! {
            read = read => read?,
            () = write => unreachable!("it waits for ever"),
        };
        add(&self.done.resumed, u64::from(reconnects > 0));
        Ok(())
    }
}

/// What was said of the execs is true: of none that did not run is there a mark, and of each that ran there is.
pub(super) fn check(daemon: &Daemon, done: &Done) {
    let words = ["vm", "exec", VM, "--", "ls", "/tmp/ran"];
    let listed = daemon.banger(words).timeout(LONG).ok().out();
    let made: std::collections::HashSet<&str> = listed.lines().collect();
    for mark in done.marks.borrow().iter() {
        let is_made = made.contains(mark.name.as_str());
        assert!(
            !(is_made && mark.ran == CodeRan::No),
            "an exec that was said not to have run did: {mark:?}"
        );
        assert!(
            is_made || !mark.has_output,
            "an exec whose output came has left no mark: {mark:?}"
        );
        assert!(
            !(mark.has_output && mark.ran == CodeRan::No),
            "an exec whose output came is said not to have run: {mark:?}"
        );
    }
}
