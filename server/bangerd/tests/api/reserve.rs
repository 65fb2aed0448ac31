//! The disk's reserve while something comes: on a small file system, which is filled meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;

use banger_proto::v1;
use banger_vmm::FakeHost;
use tempfile::TempDir;
use tonic::{Code, Response, Status, Streaming};

use crate::agent::agent;
use crate::builds::dockerfile;
use crate::catalogs::{Shelf, pulled};
use crate::held::Held;
use crate::registry::{Registry, empty_layer};
use crate::rig::{Rig, assert_refused, config, drain};
use crate::stop::until;

/// The file system, and what is to stay free of it.
const DISK_MIB: u64 = 64;
const RESERVE_MIB: u64 = 16;

/// A mounted file system of a few MiB.
struct Small(PathBuf);

impl Small {
    /// Only root can.
    fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir(place).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_MIB}m"),
                "banger-reserve",
            ])
            .arg(place)
            .output();
        mounted
            .is_ok_and(|done| done.status.success())
            .then(|| Self(place.to_owned()))
    }

    /// Takes what is above the reserve.
    fn fill(&self) {
        let bytes = (DISK_MIB - RESERVE_MIB) << 20;
        let ballast = vec![1; usize::try_from(bytes).unwrap()];
        std::fs::write(self.0.join("ballast"), ballast).unwrap();
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn ended<T>(answers: Result<Response<Streaming<T>>, Status>) {
    let refused = drain(answers.unwrap().into_inner())
        .await
        .map(|all| all.len());
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "HOST_EXHAUSTED", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_ends_when_it_would_take_the_reserve() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&dir.path().join("state")) else {
        eprintln!("SKIPPED the reserve: only root can mount a small file system");
        return;
    };
    let config = bangerd::config::Config {
        disk_reserve_mib: RESERVE_MIB,
        ..config(&dir)
    };
    let rig = Rig::start_configured(dir, FakeHost::new(agent()), config).await;
    rig.furnish().await;
    let shelf = Shelf::furnished().await;
    let registry = Registry::serve().await;
    registry.push("1", ("a", "b"), &[empty_layer()]);
    let blobs = registry.hold("/blobs/");
    let bundle = Held::serve(shelf.directory(), "/web-2.tar.zst").await;
    let kernel = Held::serve(shelf.directory(), "/k.tar.zst").await;
    for (name, url) in [("bundles", &bundle.url), ("kernels", &kernel.url)] {
        rig.add_as(name, url, &shelf.public_key()).await.unwrap();
    }

    let pull = async {
        let image = registry.reference("1");
        ended(rig.images().pull_image(pulled(&image)).await).await;
    };
    let pull_bundle = async {
        let request = v1::PullImageRequest {
            replace: true,
            ..pulled("bundles/web:2")
        };
        ended(rig.images().pull_image(request).await).await;
    };
    let pull_kernel = async {
        let request = v1::PullKernelRequest {
            kernel: "kernels/k".into(),
            name: "other".into(),
            ..Default::default()
        };
        ended(rig.kernels().pull_kernel(request).await).await;
    };
    let build = async {
        let start = dockerfile("FROM web:1\nRUN [\"sleep\", \"1000\"]\n");
        ended(rig.begin_build(start, &[]).await.map(Response::new)).await;
    };
    let fill = async {
        tokio::join!(
            blobs.asked.notified(),
            bundle.asked.notified(),
            kernel.asked.notified(),
            async {
                let step = async || rig.vm_count().await > 0;
                until("a step runs", step).await;
            },
        );
        small.fill();
    };
    tokio::join!(pull, pull_bundle, pull_kernel, build, fill);
    small.clear();
    rig.stopped().await;
}
