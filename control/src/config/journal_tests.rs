use super::journal::{Journal, replay};
use super::tests::{ALL, dataplane};
use super::*;
use crate::dataplane::Dataplane;
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file in a directory that goes with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("wharf-journal-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lines of the CLI, as they come over its socket.
fn run(dp: &mut Dataplane, line: &str) {
    let registry = crate::commands::registry().unwrap();
    let mut out = crate::cli::Output::new();
    registry.execute(dp, line, &mut out).unwrap_or_else(|error| panic!("{line}: {error}"));
    dp.record_changes_now();
}

/// Each command, and its opposite where it has one.
const COMMANDS: &str = "
    create loopback interface
    set interface ip address loop0 10.0.0.1/24
    set interface state loop0 up
    create packet-generator interface pg0
    create packet-generator interface pg1
    set interface mac address pg0 02:00:00:00:00:33
    set interface mtu 1400 pg0
    set interface rx-mode pg0 polling
    set interface rx-mode pg0 queue 0 interrupt
    set interface rx-placement pg0 queue 0 worker 0
    set interface feature pg0 macip-acl arc device-input
    set interface tag pg0 seven
    clear interfaces tag pg0
    create loopback interface
    delete interface loop1
    ip table add 8
    ip table del 8
    ip table add 7
    ip route add 10.1.0.0/16 via 10.0.0.2 loop0
    ip route add count 20 10.2.0.0/24 via drop
    ip route del 10.2.5.0/24
    ip route add 10.1.0.0/16 table 7 via punt
    ip neighbor loop0 10.0.0.2 02:00:00:00:00:02 static
    ip neighbor loop0 10.0.0.3 02:00:00:00:00:03 static no-fib-entry
    ip neighbor del loop0 10.0.0.3
    set ip neighbor loop0 10.0.0.3 02:00:00:00:00:03 static
    set ip neighbor del loop0 10.0.0.3
    create bridge-domain 5 learn 0 mac-age 7
    set bridge-domain flood 5 disable
    set bridge-domain learn 5
    set bridge-domain forward 5 disable
    set bridge-domain uu-flood 5 disable
    set bridge-domain arp term 5
    set bridge-domain mac-age 5 9
    set bridge-domain learn-limit 5 77
    set bridge-domain arp entry 5 10.0.0.9 02:00:00:00:00:09
    set bridge-domain arp entry 5 10.0.0.8 02:00:00:00:00:08
    set bridge-domain arp entry 5 10.0.0.8 02:00:00:00:00:08 del
    set interface l2 bridge pg0 5 3
    set interface l2 learn pg0 disable
    set interface l2 forward pg0 disable
    set interface l2 flood pg0 disable
    set interface l2 learn-limit pg0 9
    set interface l2 tag-rewrite pg0 push dot1q 9
    l2fib add 02:00:00:00:00:07 5 pg0
    l2fib add 02:00:00:00:00:08 5 filter
    l2fib del 02:00:00:00:00:08 5
    create sub-interfaces pg1 7
    set interface ip table pg1.7 7
    set interface span pg1 destination pg0 both
    set interface span pg0 l2 destination pg1 rx
    set acl-plugin acl permit+reflect proto 6 dport 80, deny
    set acl-plugin acl index 0 permit
    set acl-plugin acl deny
    delete acl-plugin acl index 1
    set acl-plugin interface pg0 input acl 0
    set acl-plugin etype-whitelist pg0 output 2054
    set acl-plugin macip acl permit mac 02:00:00:00:00:01
    set acl-plugin macip interface pg0 0
    set acl-plugin macip acl deny
    delete acl-plugin macip acl index 1
    set acl-plugin session timeout udp idle 99
    set acl-plugin session timeout tcp idle 1800
    set acl-plugin session timeout tcp transient 31
    set acl-plugin session table max-entries 2048
    set ip neighbor-config ip4 age 77
    create memif socket id 3 filename three.sock allow-uid 7
    create memif socket id 4 filename four.sock
    delete memif socket id 4
    create interface memif id 1 socket-id 3 master secret s3cret
    create interface memif id 2 socket-id 3 master
    delete interface memif memif3/2
    create vxlan tunnel src 10.0.0.1 dst 10.0.0.2 vni 9
    set interface l2 bridge vxlan_tunnel0 6 1
    set interface l2 xconnect memif3/1 pg1
    set interface l3 memif3/1
    create bridge-domain 9
    set bridge-domain arp entry 9 10.0.0.8 02:00:00:00:00:08
    l2fib add 02:00:00:00:00:08 9 filter
    create bridge-domain 9 del
    create bridge-domain 9
    set interface l2 bridge pg0 9
    delete sub-interface pg1.7
    delete packet-generator interface pg1
    create packet-generator interface pg1
    set interface ip address del loop0 10.0.0.1/24
    delete loopback interface intfc loop0
    create loopback interface
";

/// Commands that set nothing that is there after a restart: they act, count from zero, look at packets, or are about all of the
/// configuration. And those of Linux interfaces, which `cli/tests` tries.
const NOT_KEPT: [&str; 26] = [
    "api trace",
    "clear acl-plugin sessions",
    "clear errors",
    "clear interfaces",
    "clear l2fib",
    "clear logging",
    "clear node counters",
    "clear runtime",
    "clear trace",
    "config apply",
    "config save",
    "create interface af_xdp",
    "delete interface af_xdp",
    "exec",
    "l2fib flush-mac all",
    "l2fib flush-mac bridge-domain",
    "l2fib flush-mac interface",
    "packet-generator capture",
    "packet-generator delete",
    "packet-generator disable-stream",
    "packet-generator enable-stream",
    "packet-generator new",
    "pcap trace",
    "ping",
    // Unicast ARP never goes to the port for unknown addresses.
    "set bridge-domain arp-ufwd",
    "trace add",
];

#[test]
fn what_each_command_sets_is_in_the_document() {
    let registry = crate::commands::registry().unwrap();
    let paths = || registry.entries.iter().map(|entry| entry.command.path);
    let command = |line: &str| {
        let begins = |path: &&str| {
            line.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        paths().filter(begins).max_by_key(|path| path.len())
    };
    let tried: Vec<&str> = COMMANDS.lines().filter_map(|line| command(line.trim())).collect();
    for entry in &registry.entries {
        let path = entry.command.path;
        let known = entry.command.looks() || NOT_KEPT.contains(&path);
        assert!(tried.contains(&path) != known, "`{path}' is tried: {}", tried.contains(&path));
    }
}

/// After each command the journal says what there is: read as it is, and after a restart.
#[test]
fn each_command_is_recorded() {
    let place = Place::new();
    let mut dp = dataplane();
    dp.record_config(&place.file()).unwrap();
    for line in COMMANDS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run(&mut dp, line);
        let replayed = replay(&fs::read(place.file()).unwrap());
        assert_eq!(replayed.document.as_ref(), Some(&dp.config()), "after {line}");
    }
    dp.apply_config(Document::parse(ALL).unwrap()).unwrap();
    dp.record_changes_now();
    let there = dp.config();
    // What goes when the daemon ends stays in the journal.
    dp.shut_down();
    let mut next = dataplane();
    assert!(next.restore_config(&place.file()).unwrap());
    assert_eq!(next.config(), there);
    next.record_config(&place.file()).unwrap();
    let text = fs::read_to_string(place.file()).unwrap();
    assert_eq!(text.lines().count(), 1, "it begins anew");
    next.shut_down();
}

/// A journal with some records, and what each of its lines made of the configuration.
fn some(place: &Place) -> (Vec<u8>, Vec<Document>) {
    let mut dp = dataplane();
    dp.record_config(&place.file()).unwrap();
    let mut states = vec![dp.config()];
    for line in COMMANDS.lines().map(str::trim).filter(|line| !line.is_empty()).take(12) {
        run(&mut dp, line);
        states.push(dp.config());
    }
    dp.apply_config(Document::parse(ALL).unwrap()).unwrap();
    dp.record_changes_now();
    states.push(dp.config());
    dp.shut_down();
    (fs::read(place.file()).unwrap(), states)
}

/// Cut at any byte: as it was after the last record that is whole, nothing half.
#[test]
fn a_torn_tail_is_dropped() {
    let place = Place::new();
    let (bytes, states) = some(&place);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, states.len(), "one command, one record; one apply, one record");
    for cut in 0..=bytes.len() {
        let torn = &bytes[..cut];
        let whole = torn.iter().filter(|byte| **byte == b'\n').count();
        let replayed = replay(torn);
        assert_eq!(
            replayed.document.as_ref(),
            whole.checked_sub(1).map(|last| &states[last]),
            "cut at {cut}"
        );
        assert!(!replayed.damaged);
    }
}

/// Any bit of any byte changed: the records before it count, and no others.
#[test]
fn a_changed_byte_is_noticed() {
    let place = Place::new();
    let (bytes, states) = some(&place);
    let mut line = 0usize;
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let replayed = replay(&changed);
            let wanted = line.checked_sub(1).map(|last| &states[last]);
            assert_eq!(replayed.document.as_ref(), wanted, "bit {bit} of byte {at}");
        }
        line += usize::from(bytes[at] == b'\n');
    }
    // Such a file is kept.
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    fs::write(place.file(), &changed).unwrap();
    Journal::read(&place.file()).unwrap();
    assert_eq!(fs::read(place.0.join("journal.damaged")).unwrap(), changed);
}

#[test]
fn what_is_no_journal_is_kept_and_not_read() {
    let place = Place::new();
    fs::write(place.file(), "precious").unwrap();
    assert!(Journal::read(&place.file()).unwrap().is_none());
    assert_eq!(fs::read_to_string(place.0.join("journal.damaged")).unwrap(), "precious");
    assert!(Journal::read(&place.0.join("none")).unwrap().is_none());
}

/// An interface that can't be made any more does not take the rest along.
#[test]
fn what_cannot_be_any_more_is_left_out() {
    let place = Place::new();
    let mut document = Document::parse(
        "[interface.loop0]\ntype = \"loopback\"\n[interface.\"gone/0\"]\ntype.af-xdp = { host-if = \"wharf-none\" }\n\
         [interface.\"gone/0.5\"]\ntype.sub = \"dot1q 5\"\n[route.0]\n\"10.0.0.0/8\" = \"via 10.0.0.1 gone/0.5\"\n\
         \"11.0.0.0/8\" = \"drop\"",
    )
    .unwrap();
    document.check().unwrap();
    drop(Journal::start(&place.file(), &document).unwrap());
    let mut dp = dataplane();
    assert!(dp.restore_config(&place.file()).unwrap());
    let there = dp.config();
    assert_eq!(there.interface.keys().collect::<Vec<_>>(), ["loop0"]);
    assert_eq!(there.route[&Text(0)].len(), 1);
    assert!(place.0.join("journal.refused").exists());
    dp.shut_down();
}

/// A journal that grows is made short, and loses nothing of what is written meanwhile.
#[test]
fn a_long_journal_is_made_short() {
    let place = Place::new();
    let mut dp = dataplane();
    dp.record_config(&place.file()).unwrap();
    let mut longest = 0;
    let len = || fs::metadata(place.file()).unwrap().len();
    for round in 0..60 {
        for verb in ["add", "del"] {
            run(
                &mut dp,
                &format!(
                    "ip route {verb} count 2000 10.{round}.0.0/28 {}",
                    if verb == "add" { "via drop" } else { "" }
                ),
            );
        }
        run(&mut dp, &format!("ip route add 172.16.{round}.0/24 via drop"));
        longest = longest.max(len());
    }
    assert!(longest > 4 << 20, "the test writes too little: {longest}");
    // The thread and main have to agree, some turns of main long.
    let start = std::time::Instant::now();
    for round in 0.. {
        if len() < longest / 4 {
            break;
        }
        assert!(start.elapsed().as_secs() < 60, "{} of {longest}", len());
        run(&mut dp, &format!("ip route add 172.17.{}.0/24 via drop", round % 256));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let there = dp.config();
    dp.shut_down();
    let replayed = replay(&fs::read(place.file()).unwrap());
    assert_eq!(replayed.document, Some(there));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tail in ".*") {
        let _ = replay(&bytes);
        let _ = Document::parse(&tail);
    }
}
