//! `banger operation`: long work, watched from anywhere.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use futures::StreamExt;

use crate::args::Format;
use crate::complete;
use crate::context::Context;
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use crate::view;

/// List, watch and cancel long work
#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
    #[command(visible_alias = "ls")]
    List(List),
    #[command(visible_alias = "show")]
    Inspect(Inspect),
    Watch(Watch),
    Cancel(Cancel),
}

impl Operation {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::List(list) => list.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
            Self::Cancel(cancel) => cancel.run(context).await,
        }
    }
}

/// List the operations that are kept, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  banger operation list")]
pub(crate) struct List {}

impl List {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let operations = context.client().await?.operations().list();
        context
            .printer()
            .list(operations, view::Operation::from)
            .await
    }
}

/// Show all of an operation
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  banger operation inspect 01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e"
)]
pub(crate) struct Inspect {
    /// The operation's id
    #[arg(add = ArgValueCandidates::new(complete::operations))]
    operation: String,
}

impl Inspect {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let operation = context
            .client()
            .await?
            .operations()
            .get(self.operation)
            .await?;
        context.printer().one(&view::Operation::from(operation))
    }
}

/// Show an operation's progress until it has ended
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 0 if the operation succeeds, else 125.

Examples:
  banger operation watch 01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e
  banger operation watch 01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e --output json")]
pub(crate) struct Watch {
    /// The operation's id
    #[arg(add = ArgValueCandidates::new(complete::operations))]
    operation: String,
}

impl Watch {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let mut changes = context.client().await?.operations().watch(self.operation);
        let progress = context.progress();
        let mut show = progress.callback();
        let mut last = None;
        while let Some(operation) = changes.next().await {
            let operation = operation?;
            if context.format == Format::Json {
                output::json_line(&view::Operation::from(operation.clone()))?;
            } else {
                show(&operation);
            }
            last = Some(operation);
        }
        progress.clear();
        let Some(operation) = last else {
            return Ok(EXIT_FAILURE);
        };
        if let Some(error) = &operation.error {
            return Err(Failure::Sdk(banger_sdk::Error::from_rpc(error)));
        }
        if context.format == Format::Table {
            context.printer().item(&view::Operation::from(operation))?;
        }
        Ok(0)
    }
}

/// Give operations up, and wait until they are undone
#[derive(Debug, Args)]
#[command(after_help = "\
What had ended before stays as it is: the exit code is 0 if all are cancelled, else 125.

Examples:
  banger operation cancel 01941d2e-8a5c-7b1e-9f60-3d2c1b0a9f8e
  banger operation list -q | xargs banger operation cancel")]
pub(crate) struct Cancel {
    /// The operations' ids
    #[arg(required = true, value_name = "OPERATION", add = ArgValueCandidates::new(complete::operations))]
    operations: Vec<String>,
}

impl Cancel {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        let mut code = 0;
        for operation in self.operations {
            let ended = client.operations().cancel(operation).await?;
            let ended = view::Operation::from(ended);
            if !ended.is_cancelled() {
                code = EXIT_FAILURE;
            }
            context.printer().item(&ended)?;
        }
        Ok(code)
    }
}
