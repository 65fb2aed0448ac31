//! `banger vm forward`: sockets in a running VM, reached from here.
//!
//! Listeners and their connections run side by side with a watch of the VM and with signals; whichever ends first ends
//! the command, and all connections with it.

mod carry;
mod rule;
mod tell;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use banger_sdk::types::vm::State;
use banger_sdk::{Client, TunnelTarget, VmEvent};
use clap::Args;
use clap_complete::ArgValueCandidates;
use futures::StreamExt;
use futures::future::try_join_all;
use tokio::net::TcpListener;

use crate::complete;
use crate::context::Context;
use crate::failure::{Failure, signal_code};
use crate::interrupt::Interrupts;
use crate::value;
use carry::Door;
pub(crate) use carry::stdio;
use rule::Rule;
use tell::Teller;

/// Reach ports and sockets of a running VM from here
#[derive(Debug, Args)]
#[command(after_help = "\
What to forward:
  8080:80               port 8080 here, on the loopback, to port 80 of the VM's loopback
  8080                  the same port on both sides
  0:80                  a free port here, which is printed
  127.0.0.1:8080:80     listen on this address; 0.0.0.0 and [::] are reached from other machines
  8080:10.0.2.15:80     to an address that the VM can reach
  8080:/run/app.sock    to a unix socket in the VM
  2222:ssh              to the ssh server that banger keeps for the VM (see banger ssh-config)
  -:22                  one connection, from standard input to standard output

It goes through banger's own API: the VM needs no network, and the host opens no port but those
that are named. A connection that nobody accepts in the VM is reset here. When the VM stops its
connections are reset, and new ones are refused until it runs again; when it is removed the command
ends. Ctrl-C ends all.

Examples:
  banger vm forward web 8080:80
  banger vm forward web 8080:80 5432:/run/postgresql/.s.PGSQL.5432
  banger vm forward web 0:80 --output json | jq --unbuffered .port
  ssh -o ProxyCommand='banger vm forward web -:22' root@web")]
pub(crate) struct Forward {
    /// The VM's name or id
    #[arg(add = ArgValueCandidates::new(complete::vms))]
    vm: String,
    /// What to forward; several are forwarded side by side
    #[arg(required_unless_present = "stdio", value_name = "RULE", value_parser = Rule::parse)]
    rules: Vec<Rule>,
    /// Carry one connection between this socket of the VM and standard input and output
    #[arg(short = ':', long, value_name = "TARGET", conflicts_with = "rules")]
    stdio: Option<TunnelTarget>,
    /// Give the VM this long to connect, at most 120s
    #[arg(long, value_name = "TIME", value_parser = value::duration, default_value = "10s")]
    connect_timeout: Duration,
}

impl Forward {
    pub(crate) async fn run(self, context: &Context) -> Result<u8, Failure> {
        let client = context.client().await?;
        if let Some(target) = self.stdio {
            let open = client.tunnels().open(self.vm, target);
            return stdio(open.connect_timeout(self.connect_timeout).await?).await;
        }
        let mut listeners = Vec::new();
        for rule in &self.rules {
            listeners.push(bind(rule.listen).await?);
        }
        let vm = client.vms().get(self.vm).await?;
        let name = vm.spec.unwrap_or_default().name;
        let teller = Teller::new(context, name);
        let mut interrupts = Interrupts::new()?;
        let mut serving = Vec::new();
        for (rule, (listener, address)) in self.rules.into_iter().zip(listeners) {
            teller.listening(address, &rule.target)?;
            let door = Arc::new(Door {
                client: client.clone(),
                vm: vm.id.clone(),
                target: rule.target,
                connect_timeout: self.connect_timeout,
                teller: teller.clone(),
            });
            serving.push(carry::serve(door, listener));
        }
        // Whichever ends first ends the others, and with them all connections.
        tokio::select! {
            served = try_join_all(serving) => served.map(|_| 0),
            watched = watch(&client, vm.id, &teller) => watched,
            signal = interrupts.end() => Ok(signal_code(signal)),
        }
    }
}

/// A listener, and where it really listens.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |source: io::Error| Failure::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Tells when the VM stops and runs again, until it is removed.
async fn watch(client: &Client, vm: String, teller: &Teller) -> Result<u8, Failure> {
    let mut events = client.vms().watch(vm);
    let mut was_running = true;
    while let Some(event) = events.next().await {
        let VmEvent::State(vm) = event? else { break };
        let is_running = vm.state() == State::Running;
        if is_running != was_running {
            teller.vm(vm.state())?;
        }
        was_running = is_running;
    }
    Err(Failure::VmRemoved {
        vm: teller.vm_name().to_owned(),
    })
}
