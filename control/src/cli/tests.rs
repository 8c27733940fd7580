//! The command tree as a whole, with commands in the shapes of VPP's.

use serde::Serialize;

use super::*;
use crate::dataplane::OpError;

/// A context that remembers what ran.
#[derive(Default)]
struct Lab {
    ran: Vec<String>,
}

impl Names for Lab {
    fn interface(&self, name: &str) -> Option<u32> {
        self.interfaces().iter().position(|known| known == name).and_then(|at| u32::try_from(at).ok())
    }
    fn interfaces(&self) -> Vec<String> {
        ["local0", "memif0/0", "memif0/1", "host-eth0"].map(String::from).to_vec()
    }
    fn nodes(&self) -> Vec<String> {
        ["ip4-input", "ip4-lookup", "memif-input"].map(String::from).to_vec()
    }
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
}

fn record(lab: &mut Lab, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let entries = args.entries.iter().map(|entry| match &entry.value {
        Value::Flag => entry.name.to_string(),
        value => format!("{}={value:?}", entry.name),
    });
    lab.ran.push(entries.collect::<Vec<_>>().join(" "));
    Ok(())
}

fn show(_: &Lab, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let _ = args;
    out.show(&Version { name: "wharf" }, |version, text| text.push_str(&format!("{} v0\n", version.name)))
}

fn memif(lab: &mut Lab, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let id = args.u32("id")?;
    let ring = args.opt::<u32>("ring-size")?.unwrap_or(1024);
    if !ring.is_power_of_two() {
        return Err(CliError::new("must be a power of two").about("ring-size"));
    }
    let role = if args.flag("slave") { "slave" } else { "master" };
    lab.ran.push(format!("memif{}/{id} {role} {ring}", args.opt::<u32>("socket-id")?.unwrap_or(0)));
    out.progress("50%");
    Ok(())
}

fn routes(lab: &mut Lab, args: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let prefix = args.prefix("prefix")?;
    if let Some(table) = args.opt::<u32>("table")?.filter(|table| *table == 9) {
        return Err(CliError::new(format!("no table {table}")).about("table"));
    }
    for via in args.turns() {
        let next_hop = via.opt::<std::net::IpAddr>("next-hop")?;
        let weight = via.opt::<u8>("weight")?.unwrap_or(1);
        lab.ran.push(format!(
            "{}/{} {next_hop:?} {:?} {weight}",
            prefix.addr,
            prefix.len,
            via.opt_interface("interface")?
        ));
    }
    Ok(())
}

const COMMANDS: &[Command<Lab>] = &[
    Command::new(
        "create interface memif",
        "id <n> [socket-id <n>] [master|slave] [ring-size <32-32768>] [hw-addr <mac>] [secret <word>] [mode ip]",
        "Create a memif interface",
        memif,
    )
    .arguments(&[("ring-size", "descriptors in a ring, a power of two")]),
    Command::new("set interface state", "<interface> {up|down}", "Bring an interface up or down", record),
    Command::new("set interface mtu", "[packet|ip4|ip6|mpls] <mtu:64-65535> <interface>", "Set an MTU", record),
    Command::new("set interface l2 xconnect", "<interface> <peer:interface>", "Connect two", record),
    Command::new("set interface ip address", "[del] <interface> <prefix>", "Add an address", record),
    Command::new(
        "ip route add",
        "<prefix> [table <n>] {via {<next-hop:ip> [<interface>]|<interface>|drop|local} [weight <1-255>]}...",
        "Add a route",
        routes,
    ),
    Command::new("set ip neighbor", "[del] <interface> <ip> <mac> [static]", "Add a neighbour", record),
    Command::new("packet-generator new", "<block>", "Create a stream", record),
    Command::new("ping", "<ip> [source <interface>] [repeat <n>] [interval <float>]", "Ping", record),
    Command::new("trace add", "<node> <n> [filter] [verbose]", "Trace", record),
    Command::new("clear interfaces", "", "Clear counters", record),
    Command::new("echo", "[loud] <line>", "Say", record),
    Command::show("show version", "[verbose]", "Show the version", show),
    Command::show("show interface", "[<interface>]", "Show interfaces", show),
    Command::show("show interface addr", "", "Show addresses", show),
    Command::show("show interrupts", "", "Show interrupts", show),
    Command::show("show errors", "[verbose [<n>]]", "Show errors", show),
];

fn registry() -> Registry<Lab> {
    Registry::new(COMMANDS.iter().copied()).unwrap()
}

/// What ran, or the error.
fn run(line: &str) -> Result<String, String> {
    let mut lab = Lab::default();
    let result = registry().execute(&mut lab, line, &mut Output::new());
    match result {
        Ok(()) => Ok(lab.ran.join("; ")),
        Err(error) => {
            assert_eq!(lab.ran, Vec::<String>::new(), "{line} failed, and ran");
            Err(error.to_string())
        }
    }
}

fn text_of(line: &str) -> Result<String, String> {
    let mut out = Output::new();
    registry().execute(&mut Lab::default(), line, &mut out).map_err(|error| error.to_string())?;
    Ok(out.into_text())
}

#[test]
fn options_in_any_order() {
    for line in [
        "create interface memif id 3 slave ring-size 512",
        "create interface memif ring-size 512 slave id 3",
        "cr int mem sl ring 512 id 3",
        "  create\tinterface memif slave id 0x3   ring-size 512 ",
    ] {
        assert_eq!(run(line).unwrap(), "memif0/3 slave 512", "{line}");
    }
}

#[test]
fn positions_are_told_apart_by_type() {
    let address = r#"interface=Interface { name: "memif0/0", index: 1 } prefix=Prefix(Prefix { addr: 10.0.0.1, len: 24 })"#;
    assert_eq!(run("set interface ip address memif0/0 10.0.0.1/24").unwrap(), address);
    assert_eq!(run("set interface ip address del memif0/0 10.0.0.1/24").unwrap(), format!("del {address}"));
    assert_eq!(
        run("set interface l2 xconnect memif0/1 memif0/0").unwrap(),
        r#"interface=Interface { name: "memif0/1", index: 2 } peer=Interface { name: "memif0/0", index: 1 }"#
    );
    assert_eq!(
        run("set int mtu memif0/0 1500").unwrap(),
        r#"interface=Interface { name: "memif0/0", index: 1 } mtu=Number(1500)"#
    );
}

#[test]
fn routes_with_several_paths() {
    assert_eq!(
        run("ip route add 10.0.0.0/8 via 10.1.1.1 memif0/0 weight 3 via 10.1.1.2 via memif0/1").unwrap(),
        "10.0.0.0/8 Some(10.1.1.1) Some(1) 3; 10.0.0.0/8 Some(10.1.1.2) None 1; 10.0.0.0/8 None Some(2) 1"
    );
    assert_eq!(run("ip route add fd00::/8 via drop table 3").unwrap(), "fd00::/8 None None 1");
}

#[test]
fn a_block_and_a_line_are_raw() {
    assert_eq!(
        run("packet-generator new {\n  name x\n  data { hex 0x00 }\n}").unwrap(),
        r#"block=Text("name x\n  data { hex 0x00 }")"#
    );
    assert_eq!(run("echo  Hello,  \"world\" ").unwrap(), r#"line=Text("Hello,  \"world\"")"#);
    assert_eq!(run("echo loud x y").unwrap(), r#"loud line=Text("x y")"#);
}

#[test]
fn errors_say_what_and_where() {
    for (line, error) in [
        ("foo", "unknown input `foo' (word 1)"),
        ("show foo", "show: unknown input `foo' (word 2)"),
        ("show in", "`show in' is ambiguous (word 2): interface, interrupts"),
        ("s", "`s' is ambiguous (word 1): set, show"),
        ("set interface", "set interface: incomplete (word 3), next: ip, l2, mtu, state"),
        ("create interface memif id 0 foo", "create interface memif: unknown input `foo' (word 6)"),
        (
            "create interface memif foo",
            "create interface memif: unknown input `foo' (word 4), expected id <n>",
        ),
        ("create interface memif slave", "create interface memif: missing id <n> (word 5)"),
        (
            "create interface memif id",
            "create interface memif: missing <id>, which must be a number from 0 to 4294967295 (word 5)",
        ),
        ("create interface memif id 1 id 2", "create interface memif: `id' given twice (word 6)"),
        (
            "create interface memif id x",
            "create interface memif: <id> must be a number from 0 to 4294967295, got `x' (word 5)",
        ),
        (
            "create interface memif id 1 s",
            "create interface memif: `s' is ambiguous (word 6): secret, slave, socket-id",
        ),
        (
            "create interface memif id 1 master slave",
            "create interface memif: unknown input `slave' (word 7)",
        ),
        (
            "create interface memif id 1 mode ethernet",
            "create interface memif: unknown input `ethernet' (word 7), expected ip",
        ),
        (
            "create interface memif id 1 ring-size 100",
            "create interface memif: must be a power of two (word 7)",
        ),
        (
            "set interface mtu abc memif0/0",
            "set interface mtu: <mtu> must be a number from 64 to 65535, got `abc' (word 4)",
        ),
        (
            "set interface mtu 63 memif0/0",
            "set interface mtu: <mtu> must be a number from 64 to 65535, got `63' (word 4)",
        ),
        ("set interface state memif9/9 up", "set interface state: unknown interface `memif9/9' (word 4)"),
        (
            "set interface state memif0/0 upp",
            "set interface state: unknown input `upp' (word 5), expected {up|down}",
        ),
        ("set interface state memif0/0", "set interface state: missing {up|down} (word 5)"),
        ("show interface memif9", "show interface: unknown interface `memif9' (word 3)"),
        ("show version now", "show version: unknown input `now' (word 3)"),
        ("clear interfaces now", "clear interfaces: unknown input `now' (word 3)"),
        ("clear interfaces --json", "clear interfaces: unknown input `--json' (word 3)"),
        ("trace add ip4-foo 5", "trace add: unknown node `ip4-foo' (word 3)"),
        (
            "ip route add 10.0.0.0/8",
            "ip route add: missing {via {<next-hop:ip> [<interface>]|<interface>|drop|local} [weight <1-255>]} (word 5)",
        ),
        ("packet-generator new { name", "missing `}' for the `{' at word 3"),
        (
            "packet-generator new name",
            "packet-generator new: <block> must be a block in braces, got `name' (word 3)",
        ),
        ("{ show version }", "unknown input `show version' (word 1)"),
        ("\u{1}\u{7f}", "unknown input `\u{fffd}\u{fffd}' (word 1)"),
    ] {
        assert_eq!(run(line).unwrap_err(), error, "{line}");
    }
}

/// A command's own error stands at the word of the argument, wherever that was given, and at the first of several names
/// that was.
#[test]
fn a_command_says_which_argument_is_wrong() {
    let at = |line: &str| run(line).unwrap_err();
    for (line, word) in [
        ("create interface memif ring-size 100 id 1", 5),
        ("create interface memif id 1 slave ring-size 100", 8),
        ("ip route add 10.0.0.0/8 via 10.0.0.1 via 10.0.0.2 weight 255 table 9", 12),
    ] {
        assert!(at(line).ends_with(&format!(" (word {word})")), "{line}: {}", at(line));
    }
    let args = Args { entries: vec![], declared: [].into() };
    assert_eq!(CliError::new("no").about("x").locate(&args).to_string(), "no");
    let refused = OpError::parameter::<()>("x", "no").unwrap_err();
    assert_eq!(CliError::from(refused), CliError::new("no").about("x"));
    let twice: Result<(), CliError> = Err(CliError::new("no").about("x")).about("y");
    assert_eq!(twice, Err(CliError::new("no").about("x").about("y")));
}

#[test]
fn json_only_when_asked() {
    assert_eq!(text_of("show version").unwrap(), "wharf v0\n");
    assert_eq!(text_of("show version --json").unwrap(), "{\n  \"name\": \"wharf\"\n}\n");
    assert_eq!(text_of("sh ver verbose --json").unwrap(), "{\n  \"name\": \"wharf\"\n}\n");
    assert!(text_of("show version --json verbose").is_err());
}

#[test]
fn comments_do_nothing() {
    for line in ["", "  ", "# { \"", "comment { \" anything", "comment"] {
        assert_eq!(run(line).unwrap(), "", "{line}");
    }
}

#[test]
fn a_bad_list_of_commands_is_refused_by_name() {
    let refused = |command: Command<Lab>| Registry::new([command]).err().unwrap().to_string();
    assert_eq!(
        refused(Command::new("a b", "<nothing>", "", record)),
        "command `a b': unknown type `nothing'"
    );
    assert_eq!(refused(Command::new("exec", "", "", record)), "command `exec': declared twice");
    assert_eq!(
        refused(Command::new("show x", "", "", record)),
        "command `show x': commands under `show' are declared with Command::show"
    );
    // What answers with a value may stand elsewhere too.
    assert!(Registry::new([Command::show("see x", "", "", show)]).is_ok());
    assert!(refused(Command::new("a  b", "", "", record)).ends_with("one blank between them"));
    assert_eq!(
        refused(Command::new("a", "b", "", record).arguments(&[("c", "")])),
        "command `a': help for `c', which the syntax does not have"
    );
}

#[test]
fn exec_runs_files_and_names_the_line() {
    let dir = std::env::temp_dir().join(format!("wharf-exec-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name).display().to_string();
        std::fs::write(&path, text).unwrap();
        path
    };
    let inner = file("inner", "clear interfaces\n\n set interface state memif0/0 sideways\nclear interfaces");
    let outer =
        file("outer", &format!("# two\nshow version --json\nshow version\nexec {inner}\nclear interfaces\n"));
    let mut lab = Lab::default();
    let mut out = Output::new();
    let error = registry().execute(&mut lab, &format!("exec {outer}"), &mut out).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{outer}:4: {inner}:3: set interface state: unknown input `sideways' (word 5), expected {{up|down}}"
        )
    );
    assert_eq!(lab.ran.len(), 1, "only the line before the failure ran");
    assert_eq!(out.as_str(), "{\n  \"name\": \"wharf\"\n}\nwharf v0\n");

    let own = dir.join("self").display().to_string();
    file("self", &format!("exec {own}\n"));
    let error = registry().execute(&mut lab, &format!("exec {own}"), &mut out).unwrap_err().to_string();
    assert!(error.ends_with("files call each other more than 8 deep (word 2)"), "{error}");
    assert_eq!(error.matches(&format!("{own}:1: ")).count(), 8);

    let missing = registry().execute(&mut lab, "exec /nonexistent", &mut out).unwrap_err().to_string();
    assert!(missing.starts_with("exec: /nonexistent: "), "{missing}");
    let device = registry().execute(&mut lab, "exec /dev/zero", &mut out).unwrap_err().to_string();
    assert_eq!(device, "exec: /dev/zero: not a regular file (word 2)");
    std::fs::remove_dir_all(&dir).unwrap();
}

fn completed(line: &str) -> Vec<String> {
    let lab = Lab::default();
    registry().complete(line, line.len(), &lab).candidates.into_iter().map(|c| c.text).collect()
}

#[test]
fn completion_by_position() {
    assert_eq!(completed("sh"), ["show"]);
    assert_eq!(completed("show in"), ["interface", "interrupts"]);
    assert_eq!(
        completed("show interface "),
        ["addr", "local0", "memif0/0", "memif0/1", "host-eth0", "--json", "<cr>"]
    );
    assert_eq!(completed("show interface m"), ["memif0/0", "memif0/1"]);
    assert_eq!(completed("show errors verbose "), ["<n>", "--json", "<cr>"]);
    assert_eq!(completed("show version --j"), ["--json"]);
    assert_eq!(
        completed("set interface state "),
        ["local0", "memif0/0", "memif0/1", "host-eth0", "up", "down"]
    );
    assert_eq!(completed("set interface state memif0/0 "), ["up", "down"]);
    assert_eq!(completed("set interface state memif0/0 up "), ["<cr>"]);
    assert_eq!(completed("create interface memif id "), ["<id>"]);
    assert_eq!(completed("create interface memif id 1 s"), ["socket-id", "slave", "secret"]);
    assert_eq!(
        completed("ip route add 10.0.0.0/8 via "),
        ["<next-hop>", "local0", "memif0/0", "memif0/1", "host-eth0", "drop", "local"]
    );
    assert_eq!(completed("ip route add 10.0.0.0/8 via 10.0.0.1 w"), ["weight"]);
    assert_eq!(completed("trace add ip4-"), ["ip4-input", "ip4-lookup"]);
    assert_eq!(completed("show foo "), Vec::<String>::new());
    assert_eq!(completed("create interface memif id x "), Vec::<String>::new());
    assert_eq!(completed("packet-generator new { na"), Vec::<String>::new());
}

#[test]
fn completion_inside_a_line_replaces_the_word() {
    let found = registry().complete("set int state m up", 15, &Lab::default());
    assert_eq!(found.start, 14);
    assert_eq!(found.words().collect::<Vec<_>>(), ["memif0/0", "memif0/1"]);
    let help = registry().complete("create interface memif id 0 ri", 30, &Lab::default());
    assert_eq!(help.candidates[0].help, "descriptors in a ring, a power of two");
    // A cursor inside a character or behind the end is not a reason to panic.
    registry().complete("sh\u{e9}", 3, &Lab::default());
    registry().complete("sh", 99, &Lab::default());
}

#[test]
fn help_lists_what_there_is() {
    let text = text_of("help create interface memif").unwrap();
    assert!(text.starts_with("create interface memif id <n> ["), "{text}");
    assert!(text.contains("descriptors in a ring"));
    assert!(text_of("help").unwrap().contains("set "));
    assert_eq!(text_of("help foo").unwrap_err(), "help: no command `foo' (word 2)");
}

proptest::proptest! {
    #[test]
    fn no_line_panics(line in "[a-z{}\"<,#/ 0-9.:-]{0,60}|(show|set|interface|ip|route|add|via|memif0/0|create|memif|id|state|mtu| |\\{|\\}|1|10\\.0\\.0\\.1/8|--json){0,12}", cursor in 0usize..80) {
        let registry = registry();
        let mut lab = Lab::default();
        let _ = registry.execute(&mut lab, &line, &mut Output::new());
        registry.complete(&line, cursor, &lab);
    }
}
