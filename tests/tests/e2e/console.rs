//! The guest's console: read, followed, bounded.

use banger_e2e::{Case, Lane, Verdict};
use futures::StreamExt;

use crate::suite::{Suite, VM, block};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_console_is_read_from_any_offset",
            lane: Lane::Shared,
            test: read,
        },
        Case {
            name: "a_followed_console_shows_what_comes",
            lane: Lane::Shared,
            test: follow,
        },
    ]
}

fn read(suite: &Suite) -> Verdict {
    suite.sh("echo a-mark-on-the-console > /dev/console").ok();
    let whole = suite.banger(["vm", "console", VM]).ok().out();
    assert!(whole.contains("a-mark-on-the-console"), "{whole}");
    let lines = suite
        .banger(["vm", "console", VM, "--output", "json"])
        .ok()
        .out();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["type"], &first["offset"]),
        (&"console".into(), &0.into())
    );
    let part = suite.banger(["vm", "console", VM, "--offset", "5"]).ok();
    let all = suite.banger(["vm", "console", VM]).ok();
    assert_eq!(part.stdout, all.stdout[5..]);
    Verdict::Passed
}

fn follow(suite: &Suite) -> Verdict {
    suite.vm();
    block(async {
        let client = suite.daemon().client().await;
        let mut console = client.vms().console(VM).follow().stream();
        let say = async {
            tokio::task::yield_now().await;
            let command =
                banger_sdk::Command::new(["sh", "-c", "echo live-$((40+2)) > /dev/console"]);
            client
                .sessions()
                .exec(VM, command)
                .await
                .unwrap()
                .wait()
                .await
                .unwrap();
        };
        let see = async {
            let mut text = String::new();
            while !text.contains("live-42") {
                text.push_str(&String::from_utf8_lossy(
                    &console.next().await.unwrap().unwrap().data,
                ));
            }
        };
        tokio::join!(say, see);
    });
    Verdict::Passed
}
