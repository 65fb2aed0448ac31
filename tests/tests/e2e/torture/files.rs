//! Files that go into the VM and come out of it: each transfer is whole, or fails with a reason and leaves what was there.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use banger_sdk::{Error, Unpack};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::{Slot, VM, add, numbers, passes};

/// The longest file.
const LENGTH_MAX: u64 = 4 << 20;
/// What the file is called, there and here.
const NAME: &str = "moved";

/// The hash of a content.
type Hash = [u8; 32];

fn hash(content: &[u8]) -> Hash {
    Sha256::digest(content).into()
}

/// A file on its way in and out.
pub(super) struct Moving {
    /// The directory there, with nothing else in it.
    there: String,
    /// The directory here, with nothing else in it.
    here: PathBuf,
    /// What it may have there: what was last written for sure, and what may have been since.
    may_be: Vec<Hash>,
    /// Something was written for sure.
    is_there: bool,
    /// What it has here.
    is_here: Option<Hash>,
    told: String,
}

impl Moving {
    pub(super) fn new(slot: &Slot<'_>, scratch: &Path) -> Self {
        let there = format!("/tmp/files-{}", slot.number);
        let here = scratch.join(format!("torture-{}", slot.number));
        fs::create_dir(&here).unwrap();
        let told = format!("the file of slot {}", slot.number);
        Self {
            there,
            here,
            may_be: Vec::new(),
            is_there: false,
            is_here: None,
            told,
        }
    }

    fn path(&self) -> String {
        format!("{}/{NAME}", self.there)
    }

    /// Once in and once out.
    pub(super) async fn round(&mut self, slot: &Slot<'_>) {
        self.upload(slot).await;
        if !self.is_there {
            return slot.rest().await;
        }
        if slot.chance(50) {
            self.read(slot).await;
        } else {
            self.download(slot).await;
        }
    }

    async fn upload(&mut self, slot: &Slot<'_>) {
        let seed = slot.random.borrow_mut().u64(..);
        let length = slot.up_to(LENGTH_MAX);
        let content = numbers::bytes(seed, 0, length);
        let hash = hash(&content);
        let write = slot.client.files(VM).write(self.path()).make_parents();
        match write.bytes(content).await {
            Ok(file) => {
                let told = &self.told;
                assert_eq!(
                    u64::try_from(file.size_bytes),
                    Ok(length),
                    "{told}: its length"
                );
                self.may_be = vec![hash];
                self.is_there = true;
                add(&slot.done.uploads, 1);
            }
            Err(error) => {
                if may_be_written(&error) {
                    self.may_be.push(hash);
                }
                self.failed(slot, &error, &slot.done.uploads_failed).await;
            }
        }
    }

    async fn read(&self, slot: &Slot<'_>) {
        let read = slot.client.files(VM).read(self.path());
        match read.bytes(usize::MAX).await {
            Ok(content) => {
                self.check(hash(&content));
                add(&slot.done.downloads, 1);
            }
            Err(error) => {
                self.failed(slot, &error, &slot.done.downloads_failed).await;
            }
        }
    }

    /// A transfer that failed says why.
    async fn failed(&self, slot: &Slot<'_>, error: &Error, count: &Cell<u64>) {
        passes(error, &self.told);
        add(count, 1);
        slot.rest().await;
    }

    /// Comes out under a name, which has what it had or all of the file, and nothing else is left beside it.
    async fn download(&mut self, slot: &Slot<'_>) {
        let here = self.here.join(NAME);
        let unpack = Unpack {
            file_only: true,
            ..Unpack::default()
        };
        let download = slot.client.files(VM).download(self.path());
        let result = download.unpack(&here, unpack).await;
        let is_here = fs::read(&here).ok().map(|content| hash(&content));
        let told = &self.told;
        match result {
            Ok(_) => {
                self.check(is_here.expect("what came out is there"));
                add(&slot.done.downloads, 1);
            }
            Err(error) => {
                // The content may have been whole, and not the end of the download.
                let is_whole = is_here.is_some_and(|hash| self.may_be.contains(&hash));
                assert!(
                    is_whole || is_here == self.is_here,
                    "{told}: what a download that failed has left is what was there"
                );
                self.failed(slot, &error, &slot.done.downloads_failed).await;
            }
        }
        self.is_here = is_here;
        for entry in fs::read_dir(&self.here).unwrap() {
            let name = entry.unwrap().file_name();
            assert_eq!(name, NAME, "{told}: what is left here");
        }
    }

    fn check(&self, hash: Hash) {
        let told = &self.told;
        assert!(
            self.may_be.contains(&hash),
            "{told}: what came out is something that went in"
        );
    }

    /// Once more when nothing disturbs it: the file is whole, and nothing of those that failed is left beside it.
    pub(super) async fn end(mut self, slot: &Slot<'_>) {
        let (uploads, downloads) = (slot.done.uploads.get(), slot.done.downloads.get());
        while slot.done.uploads.get() == uploads {
            self.upload(slot).await;
        }
        while slot.done.downloads.get() == downloads {
            self.read(slot).await;
            self.download(slot).await;
        }
        loop {
            let listed: Result<Vec<_>, _> = slot
                .client
                .files(VM)
                .list(&self.there, 1)
                .try_collect()
                .await;
            match listed {
                // A call that broke off may take its time to end there.
                Ok(files) if files.iter().all(|file| file.path.ends_with(NAME)) => return,
                Ok(_) => {}
                Err(error) => passes(&error, &self.told),
            }
            slot.rest().await;
        }
    }
}

/// What the error says of the file: that it did not change, if it can.
fn may_be_written(error: &Error) -> bool {
    let Error::Refused(refusal) = error else {
        return true;
    };
    let written = refusal.metadata.get("written").map(String::as_str);
    // What the VM's state forbids does not come to the VM.
    written != Some("no") && !matches!(error.reason(), "WRONG_STATE" | "VM_WRONG_STATE")
}
