//! The ssh servers of VMs, as the clients of OpenSSH see them.

mod copies;
mod login;
mod programs;
mod rig;
mod signals;
mod sockets;
