use super::*;
use crate::dataplane::Dataplane;
use crate::ip4::RouteSource;
use crate::span::SpanLayer;
use proptest::prelude::*;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use wharf_engine::EngineConfig;
use wharf_engine::buffer::PoolConfig;

/// One of each kind.
pub(crate) const ALL: &str = include_str!("all.toml");

/// A dataplane in a directory of its own, which goes with it.
pub(crate) struct Lab {
    dp: Dataplane,
    dir: PathBuf,
}

impl Deref for Lab {
    type Target = Dataplane;

    fn deref(&self) -> &Dataplane {
        &self.dp
    }
}

impl DerefMut for Lab {
    fn deref_mut(&mut self) -> &mut Dataplane {
        &mut self.dp
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn dataplane() -> Lab {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("wharf-config-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = EngineConfig { pool: PoolConfig::fixed(512), ..Default::default() };
    Lab { dp: Dataplane::start(&config, &dir, |_| {}).unwrap(), dir }
}

fn apply(dp: &mut Dataplane, text: &str) -> Vec<String> {
    lines(&dp.apply_config(Document::parse(text).unwrap()).unwrap())
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| format!("{} {step}", step.sign())).collect()
}

fn error(dp: &mut Dataplane, text: &str) -> String {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return error.to_string(),
    };
    dp.apply_config(document).unwrap_err().to_string()
}

#[test]
fn a_document_of_everything_makes_itself_again() {
    let mut dp = dataplane();
    let empty = dp.config();
    assert_eq!(empty, Document::default());
    assert_eq!(empty.to_toml().unwrap(), "");
    let steps = apply(&mut dp, ALL);
    let shown = dp.config();
    let toml = shown.to_toml().unwrap();
    // It says the same, read from TOML and from JSON, here and in another daemon.
    assert_eq!(Document::parse(&toml).unwrap(), shown, "{toml}");
    let json = serde_json::to_string(&shown).unwrap();
    assert_eq!(Document::parse(&json).unwrap(), shown);
    assert_eq!(apply(&mut dp, &toml), [""; 0]);
    assert_eq!(apply(&mut dp, ALL), [""; 0]);
    assert!(steps.len() > 60, "{steps:#?}");
    // All of it goes, and comes back.
    dp.apply_config(Document::default()).unwrap();
    assert_eq!(dp.config(), Document::default());
    apply(&mut dp, &toml);
    assert_eq!(dp.config(), shown);
    dp.shut_down();
    let mut other = dataplane();
    other.apply_config(shown.clone()).unwrap();
    assert_eq!(other.config(), shown);
    other.shut_down();
}

#[test]
fn the_example_of_the_manual_is_one() {
    let manual = include_str!("document.rs");
    let (_, rest) = manual.split_once("//! ```toml\n").unwrap();
    let (example, _) = rest.split_once("//! ```").unwrap();
    let text: String = example.lines().map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect();
    let mut dp = dataplane();
    let text = text.replace("/run/wharf", dp.dir.to_str().unwrap());
    let mut document = Document::parse(&text).unwrap();
    document.check().unwrap();
    // The Linux interface is not there.
    document.interface.remove("eth0/0");
    dp.apply_config(document).unwrap();
    dp.shut_down();
}

#[test]
fn only_what_changes_is_touched() {
    let mut dp = dataplane();
    apply(&mut dp, ALL);
    let old = dp.config();
    let changed = |change: fn(&mut Document)| {
        let mut new = old.clone();
        change(&mut new);
        let mut back = new.clone();
        let there = lines(&dp.plan_config(&mut new).unwrap());
        back.check().unwrap();
        (there, lines(&plan(&back, &old)))
    };
    let only = |line: &str| vec![line.to_owned()];
    let (there, back) = changed(|d| d.interface.get_mut("memif1/0").unwrap().mtu = Some(1400));
    assert_eq!(there, only("~ set interface mtu 1400 memif1/0"));
    assert_eq!(back, only("~ set interface mtu 1450 memif1/0"));
    let (there, back) = changed(|d| {
        let route = RouteWords::Drop;
        d.route.get_mut(&Text(0)).unwrap().insert(Text("10.9.0.0/16".parse().unwrap()), Text(route));
    });
    assert_eq!(there, only("+ ip route add 10.9.0.0/16 via drop"));
    assert_eq!(back, only("- ip route del 10.9.0.0/16"));
    let (there, _) = changed(|d| {
        let route = d.route.get_mut(&Text(0)).unwrap().values_mut().next().unwrap();
        *route = Text(RouteWords::Punt);
    });
    assert_eq!(there, only("~ ip route add 0.0.0.0/0 via punt"));
    let (there, _) = changed(|d| d.interface.get_mut("pg0").unwrap().bridge.as_mut().unwrap().shg = 9);
    assert_eq!(there, only("~ set interface l2 bridge pg0 5 9"));
    let (there, _) = changed(|d| {
        d.bridge_domain.get_mut(&Text(5)).unwrap().learn = true;
    });
    assert_eq!(there.len(), 1, "{there:?}");
    // The second address goes without the first.
    let (there, back) = changed(|d| d.interface.get_mut("memif1/0").unwrap().addresses.truncate(1));
    assert_eq!(there, only("- set interface ip address del memif1/0 198.51.100.1/24"));
    assert_eq!(back, only("+ set interface ip address memif1/0 198.51.100.1/24"));
    // The first one does not take the second along.
    let (there, _) = changed(|d| {
        d.neighbor.remove("memif1/0");
        d.interface.get_mut("memif1/0").unwrap().addresses.remove(0);
    });
    let go = ["- ip neighbor del memif1/0 192.0.2.2", "- set interface ip address del memif1/0 192.0.2.1/24"];
    assert!(
        there.iter().all(|line| line.starts_with("- ip neighbor") || go.contains(&line.as_str())),
        "{there:?}"
    );
    dp.shut_down();
}

#[test]
fn an_interface_of_another_type_is_made_anew_with_all_that_hangs_on_it() {
    let mut dp = dataplane();
    apply(&mut dp, ALL);
    let mut new = dp.config();
    let Some(InterfaceConfig { kind: InterfaceType::Memif(memif), .. }) = new.interface.get_mut("memif1/0")
    else {
        panic!("no memif")
    };
    memif.ring_size = 256;
    let others: Vec<_> = dp.interfaces.iter().filter(|(_, r)| r.name == "pg0").map(|(i, _)| *i).collect();
    dp.apply_config(new.clone()).unwrap();
    assert_eq!(dp.config(), new);
    assert_eq!(dp.find_interface("pg0"), others.first().copied(), "it was left alone");
    dp.shut_down();
}

#[test]
fn errors_name_the_key_and_the_value() {
    let mut dp = dataplane();
    for (text, wanted) in [
        ("interfaces = 1", "unknown field `interfaces`"),
        (
            "[interface.loop0]\ntype = \"loopback\"\nmtu = \"big\"",
            "interface.loop0.mtu: invalid type: string \"big\", expected u32 (line 3)",
        ),
        ("[interface.loop0]\ntype = \"loop\"", "interface.loop0.type: unknown variant `loop`"),
        (
            "[interface.loop0]\ntype = \"loopback\"\ncolour = 1",
            "interface.loop0.colour: unknown field `colour`",
        ),
        (
            "[interface.lo]\ntype = \"loopback\"",
            "interface.lo: the name of such an interface is loopN, got `lo'",
        ),
        (
            "[interface.loop0]\ntype = \"loopback\"\nmac = \"1\"",
            "interface.loop0.mac: `1' is not a MAC address",
        ),
        (
            "[interface.loop0]\ntype = \"loopback\"\ntable = 7",
            "interface.loop0.table: table 7 is not in `tables'",
        ),
        (
            "[interface.loop0]\ntype = \"loopback\"\nmtu = 1",
            "interface.loop0.mtu: the MTU is at least 68, got 1",
        ),
        ("[interface.loop0]\ntype = \"loopback\"\nlearn = false", "interface.loop0: learn, forward"),
        ("[interface.\"pg0.7\"]\ntype.sub = \"dot1q 7\"", "interface.pg0.7: there is no [interface.\"pg0\"]"),
        ("[interface.\"memif3/0\"]\ntype.memif = { role = \"server\" }", "there is no [memif-socket.3]"),
        (
            "[interface.\"memif0/0\"]\ntype.memif = { role = \"server\", secret = \"***\" }",
            "interface.memif0/0.type.memif.secret: `***' stands for",
        ),
        ("[route.0]\n\"10.0.0.1/8\" = \"drop\"", "route.0.\"10.0.0.1/8\"|`10.0.0.1/8' is not an IPv4 prefix"),
        ("[route.0]\n\"10.0.0.0/8\" = \"via 1.1.1.1 x\"", "route.0.10.0.0.0/8: there is no interface `x'"),
        ("[route.5]\n\"10.0.0.0/8\" = \"drop\"", "route.5: table 5 is not in `tables'"),
        ("[acl.0]\nrules = [\"ipv4 allow\"]", "acl.0.rules[0]: `ipv4 allow' is not a rule"),
        ("[l2fib.1]\n\"02:00:00:00:00:01\" = \"filter\"", "l2fib.1: there is no [bridge-domain.1]"),
        (
            "[settings]\nsession-udp-idle = 0",
            "settings.session-udp-idle: a timeout is at least 1 second, got 0",
        ),
        ("a = = 1", "(line 1)"),
        (
            "{\"interface\": {\"loop0\": {\"type\": \"loopback\", \"mtu\": -1}}}",
            "interface.loop0.mtu: invalid value: integer `-1`",
        ),
        ("{} x", "trailing characters"),
        ("[interface.loop0]\ntype = \"loopback\"\n[interface.loop0]\ntype = \"loopback\"", "duplicate key"),
        (
            "[interface.loop0]\ntype = \"loopback\"\nmtu = 60000",
            "~ set interface mtu 60000 loop0: the MTU must be from 68 to",
        ),
    ] {
        let got = error(&mut dp, text);
        assert!(
            wanted.trim_start_matches("~ ").split('|').any(|wanted| got.contains(wanted)),
            "{text}\n  {got}"
        );
        assert_eq!(dp.config(), Document::default());
    }
    dp.shut_down();
}

/// A step in the middle fails: everything is as it was, and the interfaces are the same ones.
#[test]
fn what_fails_half_way_is_undone() {
    let mut dp = dataplane();
    apply(&mut dp, ALL);
    let before = dp.config();
    let breakers: [fn(&mut Document); 4] = [
        |d| d.interface.get_mut("memif1/0").unwrap().mtu = Some(65_000),
        // Two of one subnet in one table.
        |d| {
            let address = Text(InterfaceAddress([192, 0, 2, 77].into(), 24));
            let loop9 =
                d.interface.entry("loop9".into()).or_insert(InterfaceConfig::new(InterfaceType::Loopback));
            loop9.addresses.push(address);
        },
        |d| {
            let rule = Text(Words::read("ipv4 permit proto 6 sport 9-3").unwrap());
            d.acl.insert(Text(77), Acl { tag: String::new(), rules: vec![rule] });
        },
        |d| {
            let mac = Text("01:00:00:00:00:01".parse().unwrap());
            d.arp_entry.entry(Text(5)).or_default().insert([10, 0, 0, 99].into(), mac);
        },
    ];
    for (number, breaks) in breakers.into_iter().enumerate() {
        // With as much else as can be: all goes that is in no breaker's way, and something new comes.
        for much in [false, true] {
            let mut new = before.clone();
            if much {
                new.interface.retain(|name, _| ["memif1/0", "pg0", "loop0"].contains(&name.as_str()));
                new.interface.values_mut().for_each(|i| {
                    (i.xconnect, i.span, i.l2_span) = Default::default();
                });
                new.interface.insert("pg44".into(), InterfaceConfig::new(InterfaceType::Pg(Pg::default())));
                new.route.clear();
                new.l2fib.clear();
                new.neighbor.retain(|name, _| name == "memif1/0");
                new.settings.neighbor_age = 7;
            }
            breaks(&mut new);
            let error = dp.apply_config(new).unwrap_err().to_string();
            assert!(error.ends_with("; nothing was changed"), "{number}: {error}");
            let after = dp.config();
            assert_eq!(after, before, "{number} {much}");
        }
    }
    dp.shut_down();
}

#[test]
fn secrets_are_hidden_and_kept() {
    let mut dp = dataplane();
    apply(&mut dp, ALL);
    let hidden = dp.config().without_secrets().to_toml().unwrap();
    assert!(!hidden.contains("open sesame") && hidden.contains("secret = \"***\""), "{hidden}");
    assert!(dp.config().to_toml().unwrap().contains("open sesame"));
    assert_eq!(apply(&mut dp, &hidden), [""; 0]);
    for bytes in [&b"plain"[..], b"***", b"hex:00", b"\xff\x01", &[7; 24]] {
        let text = check::write_secret(bytes);
        assert_eq!(check::read_secret(&text).as_deref(), Some(bytes), "{text}");
    }
    dp.shut_down();
}

/// What is learned is no configuration.
#[test]
fn routes_of_addresses_and_neighbours_are_not_in_it() {
    let mut dp = dataplane();
    apply(&mut dp, ALL);
    let config = dp.config();
    let routes = dp.fibs[&0].routes();
    let own = routes.iter().filter(|(_, r)| r.ways().all(|way| way.source != RouteSource::Cli)).count();
    assert!(own > 0);
    assert_eq!(config.route[&Text(0)].len(), routes.len() - own);
    dp.shut_down();
}

// ------------------------------------------------------------------------------------ random documents

fn subset<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let len = all.len();
    prop::sample::subsequence(all, 0..=len)
}

/// A part of the document of everything: what refers to a part that is not there is left out too.
fn part() -> impl Strategy<Value = Document> {
    let whole = Document::parse(ALL).unwrap();
    let names: Vec<String> = whole.interface.keys().cloned().collect();
    let twists = prop::collection::vec(any::<u32>(), names.len());
    (subset(names), twists, subset(vec![0u32, 1, 2, 3, 4, 5, 6, 7]), any::<u32>()).prop_map(
        move |(names, twists, parts, dice)| {
            let mut d = whole.clone();
            d.interface.retain(|name, _| names.contains(name));
            for (config, twist) in d.interface.values_mut().zip(twists) {
                twist_interface(config, twist);
            }
            for part in parts {
                match part {
                    0 => d.route.clear(),
                    1 => d.neighbor.clear(),
                    2 => d.l2fib.clear(),
                    3 => d.arp_entry.clear(),
                    4 => d.settings = Settings::default(),
                    5 => d.bridge_domain.values_mut().for_each(|domain| domain.flood = !domain.flood),
                    6 => d
                        .acl
                        .values_mut()
                        .filter(|acl| acl.tag.is_empty())
                        .for_each(|acl| acl.rules.truncate(1)),
                    _ => d.route.values_mut().for_each(|routes| {
                        routes.retain(|prefix, _| dice >> (prefix.0.to_bits() >> 16 & 7) & 1 != 0);
                        routes.values_mut().take(2).for_each(|route| *route = Text(RouteWords::Drop));
                    }),
                }
            }
            prune(&mut d);
            d
        },
    )
}

fn twist_interface(config: &mut InterfaceConfig, twist: u32) {
    let on = |bit: u32| twist >> bit & 1 != 0;
    config.up ^= on(0);
    if on(1) {
        config.addresses.reverse();
    }
    if on(2) {
        config.addresses.clear();
    }
    if on(3) && on(4) {
        config.bridge = None;
        config.xconnect = None;
        config.reset_l2();
    }
    if let Some(bridge) = config.bridge.as_mut().filter(|_| on(5)) {
        bridge.shg ^= 3;
        if on(6) {
            bridge.domain = 6;
        }
    }
    if on(7) {
        config.acl_input.clear();
    }
    if on(8) {
        config.span.clear();
        config.l2_span.clear();
    }
    if let InterfaceType::Memif(memif) = &mut config.kind {
        memif.ring_size = if on(9) { 512 } else { 1024 };
    }
    if on(10) {
        config.mtu = Some(1300 + twist % 100);
    }
    if on(11) {
        config.tag = format!("tag {}", twist % 7);
    }
    // loop1 has the address of memif1/0 in the other table.
    let twin = config.addresses.contains(&Text(InterfaceAddress([192, 0, 2, 1].into(), 24)));
    if on(12) && config.table == 0 && !config.is_l2() && !twin {
        config.table = 10;
    }
}

/// Leaves out what refers to something that is not there.
fn prune(d: &mut Document) {
    loop {
        let before = d.clone();
        let names: Vec<String> = d.interface.keys().cloned().collect();
        let there = |name: &str| names.iter().any(|n| n == name);
        d.interface.retain(|name, config| check::part_of(name, &config.kind).is_none_or(there));
        for config in d.interface.values_mut() {
            SpanLayer::ALL.iter().for_each(|layer| config.spans_mut(*layer).retain(|to, _| there(to)));
            if config.xconnect.as_ref().is_some_and(|peer| !there(peer)) {
                config.xconnect = None;
                config.reset_l2();
            }
        }
        let mut bvis = std::collections::BTreeSet::new();
        d.interface.retain(|_, config| config.bvi().is_none_or(|domain| bvis.insert(domain)));
        d.neighbor.retain(|name, _| there(name));
        for routes in d.route.values_mut() {
            routes.retain(|_, route| route.0.interface().is_none_or(there));
        }
        let ports = d.interface.clone();
        for (domain, macs) in &mut d.l2fib {
            macs.retain(|_, name| {
                name == "filter"
                    || ports.get(name).and_then(|c| c.bridge).is_some_and(|b| b.domain == domain.0)
            });
        }
        if *d == before {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    /// From any configuration to any other, and back, and to what a daemon that starts with it has.
    #[test]
    fn any_document_leads_to_any_other(documents in prop::collection::vec(part(), 2..5)) {
        let mut dp = dataplane();
        let file = dp.runtime_dir.join("journal");
        dp.record_config(&file).unwrap();
        let mut seen: Vec<Document> = Vec::new();
        for document in documents.iter().chain(documents.first()) {
            dp.apply_config(document.clone()).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let there = dp.config();
            dp.record_changes_now();
            let recorded = journal::replay(&std::fs::read(&file).unwrap()).document;
            prop_assert_eq!(recorded.as_ref(), Some(&there));
            let mut wanted = document.clone();
            prop_assert_eq!(lines(&dp.plan_config(&mut wanted).unwrap()), Vec::<String>::new());
            seen.push(there);
        }
        // What was shown leads back to where it was shown, MAC addresses and all.
        for document in seen.into_iter().rev() {
            dp.apply_config(document.clone()).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(dp.config(), document);
        }
        dp.shut_down();
    }
}
