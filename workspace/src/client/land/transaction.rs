//! Changes of references that happen together, in one store or in several.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::sync_channel;

use crate::client::error::{Error, Result};
use crate::client::store::Store;

const WHAT: &str = "write the references";
/// What git says when it holds the locks of all names and all values are as they should be.
const PREPARED: &str = "prepare: ok\n";

/// Changes of references of one store.
#[derive(Debug, Default)]
pub(crate) struct Transaction(Vec<u8>);

impl Transaction {
    /// A change: a word of git-update-ref(1), a name, and ids.
    pub(crate) fn line(&mut self, word: &str, name: &str, ids: &[&str]) {
        self.0.extend(word.bytes());
        self.0.push(b' ');
        self.0.extend(name.bytes());
        self.0.push(0);
        for id in ids {
            self.0.extend(id.bytes());
            self.0.push(0);
        }
    }

    /// Makes the changes, all or none, and is empty then.
    pub(crate) fn run(&mut self, store: &Store) -> Result<()> {
        run_all(&[(store, std::mem::take(self))]).map_err(|(_, error)| error)
    }
}

/// Makes the changes of all, or of none: each is prepared before the last is committed, and they are committed from the
/// last to the first. An error comes with the number of the store whose changes could not be made.
///
/// Nobody who gives up ends git here: ended between two names, it would leave locks that nobody removes.
pub(crate) fn run_all(
    transactions: &[(&Store, Transaction)],
) -> std::result::Result<(), (usize, Error)> {
    run_from(0, transactions)
}

fn run_from(
    number: usize,
    transactions: &[(&Store, Transaction)],
) -> std::result::Result<(), (usize, Error)> {
    let Some(((store, Transaction(lines)), rest)) = transactions.split_first() else {
        return Ok(());
    };
    if lines.is_empty() {
        return run_from(number + 1, rest);
    }
    let (tell, prepared) = sync_channel(1);
    let mut others = Ok(());
    let told = &mut others;
    let feed = move |input: &mut dyn Write| {
        input.write_all(b"start\0")?;
        input.write_all(lines)?;
        input.write_all(b"prepare\0")?;
        input.flush()?;
        // Where git could not prepare it has ended, and says why.
        if prepared.recv().is_err() {
            return Ok(());
        }
        *told = run_from(number + 1, rest);
        match told {
            Ok(()) => input.write_all(b"commit\0"),
            Err(_) => input.write_all(b"abort\0"),
        }
    };
    let listen = move |output: &mut dyn Read| {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line)? > 0 {
            if line == PREPARED {
                // Whoever waited for it may have failed, and says so.
                let _ = tell.send(());
            }
            line.clear();
        }
        Ok(())
    };
    let words = ["update-ref", "--stdin", "-z", "--no-deref"];
    let changed = store.lasting_git().pipe(&words, feed, listen);
    others?;
    let changed = changed.map_err(Error::git(WHAT));
    changed.map(drop).map_err(|error| (number, error))
}
