//! Commands about sub-interfaces.

use crate::cli::{Args, CliError, Command, Hold, Output, in_turn};
use crate::dataplane::Dataplane;
use crate::interface::{InterfaceKind, delete_interface};
use std::ops::RangeInclusive;
use wharf_engine::SwIfIndex;
use wharf_nodes::ethernet::{SubMatch, VlanId};
use wharf_nodes::wire::ethernet::{EtherType, VlanTag};

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new(
        "create sub-interfaces",
        "<interface> <id:word> [default|untagged|{dot1q <outer:word>|dot1ad <outer:word>} [inner-dot1q <inner:word>] [exact-match]]",
        "Create a sub-interface for frames with certain VLAN tags, or for each VLAN of a range (FIRST-LAST)",
        create,
    ),
    Command::long("delete sub-interface", "<interface>", "Delete a sub-interface", delete),
];

fn vlan(word: &str) -> Result<VlanId, CliError> {
    match word.parse::<u16>() {
        _ if word == "any" => Ok(VlanId::Any),
        Ok(id) if id <= VlanTag::MAX_ID => Ok(VlanId::Id(id)),
        _ => {
            Err(CliError::new(format!("`{word}' is neither `any' nor a VLAN from 0 to {}", VlanTag::MAX_ID)))
        }
    }
}

fn create(dp: &mut Dataplane, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let parent = SwIfIndex(args.interface("interface")?);
    let word = args.text("id")?;
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| CliError::new(format!("`{text}' is not a number")).about("id"))
    };
    if let Some((first, last)) = word.split_once('-') {
        if ["default", "untagged", "dot1q", "dot1ad"].iter().any(|word| args.flag(word)) {
            return Err(CliError::new("a range is of VLANs: nothing else goes with it").about("id"));
        }
        return range(dp, parent, number(first)?..=number(last)?, out);
    }
    let id = number(&word)?;
    let which = match () {
        () if args.flag("default") => SubMatch::Default,
        () if args.flag("untagged") => SubMatch::Untagged,
        () if args.flag("dot1q") || args.flag("dot1ad") => SubMatch::Tags {
            outer_type: if args.flag("dot1ad") { EtherType::QINQ } else { EtherType::VLAN },
            outer: vlan(&args.text("outer")?)?,
            inner: args.opt::<String>("inner")?.map(|word| vlan(&word)).transpose()?,
            exact: args.flag("exact-match"),
        },
        // As VPP has it: the number alone is the VLAN.
        () => SubMatch::Tags {
            outer_type: EtherType::VLAN,
            outer: vlan(&id.to_string())?,
            inner: None,
            exact: true,
        },
    };
    let index = dp.create_sub_interface(parent, id, which)?;
    out.line(dp.interface_name(index));
    Ok(())
}

/// A sub-interface for each VLAN of a range; none if one cannot be.
fn range(
    dp: &mut Dataplane,
    parent: SwIfIndex,
    ids: RangeInclusive<u32>,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if ids.is_empty() || *ids.end() > u32::from(VlanTag::MAX_ID) {
        let why = format!("a range is of VLANs from 0 to {}, the lower first", VlanTag::MAX_ID);
        return Err(CliError::new(why).about("id"));
    }
    let mut made = Vec::new();
    for id in ids {
        let outer = VlanId::Id(id as u16);
        let which = SubMatch::Tags { outer_type: EtherType::VLAN, outer, inner: None, exact: true };
        match dp.create_sub_interface(parent, id, which) {
            Ok(index) => made.push(index),
            Err(error) => {
                made.into_iter().try_for_each(|index| dp.delete_interface(index))?;
                return Err(error.into());
            }
        }
    }
    made.into_iter().for_each(|index| out.line(dp.interface_name(index)));
    Ok(())
}

fn delete(on: &mut dyn Hold<Dataplane>, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let index = SwIfIndex(args.interface("interface")?);
    in_turn(on, |dp| match dp.interfaces.get(&index) {
        Some(record) if record.kind == InterfaceKind::Sub => Ok(()),
        _ => Err(CliError::new(format!("{} is not a sub-interface", dp.interface_name(index)))),
    })?;
    delete_interface(on, index)
}

#[cfg(test)]
mod tests {
    use crate::cli::Output;

    #[test]
    fn a_range_is_made_as_a_whole_or_not_at_all() {
        let mut dp = crate::config::tests::dataplane();
        let registry = crate::commands::registry().unwrap();
        let mut run = |line: &str| {
            let mut out = Output::new();
            registry.execute(&mut dp, line, &mut out).map_err(|error| error.to_string())?;
            let names = dp.interfaces.values().map(|record| record.name.clone());
            Ok::<_, String>(names.filter(|name| name.contains('.')).collect::<Vec<_>>())
        };
        run("create packet-generator interface pg0").unwrap();
        assert_eq!(run("create sub-interfaces pg0 12").unwrap(), ["pg0.12"]);
        assert!(run("create sub-interfaces pg0 10-13").is_err(), "12 is taken");
        assert_eq!(run("show version").unwrap(), ["pg0.12"]);
        assert_eq!(run("create sub-interfaces pg0 100-102").unwrap().len(), 4);
        for wrong in ["5-4", "4090-4096", "1-2 dot1q any", "a-b", "x"] {
            assert!(run(&format!("create sub-interfaces pg0 {wrong}")).is_err(), "{wrong}");
        }
        assert_eq!(run("delete sub-interface pg0.101").unwrap(), ["pg0.12", "pg0.100", "pg0.102"]);
        dp.shut_down();
    }
}
