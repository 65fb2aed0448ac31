//! A list of many images through the API.

use std::time::Instant;

use banger_e2e::layer::Layer;
use banger_sdk::{ArchiveFormat, Client, Source};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{daemon, discard};
use crate::stand::{Stand, block};
use crate::table::{Figures, Table};

const IMAGES: usize = 1000;
/// Images made at the same time.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 20;

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let daemon = daemon(stand, "list");
    let mut listed = Figures::default();
    block(async {
        let client = daemon.client().await;
        fill(&client).await;
        for round in 0..=ROUNDS {
            let begin = Instant::now();
            let images: Vec<_> = client.images().list().try_collect().await.unwrap();
            let took = begin.elapsed();
            assert_eq!(images.len(), IMAGES);
            if round > 0 {
                listed.add_ms(took);
            }
        }
    });
    table.line(
        "list of 1,000 images through the API",
        listed.text("ms"),
        String::new(),
        String::new(),
    );
    discard(&daemon);
}

/// Makes the images, each of a content of its own.
async fn fill(client: &Client) {
    let make = |number: usize| async move {
        let content = number.to_string();
        let tar = Layer::default()
            .file("number", 0o644, content.as_bytes())
            .tar();
        let source = Source::reader(std::io::Cursor::new(tar));
        let registered = client.images().register(format!("many:{number}"), source);
        registered.format(ArchiveFormat::RootfsTar).await.unwrap();
    };
    stream::iter((0..IMAGES).map(make))
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}
