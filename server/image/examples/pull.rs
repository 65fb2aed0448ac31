//! Pulls an image into a state directory and tells how long it took and how much memory:
//! `cargo run --release -p banger-image --example pull -- STATE_DIR REFERENCE`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use banger_core::operation::NoProgress;
use banger_image::{ImageStore, PullOptions};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state_dir, reference] = arguments.as_slice() else {
        return Err("usage: pull STATE_DIR REFERENCE".into());
    };
    let store = ImageStore::open(Path::new(state_dir))?;
    let begin = Instant::now();
    let (options, cancel) = (PullOptions::default(), CancellationToken::new());
    let image = store
        .pull(&reference.parse()?, &options, &NoProgress, &cancel)
        .await;
    let image = image.map_err(|error| banger_core::chain(&error))?;
    println!(
        "{} {} in {:?}",
        image.digest,
        image.rootfs_path.display(),
        begin.elapsed()
    );
    println!(
        "disk: {} bytes, {} allocated",
        image.rootfs_size_bytes, image.rootfs_allocated_bytes
    );
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default()
    );
    Ok(())
}
