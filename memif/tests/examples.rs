//! The example programs together: packets out of the generator, over the bridge, into a pcap file.

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::example;

struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn generate_bridge_dump() {
    let file = std::env::temp_dir().join(format!("memif-examples-{}.pcap", std::process::id()));
    let socket = |name| format!("@memif-examples-{}-{name}", std::process::id());
    let (a, b) = (socket("a"), socket("b"));
    let _bridge = Background::start(
        Command::new(example("bridge")).args([format!("server:3:{a}"), format!("server:0:{b}")]),
    );
    let mut dump =
        Background::start(Command::new(example("pcap_dump")).arg(format!("client:0:{b}")).arg(&file));
    let _generate = Background::start(
        Command::new(example("generate")).arg(format!("client:3:{a}")).args(["5000", "100"]),
    );
    let start = Instant::now();
    while std::fs::metadata(&file).map_or(0, |m| m.len()) < 24 + 100 * 116 {
        assert!(start.elapsed() < Duration::from_secs(30), "no packets");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&dump.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(dump.0.wait().unwrap().success());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), bytes[4..8] == [2, 0, 4, 0] || bytes[4..8] == [0, 2, 0, 4]), (0xa1b2_c3d4, true));
    assert_eq!((word(16), word(20)), (9216, 1));
    assert_eq!((bytes.len() - 24) % 116, 0);
    for record in bytes[24..].chunks(116) {
        assert_eq!(record[8..16], [100u32.to_ne_bytes(), 100u32.to_ne_bytes()].concat());
        assert_eq!(record[16..22], [0xff; 6]);
        assert_eq!(record[28..32], [8, 0, 0x45, 0]);
        assert_eq!(record[42..50], [198, 18, 0, 1, 198, 18, 0, 2]);
    }
}
