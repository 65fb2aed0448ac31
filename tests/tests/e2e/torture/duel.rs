//! Two writers of one session, each of whom takes it from the other at random.
//!
//! Each writes bytes of its own, numbered from 0, and comes back by its name: it goes on where the guest says that it is. The
//! highest bit of a byte tells whose it is, so the output shows of each that every byte came once and in order, however
//! the two are mixed. Who was robbed is told so, and is no writer until it takes the session in turn; so two writers that
//! go on at once are found too.

use std::cell::Cell;

use banger_sdk::{Error, Event, Process, ReadFrom};

use super::sessions::Work;
use super::{PIECE_MAX, Slot, add, numbers, passes};

/// What a robbed writer is told.
const REPLACED: &str = "WRITER_REPLACED";
/// How many of a hundred robbed writers come back without taking the session in turn.
const MEEK_PERCENT: u32 = 50;
/// After how many of a hundred pieces a writer rests.
const RESTS_PERCENT: u32 = 30;

/// The highest bit of what each of the two writes.
const BITS: [u8; 2] = [0, 0x80];

/// What the two write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Duel {
    seeds: [u64; 2],
    pub(super) shares: [u64; 2],
}

/// Whose this byte is.
pub(super) const fn side(byte: u8) -> usize {
    (byte >> 7) as usize
}

impl Duel {
    pub(super) const fn new(seed: u64, length: u64) -> Self {
        Self {
            seeds: [seed, !seed],
            shares: [length / 2, length - length / 2],
        }
    }

    /// What a writer writes from its byte `at` on.
    pub(super) fn bytes(&self, side: usize, at: u64, length: u64) -> Vec<u8> {
        let mut bytes = numbers::bytes(self.seeds[side], at, length);
        for byte in &mut bytes {
            *byte = *byte & 0x7f | BITS[side];
        }
        bytes
    }
}

/// What the other must know of a writer. Instants are counts of what happened.
#[derive(Debug, Default)]
struct Side {
    /// When it last took the session, from the call to the answer.
    took: Cell<(u64, u64)>,
    /// When it last tried to, and whether it has no answer yet.
    tried: Cell<u64>,
    is_taking: Cell<bool>,
    /// The guest has all that it writes.
    is_done: Cell<bool>,
}

/// One of the two.
struct Writer<'a> {
    duel: Duel,
    number: usize,
    clock: &'a Cell<u64>,
    own: &'a Side,
    other: &'a Side,
    work: &'a Work,
}

/// How an attachment of a writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The process has ended.
    Exited,
    /// The other one took it.
    Robbed,
    /// The connection is lost.
    Lost,
}

impl Writer<'_> {
    fn now(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Whether the other one has surely taken it since this one did.
    fn is_robbed(&self) -> bool {
        self.other.took.get().0 > self.own.took.get().1
    }

    /// Whether it may have.
    fn may_be_robbed(&self) -> bool {
        self.other.is_taking.get() || self.other.took.get().1 > self.own.tried.get()
    }

    /// That it was told so is explained.
    fn check_robbed(&self) {
        let (told, number) = (&self.work.told, self.number);
        assert!(
            self.may_be_robbed(),
            "{told}: writer {number} was robbed by nobody"
        );
    }
}

impl Slot<'_> {
    /// Both writers, where there are two.
    pub(super) async fn fight(&self, work: &Work, duel: Option<Duel>) {
        let Some(duel) = duel else { return };
        let (clock, sides) = (Cell::new(0), [Side::default(), Side::default()]);
        let writer = |number: usize| Writer {
            duel,
            number,
            clock: &clock,
            own: &sides[number],
            other: &sides[1 - number],
            work,
        };
        tokio::join!(self.fighter(writer(0)), self.fighter(writer(1)));
    }

    /// Takes the session again and again, until all is written and somebody has ended its input.
    async fn fighter(&self, writer: Writer<'_>) {
        let Writer { own, work, .. } = writer;
        let told = format!("{}, writer {}", work.told, writer.number);
        let (mut name, mut written, mut known) = (None, 0, 0);
        let mut left = Left::Lost;
        // The second comes when the first is there, and robs it.
        while writer.number > 0 && writer.other.took.get().1 == 0 {
            self.rest().await;
        }
        while left != Left::Exited {
            let attach = self.client.sessions().attach(&work.id);
            let attach = attach.from(ReadFrom::End);
            let attach = match &name {
                Some(name) => attach.writer(name),
                None => attach,
            };
            if left == Left::Robbed && (own.is_done.get() || self.chance(MEEK_PERCENT)) {
                match attach.await {
                    Ok(_) => panic!("{told}: it was robbed, and writes again"),
                    Err(error) if error.reason() == REPLACED => add(&self.done.refused, 1),
                    Err(error) => passes(&error, &told),
                }
                if own.is_done.get() {
                    return;
                }
                continue;
            }
            let tried = writer.now();
            own.tried.set(tried);
            own.is_taking.set(true);
            left = match attach.steal().await {
                Ok(process) => {
                    own.is_taking.set(false);
                    own.took.set((tried, writer.now()));
                    name = Some(process.writer().to_owned());
                    let accepted = u64::try_from(process.stdin_offset()).unwrap();
                    assert!(
                        (known..=written).contains(&accepted),
                        "{told}: it wrote {written}, heard of {known}, and the guest has {accepted}"
                    );
                    self.write(&writer, process, &mut written, &mut known).await
                }
                Err(error) if error.reason() == REPLACED => {
                    writer.check_robbed();
                    Left::Lost
                }
                Err(error) => {
                    passes(&error, &told);
                    Left::Lost
                }
            };
            self.rest().await;
        }
    }

    /// Writes until it is robbed or the process has ended, which it lets it when both have written all.
    async fn write(
        &self,
        writer: &Writer<'_>,
        mut process: Process,
        written: &mut u64,
        known: &mut u64,
    ) -> Left {
        let told = format!("{}, writer {}", writer.work.told, writer.number);
        let share = writer.duel.shares[writer.number];
        let input = process.input();
        let mut at = u64::try_from(process.stdin_offset()).unwrap();
        let write = async {
            while at < share {
                let piece = self.up_to(PIECE_MAX).min(share - at);
                let bytes = writer.duel.bytes(writer.number, at, piece);
                *written = (*written).max(at + piece);
                // None is taken where the process has ended, which its exit tells.
                if input.write(bytes).await.is_err() {
                    break;
                }
                at += piece;
                if self.chance(RESTS_PERCENT) {
                    self.rest().await;
                }
            }
            input.flush().await;
        };
        let read = async {
            loop {
                match process.next().await {
                    Ok(Some(Event::Exited(_))) => return Ok(()),
                    Ok(event) => assert!(event.is_some(), "{told}: an end without an exit"),
                    Err(error) => return Err(error),
                }
            }
        };
        let ended = {
            let mut read = std::pin::pin!(read);
            tokio::select! {
                ended = &mut read => ended,
                () = write => {
                    writer.own.is_done.set(true);
                    if writer.other.is_done.get() {
                        input.close();
                    }
                    read.await
                }
            }
        };
        let accepted = u64::try_from(process.stdin_offset()).unwrap();
        *known = accepted.max(*known);
        self.left(writer, ended, accepted, &told)
    }

    fn left(
        &self,
        writer: &Writer<'_>,
        ended: Result<(), Error>,
        accepted: u64,
        told: &str,
    ) -> Left {
        let Err(error) = ended else {
            assert!(!writer.is_robbed(), "{told}: it was robbed and not told");
            assert_eq!(
                accepted, writer.duel.shares[writer.number],
                "{told}: what the guest has at the end"
            );
            return Left::Exited;
        };
        let lost = error.lost_process().map(|process| process.stdin_offset);
        assert_eq!(
            lost.and_then(|offset| u64::try_from(offset).ok()),
            Some(accepted),
            "{told}: the error tells what the guest has"
        );
        if error.reason() == REPLACED {
            writer.check_robbed();
            add(&self.done.robbed, 1);
            return Left::Robbed;
        }
        passes(&error, told);
        Left::Lost
    }
}
