//! Lines of the command line, against commands with every kind of parameter.

use serde::Serialize;
use std::sync::LazyLock;
use wharf_control::cli::{Args, CliError, Command, Names, Output, Registry, Shown, statements};

/// The state that the commands work on: how many have run.
#[derive(Debug, Default)]
struct Double {
    ran: u32,
}

impl Names for Double {
    fn interface(&self, name: &str) -> Option<u32> {
        self.interfaces().iter().position(|known| known == name).map(|index| index as u32)
    }

    fn interfaces(&self) -> Vec<String> {
        ["local0", "memif0/0", "memif0/10", "host-eth0"].map(str::to_owned).into()
    }

    fn nodes(&self) -> Vec<String> {
        ["memif-input", "ip4-lookup"].map(str::to_owned).into()
    }
}

#[derive(Serialize)]
struct Ran {
    ran: u32,
}

fn run_one(double: &mut Double, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    double.ran += 1;
    let turns = args.turns();
    out.line(format!("{args:?} {turns:?}"));
    Ok(())
}

fn show(double: &Double, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    out.show(&Ran { ran: double.ran }, |ran, text| *text += &format!("{}\n", ran.ran))
}

const COMMANDS: &[Command<Double>] = &[
    Command::new(
        "create interface memif",
        "id <n> [socket-id <n>] [master|slave] [ring-size <32-32768>] [hw-addr <mac>] [mode {ethernet|ip}] [secret <word>]",
        "",
        run_one,
    ),
    Command::new("set interface state", "<interface> {up|down}", "", run_one),
    Command::new("set interface l2 xconnect", "<interface> <peer:interface>", "", run_one),
    Command::new("set interface rx-placement", "<interface> [queue <n>] {worker <n>|main}", "", run_one),
    Command::new("set interface ip address", "[del] <interface> <prefix>", "", run_one),
    Command::new(
        "ip route add",
        "[count <n>] <prefix4> [table <n>] {via {<next-hop:ip4> [<interface>]|<interface>|drop} [weight <1-255>]}...",
        "",
        run_one,
    ),
    Command::new("set ip neighbor", "[del] <interface> <ip> <mac> [static]", "", run_one),
    Command::new("ping", "<ip6> [interval <float>] [size <16-9000>]", "", run_one),
    Command::new("packet-generator new", "<block>", "", run_one),
    Command::new("trace add", "<node> <u16>", "", run_one),
    Command::new("pcap trace", "file <path> [cores <list>] [ports <range>]", "", run_one),
    Command::new("echo", "<line>", "", run_one),
    Command::show("show interface", "[<interface>]", "", show),
    Command::show("show errors", "[verbose]", "", show),
];

static REGISTRY: LazyLock<Registry<Double>> =
    LazyLock::new(|| Registry::new(COMMANDS.iter().copied()).expect("the table above is right"));

/// Runs and completes every statement of the input. Only a whole command runs, and it says what was wrong otherwise.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (_, line) in statements(&text) {
        // `exec` would read files; its own lines are a script like this one.
        if line.trim_start().starts_with('e') {
            continue;
        }
        let mut double = Double::default();
        if let Err(error) = REGISTRY.execute(&mut double, &line, &mut Output::new()) {
            assert_eq!(double.ran, 0, "`{line}' failed, and ran");
            assert!(!error.to_string().is_empty());
        }
    }
    let cursor = text.floor_char_boundary(text.len() / 2);
    for at in [0, cursor, text.len()] {
        let completion = REGISTRY.complete(&text, at, &Double::default());
        assert!(completion.start <= at && text.is_char_boundary(completion.start));
    }
}
