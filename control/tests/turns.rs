//! What is long is done in short turns: nobody waits for more than a piece of it.

use wharf_control::access::Rights;
use wharf_control::api::modules::acl::AclInterfaceAddDel;
use wharf_control::api::modules::ip::{IpRouteDump, IpTable, IpTableAddDel, IpTableFlush};
use wharf_control::api::modules::types::InterfaceIndex;
use wharf_control::api::testing::Loopback;
use wharf_control::cli::{CliError, Executor, Hold, Output, Session, Work};
use wharf_control::commands::registry;
use wharf_control::dataplane::Dataplane;

const MANY: usize = 50_000;
/// Routes that a turn may add, remove or show.
const PIECE: usize = 2048;

/// Gives turns, and keeps what each of them did to the number of routes and to the output.
struct Turns<'a> {
    lab: &'a Loopback,
    taken: usize,
    most: usize,
}

fn routes(dataplane: &Dataplane) -> usize {
    dataplane.routes(0)
}

impl Hold<Dataplane> for Turns<'_> {
    fn rights(&self) -> Rights {
        Rights::ReadWrite
    }

    fn with(
        &mut self,
        _: Rights,
        work: &mut Work<'_, Dataplane>,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        let mut dataplane = self.lab.dataplane();
        let before = routes(&dataplane);
        let done = work(&mut dataplane, out);
        self.taken += 1;
        self.most = self.most.max(routes(&dataplane).abs_diff(before));
        done
    }
}

#[test]
fn long_commands_take_many_short_turns() {
    let lab = Loopback::start().unwrap();
    let registry = registry().unwrap();
    for line in [
        format!("ip route add count {MANY} 16.0.0.0/28 via drop"),
        "show ip fib".into(),
        format!("ip route del count {MANY} 16.0.0.0/28"),
        "create loopback interface".into(),
        format!("ip route add count {MANY} 16.0.0.0/28 via loop0"),
        "delete loopback interface intfc loop0".into(),
    ] {
        let mut turns = Turns { lab: &lab, taken: 0, most: 0 };
        let mut out = Output::new();
        registry.execute_on(&mut turns, &line, &mut out).unwrap();
        assert!(turns.most <= PIECE, "{line}: {}", turns.most);
        assert!(turns.taken > MANY / PIECE || line.starts_with("create"), "{line}: {}", turns.taken);
        if line.starts_with("show") {
            assert_eq!(out.as_str().matches("dpo-drop").count(), MANY, "each is shown once");
        }
    }
    assert_eq!(routes(&lab.dataplane()), 0);
}

/// The server's turns of one client end when its time is over; between two of them others are answered.
#[test]
fn another_client_is_answered_in_the_midst_of_a_dump_and_a_flush() {
    let mut lab = Loopback::start().unwrap();
    lab.command(&format!("ip route add count {MANY} 16.0.0.0/28 via drop")).unwrap();
    let table = IpTable::default();
    let requests =
        [lab.encode(&IpRouteDump { table: table.clone() }, 0), lab.encode(&IpTableFlush { table }, 1)];
    let (answers, pings) = lab.exchange_beside(&requests).unwrap();
    assert_eq!(answers.len(), MANY + 1);
    lab.check_answers(&requests, &answers).unwrap();
    assert!(pings > 10, "{pings} pings of the other one were answered meanwhile");
    assert_eq!(routes(&lab.dataplane()), 0);
}

/// So many routes.
fn document(routes: usize) -> String {
    let mut text = String::from("[route.0]\n");
    for n in 0..routes {
        text += &format!("\"{}.{}.{}.0/24\" = \"drop\"\n", 16 + (n >> 16), n >> 8 & 255, n & 255);
    }
    text
}

/// While a configuration is applied, others see the half of it, and change nothing.
#[test]
fn an_apply_lets_others_look_and_has_writers_wait() {
    let mut lab = Loopback::start().unwrap();
    let file = lab.dir().join("all.toml");
    std::fs::write(&file, document(MANY)).unwrap();
    let apply = format!("config apply {}", file.display());
    let shell = lab.shell();
    let applying = std::thread::spawn(move || shell.execute(&apply, &Session::detached(Rights::ReadWrite)));
    // A client of the API asks for a table: it comes behind all that the document says, or in front.
    let mut seen = 0;
    while !applying.is_finished() {
        let now = routes(&lab.dataplane());
        if now > 0 && now < MANY && seen == 0 {
            seen = now;
            let add = IpTableAddDel { is_add: true, table: IpTable { table_id: 7, ..IpTable::default() } };
            lab.auto(&add).unwrap();
            assert_eq!(routes(&lab.dataplane()), MANY, "a writer has come between");
        }
    }
    assert_eq!(applying.join().unwrap().error, None);
    assert!(seen > 0, "the document was applied in one turn");
    assert_eq!(lab.command("show ip table").unwrap().lines().count(), 2);
}

/// The compilation of lists holds nobody up, and what is compiled is what is asked for.
#[test]
fn lists_are_compiled_between_two_turns() {
    let mut lab = Loopback::start().unwrap();
    lab.command("create loopback interface").unwrap();
    let rule = |n: usize| format!("permit src 10.{}.{}.0/24 proto 17 dport {n}-{}", n >> 8, n & 255, n + 500);
    let rules = |from: usize| (from..from + 2000).map(rule).collect::<Vec<_>>().join(", ");
    lab.command(&format!("set acl-plugin acl {}", rules(0))).unwrap();
    let before =
        lab.command("acl explain loop0 input src 10.1.1.1 dst 1.1.1.1 proto 17 sport 1 dport 300").unwrap();
    let apply =
        AclInterfaceAddDel { is_add: true, is_input: true, sw_if_index: InterfaceIndex(1), acl_index: 0 };
    let (answers, _) = lab.exchange_beside(&[lab.encode(&apply, 0)]).unwrap();
    lab.check_answers(&[lab.encode(&apply, 0)], &answers).unwrap();
    let explain = || {
        lab.command("acl explain loop0 input src 10.1.1.1 dst 1.1.1.1 proto 17 sport 1 dport 300").unwrap()
    };
    assert_ne!(explain(), before);
    let with = explain();
    lab.command(&format!("set acl-plugin acl index 0 {}", rules(5000))).unwrap();
    assert_ne!(explain(), with);
}
