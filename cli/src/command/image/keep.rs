//! Keeping images: other names, removal, pruning, what they take.

use std::time::Duration;

use banger_sdk::TakeOver;
use clap::Args;
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::value;
use crate::view;

/// Give an image another reference
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger image tag debian:bookworm base:1
  banger image tag --replace app:2 app:latest")]
pub(crate) struct Tag {
    /// The image: a reference, a digest or an id
    #[arg(add = ArgValueCandidates::new(complete::images))]
    image: String,
    /// Its new reference
    reference: String,
    /// Take the reference from another image
    #[arg(long)]
    replace: bool,
}

impl Tag {
    pub(super) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let take_over = match self.replace {
            true => TakeOver::Allowed,
            false => TakeOver::Refused,
        };
        let images = context.client().await?.images();
        let reference = self.reference.clone();
        let tagged = images.tag(self.image, self.reference, take_over).await?;
        let tagged = view::Image::from(tagged).named(&reference);
        context.printer().changed(&tagged)
    }
}

/// Remove images that no VM uses
#[derive(Debug, Args)]
#[command(after_help = "\
Named by one of several references, an image loses that reference only; by its id or digest it goes with all.

Examples:
  banger image remove debian:bookworm
  banger image remove sha256:0123…")]
pub(crate) struct Remove {
    /// The images: references, digests or ids
    #[arg(required = true, value_name = "IMAGE", add = ArgValueCandidates::new(complete::images))]
    images: Vec<String>,
}

impl Remove {
    pub(super) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for image in self.images {
            client.images().delete(&image).await?;
            context.printer().removed(&image)?;
        }
        Ok(0)
    }
}

/// Remove the images and files that nothing needs
#[derive(Debug, Args)]
#[command(after_help = "\
Without --all only images that have no reference go: those whose reference moved to a newer one. Images that a VM
uses always stay.

Examples:
  banger image prune --dry-run
  banger image prune --all --older-than 168h
  banger image prune --build-cache")]
pub(crate) struct Prune {
    /// Every image that no VM uses
    #[arg(long)]
    all: bool,
    /// Only images that came longer ago than this, e.g. 90m or 168h
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    older_than: Option<Duration>,
    /// The steps kept of builds, too
    #[arg(long)]
    build_cache: bool,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub(super) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let prune = banger_sdk::Prune {
            all: self.all,
            older_than: self.older_than.unwrap_or_default(),
            build_cache: self.build_cache,
            dry_run: self.dry_run,
        };
        let pruned = context.client().await?.images().prune(prune).await?;
        context
            .printer()
            .one(&view::Pruned::new(pruned, self.dry_run))
    }
}

/// Show what images take on the host, what they share, and what removing each would free
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger image usage\n  banger image usage --output json")]
pub(crate) struct Usage {}

impl Usage {
    pub(super) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let usage = context.client().await?.images().usage().await?;
        view::ImagesUsage::from(usage).print(context.printer())
    }
}
