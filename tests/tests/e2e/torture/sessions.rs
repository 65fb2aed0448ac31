//! Sessions that are read by some who stall, leave and come back.

use banger_sdk::{Command, Error, Process, ReadFrom};
use futures::future::join_all;

use super::duel::Duel;
use super::pieced::Pieced;
use super::{
    FLOOD, Kind, LENGTH_MAX, PIECE_MAX, SECOND_READER_EVERY, STAYS_PART, Slot, VM, add, numbers,
    passes,
};

/// A session and what it says.
pub(super) struct Work {
    pub(super) id: String,
    pub(super) told: String,
    kind: Kind,
    seed: u64,
    length: u64,
}

impl Work {
    fn duel(&self) -> Option<Duel> {
        (self.kind == Kind::Duel).then(|| Duel::new(self.seed, self.length))
    }
}

impl Slot<'_> {
    /// Starts a session, reads it to its end, compares, removes it.
    pub(super) async fn session(&self, kind: Kind) {
        let seed = self.random.borrow_mut().u64(..);
        let length = match kind {
            Kind::Flood => FLOOD,
            _ => self.up_to(LENGTH_MAX),
        };
        let command = match kind {
            Kind::Echo | Kind::Duel => Command::new(["cat"]).stdin(),
            _ => Command::new([
                "/tmp/torrent".to_owned(),
                seed.to_string(),
                length.to_string(),
            ]),
        };
        let told = format!("slot {}, seed {seed}, {length} bytes", self.number);
        let id = loop {
            match self.client.sessions().start(VM, command.clone()).await {
                Ok(session) => break session.id,
                Err(error) => passes(&error, &told),
            }
            self.rest().await;
        };
        let has_two = kind == Kind::Torrent && self.number.is_multiple_of(SECOND_READER_EVERY);
        let work = Work {
            id,
            told,
            kind,
            seed,
            length,
        };
        let readings = (0..if has_two { 2 } else { 1 }).map(|_| self.read(&work));
        let (all, ()) = tokio::join!(join_all(readings), self.fight(&work, work.duel()));
        for pieced in all {
            let told = &work.told;
            add(&self.done.bytes, pieced.next - pieced.lost);
            add(&self.done.lost, pieced.lost);
            if kind == Kind::Flood {
                assert_eq!(
                    pieced.next, length,
                    "{told}: all of it is there or told as lost"
                );
            } else {
                pieced.check_whole(seed, length, told);
            }
        }
        add(&self.done.sessions, 1);
        while let Err(error) = self.client.sessions().delete(&work.id).await {
            passes(&error, &work.told);
            self.rest().await;
        }
    }

    /// Puts the output together, over as many attachments as it takes. An echo is also written to.
    async fn read(&self, work: &Work) -> Pieced {
        let mut pieced = work
            .duel()
            .map_or_else(|| Pieced::new(work.seed), Pieced::mixed);
        loop {
            let from = ReadFrom::Offset(i64::try_from(pieced.next).unwrap());
            let attach = self.client.sessions().attach(&work.id).from(from);
            let attach = if self.chance(50) {
                attach.hold_process()
            } else {
                attach
            };
            // Whoever steals a session leaves those alone who only read.
            let attach = match work.kind {
                Kind::Duel => attach.read_only(),
                _ => attach,
            };
            let is_whole = match attach.await {
                Ok(process) => self.stay(process, &mut pieced, work).await,
                Err(error) => Err(error),
            };
            match is_whole {
                Ok(true) => return pieced,
                Ok(false) => {}
                Err(error) => passes(&error, &work.told),
            }
            add(&self.done.returns, 1);
            if self.chance(50) {
                self.rest().await;
            }
        }
    }

    /// Reads for a while, and writes meanwhile; true is the session's end.
    async fn stay(
        &self,
        mut process: Process,
        pieced: &mut Pieced,
        work: &Work,
    ) -> Result<bool, Error> {
        let stays = work.length / STAYS_PART + 1;
        let input = process.input();
        let accepted = u64::try_from(process.session().stdin_offset).unwrap();
        let write = async {
            if work.kind == Kind::Duel {
                return std::future::pending().await;
            }
            let mut at = accepted;
            while work.kind == Kind::Echo && at < work.length {
                let piece = self.up_to(PIECE_MAX).min(work.length - at);
                let bytes = numbers::bytes(work.seed, at, piece);
                // None is taken where the process has ended, which its exit tells.
                if input.write(bytes).await.is_err() {
                    break;
                }
                at += piece;
            }
            input.close();
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut left = i128::from(self.up_to(stays));
            loop {
                let Some(event) = process.next().await? else {
                    return Ok(false);
                };
                let before = pieced.next;
                if pieced.take(event, &work.told) {
                    return Ok(true);
                }
                left -= i128::from(pieced.next - before);
                if left < 0 && self.chance(50) {
                    return Ok(false);
                }
                if left < 0 {
                    self.rest().await;
                    left = self.up_to(stays).into();
                }
            }
        };
        tokio::select! {
            read = read => read,
            () = write => Ok(false),
        }
    }
}
