//! A file, a process and a directory of a VM by tokio's own readers, writers and streams.
//!
//! ```text
//! cargo run -p banger-sdk --example streams -- web
//! ```
//! The VM must run; the daemon is the one that `BANGER_HOST` names, or this machine's.

use std::error::Error;
use std::io::Cursor;

use banger_sdk::{Client, Command, Event, Host, PackedTree, Source};
use futures::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let vm = std::env::args().nth(1).ok_or("usage: streams VM")?;
    let client = Client::connect(Host::from_env()?).await?;
    let files = client.files(&vm);

    // A file from any reader, and back as a reader.
    let source = Source::reader(Cursor::new("one\ntwo\n"));
    files
        .write("/tmp/streams/list")
        .make_parents()
        .from(source)
        .await?;
    let content = files.read("/tmp/streams/list").open().await?;
    let mut text = String::new();
    content.into_reader().read_to_string(&mut text).await?;
    println!("file: {text:?}");

    // A process: its input is a writer, its events are a stream. Both at once: it is fed while it is read.
    let process = client
        .sessions()
        .exec(&vm, Command::new(["sort", "-r"]).stdin())
        .await?;
    let mut input = process.input().into_writer();
    let feed = async {
        input.write_all(text.as_bytes()).await?;
        input.shutdown().await?;
        Ok::<_, Box<dyn Error>>(())
    };
    let read = async {
        let mut sorted = Vec::new();
        let mut events = process.into_stream();
        while let Some(event) = events.try_next().await? {
            match event {
                Event::Output(output) => sorted.extend_from_slice(&output.data),
                Event::Exited(exit) => println!("process: {:?}", exit.how),
                Event::Gap(_) | Event::Screen(_) => {}
            }
        }
        Ok(sorted)
    };
    let ((), sorted) = tokio::try_join!(feed, read)?;
    println!("output: {:?}", String::from_utf8_lossy(&sorted));

    // A directory as a tar archive.
    let tree = PackedTree::archive(Cursor::new(archive(&client, &vm).await?));
    let moved = files.upload(tree, "/tmp/copies").await?;
    println!("tree: {} entries", moved.entry_count);
    for path in ["/tmp/streams", "/tmp/copies"] {
        files.remove(path).recursive().await?;
    }
    Ok(())
}

async fn archive(client: &Client, vm: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = Vec::new();
    let download = client.files(vm).download("/tmp/streams").open().await?;
    download.into_reader().read_to_end(&mut archive).await?;
    Ok(archive)
}
