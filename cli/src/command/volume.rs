//! `banger volume`: disks that outlive VMs.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::context::Context;
use crate::failure::Failure;
use crate::long;
use crate::value;
use crate::view;

/// Make, look at, grow and remove volumes
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    Create(Create),
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Update(Update),
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

impl Volume {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Update(update) => update.run(context).await,
            Self::Remove(remove) => remove.run(context).await,
        }
    }
}

/// Make a volume, empty or with another's content
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the volume's name. A volume takes what is written to it, not its size. One that is made of a seed begins with \
the seed's content and shares its blocks where the host's file system can; neither changes the other afterwards. A \
seed must not be written meanwhile.

Examples:
  banger volume create data --size 20G
  banger volume create work --seed prepared-home
  banger run --volume data:/data debian:bookworm -- ls /data")]
pub(crate) struct Create {
    /// Call it this: lower-case letters, digits and hyphens
    name: String,
    /// Its size, e.g. 20G; by itself 8G, or the seed's
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    size: Option<i64>,
    /// Begin with the content of this volume
    #[arg(long, value_name = "VOLUME", add = ArgValueCandidates::new(complete::volumes))]
    seed: Option<String>,
    /// Set a label, for finding the volume
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
}

impl Create {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut create = client.volumes().create(self.name);
        if let Some(mib) = self.size {
            create = create.size_mib(mib);
        }
        if let Some(seed) = self.seed {
            create = create.seed(seed);
        }
        for (key, value) in self.label {
            create = create.label(key, value);
        }
        let made = long::follow(context, &client, |told| create.progress(told)).await?;
        context.printer().changed(&view::Volume::from(made))
    }
}

/// List the volumes, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  banger volume list
  banger volume list --label team=web --output json")]
pub(crate) struct List {
    /// Only volumes with this label; again for more, all of which they must have
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let volumes = context.client().await?.volumes().list_labelled(self.label);
        context.printer().list(volumes, view::Volume::from).await
    }
}

/// Show all of a volume, and which VMs have it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger volume inspect data")]
pub(crate) struct Inspect {
    /// The volume's name or id
    #[arg(add = ArgValueCandidates::new(complete::volumes))]
    volume: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let volume = context.client().await?.volumes().get(self.volume).await?;
        context.printer().one(&view::Volume::from(volume))
    }
}

/// Change a volume
#[derive(Debug, Args)]
#[command(after_help = "\
A volume can only grow, and only while no VM that runs has it. Its file system grows when a VM next mounts it for \
writing.

Examples:
  banger volume update data --size 40G
  banger volume update data --label team=web --unlabel old")]
pub(crate) struct Update {
    /// The volume's name or id
    #[arg(add = ArgValueCandidates::new(complete::volumes))]
    volume: String,
    /// Set a label; again for more
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = value::pair)]
    label: Vec<(String, String)>,
    /// Take a label away; again for more
    #[arg(long, value_name = "KEY")]
    unlabel: Vec<String>,
    /// Its size, e.g. 40G
    #[arg(long, value_name = "SIZE", value_parser = value::mib)]
    size: Option<i64>,
}

impl Update {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let volumes = context.client().await?.volumes();
        let mut update = volumes.update(&self.volume);
        if !self.label.is_empty() || !self.unlabel.is_empty() {
            // All labels are set together: refused if another changed the volume in between.
            let volume = volumes.get(&self.volume).await?;
            let mut labels: BTreeMap<String, String> = volume.labels;
            labels.retain(|key, _| !self.unlabel.contains(key));
            labels.extend(self.label);
            update = update.labels(labels).if_unchanged(volume.etag);
        }
        if let Some(mib) = self.size {
            update = update.size_mib(mib);
        }
        context
            .printer()
            .changed(&view::Volume::from(update.await?))
    }
}

/// Remove volumes that no VM names, with what is in them
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger volume remove data")]
pub(crate) struct Remove {
    /// The volumes' names or ids
    #[arg(required = true, value_name = "VOLUME", add = ArgValueCandidates::new(complete::volumes))]
    volumes: Vec<String>,
}

impl Remove {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        for volume in self.volumes {
            client.volumes().delete(&volume).await?;
            context.printer().removed(&volume)?;
        }
        Ok(0)
    }
}
