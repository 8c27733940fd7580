//! The commands of the CLI, a file per subject, in one visible list.

mod acl;
mod acl_show;
mod af_xdp;
mod api;
mod config;
mod interface;
mod ip;
mod l2;
mod memif;
mod pg;
mod runtime;
mod span;
mod sub_interface;
mod system;
mod trace;
mod vxlan;

use crate::cli::{Args, CliError, Command, Known, Names, Registry, RegistryError};
use crate::dataplane::Dataplane;
use crate::interface::Interface;
use wharf_engine::SwIfIndex;
use wharf_engine::trace::TraceNames;

pub use runtime::Cleared;

/// Every command that there is.
pub fn registry() -> Result<Registry<Dataplane>, RegistryError> {
    let lists: [&[Command<Dataplane>]; 15] = [
        acl::COMMANDS,
        af_xdp::COMMANDS,
        api::COMMANDS,
        config::COMMANDS,
        interface::COMMANDS,
        ip::COMMANDS,
        l2::COMMANDS,
        memif::COMMANDS,
        pg::COMMANDS,
        runtime::COMMANDS,
        span::COMMANDS,
        sub_interface::COMMANDS,
        system::COMMANDS,
        trace::COMMANDS,
        vxlan::COMMANDS,
    ];
    Registry::new(lists.into_iter().flatten().copied())
}

impl Names for Dataplane {
    fn interface(&self, name: &str) -> Option<u32> {
        self.find_interface(name).map(|i| i.0)
    }

    fn interfaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self.interfaces.values().map(|i| i.name.clone()).collect();
        names.sort();
        names
    }

    fn nodes(&self) -> Vec<String> {
        let graph = self.engine.graph();
        let inputs = graph.inputs.iter().map(|i| i.name);
        inputs.chain(graph.nodes.iter().map(|n| n.name)).map(String::from).collect()
    }

    fn known(&self) -> Known {
        let pair = |(index, record): (&SwIfIndex, &Interface)| (record.name.clone(), index.0);
        Known { interfaces: self.interfaces.iter().map(pair).collect(), nodes: self.nodes() }
    }
}

impl TraceNames for Dataplane {
    fn interface(&self, index: SwIfIndex) -> String {
        self.interface_name(index)
    }
}

/// What comes of a command that has nothing to show.
type Done = Result<(), CliError>;

/// The interface that a command is about.
fn index(args: &Args) -> Result<SwIfIndex, CliError> {
    args.interface("interface").map(SwIfIndex)
}

/// A text for controllers, which has no more bytes than VPP's API has room for.
fn tag(text: String) -> Result<String, CliError> {
    const MAX: usize = 63;
    match text.len() {
        0..=MAX => Ok(text),
        len => Err(CliError::new(format!("the tag has {len} bytes, of at most {MAX}"))),
    }
}

/// A prefix of IPv4, or an error that says so.
fn prefix4(prefix: crate::cli::Prefix) -> Result<(std::net::Ipv4Addr, u8), CliError> {
    match prefix.addr {
        std::net::IpAddr::V4(address) => Ok((address, prefix.len)),
        std::net::IpAddr::V6(address) => {
            let error = CliError::new(format!("IPv6 is not there yet: {address}/{}", prefix.len));
            Err(error.about("prefix"))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_is_sound() {
        super::registry().unwrap();
    }
}
