//! Images of which nothing is known to be whole: those that a crash of the host cut off, or that its disk did not take.

use std::sync::Arc;

use banger_core::{Name, chain};
use banger_image::LostImage;
use banger_store::DeleteOutcome;

use super::Images;
use crate::error::AppError;

impl Images {
    /// Forgets the images whose files an earlier daemon left unsynced and the host did not keep, has those that it kept
    /// synced, and goes on to forget those that the disk does not take.
    pub(crate) async fn begin_losing(self: &Arc<Self>) -> Result<(), AppError> {
        for lost in self.files.take_losses() {
            self.lose(&lost).await?;
        }
        self.files.sync_soon();
        let images = self.clone();
        let losing = async move {
            loop {
                // cancel-safe: both hold no state
                tokio::select! {
                    () = images.context.shutdown.cancelled() => return,
                    () = images.files.lost() => {}
                }
                for lost in images.files.take_losses() {
                    if let Err(error) = images.lose(&lost).await {
                        tracing::error!(digest = %lost.digest, error = chain(&error), "could not forget a lost image");
                    }
                }
            }
        };
        self.context.tasks.spawn(losing);
        Ok(())
    }

    /// Forgets an image whose files are gone; one that VMs use stays known, and they do not start until it was pulled
    /// again.
    async fn lose(&self, lost: &LostImage) -> Result<(), AppError> {
        let images = self
            .context
            .store
            .find_images_by_digest(&lost.digest)
            .await?;
        for image in images {
            let vms = match self.forget(&image).await? {
                DeleteOutcome::Deleted | DeleteOutcome::Missing => String::new(),
                DeleteOutcome::UsedBy(users) => {
                    let names: Vec<&str> = users.iter().map(Name::as_str).collect();
                    names.join(", ")
                }
            };
            tracing::error!(
                image = %image.id,
                references = image.references.join(", "),
                digest = %image.digest,
                vms,
                why = chain(&lost.cause),
                "an image is lost, and has to be pulled again"
            );
        }
        Ok(())
    }
}
